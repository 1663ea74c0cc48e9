//! From what the disk holds to a running group.
//!
//! The saved state is restored, the log behind it is replayed up to the durable commit *outside*
//! raft-rs, and only then its node is made, with applied = commit: raft-rs would load the whole
//! unapplied log in one slice. raft-rs does not ask to sync a commit index that moves alone, so
//! the saved state may be ahead of it: then the commit is raised, but only if the log has that
//! very entry. A log that ends earlier has lost acknowledged data, and the group is refused.
//!
//! Where there is long-term storage the saved state is a cache: one that is missing, or that ends
//! before the log begins, is fetched from there ([`crate::restore`]). A group alone does so before
//! it begins; one with peers can do without this member meanwhile, and it is installed
//! ([`super::install`]) as if its leader had asked for it.

use std::sync::{Arc, Mutex};

use common::{Clock, Incarnation, LogIndex, Rng};
use raft::eraftpb::{ConfState, HardState};
use raft::{Config, NO_LIMIT, RawNode, StateRole};
use wal::{Batch, ConfRef, GroupState, Log};

use super::apply::{Applier, LoadError};
use super::checkpoint::Saved;
use super::install::Installing;
use super::proposals::Proposals;
use super::queries::Queries;
use super::ready::Unsynced;
use super::snapshot::Sent;
use super::tiering::{Behind, Holes, Tiering};
use super::{Group, GroupSpec, Member, Role, draw_timeout};
use crate::conf;
use crate::error::StartError;
use crate::handle::Shared;
use crate::kv::{Applied, Kv};
use crate::logger::raft_logger;
use crate::machine::StateMachine;
use crate::propose::ProposeError;
use crate::settings::HostSettings;
use crate::storage::{LogStorage, raft_entry};
use crate::tiering::Storage;

mod replay;
mod saved;

pub(crate) use replay::{Replaying, Restored};

/// Bytes of log read at once of what is not known to be committed.
const READ_BYTES: usize = 4 << 20;
/// Bytes of one append message between members.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Append messages on their way to one member: with their size, the bytes in flight to it.
const MESSAGES_IN_FLIGHT_MAX: usize = 16;
/// Bytes of committed entries applied in one go in a group with peers.
const COMMITTED_BYTES_MAX: u64 = 4 << 20;

/// What a group needs to start, now and whenever it is made anew.
#[derive(Clone)]
pub(crate) struct Starting {
    pub(crate) spec: GroupSpec,
    pub(crate) settings: Arc<HostSettings>,
    pub(crate) log: Log,
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) storage: Option<Storage>,
    /// Held while a state is brought back from there: one at a time is in memory.
    pub(crate) bringing: Arc<Mutex<()>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Rng,
}

/// A group that runs or is being installed, or one that must not.
pub(crate) enum Opened {
    Running(Box<dyn Member>),
    Quarantined,
}

impl Opened {
    pub(crate) fn quarantined<M: StateMachine>(shared: &Shared<M>, reason: String) -> Self {
        tracing::error!(group = %shared.group, reason, "group is quarantined until a restart");
        shared.refuse(Some(ProposeError::Quarantined(reason.clone())));
        shared.publish(|status| status.quarantined = Some(reason));
        Opened::Quarantined
    }
}

impl Starting {
    /// Brings the state to where its log can be replayed.
    pub(crate) fn restore<M: StateMachine>(
        self,
        machine: M,
        shared: Arc<Shared<M>>,
    ) -> Result<Restored<M>, StartError> {
        if self.waits_for_state()? {
            return Ok(Restored::Opened(match self.known_group()?.quarantined {
                Some(reason) => Opened::quarantined(&shared, reason),
                None => Opened::Running(Box::new(Installing::found(self, shared, machine))),
            }));
        }
        let (saved, chain) = self.saved()?;
        self.check_saved(saved, chain.is_some())?;
        let found = self.known_group()?;
        if let Some(reason) = found.quarantined.clone() {
            return Ok(Restored::Opened(Opened::quarantined(&shared, reason)));
        }
        self.forget_mark(&found)?;
        let mut applier = self.load(machine, saved)?;
        applier.archives = self.storage.is_some();
        let mut said = Vec::new();
        if let Some(chain) = chain {
            self.replay_archived(&mut applier, &chain, found.truncated)?;
            // What came later is of a node that lives on: no log here has its entries.
            said = chain.said_behind(applier.archive.end());
            said.retain(|said| said.archived_to() <= Some(found.truncated.index));
            if common::planted::active("recovery-forgets-the-last-rounds") {
                said.clear();
            }
        }
        let recover = self.spec.recover.or_else(|| self.is_new_behind_a_recovery(&applier, &found));
        let flushed = saved.map_or(LogIndex(0), |saved| saved.index);
        let replaying = self.replaying(applier, shared, found, flushed)?;
        Ok(Restored::Replaying(Box::new(match recover {
            Some(incarnation) => replaying.says_first(incarnation, said),
            None => replaying,
        })))
    }

    /// From a state that includes at least what the log has dropped to a group that runs; or the
    /// reason why it must not.
    pub(super) fn resume<M: StateMachine>(
        self,
        applier: Applier<M>,
        shared: Arc<Shared<M>>,
        found: GroupState,
        flushed: LogIndex,
    ) -> Result<Result<Box<Group<M>>, String>, StartError> {
        let mut replaying = self.replaying(applier, shared, found, flushed)?;
        replaying.replay_alone();
        replaying.run()
    }

    /// The state that was being installed is there.
    fn forget_mark(&self, found: &GroupState) -> Result<(), StartError> {
        if found.mark.is_none() {
            return Ok(());
        }
        let group = self.spec.group;
        let batch = Batch { group, mark: Some(&[]), ..Batch::default() };
        let appended = self.log.append(&batch);
        appended.map(|_| ()).map_err(|source| StartError::Append { group, source })
    }

    /// A group that was added to a cluster that was recovered has nothing to take over, but says
    /// whose it is all the same: what it archives is of the cluster now.
    fn is_new_behind_a_recovery<M: StateMachine>(
        &self,
        applier: &Applier<M>,
        found: &GroupState,
    ) -> Option<Incarnation> {
        let now = self.storage.as_ref()?.marker()?.incarnation;
        let archive = &applier.archive;
        let is_new = found.truncated.index == LogIndex(0) && archive.end() == LogIndex(0);
        Some(now).filter(|now| is_new && archive.incarnation() < *now)
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

    fn load<M: StateMachine>(
        &self,
        machine: M,
        saved: Option<Applied>,
    ) -> Result<Applier<M>, StartError> {
        let group = self.spec.group;
        Applier::restored(group, machine, &*self.kv, saved).map_err(|error| match error {
            LoadError::Kv(error) => StartError::Kv(error),
            LoadError::Restore(source) => StartError::Restore { group, source },
        })
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
        let has_peers = count(&members) > 1;
        let mut hard_state = HardState::default();
        hard_state.term = found.hard_state.term.0;
        hard_state.vote = found.hard_state.vote;
        hard_state.commit = commit.0;
        let storage = self.storage(found, hard_state.clone(), members, commit)?;
        let config = raft_config(&self.spec, &self.settings, commit, has_peers);
        let raft_error =
            |error: raft::Error| StartError::Raft { group: id, detail: error.to_string() };
        let node = RawNode::new(&config, storage, &raft_logger()).map_err(raft_error)?;
        let role = Role {
            term: hard_state.term,
            state: StateRole::Follower,
            leader: raft::INVALID_ID,
            leads: None,
            serving: false,
            election_timeout: draw_timeout(&mut self.rng, &self.settings),
        };
        let tiering = self.tiering(&applier, Holes::found(&found.lost, has_peers));
        let origin = self.clone();
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
            sent: Sent::default(),
            outgoing: Vec::new(),
            origin,
            successor: None,
            retry: false,
            changed: true,
            stopping: false,
        };
        group.offer_snapshot();
        if voters == [self.spec.peer] {
            group.node.campaign().map_err(raft_error)?;
        }
        Ok(group)
    }

    /// What is not archived counts as new from now on.
    fn tiering<M: StateMachine>(&self, applier: &Applier<M>, holes: Holes) -> Tiering {
        let now = self.clock.monotonic();
        let mut tiering = Tiering::new(self.storage.clone(), now);
        let all = Behind::of(self.log.group_usage(self.spec.group).bytes, now);
        let archive = &applier.archive;
        let behind = if archive.is_behind() { all } else { Behind::default() };
        let lacks = archive.lacks_checkpoint();
        let since_checkpoint = if lacks { all } else { Behind::default() };
        let to_cover = if lacks { applier.applied.index } else { LogIndex(0) };
        tiering.found(behind, since_checkpoint, to_cover);
        tiering.found_lost(holes, (archive, applier.applied.index), now);
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
                .read(group, low, LogIndex(last.0 + 1), READ_BYTES)
                .map_err(|source| StartError::Read { group, source })?;
            low = LogIndex(low.0 + entries.len() as u64);
            storage.append(entries.into_iter().map(raft_entry).collect());
        }
        Ok(storage)
    }
}

fn count(members: &ConfState) -> usize {
    members.voters.len() + members.learners.len()
}

fn raft_config(
    spec: &GroupSpec,
    settings: &HostSettings,
    applied: LogIndex,
    has_peers: bool,
) -> Config {
    // A message is small against a file of the log, so that it is known to fit or not to.
    let message_bytes = MESSAGE_BYTES_MAX.min(settings.log.file_size.bytes() / 4);
    Config {
        id: spec.peer,
        election_tick: settings.election_ticks,
        heartbeat_tick: settings.heartbeat_ticks,
        applied: applied.0,
        max_size_per_msg: if has_peers { message_bytes } else { NO_LIMIT },
        max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        max_committed_size_per_ready: if has_peers { COMMITTED_BYTES_MAX } else { NO_LIMIT },
        ..Config::default()
    }
}
