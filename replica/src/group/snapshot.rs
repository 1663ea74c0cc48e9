//! Snapshots: names of what is archived, for followers behind the log's first entry.
//!
//! A snapshot in Raft's sense is a [`Basis`]: its index and term are those of the last archived
//! entry. The leader offers the newest one; a follower that takes one gives way to a group that is
//! being installed, and comes back when its state is there.
//!
//! The network may lose a snapshot, or the answer to it, and raft-rs waits for ever. Heartbeats
//! tell: while a member is installed it is silent, so one that answers has either not heard of the
//! snapshot, or is done.

use std::collections::BTreeMap;

use common::{LogIndex, Term, planted};
use raft::eraftpb::{Message, MessageType};
use raft::{ProgressState, Ready, SnapshotStatus, StateRole};
use wal::{Batch, ConfRef, EntryRef, HardState, Truncated};

use super::Group;
use super::checkpoint::PRESSED_PERMILLE;
use super::install::Installing;
use super::ready::{append, entry_ref};
use crate::archive::Basis;
use crate::conf;
use crate::error::Failure;
use crate::machine::StateMachine;
use crate::propose::ProposeError;

/// How full the log may become for a follower that is being installed: what it answers to at last
/// is still there, and it need not begin again.
const INSTALLING_PERMILLE: u64 = 750;
/// Signs of life without the snapshot, until it is sent again: some were on their way already.
const SIGNS_BEFORE_AGAIN: u32 = 3;

/// Snapshots that were sent, by follower: which, and how often it was heard of without it since.
#[derive(Debug, Default)]
pub(super) struct Sent {
    to: BTreeMap<u64, (u64, u32)>,
}

impl Sent {
    /// A sign of life of `peer`, which lacks the snapshot of this index; whether it is lost.
    fn lacks(&mut self, peer: u64, index: u64) -> bool {
        let (of, signs) = self.to.entry(peer).or_default();
        if *of != index {
            (*of, *signs) = (index, 0);
        }
        *signs += 1;
        *signs >= SIGNS_BEFORE_AGAIN
    }

    fn is_over(&mut self, peer: u64) {
        self.to.remove(&peer);
    }
}

impl<M: StateMachine> Group<M> {
    /// Offers followers what is archived now.
    pub(super) fn offer_snapshot(&mut self) {
        let archive = &self.applier.archive;
        if !self.has_peers || !self.tiering.is_on() {
            return;
        }
        if let Some(basis) = archive.basis() {
            let place = Truncated { index: archive.end(), term: archive.end_term() };
            self.node.mut_store().offer_snapshot(place, basis.encode());
        }
    }

    /// The last entry that members are waited for with. Where there is no long-term storage, that
    /// is what every member has; else only while the log has room, and followers wait for nobody.
    pub(super) fn awaited(&self) -> LogIndex {
        let everything = LogIndex(u64::MAX);
        if !self.has_peers {
            return everything;
        }
        let raft = &self.node.raft;
        let leads = raft.state == StateRole::Leader;
        if !self.tiering.is_on() {
            let matched = raft.prs().iter().map(|(_, progress)| progress.matched).min();
            return LogIndex(if leads { matched.unwrap_or(0) } else { 0 });
        }
        if !leads {
            return everything;
        }
        let full = self.saved.full_permille;
        let waits = raft.prs().iter().filter_map(|(_, progress)| match progress.state {
            ProgressState::Snapshot => (full < INSTALLING_PERMILLE)
                .then_some(progress.matched.max(progress.pending_snapshot)),
            _ => (full < PRESSED_PERMILLE).then_some(progress.matched),
        });
        waits.min().map_or(everything, LogIndex)
    }

    /// Whether a snapshot can be taken: without a bucket or of a newer build it cannot, and this
    /// member stays behind.
    pub(super) fn can_install(&self, message: &Message) -> bool {
        if !self.tiering.is_on() {
            return false;
        }
        match Basis::decode(&message.get_snapshot().data) {
            Ok(_) => true,
            Err(problem) => {
                tracing::warn!(group = %self.id, %problem, "a snapshot cannot be installed");
                false
            }
        }
    }

    /// Notices from a follower's heartbeat what became of the snapshot that it was sent.
    pub(super) fn note_progress(&mut self, message: &Message) {
        let is_sign = message.get_msg_type() == MessageType::MsgHeartbeatResponse;
        let raft = &self.node.raft;
        if !is_sign || raft.state != StateRole::Leader || message.term != raft.term {
            return;
        }
        let from = message.from;
        let waiting = |progress: &&raft::Progress| progress.state == ProgressState::Snapshot;
        let Some(progress) = raft.prs().get(from).filter(waiting) else { return };
        let index = progress.pending_snapshot;
        let status = match message.commit >= index {
            true => SnapshotStatus::Finish,
            false if self.sent.lacks(from, index) => SnapshotStatus::Failure,
            false => return,
        };
        self.sent.is_over(from);
        self.node.report_snapshot(from, status);
    }

    /// A snapshot replaces log and state. The log says so first, and a group that is being
    /// installed takes the place of this one; what raft-rs wants to answer is held until it is done.
    pub(super) fn give_way(&mut self, mut ready: Ready) -> Result<(), Failure> {
        let metadata = ready.snapshot().get_metadata();
        let place = Truncated { index: LogIndex(metadata.index), term: Term(metadata.term) };
        let members = conf::encode(metadata.get_conf_state());
        let mark = ready.snapshot().data.to_vec();
        let current = self.node.raft.hard_state();
        let (term, commit) = (Term(current.term), LogIndex(current.commit));
        let entries: Vec<EntryRef<'_>> = ready.entries().iter().map(entry_ref).collect();
        let batch = Batch {
            group: self.id,
            reset: Some(place),
            mark: Some(&mark),
            hard_state: Some(HardState { term, vote: current.vote, commit }),
            conf: Some(ConfRef { index: place.index, bytes: &members }),
            entries: &entries,
            // It gives back what the log holds.
            admitted: true,
            ..Batch::default()
        };
        let Some(block) = append(&self.log, &batch)? else {
            self.unsynced.blocked = Some(ready);
            return Ok(());
        };
        let mut answers = ready.take_messages();
        answers.extend(ready.take_persisted_messages());
        if planted::active("snapshot-answered-before-it-is-durable") {
            self.outgoing.append(&mut answers);
        }
        let not_leader = ProposeError::NotLeader { hint: self.leader_hint() };
        self.refuse(not_leader.clone());
        self.drain();
        self.fail_waiting(&not_leader);
        let mut origin = self.origin.clone();
        origin.rng = self.rng.fork("install");
        let seed = self.applier.machine.fresh();
        let mut installing = Installing::new(origin, self.shared.clone(), seed);
        installing.hold(block, answers);
        installing.pass_on(std::mem::take(&mut self.outgoing), self.saved.abandon());
        if self.stopping {
            super::Member::stop(&mut installing);
        }
        self.successor = Some(Box::new(installing));
        Ok(())
    }
}
