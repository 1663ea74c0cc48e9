//! The generated server, but for reads and appends. On the wire nothing differs.
//!
//! The messages of a read go out as they lie in memory: the generated code would copy every byte of
//! them once more into a buffer of its own, which is a third of what a read costs the server. The
//! messages of an append stream are admitted before they are kept ([`super::requests`]): the
//! generated code keeps and decodes whatever comes.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use common::limits::DATA_MESSAGE_BYTES_MAX;
use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, ready};
use http_body::{Frame, SizeHint};
use proto::read_stream::message_head;
use proto::v1::segment_store_server::{SERVICE_NAME, SegmentStoreServer};
use proto::v1::{AppendRequest, AppendResponse, ReadRequest, ReadResponse};
use tonic::body::Body;
use tonic::codec::{Codec as _, EncodeBody, SingleMessageCompressionOverride};
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

use super::connection::ConnectionLimits;
use super::read::ReadOutput;
use super::{SegmentStoreService, append};
use crate::limits::READ_GATHER_BELOW;

/// The paths of `Read` and `Append`.
const READ_PATH: &str = "/braid.v1.SegmentStore/Read";
const APPEND_PATH: &str = "/braid.v1.SegmentStore/Append";

/// Whether requests for `path` are looked after while they come in: what they may have in memory is
/// bounded by the service.
pub fn admits(path: &str) -> bool {
    path == APPEND_PATH
}

/// Whether requests for `path` move events, and last as long as their clients want.
pub fn moves_events(path: &str) -> bool {
    matches!(path, READ_PATH | APPEND_PATH)
}

/// Bytes of a `ReadRequest`, generously.
const REQUEST_BYTES_MAX: usize = 4 * 1024;

/// Serves the segment store's methods.
#[derive(Debug, Clone)]
pub struct StoreServer {
    service: SegmentStoreService,
    others: SegmentStoreServer<SegmentStoreService>,
}

impl StoreServer {
    pub(super) fn new(
        service: SegmentStoreService,
        others: SegmentStoreServer<SegmentStoreService>,
    ) -> Self {
        Self { service, others }
    }
}

impl NamedService for StoreServer {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for StoreServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let limits = request.extensions().get::<ConnectionLimits>().cloned();
        let limits = limits.unwrap_or_default();
        match request.uri().path() {
            READ_PATH => {
                let service = self.service.clone();
                async move {
                    let answer = match read(&service, request.into_body(), &limits).await {
                        Ok(messages) => streamed(messages),
                        Err(status) => status.into_http(),
                    };
                    Ok(answer)
                }
                .boxed()
            }
            APPEND_PATH => {
                let answer = match self.append(request.into_body(), &limits) {
                    Ok(answers) => answers,
                    Err(status) => status.into_http(),
                };
                async move { Ok(answer) }.boxed()
            }
            _ => self.others.call(request),
        }
    }
}

impl StoreServer {
    fn append(
        &self,
        body: Body,
        limits: &ConnectionLimits,
    ) -> Result<http::Response<Body>, Status> {
        let permit = limits.append_stream().map_err(|status| {
            self.service.refuse(proto::error::Reason::ResourceExhausted, status)
        })?;
        let answers = append::serve(&self.service.store, body, permit);
        let encoder = ProstCodec::<AppendResponse, AppendRequest>::default().encoder();
        let whole = SingleMessageCompressionOverride::Disable;
        let most = Some(DATA_MESSAGE_BYTES_MAX);
        Ok(grpc(Body::new(EncodeBody::new_server(encoder, answers, None, whole, most))))
    }
}

async fn read(
    service: &SegmentStoreService,
    body: Body,
    limits: &ConnectionLimits,
) -> Result<ReadOutput, Status> {
    let decoder = ProstCodec::<(), ReadRequest>::default().decoder();
    let mut requests = Streaming::new_request(decoder, body, None, Some(REQUEST_BYTES_MAX));
    let request = requests.message().await?;
    let request = request.ok_or_else(|| Status::internal("the request has no message"))?;
    service.open_read(request, limits.read_message_bytes).await
}

fn streamed(messages: ReadOutput) -> http::Response<Body> {
    grpc(Body::new(ReadBody { messages, data: Bytes::new(), ended: false }))
}

fn grpc(body: Body) -> http::Response<Body> {
    let mut response = http::Response::new(body);
    let kind = http::HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

/// The messages of a read: of each first its head, then its data as it is.
struct ReadBody {
    messages: ReadOutput,
    data: Bytes,
    ended: bool,
}

impl http_body::Body for ReadBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !self.data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.data)))));
        }
        let ended_with = match ready!(Pin::new(&mut self.messages).poll_next(cx)) {
            Some(Ok(response)) => {
                let head = message_head(&response);
                let ReadResponse { data, .. } = response;
                if data.len() < READ_GATHER_BELOW {
                    // A little of an entry must not keep all of it while it waits to be sent.
                    let whole = [&head[..], &data[..]].concat();
                    return Poll::Ready(Some(Ok(Frame::data(whole.into()))));
                }
                self.data = data;
                return Poll::Ready(Some(Ok(Frame::data(head))));
            }
            Some(Err(status)) => status,
            None => Status::new(Code::Ok, ""),
        };
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        ended_with.add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
