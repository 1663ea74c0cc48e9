//! Sweeps: which pages are looked at, and what in them is garbage.
//!
//! The group's own objects come first. What it put under earlier incarnations is left alone until a
//! person says that nobody needs the cluster of before (`braid lts adopt`), and for the grace time
//! from when that was seen: whoever reads there, another recovery, say, gets to its end.

use common::{Incarnation, MonotonicTime, Term};
use lts::ObjectName;

use super::Tiering;
use crate::group::Group;
use crate::machine::StateMachine;
use crate::tiering::{JobKind, NameRange, Sweep, SweepPage, Swept, Work};

impl<M: StateMachine> Group<M> {
    pub(super) fn begin_sweep(&mut self, now: MonotonicTime) -> Option<Work> {
        if self.tiering.next_look.sweep > now || !self.tiering.is_free(JobKind::Sweep, now) {
            return None;
        }
        let interval = self.tiering.settings()?.sweep_interval;
        let own = self.applier.archive.incarnation();
        let step = self.tiering.sweep.take().unwrap_or_else(|| Sweep {
            group: self.id,
            own,
            garbage: Vec::new(),
            page: Some(SweepPage { incarnation: own, after: None }),
        });
        self.tiering.next_look.sweep = now.plus(interval);
        self.tiering.only_own = false;
        self.tiering.begin(JobKind::Sweep, now);
        Some(Work::Sweep(step))
    }

    /// Takes what a step found, and prepares the next one.
    pub(super) fn swept(&mut self, swept: &Swept, now: MonotonicTime) {
        self.tiering.under_way.remove(&JobKind::Sweep);
        if swept.deleted > 0 {
            tracing::info!(group = %self.id, objects = swept.deleted, "deleted what nobody refers to");
        }
        if swept.adopted {
            self.tiering.adopted_since.get_or_insert(now);
        }
        let garbage = self.below_tip(self.garbage_among(&swept.names), now);
        let page = self.next_page(swept, now);
        if garbage.is_empty() && page.is_none() {
            return self.tiering.finish_sweep(now);
        }
        let own = self.applier.archive.incarnation();
        self.tiering.sweep = Some(Sweep { group: self.id, own, garbage, page });
        self.tiering.next_look.sweep = now;
    }

    /// What nobody refers to, and never will: what was named under an older term, since an entry of
    /// this one is applied, or under an earlier incarnation, since all that is left of it was taken
    /// over; and what is below everything that is under way in this one.
    fn garbage_among(&self, names: &[ObjectName]) -> Vec<ObjectName> {
        let (Some(first), Some(last)) = (names.first(), names.last()) else { return Vec::new() };
        let archive = &self.applier.archive;
        let known = archive.names_between(*first, *last);
        let (own, term) = (archive.incarnation(), Term(self.role.term));
        let lowest = self.tiering.lowest_open();
        let early = common::planted::active("sweep-takes-what-is-under-way");
        let decided = |name: &ObjectName| {
            early
                || name.incarnation < own
                || name.term < term
                || (name.term == term && NameRange::of(*name) < lowest)
        };
        names.iter().filter(|name| decided(name) && !known.contains(*name)).copied().collect()
    }

    /// What lies above the tip waits for a higher one: it may be a round that no entry names, and
    /// whoever takes the bucket over before there is a higher one ends with that. See [`lts::owner`].
    fn below_tip(&mut self, mut garbage: Vec<ObjectName>, now: MonotonicTime) -> Vec<ObjectName> {
        if common::planted::active("sweep-takes-what-a-recovery-may-end-with") {
            return garbage;
        }
        let tip = self.applier.archive.tip().map(|footer| footer.name);
        let found = garbage.len();
        garbage.retain(|name| Some(*name) < tip);
        if garbage.len() < found {
            self.tiering.above_tip.get_or_insert(now);
        }
        garbage
    }

    fn next_page(&self, swept: &Swept, now: MonotonicTime) -> Option<SweepPage> {
        let looked_at = swept.page?;
        if let Some(last) = swept.names.last().filter(|_| swept.more) {
            return Some(SweepPage { after: Some(*last), ..looked_at });
        }
        let before = looked_at.incarnation.0.checked_sub(1).filter(|before| *before > 0)?;
        let page = SweepPage { incarnation: Incarnation(before), after: None };
        self.may_sweep_earlier(now).then_some(page)
    }

    /// Before a recovered group has taken over what its log begins behind, nothing names that.
    fn may_sweep_earlier(&self, now: MonotonicTime) -> bool {
        let whole = self.node.store().truncated().index <= self.applier.archive.end();
        whole && self.tiering.earlier_from().is_some_and(|from| from <= now)
    }
}

impl Tiering {
    /// The next sweep has its time; one that may see more comes earlier.
    fn finish_sweep(&mut self, now: MonotonicTime) {
        if let Some(from) = self.earlier_from().filter(|from| *from > now) {
            self.next_look.sweep = self.next_look.sweep.min(from);
        }
    }

    /// From when on what earlier incarnations put may be swept.
    fn earlier_from(&self) -> Option<MonotonicTime> {
        Some(self.adopted_since?.plus(self.settings()?.grace))
    }
}
