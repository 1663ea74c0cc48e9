//! One segment of a reader as a stream of batches of events.

use std::sync::Arc;

use common::{Offset, SegmentId};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use proto::error::Reason;

use super::bytes::{Channels, End, SegmentStream};
use super::frames::Frames;
use super::memory::{COUNTED_BYTES_MIN, Memory, Room};
use super::reset::{OnTruncated, Skipped};
use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::event::ReadEvent;
use crate::streams::{self, SegmentPlace};

/// What a segment of a reader comes up with.
#[derive(Debug)]
pub(super) enum Step {
    Events {
        segment: SegmentId,
        /// In order, never empty.
        events: Vec<ReadEvent>,
        /// The segment's length as the server told it.
        length: Offset,
    },
    /// What was to be read next was truncated away; the segment goes on where it starts now.
    Skipped(Skipped),
    /// The head moved before anything of the segment came: the segment starts here now.
    HeadMoved { segment: SegmentId, to: Offset },
    /// Nothing more comes of the segment; `sealed`: because it ends here for good.
    End { segment: SegmentId, at: Offset, sealed: bool },
    /// All of the segment was truncated away; `at` is where it was read up to.
    Gone { segment: SegmentId, at: Offset, begins: Begins },
}

/// What a segment is to be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// An offset: what was truncated away behind it is missing.
    AtOffset,
    /// The oldest byte that is kept. Nothing is missing where that moves before anything came.
    AtHead,
}

/// What the segments of a reader share.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) client: Client,
    pub(super) channels: Arc<Channels>,
    pub(super) memory: Arc<Memory>,
    pub(super) on_truncated: OnTruncated,
}

/// The steps of one segment; ends behind an error, [`Step::End`] or [`Step::Gone`].
pub(super) fn steps(
    common: Common,
    place: SegmentPlace,
    (from, begins): (Offset, Begins),
    end: End,
) -> Result<BoxStream<'static, Result<Step>>> {
    let (client, channels) = (common.client.clone(), common.channels.clone());
    let source = Source {
        common,
        frames: Frames::new(place.segment, from),
        segment: place.segment,
        begins,
        bytes: SegmentStream::new(client, place, channels, from, end)?,
        room: None,
    };
    let steps = stream::unfold(Some(source), |source| async move {
        let mut source = source?;
        let step = source.next().await;
        let ends = matches!(step, Err(_) | Ok(Step::End { .. } | Step::Gone { .. }));
        Some((step, (!ends).then_some(source)))
    });
    Ok(steps.boxed())
}

struct Source {
    common: Common,
    segment: SegmentId,
    begins: Begins,
    bytes: SegmentStream,
    frames: Frames,
    /// For the event of which the beginning is here.
    room: Option<Room>,
}

impl Source {
    async fn next(&mut self) -> Result<Step> {
        match self.read_on().await {
            Ok(step) => Ok(step),
            Err(error) => self.lost(error).await,
        }
    }

    async fn read_on(&mut self) -> Result<Step> {
        let segment = self.segment;
        if !self.has_room() {
            self.wait_for_room().await;
        }
        while let Some(bytes) = self.bytes.next().await? {
            let (data, length) = bytes.into_data();
            self.frames.learn(self.bytes.take_times());
            let damaged = |offset, source| ClientError::Damaged { segment, offset, source };
            let events = self.frames.push(data);
            let events = events.map_err(|source| damaged(self.frames.offset(), source))?;
            if !events.is_empty() {
                (self.room, self.begins) = (None, Begins::AtOffset);
                return Ok(Step::Events { segment, events, length });
            }
            if !self.has_room() {
                self.wait_for_room().await;
            }
        }
        let at = self.frames.offset();
        if !self.frames.is_complete() {
            return Err(ClientError::invalid(format!(
                "segment {segment} is to be read up to a place inside the event at offset {at}; \
                 give a stream cut as `braid stream cut` prints it"
            )));
        }
        Ok(Step::End { segment, at, sealed: self.bytes.is_at_sealed_end() })
    }

    /// Whether the rest of the event that has begun to come may be kept.
    fn has_room(&mut self) -> bool {
        let large = self.frames.partial_bytes().filter(|bytes| *bytes > COUNTED_BYTES_MIN);
        let Some(bytes) = large else { return true };
        if self.room.as_ref().is_none_or(|room| room.bytes() < bytes) {
            self.room = self.common.memory.try_room(bytes);
        }
        self.room.is_some()
    }

    /// Gives back what is here of an event and waits until all of it may come.
    async fn wait_for_room(&mut self) {
        let bytes = self.frames.partial_bytes().unwrap_or(COUNTED_BYTES_MIN);
        let offset = self.frames.offset();
        self.frames.go_on_at(offset);
        self.bytes.go_on_at(offset);
        self.room = Some(self.common.memory.room(bytes).await);
    }

    /// Reading failed: where the bytes were truncated away, what comes of that.
    async fn lost(&mut self, error: ClientError) -> Result<Step> {
        let (segment, at, begins) = (self.segment, self.frames.offset(), self.begins);
        let head = begins == Begins::AtHead;
        let goes_on = head || self.common.on_truncated == OnTruncated::Skip;
        match &error {
            ClientError::Truncated { start_offset, .. } if goes_on => {
                let to = *start_offset;
                self.room = None;
                self.frames.go_on_at(to);
                self.bytes.go_on_at(to);
                Ok(match head {
                    true => Step::HeadMoved { segment, to },
                    false => Step::Skipped(Skipped { segment, from: at, to: Some(to) }),
                })
            }
            ClientError::Refused(refusal) if refusal.reason == Reason::SegmentNotFound => {
                let client = &self.common.client.inner;
                let located = || streams::locate(client, std::slice::from_ref(&segment), None);
                if client.patiently(located).await?.truncated.is_empty() {
                    return Err(error);
                }
                match goes_on {
                    true => Ok(Step::Gone { segment, at, begins }),
                    false => Err(ClientError::TruncatedAway { segment }),
                }
            }
            _ => Err(error),
        }
    }
}
