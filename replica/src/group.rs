//! One Raft group: raft-rs's node, the state machine, and what is on its way between them.
//!
//! Everything here runs on the worker and returns at once. The order of a step is the safety
//! argument: what the log made durable is reported to raft-rs, then messages that vouch for it
//! leave, then committed entries are applied, then outcomes are delivered.

use std::sync::Arc;

use common::{Clock, GroupId, Incarnation, LogIndex, MonotonicTime, Rng, Term};
use raft::eraftpb::{Message, MessageType};
use raft::{RawNode, StateRole};
use wal::{BlockSeq, Log};

use crate::archive::Archive;
use crate::error::Failure;
use crate::handle::{Query, Shared};
use crate::machine::StateMachine;
use crate::propose::{Proposal, ProposeError};
use crate::settings::HostSettings;
use crate::storage::LogStorage;
use crate::tiering::{StorageDone, StorageJob};

mod apply;
mod checkpoint;
mod fetch;
mod install;
mod proposals;
mod queries;
mod ready;
pub(crate) mod rebuild;
mod replies;
mod snapshot;
mod start;
mod tiering;

pub use checkpoint::{CheckpointJob, SaveError};
pub(crate) use checkpoint::{Frozen, HELD_PERMILLE, PRESSED_PERMILLE};
pub use fetch::{FetchJob, Fetched};
pub(crate) use start::{Opened, Replaying, Restored, Starting};

use apply::Applier;
use checkpoint::Saved;
use proposals::Proposals;
use queries::Queries;
use ready::Unsynced;
use snapshot::Sent;
use tiering::Tiering;

/// Which group to run, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpec {
    pub group: GroupId,
    /// This replica's id in the group; never reused for another replica.
    pub peer: u64,
    /// The members of a new group. A group that exists keeps the members in its log.
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    /// The group was brought back from its bucket: its first entries say so, under this
    /// incarnation.
    pub recover: Option<Incarnation>,
}

impl GroupSpec {
    /// A group with this node as its only member.
    pub fn alone(group: GroupId) -> Self {
        Self { group, peer: 1, voters: vec![1], learners: Vec::new(), recover: None }
    }
}

pub(crate) struct Group<M: StateMachine> {
    id: GroupId,
    peer: u64,
    /// Whether there is anybody to talk to; a group without peers needs no ticks.
    has_peers: bool,
    shared: Arc<Shared<M>>,
    settings: Arc<HostSettings>,
    log: Log,
    clock: Arc<dyn Clock>,
    rng: Rng,
    node: RawNode<LogStorage>,
    applier: Applier<M>,
    proposals: Proposals<M::Outcome>,
    queries: Queries<M>,
    unsynced: Unsynced,
    saved: Saved,
    tiering: Tiering,
    role: Role,
    /// Snapshots on their way to followers.
    sent: Sent,
    outgoing: Vec<Message>,
    /// What the group is made from, should it be made anew.
    origin: Starting,
    /// A snapshot arrived: raft is not touched any more, and this is what takes the group's place.
    successor: Option<Box<dyn Member>>,
    /// Ready again without outside help: proposals wait for room that comes with time.
    retry: bool,
    changed: bool,
    stopping: bool,
}

/// The group as the worker sees it, whatever its state machine.
pub(crate) trait Member: Send {
    /// Takes in everything that arrived, and what the log has made durable, and goes as far as
    /// possible.
    fn advance(&mut self, durable: BlockSeq) -> Result<(), Failure>;
    /// What takes the member's place from now on: a group whose state is being installed, or one
    /// whose state was. Nothing else is asked of the old one any more.
    fn take_successor(&mut self) -> Option<Box<dyn Member>>;
    fn tick(&mut self);
    fn receive(&mut self, message: Message) -> Result<(), Failure>;
    fn fetched(&mut self, fetched: Fetched) -> Result<(), Failure>;
    fn take_messages(&mut self) -> Vec<Message>;
    fn take_fetches(&mut self) -> Vec<FetchJob>;
    /// Freezes the state if it is time to save it, or if `force`d and anything changed, and copies
    /// a slice of what is frozen.
    fn checkpoint(&mut self, now: MonotonicTime, force: bool) -> Frozen;
    /// Whether the last call of `checkpoint` left something to copy.
    fn is_freezing(&self) -> bool;
    fn checkpointed(&mut self, job: &CheckpointJob) -> Result<(), Failure>;
    /// The disk has no space for the checkpoint; it comes later.
    fn checkpoint_waits(&mut self);
    /// Work with the bucket that is due.
    fn storage_jobs(&mut self, now: MonotonicTime) -> Vec<StorageJob>;
    fn storage_done(&mut self, done: StorageDone, now: MonotonicTime) -> Result<(), Failure>;
    fn storage_due(&self) -> Option<MonotonicTime>;
    /// What the log says of its archive; `None` while the state is being installed.
    fn archive(&self) -> Option<&Archive>;
    /// Drops what nobody needs of the log. `full_permille` says how much of the budget is used,
    /// `holds` whether this group holds so much of it that it had better hurry.
    fn truncate(&mut self, full_permille: u64, holds: bool) -> Result<(), Failure>;
    fn checkpoint_due(&self) -> Option<MonotonicTime>;
    fn needs_ticks(&self) -> bool;
    /// Whether time alone lets the group go on, soon.
    fn wants_retry(&self) -> bool;
    /// From now on refuses new work; what was taken is finished.
    fn stop(&mut self);
    /// Whether nothing is on its way.
    fn is_settled(&self) -> bool;
    /// Answers everything that is still waiting and never works again.
    fn quarantine(&mut self, reason: &str);
    fn end(&mut self);
}

/// What this replica is in its group.
#[derive(Debug)]
struct Role {
    term: u64,
    state: StateRole,
    leader: u64,
    /// The term in which this replica leads.
    leads: Option<u64>,
    /// Whether an entry of that term is applied: only then proposals and queries are taken.
    serving: bool,
    /// Drawn from the group's generator, so that a seed replays; raft-rs draws its own.
    election_timeout: usize,
}

impl<M: StateMachine> Group<M> {
    /// Notices changes of term and role, which raft-rs makes inside any of its calls.
    fn observe_role(&mut self) {
        let raft = &self.node.raft;
        let (term, state, leader) = (raft.term, raft.state, raft.leader_id);
        if (term, state, leader) == (self.role.term, self.role.state, self.role.leader) {
            self.node.raft.set_randomized_election_timeout(self.role.election_timeout);
            return;
        }
        if (term, state) != (self.role.term, self.role.state) {
            self.role.election_timeout = draw_timeout(&mut self.rng, &self.settings);
        }
        self.node.raft.set_randomized_election_timeout(self.role.election_timeout);
        let leads = (state == StateRole::Leader).then_some(term);
        if self.role.leads.is_some() && self.role.leads != leads {
            self.resign(leader);
        }
        if self.role.leads != leads {
            self.tiering.begin_term();
        }
        if leads.is_some() && self.role.leads != leads {
            self.role.serving = false;
            self.applier.stamps.begin_term();
        }
        (self.role.term, self.role.state, self.role.leader) = (term, state, leader);
        self.role.leads = leads;
        self.changed = true;
        if !self.role.serving {
            self.refuse(ProposeError::NotLeader { hint: self.leader_hint() });
        }
    }

    /// After reordered answers raft-rs probes a follower below what it is known to have
    /// (raft-rs #557). The log may begin behind that, and nothing would ever be sent again.
    fn mend_progress(&mut self) {
        if self.node.raft.state != StateRole::Leader {
            return;
        }
        for (_, progress) in self.node.raft.mut_prs().iter_mut() {
            progress.next_idx = progress.next_idx.max(progress.matched + 1);
        }
    }

    fn leader_hint(&self) -> Option<u64> {
        (self.role.leader != raft::INVALID_ID && self.role.leader != self.peer)
            .then_some(self.role.leader)
    }

    /// The term is lost: what was proposed in it may or may not survive, nobody here can know.
    fn resign(&mut self, leader: u64) {
        self.role.serving = false;
        let hint = (leader != raft::INVALID_ID && leader != self.peer).then_some(leader);
        let not_leader = ProposeError::NotLeader { hint };
        // Closing the inbox comes first, so that nothing is taken and then forgotten.
        self.refuse(not_leader.clone());
        let taken = self.shared.take();
        self.stage(taken.proposals, taken.queries);
        let released = self.proposals.fail(&ProposeError::Unknown, &not_leader);
        self.shared.release(released);
        self.queries.fail(&not_leader);
    }

    fn refuse(&self, error: ProposeError) {
        let error = if self.stopping { ProposeError::Stopping } else { error };
        self.shared.refuse(Some(error));
    }

    fn serve(&mut self) {
        if self.role.serving || self.role.leads.is_none() {
            return;
        }
        self.role.serving = true;
        self.changed = true;
        self.tiering.take_over();
        if !self.stopping {
            self.shared.refuse(None);
        }
        tracing::debug!(group = %self.id, term = self.role.term, "leads");
    }

    fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let storage = self.node.store();
        let first = LogIndex(storage.truncated().index.0 + 1);
        let last = LogIndex(storage.last());
        let (role, applied) = (&self.role, self.applier.applied);
        let commit = LogIndex(self.node.raft.raft_log.committed);
        let oldest_live = self.saved.oldest_live;
        let (checkpointed, waits) = (self.saved.flushed, self.saved.waits);
        let peer = self.peer;
        let (archive, tiering) = (&self.applier.archive, &self.tiering);
        self.shared.publish(|status| {
            status.archived = archive.end();
            status.archived_checkpoint = archive.newest_checkpoint();
            status.unarchived_bytes = tiering.behind.bytes();
            status.unarchived_since = tiering.behind.since();
            status.storage_failure.clone_from(&tiering.failure);
            status.lost.clear();
            status.lost.extend(archive.lost());
            let waiting = tiering.holes.behind(archive.end());
            status.lost.extend(waiting.map(|lost| lost.first..=lost.last));
            status.peer = peer;
            status.leader = (role.leader != raft::INVALID_ID).then_some(role.leader);
            status.serving = role.serving;
            status.term = Term(role.term);
            status.commit = commit;
            status.applied = applied.index;
            status.first = first;
            status.last = last;
            status.checkpointed = checkpointed;
            status.checkpoint_waits = waits;
            status.oldest_live = oldest_live;
            status.digest = applied.digest;
        });
    }

    fn stage(&mut self, proposals: Vec<Proposal<M::Outcome>>, queries: Vec<Query<M>>) {
        if !(proposals.is_empty() && queries.is_empty()) {
            let now = self.clock.monotonic();
            self.proposals.stage(proposals, now);
            self.queries.stage(queries, now);
        }
    }

    fn drain(&mut self) {
        let taken = self.shared.take();
        self.stage(taken.proposals, taken.queries);
        if taken.look_after_storage {
            self.tiering.look_now(self.clock.monotonic());
        }
    }
}

fn draw_timeout(rng: &mut Rng, settings: &HostSettings) -> usize {
    let ticks = settings.election_ticks as u64;
    rng.between(ticks, 2 * ticks - 1) as usize
}

impl<M: StateMachine> Member for Group<M> {
    fn advance(&mut self, durable: BlockSeq) -> Result<(), Failure> {
        self.retry = false;
        self.observe_role();
        self.persisted(durable);
        self.handle_ready()?;
        if self.successor.is_some() {
            return Ok(());
        }
        self.drain();
        if self.role.serving {
            self.ask_for_read_index();
            self.handle_ready()?;
            self.propose()?;
            self.propose_housekeeping()?;
        }
        self.give_up_waiting();
        if std::mem::take(&mut self.tiering.truncatable) {
            self.truncate_log()?;
        }
        self.publish();
        Ok(())
    }

    fn take_successor(&mut self) -> Option<Box<dyn Member>> {
        self.successor.take()
    }

    fn tick(&mut self) {
        if self.has_peers && !self.is_blocked() {
            self.node.tick();
            self.observe_role();
        }
    }

    fn receive(&mut self, message: Message) -> Result<(), Failure> {
        // Proposals and reads are taken from this node's own callers only: one that travelled
        // could land in another term.
        let refused = match message.get_msg_type() {
            MessageType::MsgPropose | MessageType::MsgReadIndex => true,
            MessageType::MsgSnapshot => !self.can_install(&message),
            _ => false,
        };
        // Peer ids are never used again: this one is for another replica, which was here before.
        let refused = refused || message.to != self.peer;
        if refused || self.is_blocked() || !self.has_room_for(&message)? {
            return Ok(());
        }
        self.note_progress(&message);
        match self.node.step(message) {
            // Late messages of former members or of another role are part of life.
            Ok(()) | Err(raft::Error::StepPeerNotFound | raft::Error::StepLocalMsg) => {}
            Err(error) => return Err(error.into()),
        }
        self.mend_progress();
        self.observe_role();
        Ok(())
    }

    fn fetched(&mut self, fetched: Fetched) -> Result<(), Failure> {
        self.take_fetched(fetched)
    }

    fn take_messages(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.outgoing)
    }

    fn take_fetches(&mut self) -> Vec<FetchJob> {
        self.fetch_jobs()
    }

    fn checkpoint(&mut self, now: MonotonicTime, force: bool) -> Frozen {
        self.freeze(now, force)
    }

    fn is_freezing(&self) -> bool {
        self.is_copying()
    }

    fn checkpointed(&mut self, job: &CheckpointJob) -> Result<(), Failure> {
        self.saved(job);
        self.changed = true;
        self.truncate_log()?;
        self.publish();
        Ok(())
    }

    fn checkpoint_waits(&mut self) {
        self.saved.waits = true;
        self.changed = true;
        self.publish();
    }

    fn storage_jobs(&mut self, now: MonotonicTime) -> Vec<StorageJob> {
        self.begin_storage_jobs(now)
    }

    fn storage_done(&mut self, done: StorageDone, now: MonotonicTime) -> Result<(), Failure> {
        Self::storage_done(self, done, now)
    }

    fn storage_due(&self) -> Option<MonotonicTime> {
        self.next_storage_job()
    }

    fn archive(&self) -> Option<&Archive> {
        Some(&self.applier.archive)
    }

    fn truncate(&mut self, full_permille: u64, holds: bool) -> Result<(), Failure> {
        self.tiering.press(full_permille >= PRESSED_PERMILLE);
        let end = self.applier.archive.end();
        let archived = self.node.store().truncated().index < end;
        let stands = holds && !archived && self.applier.applied.index > end;
        self.tiering.stand_in_the_way(stands, self.clock.monotonic());
        (self.saved.full_permille, self.saved.holds_log) = (full_permille, holds);
        self.truncate_log()?;
        self.publish();
        Ok(())
    }

    fn checkpoint_due(&self) -> Option<MonotonicTime> {
        self.next_checkpoint()
    }

    fn needs_ticks(&self) -> bool {
        self.has_peers
    }

    fn wants_retry(&self) -> bool {
        self.retry || self.is_blocked()
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.refuse(ProposeError::Stopping);
    }

    fn is_settled(&self) -> bool {
        // What waits for space was not acknowledged to anybody: stopping does not wait with it.
        !self.role.serving
            || (self.stopping && self.is_blocked())
            || (self.proposals.is_empty() && self.queries.is_empty() && self.unsynced.is_empty())
    }

    fn quarantine(&mut self, reason: &str) {
        tracing::error!(group = %self.id, reason, "group is quarantined until a restart");
        // Whoever gets an answer finds the status that explains it.
        self.shared.publish(|status| {
            status.serving = false;
            status.quarantined = Some(reason.to_owned());
        });
        self.close(&ProposeError::Quarantined(reason.to_owned()));
    }

    fn end(&mut self) {
        self.shared.publish(|status| status.serving = false);
        self.close(&ProposeError::Stopping);
    }
}

impl<M: StateMachine> Group<M> {
    /// Answers everything that waits; the inbox stays shut with `error`.
    fn close(&mut self, error: &ProposeError) {
        self.role.serving = false;
        self.shared.refuse(Some(error.clone()));
        self.drain();
        self.fail_waiting(error);
    }

    fn fail_waiting(&mut self, error: &ProposeError) {
        let released = self.proposals.fail(&ProposeError::Unknown, error);
        self.shared.release(released);
        self.queries.fail(error);
    }
}
