//! What the log keeps in memory of one group: its state and where each entry is.
//!
//! Recovery and the running log change it through the same functions. Each hands the places of the
//! entries that go to the caller, who counts what every file still holds.
//!
//! An entry may have been copied forward: then its place is behind that of later ones. Recovery, which
//! begins with the oldest file that is left, meets such a copy before it has the entries around it,
//! and keeps its place aside until it knows them.

mod holdings;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use common::{GroupId, LogIndex, Term};

use crate::format::{GroupRow, record_bytes};
use crate::{BlockSeq, Conf, GroupState, HardState, LostEntries, SECTOR_BYTES, Truncated};
use holdings::Holdings;

/// Where an entry's record is. File sequences and offsets fit 32 bits: a directory would have to
/// write 2^32 files first, and a file has at most 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) term: Term,
    pub(crate) file: u32,
    /// Of the record header, from the start of the file.
    pub(crate) offset: u32,
    /// Of the payload.
    pub(crate) length: u32,
}

impl Place {
    /// The place of an entry that was given up. Files are counted from 1.
    pub(crate) fn lost(term: Term) -> Place {
        Place { term, file: 0, offset: 0, length: 0 }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.file == 0
    }

    pub(crate) fn bytes(&self) -> u64 {
        if self.is_lost() { 0 } else { record_bytes(self.length as usize) as u64 }
    }

    /// Bytes that a copy of it takes: small ones share sectors.
    pub(crate) fn copy_bytes(&self) -> u64 {
        let (bytes, sector) = (self.bytes(), SECTOR_BYTES as u64);
        if bytes < sector { bytes } else { bytes.next_multiple_of(sector) }
    }
}

/// One group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    /// The sequence of the group's last record.
    pub(crate) sequence: u64,
    /// The last one that changed which entries there are.
    pub(crate) entry_sequence: u64,
    pub(crate) hard_state: HardState,
    /// The block that has it; 0 before one was appended.
    pub(crate) promised_in: BlockSeq,
    pub(crate) truncated: Truncated,
    pub(crate) conf: Option<Conf>,
    pub(crate) mark: Option<Bytes>,
    pub(crate) tombstone: Option<Bytes>,
    pub(crate) quarantined: Option<String>,
    pub(crate) last: LogIndex,
    pub(crate) last_term: Term,
    /// Consecutive, ending at `last`, those given up in their places.
    entries: VecDeque<Place>,
    /// The files of `entries`.
    pub(crate) holdings: Holdings,
    /// Copies of entries before the first of `entries`: only while the log is read.
    moved: BTreeMap<LogIndex, Place>,
    /// Entries given up behind the truncated one, in order.
    pub(crate) lost: Vec<LostEntries>,
    /// Bytes of their records.
    pub(crate) bytes: u64,
    /// The newest commit index that was told, durable or not.
    pub(crate) noted_commit: LogIndex,
    /// The newest block that touched the group.
    pub(crate) touched: BlockSeq,
}

impl Group {
    /// The first index in `entries`; one above `last` when there is none.
    pub(crate) fn first(&self) -> LogIndex {
        LogIndex(self.last.0 + 1 - self.entries.len() as u64)
    }

    pub(crate) fn place(&self, index: LogIndex) -> Option<Place> {
        let at = index.0.checked_sub(self.first().0)?;
        self.entries.get(usize::try_from(at).ok()?).copied()
    }

    /// Where its entries are, without those given up.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        self.entries.iter().filter(|place| !place.is_lost())
    }

    pub(crate) fn has_entries(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Every entry with its index.
    pub(crate) fn indexed(&self) -> impl Iterator<Item = (LogIndex, Place)> {
        (self.first().0..).map(LogIndex).zip(self.entries.iter().copied())
    }

    /// The entries from `index` on, or from the first.
    pub(crate) fn indexed_from(&self, index: LogIndex) -> impl Iterator<Item = (LogIndex, Place)> {
        let from = index.max(self.first());
        let skipped = (from.0 - self.first().0) as usize;
        (from.0..).map(LogIndex).zip(self.entries.range(skipped.min(self.entries.len())..).copied())
    }

    /// A group that has these entries, ending at `last`.
    pub(crate) fn with_entries(last: LogIndex, entries: VecDeque<Place>) -> Group {
        let bytes = entries.iter().map(Place::bytes).sum();
        let last_term = entries.back().map_or(Term(0), |place| place.term);
        let holdings = Holdings::of(entries.iter());
        Group { last, last_term, entries, holdings, bytes, ..Group::default() }
    }

    /// Whether every entry behind the truncated one is here.
    pub(crate) fn complete(&self) -> bool {
        if self.entries.is_empty() {
            self.last == self.truncated.index
        } else {
            self.first().0 <= self.truncated.index.0 + 1
        }
    }

    /// Adds an entry, replacing the one of its index and all behind it. An entry that does not
    /// follow the others starts the list anew: recovery meets those behind files that are gone.
    pub(crate) fn put(&mut self, index: LogIndex, place: Place, dropped: &mut dyn FnMut(Place)) {
        if index.0 > self.last.0 + 1 {
            self.drop_entries(dropped);
            self.moved.split_off(&index);
        } else {
            self.drop_from(index, dropped);
        }
        self.bytes += place.bytes();
        self.holdings.add(&place);
        self.entries.push_back(place);
        self.last = index;
        self.last_term = place.term;
    }

    /// The entry has a copy at `place`, which is where it is from now on. A copy of an entry that is
    /// not (yet) here is kept for when it is known to be the next before the first; one of an entry
    /// that was replaced by another term's is none.
    pub(crate) fn relocate(
        &mut self,
        index: LogIndex,
        place: Place,
        dropped: &mut dyn FnMut(Place),
    ) {
        let first = self.first();
        if index < first || index > self.last {
            if index > self.truncated.index {
                self.moved.insert(index, place);
                self.fill_front();
            }
            return;
        }
        let entry = &mut self.entries[(index.0 - first.0) as usize];
        if entry.is_lost() || entry.term != place.term {
            return;
        }
        let before = std::mem::replace(entry, place);
        self.bytes += place.bytes();
        self.holdings.add(&place);
        self.leave(before, dropped);
    }

    /// Drops the entries from `index` on.
    pub(crate) fn drop_from(&mut self, index: LogIndex, dropped: &mut dyn FnMut(Place)) {
        while self.last >= index {
            let Some(place) = self.entries.pop_back() else { break };
            self.leave(place, dropped);
            self.last.0 -= 1;
        }
        if self.last >= index {
            self.last = LogIndex(index.0 - 1);
        }
        self.moved.split_off(&index);
        let last = self.last;
        self.lost.retain_mut(|lost| {
            lost.last = lost.last.min(last);
            lost.first <= lost.last
        });
        if let Some(place) = self.entries.back() {
            self.last_term = place.term;
        } else if self.last == self.truncated.index {
            self.last_term = self.truncated.term;
        }
    }

    /// Drops the entries up to `to`. What was truncated before stays so.
    pub(crate) fn truncate(&mut self, to: Truncated, dropped: &mut dyn FnMut(Place)) {
        if to.index < self.truncated.index {
            return;
        }
        self.moved = self.moved.split_off(&LogIndex(to.index.0 + 1));
        if to.index >= self.last {
            return self.begin_behind(to, dropped);
        }
        while self.first() <= to.index {
            let Some(place) = self.entries.pop_front() else { break };
            self.leave(place, dropped);
        }
        self.truncated = to;
        self.lost.retain_mut(|lost| {
            lost.first = lost.first.max(LogIndex(to.index.0 + 1));
            lost.first <= lost.last
        });
    }

    /// Drops every entry; the log goes on behind `to`.
    pub(crate) fn reset(&mut self, to: Truncated, dropped: &mut dyn FnMut(Place)) {
        self.moved.clear();
        self.begin_behind(to, dropped);
    }

    fn begin_behind(&mut self, to: Truncated, dropped: &mut dyn FnMut(Place)) {
        self.drop_entries(dropped);
        self.truncated = to;
        (self.last, self.last_term) = (to.index, to.term);
    }

    /// Forgets everything but the record sequence and `tombstone`.
    pub(crate) fn bury(&mut self, tombstone: Bytes, dropped: &mut dyn FnMut(Place)) {
        self.drop_entries(dropped);
        *self = Group {
            sequence: self.sequence,
            entry_sequence: self.entry_sequence,
            touched: self.touched,
            tombstone: Some(tombstone),
            ..Group::default()
        };
    }

    fn drop_entries(&mut self, dropped: &mut dyn FnMut(Place)) {
        while let Some(place) = self.entries.pop_front() {
            self.leave(place, dropped);
        }
        self.lost.clear();
    }

    fn leave(&mut self, place: Place, dropped: &mut dyn FnMut(Place)) {
        self.bytes -= place.bytes();
        self.holdings.remove(&place);
        if !place.is_lost() {
            dropped(place);
        }
    }

    /// Puts what comes just before the first entry in its place: copies, and entries given up. Behind
    /// files that are gone this has to wait until it is known which entry is the first.
    pub(crate) fn fill_front(&mut self) {
        while self.first().0 > self.truncated.index.0 + 1 {
            let before = LogIndex(self.first().0 - 1);
            let of_lost = |lost: &&LostEntries| lost.first <= before && before <= lost.last;
            let place = match (self.moved.remove(&before), self.lost.iter().find(of_lost)) {
                (Some(place), _) if self.may_precede(place) => place,
                (_, Some(lost)) => Place::lost(lost.term),
                _ => return,
            };
            self.bytes += place.bytes();
            self.holdings.add(&place);
            self.entries.push_front(place);
        }
    }

    /// Terms never fall: a copy of a later term than the first entry is of another history.
    fn may_precede(&self, place: Place) -> bool {
        match self.entries.front() {
            Some(first) => place.term <= first.term,
            None => place.term == self.last_term,
        }
    }

    /// The log was read: copies that found no place belong to nothing.
    pub(crate) fn forget_moved(&mut self) {
        self.moved.clear();
    }

    /// Copies that have no place among the entries.
    pub(crate) fn moved(&self) -> impl Iterator<Item = (LogIndex, Place)> {
        self.moved.iter().map(|(index, place)| (*index, *place))
    }

    pub(crate) fn row(&self, group: GroupId) -> GroupRow {
        GroupRow {
            group,
            cut: false,
            bridged: false,
            quarantined: self.quarantined.is_some(),
            sequence: self.sequence,
            entry_sequence: self.entry_sequence,
            hard_state: self.hard_state,
            truncated: self.truncated,
            last: self.last,
            last_term: self.last_term,
            conf: self.conf.clone(),
            mark: self.mark.clone(),
            tombstone: self.tombstone.clone(),
            lost: self.lost.clone(),
        }
    }

    /// Takes everything a table says but the entries, which stay if they end where it says.
    pub(crate) fn adopt(&mut self, row: &GroupRow) {
        self.sequence = row.sequence;
        self.entry_sequence = row.entry_sequence;
        self.hard_state = row.hard_state;
        self.truncated = row.truncated;
        self.conf.clone_from(&row.conf);
        self.mark.clone_from(&row.mark);
        self.tombstone.clone_from(&row.tombstone);
        if self.entries.is_empty() || self.last != row.last {
            self.drop_entries(&mut |_| ());
            (self.last, self.last_term) = (row.last, row.last_term);
            self.moved.split_off(&LogIndex(row.last.0 + 1));
        }
        self.lost.clone_from(&row.lost);
        self.fill_front();
    }

    /// The group as a table tells it, without entries.
    pub(crate) fn from_row(row: &GroupRow) -> Group {
        let mut group = Group::default();
        group.adopt(row);
        group
    }

    pub(crate) fn term(&self, index: LogIndex) -> Option<Term> {
        match self.place(index) {
            Some(place) => Some(place.term),
            None if index == self.truncated.index => Some(self.truncated.term),
            None => None,
        }
    }

    pub(crate) fn state(&self, group: GroupId) -> GroupState {
        GroupState {
            group,
            hard_state: self.hard_state,
            truncated: self.truncated,
            conf: self.conf.clone(),
            mark: self.mark.clone(),
            tombstone: self.tombstone.clone(),
            first: self.first(),
            last: self.last,
            last_term: self.last_term,
            lost: self.lost.clone(),
            quarantined: self.quarantined.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
