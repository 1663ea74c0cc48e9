//! A server in this process that speaks gRPC on loopback and keeps its streams in model stores.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use common::{SegmentId, Tasks, WallTime};
use futures::stream::{self, BoxStream, StreamExt};
use proto::convert::SegmentPlace;
use proto::error::{Reason, status, status_with};
use proto::v1;
use proto::v1::append_request::Message;
use proto::v1::controller_server::{Controller, ControllerServer};
use proto::v1::segment_store_server::{SegmentStore, SegmentStoreServer};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::session::tests::model::{ModelConnection, ModelStore, failure};

/// Bytes of one read message: small, so that events lie across messages.
const READ_BYTES: usize = 1_000;

/// Items of a page: small, so that listings have several.
const PAGE_ITEMS: usize = 2;

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

    fn read_step(&self, request: &v1::ReadRequest) -> Result<Option<v1::ReadResponse>, Status> {
        let id: SegmentId = request.segment.unwrap().into();
        let state = self.state();
        let segment = state.streams.values().find_map(|store| store.segments.get(&id));
        let segment = segment.ok_or_else(|| status(Reason::SegmentNotFound, "no such segment"))?;
        let endpoint = &segment.place.endpoint;
        if !endpoint.is_empty() && *endpoint != self.addr.to_string() {
            return Err(status(Reason::NotLeader, "another store leads the container"));
        }
        if segment.truncated {
            return Err(status(Reason::SegmentNotFound, "no such segment (any more)"));
        }
        let length = segment.bytes.len() as u64;
        if request.offset < segment.start {
            let facts = [("start_offset", segment.start.to_string())];
            return Err(status_with(Reason::Truncated, "truncated", facts, None));
        }
        let end = request.end_offset.unwrap_or(length).min(length);
        let from = request.offset.min(end) as usize;
        let to = (from + READ_BYTES).min(end as usize);
        let end_of_segment = segment.successors.is_some() && to as u64 == length;
        if from == to && !end_of_segment {
            return Ok(None);
        }
        let data = Bytes::copy_from_slice(&segment.bytes[from..to]);
        let answer = v1::ReadResponse {
            offset: from as u64,
            data,
            length,
            end_of_segment,
            ..Default::default()
        };
        Ok(Some(answer))
    }
}

#[tonic::async_trait]
impl SegmentStore for Fake {
    type AppendStream = BoxStream<'static, Result<v1::AppendResponse, Status>>;
    type ReadStream = BoxStream<'static, Result<v1::ReadResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let broken = self.check_up()?;
        let mut requests = request.into_inner();
        let (answers, queue) = mpsc::channel(100);
        let fake = self.clone();
        self.tasks.spawn("fake append", async move {
            let mut connection = ModelConnection::default();
            while let Ok(Some(request)) = requests.message().await {
                let answer = fake.handle(&mut connection, request);
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        let answers =
            stream::unfold(queue, |mut queue| async { Some((queue.recv().await?, queue)) });
        Ok(Response::new(until_broken(answers, broken)))
    }

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let broken = self.check_up()?;
        let messages = self.state().read_messages;
        let steps =
            stream::unfold((self.clone(), request.into_inner(), false), |state| async move {
                let (fake, mut request, ended) = state;
                let reached = |r: &v1::ReadRequest| r.end_offset.is_some_and(|e| r.offset >= e);
                if ended || reached(&request) {
                    return None;
                }
                loop {
                    let changed = fake.changed.notified();
                    match fake.read_step(&request) {
                        Ok(Some(answer)) => {
                            request.offset += answer.data.len() as u64;
                            let ended = answer.end_of_segment;
                            return Some((Ok(answer), (fake.clone(), request, ended)));
                        }
                        Ok(None) if !request.follow => return None,
                        Ok(None) => changed.await,
                        Err(error) => return Some((Err(error), (fake.clone(), request, true))),
                    }
                }
            });
        let Some(messages) = messages else {
            return Ok(Response::new(until_broken(steps, broken)));
        };
        let end = stream::iter([Err(Status::unavailable("the connection was broken"))]);
        Ok(Response::new(until_broken(steps.take(messages).chain(end), broken)))
    }

    async fn get_segment_info(
        &self,
        request: Request<v1::GetSegmentInfoRequest>,
    ) -> Result<Response<v1::GetSegmentInfoResponse>, Status> {
        let state = self.state();
        let info = |at: v1::SegmentAt| {
            let id: SegmentId = at.segment.unwrap().into();
            let segment = state.streams.values().find_map(|store| store.segments.get(&id));
            v1::SegmentInfo {
                segment: at.segment,
                found: segment.is_some_and(|segment| !segment.truncated),
                start_offset: segment.map_or(0, |segment| segment.start),
                length: segment.map_or(0, |segment| segment.bytes.len() as u64),
                sealed: segment.is_some_and(|segment| segment.successors.is_some()),
                newest_micros: segment.map_or(0, |segment| segment.newest.0),
                ..v1::SegmentInfo::default()
            }
        };
        let segments = request.into_inner().segments.into_iter().map(info).collect();
        Ok(Response::new(v1::GetSegmentInfoResponse { segments }))
    }

    /// The model has one time per segment: everything is older, or nothing.
    async fn get_writer_states(
        &self,
        _: Request<v1::GetWriterStatesRequest>,
    ) -> Result<Response<v1::GetWriterStatesResponse>, Status> {
        Err(Status::unimplemented("the fake is not asked for writers"))
    }

    async fn find_offset(
        &self,
        request: Request<v1::FindOffsetRequest>,
    ) -> Result<Response<v1::FindOffsetResponse>, Status> {
        let request = request.into_inner();
        let id: SegmentId = request.at.unwrap().segment.unwrap().into();
        let state = self.state();
        let segment = state.streams.values().find_map(|store| store.segments.get(&id)).unwrap();
        let older = segment.newest < WallTime(request.time_micros);
        let offset = if older { segment.bytes.len() as u64 } else { segment.start };
        Ok(Response::new(v1::FindOffsetResponse { offset }))
    }
}

impl Fake {
    fn handle(
        &self,
        connection: &mut ModelConnection,
        request: v1::AppendRequest,
    ) -> v1::AppendResponse {
        let mut state = self.state();
        if let Some(Message::Blocks(blocks)) = &request.message
            && state.refusals > 0
        {
            state.refusals -= 1;
            let refuse = |b: &v1::AppendBlock| failure(b.slot, Reason::ResourceExhausted, None);
            let failures = blocks.blocks.iter().map(refuse).collect();
            return v1::AppendResponse { failures, ..v1::AppendResponse::default() };
        }
        // Slots name segments, whose ids are unique; the stream that holds them answers.
        let target = match &request.message {
            Some(Message::Open(open)) => open.segments[0].segment.map(SegmentId::from),
            Some(Message::Blocks(blocks)) => connection.segment_of(blocks.blocks[0].slot),
            Some(Message::Close(close)) => connection.segment_of(close.slots[0]),
            _ => None,
        };
        let holds = |store: &&mut ModelStore| match &target {
            Some(id) => store.segments.contains_key(id),
            None => true,
        };
        let store = state.streams.values_mut().find(holds).expect("the stream exists");
        let address = self.addr.to_string();
        let is_named = store.segments.values().any(|segment| segment.place.endpoint == address);
        let at = if is_named { address } else { self.endpoint() };
        let answer = store.handle(connection, request, Some(&at));
        drop(state);
        self.changed.notify_waiters();
        answer
    }

    fn stream_of<'a>(
        state: &'a State,
        name: Option<&v1::StreamName>,
    ) -> Result<&'a ModelStore, Status> {
        let name = full_name(name);
        let missing = || status(Reason::StreamNotFound, format!("stream `{name}` does not exist"));
        state.streams.get(&name).ok_or_else(missing)
    }
}

fn full_name(name: Option<&v1::StreamName>) -> String {
    name.map(|name| format!("{}/{}", name.scope, name.stream)).unwrap()
}

fn until_broken<T: Send + 'static>(
    answers: impl futures::Stream<Item = Result<T, Status>> + Send + 'static,
    broken: CancellationToken,
) -> BoxStream<'static, Result<T, Status>> {
    let end = stream::once(async { Err(Status::unavailable("the connection was broken")) });
    answers
        .take_until(broken.clone().cancelled_owned())
        .chain(end.filter(move |_| std::future::ready(broken.is_cancelled())))
        .boxed()
}

fn page(token: &str, total: usize) -> (std::ops::Range<usize>, String) {
    let from = token.parse().unwrap_or(0);
    let to = (from + PAGE_ITEMS).min(total);
    (from..to, if to < total { to.to_string() } else { String::new() })
}

#[tonic::async_trait]
impl Controller for Fake {
    async fn get_server_info(
        &self,
        _: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        self.check_up()?;
        Ok(Response::new(v1::GetServerInfoResponse {
            version: "fake".to_owned(),
            protocol_min: 1,
            protocol_max: 1,
            ..v1::GetServerInfoResponse::default()
        }))
    }

    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Err(Status::unimplemented("the fake is always well"))
    }

    async fn look_after_storage(
        &self,
        _: Request<v1::LookAfterStorageRequest>,
    ) -> Result<Response<v1::LookAfterStorageResponse>, Status> {
        Err(Status::unimplemented("the fake has no objects"))
    }

    async fn create_scope(
        &self,
        request: Request<v1::CreateScopeRequest>,
    ) -> Result<Response<v1::CreateScopeResponse>, Status> {
        let scope = request.into_inner().scope;
        let mut state = self.state();
        let created = !state.scopes.contains(&scope);
        if created {
            state.scopes.push(scope);
        }
        Ok(Response::new(v1::CreateScopeResponse { created }))
    }

    async fn list_scopes(
        &self,
        request: Request<v1::ListScopesRequest>,
    ) -> Result<Response<v1::ListScopesResponse>, Status> {
        let token = request.into_inner().page.unwrap_or_default().token;
        let state = self.state();
        let (range, next_token) = page(&token, state.scopes.len());
        let scopes = state.scopes[range].to_vec();
        Ok(Response::new(v1::ListScopesResponse { scopes, next_token }))
    }

    async fn get_segments(
        &self,
        request: Request<v1::GetSegmentsRequest>,
    ) -> Result<Response<v1::GetSegmentsResponse>, Status> {
        self.check_up()?;
        let request = request.into_inner();
        let mut state = self.state();
        let behind_page = state.behind_page.take();
        let store = Self::stream_of(&state, request.stream.as_ref())?;
        let places: Vec<SegmentPlace> = match request.set() {
            v1::SegmentSet::HeadSegments => store.head(),
            v1::SegmentSet::FirstSegments => store.first(),
            v1::SegmentSet::ActiveSegments => store.active(),
            _ if store.active().is_empty() => store.head(),
            _ => store.active(),
        };
        let token = request.page.unwrap_or_default().token;
        if token.parse().is_ok_and(|from: usize| from >= places.len()) {
            return Err(status(Reason::OutOfRange, "the segments changed since the first page"));
        }
        let (range, next_token) = page(&token, places.len());
        let sealed = store.active().is_empty();
        let answer = v1::GetSegmentsResponse {
            stream_id: 7,
            epoch: 0,
            state: if sealed { v1::StreamState::Sealed } else { v1::StreamState::Active } as i32,
            segments: places[range].iter().cloned().map(Into::into).collect(),
            next_token,
        };
        if let Some(change) = behind_page {
            let name = full_name(request.stream.as_ref());
            change(state.streams.get_mut(&name).unwrap());
        }
        Ok(Response::new(answer))
    }

    async fn get_successors(
        &self,
        request: Request<v1::GetSuccessorsRequest>,
    ) -> Result<Response<v1::GetSuccessorsResponse>, Status> {
        self.check_up()?;
        let request = request.into_inner();
        let id: SegmentId = request.segment.unwrap().into();
        let state = self.state();
        let segment = state.streams.values().find_map(|store| store.segments.get(&id));
        let all: Vec<_> =
            segment.and_then(|segment| segment.successors.clone()).unwrap_or_default();
        let (range, next_token) = page(&request.page.unwrap_or_default().token, all.len());
        let successors = all[range].iter().cloned().map(Into::into).collect();
        Ok(Response::new(v1::GetSuccessorsResponse { successors, next_token }))
    }

    async fn locate_segments(
        &self,
        request: Request<v1::LocateSegmentsRequest>,
    ) -> Result<Response<v1::LocateSegmentsResponse>, Status> {
        self.check_up()?;
        let mut answer = v1::LocateSegmentsResponse::default();
        let state = self.state();
        for id in request.into_inner().segments {
            let found = state.streams.values().find_map(|store| store.segments.get(&id.into()));
            let Some(segment) = found else { continue };
            let place = segment.place.clone().into();
            if segment.truncated { &mut answer.truncated } else { &mut answer.segments }
                .push(place);
        }
        Ok(Response::new(answer))
    }

    async fn list_writers(
        &self,
        _: Request<v1::ListWritersRequest>,
    ) -> Result<Response<v1::ListWritersResponse>, Status> {
        Err(Status::unimplemented("the fake is not asked for writers"))
    }

    async fn describe_writer(
        &self,
        _: Request<v1::DescribeWriterRequest>,
    ) -> Result<Response<v1::DescribeWriterResponse>, Status> {
        Err(Status::unimplemented("the fake is not asked for writers"))
    }

    async fn delete_writer(
        &self,
        _: Request<v1::DeleteWriterRequest>,
    ) -> Result<Response<v1::DeleteWriterResponse>, Status> {
        Err(Status::unimplemented("the fake is not asked for writers"))
    }

    async fn register_writer(
        &self,
        request: Request<v1::RegisterWriterRequest>,
    ) -> Result<Response<v1::RegisterWriterResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        Self::stream_of(&state, request.stream.as_ref())?;
        let key = (full_name(request.stream.as_ref()), request.writer);
        if !request.create && !state.writers.contains_key(&key) {
            return Err(status(Reason::WriterNotFound, "no such writer"));
        }
        let created = !state.writers.contains_key(&key);
        let first_epoch = state.first_epoch;
        let entry = state.writers.entry(key).or_insert((first_epoch, request.mode));
        if entry.1 != request.mode {
            return Err(status(Reason::WriterMode, "the name is used in the other mode"));
        }
        entry.0 += 1;
        let epoch = entry.0;
        let names_were_forgotten = state.names_were_forgotten;
        Ok(Response::new(v1::RegisterWriterResponse {
            writer: Bytes::from_static(&[9; 16]),
            epoch,
            stream_id: 7,
            created,
            may_be_stored: !created || names_were_forgotten,
        }))
    }

    async fn delete_scope(
        &self,
        _: Request<v1::DeleteScopeRequest>,
    ) -> Result<Response<v1::DeleteScopeResponse>, Status> {
        Err(status(Reason::ScopeNotEmpty, "the scope has streams; delete them first"))
    }

    async fn create_stream(
        &self,
        request: Request<v1::CreateStreamRequest>,
    ) -> Result<Response<v1::CreateStreamResponse>, Status> {
        let request = request.into_inner();
        let name = full_name(request.stream.as_ref());
        let managed = &mut self.state().managed;
        let known = managed.streams.get(&name).copied();
        let (stream_id, token) = known.unwrap_or_else(|| {
            managed.made += 1;
            (managed.made, request.token)
        });
        managed.streams.insert(name, (stream_id, token));
        let created = known.is_none() || (token != 0 && token == request.token);
        managed.answer(v1::CreateStreamResponse { stream_id, created })
    }

    async fn list_streams(
        &self,
        _: Request<v1::ListStreamsRequest>,
    ) -> Result<Response<v1::ListStreamsResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn describe_stream(
        &self,
        request: Request<v1::DescribeStreamRequest>,
    ) -> Result<Response<v1::DescribeStreamResponse>, Status> {
        let request = request.into_inner();
        let state = self.state();
        let managed = state.managed.streams.get(&full_name(request.stream.as_ref()));
        if managed.is_none() {
            Self::stream_of(&state, request.stream.as_ref())?;
        }
        let stream_id = managed.map_or(7, |(id, _)| *id);
        let summary = v1::StreamSummary { stream: request.stream, stream_id, ..Default::default() };
        Ok(Response::new(v1::DescribeStreamResponse {
            summary: Some(summary),
            ..v1::DescribeStreamResponse::default()
        }))
    }

    async fn seal_stream(
        &self,
        _: Request<v1::SealStreamRequest>,
    ) -> Result<Response<v1::SealStreamResponse>, Status> {
        Err(Status::unimplemented("tests seal directly"))
    }

    async fn truncate_stream(
        &self,
        request: Request<v1::TruncateStreamRequest>,
    ) -> Result<Response<v1::TruncateStreamResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        let store = state.streams.get_mut(&full_name(request.stream.as_ref())).unwrap();
        for place in request.cut {
            let segment = store.segments.get_mut(&place.segment.unwrap().into()).unwrap();
            segment.start = segment.start.max(place.offset);
        }
        Ok(Response::new(v1::TruncateStreamResponse {}))
    }

    async fn check_cut(
        &self,
        request: Request<v1::CheckCutRequest>,
    ) -> Result<Response<v1::CheckCutResponse>, Status> {
        let request = request.into_inner();
        let state = self.state();
        let store = Self::stream_of(&state, request.stream.as_ref())?;
        let covers = proto::convert::cut_coverage(request.covers).unwrap();
        let cut = request.cut.iter().map(|place| (place.segment.unwrap().into(), place.offset));
        store.check_cut(&cut.collect::<Vec<_>>(), covers)?;
        Ok(Response::new(v1::CheckCutResponse {}))
    }

    async fn delete_stream(
        &self,
        request: Request<v1::DeleteStreamRequest>,
    ) -> Result<Response<v1::DeleteStreamResponse>, Status> {
        let request = request.into_inner();
        let name = full_name(request.stream.as_ref());
        let managed = &mut self.state().managed;
        match managed.streams.get(&name) {
            Some((id, _)) if [*id, 0].contains(&request.stream_id) => {
                managed.streams.remove(&name);
            }
            None if request.stream_id == 0 => {
                return Err(status(Reason::StreamNotFound, "no such stream"));
            }
            _ => {}
        }
        managed.answer(v1::DeleteStreamResponse {})
    }
}
