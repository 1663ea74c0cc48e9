//! Whether a stream cut fits a stream, and which head it makes.
//!
//! A cut fits when its segments are of the stream, cover the keys that it is of exactly once, and
//! none of them follows another: reading on from one would give the other's events again. Whether
//! segments were truncated away does not matter, neither does who asks: everybody who takes a cut
//! in asks here. The head only moves forward: at each key the later of cut and head counts. On one
//! key, segments follow each other in the order of their creation epochs.

use std::collections::BTreeMap;

use common::{CutCoverage, KeyRange, Offset};

use crate::machine::stream::{SegmentKey, Stream};
use crate::operation::CutOffsets;
use crate::outcome::CutProblem;

impl Stream {
    /// Checks a cut that is to cover `covers` as far as the controller knows; lengths of unsealed
    /// segments are the store's.
    pub fn check_cut(&self, cut: &CutOffsets, covers: CutCoverage) -> Result<(), CutProblem> {
        let mut offsets = BTreeMap::new();
        for (epoch, number, offset) in cut {
            let key = (*epoch, *number);
            if offsets.insert(key, *offset).is_some() {
                return Err(CutProblem::Twice(self.segment_id(key)));
            }
        }
        self.check_covering(&offsets, covers)?;
        self.check_unordered(&offsets)?;
        let sealed = |key: &SegmentKey| self.known_segment(*key).and_then(|s| s.sealed);
        for (key, offset) in &offsets {
            if let Some(length) = sealed(key).filter(|length| offset > length) {
                let segment = self.segment_id(*key);
                return Err(CutProblem::BeyondLength { segment, offset: *offset, length });
            }
        }
        Ok(())
    }

    /// As [`Stream::check_cut`], for a truncation: a stream has one head, which is whole, and stays
    /// so when it moves.
    pub fn check_truncation(
        &self,
        cut: &CutOffsets,
        covers: CutCoverage,
    ) -> Result<(), CutProblem> {
        if covers != CutCoverage::Everything {
            return Err(CutProblem::OfPart);
        }
        self.check_cut(cut, covers)?;
        self.check_unordered(&self.head_after(cut))
    }

    /// The head after truncation to a cut that fits.
    pub(super) fn head_after(&self, cut: &CutOffsets) -> BTreeMap<SegmentKey, Offset> {
        let offsets = cut.iter().map(|(epoch, number, offset)| ((*epoch, *number), *offset));
        self.moved_head(&offsets.collect())
    }

    fn moved_head(&self, cut: &BTreeMap<SegmentKey, Offset>) -> BTreeMap<SegmentKey, Offset> {
        let place = |(key, offset): (SegmentKey, Offset)| (self.range_of(key), key, offset);
        let mut old: Vec<_> = self.head_offsets().into_iter().map(place).collect();
        let mut new: Vec<_> = cut.iter().map(|(k, o)| place((*k, *o))).collect();
        old.sort_unstable();
        new.sort_unstable();
        let mut head = BTreeMap::new();
        let (mut at_old, mut at_new) = (old.into_iter().peekable(), new.into_iter().peekable());
        while let (Some((old_range, old_key, old_offset)), Some((new_range, new_key, new_offset))) =
            (at_old.peek().copied(), at_new.peek().copied())
        {
            let later = (old_key, old_offset).max((new_key, new_offset));
            head.insert(later.0, later.1);
            let (old_end, new_end) = (end_of(old_range), end_of(new_range));
            if old_end <= new_end {
                at_old.next();
            }
            if new_end <= old_end {
                at_new.next();
            }
        }
        head
    }

    fn range_of(&self, key: SegmentKey) -> Option<KeyRange> {
        self.known_segment(key).map(|segment| segment.range)
    }

    fn check_covering(
        &self,
        cut: &BTreeMap<SegmentKey, Offset>,
        covers: CutCoverage,
    ) -> Result<(), CutProblem> {
        let mut ranges = Vec::with_capacity(cut.len());
        for key in cut.keys() {
            let range = self.range_of(*key);
            ranges.push(range.ok_or_else(|| CutProblem::Unknown(self.segment_id(*key)))?);
        }
        if ranges.is_empty() {
            return Err(CutProblem::Empty);
        }
        let whole = match covers {
            CutCoverage::Everything => KeyRange::ALL,
            CutCoverage::Keys(range) => range,
            CutCoverage::Segments => return Ok(()),
        };
        ranges.sort_unstable();
        // Segments at the ends of a range may reach beyond it.
        let mut next = Some(whole.low());
        for (at, range) in ranges.into_iter().enumerate() {
            match next {
                Some(next) if range.low() > next => return Err(CutProblem::NotCovering("a gap")),
                Some(next) if range.low() == next => {}
                Some(next) if at == 0 && range.high() >= next => {}
                Some(_) if at == 0 => return Err(CutProblem::NotCovering("a foreign key")),
                _ => return Err(CutProblem::NotCovering("an overlap")),
            }
            next = (range.high() < whole.high()).then(|| range.high() + 1);
        }
        if next.is_some() { Err(CutProblem::NotCovering("a gap")) } else { Ok(()) }
    }

    fn check_unordered(&self, cut: &BTreeMap<SegmentKey, Offset>) -> Result<(), CutProblem> {
        let mut earlier = None;
        self.ancestors_of(cut.keys().copied(), Stream::known_segment, &mut |ancestor| {
            earlier = cut.contains_key(&ancestor).then_some(ancestor);
            earlier.is_none()
        });
        let Some(earlier) = earlier else { return Ok(()) };
        let mut later = earlier;
        for key in cut.keys() {
            self.ancestors_of([*key].into_iter(), Stream::known_segment, &mut |ancestor| {
                if ancestor == earlier {
                    later = *key;
                }
                ancestor != earlier
            });
        }
        let (earlier, later) = (self.segment_id(earlier), self.segment_id(later));
        Err(CutProblem::Ordered { earlier, later })
    }
}

/// Where a range ends; a segment that nobody knows ends before everything.
fn end_of(range: Option<KeyRange>) -> Option<u64> {
    range.map(KeyRange::high)
}
