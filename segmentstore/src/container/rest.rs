//! Tiered: what only the log held rests in objects from now on.
//!
//! A round holds what segments referred to when it was made, so that each of their extents is
//! found in it whole. One that is not was truncated, or deleted, before the round was made, but by
//! an entry that is yet to be applied: that happens only where a group is rebuilt from long-term
//! storage and the last round of its chain is applied before the entries that followed it. These
//! bytes are nowhere any more, so the segment takes the truncation over from the round: it begins
//! behind them. The entry that truncated them, should it come, finds nothing left to be done.

use replica::Tiered;

use super::segment::Segment;
use super::{ContainerMachine, Marks, Oldest};
use crate::metrics::Metrics;

impl ContainerMachine {
    /// The work follows the segments that have something in the log, and what of it moves.
    pub(super) fn rest(&mut self, round: &Tiered) {
        let last = *round.range.end();
        let mut in_log = std::mem::take(&mut self.marks.in_log);
        in_log.retain(|id, shared| {
            let first = shared.lock().extents.items().front().map(|extent| extent.index);
            if first.is_none_or(|first| first > last) {
                return first.is_some();
            }
            let segment = self.segments.get_mut(id).expect("a segment with extents exists");
            rest_segment(segment, round, &mut self.marks, &self.memory.metrics)
        });
        self.marks.in_log = in_log;
        self.marks.objects.all_taken(&round.objects);
        self.oldest_live.set(Oldest::Stale);
    }
}

/// Whether the log still holds something of the segment.
fn rest_segment(
    segment: &mut Segment,
    round: &Tiered,
    marks: &mut Marks,
    metrics: &Metrics,
) -> bool {
    marks.changes(segment);
    let id = segment.identity.segment;
    let shared = segment.shared.clone();
    let mut state = shared.lock();
    let start = state.start;
    while let Some(first) = state.extents.items().front().copied()
        && first.index <= *round.range.end()
    {
        match round.locate(first.index, first.start, first.bytes) {
            Some(rested) => state.rest_first(rested, |effect| marks.extents(id, effect)),
            None => {
                state.truncate(first.end(), |effect| marks.extents(id, effect));
                metrics.unarchived_extents.add(1);
            }
        }
    }
    marks.has_other_objects(id, &state);
    if state.start > start {
        segment.record.start = state.start;
        segment.times.truncate(state.start, |level, chunk| marks.times(id, level, chunk));
        marks.wake(segment);
        metrics.unarchived_bytes.add(state.start.0 - start.0);
    }
    !state.extents.items().is_empty()
}
