//! How far something is behind the applied log, in bytes and in time.

use common::MonotonicTime;

/// Bytes of applied log that something does not have yet, and since when it lacks an operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::group) struct Behind {
    bytes: u64,
    since: Option<MonotonicTime>,
}

impl Behind {
    pub(in crate::group) fn of(bytes: u64, since: MonotonicTime) -> Self {
        Self { bytes, since: Some(since) }
    }

    pub(in crate::group) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// `None` where no operation is lacking, whatever else was applied.
    pub(in crate::group) fn since(&self) -> Option<MonotonicTime> {
        self.since
    }

    /// An entry was applied.
    pub(super) fn note(&mut self, bytes: u64, operations: bool, now: MonotonicTime) {
        self.bytes += bytes;
        if operations {
            self.since.get_or_insert(now);
        }
    }

    /// What was to be caught up before is still lacking, too.
    pub(super) fn and_before(&mut self, before: Behind) {
        self.bytes += before.bytes;
        self.since = before.since.or(self.since);
    }

    /// So many bytes were archived by a round that began then: what is left is younger.
    pub(super) fn archived(&mut self, bytes: u64, began: MonotonicTime, is_behind: bool) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.since = is_behind.then(|| self.since.map_or(began, |since| since.max(began)));
        if self.since.is_none() {
            self.bytes = 0;
        }
    }
}
