//! The seam between a Raft group and what it replicates.

use std::ops::RangeInclusive;

use bytes::Bytes;
use common::LogIndex;
use lts::ObjectName;

use crate::entry::Entry;
use crate::resting::{Compacted, CompactionPlan, Nobody, Owners, Piece, Tiered};

/// A deterministic state machine.
///
/// Laws:
/// - `apply` depends on the state and the entry alone: no clock, randomness, hash-map order,
///   environment or I/O. Every replica that applies the same entries has the same state and has
///   produced the same outcomes.
/// - `apply` pushes exactly one outcome per operation, in order.
/// - Operations are decoded and bound-checked *before* they are proposed. An operation that apply
///   does not know is an error that stops the group: skipping it would fork the replicas.
/// - `restore` with everything that was ever copied out of frozen sets (last value per key, removed
///   ones left out) gives the state of the moment of the last `freeze` whose set was copied whole.
pub trait StateMachine: Send + 'static {
    /// The result of one operation, given to whoever proposed it.
    type Outcome: Send + 'static;

    /// An empty machine that takes this one's place: with its settings and with what others hold
    /// on to, without its state. It may be restored and replayed while this one is still there.
    fn fresh(&self) -> Self
    where
        Self: Sized;

    /// Applies a committed entry.
    fn apply(
        &mut self,
        entry: &Entry<'_>,
        outcomes: &mut Vec<Self::Outcome>,
    ) -> Result<(), UnknownOperation>;

    /// What of an outcome every replica must agree on, for the rolling hash.
    fn digest(outcome: &Self::Outcome) -> u64;

    /// Freezes what changed since the last call, as it is now. Called on the worker, and only once
    /// the set before was copied whole: it copies nothing itself.
    fn freeze(&mut self);

    /// Copies changes out of the frozen set for as long as `slice` has room; whether that was the
    /// last of them. Entries may be applied between two calls and do not reach into the set: what
    /// they are about to change is copied first.
    fn copy_frozen(&mut self, slice: &mut Slice) -> bool;

    /// A whole frozen set at once, where nothing waits meanwhile.
    fn freeze_whole(&mut self) -> Vec<Change> {
        self.freeze();
        let mut changes = Vec::new();
        loop {
            let mut slice = Slice::default();
            let all = self.copy_frozen(&mut slice);
            changes.append(&mut slice.changes);
            if all {
                return changes;
            }
        }
    }

    /// Told before anything is applied: the entries up to `last` were in the log before this
    /// process began.
    fn begin(&mut self, last: LogIndex) {
        let _ = last;
    }

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

    /// Whose the payload of log entries is, to be asked off the worker by whoever archives them.
    /// The default is for machines whose operations have no payload.
    fn owners(&self) -> Box<dyn Owners> {
        Box::new(Nobody)
    }

    /// A round is committed: what the state refers to of its entries' payload rests in objects from
    /// now on. A part of apply, with its laws; called in the order of the log. `Err` where the round
    /// does not hold all of that: the machine is of no use any more, and its group stops.
    fn tiered(&mut self, round: &Tiered) -> Result<(), NotArchived> {
        let _ = round;
        Ok(())
    }

    /// The same for a round at the end of what was brought back: entries between it and its own are
    /// lost, so that what the round does not hold is what one of them had dropped.
    fn taken_over(&mut self, round: &Tiered) {
        let _ = round;
    }

    /// These entries were lost before a round held them. What the state refers to of their payload
    /// can never be read again: from now on that is what readers are told, and nothing of it keeps
    /// the log. A part of apply, called in the order of the log.
    fn lost(&mut self, entries: RangeInclusive<LogIndex>) {
        let _ = entries;
    }

    /// Pieces were copied into other objects: takes over each whose place is still as it was, and
    /// leaves out the others. A part of apply.
    fn compacted(&mut self, compacted: &Compacted) {
        let _ = compacted;
    }

    /// The objects to which the state referred and, since the last call, refers no more; also those
    /// of a round or a compaction just applied of which it takes nothing. In any order, each once.
    /// A part of apply: every replica gives the same.
    fn take_dead_objects(&mut self) -> Vec<ObjectName> {
        Vec::new()
    }

    /// Pieces that had better be together: what to read and to write again. Asked now and then on
    /// the worker; `None` where nothing is worth it.
    fn compaction(&self) -> Option<CompactionPlan> {
        None
    }

    /// Gives every place in objects that the state refers to, owner by owner in order of positions,
    /// and what is lost ([`Rested::lost_entry`](crate::Rested::lost_entry)): for whoever checks that
    /// the objects are what the state says.
    fn resting(&self, each: &mut dyn FnMut(Piece)) {
        let _ = each;
    }
}

/// A changed key of the saved state; `None` removes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: Vec<u8>,
    pub value: Option<Bytes>,
}

/// A part of a frozen set, as much of it as one step of the worker copies.
#[derive(Debug)]
pub struct Slice {
    changes: Vec<Change>,
    bytes: usize,
    changes_max: usize,
}

impl Default for Slice {
    fn default() -> Self {
        Self::of(Self::CHANGES_MAX)
    }
}

impl Slice {
    /// Changes and bytes of one slice: copying them takes a fraction of a millisecond, in which
    /// nothing else moves on the node. The last change may exceed the bytes.
    pub const CHANGES_MAX: usize = 512;
    pub const BYTES_MAX: usize = 256 * 1024;

    /// A slice of at most so many changes; a part that consists of several comes whole.
    pub fn of(changes_max: usize) -> Self {
        Self { changes: Vec::new(), bytes: 0, changes_max }
    }

    pub fn has_room(&self) -> bool {
        self.changes.len() < self.changes_max && self.bytes < Self::BYTES_MAX
    }

    pub fn push(&mut self, change: Change) {
        self.bytes += change.key.len() + change.value.as_ref().map_or(0, Bytes::len);
        self.changes.push(change);
    }

    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub(crate) fn into_changes(self) -> Vec<Change> {
        self.changes
    }
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

/// A committed round does not hold what the state refers to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "DATA_LOST: the committed round does not hold {detail}; the log is left as it is: keep a copy of \
     it and of the bucket, and report this"
)]
pub struct NotArchived {
    pub detail: String,
}

impl NotArchived {
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
