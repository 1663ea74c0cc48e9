//! The byte limit over the newest bytes of all segments of the process.
//!
//! The bytes themselves lie with their segments ([`crate::shared`]), as slices of the entries they
//! came in. Here stands only who has how old a piece: the oldest piece of all is evicted first, and
//! no piece leaves otherwise. A segment's pieces enter in order, so that "evict one of this
//! segment" is always its oldest.
//!
//! Truncated and deleted bytes stay until their turn comes, too. A piece keeps the memory of its
//! whole entry, and so do its neighbours in that entry: giving back its bytes alone would free
//! nothing and count less than there is. The pieces of an entry leave together, oldest first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::Metrics;
use crate::shared::SegmentShared;

/// What a piece costs beside its bytes: its slice, its place here and in its segment, and its share
/// of the entry's allocation.
const PIECE_OVERHEAD_BYTES: usize = 128;

#[derive(Debug)]
pub(crate) struct TailCache {
    limit: usize,
    used: AtomicUsize,
    /// Pieces from the oldest to the newest.
    order: Mutex<VecDeque<Arc<SegmentShared>>>,
    metrics: Arc<Metrics>,
}

impl TailCache {
    pub(crate) fn new(limit: usize, metrics: Arc<Metrics>) -> Self {
        Self { limit, used: AtomicUsize::new(0), order: Mutex::default(), metrics }
    }

    /// Bytes joined the newest piece of a segment.
    pub(crate) fn grow(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.metrics.tail_cache_bytes.add(bytes as u64);
    }

    /// Segments got new pieces, one for each time they stand in `pieces`; then the oldest pieces
    /// go until the limit holds again.
    pub(crate) fn push(&self, pieces: &mut Vec<Arc<SegmentShared>>) {
        self.grow(pieces.len() * PIECE_OVERHEAD_BYTES);
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.extend(pieces.drain(..));
        while self.used.load(Ordering::Relaxed) > self.limit {
            let Some(oldest) = order.pop_front() else { break };
            self.release(oldest.evict_oldest() + PIECE_OVERHEAD_BYTES);
        }
    }

    fn release(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "the tail cache gave back more than it took");
        self.metrics.tail_cache_bytes.subtract(bytes as u64);
    }

    /// Pieces that are there, and bytes that count for them.
    #[cfg(test)]
    pub(crate) fn content(&self) -> (usize, usize) {
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        (order.len(), self.used.load(Ordering::Relaxed))
    }
}
