//! Reading a stream's events.

mod answers;
mod builder;
pub(crate) mod bytes;
mod frames;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use common::{Offset, SegmentId, StreamCut, StreamId};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, SelectAll};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};

use crate::client::Client;
use crate::error::Result;
use crate::event::ReadEvent;
use crate::streams::{self, SegmentPlace};
use crate::succession::Succession;
use builder::Scope;
pub use builder::{EventReaderBuilder, ReadFrom, ReadUntil};
use bytes::End;
use source::{Channels, Step, steps};

/// A sealed segment with its end and its successors.
type Succeeded = (SegmentId, Offset, Vec<SegmentPlace>);

/// Reads the events of a stream: all its segments side by side, each in order, successors only
/// after everything before them. Events with the same routing key come in the order in which they
/// were appended.
///
/// It is a [`Stream`] of events; [`EventReader::next_batch`] costs less per event. Nothing runs
/// while nobody asks, and memory is bounded by the flow control of its own connections.
///
#[doc = concat!("```no_run\n", include_str!("../examples/snippets/read_and_go_on.rs"), "```")]
pub struct EventReader {
    client: Client,
    stream: StreamId,
    scope: Scope,
    channels: Channels,
    sources: SelectAll<BoxStream<'static, Result<Step>>>,
    lookups: FuturesUnordered<BoxFuture<'static, Result<Succeeded>>>,
    succession: Succession,
    /// How far each segment is given out, and how long it is.
    segments: BTreeMap<SegmentId, Progress>,
    /// What is left of the last batch.
    batch: std::vec::IntoIter<ReadEvent>,
    ended: bool,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    given_out: Offset,
    length: Offset,
}

impl fmt::Debug for EventReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReader")
            .field("position", &self.position().to_string())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl EventReader {
    fn start(
        client: Client,
        stream: StreamId,
        scope: Scope,
        begin: Vec<(SegmentPlace, Offset)>,
    ) -> Result<Self> {
        let mut reader = Self {
            client,
            stream,
            scope,
            channels: Channels::default(),
            sources: SelectAll::new(),
            lookups: FuturesUnordered::new(),
            succession: Succession::new(),
            segments: BTreeMap::new(),
            batch: Vec::new().into_iter(),
            ended: false,
        };
        for (place, offset) in begin {
            reader.succession.begin(&place);
            reader.add(place, offset)?;
        }
        Ok(reader)
    }

    /// The next event; `None` at the end. After an error the reader has ended.
    pub async fn next(&mut self) -> Option<Result<ReadEvent>> {
        poll_fn(|context| self.poll_event(context)).await
    }

    /// The events that are there, at least one, all of one segment, in order; `None` at the end.
    /// After an error the reader has ended.
    pub async fn next_batch(&mut self) -> Option<Result<Vec<ReadEvent>>> {
        if !self.batch.as_slice().is_empty() {
            return Some(Ok(std::mem::take(&mut self.batch).collect()));
        }
        poll_fn(|context| self.poll_batch(context)).await
    }

    /// The place behind everything given out: a reader from this cut goes on where this one is.
    pub fn position(&self) -> StreamCut {
        let mut cut = StreamCut::new(self.stream);
        for (segment, progress) in &self.segments {
            cut.set(*segment, progress.given_out);
        }
        for (segment, end) in self.succession.waiting() {
            cut.set(segment, end);
        }
        if let Some(next) = self.batch.as_slice().first() {
            cut.set(next.segment, next.offset);
        }
        cut
    }

    /// Bytes of the segments being read that are not given out, as far as the last answers tell.
    pub fn lag_bytes(&self) -> u64 {
        let behind = self.segments.values().map(|p| p.length.0.saturating_sub(p.given_out.0));
        let batch = self.batch.as_slice();
        let in_batch = match (batch.first(), batch.last()) {
            (Some(first), Some(last)) => last.next_offset.0 - first.offset.0,
            _ => 0,
        };
        behind.sum::<u64>() + in_batch
    }

    fn add(&mut self, place: SegmentPlace, from: Offset) -> Result<()> {
        let end = self.scope.end_of(place.segment).map_or(End::Never, End::At);
        let channel = self.channels.lease(&self.client, &place)?;
        self.segments.insert(place.segment, Progress { given_out: from, length: from });
        self.sources.push(steps(self.client.clone(), place, channel, from, end));
        Ok(())
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ReadEvent>>> {
        loop {
            if let Some(event) = self.batch.next() {
                return Poll::Ready(Some(Ok(event)));
            }
            match ready!(self.poll_batch(context)) {
                Some(Ok(batch)) => self.batch = batch.into_iter(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    /// The next batch, given out as a whole.
    fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Vec<ReadEvent>>>> {
        while !self.ended {
            let advanced = match self.lookups.poll_next_unpin(context) {
                Poll::Ready(Some(succeeded)) => Some(succeeded.and_then(|s| self.succeed(s))),
                Poll::Ready(None) | Poll::Pending => None,
            };
            let result = match advanced {
                Some(result) => result.map(|()| None),
                None => match self.sources.poll_next_unpin(context) {
                    Poll::Ready(Some(step)) => step.map(|step| self.advance(step)),
                    Poll::Ready(None) if self.lookups.is_empty() => {
                        self.ended = true;
                        continue;
                    }
                    Poll::Ready(None) | Poll::Pending => return Poll::Pending,
                },
            };
            match result {
                Ok(None) => {}
                Ok(Some(batch)) => return Poll::Ready(Some(Ok(batch))),
                Err(error) => {
                    self.end();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        Poll::Ready(None)
    }

    fn advance(&mut self, step: Step) -> Option<Vec<ReadEvent>> {
        match step {
            Step::Events { segment, events, length } => {
                if let Some(progress) = self.segments.get_mut(&segment) {
                    progress.given_out =
                        events.last().map_or(progress.given_out, |e| e.next_offset);
                    progress.length = length;
                }
                Some(events)
            }
            Step::End { segment, at, sealed } => {
                if sealed && self.scope.follows(segment) {
                    let client = self.client.inner.clone();
                    let lookup = async move {
                        let successors = streams::successors(client, segment).try_collect().await?;
                        Ok((segment, at, successors))
                    };
                    self.lookups.push(lookup.boxed());
                }
                None
            }
        }
    }

    fn succeed(&mut self, (segment, end, successors): Succeeded) -> Result<()> {
        if successors.is_empty() {
            // The stream is sealed: the segment's end is a part of the position.
            return Ok(());
        }
        let wanted = successors.into_iter().filter(|place| self.scope.takes(place)).collect();
        self.segments.remove(&segment);
        for place in self.succession.finish(segment, end, wanted) {
            self.add(place, Offset::ZERO)?;
        }
        Ok(())
    }

    /// Nothing more will come.
    fn end(&mut self) {
        self.ended = true;
        self.sources = SelectAll::new();
        self.lookups = FuturesUnordered::new();
    }
}

impl Stream for EventReader {
    type Item = Result<ReadEvent>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<ReadEvent>>> {
        self.poll_event(context)
    }
}
