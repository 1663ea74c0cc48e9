//! Memory: how much a writer takes in, and when those who wait for room go on.
//!
//! A segment may hold half of the memory at most, so that one that acknowledges nothing does not
//! hold up the events of others. The only segment of a stream may use all of it.

use super::WriterCore;
use super::segment::{Segment, State};

impl WriterCore {
    /// Whether an event of `bytes` bytes for a segment is taken now; that it was not is remembered.
    #[inline]
    pub(super) fn has_room(&mut self, index: usize, bytes: usize) -> bool {
        let limit = self.limits.memory_bytes;
        if self.memory_used > 0 && self.memory_used + bytes > limit {
            if self.full_above.is_none() {
                self.full_above = Some(self.room_again_below());
            }
            return false;
        }
        let segment = &mut self.segments[index];
        let shares = self.router.only().is_none() && !segment.unproven;
        if shares && segment.bytes > 0 && segment.bytes + bytes > limit / 2 {
            if !std::mem::replace(&mut segment.full, true) {
                self.full_segments.push(index);
            }
            return false;
        }
        true
    }

    /// A segment stands still from now on: what it holds comes back to nobody.
    pub(super) fn stands_still(&mut self) {
        if self.full_above.is_some() {
            self.full_above = Some(self.room_again_below());
        }
    }

    /// Of the memory that segments which stand still do not hold, a quarter is free below this.
    fn room_again_below(&self) -> usize {
        let limit = self.limits.memory_bytes;
        let comes_back =
            |segment: &Segment| matches!(segment.state, State::Open(_)) && !segment.unproven;
        let still = self.segments.iter().filter(|segment| !comes_back(segment));
        let still = still.map(|segment| segment.bytes).sum::<usize>().min(limit);
        still + (limit - still) / 4 * 3
    }

    /// Whether those who were told that there is no room should try again. They are let in when a
    /// quarter is free of what may become free, so that they do not come for every block that is
    /// acknowledged.
    pub(crate) fn take_room(&mut self) -> bool {
        let limit = self.limits.memory_bytes;
        let mut has_room = self.failed.is_some();
        if self.full_above.is_some_and(|above| self.memory_used <= above) {
            self.full_above = None;
            has_room = true;
        }
        let segments = &mut self.segments;
        self.full_segments.retain(|index| {
            let segment = &mut segments[*index];
            segment.full = segment.bytes > limit / 8 * 3;
            has_room |= !segment.full;
            segment.full
        });
        has_room
    }
}
