//! The messages of an append stream, admitted before they are kept.
//!
//! HTTP/2 gives a client credit for what is taken off its connection, so that nothing may be taken
//! off that there is no room for. Each message is taken in as it comes, frame by frame, and each
//! frame waits for a permit of its bytes while nothing more is taken from the stream; a length that
//! was promised takes nothing. What the message would decode into is counted before it is decoded.
//!
//! Guarantees: a stream holds at most one frame without a permit; a message on which nothing moves
//! for [`MESSAGE_STALL`] ends its stream; permits of one that ends are given back at once.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use common::limits::{BLOCKS_PER_MESSAGE_MAX, DATA_MESSAGE_BYTES_MAX, OPEN_SEGMENTS_MAX};
use http_body::Body;
use proto::append_stream::{DecodeError, Items, count_items, decode};
use proto::error::{Reason, status};
use proto::v1::AppendRequest;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Status};

use crate::limits::{BLOCK_COST_BYTES, MESSAGE_PROGRESS_BYTES, MESSAGE_STALL};
use crate::permits::{BytePermit, BytePermits, Growing};
use crate::pressure::Pressure;

/// What precedes a gRPC message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Pieces below this are copied together: the memory of one is not told from its length.
const PIECE_BYTES_MIN: usize = 16 * 1024;

/// What a message passes before it is kept.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    pub(super) permits: BytePermits,
    pub(super) pressure: Pressure,
}

/// Takes the messages out of a request's body.
pub(super) struct Requests<B> {
    body: Pin<Box<B>>,
    admission: Admission,
    /// What was taken from the stream last and has no permit yet.
    frame: Bytes,
}

impl<B> Requests<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(body: B, admission: Admission) -> Self {
        Self { body: Box::pin(body), admission, frame: Bytes::new() }
    }

    /// The next message with the permit of all that it costs; `None` where the client is done.
    pub(super) async fn next(&mut self) -> Result<Option<(AppendRequest, BytePermit)>, Status> {
        let Some(length) = self.prefix().await? else { return Ok(None) };
        // Pressure comes first: a message that waits holds nothing.
        if let Some(wait) = self.admission.pressure.wait(length) {
            sleep(wait).await;
        }
        let mut permit = self.admission.permits.growing();
        let message = self.gather(length, &mut permit).await?;
        let items = count_items(&message).map_err(|error| malformed(&error))?;
        check(items)?;
        permit.grow(items.blocks * BLOCK_COST_BYTES).await;
        let request = decode(message).map_err(|error| malformed(&error))?;
        Ok(Some((request, permit.finish())))
    }

    /// The length of the next message.
    async fn prefix(&mut self) -> Result<Option<usize>, Status> {
        let mut prefix = [0; PREFIX_BYTES];
        let mut have = 0;
        while have < PREFIX_BYTES {
            if self.frame.is_empty() && !self.take_frame().await? {
                return if have == 0 { Ok(None) } else { Err(cut_short()) };
            }
            let count = self.frame.len().min(PREFIX_BYTES - have);
            self.frame.copy_to_slice(&mut prefix[have..have + count]);
            have += count;
        }
        let length = (&prefix[1..]).get_u32() as usize;
        if prefix[0] != 0 {
            return Err(Status::unimplemented("a message is compressed; send it as it is"));
        }
        if length > DATA_MESSAGE_BYTES_MAX {
            let message = format!(
                "a message of {length} bytes is too large; at most {DATA_MESSAGE_BYTES_MAX} are \
                 allowed"
            );
            return Err(status(Reason::TooLarge, message));
        }
        Ok(Some(length))
    }

    /// The `length` bytes of a message, each with a permit.
    async fn gather(&mut self, length: usize, permit: &mut Growing) -> Result<Bytes, Status> {
        let mut pieces = Pieces::default();
        let mut progress = Progress::new();
        while pieces.bytes < length {
            if self.frame.is_empty() {
                let frame = timeout_at(progress.deadline, self.take_frame()).await;
                if !frame.unwrap_or_else(|_| Err(stalled(pieces.bytes, length)))? {
                    return Err(cut_short());
                }
            }
            let piece = self.frame.split_to(self.frame.len().min(length - pieces.bytes));
            let waits_since = Instant::now();
            permit.grow(piece.len()).await;
            progress.deadline += waits_since.elapsed();
            progress.add(piece.len());
            pieces.push(piece);
        }
        Ok(pieces.join())
    }

    /// Takes the next frame with bytes off the stream; `false` at its end.
    async fn take_frame(&mut self) -> Result<bool, Status> {
        loop {
            let frame = poll_fn(|context| self.body.as_mut().poll_frame(context)).await;
            let Some(frame) = frame else { return Ok(false) };
            let frame = match frame.map_err(|error| Status::from_error(error.into())) {
                Ok(frame) => frame,
                // The client has gone, which is no failure.
                Err(error) if error.code() == Code::Cancelled => return Ok(false),
                Err(error) => return Err(error),
            };
            // Trailers of a request say nothing.
            let Ok(data) = frame.into_data() else { return Ok(false) };
            if !data.is_empty() {
                self.frame = data;
                return Ok(true);
            }
        }
    }
}

/// When a message has stalled: unless this much comes in time, or the rest of it.
struct Progress {
    deadline: Instant,
    bytes: usize,
}

impl Progress {
    fn new() -> Self {
        Self { deadline: Instant::now() + MESSAGE_STALL, bytes: 0 }
    }

    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes >= MESSAGE_PROGRESS_BYTES {
            *self = Self::new();
        }
    }
}

/// A message as it comes.
#[derive(Default)]
struct Pieces {
    whole: Vec<Bytes>,
    /// Small pieces behind them.
    small: BytesMut,
    bytes: usize,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        if piece.len() < PIECE_BYTES_MIN {
            return self.small.extend_from_slice(&piece);
        }
        if !self.small.is_empty() {
            self.whole.push(self.small.split().freeze());
        }
        self.whole.push(piece);
    }

    /// One buffer of just its size: blocks that are kept keep no more than they are.
    fn join(self) -> Bytes {
        let mut message = BytesMut::with_capacity(self.bytes);
        for piece in self.whole {
            message.extend_from_slice(&piece);
        }
        message.extend_from_slice(&self.small);
        message.freeze()
    }
}

fn check(items: Items) -> Result<(), Status> {
    let refuse = |what, count, most| {
        let message = format!("a message has {count} {what}; send at most {most}");
        Err(status(Reason::InvalidArgument, message))
    };
    if items.blocks > BLOCKS_PER_MESSAGE_MAX {
        return refuse("blocks", items.blocks, BLOCKS_PER_MESSAGE_MAX);
    }
    if items.opens > OPEN_SEGMENTS_MAX {
        return refuse("segments to open", items.opens, OPEN_SEGMENTS_MAX);
    }
    if items.closes > OPEN_SEGMENTS_MAX {
        return refuse("sessions to close", items.closes, OPEN_SEGMENTS_MAX);
    }
    Ok(())
}

fn stalled(bytes: usize, length: usize) -> Status {
    let message = format!(
        "a message stopped after {bytes} of its {length} bytes for {} s; connect again",
        MESSAGE_STALL.as_secs()
    );
    status(Reason::Unavailable, message)
}

fn malformed(error: &DecodeError) -> Status {
    status(Reason::InvalidArgument, format!("a message cannot be decoded: {error}"))
}

fn cut_short() -> Status {
    Status::internal("the stream ended inside a message")
}

#[cfg(test)]
mod tests;
