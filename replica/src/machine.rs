//! The seam between a Raft group and what it replicates.

use bytes::Bytes;
use common::LogIndex;

use crate::entry::Entry;

/// A deterministic state machine.
///
/// Laws:
/// - `apply` depends on the state and the entry alone: no clock, randomness, hash-map order,
///   environment or I/O. Every replica that applies the same entries has the same state and has
///   produced the same outcomes.
/// - `apply` pushes exactly one outcome per operation, in order.
/// - Operations are decoded and bound-checked *before* they are proposed. An operation that apply
///   does not know is an error that stops the group: skipping it would fork the replicas.
/// - `restore` with everything that `freeze` ever returned (last value per key, removed ones left
///   out) gives the state of the moment of the last `freeze`.
pub trait StateMachine: Send + 'static {
    /// The result of one operation, given to whoever proposed it.
    type Outcome: Send + 'static;

    /// Applies a committed entry.
    fn apply(
        &mut self,
        entry: &Entry<'_>,
        outcomes: &mut Vec<Self::Outcome>,
    ) -> Result<(), UnknownOperation>;

    /// What of an outcome every replica must agree on, for the rolling hash.
    fn digest(outcome: &Self::Outcome) -> u64;

    /// The keys that changed since the last call with their values, copied, so that later changes
    /// do not reach into them. Called on the worker: keep it to what changed.
    fn freeze(&mut self) -> Vec<Change>;

    /// Takes over a saved state; called once, on an empty machine.
    fn restore(
        &mut self,
        pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<(), RestoreError>;

    /// The lowest log index whose payload must stay readable; `None` where nothing in the log is
    /// needed any more. The log is never truncated at or above it.
    fn oldest_live_index(&self) -> Option<LogIndex>;

    /// Called once after each round of applied entries: the moment to wake tail readers.
    fn round_done(&mut self) {}
}

/// A changed key of the saved state; `None` removes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: Vec<u8>,
    pub value: Option<Bytes>,
}

/// An entry holds an operation that this build does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("operation is not known to this build ({detail}); run the version that wrote it, or newer")]
pub struct UnknownOperation {
    pub detail: String,
}

impl UnknownOperation {
    pub fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into() }
    }
}

/// The saved state cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("saved state cannot be restored: {detail}")]
pub struct RestoreError {
    pub detail: String,
}

impl RestoreError {
    pub fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into() }
    }
}
