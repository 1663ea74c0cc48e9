//! What readers see of a segment: apply writes it, readers never touch the worker.
//!
//! One short mutex per segment holds start, length, seal, extents and the cached tail; a notifier
//! beside it wakes the segment's tail readers, once per round of applied entries. Everything in
//! here is committed, so whatever a reader finds it may hand out.
//!
//! A segment's bytes rest in objects first, then in the log; the newest of them are in memory, too.
//! How they come into objects is in [`resting`].

mod resting;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use common::{GroupId, LogIndex, Offset, SegmentId};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::chunked::{ChunkChange, Chunked};
use crate::extent::{Extent, ObjectExtent, SegmentRun};
use crate::limits::{READ_EXTENTS_MAX, READ_GATHER_BELOW, READ_GATHER_BYTES};
use crate::metrics::StreamCounters;
pub(crate) use crate::shared::resting::Effect;
use crate::time_index::TimeIndex;

/// The read state of one segment. It outlives the segment for as long as a reader holds it.
#[derive(Debug)]
pub struct SegmentShared {
    pub segment: SegmentId,
    pub group: GroupId,
    state: Mutex<ReadState>,
    changed: Notify,
    pub(crate) counters: Arc<StreamCounters>,
}

#[derive(Debug, Default)]
pub(crate) struct ReadState {
    pub(crate) start: Offset,
    pub(crate) length: Offset,
    pub(crate) sealed: bool,
    pub(crate) deleted: bool,
    /// The container has stopped: nothing will ever change here.
    pub(crate) gone: bool,
    /// The older bytes: what rests in objects. Without gaps, also to the first of `extents`.
    pub(crate) objects: Chunked<ObjectExtent>,
    /// The other bytes: what only the log holds.
    pub(crate) extents: Chunked<Extent>,
    /// When which bytes were stored.
    pub(crate) times: TimeIndex,
    /// Small extents of `objects` that are behind a small one.
    small_pairs: usize,
    /// The newest bytes, without gaps up to `length`; evicted from the front, by the tail cache
    /// only. Truncated and deleted ones are among them.
    tail: VecDeque<TailPiece>,
}

#[derive(Debug)]
struct TailPiece {
    offset: Offset,
    bytes: Bytes,
}

/// Where a segment begins and ends at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub start: Offset,
    pub length: Offset,
    pub sealed: bool,
    pub deleted: bool,
}

/// Where the bytes at an offset are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Located {
    /// In memory: these, one after the other.
    Memory(Vec<Bytes>),
    /// In these places in objects, one after the other; the first one holds the offset.
    Objects(Vec<ObjectExtent>),
    /// In these log entries, one after the other; the first one holds the offset.
    Log(Vec<Extent>),
    /// Nowhere yet: the offset is the length.
    AtEnd,
}

impl SegmentShared {
    pub(crate) fn new(
        segment: SegmentId,
        group: GroupId,
        counters: Arc<StreamCounters>,
        state: ReadState,
    ) -> Arc<Self> {
        Arc::new(Self {
            segment,
            group,
            state: Mutex::new(state),
            changed: Notify::new(),
            counters,
        })
    }

    /// Nothing under this lock calls out, so that a poisoned one still holds whole state.
    pub(crate) fn lock(&self) -> MutexGuard<'_, ReadState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn bounds(&self) -> Bounds {
        self.lock().bounds()
    }

    /// Completes at the first wake-up after it was first polled or enabled.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(crate) fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// The container has stopped: who waits at the tail would wait for ever.
    pub(crate) fn abandon(&self) {
        self.lock().gone = true;
        self.wake();
    }

    /// Drops the oldest piece of the tail and returns its bytes.
    pub(crate) fn evict_oldest(&self) -> usize {
        let piece = self.lock().tail.pop_front();
        piece.expect("every piece has one place in the tail cache").bytes.len()
    }
}

impl ReadState {
    /// A segment whose extents are yet to be restored.
    pub(crate) fn with_bounds(bounds: Bounds) -> Self {
        let Bounds { start, length, sealed, deleted } = bounds;
        Self { start, length, sealed, deleted, ..Self::default() }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            start: self.start,
            length: self.length,
            sealed: self.sealed,
            deleted: self.deleted,
        }
    }

    /// Adds a block that lies at `start` of the payload of entry `index`. Returns whether the tail
    /// got a new piece and an extent chunk that became full.
    ///
    /// Without payload only the extent is added: the entry is replayed from long-term storage.
    /// That comes before anything of the log is applied, so that the tail has no gap.
    pub(crate) fn append(
        &mut self,
        index: LogIndex,
        start: u32,
        block: u32,
        payload: Option<&Bytes>,
    ) -> (bool, Option<ChunkChange>) {
        let offset = self.length;
        self.length = offset.plus(block.into());
        let absorbed =
            self.extents.last().is_some_and(|last| last.end() == offset && last.index == index)
                && self.extents.last_mut().is_some_and(|last| last.absorb(index, start, block));
        let chunk = match absorbed {
            true => None,
            false => self.extents.push(Extent { offset, index, start, bytes: block }),
        };
        let Some(payload) = payload else {
            debug_assert!(self.tail.is_empty(), "an archived entry comes before all of the log");
            return (false, chunk);
        };
        let extent = *self.extents.last().expect("an extent was added or has grown");
        match self.tail.back_mut() {
            Some(piece) if absorbed && piece.offset == extent.offset => {
                let whole = extent.start as usize..(extent.start + extent.bytes) as usize;
                piece.bytes = payload.slice(whole);
                (false, chunk)
            }
            // A new extent; or the piece of this one was evicted meanwhile: the block begins a new
            // one.
            _ => {
                self.push_piece(offset, start, block, payload);
                (true, chunk)
            }
        }
    }

    fn push_piece(&mut self, offset: Offset, start: u32, block: u32, payload: &Bytes) {
        let bytes = payload.slice(start as usize..(start + block) as usize);
        self.tail.push_back(TailPiece { offset, bytes });
    }

    /// Finds the bytes at `offset`, which lies between start and length: up to `max_bytes` of them
    /// in memory, or the places in objects, or in the log, that hold the next `ahead_bytes`, one at
    /// least.
    pub(crate) fn locate(&self, offset: Offset, max_bytes: usize, ahead_bytes: usize) -> Located {
        if offset >= self.length {
            return Located::AtEnd;
        }
        match self.tail.front() {
            Some(first) if first.offset <= offset => {
                Located::Memory(self.pieces(offset, max_bytes))
            }
            _ if offset < self.rested_to() => {
                Located::Objects(runs_from(&self.objects, offset, ahead_bytes))
            }
            _ => Located::Log(runs_from(&self.extents, offset, ahead_bytes)),
        }
    }

    /// Bytes from `offset` on: one large piece, cut to `max_bytes`, or small ones to be gathered.
    fn pieces(&self, offset: Offset, max_bytes: usize) -> Vec<Bytes> {
        let at = self.tail.partition_point(|piece| piece.offset <= offset) - 1;
        let first = &self.tail[at];
        let skip = (offset.0 - first.offset.0) as usize;
        let first = first.bytes.slice(skip..first.bytes.len().min(skip + max_bytes));
        let mut gathered = first.len();
        let mut pieces = vec![first];
        if gathered >= READ_GATHER_BELOW {
            return pieces;
        }
        for piece in self.tail.range(at + 1..) {
            let room = max_bytes.min(READ_GATHER_BYTES).saturating_sub(gathered);
            if piece.bytes.len() >= READ_GATHER_BELOW || room == 0 {
                break;
            }
            pieces.push(piece.bytes.slice(..piece.bytes.len().min(room)));
            gathered += piece.bytes.len().min(room);
        }
        pieces
    }

    #[cfg(test)]
    pub(crate) fn tail_pieces(&self) -> usize {
        self.tail.len()
    }
}

/// The runs that hold `offset` and the next `ahead_bytes`.
fn runs_from<T: SegmentRun>(runs: &Chunked<T>, offset: Offset, ahead_bytes: usize) -> Vec<T> {
    let runs = runs.items();
    let at = runs.partition_point(|run| run.end() <= offset);
    let mut ahead = 0;
    let wanted = |run: &&T| {
        let more = ahead == 0 || ahead < ahead_bytes;
        ahead += run.bytes() as usize;
        more
    };
    let found = runs.range(at.min(runs.len())..).take_while(wanted);
    found.take(READ_EXTENTS_MAX).copied().collect()
}

#[cfg(test)]
mod tests;
