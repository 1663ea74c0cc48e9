use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000;

/// An index with what is saved of it.
#[derive(Debug, Default)]
struct Saved {
    index: TimeIndex,
    chunks: BTreeMap<(usize, u64), Vec<u8>>,
}

fn put(chunks: &mut BTreeMap<(usize, u64), Vec<u8>>) -> impl FnMut(usize, ChunkChange) + use<'_> {
    |level, (chunk, value)| match value {
        Some(value) => drop(chunks.insert((level, chunk), value)),
        None => drop(chunks.remove(&(level, chunk))),
    }
}

impl Saved {
    fn note(&mut self, offset: u64, stamp: u64) {
        self.index.note(Offset(offset), WallTime(stamp), put(&mut self.chunks));
    }

    fn truncate(&mut self, start: u64) {
        self.index.truncate(Offset(start), put(&mut self.chunks));
    }

    fn restored(&mut self, start: u64) -> TimeIndex {
        self.index.save(put(&mut self.chunks));
        let mut restored = TimeIndex::default();
        for ((level, _), chunk) in &self.chunks {
            restored.restore(*level as u8, chunk).unwrap();
        }
        restored.truncate(Offset(start), |_, _| {});
        restored
    }

    fn points(&self) -> usize {
        self.index.levels().map(VecDeque::len).sum()
    }
}

fn all(index: &TimeIndex) -> Vec<TimePoint> {
    index.levels().flatten().copied().collect()
}

#[test]
fn a_time_after_everything_is_the_end_and_one_before_everything_the_start() {
    let mut index = Saved::default();
    assert_eq!(index.index.find(WallTime(5), Offset(0), Offset(0)), Offset(0));
    index.note(0, 1_000);
    index.note(10, 2_000);
    let index = index.index;
    assert_eq!(index.find(WallTime(0), Offset(0), Offset(20)), Offset(0));
    assert_eq!(index.find(WallTime(2_000), Offset(0), Offset(20)), Offset(0));
    assert_eq!(index.find(WallTime(2_001), Offset(0), Offset(20)), Offset(20));
}

#[test]
fn the_points_of_a_range_say_when_each_of_its_bytes_was_stored() {
    let mut index = Saved::default();
    let stored = |byte: u64| byte / 3 * SECOND / 2;
    for byte in 0..2_000 {
        index.note(byte, stored(byte));
    }
    index.truncate(100);
    for (from, to) in [(100, 101), (100, 2_000), (777, 1_400), (1_999, 2_000), (1_200, 1_201)] {
        let points = index.index.covering(Offset(from), Offset(to));
        assert!(points[0].offset <= Offset(from), "{points:?}");
        assert!(points[1..].iter().all(|point| (from + 1..to).contains(&point.offset.0)));
        for byte in from..to {
            let at = points.iter().rfind(|point| point.offset.0 <= byte).unwrap();
            let times = at.first.as_micros()..=at.last.as_micros();
            assert!(times.contains(&stored(byte)), "byte {byte}: {at:?}");
        }
    }
    assert_eq!(TimeIndex::default().covering(Offset(0), Offset(9)), []);
}

#[test]
fn a_week_of_appends_every_second_takes_a_few_thousand_points() {
    let mut index = Saved::default();
    let week = 7 * 24 * 3_600;
    for second in 0..week {
        index.note(second, second * SECOND);
    }
    assert!(index.points() <= 13 * LEVEL_POINTS_MAX, "{} points", index.points());
    let found = |ago: u64| {
        let asked = week - ago;
        let found = index.index.find(WallTime(asked * SECOND), Offset(0), Offset(week)).0;
        assert!(found <= asked);
        asked - found
    };
    for ago in [60, 3_600, 86_400, week / 2, week - 1] {
        assert!(found(ago) <= ago / 100, "{ago} s ago is found {} s early", found(ago));
    }
}

#[test]
fn an_index_of_an_earlier_version_is_thinned_little_by_little() {
    let mut earlier = Chunked::default();
    let mut index = Saved::default();
    for second in 0..5_000 {
        let at = WallTime(second * SECOND);
        if let Some(chunk) = earlier.push(TimePoint { offset: Offset(second), first: at, last: at })
        {
            put(&mut index.chunks)(0, chunk);
        }
    }
    put(&mut index.chunks)(0, earlier.save().unwrap());
    for value in index.chunks.values() {
        index.index.restore(0, value).unwrap();
    }
    for second in 5_000..5_100 {
        let before = index.points();
        index.note(second, second * SECOND);
        // Each move halves the points of one chunk of each level at most.
        let thinned = (before + 1).saturating_sub(index.points());
        assert!(thinned <= MOVES_MAX * 8 * CHUNK_ITEMS as usize / 2, "{thinned} at once");
        assert_eq!(all(&index.restored(0)), all(&index.index));
    }
    assert!(index.points() < 6 * LEVEL_POINTS_MAX, "{} points", index.points());
    assert_eq!(index.index.oldest(), Some(WallTime(0)));
}

proptest! {
    #[test]
    fn nothing_at_or_after_the_time_is_skipped_and_the_resolution_is_kept(
        gaps in proptest::collection::vec(0_u64..700_000, 1..60),
        asked in 0_u64..30_000_000,
        start in 0_u64..600,
    ) {
        let (mut index, mut stamp, mut stored) = (Saved::default(), 0, Vec::new());
        for (i, gap) in gaps.iter().enumerate() {
            stamp += gap;
            index.note(i as u64 * 10, stamp);
            stored.push((Offset(i as u64 * 10), WallTime(stamp)));
        }
        let length = Offset(stored.len() as u64 * 10);
        let start = Offset(start.min(length.0));
        index.truncate(start.0);
        let found = index.index.find(WallTime(asked), start, length);
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

    /// Appends in bursts, truncations and restarts in between: what is found is never too late and
    /// too early by no more than the age allows, and what is saved is what is there.
    #[test]
    fn old_points_are_thinned_and_answers_stay_right(
        rounds in proptest::collection::vec((1_u64..900, 1_u64..5, any::<u8>()), 1..12),
        asked in proptest::collection::vec(any::<u16>(), 1..20),
    ) {
        let (mut index, mut stored, mut start, mut stamp) = (Saved::default(), Vec::new(), 0, 0);
        for (appends, gap, truncation) in rounds {
            for _ in 0..appends {
                stamp += gap * SECOND;
                index.note(stored.len() as u64, stamp);
                stored.push(stamp);
            }
            if truncation % 3 == 0 {
                let living = stored.len() as u64 - start;
                start += living * u64::from(truncation) / 256;
                index.truncate(start);
            }
            let restored = index.restored(start);
            prop_assert_eq!(all(&restored), all(&index.index));
            if truncation % 2 == 0 {
                index.index = restored;
            }
        }
        let length = stored.len() as u64;
        prop_assert!(index.points() <= LEVEL_POINTS_MAX * 8);
        for part in asked {
            let time = WallTime(stamp * u64::from(part) / u64::from(u16::MAX));
            let found = index.index.find(time, Offset(start), Offset(length)).0;
            let right = (stored.partition_point(|stamp| *stamp < time.0) as u64).max(start);
            prop_assert!(found <= right, "{found} skips {right}");
            let newer = length - found;
            prop_assert!((right - found) * 64 <= newer + 64, "{found} for {right} of {length}");
        }
    }
}
