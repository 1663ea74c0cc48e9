//! The rolling hash behind each entry that is not archived yet: rounds carry it, so that a replay
//! notices the first outcome that differs.
//!
//! It is not saved: the digests of entries below the saved state are not known after a restart, and
//! neither are the oldest where very many entries wait. Zero stands for those, and a replay does
//! not compare them.

use std::collections::VecDeque;

use common::LogIndex;

/// Entries whose digest is kept: 8 MiB a group at most.
const ENTRIES_MAX: usize = 1 << 20;

/// Digests of consecutive entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Digests {
    first: u64,
    digests: VecDeque<u64>,
}

impl Digests {
    /// What stands for a digest that is not known.
    pub(crate) const UNKNOWN: u64 = 0;

    pub(crate) fn push(&mut self, index: LogIndex, digest: u64) {
        if self.first + self.digests.len() as u64 != index.0 {
            self.digests.clear();
            self.first = index.0;
        }
        if self.digests.len() == ENTRIES_MAX {
            self.digests.pop_front();
            self.first += 1;
        }
        self.digests.push_back(digest);
    }

    /// The entries up to this one are archived.
    pub(crate) fn archived(&mut self, end: LogIndex) {
        let gone = (end.0 + 1).saturating_sub(self.first).min(self.digests.len() as u64);
        self.digests.drain(..gone as usize);
        self.first += gone;
        if self.digests.is_empty() {
            self.digests.shrink_to(1_024);
        }
    }

    pub(crate) fn get(&self, index: LogIndex) -> u64 {
        let at = index.0.checked_sub(self.first).map(|at| at as usize);
        at.and_then(|at| self.digests.get(at)).copied().unwrap_or(Self::UNKNOWN)
    }

    /// Those of the next `count` entries from `first` on.
    pub(crate) fn part(&self, first: LogIndex, count: usize) -> Self {
        let skip = first.0.saturating_sub(self.first).min(self.digests.len() as u64);
        let digests = self.digests.iter().skip(skip as usize).take(count).copied().collect();
        Self { first: self.first + skip, digests }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_known_from_the_first_that_was_pushed_to_the_last() {
        let mut digests = Digests::default();
        (5..10).for_each(|index| digests.push(LogIndex(index), index * 11));
        assert_eq!(digests.get(LogIndex(4)), Digests::UNKNOWN);
        assert_eq!(digests.get(LogIndex(5)), 55);
        digests.archived(LogIndex(6));
        assert_eq!(digests.get(LogIndex(6)), Digests::UNKNOWN);
        let part = digests.part(LogIndex(8), 1);
        assert_eq!((part.get(LogIndex(8)), part.get(LogIndex(9))), (88, Digests::UNKNOWN));
        digests.archived(LogIndex(99));
        digests.push(LogIndex(10), 110);
        assert_eq!(digests.get(LogIndex(10)), 110);
    }

    #[test]
    fn the_oldest_are_forgotten_where_very_many_wait() {
        let mut digests = Digests::default();
        let many = ENTRIES_MAX as u64 + 10;
        (1..=many).for_each(|index| digests.push(LogIndex(index), index));
        assert_eq!(digests.get(LogIndex(10)), Digests::UNKNOWN);
        assert_eq!(digests.get(LogIndex(11)), 11);
        assert_eq!(digests.get(LogIndex(many)), many);
    }
}
