//! Appending raw bytes to one segment, one append at a time.
//!
//! The same chain as for events, with each append as one number: an append whose answer was lost
//! is found to be stored, or not, at the next `Open`.

use std::time::Duration;

use bytes::Bytes;
use common::limits::EVENT_BYTES_MAX;
use common::{Attempt, MonotonicTime, Offset, WriterEpoch, WriterId, WriterSession};
use futures::{StreamExt, stream};
use proto::convert::writer_bytes;
use proto::error::Reason;
use proto::v1;
use proto::v1::append_request::Message;
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::append_link::hello;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::connection::store_client;
use crate::error::{ClientError, ErrorKind, Result};
use crate::session::{Slots, TRACE_KEPT};
use crate::streams::SegmentPlace;

/// Appends raw bytes to one segment, if wanted only at an expected offset. Each append is stored
/// exactly once or not at all, across lost connections. At its end the store is asked to forget it.
#[derive(Debug)]
pub struct SegmentWriter {
    client: Client,
    place: SegmentPlace,
    writer: WriterId,
    attempt: Attempt,
    /// The number of the last append that is known to be stored.
    stored: u64,
    /// The number that the next append gets: one that was refused is not used again.
    next: u64,
    /// The append under way was sent once, so that it may be stored.
    in_doubt: bool,
    connection: Option<Connection>,
    /// Whether appends may be sent on the connection.
    is_open: bool,
    backoff: Backoff,
    /// When what the segment knows of the writer was last used, or a little before, on the clock
    /// that counts through sleep, and how long the segment was at least.
    last_used: MonotonicTime,
    length: u64,
}

#[derive(Debug)]
struct Connection {
    requests: mpsc::Sender<v1::AppendRequest>,
    answers: Streaming<v1::AppendResponse>,
    slots: Slots,
    slot: u32,
    /// How long the store remembers a writer that it does not hear of.
    writer_kept: Duration,
}

impl Connection {
    /// Closes the session. What is not heard within the time is forgotten later, by itself.
    async fn close(mut self) {
        let closed = async {
            let slots = vec![self.slot];
            let message = Some(Message::Close(v1::CloseSessions { slots }));
            let sent = self.requests.send(v1::AppendRequest { message }).await;
            while sent.is_ok()
                && let Ok(Some(answer)) = self.answers.message().await
                && !answer.closed.contains(&self.slot)
            {}
        };
        let _ = tokio::time::timeout(CLOSE_PATIENCE, closed).await;
    }
}

/// As [`SegmentWriter::close`], beside everything else.
impl Drop for SegmentWriter {
    fn drop(&mut self) {
        if let Some(connection) = self.take_open() {
            self.client.inner.spawn("end of a segment writer", connection.close());
        }
    }
}

/// What one answer means for the append that waits.
enum Outcome {
    Stored(Offset),
    Opened(v1::SessionOpened),
    Failed(v1::SessionFailure),
}

/// As long as a store has not said how long it remembers a writer.
const WRITER_KEPT: Duration = Duration::from_secs(60 * 60);

/// How long the end of a writer waits for the store to forget it.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

impl SegmentWriter {
    pub(crate) fn new(client: Client, place: SegmentPlace) -> Self {
        let writer = WriterId(client.inner.fork_rng("segment writer").u128());
        let backoff = client.inner.backoff("segment writer");
        Self {
            client,
            place,
            writer,
            attempt: Attempt(0),
            stored: 0,
            next: 1,
            in_doubt: false,
            connection: None,
            is_open: false,
            backoff,
            last_used: MonotonicTime::default(),
            length: 0,
        }
    }

    /// Appends `data` durably and gives the segment's length behind it, or, where an answer was
    /// lost, some length after that. With `expected`, only if the segment is that long; otherwise
    /// nothing is stored and the error is [`ClientError::OffsetMismatch`].
    pub async fn append(&mut self, data: Bytes, expected: Option<Offset>) -> Result<Offset> {
        if data.is_empty() || data.len() > EVENT_BYTES_MAX {
            return Err(ClientError::invalid(format!(
                "an append of {} bytes is not possible; 1 to {EVENT_BYTES_MAX} bytes are allowed",
                data.len()
            )));
        }
        let number = self.next;
        self.next += 1;
        self.in_doubt = false;
        let started = self.client.inner.now();
        loop {
            let error = match self.attempt(&data, expected, number).await {
                Ok(length) => {
                    self.stored = number;
                    self.backoff.reset();
                    return Ok(length);
                }
                Err(error) => error,
            };
            self.is_open = false;
            if error.kind() == ErrorKind::Unavailable {
                self.connection = None;
            }
            let waited = self.client.inner.now().since(started);
            let patience = self.client.inner.config.retry_deadline;
            if !error.is_transient() || patience.is_some_and(|patience| waited >= patience) {
                return Err(error);
            }
            tokio::time::sleep(self.backoff.pause()).await;
        }
    }

    /// Ends the writer, and waits a little for the store to forget it.
    pub async fn close(mut self) {
        if let Some(connection) = self.take_open() {
            connection.close().await;
        }
    }

    /// The connection, if the session on it is open.
    fn take_open(&mut self) -> Option<Connection> {
        self.connection.take_if(|_| std::mem::take(&mut self.is_open))
    }

    async fn attempt(
        &mut self,
        data: &Bytes,
        expected: Option<Offset>,
        number: u64,
    ) -> Result<Offset> {
        // A session counts as open only between successful appends: the answer to an append whose
        // future was dropped goes to a slot that nobody listens to any more.
        if !std::mem::take(&mut self.is_open) || self.may_be_forgotten() {
            let known = self.stored;
            let opened = self.open().await?;
            if opened.last_number >= number {
                return Ok(Offset(opened.length));
            }
            if opened.last_number < self.stored || opened.length < self.length {
                return Err(self.lost(known, opened.last_number));
            }
            if opened.sealed {
                return Err(self.refused(Reason::SegmentSealed, "it is sealed"));
            }
            // An append that failed in doubt may have been stored after all.
            self.stored = opened.last_number;
        }
        let slot = self.connection()?.slot;
        let block = v1::AppendBlock {
            slot,
            previous_number: self.stored,
            last_number: number,
            events: 1,
            expected_offset: expected.map(|offset| offset.0),
            data: data.clone(),
            sum: 0,
            sum_after: 0,
        };
        self.in_doubt = true;
        self.send(Message::Blocks(v1::AppendBlocks { blocks: vec![block] })).await?;
        match self.answer().await? {
            Outcome::Stored(length) => {
                self.is_open = true;
                self.length = self.length.max(length.0);
                Ok(length)
            }
            Outcome::Opened(_) => Err(ClientError::protocol("a session was opened twice")),
            Outcome::Failed(failure) => Err(self.failure(&failure, expected)),
        }
    }

    fn lost(&self, known: u64, stored: u64) -> ClientError {
        ClientError::DataLost {
            segment: self.place.segment,
            acknowledged: known.into(),
            stored: stored.into(),
        }
    }

    /// Opens a session under a new attempt.
    async fn open(&mut self) -> Result<v1::SessionOpened> {
        if self.connection.is_none() {
            self.connection = Some(self.connect().await?);
        }
        loop {
            self.attempt = Attempt(self.attempt.0 + 1);
            let connection = self.connection()?;
            let slot = connection.slots.next();
            connection.slot = slot;
            let open = self.open_message(slot);
            self.send(Message::Open(open)).await?;
            let failure = match self.answer().await? {
                Outcome::Opened(opened) => return Ok(opened),
                Outcome::Stored(_) => return Err(ClientError::protocol("stored before opened")),
                Outcome::Failed(failure) => failure,
            };
            match (failure.reason(), failure.current) {
                // An own earlier session that is still remembered: go above it.
                (Reason::WriterFenced, Some(current)) if current.attempt >= self.attempt.0 => {
                    self.attempt = Attempt(current.attempt);
                }
                // So soon a trace of it would be there.
                (Reason::WriterAbsent, _) if self.stored > 0 && self.away() < TRACE_KEPT => {
                    return Err(self.lost(self.stored, 0));
                }
                // Forgotten while nothing was in doubt: as good as a new writer.
                (Reason::WriterExpired | Reason::WriterAbsent, _) if !self.in_doubt => {
                    self.writer = WriterId(self.client.inner.fork_rng("segment writer").u128());
                    self.stored = 0;
                }
                _ => return Err(self.failure(&failure, None)),
            }
        }
    }

    async fn connect(&self) -> Result<Connection> {
        let inner = &self.client.inner;
        let endpoint = inner.endpoint_of(&self.place);
        let (requests, queue) = mpsc::channel(4);
        let greeting = v1::AppendRequest { message: Some(Message::Hello(hello())) };
        let queue = stream::unfold(queue, |mut queue| async { Some((queue.recv().await?, queue)) });
        let queue = stream::iter([greeting]).chain(queue);
        let mut store = store_client(inner.connections.data(endpoint)?);
        let timeout = inner.config.connect_timeout;
        let answers = match tokio::time::timeout(timeout, store.append(queue)).await {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return Err(ClientError::from_status(&status, endpoint)),
            Err(_) => {
                let problem = format!("no answer within {timeout:?}");
                return Err(ClientError::Unreachable { endpoint: endpoint.to_owned(), problem });
            }
        };
        let (slots, slot, writer_kept) = (Slots::default(), 0, WRITER_KEPT);
        Ok(Connection { requests, answers, slots, slot, writer_kept })
    }

    /// Whether the store may have forgotten the writer since it was last there.
    fn may_be_forgotten(&self) -> bool {
        let away = self.away();
        self.connection.as_ref().is_none_or(|connection| away >= connection.writer_kept)
    }

    fn away(&self) -> Duration {
        self.client.inner.boot_time().since(self.last_used)
    }

    fn open_message(&self, slot: u32) -> v1::OpenSessions {
        let session = WriterSession { epoch: WriterEpoch(1), attempt: self.attempt };
        v1::OpenSessions {
            writer: writer_bytes(self.writer),
            session: Some(session.into()),
            segments: vec![v1::OpenSegment {
                slot,
                segment: Some(self.place.segment.into()),
                container: self.place.container.0,
                resuming: self.in_doubt || self.stored > 0,
            }],
            named: false,
        }
    }

    fn connection(&mut self) -> Result<&mut Connection> {
        self.connection.as_mut().ok_or_else(|| ClientError::protocol("there is no connection"))
    }

    async fn send(&mut self, message: Message) -> Result<()> {
        let request = v1::AppendRequest { message: Some(message) };
        // A closed queue shows as the end of the answers, with the reason.
        let _ = self.connection()?.requests.send(request).await;
        Ok(())
    }

    /// The next answer to the current slot.
    async fn answer(&mut self) -> Result<Outcome> {
        let endpoint = self.client.inner.endpoint_of(&self.place).to_owned();
        let asked = self.client.inner.boot_time();
        let connection = self.connection()?;
        loop {
            let answer = connection.answers.message().await;
            let answer = answer.map_err(|status| ClientError::from_status(&status, &endpoint))?;
            let Some(answer) = answer else {
                let problem = "the server ended the connection".to_owned();
                return Err(ClientError::Unreachable { endpoint, problem });
            };
            if let Some(hello) = &answer.hello
                && hello.writer_kept_micros > 0
            {
                connection.writer_kept = Duration::from_micros(hello.writer_kept_micros);
            }
            let slot = connection.slot;
            if let Some(failure) = answer.failures.into_iter().find(|f| f.slot == slot) {
                return Ok(Outcome::Failed(failure));
            }
            if let Some(ack) = answer.acks.iter().find(|ack| ack.slot == slot) {
                self.last_used = asked;
                return Ok(Outcome::Stored(Offset(ack.length)));
            }
            if let Some(opened) = answer.opened.into_iter().find(|opened| opened.slot == slot) {
                self.last_used = asked;
                return Ok(Outcome::Opened(opened));
            }
        }
    }

    fn failure(&self, failure: &v1::SessionFailure, expected: Option<Offset>) -> ClientError {
        match (failure.reason(), expected) {
            (Reason::OffsetMismatch, Some(expected)) => ClientError::OffsetMismatch {
                segment: self.place.segment,
                expected,
                length: Offset(failure.length),
            },
            (reason, _) => self.refused(reason, &failure.message),
        }
    }

    fn refused(&self, reason: Reason, message: &str) -> ClientError {
        let message = format!("segment {} refuses the append: {message}", self.place.segment);
        ClientError::refused(reason, message)
    }
}
