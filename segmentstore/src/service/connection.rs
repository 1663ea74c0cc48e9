//! What one connection may take of the process, told by whoever accepted it: a value among the
//! extensions of each of its requests.

use std::sync::Arc;

use proto::error::{Reason, status_with};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::limits::{READ_MESSAGE_BYTES_MAX, RETRY_AFTER};
use crate::permits::{BytePermit, BytePermits};

/// The limits of one connection. Clones share them.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Bytes of one message of a read.
    pub read_message_bytes: usize,
    append_streams: Arc<Semaphore>,
    append_streams_max: usize,
    /// Where each append stream takes what it may make the server hold, and how much that is.
    held: Option<(BytePermits, usize)>,
}

/// The right to one append stream; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct AppendPermit {
    _of_connection: OwnedSemaphorePermit,
    _held: Option<BytePermit>,
}

impl ConnectionLimits {
    /// A connection with so many append streams at a time, each of which takes `held` bytes of a
    /// pool, if there is one.
    pub fn new(
        read_message_bytes: usize,
        append_streams_max: usize,
        held: Option<(BytePermits, usize)>,
    ) -> Self {
        let append_streams = Arc::new(Semaphore::new(append_streams_max));
        Self { read_message_bytes, append_streams, append_streams_max, held }
    }

    /// Begins an append stream.
    pub(super) fn append_stream(&self) -> Result<AppendPermit, Status> {
        let refuse = |message: String| {
            Err(status_with(Reason::ResourceExhausted, message, [], Some(RETRY_AFTER)))
        };
        let Ok(of_connection) = self.append_streams.clone().try_acquire_owned() else {
            return refuse(format!(
                "a connection has at most {} append streams; use one for all writers, or raise \
                 `limits.append_streams_per_connection` of the server",
                self.append_streams_max
            ));
        };
        let held = match &self.held {
            None => None,
            Some((pool, bytes)) => match pool.try_acquire(*bytes) {
                Some(held) => Some(held),
                None => {
                    return refuse(
                        "the memory for connections that append is used up; close some, or raise \
                         `memory.limit` of the server"
                            .to_owned(),
                    );
                }
            },
        };
        Ok(AppendPermit { _of_connection: of_connection, _held: held })
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self::new(READ_MESSAGE_BYTES_MAX, Semaphore::MAX_PERMITS, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn append_streams_are_bounded_in_all_and_on_a_connection_and_come_back() {
        let pool = BytePermits::new(1_000);
        let limits = || ConnectionLimits::new(1, 16, Some((pool.clone(), 400)));
        let (one, other) = (limits(), limits());
        let held = [one.append_stream().unwrap(), other.append_stream().unwrap()];
        let error = one.append_stream().unwrap_err();
        assert!(error.message().contains("memory.limit"), "{error}");
        drop(held);
        assert_eq!(pool.free_bytes(), 1_000);
        let three = ConnectionLimits::new(1, 3, None);
        let many: Vec<_> = std::iter::from_fn(|| three.append_stream().ok()).collect();
        assert_eq!(many.len(), 3);
        let error = three.append_stream().unwrap_err();
        assert!(error.message().contains("at most 3 append streams"), "{error}");
        drop(many);
        three.append_stream().unwrap();
    }
}
