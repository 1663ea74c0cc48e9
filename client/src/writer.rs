//! Appending events to a stream.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use common::{ByteSize, EventNumber, ScopedStream, WriterEpoch, WriterName};

use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::event::Event;

/// How a named writer is known to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// False: the name was known, so that its events may already be stored.
    pub created: bool,
    /// What was given when the name was first registered.
    pub source_fingerprint: Option<u64>,
    /// Which of the name's processes this is.
    pub epoch: WriterEpoch,
}

/// Chooses what an [`EventWriter`] is like.
#[derive(Debug, Clone)]
pub struct EventWriterBuilder {
    client: Client,
    stream: ScopedStream,
    name: Option<WriterName>,
    create_name: bool,
    source_fingerprint: u64,
    first_number: EventNumber,
    memory_limit: ByteSize,
}

impl EventWriterBuilder {
    pub(crate) fn new(client: Client, stream: ScopedStream) -> Self {
        Self {
            client,
            stream,
            name: None,
            create_name: true,
            source_fingerprint: 0,
            first_number: EventNumber(1),
            memory_limit: ByteSize::mib(16),
        }
    }

    /// Keep the writer's identity across process restarts: the same events given again under the
    /// same name, in the same order, are stored only where they are not stored yet. A newer
    /// process with the name fences this one.
    pub fn named(mut self, name: WriterName) -> Self {
        self.name = Some(name);
        self
    }

    /// Whether a name that is not known is made known (the default), or refused.
    pub fn create_name(mut self, create: bool) -> Self {
        self.create_name = create;
        self
    }

    /// What identifies the source of a named writer's events, kept when the name is first
    /// registered and told to later processes; 0: none.
    pub fn source_fingerprint(mut self, fingerprint: u64) -> Self {
        self.source_fingerprint = fingerprint;
        self
    }

    /// The number of the first event appended, 1 unless told: for a source that is not read from
    /// its beginning.
    pub fn first_number(mut self, number: EventNumber) -> Self {
        self.first_number = number;
        self
    }

    /// Bytes of events that may be on their way; [`EventWriter::append`] waits when they are used
    /// up. 16 MiB unless told; at least 8 MiB.
    pub fn memory_limit(mut self, limit: ByteSize) -> Self {
        self.memory_limit = limit;
        self
    }

    /// Locates the stream and, for a named writer, finds out what is already stored.
    pub async fn open(self) -> Result<EventWriter> {
        let _ = (self.client, self.name, self.create_name, self.source_fingerprint);
        let _ = (self.first_number, self.memory_limit);
        Err(ClientError::protocol(format!("{} cannot be written yet", self.stream)))
    }
}

/// Appends events to a stream, each exactly once.
#[derive(Debug)]
pub struct EventWriter {
    _private: (),
}

/// Resolves when the event, and every event before it, is durable. Made by
/// [`EventWriter::append_tracked`]; dropping it costs nothing and cancels nothing.
#[derive(Debug)]
pub struct Acknowledged {
    _private: (),
}

impl Future for Acknowledged {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err(ClientError::Closed { what: "writer" }))
    }
}

impl EventWriter {
    /// Takes the event for sending and returns its number. Waits only for memory; the event is
    /// durable once [`EventWriter::acknowledged`] has reached its number.
    pub async fn append(&mut self, event: Event<'_>) -> Result<EventNumber> {
        self.try_append(event)?.ok_or(ClientError::Closed { what: "writer" })
    }

    /// As [`EventWriter::append`], without ever waiting: `None` where memory is used up.
    pub fn try_append(&mut self, _event: Event<'_>) -> Result<Option<EventNumber>> {
        Err(ClientError::Closed { what: "writer" })
    }

    /// As [`EventWriter::append`], with a future for this event's acknowledgement.
    pub async fn append_tracked(
        &mut self,
        event: Event<'_>,
    ) -> Result<(EventNumber, Acknowledged)> {
        let number = self.append(event).await?;
        Ok((number, self.acknowledgement_of(number)))
    }

    /// Appends events of one routing key that are stored all or none. Returns the last one's
    /// number; the others have the numbers before it.
    pub async fn append_batch(&mut self, _key: &str, _events: &[Event<'_>]) -> Result<EventNumber> {
        Err(ClientError::Closed { what: "writer" })
    }

    /// A future for the acknowledgement of everything up to `number`.
    pub fn acknowledgement_of(&self, _number: EventNumber) -> Acknowledged {
        Acknowledged { _private: () }
    }

    /// Waits until everything appended so far is durable; returns the last number.
    pub async fn flush(&mut self) -> Result<EventNumber> {
        Err(ClientError::Closed { what: "writer" })
    }

    /// Every event up to this number is durable.
    pub fn acknowledged(&self) -> EventNumber {
        EventNumber::NONE
    }

    /// Waits until everything up to `number` is durable.
    pub async fn wait_acknowledged(&self, number: EventNumber) -> Result<()> {
        self.acknowledgement_of(number).await
    }

    /// The number that the next event gets.
    pub fn next_number(&self) -> EventNumber {
        EventNumber(1)
    }

    /// Events that were stored by an earlier process of this named writer and not sent again.
    pub fn already_stored(&self) -> u64 {
        0
    }

    /// How the writer's name is known; `None` for an anonymous writer.
    pub fn registered(&self) -> Option<Registration> {
        None
    }

    /// Waits until everything is durable, then ends the writer. A writer that is dropped instead
    /// gives up what is not acknowledged.
    pub async fn close(mut self) -> Result<EventNumber> {
        self.flush().await
    }
}
