//! Raft groups: whatever must survive is a group that drives a deterministic [`StateMachine`].
//!
//! A [`Host`] owns the groups of a node on one shared write-ahead log: a worker steps them, a log
//! thread writes large blocks, a checkpoint thread saves frozen state to RocksDB, off the
//! acknowledgement path. Callers see a [`GroupHandle`] per group and never a channel. The worker
//! itself is a `step` function without threads, clocks or I/O of its own but one small inline
//! write, so that simulations drive the very code that ships.
//!
//! Guarantees: an outcome is delivered only after the entry that holds its operation is durable on
//! a quorum and applied; a proposal that was taken is answered exactly once, with `Unknown` where
//! its fate was lost with the term; a panic in one group quarantines that group only.

pub mod archive;
mod bell;
pub mod check;
mod conf;
mod digests;
pub mod entry;
pub mod envelope;
mod error;
mod group;
pub mod handle;
mod host;
pub mod kv;
mod logger;
pub mod machine;
pub mod propose;
pub mod recover;
pub mod resting;
pub mod restore;
pub mod settings;
mod stamp;
mod storage;
#[cfg(test)]
mod testing;
pub mod tiering;
mod worker;

pub use entry::{Entry, Operation, Stamp};
pub use error::{HostFailure, StartError};
pub use group::{CheckpointJob, FetchJob, Fetched, GroupSpec, SaveError};
pub use handle::{GroupHandle, GroupStatus, Leadership};
pub use host::{Host, Patience, StepCounts, StepTimes};
pub use kv::{Applied, Changes, Kv, KvError, MemKv, RocksKv, Space};
pub use machine::{Change, NotArchived, RestoreError, Slice, StateMachine, UnknownOperation};
pub use propose::{OutcomeSink, Proposal, ProposeError, Refused, Reply};
pub use resting::{Compacted, CompactionPlan, Moved, OwnedRun, Owners, Piece, Rested, Tiered};
pub use settings::HostSettings;
pub use tiering::{
    Held, Inline, JobKind, Storage, StorageDone, StorageFailure, StorageJob, TieringSettings,
    Waiter, Workshop,
};
pub use worker::{Step, Worker};
