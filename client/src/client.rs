//! The entry point: a handle to a cluster.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::limits::JOB_ANSWER_INTERVAL;
use common::{Clock, MonotonicTime, Rng, ScopedStream, SystemClock, Tasks};
use proto::error::Reason;
use proto::v1;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::append_link::AppendLink;
use crate::backoff::Backoff;
use crate::config::ClientConfig;
use crate::connection::Connections;
use crate::error::{ClientError, Result};
use crate::raw::{SegmentReader, SegmentWriter};
use crate::reader::EventReaderStart;
use crate::streams::{SegmentPlace, StreamManager};
use crate::writer::EventWriterBuilder;

/// What a server says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// The version of the server's build.
    pub version: String,
    /// Random, given when the cluster was made.
    pub cluster: String,
    /// How many times the cluster has been through a disaster recovery, starting at 1.
    pub incarnation: u32,
    /// The oldest and the newest protocol that the server speaks.
    pub protocol: std::ops::RangeInclusive<u32>,
    /// Bytes of the write-ahead log in use.
    pub log_used_bytes: u64,
    /// Bytes that the write-ahead log may use.
    pub log_budget_bytes: u64,
    /// Whether it was started by `braid dev`.
    pub dev: bool,
}

/// A handle to a cluster. Clones share connections; the last one dropped ends them.
///
/// Connections and tasks run on the tokio runtime that the client was connected on, whichever
/// runtime its methods are called from. When that runtime ends, the client is closed: what waits
/// for it fails with [`ClientError::Closed`].
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: ClientConfig,
    pub(crate) connections: Connections,
    pub(crate) tasks: Tasks,
    runtime: Handle,
    rng: Mutex<Rng>,
    started: tokio::time::Instant,
    clock: Arc<dyn Clock>,
    append_links: Mutex<BTreeMap<String, Arc<AppendLink>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// Closes the client when the runtime that its tasks run on drops them.
struct ClosesWithRuntime(Tasks);

impl Drop for ClosesWithRuntime {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Client {
    /// Connects and checks that client and server speak a common protocol. Goes on trying for
    /// [`ClientConfig::connect_deadline`] when nobody answers; later interruptions are ridden out.
    pub async fn connect(config: ClientConfig) -> Result<Client> {
        Self::connect_with(config, Rng::from_entropy()).await
    }

    /// As [`Client::connect`], with chance (writer ids, jitter) drawn from `rng`.
    pub async fn connect_with(config: ClientConfig, rng: Rng) -> Result<Client> {
        Self::connect_by(config, rng, SystemClock::shared()).await
    }

    /// As [`Client::connect_with`], by another clock.
    pub(crate) async fn connect_by(
        config: ClientConfig,
        rng: Rng,
        clock: Arc<dyn Clock>,
    ) -> Result<Client> {
        let client = Self::unconnected(config, rng, clock);
        let (token, end) = (client.inner.token(), ClosesWithRuntime(client.inner.tasks.clone()));
        client.inner.spawn("life of the runtime", async move {
            token.cancelled().await;
            drop(end);
        });
        let deadline = Some(client.inner.config.connect_deadline);
        let info = client.inner.patiently_for(deadline, || client.inner.server_info()).await?;
        if *info.protocol.start() > proto::PROTOCOL_MAX
            || *info.protocol.end() < proto::PROTOCOL_MIN
        {
            return Err(ClientError::invalid(format!(
                "server {} speaks protocols {:?}, this client {} to {}: use versions that are at \
                 most one apart",
                info.version,
                info.protocol,
                proto::PROTOCOL_MIN,
                proto::PROTOCOL_MAX
            )));
        }
        Ok(client)
    }

    /// A client that has asked nothing yet.
    pub(crate) fn unconnected(config: ClientConfig, rng: Rng, clock: Arc<dyn Clock>) -> Client {
        let runtime = Handle::current();
        let connections = Connections::new(config.connect_timeout, runtime.clone());
        let inner = Inner {
            config,
            connections,
            tasks: Tasks::new(),
            runtime,
            rng: Mutex::new(rng),
            started: tokio::time::Instant::now(),
            clock,
            append_links: Mutex::default(),
        };
        Client { inner: Arc::new(inner) }
    }

    /// What the server says about itself.
    pub async fn server_info(&self) -> Result<ServerInfo> {
        self.inner.server_info().await
    }

    /// Manages scopes and streams.
    pub fn streams(&self) -> StreamManager {
        StreamManager::new(self.inner.clone())
    }

    /// A writer of events; see [`EventWriterBuilder`] for what can be chosen.
    pub fn event_writer(&self, stream: &ScopedStream) -> EventWriterBuilder {
        EventWriterBuilder::new(self.clone(), stream.clone())
    }

    /// A reader of events; where it begins is to be said first.
    pub fn event_reader(&self, stream: &ScopedStream) -> EventReaderStart {
        EventReaderStart::new(self.clone(), stream.clone())
    }

    /// A writer of raw bytes to one segment.
    pub fn segment_writer(&self, place: &SegmentPlace) -> SegmentWriter {
        SegmentWriter::new(self.clone(), place.clone())
    }

    /// A reader of raw bytes of one segment, from `offset` on.
    pub fn segment_reader(&self, place: &SegmentPlace, offset: common::Offset) -> SegmentReader {
        SegmentReader::new(self.clone(), place.clone(), offset)
    }

    /// Ends the client's connections and waits for its tasks. Writers and readers that are still
    /// open fail.
    pub async fn close(self) {
        self.inner.tasks.stop().await;
    }
}

impl Inner {
    /// A generator of its own for the component `name`.
    pub(crate) fn fork_rng(&self, name: &str) -> Rng {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fork(name)
    }

    /// Runs a task of the client, on its runtime whoever calls; a panic in it closes the client.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tasks.spawn_on(&self.runtime, name, task);
    }

    /// Cancelled when the client is closed.
    pub(crate) fn token(&self) -> CancellationToken {
        self.tasks.token()
    }

    pub(crate) fn backoff(&self, name: &str) -> Backoff {
        Backoff::new(self.config.backoff_min, self.config.backoff_max, self.fork_rng(name))
    }

    /// Time since the client was made.
    pub(crate) fn now(&self) -> MonotonicTime {
        MonotonicTime(self.started.elapsed().as_micros() as u64)
    }

    /// Time that goes on while the machine sleeps, as that of the stores does meanwhile.
    pub(crate) fn boot_time(&self) -> MonotonicTime {
        self.clock.boot()
    }

    /// The moment on the runtime's clock.
    pub(crate) fn instant(&self, time: MonotonicTime) -> tokio::time::Instant {
        self.started + Duration::from_micros(time.0)
    }

    /// The append connection to an endpoint (empty: the configured one), shared by all writers.
    pub(crate) fn append_link(self: &Arc<Self>, endpoint: &str) -> Arc<AppendLink> {
        let endpoint = if endpoint.is_empty() { &self.config.endpoint } else { endpoint };
        let mut links = self.append_links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(endpoint) {
            return link.clone();
        }
        let link = AppendLink::new(endpoint.to_owned());
        links.insert(endpoint.to_owned(), link.clone());
        self.spawn("append link", link.clone().run(Arc::downgrade(self)));
        link
    }

    /// The endpoint for `place`, which may leave it to the one the client is configured with.
    pub(crate) fn endpoint_of<'a>(&'a self, place: &'a SegmentPlace) -> &'a str {
        if place.endpoint.is_empty() { &self.config.endpoint } else { &place.endpoint }
    }

    async fn server_info(&self) -> Result<ServerInfo> {
        let mut controller = self.connections.controller(&self.config.endpoint)?;
        let call = controller.get_server_info(v1::GetServerInfoRequest {});
        let info = self.once(&self.config.endpoint, self.config.connect_timeout, call).await?;
        Ok(ServerInfo {
            version: info.version,
            cluster: info.cluster,
            incarnation: info.incarnation,
            protocol: info.protocol_min..=info.protocol_max,
            log_used_bytes: info.log_used_bytes,
            log_budget_bytes: info.log_budget_bytes,
            dev: info.dev,
        })
    }

    /// How the server is doing.
    pub(crate) async fn server_status(&self) -> Result<v1::GetStatusResponse> {
        let mut controller = self.connections.controller(&self.config.endpoint)?;
        let call = controller.get_status(v1::GetStatusRequest {});
        self.once(&self.config.endpoint, self.config.connect_timeout, call).await
    }

    /// Lets the server look after its long-term storage.
    pub(crate) async fn look_after_storage(&self) -> Result<v1::LookAfterStorageResponse> {
        let mut controller = self.connections.controller(&self.config.endpoint)?;
        let call = controller.look_after_storage(v1::LookAfterStorageRequest {});
        self.once(&self.config.endpoint, self.config.connect_timeout, call).await
    }

    /// One attempt, bounded in time.
    async fn once<T>(
        &self,
        endpoint: &str,
        timeout: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        let token = self.token();
        let call = token.run_until_cancelled(tokio::time::timeout(timeout, call));
        match call.await.ok_or(ClientError::Closed { what: "client" })? {
            Ok(answer) => answer
                .map(Response::into_inner)
                .map_err(|status| ClientError::from_status(&status, endpoint)),
            Err(_) => Err(ClientError::Unreachable {
                endpoint: endpoint.to_owned(),
                problem: format!("no answer within {timeout:?}"),
            }),
        }
    }

    /// Calls the controller until it answers otherwise than "busy" or not at all, within
    /// the request timeout. `call` is made anew for each attempt: it must be safe to repeat.
    pub(crate) async fn controller<T, F>(
        &self,
        mut call: impl FnMut(v1::controller_client::ControllerClient<Channel>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let endpoint = &self.config.endpoint;
        self.repeat(endpoint, || Ok(call(self.connections.controller(endpoint)?))).await
    }

    /// As [`Inner::controller`], with one attempt.
    pub(crate) async fn controller_once<T, F>(
        &self,
        call: impl FnOnce(v1::controller_client::ControllerClient<Channel>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let endpoint = &self.config.endpoint;
        let call = call(self.connections.controller(endpoint)?);
        self.once(endpoint, self.config.connect_timeout, call).await
    }

    /// As [`Inner::controller`], for a store's unary calls.
    pub(crate) async fn store<T, F>(
        &self,
        endpoint: &str,
        mut call: impl FnMut(v1::segment_store_client::SegmentStoreClient<Channel>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.repeat(endpoint, || Ok(call(self.connections.store(endpoint)?))).await
    }

    /// As [`Inner::controller`], for what the server may work on for long: it answers every few
    /// seconds how far it is, and is waited for as long as it gets on. Tells, too, whether the answer
    /// to an earlier attempt is missing, which may have been carried out.
    pub(crate) async fn controller_job<T, F>(
        &self,
        mut call: impl FnMut(v1::controller_client::ControllerClient<Channel>) -> F,
    ) -> (Result<T>, bool)
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let endpoint = &self.config.endpoint;
        let answers_within = 2 * JOB_ANSWER_INTERVAL;
        self.try_often(endpoint, answers_within, || {
            Ok(call(self.connections.controller(endpoint)?))
        })
        .await
    }

    async fn repeat<T, F>(&self, endpoint: &str, make: impl FnMut() -> Result<F>) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.try_often(endpoint, Duration::ZERO, make).await.0
    }

    /// Attempts, each of them at least `answers_within` long, until one is answered for good, or
    /// nothing moved for the request timeout. `true`: an attempt's answer is missing.
    async fn try_often<T, F>(
        &self,
        endpoint: &str,
        answers_within: Duration,
        mut make: impl FnMut() -> Result<F>,
    ) -> (Result<T>, bool)
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (mut moved, mut work) = (tokio::time::Instant::now(), None);
        let mut backoff = self.backoff("call");
        let mut lost = false;
        loop {
            let left = self.config.request_timeout.saturating_sub(moved.elapsed());
            let attempt = match make() {
                Ok(call) => self.once(endpoint, left.max(answers_within), call).await,
                Err(error) => Err(error),
            };
            let error = match attempt {
                Ok(answer) => return (Ok(answer), lost),
                Err(error) => error,
            };
            let mut pause = backoff.pause();
            if let ClientError::Refused(refusal) = &error {
                pause = refusal.retry_after.unwrap_or(pause);
                if refusal.work.is_some() && refusal.work != work {
                    (moved, work) = (tokio::time::Instant::now(), refusal.work.clone());
                }
            }
            if !error.is_transient() || moved.elapsed() + pause >= self.config.request_timeout {
                return (Err(error), lost);
            }
            // Others say that nothing was done.
            lost |= matches!(error, ClientError::Unreachable { .. })
                || error.reason() == Some(Reason::Unavailable);
            tokio::time::sleep(pause).await;
        }
    }
}
