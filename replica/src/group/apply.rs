//! Committed entries into the state machine, outcomes out of it.

use bytes::Bytes;
use common::{GroupId, LogIndex, MonotonicTime, Term};
use raft::eraftpb::{Entry as RaftEntry, EntryType};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Group;
use crate::archive::{Archive, At, EntryHeader, EntryKind, Housekeeping, Refused};
use crate::digests::Digests;
use crate::entry::{Entry, Stamp};
use crate::envelope;
use crate::error::Failure;
use crate::kv::{Applied, Kv, KvError, Space};
use crate::machine::{NotArchived, RestoreError, StateMachine};
use crate::stamp::Stamps;

/// The state machine and how far it has come. Replay at start and the running group share it.
pub(super) struct Applier<M: StateMachine> {
    pub(super) group: GroupId,
    pub(super) machine: M,
    pub(super) archive: Archive,
    pub(super) applied: Applied,
    pub(super) stamps: Stamps,
    /// Of the entry applied last, one per operation.
    pub(super) outcomes: Vec<M::Outcome>,
    /// What became of the entry applied last, where it was housekeeping.
    pub(super) housekept: Option<Result<(), Refused>>,
    pub(super) unsaved: Unsaved,
    /// Whether rounds will be made, which carry digests.
    pub(super) archives: bool,
    pub(super) digests: Digests,
    /// When the up-time of the newest entry was met: up-time goes on from there.
    up_seen: (u64, MonotonicTime),
}

/// What was applied since the state was frozen last.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    pub(super) operations: u64,
    pub(super) bytes: u64,
    pub(super) since: Option<MonotonicTime>,
}

/// An entry's payload.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload<'a> {
    Here(&'a Bytes),
    /// So many bytes, in objects.
    Archived(usize),
}

/// Why a saved state is not taken over.
#[derive(Debug)]
pub(super) enum LoadError {
    Kv(KvError),
    Restore(RestoreError),
}

/// Why housekeeping did not take effect.
enum Unkept {
    /// Whoever proposed it is told.
    Refused(Refused),
    /// The group stops.
    NotArchived(NotArchived),
}

impl From<Refused> for Unkept {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<NotArchived> for Unkept {
    fn from(lost: NotArchived) -> Self {
        Self::NotArchived(lost)
    }
}

impl<M: StateMachine> Applier<M> {
    /// The saved state, in an empty machine.
    pub(super) fn restored(
        group: GroupId,
        mut machine: M,
        kv: &dyn Kv,
        saved: Option<Applied>,
    ) -> Result<Self, LoadError> {
        let mut archive = Archive::default();
        if saved.is_some() {
            read_space(kv, (group, Space::Machine), |pairs| machine.restore(pairs))?;
            archive = read_space(kv, (group, Space::Archive), Archive::restore)?;
        }
        Ok(Self::new(group, machine, archive, saved.unwrap_or_default()))
    }

    pub(super) fn new(group: GroupId, machine: M, archive: Archive, applied: Applied) -> Self {
        let mut stamps = Stamps::default();
        stamps.observe(applied.stamp);
        Self {
            group,
            machine,
            archive,
            applied,
            stamps,
            outcomes: Vec::new(),
            housekept: None,
            unsaved: Unsaved::default(),
            archives: false,
            digests: Digests::default(),
            up_seen: (applied.stamp.up_micros, MonotonicTime::default()),
        }
    }

    /// Applies one entry; its outcomes are in `outcomes` until the next call.
    pub(super) fn apply(&mut self, raft: &RaftEntry, now: MonotonicTime) -> Result<(), String> {
        let (index, term) = (LogIndex(raft.index), Term(raft.term));
        if raft.entry_type != EntryType::EntryNormal {
            return Err(format!(
                "entry {index} changes the membership, which this build cannot; run a newer one"
            ));
        }
        self.apply_entry((index, term), &raft.context, Payload::Here(&raft.data), now)
    }

    /// The same for an entry of a round; `Err` also where its outcome is not the recorded one.
    pub(super) fn replay(
        &mut self,
        header: &EntryHeader,
        now: MonotonicTime,
    ) -> Result<(), String> {
        let EntryHeader { index, term, kind, .. } = *header;
        if kind != EntryKind::Normal {
            // Who was a member is history: whoever replays a round has a membership of its own.
            self.begin(index, header.change.len());
            (self.applied.index, self.applied.term) = (index, term);
            return Ok(());
        }
        let payload = Payload::Archived(header.data_bytes as usize);
        self.apply_entry((index, term), &header.context, payload, now)?;
        let (recorded, found) = (header.digest, self.applied.digest);
        if recorded != Digests::UNKNOWN && recorded != found {
            return Err(format!(
                "entry {index} was decided differently when it was archived ({recorded:016x}) than \
                 in this replay ({found:016x}): run the version that archived it, and report it"
            ));
        }
        Ok(())
    }

    fn apply_entry(
        &mut self,
        (index, term): (LogIndex, Term),
        context: &Bytes,
        payload: Payload<'_>,
        now: MonotonicTime,
    ) -> Result<(), String> {
        let payload_bytes = match payload {
            Payload::Here(bytes) => bytes.len(),
            Payload::Archived(bytes) => bytes,
        };
        self.begin(index, context.len() + payload_bytes);
        if let Some((stamp, body)) = envelope::as_housekeeping(context) {
            let said = Housekeeping::decode(&body)
                .map_err(|problem| format!("entry {index}, which is housekeeping, {problem}"))?;
            self.observe(stamp, now);
            let at = At { index, term, stamp: self.applied.stamp };
            let result = match self.keep_house(said, at) {
                Ok(()) => Ok(()),
                Err(Unkept::Refused(refused)) => Err(refused),
                Err(Unkept::NotArchived(lost)) => return Err(format!("entry {index}: {lost}")),
            };
            self.housekept = Some(result);
            self.applied.digest = roll(self.applied.digest, index, u64::from(result.is_ok()));
        } else if !context.is_empty() {
            // The empty entry of a new leader only moves the index.
            let entry = match payload {
                Payload::Here(bytes) => Entry::decode(self.group, index, term, context, bytes),
                Payload::Archived(bytes) => {
                    Entry::archived(self.group, index, term, context, bytes)
                }
            };
            let entry = entry.map_err(|error| format!("entry {index}: {error}"))?;
            self.apply_operations(&entry, now)?;
        }
        (self.applied.index, self.applied.term) = (index, term);
        if self.archives {
            self.digests.push(index, self.applied.digest);
        }
        Ok(())
    }

    fn begin(&mut self, index: LogIndex, bytes: usize) {
        let expected = LogIndex(self.applied.index.0 + 1);
        assert_eq!(index, expected, "entries are applied one after the other");
        self.outcomes.clear();
        self.housekept = None;
        self.unsaved.bytes += bytes as u64;
    }

    fn observe(&mut self, stamp: Stamp, now: MonotonicTime) {
        self.stamps.observe(stamp);
        self.applied.stamp = self.applied.stamp.max_of(stamp);
        self.up_seen = (self.applied.stamp.up_micros, now);
    }

    /// About the up-time that an entry proposed now would be stamped with.
    pub(super) fn up_micros(&self, now: MonotonicTime) -> u64 {
        let (up, seen) = self.up_seen;
        up + now.since(seen).as_micros() as u64
    }

    fn apply_operations(&mut self, entry: &Entry<'_>, now: MonotonicTime) -> Result<(), String> {
        self.machine
            .apply(entry, &mut self.outcomes)
            .map_err(|unknown| format!("entry {}: {unknown}", entry.index))?;
        assert_eq!(self.outcomes.len(), entry.len(), "apply gives one outcome per operation");
        self.observe(entry.stamp, now);
        for outcome in &self.outcomes {
            self.applied.digest = roll(self.applied.digest, entry.index, M::digest(outcome));
        }
        self.archive.note_operation(entry.index);
        self.bury_dead(At { index: entry.index, term: entry.term, stamp: self.applied.stamp });
        self.unsaved.operations += entry.len() as u64;
        self.unsaved.since.get_or_insert(now);
        Ok(())
    }

    /// Housekeeping changes the archive first: the machine hears of it only where it counts.
    fn keep_house(&mut self, said: Housekeeping, at: At) -> Result<(), Unkept> {
        match said {
            Housekeeping::Round(round) => {
                self.archive.round(&round, at)?;
                self.digests.archived(self.archive.end());
                match round.recovered {
                    true => self.machine.taken_over(&round.tiered),
                    false => self.machine.tiered(&round.tiered)?,
                }
            }
            Housekeeping::Checkpoint(checkpoint) => self.archive.checkpoint(&checkpoint, at)?,
            Housekeeping::Compacted(compacted) => {
                self.archive.compacted(&compacted.objects, at)?;
                self.machine.compacted(&compacted);
            }
            Housekeeping::Removed(names) => self.archive.removed(&names, at),
            Housekeeping::Recovered(incarnation) => self.archive.recovered(incarnation)?,
            Housekeeping::Skipped(skip) => {
                self.archive.skip(&skip, at)?;
                self.digests.archived(self.archive.end());
                self.machine.lost(skip.lost);
            }
        }
        self.bury_dead(at);
        Ok(())
    }

    fn bury_dead(&mut self, at: At) {
        let dead = self.machine.take_dead_objects();
        if !dead.is_empty() {
            self.archive.dead(dead, at);
        }
    }
}

fn read_space<T>(
    kv: &dyn Kv,
    (group, space): (GroupId, Space),
    restore: impl FnOnce(&mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<T, RestoreError>,
) -> Result<T, LoadError> {
    let mut failed = None;
    let pairs = kv.scan(group, space).map_err(LoadError::Kv)?;
    let mut pairs = pairs.map_while(|pair| pair.map_err(|error| failed = Some(error)).ok());
    let restored = restore(&mut pairs);
    drop(pairs);
    match failed {
        Some(error) => Err(LoadError::Kv(error)),
        None => restored.map_err(LoadError::Restore),
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
        let mut housekept = false;
        for entry in entries {
            self.applier.apply(entry, now).map_err(Failure::Quarantine)?;
            housekept |= self.applier.housekept.is_some();
            self.tiering.applied(entry, &self.applier, now);
            released += self.proposals.settle(entry, &mut self.applier.outcomes);
        }
        self.node.advance_apply_to(last.index);
        self.keep_recent();
        if housekept {
            self.offer_snapshot();
        }
        self.shared.release(released);
        self.changed = true;
        if Some(last.term) == self.role.leads {
            self.serve();
        }
        self.queries.run(self.applier.applied.index, &self.applier.machine, &*self.clock);
        self.applier.machine.round_done();
        self.proposals.finish_round();
        Ok(())
    }

    /// Keeps applied entries in memory: the newest for followers, and those that the next round
    /// takes, which need not be read back from a busy disk.
    fn keep_recent(&mut self) {
        let applied = self.applier.applied.index.0;
        let peers = if self.has_peers { self.settings.recent_bytes_max.as_usize() } else { 0 };
        let rounds = if self.role.serving { self.tiering.kept_for_rounds() } else { 0 };
        let store = self.node.mut_store();
        store.forget(applied.min(self.applier.archive.end().0), peers);
        store.forget(applied, peers.max(rounds));
        self.tiering.count_kept(store.kept_bytes());
    }
}
