//! Positions in the key space and the ranges that tile it.

use std::fmt;

/// A place in the key space, which is all of u64. See [`crate::routing`] for how keys get there.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct KeyPosition(pub u64);

/// A part of the key space, inclusive of both ends, so that ranges tile the space exactly.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct KeyRange {
    low: u64,
    high: u64,
}

impl KeyRange {
    /// The whole key space.
    pub const ALL: KeyRange = KeyRange { low: 0, high: u64::MAX };

    /// `None` when `low` is above `high`.
    pub const fn new(low: u64, high: u64) -> Option<Self> {
        if low <= high { Some(Self { low, high }) } else { None }
    }

    pub const fn low(self) -> u64 {
        self.low
    }

    pub const fn high(self) -> u64 {
        self.high
    }

    pub const fn contains(self, position: KeyPosition) -> bool {
        self.low <= position.0 && position.0 <= self.high
    }

    pub const fn overlaps(self, other: KeyRange) -> bool {
        self.low <= other.high && other.low <= self.high
    }

    /// The whole space in `count` ranges whose widths differ by at most one.
    ///
    /// Panics when `count` is 0.
    pub fn tile(count: u32) -> Vec<KeyRange> {
        assert!(count > 0, "a stream has at least one segment");
        (0..count).map(|number| Self::nth_tile(count, number)).collect()
    }

    /// The one of [`Self::tile`]'s ranges that has this number, from 0.
    pub fn nth_tile(count: u32, number: u32) -> KeyRange {
        assert!(number < count, "{count} ranges are numbered from 0");
        let bound = |i: u32| ((u128::from(i) << 64) / u128::from(count)) as u64;
        let high = if number + 1 == count { u64::MAX } else { bound(number + 1) - 1 };
        KeyRange { low: bound(number), high }
    }

    /// Whether `ranges`, in any order, cover `whole` exactly: no gap, no overlap.
    pub fn tiles(whole: KeyRange, ranges: &[KeyRange]) -> bool {
        let mut sorted = ranges.to_vec();
        sorted.sort_unstable();
        let mut next = Some(whole.low);
        for range in sorted {
            if next != Some(range.low) {
                return false;
            }
            next = range.high.checked_add(1);
            if range.high == whole.high {
                next = None;
            }
        }
        next.is_none() && !ranges.is_empty()
    }
}

/// Shown as fractions of [0,1), the form people use.
impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = |v: u64| v as f64 / 18_446_744_073_709_551_616.0;
        let end = if self.high == u64::MAX { 1.0 } else { fraction(self.high + 1) };
        write!(f, "[{:.6}, {:.6})", fraction(self.low), end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tiles_cover_the_key_space_exactly(count in 1_u32..2_000, position: u64) {
            let tiles = KeyRange::tile(count);
            prop_assert!(KeyRange::tiles(KeyRange::ALL, &tiles));
            let owners = tiles.iter().filter(|t| t.contains(KeyPosition(position))).count();
            prop_assert_eq!(owners, 1);
        }
    }

    #[test]
    fn a_gap_of_one_position_is_found() {
        let mut tiles = KeyRange::tile(4);
        assert!(KeyRange::tiles(KeyRange::ALL, &tiles));
        tiles[1] = KeyRange::new(tiles[1].low() + 1, tiles[1].high()).unwrap();
        assert!(!KeyRange::tiles(KeyRange::ALL, &tiles));
    }

    #[test]
    fn an_overlap_and_an_empty_set_do_not_tile() {
        let mut tiles = KeyRange::tile(3);
        tiles.push(tiles[0]);
        assert!(!KeyRange::tiles(KeyRange::ALL, &tiles));
        assert!(!KeyRange::tiles(KeyRange::ALL, &[]));
    }

    #[test]
    fn ranges_are_shown_as_fractions() {
        let shown: Vec<_> = KeyRange::tile(2).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["[0.000000, 0.500000)", "[0.500000, 1.000000)"]);
    }
}
