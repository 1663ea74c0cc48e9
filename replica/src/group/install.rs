//! A member without its state, while that is brought back from long-term storage.
//!
//! The log says what is wanted: the state at the entry behind which it begins, and, in a synced
//! mark, from which objects. Only then the saved state is replaced ([`job`]), off the worker; when
//! it is saved and flushed, the mark goes, the group is made as at a start, and what was held is
//! answered. A crash at any moment leaves a log that says the same.
//!
//! Meanwhile the member is silent: it neither votes nor takes entries. Where the objects of its mark
//! are gone, because newer ones have taken their place, it moves on by itself: the log begins behind
//! a later round then, which is committed, and so decides nothing that others do not know.

use std::sync::Arc;
use std::time::Duration;

use common::{GroupId, LogIndex, MonotonicTime};
use raft::eraftpb::Message;
use wal::{Batch, BlockSeq, ConfRef, GroupState, HardState};

use super::apply::Applier;
use super::ready::append;
use super::start::Starting;
use super::{CheckpointJob, FetchJob, Fetched, Frozen, Member};

use crate::archive::{Archive, Basis};
use crate::error::{Failure, HostFailure};
use crate::handle::Shared;
use crate::machine::StateMachine;
use crate::propose::ProposeError;
use crate::tiering::{Done, StorageDone, StorageFailure, StorageJob, Ticket, Work};

mod job;

use job::{InstallJob, Installed, MovedTo};

/// The pause after an attempt that failed; it doubles with every failure in a row.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

pub(super) struct Installing<M: StateMachine> {
    id: GroupId,
    origin: Starting,
    shared: Arc<Shared<M>>,
    /// Makes a machine for each attempt.
    seed: M,
    /// What has to be durable before the state is touched.
    block: BlockSeq,
    durable: BlockSeq,
    /// State of before is on its way to the store: it must have arrived there before it is replaced.
    saving: bool,
    stage: Stage<M>,
    pause: Duration,
    not_before: MonotonicTime,
    /// To be sent when the state is there.
    answers: Vec<Message>,
    outgoing: Vec<Message>,
    successor: Option<Box<dyn Member>>,
    /// The log has no space for what is to be said; tried again.
    retry: bool,
    stopping: bool,
}

enum Stage<M: StateMachine> {
    Waiting,
    Running,
    /// To begin behind a later round.
    Moving(MovedTo),
    /// Saved and flushed.
    Restored(Box<Applier<M>>),
}

impl<M: StateMachine> Installing<M> {
    pub(super) fn new(origin: Starting, shared: Arc<Shared<M>>, seed: M) -> Self {
        Self {
            id: origin.spec.group,
            origin,
            shared,
            seed,
            block: BlockSeq(0),
            durable: BlockSeq(0),
            saving: false,
            stage: Stage::Waiting,
            pause: Duration::ZERO,
            not_before: MonotonicTime::default(),
            answers: Vec::new(),
            outgoing: Vec::new(),
            successor: None,
            retry: false,
            stopping: false,
        }
    }

    /// One whose log was found to begin behind its state.
    pub(super) fn found(origin: Starting, shared: Arc<Shared<M>>, seed: M) -> Self {
        let installing = Self::new(origin, shared, seed);
        installing.publish(None);
        installing
    }

    /// Waits for `block` before anything, and holds `answers` until all is done.
    pub(super) fn hold(&mut self, block: BlockSeq, answers: Vec<Message>) {
        self.block = block;
        self.answers = answers;
        self.publish(None);
    }

    /// What the group before was about to send, and whether it was being saved.
    pub(super) fn pass_on(&mut self, outgoing: Vec<Message>, saving: bool) {
        self.outgoing = outgoing;
        self.saving = saving;
    }

    fn logged(&self) -> GroupState {
        self.origin.log.group(self.id).expect("a group that is installed has a log")
    }

    fn publish(&self, failure: Option<String>) {
        let logged = self.logged();
        self.shared.publish(|status| {
            status.peer = self.origin.spec.peer;
            status.leader = None;
            status.serving = false;
            status.installing = Some(logged.truncated.index);
            status.term = logged.hard_state.term;
            status.commit = logged.hard_state.commit;
            status.applied = LogIndex(0);
            status.checkpointed = LogIndex(0);
            status.digest = 0;
            (status.first, status.last) = (logged.first, logged.last);
            status.storage_failure = failure;
        });
    }

    fn is_due(&self, now: MonotonicTime) -> bool {
        self.may_begin() && self.not_before <= now
    }

    fn may_begin(&self) -> bool {
        let idle = matches!(self.stage, Stage::Waiting) && !self.saving && !self.stopping;
        idle && self.durable >= self.block
    }

    fn job(&self, now: MonotonicTime) -> InstallJob<M> {
        let logged = self.logged();
        // A mark that cannot be read is of another build: then the bucket is looked through.
        let basis = logged.mark.as_ref().and_then(|mark| Basis::decode(mark).ok());
        let (group, machine) = (self.id, self.seed.fresh());
        let (truncated, commit) = (logged.truncated, logged.hard_state.commit);
        InstallJob { group, machine, basis, truncated, commit, now }
    }

    /// The log begins behind a later round from now on.
    fn move_on(&mut self, to: MovedTo) -> Result<(), Failure> {
        let before = self.logged().hard_state;
        let newer = before.term < to.place.term;
        let (term, vote) = if newer { (to.place.term, 0) } else { (before.term, before.vote) };
        let mark = to.basis.encode();
        let batch = Batch {
            group: self.id,
            reset: Some(to.place),
            mark: Some(&mark),
            hard_state: Some(HardState { term, vote, commit: to.place.index }),
            conf: Some(ConfRef { index: to.place.index, bytes: &to.membership }),
            admitted: true,
            ..Batch::default()
        };
        let block = append(&self.origin.log, &batch)?;
        tracing::info!(group = %self.id, to = %to.place.index, "the install begins anew");
        self.retry = block.is_none();
        match block {
            Some(block) => {
                self.block = block;
                self.publish(None);
            }
            None => self.stage = Stage::Moving(to),
        }
        Ok(())
    }

    /// The state is there: the mark goes, and the group works again.
    fn finish(&mut self, applier: Box<Applier<M>>) -> Result<(), Failure> {
        if self.logged().mark.is_some() {
            let batch =
                Batch { group: self.id, mark: Some(&[]), admitted: true, ..Batch::default() };
            if append(&self.origin.log, &batch)?.is_none() {
                self.stage = Stage::Restored(applier);
                self.retry = true;
                return Ok(());
            }
        }
        let (found, flushed) = (self.logged(), applier.applied.index);
        let mut origin = self.origin.clone();
        origin.rng = self.origin.rng.fork("installed");
        self.shared.publish(|status| status.installing = None);
        let resumed = origin.resume(*applier, self.shared.clone(), found, flushed);
        let broken = |error: crate::StartError| Failure::Quarantine(error.to_string());
        let mut group = resumed.map_err(broken)?.map_err(Failure::Quarantine)?;
        tracing::info!(group = %self.id, at = %flushed, "the state is installed");
        group.outgoing.append(&mut self.outgoing);
        group.outgoing.append(&mut self.answers);
        if self.stopping {
            group.stop();
        }
        self.successor = Some(group);
        Ok(())
    }

    fn failed(&mut self, failure: &StorageFailure, now: MonotonicTime) -> Result<(), Failure> {
        self.stage = Stage::Waiting;
        if let StorageFailure::Kv(error) = failure
            && !error.no_space
        {
            return Err(Failure::Host(HostFailure::Kv(error.clone())));
        }
        self.pause = (self.pause * 2).clamp(RETRY_FIRST, RETRY_LONGEST);
        self.not_before = now.plus(self.pause);
        tracing::debug!(group = %self.id, %failure, "the install is tried again");
        self.publish(Some(failure.to_string()));
        Ok(())
    }

    fn close(&self, error: ProposeError) {
        self.shared.refuse(Some(error));
    }
}

impl<M: StateMachine> Member for Installing<M> {
    fn advance(&mut self, durable: BlockSeq) -> Result<(), Failure> {
        self.durable = durable;
        self.retry = false;
        match std::mem::replace(&mut self.stage, Stage::Waiting) {
            Stage::Moving(to) => self.move_on(to),
            Stage::Restored(applier) => self.finish(applier),
            stage => {
                self.stage = stage;
                Ok(())
            }
        }
    }

    fn archive(&self) -> Option<&Archive> {
        None
    }

    fn take_successor(&mut self) -> Option<Box<dyn Member>> {
        self.successor.take()
    }

    fn tick(&mut self) {}

    fn receive(&mut self, _message: Message) -> Result<(), Failure> {
        Ok(())
    }

    fn fetched(&mut self, _fetched: Fetched) -> Result<(), Failure> {
        Ok(())
    }

    fn take_messages(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.outgoing)
    }

    fn take_fetches(&mut self) -> Vec<FetchJob> {
        Vec::new()
    }

    fn checkpoint(&mut self, _now: MonotonicTime, _force: bool) -> Frozen {
        Frozen::NotDue
    }

    fn is_freezing(&self) -> bool {
        false
    }

    fn checkpointed(&mut self, _job: &CheckpointJob) -> Result<(), Failure> {
        self.saving = false;
        Ok(())
    }

    fn checkpoint_waits(&mut self) {}

    fn storage_jobs(&mut self, now: MonotonicTime) -> Vec<StorageJob> {
        if !self.is_due(now) {
            return Vec::new();
        }
        let work = Work::Install(Box::new(self.job(now)));
        self.stage = Stage::Running;
        vec![StorageJob::new(self.id, Ticket::default(), work)]
    }

    fn storage_done(&mut self, done: StorageDone, now: MonotonicTime) -> Result<(), Failure> {
        // What a leader began before it was deposed is of no use any more.
        if self.stopping || !matches!(self.stage, Stage::Running) {
            return Ok(());
        }
        let installed = match done.result {
            Ok(Done::Install(installed)) => installed,
            Err(failure) if done.kind == crate::JobKind::Install => {
                return self.failed(&failure, now);
            }
            _ => return Ok(()),
        };
        let installed: Box<Installed<M>> =
            installed.downcast().expect("the job was made for this machine");
        self.pause = Duration::ZERO;
        self.stage = match *installed {
            Installed::Restored(applier) => Stage::Restored(applier),
            Installed::MovedTo(to) => Stage::Moving(to),
            Installed::Broken(reason) => return Err(Failure::Quarantine(reason)),
        };
        Ok(())
    }

    fn storage_due(&self) -> Option<MonotonicTime> {
        self.may_begin().then_some(self.not_before)
    }

    fn truncate(&mut self, _full_permille: u64, _holds: bool) -> Result<(), Failure> {
        Ok(())
    }

    fn checkpoint_due(&self) -> Option<MonotonicTime> {
        None
    }

    fn needs_ticks(&self) -> bool {
        false
    }

    fn wants_retry(&self) -> bool {
        self.retry
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.close(ProposeError::Stopping);
    }

    fn is_settled(&self) -> bool {
        self.stopping || self.durable >= self.block
    }

    fn quarantine(&mut self, reason: &str) {
        tracing::error!(group = %self.id, reason, "group is quarantined until a restart");
        self.shared.publish(|status| status.quarantined = Some(reason.to_owned()));
        self.close(ProposeError::Quarantined(reason.to_owned()));
    }

    fn end(&mut self) {
        self.close(ProposeError::Stopping);
    }
}
