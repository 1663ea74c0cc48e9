//! Jobs that are due: what each of them is to do, as of now.

use common::{Incarnation, LogIndex, MonotonicTime};

use super::{COLLECT_INTERVAL, COLLECT_MAX, ROUND_ENTRIES_MAX};
use crate::archive::Housekeeping;
use crate::group::Group;
use crate::machine::StateMachine;
use crate::tiering::{CheckpointUpload, Collection, Compaction, JobKind, RoundUpload, Work};

impl<M: StateMachine> Group<M> {
    pub(super) fn begin_round(&mut self, now: MonotonicTime) -> Option<Work> {
        if self.tiering.round_due(&self.applier.archive).is_none_or(|due| due > now) {
            return None;
        }
        let archive = &self.applier.archive;
        let first = LogIndex(archive.end().0 + 1);
        let most = LogIndex(archive.end().0 + ROUND_ENTRIES_MAX);
        let before_hole = self.tiering.hole(archive).map_or(most, |hole| hole.before());
        let last = self.applier.applied.index.min(most).min(before_hole);
        if last < first {
            return None;
        }
        let (continues, begins) = (archive.tip(), archive.beginning());
        self.tiering.in_the_way = None;
        let bytes_max = self.tiering.settings()?.round_bytes_max.bytes();
        let number = self.tiering.begin(JobKind::Round, now);
        let count = (last.0 - first.0 + 1) as usize;
        Some(Work::Round(RoundUpload {
            names: self.names(number),
            continues,
            begins,
            range: first..=last,
            membership: self.node.store().membership(),
            kept: self.node.store().kept(first..=last, bytes_max),
            digests: self.applier.digests.part(first, count),
            owners: self.applier.machine.owners(),
        }))
    }

    pub(super) fn begin_checkpoint(&mut self, now: MonotonicTime) -> Option<Work> {
        let due = self.tiering.checkpoint_due(self.saved.flushed, &self.applier.archive);
        if due.is_none_or(|due| due > now) {
            return None;
        }
        let settings = self.tiering.settings()?;
        let (pause, keep) = (settings.checkpoint_pause, settings.checkpoint_keep);
        self.tiering.checkpoint_not_before = now.plus(pause);
        self.tiering.in_checkpoint = std::mem::take(&mut self.tiering.since_checkpoint);
        let number = self.tiering.begin(JobKind::Checkpoint, now);
        Some(Work::Checkpoint(CheckpointUpload {
            names: self.names(number),
            membership: self.node.store().membership(),
            keep_micros: keep.as_micros() as u64,
        }))
    }

    pub(super) fn begin_collection(&mut self, now: MonotonicTime) -> Option<Work> {
        let due = self.tiering.next_look.collection <= now;
        if !due || !self.tiering.is_free(JobKind::Collection, now) {
            return None;
        }
        let grace = self.tiering.settings()?.grace;
        self.tiering.next_look.collection = now.plus(grace.min(COLLECT_INTERVAL));
        let (archive, up) = (&self.applier.archive, self.applier.up_micros(now));
        let from = if self.tiering.only_own { archive.incarnation() } else { Incarnation(0) };
        let names = archive.collectable(up, grace.as_micros() as u64, from, COLLECT_MAX);
        if names.is_empty() {
            if archive.has_old(up) {
                self.tiering.begin(JobKind::Collection, now);
                let nothing = Housekeeping::Removed(Vec::new());
                self.tiering.to_propose.push_back((Some(JobKind::Collection), nothing));
                self.retry = true;
            }
            return None;
        }
        let incarnation = archive.incarnation();
        self.tiering.begin(JobKind::Collection, now);
        Some(Work::Collection(Collection { incarnation, names }))
    }

    pub(super) fn begin_compaction(&mut self, now: MonotonicTime) -> Option<Work> {
        let due = self.tiering.next_look.compaction;
        let looks = due > MonotonicTime::default() && due <= now;
        if !looks || !self.tiering.is_free(JobKind::Compaction, now) {
            return None;
        }
        // Asked again after the next round, or at once where there may be more to do.
        self.tiering.next_look.compaction = MonotonicTime::default();
        let bytes_max = self.tiering.settings()?.compaction_bytes_max;
        let plan = self.applier.machine.compaction()?.up_to(bytes_max.bytes());
        let plan = Some(plan).filter(|plan| !plan.pieces.is_empty())?;
        self.tiering.next_look.compaction = now;
        let number = self.tiering.begin(JobKind::Compaction, now);
        Some(Work::Compaction(Compaction { names: self.names(number), plan }))
    }
}
