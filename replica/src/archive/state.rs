//! What a group's own log says of its archive: how far it reaches, which objects it is made of, and
//! which of them nobody needs any more. Replicated state, changed by apply alone.
//!
//! An object that is dropped at log index *d* may be deleted once the oldest checkpoint that is kept
//! includes *d*: whoever restores from that one or a later one never meets the object. Rounds are
//! dropped when the oldest kept checkpoint needs them no more, checkpoints when they are old enough
//! and a newer one counts.

use std::collections::{BTreeMap, BTreeSet};

use common::{Incarnation, LogIndex, Term};
use lts::ObjectName;

use super::basis::Basis;
use super::frame::ObjectRef;
use super::housekeeping::{CommittedCheckpoint, CommittedRound};
use crate::entry::Stamp;

mod saved;
mod skips;
#[cfg(test)]
mod tests;

/// The archive of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Leads the names of new objects.
    incarnation: Incarnation,
    /// The last archived entry.
    end: LogIndex,
    end_term: Term,
    /// The last entry with an operation of the machine: what is worth a round of its own.
    last_operation: LogIndex,
    /// By last index; a chain up to `end`, gapless but for what was skipped.
    rounds: BTreeMap<LogIndex, KeptRound>,
    /// Payload that the machine refers to.
    objects: BTreeMap<ObjectName, Stored>,
    /// By index.
    checkpoints: BTreeMap<LogIndex, KeptCheckpoint>,
    dropped: BTreeMap<ObjectName, Dropped>,
    /// Entries that were lost before they were archived, by the last one of each run.
    skips: BTreeMap<LogIndex, KeptSkip>,
    unsaved: BTreeSet<Record>,
}

/// A round that a kept checkpoint needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptRound {
    pub first: LogIndex,
    pub footer: ObjectRef,
}

/// Length and checksum of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub length: u32,
    pub checksum: u32,
}

/// A checkpoint that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCheckpoint {
    pub committed: CommittedCheckpoint,
    /// Up-time of the entry by which it counts.
    pub up_micros: u64,
}

/// An object that is no longer referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    pub index: LogIndex,
    pub up_micros: u64,
    /// Footers and checkpoints go before what they name.
    pub names_others: bool,
}

/// Lost entries that the chain goes on behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptSkip {
    pub first: LogIndex,
    /// Index of the checkpoint that the chain begins with anew.
    pub checkpoint: LogIndex,
}

/// What is saved in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Record {
    Head,
    Round(LogIndex),
    Object(ObjectName),
    Checkpoint(LogIndex),
    Dropped(ObjectName),
    Skip(LogIndex),
}

/// Why a change is refused. Whoever proposed it makes it again, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it does not begin where the archive ends")]
    NotTheNext,
    #[error("its objects were named under another term or incarnation")]
    OfAnotherTerm,
    #[error("the archive does not reach it")]
    NotReached,
    #[error("a newer one is known")]
    Older,
    #[error("its state does not know all that was archived before the lost entries")]
    BeforeSkip,
}

/// Where an entry stands, as far as the archive cares.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) index: LogIndex,
    pub(crate) term: Term,
    pub(crate) stamp: Stamp,
}

impl Default for Archive {
    fn default() -> Self {
        Self {
            incarnation: Incarnation::FIRST,
            end: LogIndex(0),
            end_term: Term(0),
            last_operation: LogIndex(0),
            rounds: BTreeMap::new(),
            objects: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            dropped: BTreeMap::new(),
            skips: BTreeMap::new(),
            unsaved: BTreeSet::new(),
        }
    }
}

impl Archive {
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The last archived entry, 0 where nothing is.
    pub fn end(&self) -> LogIndex {
        self.end
    }

    pub fn end_term(&self) -> Term {
        self.end_term
    }

    /// The round that the next one continues.
    pub fn tip(&self) -> Option<ObjectRef> {
        self.rounds.last_key_value().map(|(_, round)| round.footer)
    }

    /// What whoever lacks the log up to the archived end can begin with; `None` where nothing is
    /// archived, or where the chain does not reach the checkpoint of its new beginning yet.
    pub(crate) fn basis(&self) -> Option<Basis> {
        if self.restorable_end() < self.end {
            return None;
        }
        let newest = self.checkpoints.last_key_value();
        let checkpoint = newest.map(|(_, kept)| kept.committed.clone());
        Some(Basis { checkpoint, tip: self.tip()? })
    }

    /// Whether an operation of the machine is not archived yet.
    pub fn is_behind(&self) -> bool {
        self.last_operation > self.end
    }

    /// The last entry with an operation of the machine.
    pub fn last_operation(&self) -> LogIndex {
        self.last_operation
    }

    /// Payload objects that are referred to, in order of names.
    pub fn objects(&self) -> &BTreeMap<ObjectName, Stored> {
        &self.objects
    }

    /// Rounds that are kept, by last index.
    pub fn rounds(&self) -> &BTreeMap<LogIndex, KeptRound> {
        &self.rounds
    }

    /// Checkpoints that are kept, by index.
    pub fn checkpoints(&self) -> &BTreeMap<LogIndex, KeptCheckpoint> {
        &self.checkpoints
    }

    pub fn newest_checkpoint(&self) -> LogIndex {
        self.checkpoints.last_key_value().map_or(LogIndex(0), |(index, _)| *index)
    }

    /// Objects that are not referred to any more, and still in the bucket.
    pub fn dropped(&self) -> &BTreeMap<ObjectName, Dropped> {
        &self.dropped
    }

    /// Names that belong to the archive, dropped or not, for a comparison with the bucket: all of
    /// them from `first` to `last`.
    pub fn names_between(&self, first: ObjectName, last: ObjectName) -> BTreeSet<ObjectName> {
        let rounds = self.rounds.values().map(|round| round.footer.name);
        let checkpoints = self.checkpoints.values().flat_map(|kept| kept.committed.names());
        let others = rounds.chain(checkpoints).filter(|name| (first..=last).contains(name));
        let payload = self.objects.range(first..=last).map(|(name, _)| *name);
        let dropped = self.dropped.range(first..=last).map(|(name, _)| *name);
        payload.chain(dropped).chain(others).collect()
    }

    /// What may be deleted at `up_micros`: dropped `grace_micros` ago and not needed by any
    /// checkpoint that is kept. What names others comes first.
    /// Only those named under the incarnation `from` or a later one are taken.
    pub fn collectable(
        &self,
        up_micros: u64,
        grace_micros: u64,
        from: Incarnation,
        count: usize,
    ) -> Vec<ObjectName> {
        let oldest = self.checkpoints.first_key_value().map(|(index, _)| *index);
        let early = common::planted::active("collected-while-a-checkpoint-needs-it");
        let oldest = if early { Some(LogIndex(0)) } else { oldest };
        let Some(oldest) = oldest else { return Vec::new() };
        let due = |name: &ObjectName, dropped: &Dropped| {
            name.incarnation >= from
                && (dropped.index <= oldest || early)
                && dropped.up_micros.saturating_add(grace_micros) <= up_micros
        };
        let of = |names_others: bool| -> Vec<ObjectName> {
            let found = self.dropped.iter().filter(|(name, dropped)| {
                dropped.names_others == names_others && due(name, dropped)
            });
            found.map(|(name, _)| *name).take(count).collect()
        };
        let first = of(true);
        if first.is_empty() { of(false) } else { first }
    }

    pub(crate) fn note_operation(&mut self, index: LogIndex) {
        self.last_operation = index;
        self.unsaved.insert(Record::Head);
    }

    /// Takes a round over. Its payload objects count as referred to until the machine says
    /// otherwise.
    pub(crate) fn round(&mut self, round: &CommittedRound, at: At) -> Result<(), Refused> {
        let (first, last) = round.range().clone().into_inner();
        let name = round.footer.name;
        let named_here = match round.recovered {
            // Of the same incarnation where a repaired group alone takes over what it once put.
            true => {
                let earlier = (name.incarnation, name.term) < (self.incarnation, at.term);
                name.incarnation <= self.incarnation && earlier
            }
            false => name.incarnation == self.incarnation && name.term == at.term,
        };
        if !named_here && !common::planted::active("object-of-an-older-term-referenced") {
            return Err(Refused::OfAnotherTerm);
        }
        if first.0 != self.end.0 + 1 && !common::planted::active("round-leaves-a-gap") {
            return Err(Refused::NotTheNext);
        }
        if last >= at.index {
            return Err(Refused::NotReached);
        }
        (self.end, self.end_term) = (last, round.last_term);
        self.rounds.insert(last, KeptRound { first, footer: round.footer });
        self.unsaved.extend([Record::Head, Record::Round(last)]);
        self.refer(&round.tiered.objects);
        Ok(())
    }

    /// Takes a checkpoint over, and drops those that are old, and the rounds that none needs.
    pub(crate) fn checkpoint(
        &mut self,
        checkpoint: &CommittedCheckpoint,
        at: At,
    ) -> Result<(), Refused> {
        let name = checkpoint.reference.name;
        if name.incarnation != self.incarnation || name.term != at.term {
            return Err(Refused::OfAnotherTerm);
        }
        let early = common::planted::active("checkpoint-counts-before-the-chain-reaches-it");
        if checkpoint.index > self.end && !early {
            return Err(Refused::NotReached);
        }
        if checkpoint.index <= self.newest_checkpoint() {
            return Err(Refused::Older);
        }
        if self.is_before_a_skip(checkpoint) {
            return Err(Refused::BeforeSkip);
        }
        let kept = KeptCheckpoint { committed: checkpoint.clone(), up_micros: at.stamp.up_micros };
        self.checkpoints.insert(checkpoint.index, kept);
        self.unsaved.insert(Record::Checkpoint(checkpoint.index));
        self.drop_old(at);
        Ok(())
    }

    /// Drops checkpoints that were kept long enough since a newer one counts, and the rounds that
    /// no checkpoint needs.
    fn drop_old(&mut self, at: At) {
        while let Some(index) = self.old_checkpoint(at.stamp.up_micros) {
            let oldest = &self.checkpoints[&index];
            let names: Vec<ObjectName> = oldest.committed.names().collect();
            let of_itself = oldest.committed.reference.name;
            self.checkpoints.remove(&index);
            self.unsaved.insert(Record::Checkpoint(index));
            for name in names {
                self.drop_object(name, at, name == of_itself);
            }
        }
        self.drop_rounds(at);
    }

    /// The oldest checkpoint, where it was kept long enough.
    fn old_checkpoint(&self, up_micros: u64) -> Option<LogIndex> {
        let mut checkpoints = self.checkpoints.iter();
        let (index, _) = checkpoints.next()?;
        let (_, next) = checkpoints.next()?;
        let (_, newest) = self.checkpoints.last_key_value()?;
        // It was the newest until the one behind it counted.
        let kept_until = next.up_micros.saturating_add(newest.committed.keep_micros);
        (kept_until <= up_micros).then_some(*index)
    }

    /// Whether telling the archive what was removed, be it nothing, would let more be collected:
    /// something waits only for a checkpoint that was kept long enough.
    pub fn has_old(&self, up_micros: u64) -> bool {
        !self.dropped.is_empty() && self.old_checkpoint(up_micros).is_some()
    }

    /// Whether a checkpoint would let go what none so far does: the state has changed since, or
    /// payload was dropped behind the newest one. Checkpoints and rounds that were dropped do not
    /// count: the next one drops others.
    pub fn lacks_checkpoint(&self) -> bool {
        let newest = self.newest_checkpoint();
        if self.last_operation > newest {
            return true;
        }
        let behind = || self.dropped.values().filter(|dropped| dropped.index > newest);
        // An old checkpoint's chunks, which look like payload, were dropped with itself; neither is
        // collected before another one counts.
        let with_names: BTreeSet<LogIndex> =
            behind().filter(|dropped| dropped.names_others).map(|dropped| dropped.index).collect();
        behind().any(|dropped| !with_names.contains(&dropped.index))
    }

    fn drop_rounds(&mut self, at: At) {
        let Some((_, oldest)) = self.checkpoints.first_key_value() else { return };
        let needed_from = oldest.committed.archived.min(oldest.committed.index);
        // The tip stays: the next round continues it.
        while self.rounds.len() > 1 {
            let Some((last, round)) = self.rounds.first_key_value() else { return };
            if *last > needed_from {
                return;
            }
            let (last, name) = (*last, round.footer.name);
            self.rounds.remove(&last);
            self.unsaved.insert(Record::Round(last));
            self.drop_object(name, at, true);
        }
    }

    /// Objects of a compaction count as referred to until the machine says otherwise.
    pub(crate) fn compacted(&mut self, objects: &[ObjectRef], at: At) -> Result<(), Refused> {
        let named_here = |object: &ObjectRef| {
            object.name.incarnation == self.incarnation && object.name.term == at.term
        };
        if !objects.iter().all(named_here) {
            return Err(Refused::OfAnotherTerm);
        }
        self.refer(objects);
        Ok(())
    }

    fn refer(&mut self, objects: &[ObjectRef]) {
        for object in objects {
            let stored = Stored { length: object.length, checksum: object.checksum };
            self.objects.insert(object.name, stored);
            self.unsaved.insert(Record::Object(object.name));
        }
    }

    /// The machine refers to these no more.
    pub(crate) fn dead(&mut self, names: Vec<ObjectName>, at: At) {
        for name in names {
            if self.objects.remove(&name).is_some() {
                self.unsaved.insert(Record::Object(name));
                self.drop_object(name, at, false);
            }
        }
    }

    fn drop_object(&mut self, name: ObjectName, at: At, names_others: bool) {
        let up_micros = at.stamp.up_micros;
        self.dropped.insert(name, Dropped { index: at.index, up_micros, names_others });
        self.unsaved.insert(Record::Dropped(name));
    }

    /// Objects are gone from the bucket; names that are not dropped stay what they are.
    pub(crate) fn removed(&mut self, names: &[ObjectName], at: At) {
        self.drop_old(at);
        for name in names {
            if self.dropped.remove(name).is_some() {
                self.unsaved.insert(Record::Dropped(*name));
            }
        }
    }

    pub(crate) fn recovered(&mut self, incarnation: Incarnation) -> Result<(), Refused> {
        if incarnation <= self.incarnation {
            return Err(Refused::Older);
        }
        self.incarnation = incarnation;
        self.unsaved.insert(Record::Head);
        Ok(())
    }
}

impl CommittedCheckpoint {
    /// The checkpoint itself and its chunks.
    pub fn names(&self) -> impl Iterator<Item = ObjectName> + '_ {
        std::iter::once(self.reference.name).chain(self.chunks.iter().map(|chunk| chunk.name))
    }
}
