//! What came of jobs, on its way into the log.

use bytes::Bytes;
use common::MonotonicTime;
use raft::eraftpb::{Message, MessageType};
use wal::{AppendError, Claim};

use super::{UnderWay, Uploaded};
use crate::archive::Housekeeping;
use crate::envelope;
use crate::error::{Failure, HostFailure};
use crate::group::Group;
use crate::machine::StateMachine;
use crate::storage::proposed;
use crate::tiering::{JobKind, NameRange};

/// Whether the log can be truncated for what an entry of this kind says: such entries go into a full
/// log, others are made again when there is room.
fn archives(kind: Option<JobKind>) -> bool {
    !matches!(kind, Some(JobKind::Collection | JobKind::Compaction | JobKind::Sweep))
}

impl<M: StateMachine> Group<M> {
    /// Proposes what waits for it.
    pub(in crate::group) fn propose_housekeeping(&mut self) -> Result<(), Failure> {
        self.skip_hole();
        let end = self.applier.archive.end();
        let reached = |copy: &mut Uploaded| copy.checkpoint.index <= end;
        if !self.tiering.under_way.contains_key(&JobKind::Checkpoint)
            && let Some(Uploaded { checkpoint, .. }) = self.tiering.uploaded.take_if(reached)
        {
            let names = NameRange::of(checkpoint.reference.name);
            let began = self.clock.monotonic();
            let job = UnderWay { names, began, log_bytes: 0, entry: None };
            self.tiering.under_way.insert(JobKind::Checkpoint, job);
            self.say(JobKind::Checkpoint, Housekeeping::Checkpoint(checkpoint));
        }
        while !self.is_blocked() && !self.tiering.to_propose.is_empty() {
            if !self.log.room() {
                self.retry = true;
                break;
            }
            let Some((kind, said)) = self.tiering.to_propose.pop_front() else { break };
            let stamp = self.applier.stamps.next(&*self.clock);
            let context = envelope::housekeeping(stamp, |out| said.encode(out));
            if !archives(kind) && !self.has_room_besides_rounds(context.len())? {
                self.tiering.give_up(kind, self.clock.monotonic());
                continue;
            }
            self.propose_said(kind, context)?;
            self.handle_ready()?;
        }
        Ok(())
    }

    /// Whether an entry that only frees space elsewhere leaves the log what rounds need.
    fn has_room_besides_rounds(&self, bytes: usize) -> Result<bool, Failure> {
        match self.log.admit(self.id, bytes, Claim::FreesSpace) {
            Ok(()) => Ok(true),
            Err(AppendError::Stopped(stopped)) => Err(Failure::Host(HostFailure::Log(stopped))),
            Err(_) => Ok(false),
        }
    }

    fn propose_said(&mut self, kind: Option<JobKind>, context: Bytes) -> Result<(), Failure> {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.peer;
        message.set_entries(vec![proposed(context, Bytes::new())].into());
        match self.node.raft.step(message) {
            Ok(()) => {}
            Err(raft::Error::ProposalDropped) => {
                // In no log: the job is done again.
                if let Some(kind) = kind {
                    self.tiering.under_way.remove(&kind);
                }
                if kind == Some(JobKind::Checkpoint) {
                    self.tiering.copy_again();
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        let raft = &self.node.raft;
        let place = (raft.raft_log.last_index(), raft.term);
        if let Some(job) = kind.and_then(|kind| self.tiering.under_way.get_mut(&kind)) {
            job.entry = Some(place);
        }
        if kind == Some(JobKind::Round) {
            let interval = self.tiering.settings().map(|settings| settings.compaction_interval);
            let due = self.clock.monotonic().plus(interval.unwrap_or_default());
            let look = &mut self.tiering.next_look.compaction;
            if *look == MonotonicTime::default() {
                *look = due;
            }
        }
        Ok(())
    }
}
