//! Linearizable questions: Raft's read index, held back until it means something.
//!
//! raft-rs drops a read index silently while its leader has not committed an entry of its own
//! term, and confuses reads whose contexts repeat. So queries wait until the group serves, and a
//! context is never used twice, in any process.

use std::collections::VecDeque;

use common::{LogIndex, Rng};
use raft::ReadState;

use super::Group;
use crate::handle::Query;
use crate::machine::StateMachine;
use crate::propose::ProposeError;

pub(super) struct Queries<M: StateMachine> {
    staged: Vec<Query<M>>,
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
            asked: VecDeque::new(),
            known: VecDeque::new(),
            process: rng.u128(),
            count: 0,
        }
    }

    pub(super) fn stage(&mut self, queries: Vec<Query<M>>) {
        self.staged.extend(queries);
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
    pub(super) fn run(&mut self, applied: LogIndex, machine: &M) {
        while self.known.front().is_some_and(|(index, _)| *index <= applied.0) {
            if let Some((_, queries)) = self.known.pop_front() {
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
