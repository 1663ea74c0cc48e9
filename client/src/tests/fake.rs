//! A server in this process that speaks gRPC on loopback and keeps its streams in model stores.

mod controller;
mod store;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use common::Tasks;
use proto::error::{Reason, status};
use proto::v1::controller_server::ControllerServer;
use proto::v1::segment_store_server::SegmentStoreServer;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Response, Status};

use crate::session::tests::model::ModelStore;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) scopes: Vec<String>,
    /// By `scope/stream`.
    pub(super) streams: BTreeMap<String, ModelStore>,
    /// By stream and name: the epoch and the mode.
    writers: BTreeMap<(String, String), (u64, i32)>,
    /// Names are not known although they were: what they stored may be.
    names_were_forgotten: bool,
    /// New names begin above it.
    first_epoch: u64,
    /// So many messages with blocks are refused for lack of room.
    pub(super) refusals: u32,
    /// The next message with blocks is carried out, and the server goes down before its answer.
    pub(super) goes_down_unanswered: bool,
    /// Append connections are refused for it.
    pub(super) refuses_appends: Option<Reason>,
    pub(super) managed: Managed,
    /// Reads break behind so many messages.
    pub(super) read_messages: Option<usize>,
    /// What happens to a stream behind the next page of its segments.
    pub(super) behind_page: Option<fn(&mut ModelStore)>,
}

/// Streams that are made and deleted over the wire, with their ids and the tokens of their makers.
#[derive(Debug, Default)]
pub(super) struct Managed {
    pub(super) streams: BTreeMap<String, (u64, u64)>,
    pub(super) made: u64,
    /// Come instead of the answers to the next requests, which are carried out.
    pub(super) instead: VecDeque<Status>,
}

impl Managed {
    fn answer<T>(&mut self, answer: T) -> Result<Response<T>, Status> {
        self.instead.pop_front().map_or_else(|| Ok(Response::new(answer)), Err)
    }
}

/// How one server is doing; servers of a cluster share everything else.
#[derive(Debug, Default)]
struct Health {
    /// Nothing is answered but that the server is stopping.
    down: bool,
    /// Calls that were not answered for it.
    refused: usize,
    connections: CancellationToken,
}

#[derive(Debug, Clone)]
pub(super) struct Fake {
    pub(super) addr: SocketAddr,
    is_peer: bool,
    state: Arc<Mutex<State>>,
    health: Arc<Mutex<Health>>,
    changed: Arc<Notify>,
    tasks: Tasks,
}

impl Fake {
    pub(super) async fn start() -> Self {
        Self::serve(Arc::default(), Arc::default(), false)
    }

    /// Another server of the same cluster.
    pub(super) fn peer(&self) -> Self {
        Self::serve(self.state.clone(), self.changed.clone(), true)
    }

    fn serve(state: Arc<Mutex<State>>, changed: Arc<Notify>, is_peer: bool) -> Self {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let fake = Self {
            addr: incoming.local_addr().unwrap(),
            is_peer,
            state,
            health: Arc::default(),
            changed,
            tasks: Tasks::new(),
        };
        let serve = Server::builder()
            .add_service(ControllerServer::new(fake.clone()))
            .add_service(SegmentStoreServer::new(fake.clone()))
            .serve_with_incoming(incoming);
        let token = fake.tasks.token();
        fake.tasks.spawn("fake server", async move {
            tokio::select! {
                () = token.cancelled() => {}
                served = serve => served.unwrap(),
            }
        });
        fake
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Makes a stream without asking over the wire.
    pub(super) fn create(&self, name: &str, segments: u32) {
        self.create_at(name, segments, &[""]);
    }

    /// As [`Fake::create`], with the segments spread over servers.
    pub(super) fn create_at(&self, name: &str, segments: u32, endpoints: &[&str]) {
        let store = ModelStore::new(segments, endpoints);
        self.state().streams.insert(name.to_owned(), store);
    }

    /// Changes a stream.
    pub(super) fn with<T>(&self, name: &str, change: impl FnOnce(&mut ModelStore) -> T) -> T {
        let result = change(self.state().streams.get_mut(name).unwrap());
        self.changed.notify_waiters();
        result
    }

    /// The controller is brought back without its names; epochs go on above.
    pub(super) fn forget_names(&self) {
        let mut state = self.state();
        state.names_were_forgotten = true;
        state.first_epoch += 1_000;
        state.writers.clear();
    }

    /// Ends all data connections, with whatever is on its way.
    pub(super) fn break_connections(&self) {
        let old = std::mem::take(&mut self.health.lock().unwrap().connections);
        old.cancel();
    }

    pub(super) fn set_down(&self, down: bool) {
        self.health.lock().unwrap().down = down;
        self.break_connections();
    }

    /// Waits until so many calls were not answered since the server was down.
    pub(super) async fn refused(&self, calls: usize) {
        loop {
            let changed = self.changed.notified();
            if self.health.lock().unwrap().refused >= calls {
                return;
            }
            changed.await;
        }
    }

    /// As places name it: the server that clients connect to is the one without a name.
    fn endpoint(&self) -> String {
        if self.is_peer { self.addr.to_string() } else { String::new() }
    }

    fn check_up(&self) -> Result<CancellationToken, Status> {
        let mut health = self.health.lock().unwrap();
        if health.down {
            health.refused += 1;
            self.changed.notify_waiters();
            return Err(status(Reason::Unavailable, "the server is stopping"));
        }
        Ok(health.connections.clone())
    }
}
