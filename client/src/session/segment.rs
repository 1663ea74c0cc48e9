//! One segment as a writer sees it.

use std::collections::VecDeque;

use common::MonotonicTime;
use proto::convert::SegmentPlace;

use super::block::{Block, OpenBlock};
use super::forgotten::Absence;
use super::{LinkId, WriterLimits};
use crate::error::ClientError;
use crate::waiters::Waiters;

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
    /// Given up: see the segment's failure.
    Failed,
}

/// A sum of events' hashes, and the number behind which it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sum {
    pub(super) value: u64,
    pub(super) after: u64,
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
    /// Of everything in `queue` and `open`.
    pub(super) bytes: usize,
    /// The last number sent, or stored at the `Open`: what the next block continues.
    pub(super) chain: u64,
    /// The sum behind that number.
    pub(super) chain_sum: u64,
    /// The highest number that the segment said it stored; 0 once it has forgotten the writer.
    pub(super) acknowledged: u64,
    /// The sum behind that number.
    pub(super) acknowledged_sum: Sum,
    /// The highest number that was ever durable here.
    pub(super) durable: u64,
    /// The highest number that this process sent.
    pub(super) sent_through: u64,
    /// The sum of what earlier processes stored, and of what was replayed of it.
    pub(super) found_sum: u64,
    pub(super) replayed_sum: u64,
    /// The first number that was replayed, until the sums agree.
    pub(super) replayed_from: Option<u64>,
    /// The source has not proven yet that it is the one that was stored: nothing may be sent.
    pub(super) unproven: bool,
    /// When the segment last said something about the writer, on the clock that counts through
    /// sleep.
    pub(super) last_used: MonotonicTime,
    /// How long the segment was at least when it last said so.
    pub(super) length: u64,
    /// It knows nothing of the writer, so that it must not be shorter than it was.
    pub(super) must_be_long: bool,
    /// Whether it should know the writer, and does not.
    pub(super) absence: Absence,
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
    /// An append was told that the segment's part of the memory is used up.
    pub(super) full: bool,
    /// Who waits for an acknowledgement.
    pub(super) waiters: Waiters,
    /// What was durable when nothing more had been since the time beside it.
    pub(super) stalled: Option<(u64, MonotonicTime)>,
    /// Why it takes no more events, and the first number that will never be acknowledged.
    pub(super) failure: Option<(u64, ClientError)>,
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
            bytes: 0,
            chain: 0,
            chain_sum: 0,
            acknowledged: 0,
            acknowledged_sum: Sum::default(),
            durable: 0,
            sent_through: 0,
            found_sum: 0,
            replayed_sum: 0,
            replayed_from: None,
            unproven: false,
            last_used: MonotonicTime::default(),
            length: 0,
            must_be_long: false,
            absence: Absence::None,
            resuming: false,
            ready: false,
            front: None,
            failures: 0,
            likely_bytes: 0,
            successors: Vec::new(),
            full: false,
            waiters: Waiters::default(),
            stalled: None,
            failure: None,
        }
    }

    pub(super) fn has_data(&self) -> bool {
        !self.queue.is_empty() || !self.open.is_empty()
    }

    /// The first number that is not known to be durable.
    pub(super) fn first_number(&self) -> Option<u64> {
        let failed = self.failure.as_ref().map(|(number, _)| *number);
        let waiting = || self.queue.front().map(|block| block.first);
        let earliest = self.replayed_from.or(failed).or_else(waiting);
        earliest.or_else(|| self.open.first_number())
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
        if self.held || self.unproven || !matches!(self.state, State::Open(_)) {
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
