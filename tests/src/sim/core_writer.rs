//! The client library's writer state machine, as the simulation drives it.

use std::collections::BTreeMap;

use client::session::{LinkId, Pushed, Slots, WriterCore, WriterIdentity, WriterLimits};
use common::{MonotonicTime, Rng, ScopedStream};
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
}

#[derive(Debug)]
pub(super) struct CoreWriter {
    core: WriterCore,
    slots: Slots,
    /// Unacknowledged operations of the history by their last number.
    ops: BTreeMap<u64, u64>,
    index: u32,
}

impl CoreWriter {
    pub(super) fn new(
        index: u32,
        stream: ScopedStream,
        identity: WriterIdentity,
        places: Vec<SegmentPlace>,
        block_bytes: usize,
        rng: Rng,
    ) -> Self {
        let limits = WriterLimits { block_bytes, ..WriterLimits::default() };
        let core = WriterCore::new(stream, identity, limits, places, rng)
            .expect("the controller's places tile the key space");
        Self { core, slots: Slots::default(), ops: BTreeMap::new(), index }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.core.is_ready() && self.core.failed().is_none()
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.core.failed().map(|error| format!("{:?}: {error}", error.kind()))
    }

    pub(super) fn pending(&self) -> usize {
        self.ops.len()
    }

    /// Gives an append to the writer; `Some(true)` when an earlier process had stored it, `None`
    /// when the writer refuses everything.
    pub(super) fn push(&mut self, op: u64, given: &Given) -> Option<bool> {
        let text = payload::key_text(given.events[0].key);
        let payloads: Vec<Vec<u8>> = given
            .events
            .iter()
            .map(|event| payload::payload(self.index, event.number, event.key, given.filler))
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
            Ok(Pushed::Taken(number)) => {
                assert_eq!(number.0, last, "the writer numbers events as the workload does");
                self.ops.insert(last, op);
                Some(false)
            }
            Ok(Pushed::Stored(number)) => {
                assert_eq!(number.0, last, "the writer numbers events as the workload does");
                Some(true)
            }
            Ok(Pushed::Full) => unreachable!("simulated writers stay far below their memory limit"),
            Err(_) => None,
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
        let still = self.ops.split_off(&(self.core.acknowledged().0 + 1));
        let acknowledged = std::mem::replace(&mut self.ops, still);
        acknowledged.into_values().map(|op| Notice::Acknowledged { op }).collect()
    }

    pub(super) fn on_disconnect(&mut self) {
        self.slots = Slots::default();
        self.core.on_disconnect(LINK, "the simulated connection broke");
    }

    /// Does what is due; tells when there is something to do next.
    pub(super) fn on_time(&mut self, now: MonotonicTime) -> Option<u64> {
        self.core.set_boot_time(now);
        self.core.on_time(now);
        // Segments of a simulated stream neither move nor have successors to be asked for.
        self.core.take_relocate();
        self.core.take_lookups();
        self.core.next_time().map(|time| time.0)
    }
}
