//! Tiered: what only the log held rests in objects from now on.
//!
//! A round holds what segments referred to when it was made, so that each of their extents is
//! found in it whole: whatever dropped some of them meanwhile was applied before the round's own
//! entry. One that is not found is a defect, and going on would lose it without a word: that is an
//! error, by which the container stops while the log still has the bytes.
//!
//! Where a group is rebuilt from long-term storage, the last rounds of its chain are applied without
//! the entries that followed them. Then an extent that is not found was truncated, or deleted, by
//! one of those. Its bytes are nowhere any more, so the segment takes the truncation over from the
//! round: it begins behind them. The entry that truncated them, should it come, finds nothing left
//! to be done.
//!
//! Lost: entries that a repair of the log gave up before a round held them. Their extents stay, as
//! what rests nowhere: readers of those bytes are told, and those of others are not held up.

use std::ops::RangeInclusive;

use common::LogIndex;
use replica::{NotArchived, Rested, Tiered};

use super::segment::Segment;
use super::{ContainerMachine, Marks, Oldest};
use crate::metrics::Metrics;

/// What an extent is of which a round has nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// A defect, or damage.
    Lost,
    /// Dropped by an entry that did not come back.
    Dropped,
}

impl ContainerMachine {
    /// The work follows the segments that have something in the log, and what of it moves.
    pub(super) fn rest(&mut self, round: &Tiered, absent: Absent) -> Result<(), NotArchived> {
        let last = *round.range.end();
        let mut in_log = std::mem::take(&mut self.marks.in_log);
        let mut lost = None;
        in_log.retain(|id, shared| {
            let first = shared.lock().extents.items().front().map(|extent| extent.index);
            if first.is_none_or(|first| first > last) || lost.is_some() {
                return first.is_some();
            }
            let segment = self.segments.get_mut(id).expect("a segment with extents exists");
            let rested =
                rest_segment(segment, (round, absent), &mut self.marks, &self.memory.metrics);
            rested.unwrap_or_else(|error| {
                lost = Some(error);
                true
            })
        });
        self.marks.in_log = in_log;
        self.oldest_live.set(Oldest::Stale);
        match lost {
            Some(error) => Err(error),
            None => {
                self.marks.objects.all_taken(&round.objects);
                Ok(())
            }
        }
    }
}

impl ContainerMachine {
    /// What is in these entries, and in no object, is lost.
    pub(super) fn lose(&mut self, entries: &RangeInclusive<LogIndex>) {
        let group = self.container.group();
        let mut in_log = std::mem::take(&mut self.marks.in_log);
        in_log.retain(|id, shared| {
            let first = shared.lock().extents.items().front().map(|extent| extent.index);
            if first.is_none_or(|first| first > *entries.end()) {
                return first.is_some();
            }
            let segment = self.segments.get_mut(id).expect("a segment with extents exists");
            self.marks.changes(segment);
            let mut state = shared.lock();
            while let Some(first) = state.extents.items().front().copied()
                && first.index <= *entries.end()
            {
                let lost = Rested::lost(group, first.index, first.start);
                state.rest_first(lost, |effect| self.marks.extents(*id, effect));
            }
            self.marks.has_other_objects(*id, &state);
            !state.extents.items().is_empty()
        });
        self.marks.in_log = in_log;
        self.oldest_live.set(Oldest::Stale);
    }
}

/// Whether the log still holds something of the segment.
fn rest_segment(
    segment: &mut Segment,
    (round, absent): (&Tiered, Absent),
    marks: &mut Marks,
    metrics: &Metrics,
) -> Result<bool, NotArchived> {
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
            None if absent == Absent::Lost => {
                return Err(NotArchived::new(format!(
                    "{} bytes of segment `{id}` at offset {}, in entry {}",
                    first.bytes, first.offset, first.index
                )));
            }
            None => {
                state.truncate(first.end(), |effect| marks.extents(id, effect));
                metrics.unarchived_extents.add(1);
            }
        }
    }
    marks.has_other_objects(id, &state);
    if state.start > start {
        metrics.unarchived_bytes.add(state.start.0 - start.0);
        segment.record.start = state.start;
        let start = state.start;
        state.times.truncate(start, |level, chunk| marks.times(id, level, chunk));
        marks.wake(segment);
    }
    Ok(!state.extents.items().is_empty())
}
