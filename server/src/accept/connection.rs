//! One connection that said what it speaks, served with explicit limits.
//!
//! Nothing is left to a library's defaults that a peer could use to make the server hold memory
//! or time for it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use common::limits::KIB;
use common::tasks::Tasks;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use proto::error::{Reason, status};
use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;
use tower::Service as _;

use super::bodies::{Answer, admitted};
use super::opening::Rewound;
use super::requests::{Full, Kind};
use super::shares::{Share, Shares};
use crate::settings::Limits;

/// Bytes of all headers of a request: ours take a few hundred.
const HEADER_BYTES_MAX: u32 = (16 * KIB) as u32;

/// Requests that a peer may open and reset at once before it is cut off (“rapid reset”).
const PENDING_RESETS_MAX: usize = 20;

/// Streams that the server itself reset and still remembers, as a peer can provoke.
const LOCAL_RESETS_MAX: usize = 1_024;

/// A connection on which nothing moves is asked whether anyone is there, and closed without an
/// answer: 20 s after the peer's machine vanished its connection is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until the peer leaves, or until `tasks` is cancelled and the requests under way ended.
/// A panic in a request ends its connection and nothing else.
pub(super) async fn serve_http1(
    stream: Rewound,
    limits: &Limits,
    service: axum::Router,
    tasks: Tasks,
) -> Result<(), String> {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.first_bytes.0)
        .max_buf_size(HEADER_BYTES_MAX as usize)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    until_stopped(connection, &tasks, http1::Connection::graceful_shutdown).await
}

/// The same for a connection that has its `share` of the memory.
pub(super) async fn serve_http2(
    stream: Rewound,
    limits: &Limits,
    (shares, share): (&Shares, &Share),
    service: axum::Router,
    tasks: Tasks,
) -> Result<(), String> {
    let connection = http2::Builder::new(Requests(tasks.clone()))
        .timer(TokioTimer::new())
        .initial_stream_window_size(share.stream_window)
        .initial_connection_window_size(share.connection_window)
        .max_frame_size(share.frame)
        .max_concurrent_streams(limits.requests_per_connection)
        .max_send_buf_size(share.send_stream)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), requests(shares, share, service));
    until_stopped(connection, &tasks, http2::Connection::graceful_shutdown).await
}

/// Every request of a connection within the connection's share.
fn requests(
    shares: &Shares,
    share: &Share,
    service: axum::Router,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Answer>,
    Error = Infallible,
    Future: Send,
> + use<> {
    let room = PollSemaphore::new(Arc::new(Semaphore::new(share.send)));
    let part = share.send.min(share.read_message + PART_HEAD_BYTES) as u32;
    let (limits, control, caps) =
        (share.limits.clone(), shares.control().clone(), shares.requests().of_connection());
    service_fn(move |request: Request<Incoming>| {
        let (room, mut service) = (room.clone(), service.clone());
        let (limits, control) = (limits.clone(), control.clone());
        let taken = caps.take(kind(request.uri().path()));
        async move {
            let taken = match taken {
                Ok(taken) => taken,
                Err(full) => {
                    let refused = too_many(full);
                    return Ok(refused.map(|body| Answer::new(body, room, part, None)));
                }
            };
            let mut request = match segmentstore::service::admits(request.uri().path()) {
                true => request.map(Body::new),
                false => request.map(|body| admitted(body, control)),
            };
            request.extensions_mut().insert(limits);
            let response = service.call(request).await?;
            Ok(response.map(|body| Answer::new(body, room, part, Some(taken))))
        }
    })
}

/// Bytes of a message of a read beside its data.
const PART_HEAD_BYTES: usize = KIB;

fn kind(path: &str) -> Kind {
    match segmentstore::service::moves_events(path) {
        true => Kind::Events,
        false => Kind::Control,
    }
}

fn too_many(full: Full) -> Response<Body> {
    let message = match full {
        Full::Server => {
            "this server has as many requests under way as it has memory for; end some, ask again \
             later, or raise `memory.limit`"
        }
        Full::Connection => {
            "this connection has as many requests under way as the server lets one have; end some, \
             use further connections, or raise `memory.limit`"
        }
    };
    status(Reason::ResourceExhausted, message).into_http()
}

async fn until_stopped<C>(
    connection: C,
    tasks: &Tasks,
    graceful_shutdown: impl FnOnce(Pin<&mut C>),
) -> Result<(), String>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut connection = pin!(connection);
    let stop = tasks.token();
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended.map_err(|error| error.to_string()),
        () = stop.cancelled() => {}
    }
    if tasks.failed() {
        return Err("a request panicked".to_owned());
    }
    graceful_shutdown(connection.as_mut());
    connection.await.map_err(|error| error.to_string())
}

/// Runs the requests of one connection as tasks that the connection owns.
#[derive(Clone)]
struct Requests(Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Requests {
    fn execute(&self, request: F) {
        self.0.spawn("request", request);
    }
}
