//! Appending events to a stream.

mod attend;
mod builder;
mod progress;
mod shared;

use std::sync::Arc;

use common::{EventNumber, WriterEpoch};

use crate::client::Client;
use crate::error::Result;
use crate::event::Event;
use crate::session::Pushed;

pub use builder::EventWriterBuilder;
pub use progress::Acknowledged;
pub(crate) use shared::Shared;

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

/// Bytes after which a writer that never has to wait lets other tasks of its thread run.
const YIELD_BYTES: usize = common::limits::APPEND_BLOCK_BYTES_TARGET;

/// Appends events to a stream, each exactly once, in the order of their numbers per routing key.
///
/// Events are gathered into blocks as large as the load asks for: alone, an event is sent at once.
/// Lost connections and restarted servers are ridden out without loss and without doubles.
///
#[doc = concat!("```no_run\n", include_str!("../examples/snippets/append_events.rs"), "```")]
///
/// A named writer goes on where an earlier process of the same name ended: it is given the same
/// events in the same order again, and sends only those that are not stored yet.
///
#[doc = concat!("```no_run\n", include_str!("../examples/snippets/resume_import.rs"), "```")]
#[derive(Debug)]
pub struct EventWriter {
    /// Keeps the client's connections alive.
    _client: Client,
    shared: Arc<Shared>,
    registration: Option<Registration>,
    since_yield: usize,
}

impl Drop for EventWriter {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl EventWriter {
    /// Takes the event for sending and returns its number. Waits only for memory; the event is
    /// durable once [`EventWriter::acknowledged`] has reached its number.
    pub async fn append(&mut self, event: Event<'_>) -> Result<EventNumber> {
        // Nothing is waited for behind the push: a future that is dropped has not taken the event.
        self.let_others_run(event.payload.len()).await;
        loop {
            if let Some(number) = self.try_append(event)? {
                return Ok(number);
            }
            self.shared.room_for(event.stored_bytes()?).await?;
        }
    }

    /// As [`EventWriter::append`], without ever waiting: `None` where memory is used up.
    pub fn try_append(&mut self, event: Event<'_>) -> Result<Option<EventNumber>> {
        let mut core = self.shared.core();
        let pushed = core.push(&event.framing())?;
        self.shared.pushed(core);
        Ok(number_of(pushed))
    }

    /// As [`EventWriter::append`], with a future for this event's acknowledgement.
    pub async fn append_tracked(
        &mut self,
        event: Event<'_>,
    ) -> Result<(EventNumber, Acknowledged)> {
        let number = self.append(event).await?;
        Ok((number, self.acknowledgement_of(number)))
    }

    /// Appends events of one routing key that are stored all or none; at most 8 MiB of them,
    /// framing included. Returns the last one's number; the others have the numbers before it.
    pub async fn append_batch(&mut self, key: &str, events: &[Event<'_>]) -> Result<EventNumber> {
        loop {
            if let Some(number) = self.try_append_batch(key, events)? {
                return Ok(number);
            }
            let mut bytes = 0;
            for event in events {
                bytes += event.key(key).stored_bytes()?;
            }
            self.shared.room_for(bytes).await?;
        }
    }

    /// As [`EventWriter::append_batch`], without ever waiting: `None` where memory is used up.
    pub fn try_append_batch(
        &mut self,
        key: &str,
        events: &[Event<'_>],
    ) -> Result<Option<EventNumber>> {
        let events: Vec<_> = events.iter().map(Event::framing).collect();
        let mut core = self.shared.core();
        let pushed = core.push_batch(key, &events)?;
        self.shared.pushed(core);
        Ok(number_of(pushed))
    }

    /// A future for the acknowledgement of everything up to `number`.
    pub fn acknowledgement_of(&self, number: EventNumber) -> Acknowledged {
        self.shared.acknowledgement_of(number)
    }

    /// Waits until everything appended so far is durable; returns the last number.
    pub async fn flush(&mut self) -> Result<EventNumber> {
        let last = EventNumber(self.next_number().0 - 1);
        self.wait_acknowledged(last).await?;
        Ok(last)
    }

    /// Every event up to this number is durable.
    pub fn acknowledged(&self) -> EventNumber {
        self.shared.acknowledged()
    }

    /// Waits until everything up to `number` is durable.
    pub async fn wait_acknowledged(&self, number: EventNumber) -> Result<()> {
        self.acknowledgement_of(number).await
    }

    /// The number that the next event gets.
    pub fn next_number(&self) -> EventNumber {
        self.shared.core().next_number()
    }

    /// Bytes of events that are not acknowledged.
    pub fn outstanding_bytes(&self) -> usize {
        self.shared.core().memory_used()
    }

    /// Events that were stored by an earlier process of this named writer and not sent again.
    pub fn already_stored(&self) -> u64 {
        self.shared.core().already_stored()
    }

    /// What stands in the way of acknowledgements at the moment, in words for people; `None` while
    /// all is well. The writer goes on trying until
    /// [`ClientConfig::retry_deadline`](crate::ClientConfig::retry_deadline).
    pub fn trouble(&self) -> Option<String> {
        self.shared.core().trouble().map(str::to_owned)
    }

    /// How the writer's name is known; `None` for an anonymous writer.
    pub fn registered(&self) -> Option<Registration> {
        self.registration
    }

    /// Waits until everything is durable, then ends the writer. A writer that is dropped instead
    /// gives up what is not acknowledged.
    pub async fn close(mut self) -> Result<EventNumber> {
        self.flush().await
    }

    /// A writer that always has memory would otherwise keep its thread to itself.
    async fn let_others_run(&mut self, bytes: usize) {
        self.since_yield += bytes;
        if self.since_yield >= YIELD_BYTES {
            self.since_yield = 0;
            tokio::task::yield_now().await;
        }
    }
}

fn number_of(pushed: Pushed) -> Option<EventNumber> {
    match pushed {
        Pushed::Taken(number) | Pushed::Stored(number) => Some(number),
        Pushed::Full => None,
    }
}
