//! The part that keeps segments: appends and reads.

use bytes::Bytes;
use common::{SegmentId, WallTime};
use futures::stream::{self, BoxStream, StreamExt};
use proto::error::{Reason, status, status_with};
use proto::v1;
use proto::v1::append_request::Message;
use proto::v1::segment_store_server::SegmentStore;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::Fake;
use crate::session::tests::model::{ModelConnection, ModelStore, failure};

/// Bytes of one read message: small, so that events lie across messages.
const READ_BYTES: usize = 1_000;

#[tonic::async_trait]
impl SegmentStore for Fake {
    type AppendStream = BoxStream<'static, Result<v1::AppendResponse, Status>>;
    type ReadStream = BoxStream<'static, Result<v1::ReadResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let broken = self.check_up()?;
        if let Some(reason) = self.state().refuses_appends {
            return Err(status(reason, "not on this server"));
        }
        let mut requests = request.into_inner();
        let (answers, queue) = mpsc::channel(100);
        let fake = self.clone();
        self.tasks.spawn("fake append", async move {
            let mut connection = ModelConnection::default();
            while let Ok(Some(request)) = requests.message().await {
                let has_blocks = matches!(request.message, Some(Message::Blocks(_)));
                let answer = fake.handle(&mut connection, request);
                if has_blocks && std::mem::take(&mut fake.state().goes_down_unanswered) {
                    fake.set_down(true);
                    return;
                }
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

    async fn get_writer_states(
        &self,
        _: Request<v1::GetWriterStatesRequest>,
    ) -> Result<Response<v1::GetWriterStatesResponse>, Status> {
        Err(Status::unimplemented("the fake is not asked for writers"))
    }

    /// The model has one time per segment: everything is older, or nothing.
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
