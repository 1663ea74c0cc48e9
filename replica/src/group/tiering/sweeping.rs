//! When objects are looked for that nobody ever referred to, and which of them are garbage.

use common::{MonotonicTime, Term};
use lts::ObjectName;

use crate::group::Group;
use crate::machine::StateMachine;
use crate::tiering::{JobKind, NameRange, Sweep, Swept, Work};

impl<M: StateMachine> Group<M> {
    pub(super) fn begin_sweep(&mut self, now: MonotonicTime) -> Option<Work> {
        if self.tiering.next_look.sweep > now || !self.tiering.is_free(JobKind::Sweep, now) {
            return None;
        }
        let interval = self.tiering.settings()?.sweep_interval;
        let (incarnation, group) = (self.applier.archive.incarnation(), self.id);
        let begun = Sweep { incarnation, group, garbage: Vec::new(), after: None, more: true };
        let step = self.tiering.sweep.take().unwrap_or(begun);
        self.tiering.next_look.sweep = now.plus(interval);
        self.tiering.only_own = false;
        self.tiering.begin(JobKind::Sweep, now);
        Some(Work::Sweep(step))
    }

    /// What of a page nobody refers to, and never will: what was named under an older term, since an
    /// entry of this one is applied, and below everything that is under way in this one. What lies
    /// above the tip waits for a higher one: it may be a round that no entry names, and whoever takes
    /// the bucket over before there is a higher one ends with that. See [`lts::owner`].
    pub(super) fn swept(&mut self, swept: Swept, now: MonotonicTime) {
        self.tiering.under_way.remove(&JobKind::Sweep);
        if swept.deleted > 0 {
            tracing::info!(group = %self.id, objects = swept.deleted, "deleted what nobody refers to");
        }
        let Some(after) = swept.names.last().copied() else { return };
        let (term, lowest) = (Term(self.role.term), self.tiering.lowest_open());
        let known = self.applier.archive.names_between(swept.names[0], after);
        let garbage = |name: &ObjectName| {
            let early = common::planted::active("sweep-takes-what-is-under-way");
            let decided =
                early || name.term < term || (name.term == term && NameRange::of(*name) < lowest);
            decided && !known.contains(name)
        };
        let mut garbage: Vec<ObjectName> = swept.names.into_iter().filter(garbage).collect();
        if !common::planted::active("sweep-takes-what-a-recovery-may-end-with") {
            let tip = self.applier.archive.tip().map(|footer| footer.name);
            let found = garbage.len();
            garbage.retain(|name| Some(*name) < tip);
            if garbage.len() < found {
                self.tiering.above_tip.get_or_insert(now);
            }
        }
        if garbage.is_empty() && !swept.more {
            return;
        }
        let (incarnation, group) = (self.applier.archive.incarnation(), self.id);
        self.tiering.sweep =
            Some(Sweep { incarnation, group, garbage, after: Some(after), more: swept.more });
        self.tiering.next_look.sweep = now;
    }
}
