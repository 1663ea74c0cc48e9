//! Old entries for followers, read off the worker.

use common::{GroupId, LogIndex};
use raft::GetEntriesContext;
use wal::{Log, LogEntry, ReadError};

use super::Group;
use crate::machine::StateMachine;

/// A read of old entries, as a value: whoever has the time performs it.
#[derive(Debug)]
pub struct FetchJob {
    pub group: GroupId,
    low: LogIndex,
    high: LogIndex,
    bytes_max: usize,
    context: GetEntriesContext,
}

/// A finished read.
#[derive(Debug)]
pub struct Fetched {
    pub group: GroupId,
    entries: Result<Vec<LogEntry>, ReadError>,
    context: GetEntriesContext,
}

impl FetchJob {
    /// Reads; blocks on the disk.
    pub fn perform(self, log: &Log) -> Fetched {
        let entries = log.read(self.group, self.low, self.high, self.bytes_max);
        Fetched { group: self.group, entries, context: self.context }
    }
}

impl<M: StateMachine> Group<M> {
    pub(super) fn fetch_jobs(&mut self) -> Vec<FetchJob> {
        let group = self.id;
        let wanted = self.node.mut_store().take_wanted();
        let job = |wanted: crate::storage::Wanted| FetchJob {
            group,
            low: LogIndex(wanted.low),
            high: LogIndex(wanted.high),
            bytes_max: wanted.bytes_max,
            context: wanted.context,
        };
        wanted.into_iter().map(job).collect()
    }

    /// Lets raft-rs pick up what was read. A failed read is tried again when the follower is heard
    /// of next.
    pub(super) fn take_fetched(&mut self, fetched: Fetched) {
        self.node.mut_store().fetch_is_over();
        match fetched.entries {
            Ok(entries) if !self.is_blocked() => {
                self.node.mut_store().offer(entries);
                self.node.on_entries_fetched(fetched.context);
                self.node.mut_store().withdraw_offer();
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(group = %self.id, %error, "read old entries for a follower");
            }
        }
    }
}
