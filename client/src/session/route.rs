//! Which segment an event goes to.

use common::{KeyPosition, KeyRange};
use proto::convert::SegmentPlace;

use crate::error::{ClientError, Result};

/// The key space, tiled by segments, as sorted lower bounds.
#[derive(Debug, Clone)]
pub(super) struct Router {
    /// (lowest position, segment); the first entry begins at 0.
    tiles: Vec<(u64, usize)>,
}

impl Router {
    /// `places` get the indexes in which they stand.
    pub(super) fn new(places: &[SegmentPlace]) -> Result<Self> {
        let ranges: Vec<_> = places.iter().map(|place| place.range).collect();
        if !KeyRange::tiles(KeyRange::ALL, &ranges) {
            return Err(ClientError::protocol("the stream's segments do not tile the key space"));
        }
        let mut tiles: Vec<_> = ranges.iter().enumerate().map(|(i, r)| (r.low(), i)).collect();
        tiles.sort_unstable();
        Ok(Self { tiles })
    }

    /// The only segment, where there is one: no key needs to be hashed then.
    #[inline]
    pub(super) fn only(&self) -> Option<usize> {
        match self.tiles[..] {
            [(_, only)] => Some(only),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn find(&self, position: KeyPosition) -> usize {
        let after = self.tiles.partition_point(|(low, _)| *low <= position.0);
        self.tiles[after - 1].1
    }

    /// What belonged to `old` belongs to `new` from here on: ranges that tile what `old` had.
    pub(super) fn replace(&mut self, old: usize, new: &[(KeyRange, usize)]) {
        let mut tiles = Vec::with_capacity(self.tiles.len() + new.len());
        for (i, &(low, owner)) in self.tiles.iter().enumerate() {
            if owner != old {
                tiles.push((low, owner));
                continue;
            }
            let high = self.tiles.get(i + 1).map_or(u64::MAX, |(next, _)| next - 1);
            let tile = KeyRange::new(low, high).expect("tiles ascend");
            let inside = new.iter().filter(|(range, _)| range.overlaps(tile));
            tiles.extend(inside.map(|(range, owner)| (range.low().max(low), *owner)));
        }
        tiles.sort_unstable();
        tiles.dedup_by(|later, earlier| later.1 == earlier.1);
        assert_eq!(tiles.first().map(|(low, _)| *low), Some(0), "tiles cover the key space");
        self.tiles = tiles;
    }
}

/// The part that two ranges share.
pub(super) fn intersection(a: KeyRange, b: KeyRange) -> Option<KeyRange> {
    KeyRange::new(a.low().max(b.low()), a.high().min(b.high()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(low: u64, high: u64) -> KeyRange {
        KeyRange::new(low, high).unwrap()
    }

    #[test]
    fn a_split_and_a_merge_move_positions_to_their_new_owners() {
        let mut router = Router { tiles: vec![(0, 0), (100, 1)] };
        router.replace(0, &[(range(0, 49), 2), (range(50, 99), 3)]);
        let owners = [0, 49, 50, 99, 100, u64::MAX].map(|p| router.find(KeyPosition(p)));
        assert_eq!(owners, [2, 2, 3, 3, 1, 1]);
        let merged = range(50, u64::MAX);
        router.replace(3, &[(merged, 4)]);
        assert_eq!(router.find(KeyPosition(100)), 1);
        router.replace(1, &[(merged, 4)]);
        let owners = [0, 49, 50, 99, 100, u64::MAX].map(|p| router.find(KeyPosition(p)));
        assert_eq!(owners, [2, 2, 4, 4, 4, 4]);
        assert_eq!(router.tiles.len(), 2);
    }
}
