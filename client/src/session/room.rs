//! Memory: how much a writer takes in, and when those who wait for room go on.
//!
//! A segment may hold half of the memory at most, so that one that acknowledges nothing does not
//! hold up the events of others. The only segment of a stream may use all of it.

use super::WriterCore;

impl WriterCore {
    /// Whether an event of `bytes` bytes for a segment is taken now; that it was not is remembered.
    #[inline]
    pub(super) fn has_room(&mut self, index: usize, bytes: usize) -> bool {
        let limit = self.limits.memory_bytes;
        if self.memory_used > 0 && self.memory_used + bytes > limit {
            self.full = true;
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

    /// Whether those who were told that there is no room should try again. They are let in when a
    /// quarter is free, so that they do not come for every block that is acknowledged.
    pub(crate) fn take_room(&mut self) -> bool {
        let limit = self.limits.memory_bytes;
        let mut has_room = self.failed.is_some();
        if self.full && self.memory_used <= limit / 4 * 3 {
            self.full = false;
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
