//! The roles of one node, joined.
//!
//! Owner of the log, the groups, the segment store and the controller of this process, and of the
//! order in which they start and stop. Every group has one voter here: this node. Group 1 is the
//! controller; containers follow, so that their number may grow.

mod failures;
mod numbers;
mod pressure;
mod readiness;
mod stores;
mod tiering;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use common::ids::{ContainerId, GroupId};
use common::tasks::{Tasks, spawn_thread};
use common::{ByteSize, Clock, Rng};
use controller::{
    Bootstrap, ControllerGroup, ControllerMachine, ControllerService, ControllerSettings, Runner,
    SegmentStores, StoreId,
};
use lts::Bucket;
use prometheus_client::registry::Registry;
use replica::{GroupHandle, GroupStatus, Host, HostFailure, HostSettings, RocksKv};
use segmentstore::{ContainerMachine, Memory, SegmentStore, SegmentStoreService};
use tokio::sync::{oneshot, watch};
use wal::{Disk, Log, LogSettings};

use crate::accept::Shares;
use crate::error::ServerError;
use crate::http::Readiness;
use crate::identity::DataDir;
use crate::memory::{MemoryClass, MemoryPlan, default_limit};
use crate::metrics::NodeCollector;
use crate::rates::Rates;
use crate::settings::{Limits, Settings};
use crate::storage::Storage;
pub(crate) use failures::{chain, start_error};
use numbers::Numbers;
use readiness::Watch;
pub use stores::LocalStores;
pub(crate) use tiering::tiering_settings;

/// What one group may hold of the log's budget where groups tier.
const GROUP_SHARE_PERCENT: u8 = 25;

/// Opens the log's folder; the flag allows a volatile file system.
pub(crate) type OpenDisk = Box<dyn Fn(&Path, bool) -> std::io::Result<Arc<dyn Disk>> + Send>;

/// A running node.
pub(crate) struct Node {
    host: Arc<Mutex<Host>>,
    failure: watch::Receiver<Option<HostFailure>>,
    groups: Groups,
    log: Log,
    numbers: Arc<Numbers>,
    store: SegmentStore,
    controller: ControllerService,
    /// Long-term storage, where there is any: opened, claimed, and perhaps not ready yet.
    storage: Option<Storage>,
    /// What serves requests; ends first.
    services: Tasks,
    /// What the controller does by itself.
    jobs: Tasks,
}

/// The groups of this node.
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    controller: GroupHandle<ControllerMachine>,
    containers: Vec<(ContainerId, GroupHandle<ContainerMachine>)>,
}

impl Groups {
    /// Every group's status, by the number of the group.
    fn statuses(&self) -> Vec<(u64, GroupStatus)> {
        let controller = (GroupId::CONTROLLER.0, self.controller.status());
        let containers = self.containers.iter().map(|(id, handle)| (id.0, handle.status()));
        std::iter::once(controller).chain(containers).collect()
    }

    /// Lets every group that this node leads look for work in long-term storage; how many do.
    fn look_after_storage(&self) -> u32 {
        let containers = self.containers.iter().map(|(_, handle)| handle.look_after_storage());
        let looking = std::iter::once(self.controller.look_after_storage()).chain(containers);
        looking.map(u32::from).sum()
    }

    /// Waits until every group that is not quarantined serves.
    async fn serving(&self) {
        wait_for_serving(&self.controller).await;
        for (_, handle) in &self.containers {
            wait_for_serving(handle).await;
        }
    }
}

async fn wait_for_serving<M: replica::StateMachine>(handle: &GroupHandle<M>) {
    if handle.status().quarantined.is_none() {
        // `None`: the host stopped, which its failure tells.
        let _ = handle.serving().await;
    }
}

impl Node {
    /// Recovers and starts everything; returns when every group serves.
    pub(crate) async fn start(
        settings: &Settings,
        data: &mut DataDir,
        storage: Option<Storage>,
        clock: Arc<dyn Clock>,
        mut rng: Rng,
        open_disk: OpenDisk,
        dev: bool,
    ) -> Result<Node, ServerError> {
        let plan = MemoryPlan::new(settings, default_limit(Path::new("/")))?;
        let mut host = open_host(
            settings,
            data,
            &plan,
            storage.is_some(),
            clock.clone(),
            rng.fork("host"),
            &open_disk,
        )?;
        let (failure, log) = (host.failed(), host.log());
        if let Some(storage) = &storage {
            // Only now that the log exists, and before any group may tier.
            storage.claim(data).await?;
            host.use_storage(tiering::of_groups(storage, settings, &plan));
        }
        let store_settings = store_settings(&plan, &settings.limits);
        let memory = Memory::new(&store_settings);
        let machine = ControllerMachine::new();
        let progress = machine.progress();
        let groups = add_groups(settings, data.path(), &mut host, machine, &memory)?;
        host.run().map_err(start_error(data.path()))?;
        serving_or_failed(&groups, failure.clone()).await?;

        let (services, jobs) = (Tasks::new(), Tasks::new());
        let readers = storage.as_ref().map(bucket_of_readers);
        let (on, of) = (clock.clone(), &store_settings);
        let store = start_store(&groups, &log, readers, &memory, of, on, &services)?;
        if storage.is_some() {
            slow_appends_with_the_log(&store, log.clone(), groups.clone());
        }
        slow_appends_with_writer_tables(&store, plan.share(MemoryClass::Writers));
        let [receive, send] = [MemoryClass::Receive, MemoryClass::Send].map(|of| plan.share(of));
        let shares = Shares::new(plan.limit, receive, send, &settings.limits);
        let numbers = Arc::new(Numbers {
            log: log.clone(),
            steps: host.step_times(),
            groups: groups.clone(),
            store: store.clone(),
            plan,
            shares,
            storage: storage.clone(),
            state: host.state_store(),
            started: clock.monotonic(),
            clock,
            rates: Rates::default(),
            dev,
        });
        numbers.start(&jobs);
        let controller = start_controller(data, &groups, progress, &store, numbers.clone(), &jobs);
        let host = Arc::new(Mutex::new(host));
        let node = Node {
            host,
            failure,
            groups,
            log,
            numbers,
            store,
            controller,
            storage,
            services,
            jobs,
        };
        node.introduced().await?;
        Ok(node)
    }

    /// The gRPC services.
    pub(crate) fn routes(&self) -> tonic::service::Routes {
        tonic::service::Routes::new(self.controller.clone().into_server())
            .add_service(SegmentStoreService::new(self.store.clone()).into_server())
    }

    /// The memory that connections share.
    pub(crate) fn shares_of_connections(&self) -> Shares {
        self.numbers.shares.clone()
    }

    /// Where long-term storage is.
    pub(crate) fn storage_url(&self) -> Option<String> {
        self.storage.as_ref().map(|storage| storage.url().to_string())
    }

    pub(crate) fn register_metrics(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(NodeCollector(self.numbers.clone())));
    }

    pub(crate) fn readiness(&self) -> Arc<dyn Readiness> {
        Arc::new(Watch::new(self.log.clone(), self.groups.clone(), self.failure.clone()))
    }

    /// Returns when the node cannot go on, with the reason.
    pub(crate) async fn failed(&self) -> ServerError {
        let mut failure = self.failure.clone();
        let (services, jobs) = (self.services.token(), self.jobs.token());
        let message = tokio::select! {
            biased;
            failed = failure.wait_for(Option::is_some) => match failed {
                Ok(failed) => failed.as_ref().map(chain).unwrap_or_default(),
                Err(_) => "its threads are gone".to_owned(),
            },
            // These are cancelled by a stop, which comes later, or by a panic.
            () = services.cancelled() => "a task of the segment store panicked".to_owned(),
            () = jobs.cancelled() => "a task of the controller panicked".to_owned(),
            failed = self.storage_failed() => return failed,
        };
        ServerError::Fatal { message }
    }

    async fn storage_failed(&self) -> ServerError {
        match &self.storage {
            Some(storage) => storage.failed().await,
            None => std::future::pending().await,
        }
    }

    /// Lets the requests that would go on for ever end: appends and reads that follow.
    pub(crate) fn begin_drain(&self) {
        self.services.cancel();
    }

    /// Stops everything, services first, log and long-term storage last. The state is checkpointed
    /// and the log sealed.
    pub(crate) async fn stop(&self) -> Result<(), ServerError> {
        self.services.stop().await;
        self.jobs.stop().await;
        self.stop_host().await;
        if let Some(storage) = &self.storage {
            storage.stop().await;
        }
        match self.failure.borrow().as_ref() {
            Some(failure) => Err(ServerError::Fatal { message: chain(failure) }),
            None => Ok(()),
        }
    }

    /// The end of what a stop has stopped: whoever calls this is the last to have the groups and
    /// their state store. A stop that was not waited for still has them, for the end of the process
    /// to take along: nothing is closed then, which another thread could not do while the process
    /// ends.
    pub(crate) fn close(self, stopped: bool) {
        if !stopped {
            std::mem::forget(self.numbers.state.upgrade());
        }
        let host = Arc::into_inner(self.host);
        if stopped && host.is_none() {
            tracing::error!("the groups are still held by somebody: this is a defect");
        }
    }

    /// On a thread of its own, so that whoever waits may lose patience.
    async fn stop_host(&self) {
        let host = self.host.clone();
        let stop = |host: &Mutex<Host>| host.lock().unwrap_or_else(PoisonError::into_inner).stop();
        let (done, stopped) = oneshot::channel();
        let thread = spawn_thread("stop", move || {
            stop(&host);
            // Before anybody hears of it: this thread may live on while the process ends.
            drop(host);
            // Nobody may wait any more.
            let _ = done.send(());
        });
        match thread {
            Ok(_) => {
                // An error is a panic in it, which has been reported.
                let _ = stopped.await;
            }
            Err(error) => {
                tracing::warn!(%error, "no thread to stop the node on");
                stop(&self.host);
            }
        }
    }

    /// Waits until the controller knows its cluster and its store: clients ask for both first.
    async fn introduced(&self) -> Result<(), ServerError> {
        if self.groups.controller.status().quarantined.is_some() {
            return Ok(());
        }
        let known = self.groups.containers.len();
        let mut failure = self.failure.clone();
        loop {
            let introduced = self.groups.controller.query(move |machine| {
                machine.cluster().is_some() && machine.containers().len() >= known
            });
            if introduced.await.unwrap_or(false) {
                return Ok(());
            }
            tokio::select! {
                failed = failure.wait_for(Option::is_some) => {
                    let message = failed.ok().and_then(|failed| failed.as_ref().map(chain));
                    return Err(ServerError::Fatal { message: message.unwrap_or_default() });
                }
                () = tokio::time::sleep(std::time::Duration::from_millis(2)) => {}
            }
        }
    }
}

async fn serving_or_failed(
    groups: &Groups,
    mut failure: watch::Receiver<Option<HostFailure>>,
) -> Result<(), ServerError> {
    tokio::select! {
        failed = failure.wait_for(Option::is_some) => {
            let message = failed.ok().and_then(|failed| failed.as_ref().map(chain));
            Err(ServerError::Fatal { message: message.unwrap_or_default() })
        }
        () = groups.serving() => Ok(()),
    }
}

fn open_host(
    settings: &Settings,
    data: &DataDir,
    plan: &MemoryPlan,
    tiers: bool,
    clock: Arc<dyn Clock>,
    rng: Rng,
    open_disk: &OpenDisk,
) -> Result<Host, ServerError> {
    let access = |action| {
        let dir = data.path().to_owned();
        move |source| ServerError::DataAccess { dir, action, source }
    };
    let disk = open_disk(&data.wal(), settings.data.allow_volatile)
        .map_err(access("open the log's folder"))?;
    let kv = RocksKv::open(&data.state(), plan.share(MemoryClass::State))
        .map_err(|error| start_error(data.path())(error.into()))?;
    let host_settings = HostSettings {
        checkpoint_log_bytes: settings.checkpoint.log_bytes,
        checkpoint_interval: settings.checkpoint.interval.0,
        log: LogSettings {
            budget: settings.log.budget,
            file_size: settings.log.file_size,
            allow_volatile: settings.data.allow_volatile,
            store_id: Some(data.identity().store.0),
            // One group that cannot tier does not fill the log for all. Where no group tiers the
            // budget is the capacity, for one stream as for many.
            group_share_percent: if tiers { GROUP_SHARE_PERCENT } else { 100 },
            ..LogSettings::default()
        },
        ..HostSettings::default()
    };
    Host::start(host_settings, disk, Arc::new(kv), clock, rng).map_err(start_error(data.path()))
}

fn add_groups(
    settings: &Settings,
    dir: &Path,
    host: &mut Host,
    controller: ControllerMachine,
    memory: &Memory,
) -> Result<Groups, ServerError> {
    let last = GroupId::CONTROLLER.0 + u64::from(settings.containers.count);
    if let Some(beyond) = host.recovered().groups.iter().map(|state| state.group.0).max()
        && beyond > last
    {
        return Err(ServerError::ContainersLowered {
            count: settings.containers.count,
            needed: beyond - GroupId::CONTROLLER.0,
        });
    }
    let controller = host.add_group(GroupId::CONTROLLER, controller).map_err(start_error(dir))?;
    let ids = (GroupId::CONTROLLER.0 + 1..=last).map(ContainerId);
    let machine = |id: ContainerId| (id.group(), ContainerMachine::new(id, memory.clone()));
    let handles = host.add_groups(ids.clone().map(machine)).map_err(start_error(dir))?;
    Ok(Groups { controller, containers: ids.zip(handles).collect() })
}

fn start_controller(
    data: &DataDir,
    groups: &Groups,
    progress: watch::Receiver<u64>,
    store: &SegmentStore,
    numbers: Arc<Numbers>,
    jobs: &Tasks,
) -> ControllerService {
    let stores: Arc<dyn SegmentStores> = Arc::new(LocalStores(store.commands()));
    let group = Arc::new(ControllerGroup(groups.controller.clone()));
    let settings = ControllerSettings::default();
    let (bootstrap, of_runner) = (bootstrap(data, groups), settings.clone());
    let runner =
        Runner::new(of_runner, group.clone(), stores.clone(), progress, bootstrap).start(jobs);
    ControllerService::new(settings, group, runner, stores, numbers)
}

/// What the controller is told at its very first start.
fn bootstrap(data: &DataDir, groups: &Groups) -> Bootstrap {
    Bootstrap {
        cluster: data.identity().cluster.0,
        store: StoreId(1),
        endpoint: String::new(),
        containers: groups.containers.iter().map(|(id, _)| *id).collect(),
    }
}

fn start_store(
    groups: &Groups,
    log: &Log,
    bucket: Option<Arc<dyn Bucket>>,
    memory: &Memory,
    settings: &segmentstore::Settings,
    clock: Arc<dyn Clock>,
    services: &Tasks,
) -> Result<SegmentStore, ServerError> {
    let containers = groups.containers.clone();
    let (log, services) = (log.clone(), services.clone());
    let store = SegmentStore::new(containers, log, bucket, memory, settings, clock, services);
    let store = store.map_err(|error| ServerError::Start {
        component: "threads that read the log",
        message: error.to_string(),
        data_damaged: false,
    })?;
    store.start();
    Ok(store)
}

fn bucket_of_readers(storage: &Storage) -> Arc<dyn Bucket> {
    Arc::new(tiering::OnLoop(storage.clone()))
}

pub(crate) fn store_settings(plan: &MemoryPlan, limits: &Limits) -> segmentstore::Settings {
    segmentstore::Settings {
        tail_cache: plan.share(MemoryClass::Tail),
        read_cache: plan.share(MemoryClass::LogRead),
        object_cache: plan.share(MemoryClass::Objects),
        object_read_ahead: plan.share(MemoryClass::ObjectsAhead),
        append_memory: plan.share(MemoryClass::Appends),
        session_memory: plan.share(MemoryClass::Writers),
        connection_sessions: limits.sessions_per_connection as usize,
        questions: limits.queries as usize,
        ..segmentstore::Settings::default()
    }
}

/// Slows appends down while the log fills faster than long-term storage takes it over. Without
/// that nothing would ever be taken over, and slowness would help nobody.
fn slow_appends_with_the_log(store: &SegmentStore, log: Log, groups: Groups) {
    let signal = move || pressure::of_log(&log, &groups);
    store.pressure().register("log", Box::new(signal));
}

fn slow_appends_with_writer_tables(store: &SegmentStore, share: ByteSize) {
    let metrics = store.metrics().clone();
    let signal = move || pressure::of_writer_tables(&metrics, share);
    store.pressure().register("writers", Box::new(signal));
}
