//! Offset ↔ ingest time of one segment, sparse.
//!
//! A point says: the bytes from `offset` up to the next point were stored at stamps from `first` to
//! `last`. A new point begins with the first append that is [`TIME_INDEX_RESOLUTION`] or more
//! behind the current point's `first`. Stamps never decrease along a log, so that nothing stored
//! at or after a time lies before the answer for it.
//!
//! Points become coarser with age, so that a segment that is written to every second for a year
//! has a few thousand of them: level 0 has the newest, and when a level has
//! [`LEVEL_POINTS_MAX`], the points of its first chunk move on to the next level in pairs, each
//! pair as one point. What lies behind the answer for a time and is older than it is therefore at
//! most one point: of the resolution among the newest [`LEVEL_POINTS_MIN`] points, else of one
//! part in [`LEVEL_POINTS_MIN`] of the points that are newer. Apply alone moves points: the same
//! entries give the same index on every replica.

use std::collections::VecDeque;

use common::{Offset, WallTime};

use crate::chunked::{CHUNK_ITEMS, ChunkChange, ChunkItem, Chunked};
use crate::codec::{CodecError, Fields};
use crate::limits::TIME_INDEX_RESOLUTION;

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimePoint {
    pub offset: Offset,
    pub first: WallTime,
    pub last: WallTime,
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

/// Points that a level keeps when it gives the first ones away.
const LEVEL_POINTS_MIN: usize = 128;
/// Points at which a level gives those of its first chunk away.
const LEVEL_POINTS_MAX: usize = LEVEL_POINTS_MIN + CHUNK_ITEMS as usize;
/// Levels at most: the last one is never full, its points cover centuries each.
const LEVELS_MAX: usize = 32;
/// Chunks that one append moves on from level 0 at most: an index of an earlier version has all its
/// points there, and is thinned little by little.
const MOVES_MAX: usize = 2;

#[derive(Debug, Clone, Default)]
pub(crate) struct TimeIndex {
    /// The newest points.
    points: Chunked<TimePoint>,
    /// Older ones, level 1 first: every level's points are older than those of the level before.
    older: Vec<Chunked<TimePoint>>,
}

impl TimeIndex {
    /// Notes that bytes from `offset` on were stored at `stamp`. Chunks that became final are given
    /// to `changed` with their level.
    pub(crate) fn note(
        &mut self,
        offset: Offset,
        stamp: WallTime,
        mut changed: impl FnMut(usize, ChunkChange),
    ) {
        if let Some(last) = self.points.last()
            && stamp < last.first.plus(TIME_INDEX_RESOLUTION)
        {
            if stamp > last.last
                && let Some(last) = self.points.last_mut()
            {
                last.last = stamp;
            }
            return;
        }
        if let Some(chunk) = self.points.push(TimePoint { offset, first: stamp, last: stamp }) {
            changed(0, chunk);
        }
        for _ in 0..MOVES_MAX {
            self.thin(&mut changed);
        }
    }

    /// Lets every level that is full give points away, the newest first.
    fn thin(&mut self, changed: &mut impl FnMut(usize, ChunkChange)) {
        for level in 0..LEVELS_MAX - 1 {
            let points = self.level_mut(level);
            if points.items().len() < LEVEL_POINTS_MAX {
                return;
            }
            let taken = points.take_first_chunk(|chunk| changed(level, chunk));
            let next = self.level_mut(level + 1);
            for pair in taken.chunks(2) {
                let last = pair[pair.len() - 1].last;
                if let Some(chunk) = next.push(TimePoint { last, ..pair[0] }) {
                    changed(level + 1, chunk);
                }
            }
        }
    }

    fn level_mut(&mut self, level: usize) -> &mut Chunked<TimePoint> {
        let Some(older) = level.checked_sub(1) else { return &mut self.points };
        if self.older.len() <= older {
            self.older.resize_with(older + 1, Chunked::default);
        }
        &mut self.older[older]
    }

    /// The levels, the oldest points first.
    fn levels(&self) -> impl Iterator<Item = &VecDeque<TimePoint>> {
        self.older.iter().rev().chain([&self.points]).map(Chunked::items)
    }

    /// Where to begin reading for everything stored at or after `time`, in a segment that starts at
    /// `start` and ends at `length`.
    pub(crate) fn find(&self, time: WallTime, start: Offset, length: Offset) -> Offset {
        let reaches =
            |points: &&VecDeque<TimePoint>| points.back().is_some_and(|newest| newest.last >= time);
        let Some(points) = self.levels().find(reaches) else { return length };
        points[points.partition_point(|point| point.last < time)].offset.max(start)
    }

    /// Drops the points whose bytes all lie below `start`. Chunks that go are given to `removed`.
    pub(crate) fn truncate(&mut self, start: Offset, mut removed: impl FnMut(usize, ChunkChange)) {
        // A point's bytes end where the next one's begin, so the last point at or below stays.
        let at_or_below =
            |points: &VecDeque<TimePoint>| points.partition_point(|point| point.offset <= start);
        let mut gone = self.levels().map(at_or_below).sum::<usize>().saturating_sub(1);
        for level in (0..=self.older.len()).rev() {
            self.level_mut(level).drop_front(
                |_| {
                    let goes = gone > 0;
                    gone = gone.saturating_sub(1);
                    goes
                },
                |chunk| removed(level, chunk),
            );
        }
    }

    /// Drops all points.
    pub(crate) fn clear(&mut self, mut removed: impl FnMut(usize, ChunkChange)) {
        for level in 0..=self.older.len() {
            self.level_mut(level).clear(|chunk| removed(level, chunk));
        }
    }

    /// Gives the chunks that are not full, where they changed since the last time.
    pub(crate) fn save(&mut self, mut saved: impl FnMut(usize, ChunkChange)) {
        for level in 0..=self.older.len() {
            if let Some(chunk) = self.level_mut(level).save() {
                saved(level, chunk);
            }
        }
    }

    /// Takes over the next saved chunk of a level.
    pub(crate) fn restore(&mut self, level: u8, value: &[u8]) -> Result<(), CodecError> {
        if usize::from(level) >= LEVELS_MAX {
            return Err(CodecError::Impossible { field: "level", value: level.into() });
        }
        self.level_mut(level.into()).restore(value)
    }

    /// The points of the bytes from `from` up to `to`, in order. The first one may begin before.
    pub(crate) fn covering(&self, from: Offset, to: Offset) -> Vec<TimePoint> {
        let mut found = Vec::new();
        for points in self.levels() {
            let behind = points.partition_point(|point| point.offset <= from);
            if let Some(at) = behind.checked_sub(1) {
                found.clear();
                found.push(points[at]);
            }
            found.extend(points.range(behind..).take_while(|point| point.offset < to));
        }
        found
    }

    pub(crate) fn oldest(&self) -> Option<WallTime> {
        self.levels().find_map(VecDeque::front).map(|point| point.first)
    }

    pub(crate) fn newest(&self) -> Option<WallTime> {
        self.points.last().map(|point| point.last)
    }
}

#[cfg(test)]
mod tests;
