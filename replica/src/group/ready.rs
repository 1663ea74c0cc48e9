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
use wal::{AppendError, Batch, BlockSeq, Claim, EntryRef, FullReason, Log};

use super::Group;
use crate::envelope;
use crate::error::{Failure, HostFailure};
use crate::machine::StateMachine;
use crate::storage::{kind, weight};

/// A file of the log has room for so many parts of a ready's entries.
const PARTS_OF_FILE: usize = 4;

/// What an entry's record has beside it, and what a ready has beside entries, generously: the files
/// kept for what makes room must not be needed for it.
const HEAD_BYTES: usize = 64;
const BESIDES_BYTES: usize = 16 * 1024;

/// Readies whose blocks are not durable yet, in order.
#[derive(Default)]
pub(super) struct Unsynced {
    readies: VecDeque<Waiting>,
    /// The block of the newest changed term or vote, until it is durable.
    hold: Option<BlockSeq>,
    /// A ready that the log had no space for; raft-rs is not touched until it went in.
    pub(super) blocked: Option<Ready>,
    /// Entries of the ready at hand that are in the log already.
    written: usize,
    /// Bytes of entries that were received since raft-rs had nothing ready any more.
    received: usize,
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
        self.unsynced.blocked.is_some() || self.successor.is_some()
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
        while self.successor.is_none() {
            let ready = match self.unsynced.blocked.take() {
                Some(ready) => ready,
                None if self.node.has_ready() => self.node.ready(),
                None => break,
            };
            self.observe_role();
            if !ready.snapshot().is_empty() {
                return self.give_way(ready);
            }
            let Some(block) = self.write_ready(&ready)? else {
                self.unsynced.blocked = Some(ready);
                return Ok(());
            };
            self.finish_ready(ready, block)?;
        }
        // Whatever was received is in the log, or was of no use.
        self.unsynced.received = 0;
        Ok(())
    }

    /// Hands a ready's entries and promises to the log; `None` when it has no space for them now.
    /// The block is 0 where nothing needs to be durable.
    fn write_ready(&mut self, ready: &Ready) -> Result<Option<BlockSeq>, Failure> {
        if !ready.must_sync() {
            if let Some(hard_state) = ready.hs() {
                self.log.note_commit(self.id, LogIndex(hard_state.commit));
            }
            return Ok(Some(BlockSeq(0)));
        }
        // What a follower missed may come all at once. Of many files the log never has enough ready:
        // it gets a part of one at a time.
        let part_bytes = self.settings.log.file_size.as_usize() / PARTS_OF_FILE;
        loop {
            let rest = &ready.entries()[self.unsynced.written..];
            let part = &rest[..part(rest, part_bytes)];
            let Some(block) = self.write_part(part)? else { return Ok(None) };
            self.unsynced.written += part.len();
            if part.len() == rest.len() {
                self.unsynced.written = 0;
                return Ok(Some(block));
            }
        }
    }

    /// Whether the log has room for what a leader sends. What it has not is not received, and comes
    /// again: so that this member goes on applying, and drops what is archived, instead of waiting
    /// for room with everything else. What says that entries are archived makes room.
    pub(super) fn has_room_for(&mut self, message: &Message) -> Result<bool, Failure> {
        let bytes: usize = message.entries.iter().map(|entry| weight(entry) + HEAD_BYTES).sum();
        let makes_room = |entry: &Entry| {
            entry.context.is_empty() || envelope::as_housekeeping(&entry.context).is_some()
        };
        if message.entries.iter().all(makes_room) {
            return Ok(true);
        }
        let wanted = self.unsynced.received + bytes + BESIDES_BYTES;
        match self.log.admit(self.id, wanted, Claim::Client) {
            // Files are made all the time.
            Ok(()) | Err(AppendError::Full(FullReason::Preparing)) => {
                self.unsynced.received += bytes;
                Ok(true)
            }
            Err(AppendError::Full(_)) => Ok(false),
            Err(AppendError::Stopped(stopped)) => Err(Failure::Host(HostFailure::Log(stopped))),
            Err(error @ (AppendError::TooLarge { .. } | AppendError::Quarantined { .. })) => {
                Err(Failure::Quarantine(error.to_string()))
            }
        }
    }

    fn write_part(&self, part: &[Entry]) -> Result<Option<BlockSeq>, Failure> {
        let entries: Vec<EntryRef<'_>> = part.iter().map(entry_ref).collect();
        // The newest commit rides along with whatever is written, as far as that proves it.
        let current = self.node.raft.hard_state();
        let proven = part.last().map_or(current.commit, |last| last.index.min(current.commit));
        let hard_state = wal::HardState {
            term: Term(current.term),
            vote: current.vote,
            commit: LogIndex(proven),
        };
        let batch = Batch {
            group: self.id,
            hard_state: Some(hard_state),
            entries: &entries,
            // A leader asked before it proposed, or may not be kept from proposing; a follower
            // asked before it received.
            admitted: true,
            ..Batch::default()
        };
        append(&self.log, &batch)
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
        self.queries.run(self.applier.applied.index, &self.applier.machine, &*self.clock);
        Ok(())
    }
}

/// How many of the entries go into the log together: at least one, where there is any.
fn part(entries: &[Entry], bytes_max: usize) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        bytes += weight(entry);
        bytes <= bytes_max
    };
    entries.iter().take_while(fits).count().max(entries.len().min(1))
}

/// Appends a batch; `None` where the log has no space for it now.
pub(super) fn append(log: &Log, batch: &Batch<'_>) -> Result<Option<BlockSeq>, Failure> {
    match log.append(batch) {
        Ok(block) => Ok(Some(block)),
        Err(AppendError::Full(_)) => Ok(None),
        Err(AppendError::Stopped(stopped)) => Err(Failure::Host(HostFailure::Log(stopped))),
        Err(error @ (AppendError::TooLarge { .. } | AppendError::Quarantined { .. })) => {
            Err(Failure::Quarantine(error.to_string()))
        }
    }
}

pub(super) fn entry_ref(entry: &Entry) -> EntryRef<'_> {
    EntryRef {
        index: LogIndex(entry.index),
        term: Term(entry.term),
        kind: kind(entry),
        context: &entry.context,
        data: &entry.data,
    }
}
