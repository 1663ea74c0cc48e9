//! The running log: its handle and the state behind its one short lock.
//!
//! Blocks go open → closed → issued → durable, in order, one issued at a time. The place of a block
//! is fixed when it is opened: right behind the one before it, or at the start of the next file.

mod append;
mod files;
mod moving;
mod open;
mod plan;
mod read;
#[cfg(test)]
mod tests;
mod walk;
mod write;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::{Clock, GroupId, LogIndex, MonotonicTime, Rng, Term};

use crate::block::{ClosedBlock, OpenBlock};
use crate::files::{LogFile, Spare};
use crate::format::PreviousFile;
use crate::group::Group;
use crate::{
    AlignedBuf, BlockSeq, Disk, DiskLock, GroupState, GroupUsage, HardState, LogSettings, LogSpace,
    LogUsage, ReadError, Stopped,
};

use files::{Demand, Making};
pub use files::{PREPARE_PAUSE, Prepared};
use moving::Moving;
use plan::Move;
pub use walk::Walk;

/// The shared log of one directory. Cloning shares it. Every method is short but [`Log::open`],
/// [`Log::read`] and [`Log::prepare_files`], which do I/O without holding the others up.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    settings: LogSettings,
    clock: Arc<dyn Clock>,
    store_id: u128,
    state: Mutex<State>,
    /// Held through the I/O of preparing files.
    making: Mutex<Making>,
    _lock: DiskLock,
}

struct State {
    groups: BTreeMap<GroupId, Group>,
    /// Files with records, oldest first; blocks go to the last one.
    files: VecDeque<Arc<LogFile>>,
    /// The file that comes after.
    next: Option<Arc<LogFile>>,
    spares: VecDeque<Spare>,
    /// Files that nothing needs any more, to become spares.
    freed: VecDeque<Arc<LogFile>>,
    /// Files being made.
    unfinished: usize,
    demand: Demand,
    disk_full: bool,
    /// Where the next block goes in the last file.
    tail: u64,
    open: Option<OpenBlock>,
    closed: VecDeque<ClosedBlock>,
    outstanding: Option<Outstanding>,
    last_seq: BlockSeq,
    durable: BlockSeq,
    /// Entries that leave their file once the block that says so is durable.
    leaving: VecDeque<(BlockSeq, u32, u64)>,
    moving: Moving,
    /// Groups that have entries.
    holders: usize,
    /// Whether the last block was a sealing one, or no seal can be written.
    sealed: bool,
    last_block_at: MonotonicTime,
    buffers: Vec<AlignedBuf>,
    touched: Vec<GroupId>,
    scratch: Vec<u8>,
    rng: Rng,
    stopped: Option<String>,
}

/// The issued block; its buffer is shared with readers.
struct Outstanding {
    seq: BlockSeq,
    file: Arc<LogFile>,
    offset: u64,
    bytes: usize,
    buffer: Arc<AlignedBuf>,
    since: MonotonicTime,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        f.debug_struct("Log")
            .field("durable", &state.durable)
            .field("last", &state.last_seq)
            .field("files", &state.files.len())
            .field("moved", &state.moving.entries)
            .field("stopped", &state.stopped)
            .finish_non_exhaustive()
    }
}

impl Log {
    /// A panic under the lock leaves the state unknown: the log stops, like after a failed write.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(|poison| {
            let mut state = poison.into_inner();
            state.stop("a thread panicked inside the log");
            state
        })
    }

    fn making(&self) -> MutexGuard<'_, Making> {
        self.shared.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The identity of this log: drawn when the directory was first used.
    pub fn store_id(&self) -> u128 {
        self.shared.store_id
    }

    /// The newest durable block.
    pub fn durable(&self) -> BlockSeq {
        self.state().durable
    }

    /// The term of an entry, or of the truncated one just before the first.
    pub fn term(&self, group: GroupId, index: LogIndex) -> Result<Term, ReadError> {
        let state = self.state();
        let known = state.groups.get(&group).ok_or(ReadError::UnknownGroup(group))?;
        known.term(index).ok_or_else(|| match index > known.last {
            true => ReadError::BeyondEnd { index, last: known.last },
            false => ReadError::Truncated { index, first: known.first() },
        })
    }

    /// The first index that can be read, one above the last when there is none; 1 for a group the
    /// log does not know.
    pub fn first_index(&self, group: GroupId) -> LogIndex {
        self.state().groups.get(&group).map_or(LogIndex(1), Group::first)
    }

    /// The last index, appended if not yet durable; 0 for a group the log does not know.
    pub fn last_index(&self, group: GroupId) -> LogIndex {
        self.state().groups.get(&group).map_or(LogIndex(0), |known| known.last)
    }

    /// What the log knows of a group.
    pub fn group(&self, group: GroupId) -> Option<GroupState> {
        self.state().groups.get(&group).map(|known| known.state(group))
    }

    /// A group's newest promise and the block that has it: it may be told once that is durable.
    /// Block 0 is one that was found at the opening.
    pub fn promise(&self, group: GroupId) -> Option<(HardState, BlockSeq)> {
        self.state().groups.get(&group).map(|known| (known.hard_state, known.promised_in))
    }

    /// Whether an entry that was appended is on the disk.
    pub fn has_durable(&self, group: GroupId, index: LogIndex) -> bool {
        let state = self.state();
        let place = state.groups.get(&group).and_then(|known| known.place(index));
        place.is_some_and(|place| !place.is_lost() && !state.is_volatile(&place))
    }

    /// How much of the budget is in use.
    pub fn space(&self) -> LogSpace {
        self.state().space(&self.shared.settings)
    }

    /// What one group holds; nothing if the log does not know it.
    pub fn group_usage(&self, group: GroupId) -> GroupUsage {
        let state = self.state();
        match state.groups.get(&group) {
            Some(known) => state.usage_of(group, known, &self.shared.settings),
            None => GroupUsage { group, ..GroupUsage::default() },
        }
    }

    /// Everything at once, for people and metrics: it takes as long as there are groups.
    pub fn usage(&self) -> LogUsage {
        let state = self.state();
        let settings = &self.shared.settings;
        let LogSpace { budget, used, spare, disk_full, .. } = state.space(settings);
        let oldest = state.files.front().map(|file| file.sequence);
        let holds_oldest = |known: &Group| {
            known.holdings.oldest().is_some_and(|held| Some(u64::from(held.file)) == oldest)
        };
        let held_by = state.groups.iter().find(|(_, known)| holds_oldest(known));
        let groups =
            state.groups.iter().map(|(group, known)| state.usage_of(*group, known, settings));
        LogUsage {
            budget,
            used,
            spare,
            groups: groups.collect(),
            oldest_held_by: held_by.filter(|_| state.files.len() > 1).map(|(group, _)| *group),
            disk_full,
        }
    }

    /// Stops the log for ever, for example after a stall of 60 s.
    pub fn stop(&self, reason: &str) {
        self.state().stop(reason);
    }
}

impl State {
    /// Whether more than one group holds bytes: then each has a share.
    fn has_several(&self) -> bool {
        self.holders > 1
    }

    fn space(&self, settings: &LogSettings) -> LogSpace {
        let spares: u64 = self.spares.iter().map(|spare| spare.size).sum();
        LogSpace {
            budget: settings.budget.bytes(),
            used: self.files.iter().chain(&self.freed).map(|file| file.size).sum(),
            spare: spares + self.next.as_ref().map_or(0, |file| file.size),
            disk_full: self.disk_full,
            is_scarce: self.is_scarce(settings),
        }
    }

    fn usage_of(&self, group: GroupId, known: &Group, settings: &LogSettings) -> GroupUsage {
        let newest = self.active().sequence;
        let shared = self.has_several();
        let share = known.bytes.saturating_mul(1_000) / settings.group_share();
        let files_held = |oldest: u32| (newest + 1 - u64::from(oldest)) as usize;
        GroupUsage {
            group,
            bytes: known.bytes,
            share_permille: if shared { share } else { 0 },
            first: known.first(),
            last: known.last,
            files_held: known.holdings.oldest().map_or(0, |held| files_held(held.file)),
        }
    }

    fn stop(&mut self, reason: &str) {
        if self.stopped.is_none() {
            tracing::error!(reason, "the log stops; the process must restart to recover");
            self.stopped = Some(reason.to_owned());
        }
    }

    fn check_running(&self) -> Result<(), Stopped> {
        match &self.stopped {
            Some(reason) => Err(Stopped { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// The file that blocks go to. There always is one: opening the log makes it.
    fn active(&self) -> &Arc<LogFile> {
        self.files.back().expect("an open log has a file")
    }

    /// Files that can take the place of the active one at once.
    fn available(&self) -> usize {
        usize::from(self.next.is_some()) + self.spares.len()
    }

    fn files_total(&self) -> usize {
        self.files.len() + self.freed.len() + self.available() + self.unfinished
    }

    /// Where the active file ends so far: what the next one's table says of it.
    fn previous(&self) -> PreviousFile {
        PreviousFile { file: self.active().sequence, end: self.tail, block: self.last_seq }
    }

    /// Moves the oldest files that nothing needs to the freed ones. Only from the front: a hole in
    /// the middle would be a hole in every group's record sequence.
    fn release(&mut self, settings: &LogSettings) {
        let before = self.freed.len();
        while self.files.len() > 1 && self.files[0].unused() {
            let newest = self.active();
            let table = newest.first_block();
            if table == BlockSeq(0) || table > self.durable {
                break;
            }
            self.freed.extend(self.files.pop_front());
        }
        if self.freed.len() > before {
            self.demand.released();
            self.count_hostages(settings);
        }
    }
}
