//! A server process from start to stop, in the order that keeps its promises.
//!
//! Start: data folder → long-term storage → log and groups → services → listener. Stop: no new connections → requests
//! under way end → jobs → groups with a checkpoint and the log's sealing block → the folder's
//! lock. An error of the node ends the process with its reason: nothing is served on a guess.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::tasks::{Tasks, spawn_thread};
use common::{Clock, Rng, SystemClock};
use prometheus_client::registry::Registry;
use tokio::runtime::{Handle, Runtime};
use tokio_util::sync::CancellationToken;
use wal::RealDisk;

use crate::accept::{self, AcceptMetrics, Acceptor, ConnectionAge, Connections};
use crate::error::ServerError;
use crate::http::{self, Watched};
use crate::identity::DataDir;
use crate::node::{Node, OpenDisk};
use crate::settings::Settings;
use crate::storage::{OpenBucket, Storage};
pub use stop::Stop;
use stop::Stopping;

mod stop;

/// What a server takes from the machine; tests put others in their places.
pub(crate) struct Surroundings {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Rng,
    pub(crate) open_disk: OpenDisk,
    pub(crate) open_bucket: OpenBucket,
}

impl Surroundings {
    pub(crate) fn of_machine() -> Self {
        let open_disk: OpenDisk = Box::new(|folder, volatile| {
            RealDisk::open(folder, volatile).map(|disk| Arc::new(disk) as Arc<dyn wal::Disk>)
        });
        let environment = credentials_of_process();
        let open_bucket: OpenBucket = Box::new(move |url, settings, clock, rng, observer| {
            lts::open(url, settings, &environment, clock, rng, observer)
        });
        let (clock, rng) = (SystemClock::shared(), Rng::from_entropy());
        Self { clock, rng, open_disk, open_bucket }
    }
}

/// The variables that name credentials of long-term storage. What is no text is none of them.
pub(crate) fn credentials_of_process() -> lts::Environment {
    let texts = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    lts::Environment::new(texts)
}

/// A server that takes requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// As bound: a free port was chosen where 0 was asked for.
    pub address: SocketAddr,
    pub data: PathBuf,
    /// Where long-term storage is, if there is any.
    pub lts: Option<String>,
    /// Whether this start made the data folder.
    pub created: bool,
}

/// Runs a server until it is told to stop. Blocks the calling thread.
pub fn run(
    settings: &Settings,
    stop: Stop,
    on_ready: impl FnOnce(&Ready),
) -> Result<(), ServerError> {
    serve(settings, Surroundings::of_machine(), stop, false, on_ready)
}

/// Runs all roles for one person's machine: says on `out` where it is reached and what to try
/// next, and tells clients that scopes and streams may be created by their first append.
pub fn dev(settings: &Settings, stop: Stop, out: &mut dyn Write) -> Result<(), ServerError> {
    serve(settings, Surroundings::of_machine(), stop, true, |ready| {
        // A closed pipe is no reason not to serve.
        let _ = write_welcome(ready, out).and_then(|()| out.flush());
    })
}

fn write_welcome(ready: &Ready, out: &mut dyn Write) -> std::io::Result<()> {
    let address = ready.address;
    let default = Settings::default().server.listen == address;
    let endpoint = if default { String::new() } else { format!(" --endpoint {address}") };
    writeln!(out, "braid {} is ready", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  gRPC and HTTP  {address}  (http://{address}/metrics)")?;
    writeln!(out, "  data           {}", ready.data.display())?;
    if let Some(url) = &ready.lts {
        writeln!(out, "  objects        {url}")?;
    }
    writeln!(out, "try, in another terminal:")?;
    writeln!(out, "  echo 'hello, river' | braid append demo/hello{endpoint}")?;
    writeln!(out, "  braid read demo/hello --from head{endpoint}")
}

fn serve(
    settings: &Settings,
    mut surroundings: Surroundings,
    stop: Stop,
    dev: bool,
    on_ready: impl FnOnce(&Ready),
) -> Result<(), ServerError> {
    raise_descriptor_limit();
    let control = runtime("control")?;
    // Bound first: a port in use is known before anything is recovered, but nothing is accepted
    // until all of it is.
    let listener = control.block_on(accept::bind(settings.server.listen))?;
    let volatile = settings.data.allow_volatile;
    let mut data = DataDir::open(&settings.data.dir, volatile, &mut surroundings.rng)?;
    let net = NetThreads::start(settings.net_threads(cores()))?;
    let result = control.block_on(async {
        let Surroundings { clock, mut rng, open_disk, open_bucket } = surroundings;
        let entrance = Entrance { listener, rng: rng.fork("accept") };
        let fork = rng.fork("storage");
        let storage = Storage::open(settings, &mut data, clock.clone(), fork, &open_bucket).await?;
        let node = Node::start(settings, &mut data, storage, clock, rng, open_disk, dev).await?;
        let mut stopping = Stopping::new(stop);
        let result =
            run_node(settings, &node, &data, entrance, &net, &mut stopping, on_ready).await;
        let stopped = tokio::select! {
            biased;
            stopped = node.stop() => stopped,
            () = stopping.asked() => Err(ServerError::Interrupted),
        };
        node.close(!matches!(stopped, Err(ServerError::Interrupted)));
        result.and(stopped)
    });
    net.join();
    result
}

/// Where connections come in.
struct Entrance {
    listener: tokio::net::TcpListener,
    rng: Rng,
}

/// Serves `node` until there is a reason to end, then drains what clients have under way.
async fn run_node(
    settings: &Settings,
    node: &Node,
    data: &DataDir,
    entrance: Entrance,
    net: &NetThreads,
    stopping: &mut Stopping,
    on_ready: impl FnOnce(&Ready),
) -> Result<(), ServerError> {
    let Entrance { listener, rng } = entrance;
    let accept_metrics = AcceptMetrics::default();
    let mut registry = Registry::default();
    accept_metrics.register(&mut registry);
    node.register_metrics(&mut registry);
    let watched = Watched { registry: Arc::new(registry), readiness: node.readiness() };
    let router = http::router(node.routes(), watched);
    let ready = Ready {
        address: listener
            .local_addr()
            .map_err(|source| ServerError::Listen { address: settings.server.listen, source })?,
        data: data.path().to_owned(),
        lts: node.storage_url(),
        created: data.created(),
    };
    let limits = settings.limits.clone();
    let age = ConnectionAge { limit: limits.connection_age.0, drain: settings.server.drain.0 };
    let (handles, shares) = (net.handles.clone(), node.shares_of_connections());
    let acceptor = Acceptor::new(listener, limits, age, accept_metrics, handles, shares, rng);
    let connections = acceptor.connections();
    let (accepting, stop_accepting) = (Tasks::new(), CancellationToken::new());
    accepting.spawn("accept", acceptor.run(router, stop_accepting.clone()));
    tracing::info!(address = %ready.address, data = %ready.data.display(), "ready");
    on_ready(&ready);
    let result = tokio::select! {
        biased;
        fatal = node.failed() => Err(fatal),
        () = accepting_failed(&accepting) => Err(ServerError::Fatal {
            message: "the accept loop panicked; this is a defect".to_owned(),
        }),
        () = stopping.asked() => Ok(()),
    };
    tracing::info!("stopping");
    stop_accepting.cancel();
    accepting.stop().await;
    node.begin_drain();
    drain(&connections, settings.server.drain.0, stopping).await;
    result
}

/// Lets requests under way end, but no longer than the limit or the patience of whoever stops.
async fn drain(connections: &Connections, limit: Duration, stopping: &mut Stopping) {
    tokio::select! {
        biased;
        drained = connections.drain(limit) => {
            if !drained {
                tracing::info!("connections that did not end in `server.drain` were cut");
            }
        }
        () = stopping.asked() => {
            tracing::warn!("told to stop again: connections are cut, the state is saved");
            connections.drain(Duration::ZERO).await;
        }
    }
}

/// The accept loop only ends before it is told to when it panics.
async fn accepting_failed(accepting: &Tasks) {
    accepting.token().cancelled().await;
}

/// Connections, log files and RocksDB need more descriptors than the usual soft limit of 1 024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

pub(crate) fn runtime(component: &'static str) -> Result<Runtime, ServerError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        ServerError::Start {
            component,
            message: format!("make its event loop: {error}"),
            data_damaged: false,
        }
    })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The threads that serve connections, each with an event loop of its own, so that a connection's
/// bytes stay on one core.
struct NetThreads {
    handles: Vec<Handle>,
    stop: CancellationToken,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl NetThreads {
    fn start(count: usize) -> Result<Self, ServerError> {
        let mut net =
            Self { handles: Vec::new(), stop: CancellationToken::new(), threads: Vec::new() };
        for number in 0..count {
            let runtime = runtime("net thread")?;
            net.handles.push(runtime.handle().clone());
            let stop = net.stop.clone();
            let run = move || runtime.block_on(stop.cancelled());
            let thread = spawn_thread(&format!("net-{number}"), run).map_err(|error| {
                ServerError::Start {
                    component: "net thread",
                    message: error.to_string(),
                    data_damaged: false,
                }
            })?;
            net.threads.push(thread);
        }
        Ok(net)
    }

    fn join(self) {
        self.stop.cancel();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a net thread panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests;
