//! A container: the deterministic state machine whose state is a set of segments.
//!
//! Apply decides everything: the leader only orders and stamps. What apply does to a segment is in
//! one file per verb below this one; what readers may see of it is written to the segment's
//! [`SegmentShared`], so that they never wait for the worker.
//!
//! Guarantees: an append is judged in the order of tests of [`append`]; a command of the controller
//! is carried out at most once per (job, step) and never under an older fence than the highest
//! seen; a deleted segment leaves a tombstone until it is forgotten; log entries that hold bytes of
//! a segment are named by `oldest_live_index` until a round, truncation or deletion takes them out;
//! an object that no segment refers to any more is reported once.

mod append;
mod close;
mod command;
mod compact;
mod describe;
mod expire;
mod live_objects;
mod marks;
mod open;
mod owners;
mod places;
mod rest;
mod save;
mod segment;
pub(crate) mod unsaved;
mod writer_status;
mod writers;

pub use describe::SegmentDescription;
pub use writer_status::WriterStatus;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use common::{ContainerId, Fence, LogIndex, SegmentId, WallTime};
use lts::ObjectName;
use replica::{
    Compacted, CompactionPlan, Entry, NotArchived, Owners, Piece, RestoreError, Slice,
    StateMachine, Tiered, UnknownOperation,
};

use crate::container::marks::Marks;
use crate::container::owners::LogOwners;
use crate::container::rest::Absent;
use crate::container::segment::Segment;
use crate::metrics::Metrics;
use crate::operation::Operation;
use crate::outcome::Outcome;
use crate::settings::Settings;
use crate::shared::{Bounds, SegmentShared};
use crate::tail_cache::TailCache;

/// What all containers of a process share.
#[derive(Debug, Clone)]
pub struct Memory {
    pub(crate) tail: Arc<TailCache>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Memory {
    pub fn new(settings: &Settings) -> Self {
        let metrics = Arc::new(Metrics::default());
        let tail = TailCache::new(settings.tail_cache.as_usize(), metrics.clone());
        Self { tail: Arc::new(tail), metrics }
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }
}

/// The state of one container.
#[derive(Debug)]
pub struct ContainerMachine {
    container: ContainerId,
    memory: Memory,
    /// The highest fence seen.
    fence: Fence,
    fence_changed: bool,
    segments: BTreeMap<SegmentId, Segment>,
    /// Up-time of the newest applied entry.
    up_micros: u64,
    marks: Marks,
    /// Entries up to this one were in the log before this process began: they are not counted.
    begun_after: LogIndex,
    /// Segments that got a piece of tail in this entry.
    new_pieces: Vec<Arc<SegmentShared>>,
    oldest_live: Cell<Oldest>,
    /// The last segment of the last plan of a compaction; no part of the state.
    planned: Cell<Option<SegmentId>>,
}

/// The lowest log index that a segment has bytes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Oldest {
    Known(Option<LogIndex>),
    /// Extents left the log: it must be looked for.
    Stale,
}

/// What is known of a segment at one moment.
#[derive(Debug, Clone)]
pub struct SegmentView {
    pub shared: Arc<SegmentShared>,
    pub bounds: Bounds,
    pub writers: usize,
    /// Bytes that only the log holds.
    pub log_bytes: u64,
    /// Bytes that rest in objects.
    pub object_bytes: u64,
    /// Runs of bytes that are known one by one, in the log and in objects.
    pub extents: usize,
    pub oldest: Option<WallTime>,
    pub newest: Option<WallTime>,
    pub attributes: BTreeMap<Bytes, Bytes>,
}

/// The place of an operation in the log.
#[derive(Debug, Clone, Copy)]
struct At<'a> {
    entry: &'a Entry<'a>,
    payload_start: usize,
    payload_end: usize,
}

impl ContainerMachine {
    pub fn new(container: ContainerId, memory: Memory) -> Self {
        Self {
            container,
            memory,
            fence: Fence::default(),
            fence_changed: false,
            segments: BTreeMap::new(),
            up_micros: 0,
            marks: Marks::default(),
            begun_after: LogIndex(0),
            new_pieces: Vec::new(),
            oldest_live: Cell::new(Oldest::Known(None)),
            planned: Cell::new(None),
        }
    }

    /// What is known of a segment; `None` where it never was, was deleted or is forgotten.
    pub fn view(&self, segment: SegmentId) -> Option<SegmentView> {
        let segment = self.living(segment)?;
        let state = segment.shared.lock();
        Some(SegmentView {
            shared: segment.shared.clone(),
            bounds: state.bounds(),
            writers: segment.writers.len(),
            log_bytes: state.log_bytes(),
            object_bytes: state.object_bytes(),
            extents: state.extent_count(),
            oldest: state.times.oldest(),
            newest: state.times.newest(),
            attributes: segment.record.attributes.clone(),
        })
    }

    /// Where to begin reading for everything stored at or after `time`.
    pub fn find_offset(&self, segment: SegmentId, time: WallTime) -> Option<common::Offset> {
        let segment = self.living(segment)?;
        Some(segment.shared.lock().times.find(time, segment.record.start, segment.record.length))
    }

    /// Segments that are not deleted.
    pub fn segment_count(&self) -> usize {
        self.segments.values().filter(|segment| !segment.record.deleted).count()
    }

    /// The segments that are not deleted, in order, after `after`: for listings by page.
    pub fn segments_after(&self, after: Option<SegmentId>, count: usize) -> Vec<SegmentId> {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let segments = self.segments.range((from, Bound::Unbounded));
        let living = segments.filter(|(_, segment)| !segment.record.deleted);
        living.map(|(id, _)| *id).take(count).collect()
    }

    /// The highest fence seen.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    fn living(&self, segment: SegmentId) -> Option<&Segment> {
        self.segments.get(&segment).filter(|segment| !segment.record.deleted)
    }

    fn apply_operation(&mut self, operation: Operation, at: At<'_>) -> Outcome {
        match operation {
            Operation::Append(append) => self.append(&append, at),
            Operation::Open(open) => Outcome::Opened(self.open(&open)),
            Operation::Command(id, command) => match self.command(id, command) {
                Ok(done) => Outcome::Done(done),
                Err(refusal) => refusal.into(),
            },
            Operation::Expire(writers) => Outcome::Expired(self.expire(&writers)),
            Operation::Close(close) => self.close(&close),
        }
    }

    /// The lowest index that any segment has bytes in; looked for only after extents were dropped,
    /// among the segments that have some.
    fn oldest(&self) -> Option<LogIndex> {
        if let Oldest::Known(index) = self.oldest_live.get() {
            return index;
        }
        let first =
            |shared: &Arc<SegmentShared>| Some(shared.lock().extents.items().front()?.index);
        let oldest = self.marks.in_log.values().filter_map(first).min();
        self.oldest_live.set(Oldest::Known(oldest));
        oldest
    }
}

/// The group was quarantined, or the node ends.
impl Drop for ContainerMachine {
    fn drop(&mut self) {
        self.segments.values().for_each(|segment| segment.shared.abandon());
    }
}

impl StateMachine for ContainerMachine {
    type Outcome = Outcome;

    fn fresh(&self) -> Self {
        Self::new(self.container, self.memory.clone())
    }

    fn apply(
        &mut self,
        entry: &Entry<'_>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), UnknownOperation> {
        self.up_micros = self.up_micros.max(entry.stamp.up_micros);
        for operation in entry.operations() {
            let at = At {
                entry,
                payload_start: operation.payload.start,
                payload_end: operation.payload.end,
            };
            let operation = Operation::decode(operation.header)
                .map_err(|error| UnknownOperation::new(error.to_string()))?;
            outcomes.push(self.apply_operation(operation, at));
        }
        if !self.new_pieces.is_empty() {
            self.memory.tail.push(&mut self.new_pieces);
        }
        Ok(())
    }

    fn digest(outcome: &Outcome) -> u64 {
        outcome.digest()
    }

    fn freeze(&mut self) {
        self.freeze_parts();
    }

    fn copy_frozen(&mut self, slice: &mut Slice) -> bool {
        self.copy_parts(slice)
    }

    fn begin(&mut self, last: LogIndex) {
        self.begun_after = last;
    }

    fn restore(
        &mut self,
        pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<(), RestoreError> {
        self.load(pairs)
    }

    fn oldest_live_index(&self) -> Option<LogIndex> {
        self.oldest()
    }

    fn round_done(&mut self) {
        for shared in self.marks.to_wake.drain(..) {
            if let Some(segment) = self.segments.get_mut(&shared.segment) {
                segment.to_wake = false;
            }
            shared.wake();
        }
    }

    fn owners(&self) -> Box<dyn Owners> {
        Box::new(LogOwners { segments: self.marks.in_log.values().cloned().collect() })
    }

    fn tiered(&mut self, round: &Tiered) -> Result<(), NotArchived> {
        self.rest(round, Absent::Lost)
    }

    fn taken_over(&mut self, round: &Tiered) {
        self.rest(round, Absent::Dropped).expect("what is absent was dropped");
    }

    fn lost(&mut self, entries: RangeInclusive<LogIndex>) {
        self.lose(&entries);
    }

    fn compacted(&mut self, compacted: &Compacted) {
        self.compact(compacted);
    }

    fn take_dead_objects(&mut self) -> Vec<ObjectName> {
        self.marks.objects.take_dead()
    }

    fn compaction(&self) -> Option<CompactionPlan> {
        self.plan()
    }

    fn resting(&self, each: &mut dyn FnMut(Piece)) {
        self.places(each);
    }
}

#[cfg(test)]
mod tests;
