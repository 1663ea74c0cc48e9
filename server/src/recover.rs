//! `braid recover`: a node made anew from its cluster's bucket, when its log is gone.
//!
//! In this order, so that a failure at any step leaves nothing that is taken for whole: read what
//! the bucket has of every group, and refuse where one cannot come back as far as it was archived,
//! unless a person accepts just that → claim the bucket under the next incarnation, which stops the
//! lost cluster, should it still live → lay the groups out in the new folder → run them until they
//! have taken over their last rounds → bring controller and containers in line ([`reconcile`]) →
//! save and seal → write `STORE`. A folder without `STORE` is no data folder; a recovery that did
//! not end is begun again in the same one.

mod loss;
mod reconcile;
mod report;
mod workflows;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{Clock, ContainerId, GroupId, Incarnation, Rng};
use controller::{ControllerGroup, ControllerMachine};
use lts::{Bucket, ClusterMarker, Owner, StoreUrl};
use replica::restore::RestoreFailure;
use replica::{GroupHandle, Host, HostSettings, Kv, RocksKv, StateMachine, recover};
use segmentstore::{ContainerMachine, Containers, Memory, StoreCommands};
use tokio::sync::watch;
use wal::{Log, LogSettings};

use crate::error::ServerError;
use crate::identity::{Identity, Unfinished, Uuid};
use crate::memory::{MemoryClass, MemoryPlan, default_limit};
use crate::node::{chain, start_error, store_settings, tiering_settings};
use crate::run::Surroundings;
use crate::settings::{CONTAINERS_MAX, Settings};
use crate::storage::{Counts, EventLoop};

pub(crate) use loss::told;
pub use loss::{Damage, GroupLoss, Unreadable};
pub use report::{RecoveredGroup, RecoveryReport, SegmentReport, StreamChange, StreamReport};

/// How often the groups are looked at while they take over.
const LOOK: Duration = Duration::from_millis(5);

/// What a recovery is doing, for people who wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryStep {
    Reading { group: u64, groups: usize },
    Claiming { incarnation: u16 },
    Replaying { group: u64, groups: usize },
    Reconciling,
    Saving,
}

/// Makes the data folder of `settings` from the bucket at `from`. Blocks the calling thread. What
/// is missing or damaged there, so that a group ends earlier than it was archived, is refused unless
/// that is accepted.
pub fn recover(
    settings: &Settings,
    from: &StoreUrl,
    accept_loss: bool,
    on_step: &mut dyn FnMut(RecoveryStep),
) -> Result<RecoveryReport, ServerError> {
    recover_with(settings, from, accept_loss, Surroundings::of_machine(), on_step)
}

pub(crate) fn recover_with(
    settings: &Settings,
    from: &StoreUrl,
    accept_loss: bool,
    surroundings: Surroundings,
    on_step: &mut dyn FnMut(RecoveryStep),
) -> Result<RecoveryReport, ServerError> {
    check_there(from)?;
    let folder = Unfinished::begin(&settings.data.dir, settings.data.allow_volatile)?;
    let plan = MemoryPlan::new(settings, default_limit(Path::new("/")))?;
    let Surroundings { clock, mut rng, open_disk, open_bucket } = surroundings;
    let (lts, counts) = (settings.lts_store(), Arc::new(Counts::default()));
    let bucket_rng = rng.fork("bucket");
    let bucket = open_bucket(from, &lts, clock.clone(), bucket_rng, Counts::observer(&counts))?;
    let event_loop = Arc::new(EventLoop::start()?);
    let bucket: Arc<dyn Bucket> = Arc::new(bucket);
    let asked = bucket.clone();
    let lost = event_loop.wait(async move { lts::cluster::newest_marker(&*asked).await })??;
    let lost = lost.ok_or_else(|| failed(from)("it has no cluster's marker".to_owned()))?;
    let marker = ClusterMarker::new(Incarnation(lost.incarnation.0 + 1), &mut rng);
    let owner = Arc::new(Owner::new(bucket.clone(), clock.clone(), marker));
    let storage = replica::Storage {
        bucket,
        waiter: event_loop,
        settings: tiering_settings(from, settings, &plan),
        owner: Some(owner),
        ready: watch::channel(true).1,
        held: replica::Held::default(),
    };
    let (url, losses) = (from.clone(), Vec::new());
    let mut source = Source { url, storage, lost, marker, accept_loss, losses };
    source.read_all(on_step)?;
    source.claim(on_step)?;
    let mut bringing = Bringing { settings, plan, folder, source, clock, rng, open_disk };
    let store = Uuid(bringing.rng.u128());
    let (node, groups) = bringing.lay_out(store, on_step)?;
    bringing.finish(node, groups, store, on_step)
}

/// A folder that is not there is a mistyped one: nothing is made, neither there nor for data.
fn check_there(from: &StoreUrl) -> Result<(), ServerError> {
    let StoreUrl::Folder(path) = from else { return Ok(()) };
    match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed(from)(
            "there is no such folder, so it has no cluster's marker; check the URL".to_owned(),
        )),
        Err(error) => Err(failed(from)(format!("look for the folder: {error}"))),
    }
}

fn failed(url: &StoreUrl) -> impl Fn(String) -> ServerError {
    let url = url.clone();
    move |message| ServerError::Recovery { url: url.clone(), message }
}

/// The bucket, and the clusters before and behind this recovery.
struct Source {
    url: StoreUrl,
    storage: replica::Storage,
    lost: ClusterMarker,
    marker: ClusterMarker,
    accept_loss: bool,
    /// What is accepted.
    losses: Vec<GroupLoss>,
}

impl Source {
    fn failed(&self, group: GroupId) -> impl Fn(RestoreFailure) -> ServerError {
        let failed = failed(&self.url);
        move |failure| failed(format!("group {group}: {failure}"))
    }

    /// The groups that have something, which must be readable, all of them, before anything is
    /// claimed.
    fn read_all(&mut self, on_step: &mut dyn FnMut(RecoveryStep)) -> Result<(), ServerError> {
        let groups = self.groups()?;
        for group in &groups {
            on_step(RecoveryStep::Reading { group: group.0, groups: groups.len() });
            let loss = match replica::restore::Chain::salvage(&self.storage, *group) {
                Ok(salvaged) => GroupLoss::of(&self.storage, *group, salvaged),
                Err(RestoreFailure::Nothing) => Ok(None),
                Err(failure) => Err(failure),
            };
            self.losses.extend(loss.map_err(self.failed(*group))?);
        }
        match self.losses.is_empty() || self.accept_loss {
            true => Ok(()),
            false => {
                let (url, losses) = (self.url.clone(), self.losses.clone());
                Err(ServerError::RecoveryLoses { url, losses })
            }
        }
    }

    /// All groups that the bucket has objects of. A number that no cluster gives is of something
    /// else, and would have as many containers made.
    fn groups(&self) -> Result<Vec<GroupId>, ServerError> {
        let groups = replica::restore::groups(&self.storage);
        let groups = groups.map_err(|failure| failed(&self.url)(failure.to_string()))?;
        let first = GroupId::CONTROLLER.0;
        let last = first + u64::from(CONTAINERS_MAX);
        match groups.iter().find(|group| !(first..=last).contains(&group.0)) {
            Some(stray) => Err(failed(&self.url)(format!(
                "it has objects of group {stray} (`…/{:016x}/…`), and a cluster has groups \
                 {first} to {last}; they are of something else: move them away and try again",
                stray.0
            ))),
            None => Ok(groups),
        }
    }

    fn claim(&self, on_step: &mut dyn FnMut(RecoveryStep)) -> Result<(), ServerError> {
        on_step(RecoveryStep::Claiming { incarnation: self.marker.incarnation.0 });
        let (bucket, marker) = (self.storage.bucket.clone(), self.marker);
        let (done, claimed) = std::sync::mpsc::sync_channel(1);
        self.storage.waiter.wait(Box::pin(async move {
            // Whoever waits is this function.
            let _ = done.send(lts::cluster::claim(&*bucket, marker).await);
        }));
        let claimed = claimed.try_recv();
        Ok(claimed.map_err(|_| ServerError::Fatal { message: "it was stopped".to_owned() })??)
    }
}

/// A recovery under way.
struct Bringing<'a> {
    settings: &'a Settings,
    plan: MemoryPlan,
    folder: Unfinished,
    source: Source,
    clock: Arc<dyn Clock>,
    rng: Rng,
    open_disk: crate::node::OpenDisk,
}

/// The groups, as they are run to the end of the recovery.
struct Recovering {
    host: Host,
    controller: GroupHandle<ControllerMachine>,
    containers: Vec<(ContainerId, GroupHandle<ContainerMachine>)>,
    memory: Memory,
}

impl Bringing<'_> {
    fn log_settings(&self, store: Uuid) -> LogSettings {
        LogSettings {
            budget: self.settings.log.budget,
            file_size: self.settings.log.file_size,
            allow_volatile: self.settings.data.allow_volatile,
            store_id: Some(store.0),
            group_share_percent: 100,
            ..LogSettings::default()
        }
    }

    /// Every group with its checkpoint's state and a log that begins behind the last archived
    /// entry, opened, which replays what lies between.
    fn lay_out(
        &mut self,
        store: Uuid,
        on_step: &mut dyn FnMut(RecoveryStep),
    ) -> Result<(Recovering, Vec<RecoveredGroup>), ServerError> {
        let volatile = self.settings.data.allow_volatile;
        let dir = self.settings.data.dir.clone();
        let disk = (self.open_disk)(&self.folder.wal(), volatile).map_err(|source| {
            ServerError::DataAccess { dir: dir.clone(), action: "open the log's folder", source }
        })?;
        let kv: Arc<dyn Kv> = Arc::new(
            RocksKv::open(&self.folder.state(), self.plan.share(MemoryClass::State))
                .map_err(|error| start_error(&dir)(error.into()))?,
        );
        let settings = self.log_settings(store);
        let mut reports = Vec::new();
        let groups = self.source.groups()?;
        {
            let log_rng = self.rng.fork("foundation");
            let opened = Log::open(disk.clone(), settings.clone(), self.clock.clone(), log_rng);
            let (log, _) = opened.map_err(|error| start_error(&dir)(error.into()))?;
            for group in &groups {
                on_step(RecoveryStep::Replaying { group: group.0, groups: groups.len() });
                let Source { storage, accept_loss, losses, .. } = &self.source;
                // What was not told before the claim is not accepted.
                let accepts = *accept_loss && losses.iter().any(|loss| loss.group == group.0);
                match recover::prepare(storage, *group, accepts, &log, &*kv) {
                    Ok(found) => reports.push(RecoveredGroup::new(found, losses)),
                    // Objects of an upload that was not finished, and nothing else.
                    Err(RestoreFailure::Nothing) => {}
                    Err(failure) => return Err(self.source.failed(*group)(failure)),
                }
            }
        }
        let host_settings = HostSettings { log: settings, ..HostSettings::default() };
        let rng = self.rng.fork("host");
        let host = Host::start(host_settings, disk, kv, self.clock.clone(), rng);
        let mut host = host.map_err(start_error(&dir))?;
        // Nothing is put before all is in its place: a recovery that does not end is as if it had
        // never been, and the next one is told the same.
        let ready = watch::channel(false).1;
        host.use_storage(replica::Storage { ready, ..self.source.storage.clone() });
        let found: Vec<GroupId> = reports.iter().map(|report| GroupId(report.group)).collect();
        Ok((self.add_groups(host, &found, &dir)?, reports))
    }

    fn add_groups(
        &self,
        mut host: Host,
        groups: &[GroupId],
        dir: &Path,
    ) -> Result<Recovering, ServerError> {
        let incarnation = self.source.marker.incarnation;
        let last = GroupId::CONTROLLER.0 + u64::from(self.settings.containers.count);
        let last = groups.last().map_or(last, |group| group.0.max(last));
        let memory = Memory::new(&store_settings(&self.plan, &self.settings.limits));
        let controller = ControllerMachine::new();
        let controller = host.recover_group(GroupId::CONTROLLER, controller, incarnation);
        let controller = controller.map_err(start_error(dir))?;
        let mut containers = Vec::new();
        for id in (GroupId::CONTROLLER.0 + 1..=last).map(ContainerId) {
            let machine = ContainerMachine::new(id, memory.clone());
            let handle = host.recover_group(id.group(), machine, incarnation);
            containers.push((id, handle.map_err(start_error(dir))?));
        }
        host.run().map_err(start_error(dir))?;
        Ok(Recovering { host, controller, containers, memory })
    }

    fn finish(
        self,
        mut node: Recovering,
        mut groups: Vec<RecoveredGroup>,
        store: Uuid,
        on_step: &mut dyn FnMut(RecoveryStep),
    ) -> Result<RecoveryReport, ServerError> {
        let runtime = crate::run::runtime("recovery")?;
        let (lost, marker) = (self.source.lost, self.source.marker);
        let ends: Vec<(u64, u64)> = groups.iter().map(|group| (group.group, group.end)).collect();
        let settled = runtime.block_on(async {
            node.taken_over(&ends).await?;
            on_step(RecoveryStep::Reconciling);
            node.reconcile(marker.incarnation).await
        });
        let reconciled = settled.map_err(|why| failed(&self.source.url)(why))?;
        node.tell_lost(&mut groups);
        on_step(RecoveryStep::Saving);
        node.host.stop();
        let failure = node.host.failed().borrow().clone();
        if let Some(failure) = failure {
            return Err(ServerError::Fatal { message: chain(&failure) });
        }
        let mut identity =
            Identity::recovered(Uuid(reconciled.cluster), marker, &mut self.rng.clone());
        identity.store = store;
        self.folder.finish(identity)?;
        Ok(RecoveryReport {
            url: self.source.url.to_string(),
            data: PathBuf::from(&self.settings.data.dir),
            incarnation_before: lost.incarnation.0,
            incarnation: marker.incarnation.0,
            containers: node.containers.len() as u16,
            unarchived_extents: node.memory.metrics().unarchived_extents.get(),
            groups,
            streams: reconciled.streams,
            changes: reconciled.changes,
        })
    }
}

impl Recovering {
    /// Waits until every group has taken over its last rounds.
    async fn taken_over(&self, ends: &[(u64, u64)]) -> Result<(), String> {
        taken_over(&self.controller, GroupId::CONTROLLER.0, ends, &self.host).await?;
        for (id, handle) in &self.containers {
            taken_over(handle, id.0, ends, &self.host).await?;
        }
        Ok(())
    }

    /// What had been lost before there was anything to recover.
    fn tell_lost(&self, groups: &mut [RecoveredGroup]) {
        let containers = self.containers.iter().map(|(id, handle)| (id.0, handle.status().lost));
        let controller = (GroupId::CONTROLLER.0, self.controller.status().lost);
        for (group, lost) in containers.chain([controller]) {
            if let Some(report) = groups.iter_mut().find(|report| report.group == group) {
                report.lost = lost.iter().map(|range| (range.start().0, range.end().0)).collect();
            }
        }
    }

    fn commands(&self) -> StoreCommands {
        StoreCommands::new(self.handles())
    }

    fn handles(&self) -> Containers {
        Containers::new(self.containers.iter().map(|(id, handle)| {
            (*id, Arc::new(handle.clone()) as Arc<dyn segmentstore::ContainerHandle>)
        }))
    }

    fn group(&self) -> ControllerGroup {
        ControllerGroup(self.controller.clone())
    }
}

async fn taken_over<M: StateMachine>(
    handle: &GroupHandle<M>,
    group: u64,
    ends: &[(u64, u64)],
    host: &Host,
) -> Result<(), String> {
    let end = ends.iter().find(|(of, _)| *of == group).map_or(0, |(_, end)| *end);
    loop {
        let status = handle.status();
        if let Some(reason) = status.quarantined {
            return Err(format!("group {group} is quarantined: {reason}"));
        }
        if let Some(failure) = host.failed().borrow().as_ref() {
            return Err(chain(failure));
        }
        if status.serving && status.archived.0 >= end {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}
