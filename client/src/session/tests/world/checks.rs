//! What must hold after each step, and in the end.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::Mode;
use super::super::super::proof::hash_of;
use super::World;

impl World {
    /// Numbers of the stored events, segment by segment in order of epochs.
    pub(super) fn stored(&self) -> Vec<(Option<String>, u64)> {
        let segments = self.store.segments.values();
        let events = segments.flat_map(|segment| segment.events.iter());
        let number = |payload: &[u8]| u64::from_le_bytes(payload.try_into().unwrap());
        events.map(|event| (event.key.clone(), number(&event.payload))).collect()
    }

    pub(super) fn check(&mut self) {
        assert_eq!(self.core.failed(), None);
        let acknowledged = self.core.acknowledged();
        assert!(acknowledged >= self.watermark, "the watermark went back");
        if self.mode == Mode::Continue && self.is_new {
            return;
        }
        let reached = self.watermark.0 + 1..=acknowledged.0;
        self.watermark = acknowledged;
        self.acknowledged.extend(reached.clone());
        if !reached.is_empty() {
            let stored: BTreeSet<_> = self.stored().into_iter().map(|(_, n)| n).collect();
            let lost: Vec<_> = reached.filter(|number| !stored.contains(number)).collect();
            assert!(lost.is_empty(), "acknowledged, but not stored: {lost:?}");
        }
    }

    /// What must hold in the end: stored is what was appended, once, in order per key. Of a writer
    /// that continues, what an earlier process appended and was not acknowledged may be missing.
    pub(in super::super) fn check_complete(&self) {
        let stored = self.stored();
        let mut numbers: Vec<_> = stored.iter().map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        let may_miss = |number: &u64| *number < self.first && !self.acknowledged.contains(number);
        let there = |number: &u64| numbers.binary_search(number).is_ok();
        let appended = self.appended.keys().filter(|number| !may_miss(number) || there(number));
        let appended: Vec<_> = appended.copied().collect();
        assert_eq!(numbers, appended, "stored against appended");
        self.check_sums();
        let mut last: BTreeMap<&Option<String>, u64> = BTreeMap::new();
        for (key, number) in stored.iter().filter(|(key, _)| key.is_some()) {
            let before = last.insert(key, *number).unwrap_or(0);
            assert!(before < *number, "{key:?}: {number} behind {before}");
        }
        assert_eq!(self.core.acknowledged().0 + 1, self.core.next_number().0);
        assert_eq!(self.core.memory_used(), 0);
        self.check_batches();
    }

    /// Each segment keeps the sum of what it stored of a writer that replays.
    fn check_sums(&self) {
        for segment in self.store.segments.values() {
            let number = |payload: &[u8]| u64::from_le_bytes(payload.try_into().unwrap());
            let hashes = segment.events.iter().map(|e| hash_of(number(&e.payload), e.checksum));
            let sum = hashes.fold(0_u64, u64::wrapping_add);
            let expected = if self.mode == Mode::Replay { sum } else { 0 };
            let kept: u64 = segment.writers.values().map(|entry| entry.sum).sum();
            assert_eq!(kept, expected, "{}", segment.place.segment);
        }
    }

    /// A batch stands in one segment, in one piece.
    fn check_batches(&self) {
        for (&number, (_, batch)) in &self.appended {
            if batch.is_none() || *batch == Some(number) || number < self.first {
                continue;
            }
            let neighbours = self.store.segments.values().any(|segment| {
                segment.events.windows(2).any(|pair| {
                    pair[0].payload[..] == (number - 1).to_le_bytes()
                        && pair[1].payload[..] == number.to_le_bytes()
                })
            });
            assert!(neighbours, "the batch of event {number} is torn");
        }
    }
}
