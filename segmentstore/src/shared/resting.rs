//! How a segment's bytes come from the log into objects, lie together there, and go.
//!
//! Apply alone calls this. Everything that a change means to others than readers is told to the
//! caller as an [`Effect`]; nothing here allocates per extent.

use std::ops::{Range, RangeInclusive};

use common::{LogIndex, Offset};
use lts::ObjectName;
use replica::Rested;

use super::ReadState;
use crate::chunked::ChunkChange;
use crate::extent::{Extent, ObjectExtent, joined_crc};

/// What a change to the extents of a segment leaves to be done.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A chunk of the extents in the log is to be saved or removed.
    Log(ChunkChange),
    /// The same of those in objects.
    Objects(ChunkChange),
    /// So many more bytes of an object are referred to.
    Took(ObjectName, u32),
    /// So many fewer.
    Released(ObjectName, u32),
}

/// Extents in objects that a segment may have beside one per [`ObjectExtent::BYTES_MAX`] bytes.
const EXTENTS_MAX: usize = 64;
/// Small neighbours below which nothing is worth to be put together, however many larger extents
/// there are: these stay as they are, and all bytes would be copied for the few last ones.
const PAIRS_MIN: usize = 16;

impl ReadState {
    /// Drops what lies wholly below `start`.
    pub(crate) fn truncate(&mut self, start: Offset, mut effect: impl FnMut(Effect)) {
        self.start = start;
        while self.objects.items().front().is_some_and(|run| run.end() <= start) {
            self.release_first(&mut effect);
        }
        self.extents.drop_front(|extent| extent.end() <= start, |c| effect(Effect::Log(c)));
    }

    /// Drops all bytes.
    pub(crate) fn delete(&mut self, mut effect: impl FnMut(Effect)) {
        self.deleted = true;
        while !self.objects.items().is_empty() {
            self.release_first(&mut effect);
        }
        self.objects.clear(|chunk| effect(Effect::Objects(chunk)));
        self.extents.clear(|chunk| effect(Effect::Log(chunk)));
    }

    fn release_first(&mut self, effect: &mut impl FnMut(Effect)) {
        self.small_pairs -= self.pairs_within(0..2);
        if let Some(first) = self.objects.pop_front(|chunk| effect(Effect::Objects(chunk))) {
            effect(Effect::Released(first.rested.object, first.bytes));
        }
    }

    /// The first bytes that only the log held rest in an object now.
    pub(crate) fn rest_first(&mut self, rested: Rested, mut effect: impl FnMut(Effect)) {
        let first = self.extents.pop_front(|chunk| effect(Effect::Log(chunk)));
        let Some(Extent { offset, bytes, .. }) = first else { return };
        effect(Effect::Took(rested.object, bytes));
        let next = ObjectExtent { offset, bytes, rested };
        let before = self.objects.items().len().saturating_sub(2);
        self.small_pairs -= self.pairs_within(before..before + 2);
        match self.objects.last().and_then(|last| last.joined(&next)) {
            Some(joined) => {
                *self.objects.last_mut().expect("the last one was found just now") = joined;
            }
            None => {
                if let Some(chunk) = self.objects.push(next) {
                    effect(Effect::Objects(chunk));
                }
            }
        }
        self.small_pairs += self.pairs_within(before..before + 3);
    }

    /// Takes over that the bytes from `position` on, `pieces` whole extents, lie together now;
    /// `false` where the extents are other ones meanwhile, or their bytes.
    pub(crate) fn put_together(
        &mut self,
        whole: ObjectExtent,
        pieces: u32,
        mut effect: impl FnMut(Effect),
    ) -> bool {
        let objects = self.objects.items();
        let in_object = whole.rested.offset.checked_add(whole.bytes);
        let at = objects.partition_point(|run| run.offset < whole.offset);
        let Some(range) = at.checked_add(pieces as usize).map(|end| at..end) else { return false };
        if in_object.is_none() || range.is_empty() || range.end > objects.len() {
            return false;
        }
        let same_place =
            objects[at].offset == whole.offset && objects[range.end - 1].end() == whole.end();
        let crc = |crc, piece: &ObjectExtent| joined_crc(crc, piece);
        let same = same_place && objects.range(range.clone()).fold(0, crc) == whole.rested.crc;
        if !same && !common::planted::active("compaction-ignores-a-truncation") {
            return false;
        }
        effect(Effect::Took(whole.rested.object, whole.bytes));
        for piece in objects.range(range.clone()) {
            effect(Effect::Released(piece.rested.object, piece.bytes));
        }
        let around = at.saturating_sub(1);
        self.small_pairs -= self.pairs_within(around..range.end + 1);
        self.objects.splice(at, range.len(), whole, |chunk| effect(Effect::Objects(chunk)));
        self.small_pairs += self.pairs_within(around..at + 2);
        true
    }

    /// After all chunks were restored: drops what had left before it was saved, because it was
    /// truncated or rests in objects. An error says where the extents do not lead from start to
    /// length.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        let start = self.start;
        self.objects.drop_front(|run| run.end() <= start, |_| {});
        let rested_to = self.rested_to();
        self.extents.drop_front(|extent| extent.end() <= rested_to, |_| {});
        self.small_pairs = self.pairs_within(0..self.objects.items().len());
        let rested = self.objects.items().iter().map(|run| (run.offset, run.end()));
        let in_log = self.extents.items().iter().map(|run| (run.offset, run.end()));
        let mut runs = rested.chain(in_log);
        let mut end = start;
        if let Some((first, first_end)) = runs.next() {
            if first > start {
                return Err(format!("begin at {first}, its start is {start}"));
            }
            end = first_end;
        }
        for (offset, next) in runs {
            if offset != end {
                return Err(format!("go on at {offset} behind {end}"));
            }
            end = next;
        }
        match end == self.length {
            true => Ok(()),
            false => Err(format!("end at {end}, its length is {}", self.length)),
        }
    }

    /// The offset behind the last byte that rests in objects; the start where none does.
    pub(crate) fn rested_to(&self) -> Offset {
        self.objects.last().map_or(self.start, |last| last.end())
    }

    /// Bytes from start to length that rest in objects.
    pub(crate) fn object_bytes(&self) -> u64 {
        self.rested_to().0.saturating_sub(self.start.0)
    }

    /// Bytes from start to length that only the log holds.
    pub(crate) fn log_bytes(&self) -> u64 {
        let first = self.extents.items().front();
        first.map_or(0, |first| self.length.0 - first.offset.max(self.start).0)
    }

    /// Extents of both kinds.
    pub(crate) fn extent_count(&self) -> usize {
        self.objects.items().len() + self.extents.items().len()
    }

    /// At most `most` extents of entries in `indices`, from those on that begin at `from`.
    pub(crate) fn extents_of(
        &self,
        indices: &RangeInclusive<LogIndex>,
        from: Offset,
        most: usize,
    ) -> impl Iterator<Item = &Extent> {
        let extents = self.extents.items();
        let before = |extent: &Extent| extent.offset < from || extent.index < *indices.start();
        let within = extents.range(extents.partition_point(before)..);
        within.take_while(|extent| extent.index <= *indices.end()).take(most)
    }

    /// Whether there are more small extents side by side than there should be.
    pub(crate) fn is_scattered(&self) -> bool {
        self.small_pairs > self.pairs_allowed()
    }

    /// As many as keep the number of extents within its bound.
    fn pairs_allowed(&self) -> usize {
        let whole = (self.object_bytes() / u64::from(ObjectExtent::BYTES_MAX)) as usize;
        let others = self.objects.items().len() - self.small_pairs;
        (EXTENTS_MAX + whole).saturating_sub(others).clamp(PAIRS_MIN, EXTENTS_MAX)
    }

    /// Of a scattered segment: a run of small extents that had better be one, `pieces_max` (two at
    /// least) at most.
    ///
    /// Chosen like the digits of a binary counter: the newest ones, and older ones for as long as
    /// they are not much larger than all behind them together, so that a byte is copied a number of
    /// times that is logarithmic in how often its segment is looked at; and more where there are
    /// too many.
    pub(crate) fn scattered_run(&self, pieces_max: usize) -> Option<Range<usize>> {
        let objects = self.objects.items();
        let allowed = self.pairs_allowed();
        let newest = (1..objects.len()).rev().find(|at| self.pairs_within(at - 1..at + 1) == 1)?;
        let (mut first, mut bytes) = (newest, objects[newest].bytes);
        while first > 0 && newest - first + 1 < pieces_max {
            let older = &objects[first - 1];
            let left = self.small_pairs - (newest - first);
            let fits = older.is_small() && bytes + older.bytes <= ObjectExtent::BYTES_MAX;
            if !fits || (older.bytes > 2 * bytes && left <= allowed) {
                break;
            }
            bytes += older.bytes;
            first -= 1;
        }
        (first < newest).then_some(first..newest + 1)
    }

    /// Small extents behind a small one, both among those from `range`, which may reach beyond.
    fn pairs_within(&self, range: Range<usize>) -> usize {
        let objects = self.objects.items();
        let range = range.start.min(objects.len())..range.end.min(objects.len());
        let small = objects.range(range).map(ObjectExtent::is_small);
        small
            .scan(false, |before, small| Some(std::mem::replace(before, small) && small))
            .filter(|pair| *pair)
            .count()
    }

    #[cfg(test)]
    pub(crate) fn small_pairs_are_right(&self) -> bool {
        self.small_pairs == self.pairs_within(0..self.objects.items().len())
    }
}
