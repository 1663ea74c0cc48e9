//! Offset ↔ ingest time of one segment, sparse.
//!
//! A point says: the bytes from `offset` up to the next point were stored at stamps from `first` to
//! `last`. A new point begins with the first append that is [`TIME_INDEX_RESOLUTION`] or more
//! behind the current point's `first`. Stamps never decrease along a log, so that the answer for a
//! time is exact up to that resolution: nothing stored at or after the time lies before it, and
//! nothing at or behind it is older than the time by more than the resolution.

use common::{Offset, WallTime};

use crate::chunked::{ChunkChange, ChunkItem, Chunked};
use crate::codec::{CodecError, Fields};
use crate::limits::TIME_INDEX_RESOLUTION;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimePoint {
    pub(crate) offset: Offset,
    pub(crate) first: WallTime,
    pub(crate) last: WallTime,
}

impl ChunkItem for TimePoint {
    const BYTES: usize = 24;

    fn put(&self, out: &mut Vec<u8>) {
        for value in [self.offset.0, self.first.0, self.last.0] {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }

    fn take(fields: &mut Fields<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            offset: fields.offset("offset")?,
            first: WallTime(fields.u64("first stamp")?),
            last: WallTime(fields.u64("last stamp")?),
        })
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct TimeIndex {
    pub(crate) points: Chunked<TimePoint>,
}

impl TimeIndex {
    /// Notes that bytes from `offset` on were stored at `stamp`.
    pub(crate) fn note(&mut self, offset: Offset, stamp: WallTime) -> Option<ChunkChange> {
        if let Some(last) = self.points.last()
            && stamp < last.first.plus(TIME_INDEX_RESOLUTION)
        {
            if stamp > last.last
                && let Some(last) = self.points.last_mut()
            {
                last.last = stamp;
            }
            return None;
        }
        self.points.push(TimePoint { offset, first: stamp, last: stamp })
    }

    /// Where to begin reading for everything stored at or after `time`, in a segment that starts at
    /// `start` and ends at `length`.
    pub(crate) fn find(&self, time: WallTime, start: Offset, length: Offset) -> Offset {
        let points = self.points.items();
        let at = points.partition_point(|point| point.last < time);
        points.get(at).map_or(length, |point| point.offset.max(start))
    }

    /// Drops the points whose bytes all lie below `start`.
    pub(crate) fn truncate(&mut self, start: Offset, mut removed: impl FnMut(ChunkChange)) {
        // A point's bytes end where the next one's begin, so the last point at or below stays.
        let points = self.points.items();
        let keep = points.partition_point(|point| point.offset <= start).saturating_sub(1);
        let mut left = keep;
        self.points.drop_front(
            |_| {
                let gone = left > 0;
                left = left.saturating_sub(1);
                gone
            },
            &mut removed,
        );
    }

    pub(crate) fn oldest(&self) -> Option<WallTime> {
        self.points.items().front().map(|point| point.first)
    }

    pub(crate) fn newest(&self) -> Option<WallTime> {
        self.points.last().map(|point| point.last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_after_everything_is_the_end_and_one_before_everything_the_start() {
        let mut index = TimeIndex::default();
        assert_eq!(index.find(WallTime(5), Offset(0), Offset(0)), Offset(0));
        index.note(Offset(0), WallTime(1_000));
        index.note(Offset(10), WallTime(2_000));
        assert_eq!(index.find(WallTime(0), Offset(0), Offset(20)), Offset(0));
        assert_eq!(index.find(WallTime(2_000), Offset(0), Offset(20)), Offset(0));
        assert_eq!(index.find(WallTime(2_001), Offset(0), Offset(20)), Offset(20));
    }

    proptest! {
        #[test]
        fn nothing_at_or_after_the_time_is_skipped_and_the_resolution_is_kept(
            gaps in proptest::collection::vec(0_u64..700_000, 1..60),
            asked in 0_u64..30_000_000,
            start in 0_u64..600,
        ) {
            let (mut index, mut stamp, mut stored) = (TimeIndex::default(), 0, Vec::new());
            for (i, gap) in gaps.iter().enumerate() {
                stamp += gap;
                index.note(Offset(i as u64 * 10), WallTime(stamp));
                stored.push((Offset(i as u64 * 10), WallTime(stamp)));
            }
            let length = Offset(stored.len() as u64 * 10);
            let start = Offset(start.min(length.0));
            index.truncate(start, |_| {});
            let found = index.find(WallTime(asked), start, length);
            prop_assert!(start <= found && found <= length);
            for (offset, stamp) in stored.into_iter().filter(|(offset, _)| *offset >= start) {
                if stamp.0 >= asked {
                    prop_assert!(offset >= found, "{} at {} skipped by {}", stamp.0, offset, found);
                }
                if offset >= found {
                    prop_assert!(stamp.plus(TIME_INDEX_RESOLUTION).0 >= asked);
                }
            }
        }
    }
}
