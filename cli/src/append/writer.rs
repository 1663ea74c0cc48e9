//! The writer behind an append: anonymous or continuing, or one that replays its input.

use client::{Client, ClientError, ErrorKind, Event, EventNumber, EventWriter, ReplayWriter};

use super::Args;

/// Which of the library's writers it is.
pub(super) enum Writer {
    Appends(EventWriter),
    Replays(ReplayWriter),
}

impl Writer {
    pub(super) async fn open(args: &Args, client: &Client) -> client::Result<Self> {
        let builder = client.event_writer(&args.stream);
        let Some(name) = &args.writer else { return Ok(Self::Appends(builder.open().await?)) };
        let builder = builder.named(name.clone());
        if args.continues {
            return Ok(Self::Appends(builder.continues().open().await?));
        }
        Ok(Self::Replays(builder.replays().open().await?))
    }

    pub(super) fn try_append(&mut self, event: Event<'_>) -> client::Result<Option<EventNumber>> {
        match self {
            Self::Appends(writer) => writer.try_append(event),
            Self::Replays(writer) => writer.try_append(event),
        }
    }

    pub(super) async fn append(&mut self, event: Event<'_>) -> client::Result<EventNumber> {
        match self {
            Self::Appends(writer) => writer.append(event).await,
            Self::Replays(writer) => writer.append(event).await,
        }
    }

    pub(super) async fn flush(&mut self) -> client::Result<EventNumber> {
        match self {
            Self::Appends(writer) => writer.flush().await,
            Self::Replays(writer) => writer.flush().await,
        }
    }

    /// How many events of the input are durable, counted from its beginning.
    pub(super) fn acknowledged(&self) -> u64 {
        match self {
            Self::Appends(writer) => writer.acknowledged().0 - writer.stored_through().0,
            Self::Replays(writer) => writer.acknowledged().0,
        }
    }

    /// Events of the input that an earlier run stored.
    pub(super) fn already_stored(&self) -> u64 {
        match self {
            Self::Appends(_) => 0,
            Self::Replays(writer) => writer.already_stored(),
        }
    }

    pub(super) fn trouble(&self) -> Option<String> {
        match self {
            Self::Appends(writer) => writer.trouble(),
            Self::Replays(writer) => writer.trouble(),
        }
    }

    /// Ends the writer when everything is stored.
    pub(super) async fn close(self) -> client::Result<EventNumber> {
        match self {
            Self::Appends(writer) => writer.close().await,
            Self::Replays(writer) => writer.close().await,
        }
    }
}

/// Whether the writer only misses the rest of its input.
pub(super) fn ends_early(error: &ClientError) -> bool {
    error.kind() == ErrorKind::OtherSource && matches!(error, ClientError::SourceEnds { .. })
}
