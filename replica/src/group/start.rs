//! From what the disk holds to a running group.
//!
//! The saved state is restored, the log behind it is replayed up to the durable commit *outside*
//! raft-rs, and only then its node is made, with applied = commit: raft-rs would load the whole
//! unapplied log in one slice. raft-rs does not ask to sync a commit index that moves alone, so
//! the saved state may be ahead of it: then the commit is raised, but only if the log has that
//! very entry. A log that ends earlier has lost acknowledged data, and the group is refused.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use common::{Clock, LogIndex, Rng};
use raft::eraftpb::{ConfState, HardState};
use raft::{Config, NO_LIMIT, RawNode, StateRole};
use wal::{Batch, ConfRef, GroupState, Log};

use super::apply::Applier;
use super::checkpoint::Saved;
use super::proposals::Proposals;
use super::queries::Queries;
use super::ready::Unsynced;
use super::{Group, GroupSpec, Role, draw_timeout};
use crate::conf;
use crate::error::StartError;
use crate::handle::Shared;
use crate::kv::{Applied, Kv};
use crate::logger::raft_logger;
use crate::machine::StateMachine;
use crate::propose::ProposeError;
use crate::settings::HostSettings;
use crate::storage::{LogStorage, raft_entry};

/// Bytes of log read at once during replay.
const REPLAY_BYTES: usize = 4 << 20;
/// Bytes of one append message between members.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Append messages on their way to one member: with their size, the bytes in flight to it.
const MESSAGES_IN_FLIGHT_MAX: usize = 16;
/// Bytes of committed entries applied in one go in a group with peers.
const COMMITTED_BYTES_MAX: u64 = 4 << 20;

/// What a group needs to start.
pub(crate) struct Starting<'a> {
    pub(crate) spec: GroupSpec,
    pub(crate) settings: &'a Arc<HostSettings>,
    pub(crate) log: &'a Log,
    pub(crate) kv: &'a dyn Kv,
    pub(crate) clock: &'a Arc<dyn Clock>,
    pub(crate) rng: Rng,
}

/// A group that runs, or one that must not.
pub(crate) enum Opened<M: StateMachine> {
    Running(Box<Group<M>>),
    Quarantined,
}

impl<M: StateMachine> Opened<M> {
    fn quarantined(shared: &Shared<M>, reason: String) -> Self {
        tracing::error!(group = %shared.group, reason, "group is quarantined until a restart");
        shared.refuse(Some(ProposeError::Quarantined(reason.clone())));
        shared.publish(|status| status.quarantined = Some(reason));
        Opened::Quarantined
    }
}

impl Starting<'_> {
    pub(crate) fn open<M: StateMachine>(
        self,
        machine: M,
        shared: Arc<Shared<M>>,
    ) -> Result<Opened<M>, StartError> {
        let saved = self.kv.applied(self.spec.group)?;
        self.check_saved(saved)?;
        let found = self.known_group()?;
        if let Some(reason) = found.quarantined.clone() {
            return Ok(Opened::quarantined(&shared, reason));
        }
        let mut applier = self.restore(machine, saved)?;
        applier.machine.begin(found.last);
        let commit = found.hard_state.commit.max(applier.applied.index);
        if commit > found.last {
            let (group, last) = (self.spec.group, found.last);
            return Err(StartError::CommitMissing { group, commit, last });
        }
        let replayed = catch_unwind(AssertUnwindSafe(|| self.replay(&mut applier, commit)));
        match replayed {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(reason))) => return Ok(Opened::quarantined(&shared, reason)),
            Ok(Err(error)) => return Err(error),
            Err(panic) => {
                let reason = format!("replay panicked: {}", crate::worker::panic_text(&*panic));
                return Ok(Opened::quarantined(&shared, reason));
            }
        }
        let flushed = saved.map_or(LogIndex(0), |saved| saved.index);
        Ok(Opened::Running(Box::new(self.group(applier, shared, &found, commit, flushed)?)))
    }

    /// What the log knows of the group; a new group gets its membership record first.
    fn known_group(&self) -> Result<GroupState, StartError> {
        let group = self.spec.group;
        if let Some(found) = self.log.group(group).filter(|found| found.conf.is_some()) {
            return Ok(found);
        }
        let members = ConfState::from((self.spec.voters.clone(), self.spec.learners.clone()));
        let bytes = conf::encode(&members);
        let conf = Some(ConfRef { index: LogIndex(0), bytes: &bytes });
        self.log
            .append(&Batch { group, conf, ..Batch::default() })
            .map_err(|source| StartError::Append { group, source })?;
        self.log.group(group).ok_or(StartError::Membership(group))
    }

    /// Whether saved state and log belong together and nothing is missing between them.
    fn check_saved(&self, saved: Option<Applied>) -> Result<(), StartError> {
        let group = self.spec.group;
        let saved = saved.filter(|saved| saved.index > LogIndex(0));
        let (log, saved) = match (self.log.group(group), saved) {
            (Some(log), Some(saved)) => (log, saved),
            (Some(log), None) if log.truncated.index > LogIndex(0) => {
                return Err(StartError::StateMissing { group, first: log.first });
            }
            (_, None) => return Ok(()),
            (None, Some(saved)) => {
                let (saved, last) = (saved.index, LogIndex(0));
                return Err(StartError::LogBehind { group, saved, last });
            }
        };
        if saved.index < log.truncated.index {
            return Err(StartError::StateBehind { group, saved: saved.index, first: log.first });
        }
        if saved.index > log.last.max(log.truncated.index) {
            return Err(StartError::LogBehind { group, saved: saved.index, last: log.last });
        }
        let logged = if saved.index == log.truncated.index {
            log.truncated.term
        } else {
            self.log
                .term(group, saved.index)
                .map_err(|source| StartError::Read { group, source })?
        };
        if logged != saved.term {
            let (index, saved) = (saved.index, saved.term);
            return Err(StartError::Mismatch { group, index, saved, logged });
        }
        Ok(())
    }

    fn restore<M: StateMachine>(
        &self,
        mut machine: M,
        saved: Option<Applied>,
    ) -> Result<Applier<M>, StartError> {
        let group = self.spec.group;
        if saved.is_some() {
            let mut failed = None;
            let mut pairs =
                self.kv.scan(group)?.map_while(|pair| pair.map_err(|e| failed = Some(e)).ok());
            let restored = machine.restore(&mut pairs);
            drop(pairs);
            if let Some(error) = failed {
                return Err(StartError::Kv(error));
            }
            restored.map_err(|source| StartError::Restore { group, source })?;
        }
        Ok(Applier::new(group, machine, saved.unwrap_or_default()))
    }

    /// Applies the log up to `commit`; a reason means that the group must not run.
    fn replay<M: StateMachine>(
        &self,
        applier: &mut Applier<M>,
        commit: LogIndex,
    ) -> Result<Option<String>, StartError> {
        let group = self.spec.group;
        let now = self.clock.monotonic();
        while applier.applied.index < commit {
            let low = LogIndex(applier.applied.index.0 + 1);
            let entries = self
                .log
                .read(group, low, LogIndex(commit.0 + 1), REPLAY_BYTES)
                .map_err(|source| StartError::Read { group, source })?;
            for entry in entries {
                if let Err(reason) = applier.apply(&raft_entry(entry), now) {
                    return Ok(Some(reason));
                }
            }
            applier.machine.round_done();
        }
        applier.outcomes.clear();
        Ok(None)
    }

    fn group<M: StateMachine>(
        mut self,
        applier: Applier<M>,
        shared: Arc<Shared<M>>,
        found: &GroupState,
        commit: LogIndex,
        flushed: LogIndex,
    ) -> Result<Group<M>, StartError> {
        let id = self.spec.group;
        let members = found.conf.as_ref().and_then(|record| conf::decode(&record.bytes));
        let members = members.ok_or(StartError::Membership(id))?;
        let voters = members.voters.clone();
        let has_peers = voters.len() + members.learners.len() > 1;
        let mut hard_state = HardState::default();
        hard_state.term = found.hard_state.term.0;
        hard_state.vote = found.hard_state.vote;
        hard_state.commit = commit.0;
        let storage = self.storage(found, hard_state.clone(), members, commit)?;
        let config = raft_config(&self.spec, self.settings, commit, has_peers);
        let raft_error =
            |error: raft::Error| StartError::Raft { group: id, detail: error.to_string() };
        let node = RawNode::new(&config, storage, &raft_logger()).map_err(raft_error)?;
        let role = Role {
            term: hard_state.term,
            state: StateRole::Follower,
            leader: raft::INVALID_ID,
            leads: None,
            serving: false,
            election_timeout: draw_timeout(&mut self.rng, self.settings),
        };
        let mut group = Group {
            id,
            peer: self.spec.peer,
            has_peers,
            shared,
            settings: self.settings.clone(),
            log: self.log.clone(),
            clock: self.clock.clone(),
            queries: Queries::new(&mut self.rng),
            rng: self.rng,
            node,
            applier,
            proposals: Proposals::default(),
            unsynced: Unsynced::new(&hard_state),
            saved: Saved::new(flushed, self.clock.monotonic()),
            role,
            outgoing: Vec::new(),
            retry: false,
            changed: true,
            stopping: false,
        };
        if voters == [self.spec.peer] {
            group.node.campaign().map_err(raft_error)?;
        }
        Ok(group)
    }

    /// The log as raft-rs sees it, with everything behind `commit` in memory.
    fn storage(
        &self,
        found: &GroupState,
        hard_state: HardState,
        members: ConfState,
        commit: LogIndex,
    ) -> Result<LogStorage, StartError> {
        let group = self.spec.group;
        let last = found.last.max(found.truncated.index);
        let mut storage = LogStorage::new(
            group,
            self.log.clone(),
            hard_state,
            members,
            found.truncated,
            commit.min(last),
        );
        let mut low = LogIndex(commit.0 + 1);
        while low <= last {
            let entries = self
                .log
                .read(group, low, LogIndex(last.0 + 1), REPLAY_BYTES)
                .map_err(|source| StartError::Read { group, source })?;
            low = LogIndex(low.0 + entries.len() as u64);
            storage.append(entries.into_iter().map(raft_entry).collect());
        }
        Ok(storage)
    }
}

fn raft_config(
    spec: &GroupSpec,
    settings: &HostSettings,
    applied: LogIndex,
    has_peers: bool,
) -> Config {
    Config {
        id: spec.peer,
        election_tick: settings.election_ticks,
        heartbeat_tick: settings.heartbeat_ticks,
        applied: applied.0,
        max_size_per_msg: if has_peers { MESSAGE_BYTES_MAX } else { NO_LIMIT },
        max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        max_committed_size_per_ready: if has_peers { COMMITTED_BYTES_MAX } else { NO_LIMIT },
        ..Config::default()
    }
}
