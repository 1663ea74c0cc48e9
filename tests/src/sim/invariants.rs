//! What holds after every event, whatever happened before, seen from outside.
//!
//! - A term of a group has one leader: no two lives of the process lead in the same.
//! - A vote never changes within a term, in all lives; no log goes back behind a promise that was
//!   durable.
//! - Who serves in a term has its vote on the disk.
//! - What is committed, which is all that clients may be told, is on the disk.
//! - A commit index never goes back, in one life, nor behind an earlier life's once a group serves.

use std::collections::BTreeMap;

use common::{GroupId, LogIndex, Term};
use replica::GroupStatus;
use wal::{BlockSeq, Log};

use super::node::Node;
use super::world::World;

/// What was seen of a machine so far.
#[derive(Debug, Default)]
pub(super) struct Invariants {
    /// The life of the process.
    life: u64,
    groups: BTreeMap<GroupId, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// In which life a term was led.
    leaders: BTreeMap<Term, u64>,
    /// What the log promised, oldest first: all that may still be there after a crash.
    promises: Vec<Promise>,
    durable: BlockSeq,
    /// Of this life, and the highest of all.
    commit: LogIndex,
    highest: LogIndex,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Promise {
    term: Term,
    vote: u64,
    block: BlockSeq,
}

impl Promise {
    /// Whether a log with this one may be that of somebody who made `earlier`.
    fn keeps(&self, earlier: &Promise) -> bool {
        let same = earlier.vote == 0 || self.vote == earlier.vote;
        self.term > earlier.term || (self.term == earlier.term && same)
    }
}

impl Invariants {
    /// The process is gone, and what was not durable may be gone with it.
    pub(super) fn process_ended(&mut self) {
        self.life += 1;
        for seen in self.groups.values_mut() {
            let durable = seen.durable;
            seen.promises.retain(|promise| promise.block <= durable);
            seen.commit = LogIndex(0);
        }
    }

    /// Something happened.
    fn look(&mut self, node: &Node) -> Result<(), String> {
        for (group, status) in node.statuses() {
            let seen = self.groups.entry(group).or_default();
            let held = seen.look(self.life, group, &node.log, &status);
            held.map_err(|broken| format!("group {group}: {broken}: {status:?}, {seen:?}"))?;
        }
        Ok(())
    }
}

impl Seen {
    fn look(
        &mut self,
        life: u64,
        group: GroupId,
        log: &Log,
        status: &GroupStatus,
    ) -> Result<(), &'static str> {
        self.durable = log.durable();
        let Some((found, block)) = log.promise(group) else { return Ok(()) };
        let now = Promise { term: found.term, vote: found.vote, block };
        if self.promises.iter().any(|earlier| !now.keeps(earlier)) {
            return Err("it went back behind a promise");
        }
        if self.promises.last() != Some(&now) {
            self.promises.push(now);
        }
        if status.installing.is_some() {
            return Ok(());
        }
        if status.commit < self.commit {
            return Err("its commit index went back");
        }
        self.commit = status.commit;
        let dropped = log.group(group).is_some_and(|known| self.commit <= known.truncated.index);
        if self.commit > LogIndex(0) && !dropped && !log.has_durable(group, self.commit) {
            return Err("what is committed is not on the disk");
        }
        if status.leader == Some(status.peer) && status.serving {
            return self.check_leader(life, status);
        }
        Ok(())
    }

    fn check_leader(&mut self, life: u64, status: &GroupStatus) -> Result<(), &'static str> {
        if *self.leaders.entry(status.term).or_insert(life) != life {
            return Err("an earlier life led in this term");
        }
        if self.commit < self.highest {
            return Err("it serves with less than it had committed");
        }
        self.highest = self.commit;
        let mut durable = self.promises.iter().filter(|promise| promise.block <= self.durable);
        let has_vote = |p: &Promise| p.term == status.term && p.vote == status.peer;
        match durable.any(has_vote) {
            true => Ok(()),
            false => Err("it serves by a vote that may be forgotten"),
        }
    }
}

impl World {
    /// After every event: the first invariant that does not hold ends the run.
    pub(super) fn check_invariants(&mut self) {
        let Some(node) = &self.node else { return };
        if let Err(broken) = self.invariants.look(node) {
            self.problem(broken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promise(term: u64, vote: u64, block: u64) -> Promise {
        Promise { term: Term(term), vote, block: BlockSeq(block) }
    }

    #[test]
    fn a_vote_may_be_given_once_in_a_term_and_terms_only_rise() {
        let voted = promise(2, 1, 7);
        assert!(voted.keeps(&promise(2, 0, 6)) && voted.keeps(&voted));
        assert!(promise(3, 0, 8).keeps(&voted));
        assert!(!promise(2, 3, 8).keeps(&voted) && !promise(2, 0, 8).keeps(&voted));
        assert!(!promise(1, 1, 8).keeps(&voted));
    }

    #[test]
    fn a_term_is_led_by_one_life_whose_vote_is_durable_and_which_has_what_was_committed() {
        let seen = |durable, commit| Seen {
            promises: vec![promise(2, 1, 7)],
            durable: BlockSeq(durable),
            commit: LogIndex(commit),
            highest: LogIndex(9),
            ..Seen::default()
        };
        let leads = GroupStatus { peer: 1, term: Term(2), ..GroupStatus::default() };
        let mut good = seen(7, 9);
        assert_eq!(good.check_leader(0, &leads), Ok(()));
        assert_eq!(good.check_leader(0, &leads), Ok(()));
        assert!(good.check_leader(1, &leads).unwrap_err().contains("earlier life"));
        assert!(seen(6, 9).check_leader(0, &leads).unwrap_err().contains("forgotten"));
        assert!(seen(7, 8).check_leader(0, &leads).unwrap_err().contains("less than"));
    }
}
