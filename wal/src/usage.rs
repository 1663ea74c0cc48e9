//! What the log holds and how its disk is doing, for admission, status and metrics.

use common::{GroupId, LogIndex};

/// Space, without who holds it: quick to ask, whatever the number of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogSpace {
    /// Bytes the log may take.
    pub budget: u64,
    /// Bytes of the files that hold records, and of those being recycled.
    pub used: u64,
    /// Bytes of the files made ahead.
    pub spare: u64,
    /// Whether the last attempt to make a file found the disk full.
    pub disk_full: bool,
    /// Whether so much is in use that [`crate::Log::prepare_files`] may find something to move.
    pub is_scarce: bool,
}

impl LogSpace {
    /// Thousandths of the budget in use.
    pub fn used_permille(&self) -> u64 {
        self.used.saturating_mul(1_000) / self.budget.max(1)
    }
}

/// Space, and who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogUsage {
    /// Bytes the log may take.
    pub budget: u64,
    /// Bytes of the files that hold records, and of those being recycled.
    pub used: u64,
    /// Bytes of the files made ahead.
    pub spare: u64,
    /// Sorted by group.
    pub groups: Vec<GroupUsage>,
    /// The group whose entries hold the oldest file: the one to check-point first.
    pub oldest_held_by: Option<GroupId>,
    /// Whether the last attempt to make a file found the disk full.
    pub disk_full: bool,
}

/// What one group holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupUsage {
    pub group: GroupId,
    /// Bytes of the group's entries.
    pub bytes: u64,
    /// Thousandths of the group's share of the budget that these are: from 1 000 on it is refused
    /// more. 0 while no other group holds anything: then it may have all.
    pub share_permille: u64,
    pub first: LogIndex,
    pub last: LogIndex,
    /// Files from the oldest that holds an entry of the group to the newest; 0 when it has none.
    pub files_held: usize,
}

/// How long the write that is under way has been outstanding. A stall is not a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stall {
    None,
    /// 2 s: refuse new work.
    Shed,
    /// 10 s: hand leadership over, be unready.
    Unready,
    /// 60 s: stop the process.
    Stop,
}
