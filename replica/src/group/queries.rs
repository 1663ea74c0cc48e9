//! Linearizable questions: Raft's read index, held back until it means something.
//!
//! raft-rs drops a read index silently while its leader has not committed an entry of its own
//! term, and confuses reads whose contexts repeat. So queries wait until the group serves, and a
//! context is never used twice, in any process.

use std::collections::VecDeque;
use std::time::Duration;

use common::{Clock, LogIndex, MonotonicTime, Rng};
use raft::ReadState;

use super::Group;
use crate::handle::Query;
use crate::machine::StateMachine;
use crate::propose::ProposeError;

pub(super) struct Queries<M: StateMachine> {
    staged: Vec<Query<M>>,
    /// When a question was answered last, or began to wait behind none.
    moved: MonotonicTime,
    /// Waiting for their read index, in the order in which they asked.
    asked: VecDeque<(Vec<u8>, Vec<Query<M>>)>,
    /// Waiting for the state to reach their index.
    known: VecDeque<(u64, Vec<Query<M>>)>,
    /// Tells this process's contexts from those of every other.
    process: u128,
    count: u64,
}

impl<M: StateMachine> Queries<M> {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            staged: Vec::new(),
            moved: MonotonicTime::default(),
            asked: VecDeque::new(),
            known: VecDeque::new(),
            process: rng.u128(),
            count: 0,
        }
    }

    pub(super) fn stage(&mut self, queries: Vec<Query<M>>, now: MonotonicTime) {
        if self.is_empty() {
            self.moved = now;
        }
        self.staged.extend(queries);
    }

    /// How long they wait without that any is answered.
    pub(super) fn stuck_for(&self, now: MonotonicTime) -> Duration {
        if self.is_empty() { Duration::ZERO } else { now.since(self.moved) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.staged.is_empty() && self.asked.is_empty() && self.known.is_empty()
    }

    /// A context for everything staged, if there is anything.
    fn ask(&mut self) -> Option<Vec<u8>> {
        if self.staged.is_empty() {
            return None;
        }
        self.count += 1;
        let context = [&self.process.to_le_bytes()[..], &self.count.to_le_bytes()].concat();
        self.asked.push_back((context.clone(), std::mem::take(&mut self.staged)));
        Some(context)
    }

    /// raft-rs says from which index on the questions may be answered. It answers in order, but a
    /// single answer can stand for those before it.
    pub(super) fn learn(&mut self, states: Vec<ReadState>) {
        for state in states {
            let Some(at) = self.asked.iter().position(|(ctx, _)| *ctx == state.request_ctx) else {
                continue;
            };
            for (_, queries) in self.asked.drain(..=at) {
                self.known.push_back((state.index, queries));
            }
        }
    }

    /// Answers what the state has reached.
    pub(super) fn run(&mut self, applied: LogIndex, machine: &M, clock: &dyn Clock) {
        while self.known.front().is_some_and(|(index, _)| *index <= applied.0) {
            if let Some((_, queries)) = self.known.pop_front() {
                self.moved = clock.monotonic();
                queries.into_iter().for_each(|query| query(Ok(machine)));
            }
        }
    }

    pub(super) fn fail(&mut self, error: &ProposeError) {
        let asked = self.asked.drain(..).chain([]).map(|(_, queries)| queries);
        let known = self.known.drain(..).map(|(_, queries)| queries);
        let staged = std::mem::take(&mut self.staged);
        for queries in asked.chain(known).chain([staged]) {
            queries.into_iter().for_each(|query| query(Err(error.clone())));
        }
    }
}

impl<M: StateMachine> Group<M> {
    pub(super) fn ask_for_read_index(&mut self) {
        if self.is_blocked() {
            return;
        }
        if let Some(context) = self.queries.ask() {
            self.node.read_index(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use common::clock::ManualClock;
    use std::sync::Arc;

    use super::*;
    use crate::testing::Numbers;

    #[test]
    fn questions_are_stuck_from_when_the_last_one_was_answered() {
        let mut queries: Queries<Numbers> = Queries::new(&mut Rng::from_seed(1));
        let clock = ManualClock::new(common::WallTime(0));
        let second = Duration::from_secs(1);
        let machine = Numbers::new(&Arc::default());
        assert_eq!(queries.stuck_for(clock.monotonic()), Duration::ZERO);
        clock.advance(second);
        let ask = || -> Vec<Query<Numbers>> { vec![Box::new(|_| ())] };
        queries.stage(ask(), clock.monotonic());
        let request_ctx = queries.ask().unwrap();
        clock.advance(second);
        queries.stage(ask(), clock.monotonic());
        assert_eq!(queries.stuck_for(clock.monotonic()), second, "a later one changes nothing");
        queries.learn(vec![ReadState { index: 0, request_ctx }]);
        queries.run(LogIndex(0), &machine, &clock);
        assert_eq!(queries.stuck_for(clock.monotonic()), Duration::ZERO);
        clock.advance(second);
        assert_eq!(queries.stuck_for(clock.monotonic()), second, "one is left");
        queries.fail(&ProposeError::TimedOut { waited: second });
        assert_eq!(queries.stuck_for(clock.monotonic()), Duration::ZERO);
    }
}
