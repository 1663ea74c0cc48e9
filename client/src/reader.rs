//! Reading a stream's events.

use std::pin::Pin;
use std::task::{Context, Poll};

use common::{KeyRange, ScopedStream, SegmentId, StreamCut, StreamId, WallTime};
use futures::Stream;

use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::event::ReadEvent;

/// Where reading begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReadFrom {
    /// At the oldest event that is kept.
    Head,
    /// Behind the newest event.
    #[default]
    Tail,
    /// At a stream cut.
    Cut(StreamCut),
    /// At the first event stored at or after a time; some stored shortly before may come, too.
    Time(WallTime),
}

/// Where reading ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReadUntil {
    /// At the end of a sealed stream; otherwise it follows the tail.
    #[default]
    Never,
    /// At the tail as it was when the reader was opened.
    Tail,
    /// Before a stream cut.
    Cut(StreamCut),
    /// Before the first event stored at or after a time that has passed.
    Time(WallTime),
}

/// Chooses what an [`EventReader`] reads.
#[derive(Debug, Clone)]
pub struct EventReaderBuilder {
    client: Client,
    stream: ScopedStream,
    from: ReadFrom,
    until: ReadUntil,
    segments: Vec<SegmentId>,
    key_range: KeyRange,
}

impl EventReaderBuilder {
    pub(crate) fn new(client: Client, stream: ScopedStream) -> Self {
        Self {
            client,
            stream,
            from: ReadFrom::default(),
            until: ReadUntil::default(),
            segments: Vec::new(),
            key_range: KeyRange::ALL,
        }
    }

    /// Where to begin; the tail unless told.
    pub fn from(mut self, from: ReadFrom) -> Self {
        self.from = from;
        self
    }

    /// Where to end; never unless told.
    pub fn until(mut self, until: ReadUntil) -> Self {
        self.until = until;
        self
    }

    /// Only these segments, to their ends; successors are not followed.
    pub fn segments(mut self, segments: Vec<SegmentId>) -> Self {
        self.segments = segments;
        self
    }

    /// Only segments that own a part of `range`.
    pub fn key_range(mut self, range: KeyRange) -> Self {
        self.key_range = range;
        self
    }

    /// Locates the stream's segments and begins to read.
    pub async fn open(self) -> Result<EventReader> {
        let _ = (self.client, self.from, self.until, self.segments, self.key_range);
        Err(ClientError::protocol(format!("{} cannot be read yet", self.stream)))
    }
}

/// Reads events: a [`Stream`] of them, or [`EventReader::next`], or, faster,
/// [`EventReader::next_batch`].
#[derive(Debug)]
pub struct EventReader {
    stream: StreamId,
}

impl EventReader {
    /// The next event; `None` at the end. After an error the reader has ended.
    pub async fn next(&mut self) -> Option<Result<ReadEvent>> {
        None
    }

    /// The events that are there, at least one, all of one segment, in order; `None` at the end.
    pub async fn next_batch(&mut self) -> Option<Result<Vec<ReadEvent>>> {
        None
    }

    /// The place behind everything given out: a reader from this cut goes on where this one is.
    pub fn position(&self) -> StreamCut {
        StreamCut::new(self.stream)
    }

    /// Bytes that are stored but not given out, as far as the last answers tell.
    pub fn lag_bytes(&self) -> u64 {
        0
    }
}

impl Stream for EventReader {
    type Item = Result<ReadEvent>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}
