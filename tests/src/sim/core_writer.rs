//! The client library's writer state machine, as the simulation drives it.

use std::collections::BTreeMap;

use client::ClientError;
use client::session::{LinkId, Pushed, Slots, WriterCore, WriterIdentity, WriterLimits};
use common::{MonotonicTime, Rng, ScopedStream, SegmentId};
use proto::convert::SegmentPlace;
use proto::framing::EventRef as Frame;
use proto::v1;

use super::raw_writer::Notice;
use crate::history::EventRef;
use crate::payload;

/// The simulated store is the only one.
const LINK: LinkId = LinkId(0);

/// What a writer is given: one event, or several of one key to be stored together.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) events: Vec<EventRef>,
    pub(super) filler: usize,
    /// Whose events they are in the history.
    pub(super) author: u32,
}

#[derive(Debug)]
pub(super) struct CoreWriter {
    core: WriterCore,
    slots: Slots,
    /// Unacknowledged operations of the history by their last number.
    ops: BTreeMap<u64, u64>,
}

impl CoreWriter {
    pub(super) fn new(
        stream: ScopedStream,
        identity: WriterIdentity,
        places: Vec<SegmentPlace>,
        block_bytes: usize,
        rng: Rng,
    ) -> Self {
        let limits = WriterLimits { block_bytes, ..WriterLimits::default() };
        let core = WriterCore::new(stream, identity, limits, places, rng)
            .expect("the controller's places tile the key space");
        Self { core, slots: Slots::default(), ops: BTreeMap::new() }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.core.is_ready() && self.core.failed().is_none()
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.core.failed().map(|error| format!("{:?}: {error}", error.kind()))
    }

    /// Whether it ended because its source is not the one that is stored.
    pub(super) fn source_differs(&self) -> bool {
        matches!(self.core.failed(), Some(ClientError::SourceDiffers { .. }))
    }

    /// The number that the next event gets.
    pub(super) fn next_number(&self) -> u64 {
        self.core.next_number().0
    }

    /// Whether the next event may be stored already.
    pub(super) fn is_replaying(&self) -> bool {
        self.core.next_number() <= self.core.stored_through()
    }

    pub(super) fn pending(&self) -> usize {
        self.ops.len()
    }

    /// Gives an append to the writer; false when it refuses everything.
    pub(super) fn push(&mut self, op: u64, given: &Given) -> bool {
        let text = payload::key_text(given.events[0].key);
        let payloads: Vec<Vec<u8>> = given
            .events
            .iter()
            .map(|event| payload::payload(given.author, event.number, event.key, given.filler))
            .collect();
        let frame = |payload| Frame { key: Some(&text), ..Frame::new(payload) };
        let pushed = match &payloads[..] {
            [one] => self.core.push(&frame(one)),
            many => {
                let frames: Vec<Frame<'_>> = many.iter().map(|one| frame(one)).collect();
                self.core.push_batch(&text, &frames)
            }
        };
        let last = given.events.last().map_or(0, |event| event.number);
        match pushed {
            Ok(Pushed::Taken(number) | Pushed::Stored(number)) => {
                assert_eq!(number.0, last, "the writer numbers events as the workload does");
                self.ops.insert(last, op);
                true
            }
            Ok(Pushed::Full) => unreachable!("simulated writers stay far below their memory limit"),
            Err(_) => false,
        }
    }

    pub(super) fn poll_send(&mut self) -> Option<v1::AppendRequest> {
        self.core.take_wakes();
        self.core.poll_send(LINK, &mut self.slots)
    }

    pub(super) fn on_response(
        &mut self,
        response: v1::AppendResponse,
        now: MonotonicTime,
    ) -> Vec<Notice> {
        self.core.set_boot_time(now);
        self.core.on_response(LINK, response, now);
        self.take_acknowledged()
    }

    /// What is durable now, by the library's own word: the ordered watermark.
    pub(super) fn take_acknowledged(&mut self) -> Vec<Notice> {
        let still = self.ops.split_off(&(self.core.acknowledged().0 + 1));
        let acknowledged = std::mem::replace(&mut self.ops, still);
        acknowledged.into_values().map(|op| Notice::Acknowledged { op }).collect()
    }

    /// The sessions that a writer which ends here asks to be closed.
    pub(super) fn close(&mut self) -> Vec<u32> {
        self.core.close_sessions().remove(&LINK).unwrap_or_default()
    }

    pub(super) fn on_disconnect(&mut self) {
        self.slots = Slots::default();
        self.core.on_disconnect(LINK, "the simulated connection broke");
    }

    /// Does what is due; tells the segments whose successors the controller is asked for.
    pub(super) fn on_time(&mut self, now: MonotonicTime) -> Vec<SegmentId> {
        self.core.set_boot_time(now);
        self.core.on_time(now);
        // Segments of a simulated stream do not move.
        self.core.take_relocate();
        self.core.take_lookups()
    }

    pub(super) fn on_successors(
        &mut self,
        segment: SegmentId,
        successors: Vec<SegmentPlace>,
        now: MonotonicTime,
    ) {
        self.core.on_successors(segment, successors, now);
    }
}
