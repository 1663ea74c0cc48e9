//! One connection that said what it speaks, served with explicit limits.
//!
//! Nothing is left to a library's defaults that a peer could use to make the server hold memory
//! or time for it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use common::limits::{KIB, MIB};
use common::tasks::Tasks;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;

use super::opening::{Opened, Protocol, Rewound};
use crate::settings::Limits;

/// Bytes under way to the server per request: one largest message nearly fits, so that a writer
/// on a loopback or a fast network is never held up by credit.
const STREAM_WINDOW_BYTES: u32 = (8 * MIB) as u32;

/// Bytes under way to the server per connection: bounds what a connection can make it hold.
const CONNECTION_WINDOW_BYTES: u32 = (16 * MIB) as u32;

/// Bytes of one frame: large enough that a block of events takes one or two.
const FRAME_BYTES_MAX: u32 = (256 * KIB) as u32;

/// Bytes of answers kept per request for a peer that reads slowly.
const SEND_BUFFER_BYTES_MAX: usize = 2 * MIB;

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
pub(super) async fn serve(
    opened: Opened,
    limits: &Limits,
    service: axum::Router,
    tasks: Tasks,
) -> Result<(), String> {
    match opened.protocol {
        Protocol::Http1 => serve_http1(opened.stream, limits, service, tasks).await,
        Protocol::Http2 => serve_http2(opened.stream, limits, service, tasks).await,
    }
}

async fn serve_http1(
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

async fn serve_http2(
    stream: Rewound,
    limits: &Limits,
    service: axum::Router,
    tasks: Tasks,
) -> Result<(), String> {
    let connection = http2::Builder::new(Requests(tasks.clone()))
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(limits.requests_per_connection)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    until_stopped(connection, &tasks, http2::Connection::graceful_shutdown).await
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
