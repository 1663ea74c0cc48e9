//! Appending events to a stream.

mod acknowledged;
mod attend;
mod builder;
mod progress;
mod replay;
mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{EventNumber, WriterEpoch};

use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::event::Event;
use crate::session::{Pushed, WriterCore};

pub use acknowledged::Acknowledged;
pub use builder::{EventWriterBuilder, NamedWriterBuilder, ReplayWriterBuilder};
pub use replay::ReplayWriter;
pub(crate) use shared::Shared;

/// How a named writer is known to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registration {
    /// False: the name was known, so that its events may already be stored.
    pub created: bool,
    /// Which of the name's processes this is.
    pub epoch: WriterEpoch,
}

/// Bytes after which a writer that never has to wait lets other tasks of its thread run.
const YIELD_BYTES: usize = common::limits::APPEND_BLOCK_BYTES_TARGET;

/// How long the end of a writer waits for stores to forget it.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// What the clones of a writer share. Dropped with the last one, it ends the writer.
#[derive(Debug)]
struct Owned {
    /// Keeps the client's connections alive.
    _client: Client,
    shared: Arc<Shared>,
    registration: Option<Registration>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.shared.close();
        self.shared.leave();
    }
}

impl Owned {
    /// Pushes into the core until there is room.
    async fn push_patiently(
        &self,
        mut push: impl FnMut(&mut WriterCore) -> Result<Pushed>,
    ) -> Result<EventNumber> {
        loop {
            // Heard of from here on, so that room that comes behind the push is not missed.
            let room = self.shared.room.notified();
            let mut room = std::pin::pin!(room);
            room.as_mut().enable();
            if let Some(number) = self.try_push(&mut push)? {
                return Ok(number);
            }
            room.await;
        }
    }

    #[inline]
    fn try_push(
        &self,
        push: impl FnOnce(&mut WriterCore) -> Result<Pushed>,
    ) -> Result<Option<EventNumber>> {
        let mut core = self.shared.core();
        let pushed = push(&mut core);
        self.shared.pushed(core, pushed.is_err());
        Ok(match pushed? {
            Pushed::Taken(number) | Pushed::Stored(number) => Some(number),
            Pushed::Full => None,
        })
    }

    /// Waits until everything appended so far is durable; returns the last number.
    async fn flush(&self) -> Result<EventNumber> {
        let last = {
            let core = self.shared.core();
            core.check_replayed()?;
            EventNumber(core.next_number().0 - 1)
        };
        self.shared.reached(last).await?;
        Ok(last)
    }

    async fn flush_within(&self, deadline: Duration) -> Result<EventNumber> {
        match tokio::time::timeout(deadline, self.flush()).await {
            Ok(flushed) => flushed,
            Err(_) => {
                let core = self.shared.core();
                Err(ClientError::NotFlushed {
                    waited: deadline,
                    acknowledged: core.acknowledged(),
                    last: EventNumber(core.next_number().0 - 1),
                    trouble: core.trouble().unwrap_or("nothing is known to be wrong").to_owned(),
                })
            }
        }
    }

    /// Ends the writer, and waits a little for the stores to forget it.
    async fn close(&self) {
        self.shared.close();
        // What is not heard within the time is forgotten later, by itself.
        let _ = tokio::time::timeout(CLOSE_PATIENCE, self.shared.closed()).await;
    }
}

/// Appends events to a stream, each exactly once, in the order of their numbers per routing key.
///
/// Events are gathered into blocks as large as the load asks for: alone, an event is sent at once.
/// Lost connections and restarted servers are ridden out without loss and without doubles.
///
/// A writer may be cloned and used from many tasks. What one task appends for a key keeps its
/// order; between tasks there is none. With [`retry_deadline`](crate::ClientConfig::retry_deadline)
/// a segment that acknowledges nothing for so long is given up: its events, and later ones for its
/// keys, fail with [`ErrorKind::OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown), and those of
/// other segments go on.
///
#[doc = concat!("```no_run\n", include_str!("../examples/snippets/append_events.rs"), "```")]
///
/// Many tasks may share one, and each may wait for its own event:
///
#[doc = concat!("```no_run\n", include_str!("../examples/snippets/shared_writer.rs"), "```")]
///
/// A named writer is known again when its process is started anew, and an older process of the
/// name that still runs is fenced. What its numbers mean is said at
/// [`EventWriterBuilder::named`]: for a source that is read again from its beginning there is the
/// [`ReplayWriter`]; a writer that [`continues`](NamedWriterBuilder::continues) goes on behind
/// [`EventWriter::stored_through`]:
///
#[doc = concat!("```no_run\n", include_str!("../examples/snippets/continue_feed.rs"), "```")]
#[derive(Debug)]
pub struct EventWriter {
    owned: Arc<Owned>,
    since_yield: AtomicUsize,
}

impl Clone for EventWriter {
    fn clone(&self) -> Self {
        Self::new(self.owned.clone())
    }
}

impl EventWriter {
    fn new(owned: Arc<Owned>) -> Self {
        Self { owned, since_yield: AtomicUsize::new(0) }
    }

    /// Takes the event for sending and returns its number. Waits only for memory; the event is
    /// durable once [`EventWriter::acknowledged`] has reached its number. Fails where the event's
    /// segment was given up.
    pub async fn append(&self, event: Event<'_>) -> Result<EventNumber> {
        // Nothing is waited for behind the push: a future that is dropped has not taken the event.
        self.let_others_run(event.payload.len()).await;
        if let Some(number) = self.try_append(event)? {
            return Ok(number);
        }
        self.owned.push_patiently(|core| core.push(&event.framing())).await
    }

    /// As [`EventWriter::append`], without ever waiting: `None` where memory is used up.
    pub fn try_append(&self, event: Event<'_>) -> Result<Option<EventNumber>> {
        self.owned.try_push(|core| core.push(&event.framing()))
    }

    /// As [`EventWriter::append`], with a handle to this event's acknowledgement, which waits for
    /// no other segment than the event's own.
    pub async fn append_tracked(&self, event: Event<'_>) -> Result<Acknowledged> {
        self.let_others_run(event.payload.len()).await;
        let mut awaited = None;
        let push = |core: &mut WriterCore| {
            let pushed = core.push(&event.framing())?;
            if let Pushed::Taken(number) | Pushed::Stored(number) = pushed {
                awaited = Some(core.awaited(event.key, number));
            }
            Ok(pushed)
        };
        self.owned.push_patiently(push).await?;
        let awaited = awaited.expect("what was taken can be waited for");
        Ok(Acknowledged::new(self.owned.shared.clone(), awaited))
    }

    /// Appends events of one routing key that are stored all or none; at most 8 MiB of them,
    /// framing included. Returns the last one's number; the others have the numbers before it.
    pub async fn append_batch(&self, key: &str, events: &[Event<'_>]) -> Result<EventNumber> {
        let events: Vec<_> = events.iter().map(Event::framing).collect();
        self.owned.push_patiently(|core| core.push_batch(key, &events)).await
    }

    /// As [`EventWriter::append_batch`], without ever waiting: `None` where memory is used up.
    pub fn try_append_batch(&self, key: &str, events: &[Event<'_>]) -> Result<Option<EventNumber>> {
        let events: Vec<_> = events.iter().map(Event::framing).collect();
        self.owned.try_push(|core| core.push_batch(key, &events))
    }

    /// Waits until everything appended so far, by any clone, is durable; returns the last number.
    /// Fails as soon as that cannot come any more because a segment was given up, which needs
    /// [`retry_deadline`](crate::ClientConfig::retry_deadline); without one it waits for ever.
    pub async fn flush(&self) -> Result<EventNumber> {
        self.owned.flush().await
    }

    /// As [`EventWriter::flush`], for at most `deadline`; then it fails with
    /// [`ClientError::NotFlushed`], and the writer goes on.
    pub async fn flush_within(&self, deadline: Duration) -> Result<EventNumber> {
        self.owned.flush_within(deadline).await
    }

    /// Every event up to this number is durable. It never passes an event of a segment that was
    /// given up.
    pub fn acknowledged(&self) -> EventNumber {
        self.owned.shared.acknowledged()
    }

    /// Waits until everything up to `number` is durable.
    pub async fn wait_acknowledged(&self, number: EventNumber) -> Result<()> {
        self.owned.shared.reached(number).await
    }

    /// The number that the next event gets.
    pub fn next_number(&self) -> EventNumber {
        self.owned.shared.core().next_number()
    }

    /// The highest number that earlier processes of this name stored, 0 for none: this writer's
    /// numbers begin behind it. Lower ones may be missing: what was on its way to one segment when
    /// a process crashed is lost, also where later events of other segments are stored. A program
    /// that must not lose them keeps its source, and gives it to a [`ReplayWriter`].
    pub fn stored_through(&self) -> EventNumber {
        self.owned.shared.core().stored_through()
    }

    /// Bytes of events that are not acknowledged.
    pub fn outstanding_bytes(&self) -> usize {
        self.owned.shared.core().memory_used()
    }

    /// What stands in the way of acknowledgements at the moment, in words for people; `None` while
    /// all is well. The writer goes on trying until
    /// [`ClientConfig::retry_deadline`](crate::ClientConfig::retry_deadline).
    pub fn trouble(&self) -> Option<String> {
        self.owned.shared.core().trouble().map(str::to_owned)
    }

    /// How the writer's name is known; `None` for an anonymous writer.
    pub fn registered(&self) -> Option<Registration> {
        self.owned.registration
    }

    /// Takes no more events, from any clone; waits until everything is durable, then ends the
    /// writer for all of them, and lets the stores forget an anonymous one. Where that fails, or is
    /// not waited for, the clones take no events either. A writer whose last clone is dropped instead
    /// gives up what is not acknowledged.
    pub async fn close(self) -> Result<EventNumber> {
        self.owned.shared.take_no_more();
        let last = self.flush().await?;
        self.owned.close().await;
        Ok(last)
    }

    /// A writer that always has memory would otherwise keep its thread to itself.
    async fn let_others_run(&self, bytes: usize) {
        // Tasks that share a clone may lose a count: it need not be exact.
        let since = self.since_yield.load(Ordering::Relaxed) + bytes;
        if since < YIELD_BYTES {
            self.since_yield.store(since, Ordering::Relaxed);
            return;
        }
        self.since_yield.store(0, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}
