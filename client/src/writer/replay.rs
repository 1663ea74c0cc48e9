//! A named writer that is given the same events again after a restart.

use std::time::Duration;

use common::EventNumber;

use super::{EventWriter, Registration};
use crate::error::Result;
use crate::event::Event;

/// Appends the events of a source that is always the same: the n-th event that is appended is the
/// n-th of the source, in each process of the name. What is stored already is not stored again, so
/// that nothing is lost and nothing doubled however often the process is killed.
///
#[doc = concat!("```no_run\n", include_str!("../../examples/snippets/resume_import.rs"), "```")]
///
/// That the source is the same is proven: each segment keeps a sum over what it stored of the
/// writer, and nothing is sent to it before the source has brought the same sum again. A difference
/// ends the writer with [`ClientError::SourceDiffers`](crate::ClientError::SourceDiffers); a source
/// that ends before [`ReplayWriter::stored_through`] proves nothing, and
/// [`flush`](ReplayWriter::flush) and [`close`](ReplayWriter::close) fail with
/// [`ClientError::SourceEnds`](crate::ClientError::SourceEnds). Both are of the kind
/// [`ErrorKind::OtherSource`](crate::ErrorKind::OtherSource).
///
/// Order is the meaning here, so that the writer can be neither cloned nor shared.
#[derive(Debug)]
pub struct ReplayWriter {
    writer: EventWriter,
}

impl ReplayWriter {
    pub(super) fn new(writer: EventWriter) -> Self {
        Self { writer }
    }

    /// Takes the next event of the source and returns its number. Waits only for memory; the event
    /// is durable once [`ReplayWriter::acknowledged`] has reached its number.
    pub async fn append(&mut self, event: Event<'_>) -> Result<EventNumber> {
        self.writer.append(event).await
    }

    /// As [`ReplayWriter::append`], without ever waiting: `None` where memory is used up.
    pub fn try_append(&mut self, event: Event<'_>) -> Result<Option<EventNumber>> {
        self.writer.try_append(event)
    }

    /// Appends events of one routing key that are stored all or none; at most 8 MiB of them,
    /// framing included. A batch has the same edges each time. Returns the last one's number.
    pub async fn append_batch(&mut self, key: &str, events: &[Event<'_>]) -> Result<EventNumber> {
        self.writer.append_batch(key, events).await
    }

    /// As [`ReplayWriter::append_batch`], without ever waiting: `None` where memory is used up.
    pub fn try_append_batch(
        &mut self,
        key: &str,
        events: &[Event<'_>],
    ) -> Result<Option<EventNumber>> {
        self.writer.try_append_batch(key, events)
    }

    /// Waits until everything appended so far is durable; returns the last number. Where the
    /// source has not come to [`ReplayWriter::stored_through`], nothing proves that what is stored
    /// is this source: then it fails with
    /// [`ClientError::SourceEnds`](crate::ClientError::SourceEnds), and the writer takes further
    /// events. Otherwise as [`EventWriter::flush`].
    pub async fn flush(&mut self) -> Result<EventNumber> {
        self.writer.flush().await
    }

    /// As [`ReplayWriter::flush`], for at most `deadline`; then it fails with
    /// [`ClientError::NotFlushed`](crate::ClientError::NotFlushed), and the writer goes on.
    pub async fn flush_within(&mut self, deadline: Duration) -> Result<EventNumber> {
        self.writer.flush_within(deadline).await
    }

    /// Every event up to this number is durable, and is this source's.
    pub fn acknowledged(&self) -> EventNumber {
        self.writer.acknowledged()
    }

    /// Waits until everything up to `number` is durable, and is proven to be this source's.
    pub async fn wait_acknowledged(&self, number: EventNumber) -> Result<()> {
        self.writer.wait_acknowledged(number).await
    }

    /// The number that the next event gets.
    pub fn next_number(&self) -> EventNumber {
        self.writer.next_number()
    }

    /// The highest number that earlier processes of this name stored, 0 for none. Lower ones may be
    /// missing after a crash: the replay stores them.
    pub fn stored_through(&self) -> EventNumber {
        self.writer.stored_through()
    }

    /// Events that were stored by an earlier process and not sent again.
    pub fn already_stored(&self) -> u64 {
        self.writer.owned.shared.core().already_stored()
    }

    /// Bytes of events that are not acknowledged.
    pub fn outstanding_bytes(&self) -> usize {
        self.writer.outstanding_bytes()
    }

    /// As [`EventWriter::trouble`].
    pub fn trouble(&self) -> Option<String> {
        self.writer.trouble()
    }

    /// How the writer's name is known.
    pub fn registered(&self) -> Registration {
        self.writer.registered().expect("a writer that replays has a name")
    }

    /// Waits until everything is durable, as [`ReplayWriter::flush`], then ends the writer. One
    /// that is dropped instead gives up what is not acknowledged.
    pub async fn close(self) -> Result<EventNumber> {
        self.writer.close().await
    }
}
