//! What earlier processes of a named writer stored, as its segments told at the first `Open`.
//!
//! An event with number n is stored exactly if some segment that owns or owned its position has a
//! last number of n or more: numbers go to a position in ascending order, and a successor gets
//! events only after its predecessors are settled. It is in the first such segment, in the order
//! of epochs.

use std::collections::BTreeMap;

use common::{KeyPosition, KeyRange, SegmentId};

use super::segment::State;
use super::{Mode, WriterCore};

/// The segments that stored something, seen from the positions of the key space.
#[derive(Debug)]
pub(super) enum Resume {
    /// Segments are still being asked.
    Asking,
    /// All have answered.
    Known(Found),
}

#[derive(Debug, Default)]
pub(super) struct Found {
    /// Ascending by their lowest positions.
    tiles: Vec<Tile>,
    /// The highest number that is stored anywhere.
    highest: u64,
}

#[derive(Debug)]
struct Tile {
    low: u64,
    /// (last number, segment) in the order of epochs, of those whose last number is higher than
    /// all before them: nothing is stored in the others.
    holders: Vec<(u64, usize)>,
}

impl Resume {
    pub(super) fn new(named: bool) -> Self {
        if named { Self::Asking } else { Self::Known(Found::default()) }
    }

    #[inline]
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Known(_))
    }

    /// The highest number that was stored anywhere before; 0 while that is not known.
    #[inline]
    pub(super) fn highest(&self) -> u64 {
        match self {
            Self::Asking => 0,
            Self::Known(found) => found.highest,
        }
    }

    /// The segment that stored the event `number`, whose key lies at `position`.
    pub(super) fn holder(&self, position: KeyPosition, number: u64) -> Option<usize> {
        let Self::Known(Found { tiles, .. }) = self else { return None };
        let after = tiles.partition_point(|tile| tile.low <= position.0);
        let holders = &tiles[after.checked_sub(1)?].holders;
        let at = holders.partition_point(|(last, _)| *last < number);
        holders.get(at).map(|(_, segment)| *segment)
    }

    /// The highest number that was stored by a segment that shares keys with `range`.
    pub(super) fn highest_in(&self, range: KeyRange) -> u64 {
        let Self::Known(Found { tiles, .. }) = self else { return 0 };
        let first = tiles.partition_point(|tile| tile.low <= range.low()).saturating_sub(1);
        let shared = tiles[first..].iter().take_while(|tile| tile.low <= range.high());
        shared.filter_map(|tile| tile.holders.last()).map(|(last, _)| *last).max().unwrap_or(0)
    }
}

/// A segment that stored something: its place in the order of epochs, its keys, its last number,
/// its index.
type Holder = (SegmentId, KeyRange, u64, usize);

impl Found {
    fn new(holders: &[Holder]) -> Self {
        let highest = holders.iter().map(|(_, _, last, _)| *last).max().unwrap_or(0);
        Self { tiles: tiles(holders), highest }
    }
}

/// Sweeps over the ranges' edges.
fn tiles(holders: &[Holder]) -> Vec<Tile> {
    let mut edges: BTreeMap<u64, (Vec<&Holder>, Vec<&Holder>)> = BTreeMap::new();
    for holder in holders {
        edges.entry(holder.1.low()).or_default().0.push(holder);
        if let Some(behind) = holder.1.high().checked_add(1) {
            edges.entry(behind).or_default().1.push(holder);
        }
    }
    let mut current: BTreeMap<SegmentId, (u64, usize)> = BTreeMap::new();
    let mut tiles = Vec::with_capacity(edges.len());
    for (low, (beginning, ending)) in edges {
        for (id, ..) in ending {
            current.remove(id);
        }
        current.extend(beginning.into_iter().map(|(id, _, last, index)| (*id, (*last, *index))));
        let mut holders: Vec<(u64, usize)> = Vec::new();
        for &(last, index) in current.values() {
            if holders.last().is_none_or(|(before, _)| *before < last) {
                holders.push((last, index));
            }
        }
        tiles.push(Tile { low, holders });
    }
    tiles
}

impl WriterCore {
    /// A named writer is ready once every segment it knows has answered, sealed ones with
    /// successors that it knows in turn.
    pub(super) fn check_resumed(&mut self) {
        if self.resume.is_done() {
            return;
        }
        let answered = |state: State| matches!(state, State::Open(_) | State::Sealed);
        if !self.segments.iter().all(|segment| answered(segment.state)) {
            return;
        }
        let segments = self.segments.iter().enumerate();
        let stored = segments.filter(|(_, segment)| segment.acknowledged > 0);
        let holder = stored.map(|(index, segment)| {
            (segment.place.segment, segment.place.range, segment.acknowledged, index)
        });
        self.resume = Resume::Known(Found::new(&holder.collect::<Vec<_>>()));
        match self.identity.mode {
            Mode::Continue => self.next_number = self.resume.highest() + 1,
            Mode::Replay => self.begin_proof(),
            Mode::Anonymous => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use common::{SegmentNumber, StreamEpoch, StreamId};

    use super::*;

    fn range(low: u64, high: u64) -> KeyRange {
        KeyRange::new(low, high).unwrap()
    }

    fn holder(epoch: u32, index: usize, low: u64, high: u64, last: u64) -> Holder {
        let number = SegmentNumber(index as u32);
        let id = SegmentId { stream: StreamId(1), epoch: StreamEpoch(epoch), number };
        (id, range(low, high), last, index)
    }

    #[test]
    fn an_event_is_in_the_first_segment_of_its_keys_that_goes_as_far() {
        // Split at 100, then 50 to 99 got a segment of its own, which was merged with the right.
        let found = Resume::Known(Found::new(&[
            holder(1, 1, 0, 99, 30),
            holder(0, 0, 0, u64::MAX, 10),
            holder(2, 2, 50, 99, 20),
            holder(3, 3, 50, u64::MAX, 40),
        ]));
        let at = |position, number| found.holder(KeyPosition(position), number);
        for position in [0, 49, 50, 99, 100, u64::MAX] {
            assert_eq!((at(position, 1), at(position, 10)), (Some(0), Some(0)), "{position}");
        }
        assert_eq!([at(0, 11), at(49, 30), at(50, 20), at(99, 30)], [Some(1); 4]);
        assert_eq!([at(50, 31), at(99, 40), at(100, 11), at(u64::MAX, 40)], [Some(3); 4]);
        assert_eq!([at(49, 31), at(50, 41), at(100, 41)], [None; 3]);
        assert_eq!(found.highest(), 40);
        let highest = [range(0, 49), range(0, 50), range(99, 99), range(100, 101)];
        assert_eq!(highest.map(|range| found.highest_in(range)), [30, 40, 40, 40]);
    }
}
