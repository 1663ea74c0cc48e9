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
//! This module turns entries and pairs into objects and objects into what they say, and holds what
//! a group's log says of its archive ([`Archive`], changed by [`Housekeeping`] entries). It does no
//! I/O and decides nothing: when a round is made and what is collected is decided in
//! `group/tiering.rs` and done in `tiering/`. Every object is checked as a whole before anything of
//! it is believed, and a single changed or missing bit is found.
//!
//! Objects are named by [`lts::ObjectName`]. Those of a round bear the term under which it was made
//! and follow one another in sequence, the footer last: it is put when the others are there, and
//! deleted before them.

mod basis;
mod checkpoint;
mod compacted;
mod error;
mod fields;
mod footer;
mod frame;
mod header;
pub(crate) mod housekeeping;
mod packed;
mod packer;
mod round;
mod runs;
mod skip;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use basis::Basis;
pub use checkpoint::{
    Checkpoint, CheckpointDraft, CheckpointError, CheckpointSettings, CheckpointWriter, Chunk,
    ChunkRef,
};
pub(crate) use compacted::CompactedDraft;
pub use error::{ObjectError, Problem};
pub use footer::{Footer, Located};
pub use frame::{FRAME_BYTES, Kind, ObjectRef, Sealed};
pub use header::{EntryHeader, EntryKind, FeatureLevel};
pub use housekeeping::{CommittedCheckpoint, CommittedRound, Housekeeping};
pub use packed::{PackedIndex, PackedObject, PackedRun};
pub use round::{Round, RoundBuilder, RoundEntry, RoundError, RoundSettings, Taken};
pub use runs::{Run, Runs};
pub use skip::{Beginning, CommittedSkip};
pub(crate) use state::At;
pub use state::{Archive, Dropped, KeptCheckpoint, KeptRound, KeptSkip, Refused, Stored};
