//! One segment as a writer sees it.

use std::collections::VecDeque;

use common::MonotonicTime;
use proto::convert::SegmentPlace;

use super::block::{Block, OpenBlock};
use super::{LinkId, WriterLimits};

/// Into how many blocks what is on its way to a segment is divided, about: one that the disk works
/// on, and others on their way there, in a queue and on their way back.
const BLOCKS_IN_FLIGHT: usize = 4;

/// After a refusal a window grows by one part in so many of what is stored through it.
const WINDOW_GROWTH: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No session, and none wanted.
    Idle,
    /// Queued for an `Open`.
    WantsOpen,
    /// An `Open` is on its way, on this slot.
    Opening(u32),
    /// Blocks may be sent on this slot.
    Open(u32),
    /// To be opened again when its timer says so.
    Paused,
    /// Sealed; its successors have been asked for.
    AwaitingSuccessors,
    /// Sealed and settled: nothing of it is left here.
    Sealed,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) place: SegmentPlace,
    pub(super) link: LinkId,
    pub(super) state: State,
    /// A successor whose predecessors are not all known to be sealed: nothing may be sent to it.
    pub(super) held: bool,
    /// Closed blocks in order of numbers; the first `in_flight` of them are sent in this session.
    pub(super) queue: VecDeque<Block>,
    pub(super) in_flight: usize,
    pub(super) in_flight_bytes: usize,
    /// Bytes that the container took on without refusing: less than the limit after a refusal.
    pub(super) window_bytes: usize,
    pub(super) open: OpenBlock,
    /// The last number sent, or stored at the `Open`: what the next block continues.
    pub(super) chain: u64,
    /// The highest number that the segment said is durable.
    pub(super) acknowledged: u64,
    /// When the segment last said something about the writer.
    pub(super) last_used: MonotonicTime,
    /// A block was once sent: an entry must be there.
    pub(super) resuming: bool,
    /// Whether it stands in its link's queue of segments that may send.
    pub(super) ready: bool,
    /// The first unacknowledged number as the watermark knows it.
    pub(super) front: Option<u64>,
    /// Failures since something was acknowledged.
    pub(super) failures: u32,
    /// Bytes of the last block, for the size of the next buffer.
    pub(super) likely_bytes: usize,
    /// After sealing: who owns its keys now.
    pub(super) successors: Vec<usize>,
}

impl Segment {
    pub(super) fn new(place: SegmentPlace, link: LinkId, held: bool) -> Self {
        Self {
            place,
            link,
            state: State::Idle,
            held,
            queue: VecDeque::new(),
            in_flight: 0,
            in_flight_bytes: 0,
            window_bytes: usize::MAX,
            open: OpenBlock::default(),
            chain: 0,
            acknowledged: 0,
            last_used: MonotonicTime::default(),
            resuming: false,
            ready: false,
            front: None,
            failures: 0,
            likely_bytes: 0,
            successors: Vec::new(),
        }
    }

    pub(super) fn has_data(&self) -> bool {
        !self.queue.is_empty() || !self.open.is_empty()
    }

    pub(super) fn first_number(&self) -> Option<u64> {
        self.queue.front().map(|block| block.first).or_else(|| self.open.first_number())
    }

    /// Whether events may be stored although that is not known.
    pub(super) fn is_uncertain(&self) -> bool {
        self.queue.iter().any(|block| block.sent)
    }

    /// Whether a block may be sent now. With nothing in flight anything goes; otherwise a block
    /// must be full, or have its share of what is in flight, so that blocks grow with what is
    /// outstanding and a few of them keep every part of the road busy.
    #[inline]
    pub(super) fn can_send(&self, limits: &WriterLimits) -> bool {
        if self.held || !matches!(self.state, State::Open(_)) {
            return false;
        }
        let bytes = match self.queue.get(self.in_flight) {
            Some(block) => block.data.len(),
            None if self.open.is_empty() => return false,
            None => {
                let enough = (self.in_flight_bytes / BLOCKS_IN_FLIGHT).min(limits.block_bytes);
                if self.open.bytes() < enough {
                    return false;
                }
                self.open.bytes()
            }
        };
        let window = self.window_bytes.min(limits.window_bytes);
        self.in_flight_bytes == 0 || self.in_flight_bytes + bytes <= window
    }

    /// A full container refused a block: half as much is sent at once from now on, so that many
    /// writers share its queue instead of sending again and again what it cannot take.
    pub(super) fn narrow_window(&mut self, limits: &WriterLimits) {
        let halved = self.window_bytes.min(limits.window_bytes) / 2;
        self.window_bytes = halved.max(limits.block_bytes);
    }

    /// Blocks of so many bytes were stored: the window opens by a part of them.
    pub(super) fn widen_window(&mut self, stored_bytes: usize) {
        self.window_bytes = self.window_bytes.saturating_add(stored_bytes / WINDOW_GROWTH);
    }

    /// The session is over: nothing is in flight any more, everything queued is to be sent again.
    pub(super) fn unsend(&mut self) {
        self.in_flight = 0;
        self.in_flight_bytes = 0;
    }

    pub(super) fn close_block(&mut self, atomic: bool) {
        if !self.open.is_empty() {
            self.likely_bytes = self.open.bytes();
            self.queue.push_back(self.open.close(atomic));
        }
    }
}
