//! From what the disk holds to a running group.
//!
//! The saved state is restored, the log behind it is replayed up to the durable commit *outside*
//! raft-rs, and only then its node is made, with applied = commit: raft-rs would load the whole
//! unapplied log in one slice. raft-rs does not ask to sync a commit index that moves alone, so
//! the saved state may be ahead of it: then the commit is raised, but only if the log has that
//! very entry. A log that ends earlier has lost acknowledged data, and the group is refused.
//!
//! Where there is long-term storage the saved state is a cache: one that is missing, or that ends
//! before the log begins, is fetched from there ([`crate::restore`]).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use common::{Clock, Incarnation, LogIndex, Rng};
use raft::eraftpb::{ConfState, HardState};
use raft::{Config, NO_LIMIT, RawNode, StateRole};
use wal::{Batch, ConfRef, GroupState, Log, Truncated};

use super::apply::Applier;
use super::checkpoint::Saved;
use super::proposals::Proposals;
use super::queries::Queries;
use super::ready::Unsynced;
use super::tiering::{Behind, Tiering};
use super::{Group, GroupSpec, Role, draw_timeout};
use crate::archive::Archive;
use crate::conf;
use crate::error::StartError;
use crate::handle::Shared;
use crate::kv::{Applied, Kv, Space};
use crate::logger::raft_logger;
use crate::machine::{RestoreError, StateMachine};
use crate::propose::ProposeError;
use crate::restore::{Chain, RestoreFailure};
use crate::settings::HostSettings;
use crate::storage::{LogStorage, raft_entry};
use crate::tiering::Storage;

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
    pub(crate) kv: &'a Arc<dyn Kv>,
    pub(crate) storage: Option<&'a Storage>,
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
        let (saved, chain) = self.saved()?;
        self.check_saved(saved, chain.is_some())?;
        let found = self.known_group()?;
        if let Some(reason) = found.quarantined.clone() {
            return Ok(Opened::quarantined(&shared, reason));
        }
        let mut applier = self.restore(machine, saved)?;
        applier.archives = self.storage.is_some();
        let mut rounds = Vec::new();
        if let Some(chain) = chain {
            self.replay_archived(&mut applier, &chain, found.truncated)?;
            rounds.extend(chain.rounds_behind(applier.archive.end()));
            if common::planted::active("recovery-forgets-the-last-rounds") {
                rounds.clear();
            }
        }
        let higher = |incarnation: &Incarnation| *incarnation > applier.archive.incarnation();
        let recovery = self.spec.recover.filter(higher).map(|incarnation| (incarnation, rounds));
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
        let mut group = Box::new(self.group(applier, shared, &found, commit, flushed)?);
        if let Some((incarnation, rounds)) = recovery {
            group.tiering.recovered(incarnation, rounds);
        }
        Ok(Opened::Running(group))
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

    /// What is saved, and the rounds that lead from there to the log's first entry, where the saved
    /// state ends before it and long-term storage has more.
    fn saved(&self) -> Result<(Option<Applied>, Option<Chain>), StartError> {
        let group = self.spec.group;
        let saved = self.kv.applied(group)?;
        let truncated = self.log.group(group).map_or(LogIndex(0), |found| found.truncated.index);
        let behind = saved.unwrap_or_default().index < truncated || self.spec.recover.is_some();
        let (Some(storage), true) = (self.storage, behind) else { return Ok((saved, None)) };
        let failed = |source| StartError::Archive { group, source };
        // A recovery needs every round that the state does not know, also below its own index.
        let from = saved.map(|saved| saved.index).filter(|_| self.spec.recover.is_none());
        let chain = match Chain::find(storage, group, from) {
            // Nothing of it was ever archived: it begins anew.
            Err(RestoreFailure::Nothing) if truncated == LogIndex(0) => return Ok((saved, None)),
            other => other.map_err(failed)?,
        };
        if saved.is_none() && truncated > LogIndex(0) {
            chain.load_state(storage, &**self.kv).map_err(failed)?;
        }
        Ok((self.kv.applied(group)?, Some(chain)))
    }

    /// Replays the archived log up to where the log of this node begins.
    fn replay_archived<M: StateMachine>(
        &self,
        applier: &mut Applier<M>,
        chain: &Chain,
        truncated: Truncated,
    ) -> Result<(), StartError> {
        let (group, now) = (self.spec.group, self.clock.monotonic());
        tracing::info!(
            %group, from = %applier.applied.index, to = %truncated.index,
            "state is brought back from long-term storage"
        );
        let failed = |source| StartError::Archive { group, source };
        for header in chain.headers(applier.applied.index, truncated.index) {
            applier.replay(&header, now).map_err(|why| failed(RestoreFailure::Replay(why)))?;
        }
        let Applied { index, term, .. } = applier.applied;
        if index < truncated.index {
            let (end, first) = (index, truncated.index);
            return Err(failed(RestoreFailure::Ends { end, first }));
        }
        if index == truncated.index && term != truncated.term {
            let (saved, logged) = (term, truncated.term);
            return Err(StartError::Mismatch { group, index, saved, logged });
        }
        applier.machine.round_done();
        Ok(())
    }

    /// Whether saved state and log belong together and nothing is missing between them that is not
    /// `archived`.
    fn check_saved(&self, saved: Option<Applied>, archived: bool) -> Result<(), StartError> {
        let group = self.spec.group;
        let saved = saved.filter(|saved| saved.index > LogIndex(0));
        let (log, saved) = match (self.log.group(group), saved) {
            (Some(log), Some(saved)) => (log, saved),
            (Some(_), None) if archived => return Ok(()),
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
            if archived {
                return Ok(());
            }
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
        let mut archive = Archive::default();
        if saved.is_some() {
            self.read_space(Space::Machine, |pairs| machine.restore(pairs))?;
            archive = self.read_space(Space::Archive, Archive::restore)?;
        }
        Ok(Applier::new(group, machine, archive, saved.unwrap_or_default()))
    }

    fn read_space<T>(
        &self,
        space: Space,
        restore: impl FnOnce(&mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<T, RestoreError>,
    ) -> Result<T, StartError> {
        let group = self.spec.group;
        let mut failed = None;
        let pairs = self.kv.scan(group, space)?;
        let mut pairs = pairs.map_while(|pair| pair.map_err(|error| failed = Some(error)).ok());
        let restored = restore(&mut pairs);
        drop(pairs);
        if let Some(error) = failed {
            return Err(StartError::Kv(error));
        }
        restored.map_err(|source| StartError::Restore { group, source })
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
        let tiering = self.tiering(&applier);
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
            tiering,
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

    /// What is not archived counts as new from now on.
    fn tiering<M: StateMachine>(&self, applier: &Applier<M>) -> Tiering {
        let now = self.clock.monotonic();
        let mut tiering = Tiering::new(self.storage.cloned(), now);
        let groups = self.log.usage().groups;
        let logged = groups.iter().find(|usage| usage.group == self.spec.group);
        let all = Behind::of(logged.map_or(0, |usage| usage.bytes), now);
        let archive = &applier.archive;
        let behind = if archive.is_behind() { all } else { Behind::default() };
        let since_checkpoint = match archive.last_operation() > archive.newest_checkpoint() {
            true => all,
            false => Behind::default(),
        };
        tiering.found(behind, since_checkpoint);
        tiering
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
