//! Old entries for followers, read off the worker.

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{GroupId, LogIndex};
use raft::GetEntriesContext;
use wal::{Log, LogEntry, ReadError};

use super::Group;
use crate::error::Failure;
use crate::machine::StateMachine;
use crate::worker::panic_text;

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
    entries: Result<Vec<LogEntry>, NotFetched>,
    context: GetEntriesContext,
}

#[derive(Debug)]
enum NotFetched {
    Unread(ReadError),
    Panicked(String),
}

impl FetchJob {
    /// Reads; blocks on the disk.
    pub fn perform(self, log: &Log) -> Fetched {
        let read = || log.read(self.group, self.low, self.high, self.bytes_max);
        let entries = match catch_unwind(AssertUnwindSafe(read)) {
            Ok(read) => read.map_err(NotFetched::Unread),
            Err(panic) => Err(NotFetched::Panicked(panic_text(&*panic))),
        };
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

    /// Lets raft-rs pick up what was read. What was dropped or replaced meanwhile is asked for again
    /// when the follower is heard of next. What is damaged will not be well then: nobody but this
    /// replica can give the entry, and it must not look as if it could.
    pub(super) fn take_fetched(&mut self, fetched: Fetched) -> Result<(), Failure> {
        self.node.mut_store().fetch_is_over();
        match fetched.entries {
            Ok(entries) if !self.is_blocked() => {
                self.node.mut_store().offer(entries);
                self.node.on_entries_fetched(fetched.context);
                self.node.mut_store().withdraw_offer();
            }
            Ok(_) => {}
            Err(NotFetched::Unread(error)) if error.is_damage() => {
                return Err(Failure::Quarantine(format!("read entries for a follower: {error}")));
            }
            Err(NotFetched::Unread(error)) => {
                tracing::debug!(group = %self.id, %error, "read old entries for a follower");
            }
            Err(NotFetched::Panicked(text)) => {
                let reason = format!("reading for a follower panicked, which is a bug: {text}");
                return Err(Failure::Quarantine(reason));
            }
        }
        Ok(())
    }
}
