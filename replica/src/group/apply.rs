//! Committed entries into the state machine, outcomes out of it.

use common::{GroupId, LogIndex, MonotonicTime, Term};
use raft::eraftpb::{Entry as RaftEntry, EntryType};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Group;
use crate::entry::Entry;
use crate::error::Failure;
use crate::kv::Applied;
use crate::machine::StateMachine;
use crate::stamp::Stamps;

/// The state machine and how far it has come. Replay at start and the running group share it.
pub(super) struct Applier<M: StateMachine> {
    pub(super) group: GroupId,
    pub(super) machine: M,
    pub(super) applied: Applied,
    pub(super) stamps: Stamps,
    /// Of the entry applied last, one per operation.
    pub(super) outcomes: Vec<M::Outcome>,
    pub(super) unsaved: Unsaved,
}

/// What was applied since the state was frozen last.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    pub(super) operations: u64,
    pub(super) bytes: u64,
    pub(super) since: Option<MonotonicTime>,
}

impl<M: StateMachine> Applier<M> {
    pub(super) fn new(group: GroupId, machine: M, applied: Applied) -> Self {
        let mut stamps = Stamps::default();
        stamps.observe(applied.stamp);
        Self { group, machine, applied, stamps, outcomes: Vec::new(), unsaved: Unsaved::default() }
    }

    /// Applies one entry; its outcomes are in `outcomes` until the next call.
    pub(super) fn apply(&mut self, raft: &RaftEntry, now: MonotonicTime) -> Result<(), String> {
        let (index, term) = (LogIndex(raft.index), Term(raft.term));
        let expected = LogIndex(self.applied.index.0 + 1);
        assert_eq!(index, expected, "entries are applied one after the other");
        if raft.entry_type != EntryType::EntryNormal {
            return Err(format!(
                "entry {index} changes the membership, which this build cannot; run a newer one"
            ));
        }
        self.outcomes.clear();
        self.unsaved.bytes += (raft.context.len() + raft.data.len()) as u64;
        // The empty entry of a new leader only moves the index.
        if !raft.context.is_empty() {
            let entry = Entry::decode(self.group, index, term, &raft.context, &raft.data)
                .map_err(|error| format!("entry {index}: {error}"))?;
            self.apply_operations(&entry, now)?;
        }
        (self.applied.index, self.applied.term) = (index, term);
        Ok(())
    }

    fn apply_operations(&mut self, entry: &Entry<'_>, now: MonotonicTime) -> Result<(), String> {
        self.machine
            .apply(entry, &mut self.outcomes)
            .map_err(|unknown| format!("entry {}: {unknown}", entry.index))?;
        assert_eq!(self.outcomes.len(), entry.len(), "apply gives one outcome per operation");
        self.stamps.observe(entry.stamp);
        self.applied.stamp = self.applied.stamp.max_of(entry.stamp);
        for outcome in &self.outcomes {
            self.applied.digest = roll(self.applied.digest, entry.index, M::digest(outcome));
        }
        self.unsaved.operations += entry.len() as u64;
        self.unsaved.since.get_or_insert(now);
        Ok(())
    }
}

fn roll(digest: u64, index: LogIndex, outcome: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&index.0.to_le_bytes());
    bytes[8..].copy_from_slice(&outcome.to_le_bytes());
    xxh3_64_with_seed(&bytes, digest)
}

impl<M: StateMachine> Group<M> {
    /// Applies committed entries and delivers their outcomes: one round.
    pub(super) fn apply(&mut self, entries: &[RaftEntry]) -> Result<(), Failure> {
        let Some(last) = entries.last() else { return Ok(()) };
        let now = self.clock.monotonic();
        let mut released = 0;
        for entry in entries {
            self.applier.apply(entry, now).map_err(Failure::Quarantine)?;
            released += self.proposals.settle(entry, &mut self.applier.outcomes);
        }
        self.node.advance_apply_to(last.index);
        self.keep_recent();
        self.shared.release(released);
        self.changed = true;
        if Some(last.term) == self.role.leads {
            self.serve();
        }
        self.queries.run(self.applier.applied.index, &self.applier.machine);
        self.applier.machine.round_done();
        self.proposals.finish_round();
        Ok(())
    }

    /// Applied entries of a group alone are of no more use in memory; with peers some stay, so
    /// that followers do not cost reads.
    fn keep_recent(&mut self) {
        let keep = if self.has_peers { self.settings.recent_bytes_max.as_usize() } else { 0 };
        let applied = self.applier.applied.index.0;
        self.node.mut_store().forget(applied, keep);
    }
}
