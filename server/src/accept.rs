//! The accept layer: what stands between the network and the services.
//!
//! Owner of every connection of the public listener. It guarantees that a connection which says
//! nothing, or only half of what it should, is closed after a deadline; that neither one address
//! nor all together hold more connections than they may; that each protocol has explicit limits
//! ([`connection`]); and that a stop lets requests under way end before connections are cut.
//!
//! A finished connection is handed to hyper as a stream, so that gRPC and plain HTTP share one
//! port. Connections are spread over the net threads and stay on theirs.

mod caps;
mod connection;
mod opening;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
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
use tokio_util::sync::CancellationToken;

use crate::error::ServerError;
use crate::settings::Limits;
use caps::{Caps, Permit, Refusal};

/// How long the listener rests when the process has no file descriptors left.
const ACCEPT_ERROR_REST: Duration = Duration::from_millis(50);

/// The public listener with its connections.
pub(crate) struct Acceptor {
    listener: TcpListener,
    caps: Caps,
    limits: Limits,
    metrics: AcceptMetrics,
    net: Vec<Handle>,
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
        rng: Rng,
    ) -> Self {
        assert!(!net.is_empty(), "connections need a thread to run on");
        let caps = Caps::new(limits.connections, limits.connections_per_address);
        let (tasks, cut) = (Tasks::new(), CancellationToken::new());
        Self { listener, caps, limits, metrics, net, tasks, cut, age, rng: Mutex::new(rng) }
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
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => return tracing::debug!(%peer, %error, "connection ended early"),
        };
        self.metrics.accepted.inc();
        let counted = Counted::new(permit, &self.metrics);
        let (limits, cut) = (self.limits.clone(), self.cut.clone());
        let (service, tasks) = (service.clone(), self.tasks.child());
        let metrics = self.metrics.clone();
        let age = self.age.draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner));
        let drain = self.age.drain;
        self.tasks.spawn_on(&self.net[thread], "connection", async move {
            let _counted = counted;
            tokio::select! {
                biased;
                () = cut.cancelled() => {}
                () = aged(age, drain, &tasks, &metrics) => {}
                ended = serve(stream, &limits, service, tasks.clone()) => match ended {
                    Ok(()) => {}
                    Err(Ended::Silent) => metrics.refuse("silent"),
                    Err(Ended::Broken(error)) => tracing::debug!(%peer, error, "connection ended"),
                },
            }
        });
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

/// One connection from its first byte to its end.
async fn serve(
    stream: std::net::TcpStream,
    limits: &Limits,
    service: axum::Router,
    tasks: Tasks,
) -> Result<(), Ended> {
    let broken = |error: std::io::Error| Ended::Broken(error.to_string());
    let stream = TcpStream::from_std(stream).map_err(broken)?;
    // Acknowledgements are small and must not wait for more.
    stream.set_nodelay(true).map_err(broken)?;
    let opened = tokio::select! {
        biased;
        // Nothing was asked yet, so that nothing needs to be waited for at a stop.
        () = tasks.token().cancelled_owned() => return Ok(()),
        opened = tokio::time::timeout(limits.first_bytes.0, opening::read(stream)) => opened,
    };
    match opened {
        Err(_) => Err(Ended::Silent),
        Ok(Err(error)) => Err(broken(error)),
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(opened))) => {
            connection::serve(opened, limits, service, tasks).await.map_err(Ended::Broken)
        }
    }
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
