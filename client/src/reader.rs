//! Reading a stream's events.

mod answers;
mod builder;
pub(crate) mod bytes;
mod channels;
mod frames;
mod memory;
mod reset;
mod scope;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use common::{Offset, SegmentId, StreamCut, StreamId};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, SelectAll};
use futures::{FutureExt, Stream, StreamExt};

use crate::error::{ClientError, Result};
use crate::event::ReadEvent;
use crate::streams::{self, SegmentPlace};
use crate::succession::Succession;
use builder::Beginning;
pub use builder::{EventReaderBuilder, EventReaderStart, ReadFrom, ReadUntil};
use bytes::{Channels, End};
use memory::Memory;
pub use reset::{OnTruncated, Skipped};
use scope::Scope;
use source::{Begins, Common, Step, steps};

/// A sealed segment with its end and its successors, and how those begin.
type Succeeded = (SegmentId, Offset, Vec<SegmentPlace>, Begins);

/// Reads the events of a stream: all its segments side by side, each in order, successors only
/// after everything before them. Events with the same routing key come in the order in which they
/// were appended.
///
/// It is a [`Stream`] of events; [`EventReader::next_batch`] costs less per event. Nothing runs
/// while nobody asks, and memory is bounded, see [`EventReaderBuilder::memory_limit`].
///
#[doc = concat!("```no_run\n", include_str!("../examples/snippets/read_and_go_on.rs"), "```")]
pub struct EventReader {
    /// How it was opened.
    plan: EventReaderBuilder,
    stream: StreamId,
    scope: Scope,
    common: Common,
    sources: SelectAll<BoxStream<'static, Result<Step>>>,
    lookups: FuturesUnordered<BoxFuture<'static, Result<Succeeded>>>,
    succession: Succession,
    /// How far each segment is given out, and how long it is.
    segments: BTreeMap<SegmentId, Progress>,
    /// What is left of the last batch.
    batch: std::vec::IntoIter<ReadEvent>,
    skipped: Vec<Skipped>,
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
            .field("waiting", &self.succession.waiting().count())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl EventReader {
    fn start(plan: EventReaderBuilder, beginning: Beginning) -> Result<Self> {
        let half = plan.half_of_memory();
        let common = Common {
            client: plan.client().clone(),
            channels: Arc::new(Channels::within(half)),
            memory: Memory::new(usize::try_from(half).unwrap_or(usize::MAX)),
            on_truncated: plan.wanted_on_truncated(),
        };
        Self::begin(plan, common, beginning)
    }

    fn begin(plan: EventReaderBuilder, common: Common, beginning: Beginning) -> Result<Self> {
        let mut reader = Self {
            plan,
            stream: beginning.stream,
            scope: beginning.scope,
            common,
            sources: SelectAll::new(),
            lookups: FuturesUnordered::new(),
            succession: Succession::new(),
            segments: BTreeMap::new(),
            batch: Vec::new().into_iter(),
            skipped: Vec::new(),
            ended: false,
        };
        let at = if beginning.at_head { Begins::AtHead } else { Begins::AtOffset };
        for (place, offset) in beginning.places {
            reader.succession.begin(&place);
            reader.add(place, offset, at)?;
        }
        Ok(reader)
    }

    /// Goes on at another place of the same stream. Where the reader ends, and what of the stream it
    /// reads, stays as it was found when it was opened; one that has ended can be sent back. After
    /// an error it is where it was.
    pub async fn seek(&mut self, from: ReadFrom) -> Result<()> {
        // A cut from which it began may have said what is read.
        let plan = self.scope.asked_of(self.plan.clone()).from(from);
        let beginning = plan.find_beginning(self.scope.until().cloned()).await?;
        if beginning.stream != self.stream {
            return Err(ClientError::invalid(
                "the stream was deleted and created again since the reader was opened; open \
                 another one",
            ));
        }
        // Made as a whole before anything of the old place is given up.
        *self = Self::begin(plan, self.common.clone(), beginning)?;
        Ok(())
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
    /// A reader of a part of the stream gives a cut that covers that part.
    pub fn position(&self) -> StreamCut {
        let mut cut = StreamCut::of_part(self.stream, self.scope.coverage());
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

    /// The place behind `event` and everything given out before it, for who works through a batch;
    /// `None` where the reader is done with the event's segment and has gone on behind it. Nothing
    /// is kept for this: it costs what [`EventReader::position`] costs.
    pub fn position_behind(&self, event: &ReadEvent) -> Option<StreamCut> {
        let mut cut = self.position();
        let read_up_to = cut.get(event.segment)?;
        cut.set(event.segment, event.next_offset.min(read_up_to));
        Some(cut)
    }

    /// What was left out since this was last asked, because it was truncated away. Only a reader
    /// that is told [`OnTruncated::Skip`] leaves anything out, and it knows before it gives out what
    /// comes behind.
    pub fn take_skipped(&mut self) -> Vec<Skipped> {
        std::mem::take(&mut self.skipped)
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

    fn add(&mut self, place: SegmentPlace, from: Offset, begins: Begins) -> Result<()> {
        let end = self.scope.end_of(place.segment).map_or(End::Never, End::At);
        let segment = place.segment;
        self.sources.push(steps(self.common.clone(), place, (from, begins), end)?);
        self.segments.insert(segment, Progress { given_out: from, length: from });
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
            Step::Skipped(skipped) => {
                let to = skipped.to.unwrap_or(skipped.from);
                if let Some(progress) = self.segments.get_mut(&skipped.segment) {
                    progress.given_out = to;
                    progress.length = progress.length.max(to);
                }
                self.skipped.push(skipped);
                None
            }
            Step::HeadMoved { segment, to } => {
                if let Some(progress) = self.segments.get_mut(&segment) {
                    (progress.given_out, progress.length) = (to, progress.length.max(to));
                }
                None
            }
            Step::End { segment, at, sealed } => {
                if sealed {
                    self.look_behind(segment, at, Begins::AtOffset);
                }
                None
            }
            Step::Gone { segment, at, begins } => {
                if begins == Begins::AtOffset {
                    self.skipped.push(Skipped { segment, from: at, to: None });
                }
                self.look_behind(segment, at, begins);
                None
            }
        }
    }

    /// Looks up what follows a segment, where that is wanted.
    fn look_behind(&mut self, segment: SegmentId, at: Offset, begins: Begins) {
        if !self.scope.follows(segment) {
            return;
        }
        let client = self.common.client.inner.clone();
        let lookup = async move {
            let find = || streams::successors(&client, segment);
            Ok((segment, at, client.patiently(find).await?, begins))
        };
        self.lookups.push(lookup.boxed());
    }

    fn succeed(&mut self, (segment, end, successors, begins): Succeeded) -> Result<()> {
        if successors.is_empty() {
            // The stream is sealed: the segment's end is a part of the position.
            return Ok(());
        }
        let wanted = successors.into_iter().filter(|place| self.scope.takes(place)).collect();
        self.segments.remove(&segment);
        for place in self.succession.finish(segment, end, wanted) {
            self.add(place, Offset::ZERO, begins)?;
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
