//! The accept layer: what stands between the network and the services.
//!
//! Owner of every connection of the public listener. It guarantees that a connection which says
//! nothing, or only half of what it should, is closed after a deadline; that neither one address
//! nor all together hold more connections than they may; that each protocol has explicit limits
//! ([`connection`]); that all of them together make the server hold no more than their share of the
//! memory ([`shares`]); and that a stop lets requests under way end before connections are cut.
//!
//! A finished connection is handed to hyper as a stream, so that gRPC and plain HTTP share one
//! port. Connections of gRPC are spread over the net threads and stay on theirs, taking turns; those
//! of HTTP/1 are served by the thread that accepts.

mod bodies;
mod caps;
mod connection;
mod opening;
mod requests;
mod shares;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::Rng;
use common::tasks::Tasks;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::error::ServerError;
use crate::settings::Limits;
use caps::{Caps, Permit, Refusal};
use opening::{Left, Opened, Protocol, Rewound};
use shares::Share;
pub(crate) use shares::Shares;

/// How long the listener rests when the process has no file descriptors left.
const ACCEPT_ERROR_REST: Duration = Duration::from_millis(50);

/// Connections of HTTP/1 at a time: people, probes and monitoring, each of which may leave a whole
/// page of metrics untaken.
const HTTP1_CONNECTIONS_MAX: usize = 128;

/// The public listener with its connections.
pub(crate) struct Acceptor {
    listener: TcpListener,
    caps: Caps,
    limits: Limits,
    metrics: AcceptMetrics,
    net: Vec<Handle>,
    shares: Shares,
    /// HTTP/1 connections that may come.
    http1: Arc<Semaphore>,
    tasks: Tasks,
    cut: CancellationToken,
    age: ConnectionAge,
    rng: Mutex<Rng>,
}

/// How old connections become, so that clients find their way to where they should be connected,
/// and nothing that a connection holds is held for ever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionAge {
    /// Give or take a tenth, so that what was connected together does not come back together.
    /// Zero: for ever.
    pub(crate) limit: Duration,
    /// What requests under way get to end after that. Appends and reads that follow are cut by
    /// then: their clients connect again and lose nothing.
    pub(crate) drain: Duration,
}

impl ConnectionAge {
    fn draw(&self, rng: &mut Rng) -> Option<Duration> {
        let micros = self.limit.as_micros() as u64;
        let spread = micros / 10;
        (micros > 0).then(|| Duration::from_micros(rng.between(micros - spread, micros + spread)))
    }
}

/// What the accept layer counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct AcceptMetrics {
    open: Gauge,
    aged: Counter,
    accepted: Counter,
    refused: Family<RefusedLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    reason: &'static str,
}

impl AcceptMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("braid_connections", "Open connections", self.open.clone());
        registry.register(
            "braid_connections_accepted",
            "Connections accepted since the start",
            self.accepted.clone(),
        );
        registry.register(
            "braid_connections_aged",
            "Connections ended because of their age",
            self.aged.clone(),
        );
        registry.register(
            "braid_connections_refused",
            "Connections closed by the accept layer",
            self.refused.clone(),
        );
    }

    fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&RefusedLabels { reason }).inc();
    }
}

/// Binds the listener; what is wrong with the address is said in the error.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => ServerError::PortInUse { address },
        _ => ServerError::Listen { address, source },
    })
}

impl Acceptor {
    /// `net`: the event loops that connections are spread over.
    pub(crate) fn new(
        listener: TcpListener,
        limits: Limits,
        age: ConnectionAge,
        metrics: AcceptMetrics,
        net: Vec<Handle>,
        shares: Shares,
        rng: Rng,
    ) -> Self {
        assert!(!net.is_empty(), "connections need a thread to run on");
        let caps = Caps::new(limits.connections, limits.connections_per_address);
        let (tasks, cut) = (Tasks::new(), CancellationToken::new());
        let (http1, rng) = (Arc::new(Semaphore::new(HTTP1_CONNECTIONS_MAX)), Mutex::new(rng));
        Self { listener, caps, limits, metrics, net, shares, http1, tasks, cut, age, rng }
    }

    /// What ends the connections once `run` has returned.
    pub(crate) fn connections(&self) -> Connections {
        Connections { tasks: self.tasks.clone(), cut: self.cut.clone() }
    }

    /// Accepts until `stop` is cancelled; the listener is closed on return, connections go on.
    pub(crate) async fn run(self, service: axum::Router, stop: CancellationToken) {
        for thread in (0..self.net.len()).cycle() {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer, thread, &service),
                Err(error) => {
                    // A connection that ended early, or no descriptors left: never a reason to
                    // stop accepting for good.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_ERROR_REST).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr, thread: usize, service: &axum::Router) {
        let permit = match self.caps.take(peer.ip()) {
            Ok(permit) => permit,
            Err(refusal) => {
                self.metrics.refuse(match refusal {
                    Refusal::Total => "limit_total",
                    Refusal::Address => "limit_address",
                });
                tracing::debug!(%peer, ?refusal, "connection refused");
                return;
            }
        };
        self.metrics.accepted.inc();
        let connection = Connection {
            peer,
            counted: Counted::new(permit, &self.metrics),
            limits: self.limits.clone(),
            service: service.clone(),
            tasks: self.tasks.child(),
            metrics: self.metrics.clone(),
            age: self.age.draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner)),
            drain: self.age.drain,
            cut: self.cut.clone(),
        };
        let entrance = Entrance {
            shares: self.shares.clone(),
            http1: self.http1.clone(),
            net: self.net[thread].clone(),
            tasks: self.tasks.clone(),
        };
        self.tasks.spawn("connection", entrance.open(connection, stream));
    }
}

/// Where a connection is taken once it has said what it speaks.
struct Entrance {
    shares: Shares,
    http1: Arc<Semaphore>,
    net: Handle,
    tasks: Tasks,
}

impl Entrance {
    /// HTTP/1, which is health, metrics and people, stays on the thread that accepts, however busy
    /// those are that move events; HTTP/2 goes to one of these.
    async fn open(self, connection: Connection, stream: TcpStream) {
        let cut = connection.cut.clone();
        let opened = tokio::select! {
            biased;
            () = cut.cancelled() => return,
            opened = open(stream, &connection.limits, &connection.tasks) => opened,
        };
        let opened = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return,
            Err(ended) => return connection.ended(Err(ended)),
        };
        match opened.protocol {
            Protocol::Http1 => {
                let Ok(_held) = self.http1.try_acquire_owned() else {
                    return connection.refuse("limit_http1");
                };
                connection.serve(|of| serve_http1(opened.stream, of)).await;
            }
            Protocol::Http2 => {
                let Some(share) = self.shares.take() else {
                    return connection.refuse("limit_memory");
                };
                let left = match opened.stream.leave() {
                    Ok(left) => left,
                    Err(error) => return connection.ended(Err(broken(error))),
                };
                let shares = self.shares;
                self.tasks.spawn_on(&self.net, "connection", async move {
                    connection.serve(|of| serve_http2(left, (shares, share), of)).await;
                });
            }
        }
    }
}

/// A connection with what it needs.
struct Connection {
    peer: SocketAddr,
    counted: Counted,
    limits: Limits,
    service: axum::Router,
    tasks: Tasks,
    metrics: AcceptMetrics,
    age: Option<Duration>,
    drain: Duration,
    cut: CancellationToken,
}

/// What the requests of a connection are served with.
struct Serving {
    limits: Limits,
    service: axum::Router,
    tasks: Tasks,
}

impl Connection {
    /// From its first request to its end.
    async fn serve<F>(self, serve: impl FnOnce(Serving) -> F)
    where
        F: Future<Output = Result<(), Ended>>,
    {
        let (limits, service, tasks) =
            (self.limits.clone(), self.service.clone(), self.tasks.clone());
        tokio::select! {
            biased;
            () = self.cut.cancelled() => {}
            () = aged(self.age, self.drain, &self.tasks, &self.metrics) => {}
            ended = serve(Serving { limits, service, tasks }) => self.ended(ended),
        }
    }

    fn ended(&self, ended: Result<(), Ended>) {
        let peer = self.peer;
        match ended {
            Ok(()) => {}
            Err(Ended::Silent) => self.metrics.refuse("silent"),
            Err(Ended::Broken(error)) => tracing::debug!(%peer, error, "connection ended"),
        }
    }

    fn refuse(&self, reason: &'static str) {
        self.metrics.refuse(reason);
        let (peer, open) = (self.peer, self.counted.open.get());
        tracing::debug!(%peer, reason, open, "connection refused");
    }
}

/// Returns when a connection is to be cut because of its age. Before that it is asked to end, as
/// for a stop: by a GOAWAY on HTTP/2, else after the answer under way.
async fn aged(age: Option<Duration>, drain: Duration, tasks: &Tasks, metrics: &AcceptMetrics) {
    let Some(age) = age else { return std::future::pending().await };
    tokio::time::sleep(age).await;
    metrics.aged.inc();
    tasks.cancel();
    tokio::time::sleep(drain).await;
}

/// Why a connection ended other than by agreement.
#[derive(Debug)]
enum Ended {
    /// It did not say in time what it speaks.
    Silent,
    Broken(String),
}

/// The first bytes of a connection.
async fn open(stream: TcpStream, limits: &Limits, tasks: &Tasks) -> Result<Option<Opened>, Ended> {
    // Acknowledgements are small and must not wait for more.
    stream.set_nodelay(true).map_err(broken)?;
    let opened = tokio::select! {
        biased;
        // Nothing was asked yet, so that nothing needs to be waited for at a stop.
        () = tasks.token().cancelled_owned() => return Ok(None),
        opened = tokio::time::timeout(limits.first_bytes.0, opening::read(stream)) => opened,
    };
    match opened {
        Err(_) => Err(Ended::Silent),
        Ok(opened) => opened.map_err(broken),
    }
}

async fn serve_http1(stream: Rewound, with: Serving) -> Result<(), Ended> {
    let Serving { limits, service, tasks } = with;
    connection::serve_http1(stream, &limits, service, tasks).await.map_err(Ended::Broken)
}

async fn serve_http2(
    stream: Left,
    (shares, share): (Shares, Share),
    with: Serving,
) -> Result<(), Ended> {
    let Serving { limits, service, tasks } = with;
    let stream = stream.enter().map_err(broken)?;
    let served = connection::serve_http2(stream, &limits, (&shares, &share), service, tasks);
    served.await.map_err(Ended::Broken)
}

fn broken(error: std::io::Error) -> Ended {
    Ended::Broken(error.to_string())
}

/// The connections that an [`Acceptor`] left open.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    tasks: Tasks,
    cut: CancellationToken,
}

impl Connections {
    /// Asks every connection to end after the requests under way; cuts those that have not by
    /// the deadline. Returns whether all ended by themselves.
    pub(crate) async fn drain(&self, deadline: Duration) -> bool {
        if tokio::time::timeout(deadline, self.tasks.stop()).await.is_ok() {
            return true;
        }
        self.cut.cancel();
        self.tasks.stop().await;
        false
    }
}

/// Keeps a connection's permit and its place in the gauge.
struct Counted {
    _permit: Permit,
    open: Gauge,
}

impl Counted {
    fn new(permit: Permit, metrics: &AcceptMetrics) -> Self {
        metrics.open.inc();
        Self { _permit: permit, open: metrics.open.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.dec();
    }
}
