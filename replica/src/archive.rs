//! What long-term storage holds of a group: its log as a chain of rounds, its state as checkpoints.
//!
//! A **round** archives a contiguous range of a group's committed and applied log. Its *packed
//! objects* hold the payload, grouped by owner (a segment, say), so that what is read together lies
//! together; its *footer* holds a header for every index of the range with all that apply reads,
//! where each run of payload lies, and the round that it continues. A checkpoint and the gapless
//! chain of rounds behind it are a prefix of the log that can be replayed.
//!
//! A **checkpoint** is the state at a log index: *chunks* with sorted keys and values, and the
//! checkpoint itself, which names them.
//!
//! This module turns entries and pairs into objects and objects into what they say; it does no I/O
//! and decides nothing: not when a round is made, nor what is collected. Every object is checked
//! as a whole before anything of it is believed, and a single changed or missing bit is found.
//!
//! Nothing in the running product calls it yet. Tiering will build rounds for the containers and
//! the controller's group alike and commit where their runs lie; the checkpoint thread will write
//! checkpoints; the read path will check the runs that it fetches; recovery and the installation
//! of replicas will read all of it back.
//!
//! Objects are named by [`lts::ObjectName`]. Those of a round bear the term under which it was made
//! and follow one another in sequence, the footer last: it is put when the others are there, and
//! deleted before them.

mod checkpoint;
mod error;
mod fields;
mod footer;
mod frame;
mod header;
mod packed;
mod packer;
mod round;
mod runs;
#[cfg(test)]
mod tests;

pub use checkpoint::{
    Checkpoint, CheckpointDraft, CheckpointError, CheckpointSettings, CheckpointWriter, Chunk,
    ChunkRef,
};
pub use error::{ObjectError, Problem};
pub use footer::{Footer, Located};
pub use frame::{FRAME_BYTES, Kind, ObjectRef, Sealed};
pub use header::{EntryHeader, EntryKind, FeatureLevel};
pub use packed::{PackedIndex, PackedObject, PackedRun};
pub use round::{Round, RoundBuilder, RoundEntry, RoundError, RoundSettings, Taken};
pub use runs::{Run, Runs};
