//! Proposals from the inbox into entries, and their replies by index.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::MonotonicTime;
use common::limits::ENTRY_BYTES_TARGET;
use raft::eraftpb::{Entry as RaftEntry, Message, MessageType};
use wal::{AppendError, Claim, FullReason};

use super::Group;
use super::replies::Round;
use crate::envelope;
use crate::error::{Failure, HostFailure};
use crate::machine::StateMachine;
use crate::propose::{Proposal, ProposeError, Reply};
use crate::storage::proposed;

/// A payload of this size travels alone and uncopied; smaller ones are gathered, because an entry
/// costs more than the copy.
const UNCOPIED_BYTES_MIN: usize = 64 * 1024;

/// The log waits for a file that is being made.
const PREPARING: AppendError = AppendError::Full(FullReason::Preparing);

/// Proposals that were taken and not yet answered.
pub(super) struct Proposals<O> {
    staged: VecDeque<Proposal<O>>,
    /// When one went into an entry last, or began to wait behind none.
    moved: MonotonicTime,
    in_flight: VecDeque<InFlight<O>>,
    round: Round<O>,
}

/// The replies of one proposed entry.
struct InFlight<O> {
    index: u64,
    term: u64,
    bytes: usize,
    replies: Vec<Reply<O>>,
}

impl<O> Default for Proposals<O> {
    fn default() -> Self {
        Self {
            staged: VecDeque::new(),
            moved: MonotonicTime::default(),
            in_flight: VecDeque::new(),
            round: Round::default(),
        }
    }
}

impl<O> Proposals<O> {
    pub(super) fn stage(&mut self, proposals: Vec<Proposal<O>>, now: MonotonicTime) {
        if self.staged.is_empty() {
            self.moved = now;
        }
        self.staged.extend(proposals);
    }

    /// How long what is in no log waits without that any of it goes there.
    pub(super) fn stuck_for(&self, now: MonotonicTime) -> Duration {
        if self.staged.is_empty() { Duration::ZERO } else { now.since(self.moved) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.staged.is_empty() && self.in_flight.is_empty()
    }

    /// Takes the proposals of the next entry: up to the target size, a large payload alone.
    fn gather(&mut self, target: usize) -> Vec<Proposal<O>> {
        let mut batch: Vec<Proposal<O>> = Vec::with_capacity(self.staged.len().min(64));
        let (mut bytes, mut payload, mut large) = (0, 0, false);
        while let Some(next) = self.staged.front() {
            let crowded = bytes + next.bytes() > target;
            large |= next.payload.len() >= UNCOPIED_BYTES_MIN;
            let shares = payload > 0 && !next.payload.is_empty();
            if !batch.is_empty() && (crowded || (large && shares)) {
                break;
            }
            bytes += next.bytes();
            payload += next.payload.len();
            batch.extend(self.staged.pop_front());
        }
        batch
    }

    /// Gives the outcomes of an applied entry to whoever proposed it. Returns the bytes settled.
    pub(super) fn settle(&mut self, entry: &RaftEntry, outcomes: &mut Vec<O>) -> usize {
        // A leader that lost its term has already answered for everything it proposed.
        if self.in_flight.front().is_none_or(|front| front.index != entry.index) {
            return 0;
        }
        let Some(settled) = self.in_flight.pop_front() else { return 0 };
        assert_eq!(settled.term, entry.term, "entry {} is of another leader", entry.index);
        assert_eq!(settled.replies.len(), outcomes.len(), "every proposal has its outcome");
        for (reply, outcome) in settled.replies.into_iter().zip(outcomes.drain(..)) {
            self.round.deliver(reply, Ok(outcome));
        }
        settled.bytes
    }

    pub(super) fn finish_round(&mut self) {
        self.round.finish();
    }

    /// Answers everything: `proposed` for what went into the log, `staged` for what did not.
    /// Returns the bytes settled.
    pub(super) fn fail(&mut self, proposed: &ProposeError, staged: &ProposeError) -> usize {
        let mut released = 0;
        for entry in self.in_flight.drain(..) {
            released += entry.bytes;
            for reply in entry.replies {
                self.round.deliver(reply, Err(proposed.clone()));
            }
        }
        released + self.fail_staged(staged)
    }

    /// Answers what is in no log, all of it: what came later may build on what came before. Returns
    /// the bytes settled.
    fn fail_staged(&mut self, error: &ProposeError) -> usize {
        let mut released = 0;
        for proposal in self.staged.drain(..) {
            released += proposal.bytes();
            self.round.deliver(proposal.reply, Err(error.clone()));
        }
        self.round.finish();
        released
    }

    /// Answers those proposals of a batch that have no more than `claim` with `error` and returns
    /// the others.
    fn refuse(
        &mut self,
        batch: Vec<Proposal<O>>,
        error: &ProposeError,
        claim: Claim,
    ) -> (Vec<Proposal<O>>, usize) {
        let mut released = 0;
        let mut kept = Vec::new();
        for proposal in batch {
            if proposal.exempt && claim == Claim::Client {
                kept.push(proposal);
            } else {
                released += proposal.bytes();
                self.round.deliver(proposal.reply, Err(error.clone()));
            }
        }
        self.round.finish();
        (kept, released)
    }

    fn unstage(&mut self, batch: Vec<Proposal<O>>) {
        for proposal in batch.into_iter().rev() {
            self.staged.push_front(proposal);
        }
    }
}

/// Moves keyed proposals next to others of the same key. The order of one key is kept, and nothing
/// moves across a proposal without a key.
fn group_by_key<O>(batch: &mut [Proposal<O>]) {
    for run in batch.chunk_by_mut(|a, b| a.order_key.is_some() && b.order_key.is_some()) {
        if !run.is_sorted_by_key(|proposal| proposal.order_key) {
            run.sort_by_key(|proposal| proposal.order_key);
        }
    }
}

/// The payload of an entry: the only one as it is, several gathered.
fn gather_payload<O>(batch: &[Proposal<O>]) -> Bytes {
    let mut payloads = batch.iter().map(|p| &p.payload).filter(|payload| !payload.is_empty());
    let Some(first) = payloads.next() else { return Bytes::new() };
    if payloads.clone().next().is_none() {
        return first.clone();
    }
    let mut gathered = BytesMut::with_capacity(batch.iter().map(|p| p.payload.len()).sum());
    gathered.extend_from_slice(first);
    payloads.for_each(|payload| gathered.extend_from_slice(payload));
    gathered.freeze()
}

impl<M: StateMachine> Group<M> {
    /// Gives up what has waited too long while the group did not move on.
    pub(super) fn give_up_waiting(&mut self) {
        if self.proposals.staged.is_empty() && self.queries.is_empty() {
            return;
        }
        let (now, most) = (self.clock.monotonic(), self.settings.wait_max);
        let waited = self.proposals.stuck_for(now);
        if waited >= most {
            let released = self.proposals.fail_staged(&ProposeError::TimedOut { waited });
            self.shared.release(released);
        }
        let waited = self.queries.stuck_for(now);
        if waited >= most {
            self.queries.fail(&ProposeError::TimedOut { waited });
        }
    }

    /// Turns what is staged into entries for as long as the log has room for them.
    pub(super) fn propose(&mut self) -> Result<(), Failure> {
        while !self.proposals.staged.is_empty() && !self.is_blocked() {
            if !self.log.room() {
                // A finished block wakes the worker, a finished file does not.
                self.retry = self.log.admit(self.id, self.entry_target(), Claim::FreesSpace)
                    == Err(PREPARING);
                break;
            }
            let batch = self.proposals.gather(self.entry_target());
            let Some(batch) = self.admit(batch)? else { break };
            self.proposals.moved = self.clock.monotonic();
            if !batch.is_empty() {
                self.propose_entry(batch)?;
                // Into the log at once, so that it knows whether it has room for the next one.
                self.handle_ready()?;
            }
        }
        Ok(())
    }

    /// The size at which an entry closes: what the log calls room for one more.
    fn entry_target(&self) -> usize {
        ENTRY_BYTES_TARGET.min(self.settings.log.block_size.as_usize() / 2)
    }

    /// Asks the log for space; `None` means later. Where clients have none left, those operations of
    /// the batch that free space ask once more: they may not take what rounds need, either.
    fn admit(
        &mut self,
        batch: Vec<Proposal<M::Outcome>>,
    ) -> Result<Option<Vec<Proposal<M::Outcome>>>, Failure> {
        let exempt = batch.iter().all(|proposal| proposal.exempt);
        let claim = if exempt { Claim::FreesSpace } else { Claim::Client };
        let bytes = batch.iter().map(Proposal::bytes).sum::<usize>() + envelope::HEAD_BYTES;
        match self.log.admit(self.id, bytes, claim) {
            Ok(()) => Ok(Some(batch)),
            Err(PREPARING) => {
                self.proposals.unstage(batch);
                self.retry = true;
                Ok(None)
            }
            Err(AppendError::Full(_)) => {
                let full = &ProposeError::LogFull;
                let (kept, released) = self.proposals.refuse(batch, full, claim);
                self.shared.release(released);
                if kept.is_empty() { Ok(Some(kept)) } else { self.admit(kept) }
            }
            Err(AppendError::Stopped(stopped)) => Err(Failure::Host(HostFailure::Log(stopped))),
            Err(error @ (AppendError::TooLarge { .. } | AppendError::Quarantined { .. })) => {
                Err(Failure::Quarantine(error.to_string()))
            }
        }
    }

    fn propose_entry(&mut self, mut batch: Vec<Proposal<M::Outcome>>) -> Result<(), Failure> {
        group_by_key(&mut batch);
        let headers = batch.iter().map(|proposal| proposal.operation.len()).sum();
        let mut builder = envelope::Builder::with_capacity(batch.len(), headers);
        batch.iter().for_each(|p| builder.push(&p.operation, p.payload.len()));
        let context = builder.finish(self.applier.stamps.next(&*self.clock));
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.peer;
        message.set_entries(vec![proposed(context, gather_payload(&batch))].into());
        let bytes = batch.iter().map(Proposal::bytes).sum();
        match self.node.raft.step(message) {
            Ok(()) => {}
            Err(raft::Error::ProposalDropped) => {
                // Not in any log, but blocks behind it may be: whoever sent it must start over.
                self.shared.release(bytes);
                let error = ProposeError::NotLeader { hint: self.leader_hint() };
                for proposal in batch {
                    self.proposals.round.deliver(proposal.reply, Err(error.clone()));
                }
                self.proposals.round.finish();
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        let raft = &self.node.raft;
        self.proposals.in_flight.push_back(InFlight {
            index: raft.raft_log.last_index(),
            term: raft.term,
            bytes,
            replies: batch.into_iter().map(|proposal| proposal.reply).collect(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
