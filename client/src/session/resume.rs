//! What earlier processes of a named writer stored, as its segments told at the first `Open`.
//!
//! An event with number n is stored exactly if some segment that owns or owned its position has a
//! last number of n or more: numbers go to a position in ascending order, and a successor gets
//! events only after its predecessors are settled.

use std::collections::BTreeMap;

use common::{KeyPosition, KeyRange};

use super::WriterCore;
use super::segment::State;

#[derive(Debug)]
pub(super) enum Resume {
    /// Segments are still being asked.
    Asking { stored: Vec<(KeyRange, u64)> },
    /// All have answered: (lowest position, last number), and the highest of the numbers.
    Known { tiles: Vec<(u64, u64)>, highest: u64 },
}

impl Resume {
    pub(super) fn new(named: bool) -> Self {
        if named {
            Self::Asking { stored: Vec::new() }
        } else {
            Self::Known { tiles: Vec::new(), highest: 0 }
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Known { .. })
    }

    pub(super) fn note(&mut self, range: KeyRange, last: u64) {
        if let Self::Asking { stored } = self {
            stored.push((range, last));
        }
    }

    #[inline]
    pub(super) fn may_be_stored(&self, number: u64) -> bool {
        matches!(self, Self::Known { highest, .. } if number <= *highest)
    }

    /// The last number stored for a position.
    pub(super) fn stored_at(&self, position: KeyPosition) -> u64 {
        let Self::Known { tiles, .. } = self else { return 0 };
        let after = tiles.partition_point(|(low, _)| *low <= position.0);
        after.checked_sub(1).map_or(0, |i| tiles[i].1)
    }

    fn finish(&mut self) {
        if let Self::Asking { stored } = self {
            let highest = stored.iter().map(|(_, last)| *last).max().unwrap_or(0);
            *self = Self::Known { tiles: highest_per_tile(stored), highest };
        }
    }
}

/// Sweeps over the ranges' edges; the highest number of the ranges that overlap there counts.
fn highest_per_tile(stored: &[(KeyRange, u64)]) -> Vec<(u64, u64)> {
    let mut begins: BTreeMap<u64, (Vec<u64>, Vec<u64>)> = BTreeMap::new();
    for (range, last) in stored.iter().filter(|(_, last)| *last > 0) {
        begins.entry(range.low()).or_default().0.push(*last);
        if let Some(behind) = range.high().checked_add(1) {
            begins.entry(behind).or_default().1.push(*last);
        }
    }
    let mut current: BTreeMap<u64, usize> = BTreeMap::new();
    let mut tiles = Vec::with_capacity(begins.len());
    for (low, (starting, ending)) in begins {
        for last in starting {
            *current.entry(last).or_default() += 1;
        }
        for last in ending {
            if let Some(count) = current.get_mut(&last) {
                *count -= 1;
                if *count == 0 {
                    current.remove(&last);
                }
            }
        }
        tiles.push((low, current.last_key_value().map_or(0, |(last, _)| *last)));
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
        if self.segments.iter().all(|segment| answered(segment.state)) {
            self.resume.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_among_overlapping_segments_counts() {
        let range = |low, high| KeyRange::new(low, high).unwrap();
        let mut resume = Resume::new(true);
        resume.note(range(0, u64::MAX), 10);
        resume.note(range(0, 99), 30);
        resume.note(range(100, u64::MAX), 0);
        resume.note(range(50, 99), 20);
        resume.finish();
        let at = [0, 50, 99, 100, u64::MAX].map(|p| resume.stored_at(KeyPosition(p)));
        assert_eq!(at, [30, 30, 30, 10, 10]);
        assert!(resume.may_be_stored(30) && !resume.may_be_stored(31));
    }
}
