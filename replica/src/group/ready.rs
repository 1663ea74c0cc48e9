//! What raft-rs wants done: entries and promises into the log, messages out, entries applied.
//!
//! Two laws. Nothing is reported as persisted before its block is durable. And a `Ready` with a
//! changed term or vote holds back all its messages, and those of every later `Ready`, until it is
//! durable: raft-rs lets a fresh leader of one voter send appends at once, and a crash would then
//! leave followers with entries of a term that the leader has forgotten and uses again.

use std::collections::VecDeque;

use common::{LogIndex, Term, planted};
use raft::Ready;
use raft::eraftpb::{Entry, HardState, Message};
use wal::{AppendError, Batch, BlockSeq, EntryRef};

use super::Group;
use crate::error::{Failure, HostFailure};
use crate::machine::StateMachine;
use crate::storage::kind;

/// Readies whose blocks are not durable yet, in order.
#[derive(Default)]
pub(super) struct Unsynced {
    readies: VecDeque<Waiting>,
    /// The block of the newest changed term or vote, until it is durable.
    hold: Option<BlockSeq>,
    /// A ready that the log had no space for; raft-rs is not touched until it went in.
    blocked: Option<Ready>,
    /// Term and vote as last handed to the log.
    promised: (u64, u64),
}

struct Waiting {
    number: u64,
    block: BlockSeq,
    /// Leave once the block is durable.
    messages: Vec<Message>,
}

impl Unsynced {
    pub(super) fn new(hard_state: &HardState) -> Self {
        Self { promised: (hard_state.term, hard_state.vote), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.readies.is_empty() && self.blocked.is_none()
    }
}

impl<M: StateMachine> Group<M> {
    pub(super) fn is_blocked(&self) -> bool {
        self.unsynced.blocked.is_some()
    }

    /// Reports what became durable to raft-rs, then lets the messages go that vouch for it.
    pub(super) fn persisted(&mut self, durable: BlockSeq) {
        let durable =
            if planted::active("acknowledge-before-sync") { BlockSeq(u64::MAX) } else { durable };
        if self.unsynced.hold.is_some_and(|hold| hold <= durable) {
            self.unsynced.hold = None;
        }
        let mut newest = None;
        let mut messages = Vec::new();
        while self.unsynced.readies.front().is_some_and(|ready| ready.block <= durable) {
            if let Some(ready) = self.unsynced.readies.pop_front() {
                newest = Some(ready.number);
                messages.extend(ready.messages);
            }
        }
        if let Some(number) = newest {
            self.node.on_persist_ready(number);
            self.outgoing.extend(messages);
        }
    }

    /// Works off everything raft-rs has ready.
    pub(super) fn handle_ready(&mut self) -> Result<(), Failure> {
        loop {
            let ready = match self.unsynced.blocked.take() {
                Some(ready) => ready,
                None if self.node.has_ready() => self.node.ready(),
                None => return Ok(()),
            };
            self.observe_role();
            let Some(block) = self.write_ready(&ready)? else {
                self.unsynced.blocked = Some(ready);
                return Ok(());
            };
            self.finish_ready(ready, block)?;
        }
    }

    /// Hands a ready's entries and promises to the log; `None` when it has no space for them now.
    /// The block is 0 where nothing needs to be durable.
    fn write_ready(&mut self, ready: &Ready) -> Result<Option<BlockSeq>, Failure> {
        if !ready.snapshot().is_empty() {
            return Err(Failure::Quarantine("a snapshot arrived, which this build lacks".into()));
        }
        if !ready.must_sync() {
            if let Some(hard_state) = ready.hs() {
                self.log.note_commit(self.id, LogIndex(hard_state.commit));
            }
            return Ok(Some(BlockSeq(0)));
        }
        let entries: Vec<EntryRef<'_>> = ready.entries().iter().map(entry_ref).collect();
        // The newest commit rides along with whatever is written.
        let current = self.node.raft.hard_state();
        let hard_state = wal::HardState {
            term: Term(current.term),
            vote: current.vote,
            commit: LogIndex(current.commit),
        };
        let batch = Batch {
            group: self.id,
            hard_state: Some(hard_state),
            entries: &entries,
            // A leader asked before it proposed, or may not be kept from proposing.
            admitted: self.role.leads.is_some(),
            ..Batch::default()
        };
        match self.log.append(&batch) {
            Ok(block) => Ok(Some(block)),
            Err(AppendError::Full(_)) => Ok(None),
            Err(AppendError::Stopped(stopped)) => Err(Failure::Host(HostFailure::Log(stopped))),
            Err(error @ (AppendError::TooLarge { .. } | AppendError::Quarantined { .. })) => {
                Err(Failure::Quarantine(error.to_string()))
            }
        }
    }

    fn finish_ready(&mut self, mut ready: Ready, block: BlockSeq) -> Result<(), Failure> {
        if let Some(hard_state) = ready.hs() {
            let promise = (hard_state.term, hard_state.vote);
            if promise != self.unsynced.promised {
                self.unsynced.promised = promise;
                self.unsynced.hold = Some(block);
            }
        }
        let mut messages = ready.take_persisted_messages();
        let at_once = ready.take_messages();
        if self.unsynced.hold.is_some() {
            messages.extend(at_once);
        } else {
            self.outgoing.extend(at_once);
        }
        self.node.mut_store().append(ready.take_entries());
        self.queries.learn(ready.take_read_states());
        let committed = ready.take_committed_entries();
        let number = ready.number();
        self.node.advance_append_async(ready);
        // Readies persist in order: one with nothing to write waits for those before it.
        let block = self.unsynced.readies.back().map_or(block, |back| back.block.max(block));
        self.unsynced.readies.push_back(Waiting { number, block, messages });
        self.persisted(self.log.durable());
        self.apply(&committed)?;
        self.queries.run(self.applier.applied.index, &self.applier.machine);
        Ok(())
    }
}

fn entry_ref(entry: &Entry) -> EntryRef<'_> {
    EntryRef {
        index: LogIndex(entry.index),
        term: Term(entry.term),
        kind: kind(entry),
        context: &entry.context,
        data: &entry.data,
    }
}
