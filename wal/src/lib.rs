//! The write-ahead log: one per disk, shared by every Raft group of the node.
//!
//! What it guarantees:
//!
//! - What [`Log::durable`] has reached is there after a crash: entries, hard states, truncation.
//! - A block is written once, 4 KiB aligned, and every block vouches for its predecessor, so that
//!   recovery tells a torn tail, which is cut, from damage to acknowledged data, which is never
//!   skipped.
//! - A failed write or sync is final: the log stops for ever and the process recovers.
//!
//! The core has no threads and reaches the machine only through [`Disk`], [`common::Clock`] and
//! [`common::Rng`]: [`Log::append`] fills the open block, [`Log::begin_write`] hands it out as a
//! [`BlockWrite`], whoever has the time performs it, and [`Log::finish_write`] makes it durable.

mod bench;
mod block;
mod disk;
mod entry;
mod error;
mod files;
mod format;
mod group;
mod inspect;
mod log;
mod recovery;
mod settings;
#[cfg(test)]
mod test_directory;
mod usage;

pub use bench::{BenchFigures, BenchReport, BenchSettings, bench};
pub use block::BlockWrite;
pub use disk::{
    AlignedBuf, CrashOutcome, Disk, DiskFile, DiskLock, DiskOperation, DiskSpace, Fault, Faults,
    FaultyDisk, RealDisk, SECTOR_BYTES, SimDisk,
};
pub use entry::{
    Batch, BlockSeq, Claim, Conf, ConfRef, EntryRef, GroupState, HardState, LogEntry, LostEntries,
    Recovered, Saved, Truncated,
};
pub use error::{AppendError, Damage, FullReason, OpenError, ReadError, Stopped};
pub use files::Pin;
pub use inspect::{Behind, FileReport, Inspection, LostRange, SavedStates, inspect, repair};
pub use log::{Log, PREPARE_PAUSE, Prepared, Walk};
pub use settings::{DamagePolicy, LogSettings};
pub use usage::{GroupUsage, LogSpace, LogUsage, Stall};
