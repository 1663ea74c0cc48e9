//! What each connection may make the server hold, given out when it is accepted.
//!
//! HTTP/2 lets a peer send as much as its windows are, whatever the server has to do with it, and a
//! window that was given cannot be taken back. So the first connections get large ones, each of the
//! next half as much of what is left, and further ones the least that the protocol has, such that
//! all together stay within a class of `memory.limit`. The same goes for what is on the way to a
//! peer that does not read.
//!
//! A window of the least size is only filled by a stream that waits, which those that append do, so
//! that it is taken by append streams and not by every connection.

use common::ByteSize;
use common::limits::{CONTROL_MESSAGE_BYTES_MAX, KIB, MIB};
use segmentstore::{BytePermit, BytePermits, ConnectionLimits};

use super::requests::RequestCaps;
use crate::settings::Limits;

/// Bytes under way to the server per connection and per request: one largest message nearly fits,
/// so that a writer on a loopback or a fast network is never held up by credit.
const CONNECTION_WINDOW_BYTES_MAX: usize = 16 * MIB;
const STREAM_WINDOW_BYTES_MAX: usize = 8 * MIB;

/// The window that every connection has (RFC 9113, section 6.9.2).
const WINDOW_BYTES_MIN: usize = 64 * KIB - 1;

/// Bytes of one frame: where windows are large, so that a block of events takes one or two; else the
/// least that there is.
const FRAME_BYTES_MAX: usize = 256 * KIB;
const FRAME_BYTES_MIN: usize = 16 * KIB;

/// Bytes on the way to one peer, and to each of very many.
const SEND_BYTES_MAX: usize = 8 * MIB;
const SEND_BYTES_MIN: usize = 8 * KIB;

/// Of these, bytes of one request's answer.
const SEND_STREAM_BYTES_MAX: usize = 2 * MIB;

/// From so many bytes on the messages of a read are as large as they get. Below it they are copied,
/// and none of them keeps a log entry or a block of an object in memory.
const SEND_WHOLE_FROM: usize = MIB;
const READ_MESSAGE_BYTES_MAX: usize = 512 * KIB;
const READ_MESSAGE_COPIED: usize = 60 * KIB;

/// More than every connection gets is given out in parts of at least this.
const EXTRA_BYTES_MIN: usize = 256 * KIB;

/// What a request of any kind takes: its task, its stream, its headers.
const REQUEST_COST_BYTES: usize = 8 * KIB;

/// The memory that connections share.
#[derive(Debug, Clone)]
pub(crate) struct Shares {
    /// For larger windows, and for more on the way to peers.
    window_extra: BytePermits,
    send_extra: BytePermits,
    /// For the least of both.
    append_streams: BytePermits,
    connections: BytePermits,
    append_streams_per_connection: usize,
    /// For requests other than those that move events, as they come in.
    control: BytePermits,
    requests: RequestCaps,
}

/// What one connection may take; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Share {
    pub(super) connection_window: u32,
    pub(super) stream_window: u32,
    pub(super) frame: u32,
    pub(super) send: usize,
    pub(super) send_stream: usize,
    pub(super) read_message: usize,
    pub(super) limits: ConnectionLimits,
    _held: [BytePermit; 3],
}

impl Shares {
    /// Splits what connections may have of `limit`: `receive` and `send` are classes of it.
    pub(crate) fn new(limit: ByteSize, receive: ByteSize, send: ByteSize, limits: &Limits) -> Self {
        let (receive, send) = (receive.as_usize(), send.as_usize());
        let window_extra = receive / 6;
        let append_streams = receive - window_extra - CONTROL_MESSAGE_BYTES_MAX;
        let requests = limit.as_usize() / 4 / REQUEST_COST_BYTES;
        Self {
            window_extra: BytePermits::new(window_extra),
            send_extra: BytePermits::new(send / 3),
            append_streams: BytePermits::new(append_streams),
            connections: BytePermits::new(send - send / 3),
            append_streams_per_connection: limits.append_streams_per_connection as usize,
            control: BytePermits::new(CONTROL_MESSAGE_BYTES_MAX),
            requests: RequestCaps::new(requests),
        }
    }

    /// The share of a new connection; `None` where there is nothing left for one.
    pub(super) fn take(&self) -> Option<Share> {
        let least = self.connections.try_acquire(SEND_BYTES_MIN)?;
        let (window, window_held) = extra(&self.window_extra, CONNECTION_WINDOW_BYTES_MAX);
        let (send, send_held) = extra(&self.send_extra, SEND_BYTES_MAX);
        let frame = if window == 0 { FRAME_BYTES_MIN } else { FRAME_BYTES_MAX };
        let connection_window = WINDOW_BYTES_MIN.max(window);
        let send = SEND_BYTES_MIN + send;
        let read_message = match send {
            ..SEND_WHOLE_FROM => send.min(READ_MESSAGE_COPIED),
            _ => READ_MESSAGE_BYTES_MAX,
        };
        let held = WINDOW_BYTES_MIN + 1 + frame;
        let of_stream = Some((self.append_streams.clone(), held));
        let append_streams = self.append_streams_per_connection;
        let limits = ConnectionLimits::new(read_message, append_streams, of_stream);
        Some(Share {
            connection_window: connection_window as u32,
            stream_window: connection_window.min(STREAM_WINDOW_BYTES_MAX) as u32,
            frame: frame as u32,
            send,
            send_stream: send.min(SEND_STREAM_BYTES_MAX),
            read_message,
            limits,
            _held: [least, window_held, send_held],
        })
    }

    /// What connections may make the server hold of what comes in.
    pub(crate) fn receive_used(&self) -> u64 {
        used(&[&self.window_extra, &self.append_streams, &self.control])
    }

    /// What connections may make the server hold of what goes out.
    pub(crate) fn send_used(&self) -> u64 {
        used(&[&self.send_extra, &self.connections])
    }

    pub(super) fn control(&self) -> &BytePermits {
        &self.control
    }

    pub(super) fn requests(&self) -> &RequestCaps {
        &self.requests
    }
}

fn used(pools: &[&BytePermits]) -> u64 {
    pools.iter().map(|pool| pool.used_bytes() as u64).sum()
}

/// Half of what is left in `pool`, at most `most`; nothing where that is little.
fn extra(pool: &BytePermits, most: usize) -> (usize, BytePermit) {
    let half = (pool.free_bytes() / 2).min(most);
    let bytes = if half < EXTRA_BYTES_MIN { 0 } else { half };
    match pool.try_acquire(bytes) {
        Some(held) => (bytes, held),
        // Another thread was faster.
        None => (0, BytePermits::new(0).try_acquire(0).expect("nothing is always free")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_smallest() -> Shares {
        Shares::new(ByteSize::mib(256), ByteSize::mib(30), ByteSize::mib(8), &Limits::default())
    }

    #[test]
    fn the_first_connections_of_a_large_server_get_all_that_a_connection_can_use() {
        let (receive, send) = (ByteSize::mib(160), ByteSize::mib(64));
        let shares = Shares::new(ByteSize::gib(2), receive, send, &Limits::default());
        let first = shares.take().unwrap();
        assert!(first.connection_window as usize > 13 * MIB);
        assert_eq!(first.stream_window as usize, STREAM_WINDOW_BYTES_MAX);
        assert_eq!(
            (first.send, first.frame as usize),
            (SEND_BYTES_MAX + SEND_BYTES_MIN, 256 * KIB)
        );
    }

    #[test]
    fn windows_become_smaller_with_every_connection_and_their_sum_stays_within_the_class() {
        let shares = of_smallest();
        let taken: Vec<_> = std::iter::from_fn(|| shares.take()).collect();
        assert!(taken.len() >= 600, "{}", taken.len());
        assert!(taken.is_sorted_by(|a, b| a.connection_window >= b.connection_window));
        assert_eq!(taken.last().unwrap().connection_window as usize, WINDOW_BYTES_MIN);
        let large: usize = taken
            .iter()
            .map(|share| share.connection_window as usize)
            .filter(|window| *window > WINDOW_BYTES_MIN)
            .sum();
        assert!(large <= 5 * MIB, "{large}");
        let send: usize = taken.iter().map(|share| share.send).sum();
        assert!(send <= 8 * MIB, "{send}");
    }

    #[test]
    fn a_connection_that_ends_gives_its_window_to_the_next() {
        let shares = of_smallest();
        let first = shares.take().unwrap();
        let (window, second) = (first.connection_window, shares.take().unwrap());
        assert!(second.connection_window < window);
        drop((first, second));
        assert_eq!(shares.take().unwrap().connection_window, window);
    }
}
