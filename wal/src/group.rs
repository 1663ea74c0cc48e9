//! What the log keeps in memory of one group: its state and where each entry is.
//!
//! Recovery and the running log change it through the same functions. Each hands the places of the
//! entries that go to the caller, who counts what every file still holds.

use std::collections::VecDeque;

use bytes::Bytes;
use common::{GroupId, LogIndex, Term};

use crate::format::{GroupRow, record_bytes};
use crate::{BlockSeq, Conf, GroupState, HardState, LostEntries, Truncated};

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

    /// A group that has these entries, ending at `last`.
    pub(crate) fn with_entries(last: LogIndex, entries: VecDeque<Place>) -> Group {
        let bytes = entries.iter().map(Place::bytes).sum();
        let last_term = entries.back().map_or(Term(0), |place| place.term);
        Group { last, last_term, entries, bytes, ..Group::default() }
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
        if index.0 > self.last.0 + 1 || index < self.first() {
            self.drop_entries(dropped);
        } else {
            self.drop_from(index, dropped);
        }
        self.bytes += place.bytes();
        self.entries.push_back(place);
        self.last = index;
        self.last_term = place.term;
    }

    /// Drops the entries from `index` on.
    pub(crate) fn drop_from(&mut self, index: LogIndex, dropped: &mut dyn FnMut(Place)) {
        while self.last >= index {
            let Some(place) = self.entries.pop_back() else { break };
            self.leave(place, dropped);
            self.last.0 -= 1;
        }
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
        if to.index >= self.last {
            return self.reset(to, dropped);
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
        if !place.is_lost() {
            dropped(place);
        }
    }

    /// Puts the entries given up just before the first one in their places. Behind files that are
    /// gone this has to wait until it is known which entry is the first.
    pub(crate) fn bridge_front(&mut self) {
        let before =
            |lost: &LostEntries, first: LogIndex| lost.first < first && first.0 <= lost.last.0 + 1;
        while self.first().0 > self.truncated.index.0 + 1
            && let Some(lost) = self.lost.iter().find(|lost| before(lost, self.first())).copied()
        {
            let low = lost.first.0.max(self.truncated.index.0 + 1);
            for _ in low..self.first().0 {
                self.entries.push_front(Place::lost(lost.term));
            }
        }
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
        }
        self.lost.clone_from(&row.lost);
        self.bridge_front();
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
