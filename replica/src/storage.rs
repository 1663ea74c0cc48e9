//! What raft-rs reads of a group's log.
//!
//! raft-rs asks its storage for entries that it has just handed out to be written, long before
//! they are durable, and again to apply them. So recent entries stay in memory, sharing their
//! bytes with the caller's buffers, until they are applied, and a bounded number of bytes longer
//! where followers may want them, or the next round does. Older ones are read from the log off the worker: raft-rs is told
//! to come back, and the read is handed out as a value.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::RangeInclusive;

use bytes::Bytes;
use common::{GroupId, LogIndex, Term};
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};
use wal::{Log, LogEntry, Truncated};

#[cfg(test)]
mod tests;

pub(crate) struct LogStorage {
    group: GroupId,
    log: Log,
    hard_state: HardState,
    conf: ConfState,
    truncated: Truncated,
    last: u64,
    /// Consecutive entries that end at `last`.
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    fetches: RefCell<Fetches>,
    /// For followers that lack what was truncated; `None` where nothing is archived.
    snapshot: Option<Snapshot>,
}

/// Reads at once: raft-rs asks again with every sign of life of a follower.
const FETCHES_MAX: usize = 4;

/// Reads for followers that are far behind.
#[derive(Default)]
struct Fetches {
    wanted: Vec<Wanted>,
    /// Reads that were asked for and have not come back.
    under_way: usize,
    /// What the last read brought, for raft-rs to pick up.
    fetched: Vec<Entry>,
}

/// A range that raft-rs wants to send to a follower and that is not in memory.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) low: u64,
    pub(crate) high: u64,
    pub(crate) bytes_max: usize,
    pub(crate) context: GetEntriesContext,
}

impl LogStorage {
    pub(crate) fn new(
        group: GroupId,
        log: Log,
        hard_state: HardState,
        conf: ConfState,
        truncated: Truncated,
        last: LogIndex,
    ) -> Self {
        Self {
            group,
            log,
            hard_state,
            conf,
            truncated,
            last: last.0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            fetches: RefCell::default(),
            snapshot: None,
        }
    }

    /// Keeps entries, of which the first follows the last one kept or replaces it and all behind.
    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else { return };
        assert!(first.index <= self.last + 1, "entry {} leaves a gap", first.index);
        while let Some(back) = self.recent.back().filter(|back| back.index >= first.index) {
            self.recent_bytes -= weight(back);
            self.recent.pop_back();
        }
        if self.recent.back().is_some_and(|back| back.index + 1 != first.index) {
            self.recent.clear();
            self.recent_bytes = 0;
        }
        self.recent_bytes += entries.iter().map(weight).sum::<usize>();
        self.last = entries.last().map_or(self.last, |entry| entry.index);
        self.recent.extend(entries);
    }

    /// Drops applied entries from memory, but for the newest `keep` bytes.
    pub(crate) fn forget(&mut self, applied: u64, keep: usize) {
        while let Some(front) = self.recent.front() {
            if front.index > applied || self.recent_bytes <= keep {
                break;
            }
            self.recent_bytes -= weight(front);
            self.recent.pop_front();
        }
    }

    /// The entries of this range that are in memory, oldest first, as many as fit `bytes_max`.
    pub(crate) fn kept(&self, range: RangeInclusive<LogIndex>, bytes_max: u64) -> Vec<LogEntry> {
        let (first, last) = range.into_inner();
        let mut room = bytes_max;
        let fits = |entry: &&Entry| {
            let bytes = weight(entry) as u64;
            let fits = entry.index <= last.0 && bytes <= room;
            room = room.saturating_sub(bytes);
            fits
        };
        let from = self.recent.partition_point(|entry| entry.index < first.0);
        self.recent.range(from..).take_while(fits).map(log_entry).collect()
    }

    pub(crate) fn kept_bytes(&self) -> u64 {
        self.recent_bytes as u64
    }

    pub(crate) fn truncate(&mut self, to: Truncated) {
        assert!(to.index >= self.truncated.index, "truncation never goes back");
        self.truncated = to;
    }

    pub(crate) fn truncated(&self) -> Truncated {
        self.truncated
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// From now on followers are sent this one.
    pub(crate) fn offer_snapshot(&mut self, place: Truncated, data: Vec<u8>) {
        let mut snapshot = Snapshot { data: data.into(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (place.index.0, place.term.0);
        metadata.set_conf_state(self.conf.clone());
        self.snapshot = Some(snapshot);
    }

    /// The membership as it is recorded.
    pub(crate) fn membership(&self) -> Vec<u8> {
        crate::conf::encode(&self.conf)
    }

    pub(crate) fn take_wanted(&mut self) -> Vec<Wanted> {
        std::mem::take(&mut self.fetches.get_mut().wanted)
    }

    /// A read came back, with or without success. It may have been asked for by the group of before
    /// an install.
    pub(crate) fn fetch_is_over(&mut self) {
        let fetches = self.fetches.get_mut();
        fetches.under_way = fetches.under_way.saturating_sub(1);
    }

    /// Offers the result of a read; raft-rs picks it up while it handles the read's context.
    pub(crate) fn offer(&mut self, entries: Vec<LogEntry>) {
        self.fetches.get_mut().fetched = entries.into_iter().map(raft_entry).collect();
    }

    pub(crate) fn withdraw_offer(&mut self) {
        self.fetches.get_mut().fetched.clear();
    }

    fn in_memory(&self, low: u64, high: u64, max: u64) -> Option<Vec<Entry>> {
        let front = self.recent.front()?.index;
        let skip = usize::try_from(low.checked_sub(front)?).ok()?;
        let count = usize::try_from(high - low).ok()?;
        Some(limited(self.recent.iter().skip(skip).take(count), max))
    }

    fn offered(&self, low: u64, high: u64, max: u64) -> Option<Vec<Entry>> {
        let fetches = self.fetches.borrow();
        let skip = usize::try_from(low.checked_sub(fetches.fetched.first()?.index)?).ok()?;
        let found =
            limited(fetches.fetched.iter().skip(skip).take_while(|entry| entry.index < high), max);
        (!found.is_empty()).then_some(found)
    }

    fn read(&self, low: u64, high: u64, max: u64) -> raft::Result<Vec<Entry>> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let entries = self
            .log
            .read(self.group, LogIndex(low), LogIndex(high), max)
            .map_err(|error| Error::Store(StorageError::Other(Box::new(error))))?;
        Ok(entries.into_iter().map(raft_entry).collect())
    }
}

fn limited<'a>(entries: impl Iterator<Item = &'a Entry>, max: u64) -> Vec<Entry> {
    let mut bytes = 0;
    let mut taken = Vec::new();
    for entry in entries {
        bytes += weight(entry) as u64;
        if !taken.is_empty() && bytes > max {
            break;
        }
        taken.push(entry.clone());
    }
    taken
}

/// What an entry costs in memory and on the wire, roughly.
pub(crate) fn weight(entry: &Entry) -> usize {
    entry.context.len() + entry.data.len() + 32
}

pub(crate) fn raft_entry(entry: LogEntry) -> Entry {
    Entry {
        index: entry.index.0,
        term: entry.term.0,
        entry_type: match entry.kind {
            0 => EntryType::EntryNormal,
            1 => EntryType::EntryConfChange,
            _ => EntryType::EntryConfChangeV2,
        },
        context: entry.context,
        data: entry.data,
        ..Entry::default()
    }
}

/// The entry as the log gives it back.
fn log_entry(entry: &Entry) -> LogEntry {
    LogEntry {
        index: LogIndex(entry.index),
        term: Term(entry.term),
        kind: kind(entry),
        context: entry.context.clone(),
        data: entry.data.clone(),
    }
}

/// The kind under which the log keeps an entry.
pub(crate) fn kind(entry: &Entry) -> u8 {
    match entry.entry_type {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    }
}

/// An entry that a leader proposes.
pub(crate) fn proposed(context: Bytes, data: Bytes) -> Entry {
    Entry { context, data, ..Entry::default() }
}

impl Storage for LogStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let max = max_size.into().unwrap_or(u64::MAX);
        if low <= self.truncated.index.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last + 1, "raft asks for {high}, the log ends at {}", self.last);
        if let Some(entries) = self.in_memory(low, high, max) {
            return Ok(entries);
        }
        if let Some(entries) = self.offered(low, high, max) {
            return Ok(entries);
        }
        if context.can_async() {
            let bytes_max = usize::try_from(max).unwrap_or(usize::MAX);
            let mut fetches = self.fetches.borrow_mut();
            if fetches.under_way < FETCHES_MAX {
                fetches.under_way += 1;
                fetches.wanted.push(Wanted { low, high, bytes_max, context });
            }
            return Err(Error::Store(StorageError::LogTemporarilyUnavailable));
        }
        self.read(low, high, max)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.truncated.index.0 {
            return Ok(self.truncated.term.0);
        }
        if index < self.truncated.index.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if index > self.last {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let front = self.recent.front().map_or(u64::MAX, |front| front.index);
        if let Some(at) = index.checked_sub(front) {
            return Ok(self.recent[at as usize].term);
        }
        let Term(term) = self
            .log
            .term(self.group, LogIndex(index))
            .map_err(|error| Error::Store(StorageError::Other(Box::new(error))))?;
        Ok(term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.index.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last)
    }

    /// A name of what is archived. Without an archive the log is never truncated past what every
    /// follower has, so none needs a snapshot.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let suits = |snapshot: &&Snapshot| snapshot.get_metadata().index >= request_index;
        let snapshot = self.snapshot.as_ref().filter(suits);
        snapshot.cloned().ok_or(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
