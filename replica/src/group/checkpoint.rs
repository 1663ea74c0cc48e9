//! Saving the state locally, and dropping the log that it makes unnecessary.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::{GroupId, LogIndex, MonotonicTime, planted};
use wal::{AppendError, Batch, Truncated};

use super::Group;
use crate::error::{Failure, HostFailure};
use crate::kv::{Applied, Changes, Kv, KvError};
use crate::machine::{Change, Slice, StateMachine};
use crate::worker::panic_text;

/// A group that holds back a log this full, or has used so much of its share, is saved before its
/// time.
pub(crate) const PRESSED_PERMILLE: u64 = 500;
/// So is one whose first entry holds back so much of the budget; both archive all that they have.
pub(crate) const HELD_PERMILLE: u64 = 250;
/// The shortest time between two checkpoints of a group under such pressure.
const PRESSED_INTERVAL: Duration = Duration::from_secs(1);

/// A frozen set of changes on its way to the store. Whoever has the time runs it.
#[derive(Debug, Clone)]
pub struct CheckpointJob {
    pub group: GroupId,
    pub applied: Applied,
    slices: Vec<Vec<Change>>,
    archive: Vec<Change>,
}

impl CheckpointJob {
    /// Writes and flushes; blocks on the disk. After a success the changes are gone, so that it is
    /// not the worker who frees them; what failed can be run again.
    pub fn run(&mut self, kv: &dyn Kv) -> Result<(), SaveError> {
        let changes: Vec<Change> = std::mem::take(&mut self.slices).into_iter().flatten().collect();
        let both = Changes { machine: &changes, archive: &self.archive };
        let save = || kv.write(self.group, self.applied, both).and_then(|()| kv.flush());
        let result = match catch_unwind(AssertUnwindSafe(save)) {
            Ok(saved) => saved.map_err(SaveError::Kv),
            Err(panic) => Err(SaveError::Panicked(panic_text(&*panic))),
        };
        if result.is_err() {
            self.slices.push(changes);
        }
        result
    }
}

/// Why a state was not saved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaveError {
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The group is quarantined: another attempt would come to the same.
    #[error("saving its state panicked, which is a bug: {0}")]
    Panicked(String),
}

/// How far a checkpoint has come that may be due.
#[derive(Debug)]
pub(crate) enum Frozen {
    NotDue,
    /// A slice was copied, and there is more.
    More,
    Whole(CheckpointJob),
}

/// How far the state is saved.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// Flushed up to here: the log before it is not needed to restart.
    pub(super) flushed: LogIndex,
    pub(super) oldest_live: Option<LogIndex>,
    frozen_at: MonotonicTime,
    /// The frozen set while it is being copied.
    freezing: Option<CheckpointJob>,
    running: bool,
    /// For space on the disk.
    pub(super) waits: bool,
    /// Asked for by a full log.
    pressed: bool,
    /// How much of the log's budget was used at the last look.
    pub(super) full_permille: u64,
    /// The group's first entry holds back a large part of the log.
    pub(super) holds_log: bool,
}

impl Saved {
    pub(super) fn new(flushed: LogIndex, now: MonotonicTime) -> Self {
        Self { flushed, frozen_at: now, ..Self::default() }
    }

    /// Gives up what is being copied; whether something is on its way to the store all the same.
    pub(super) fn abandon(&mut self) -> bool {
        let copying = self.freezing.take().is_some();
        self.running && !copying
    }
}

impl<M: StateMachine> Group<M> {
    pub(super) fn next_checkpoint(&self) -> Option<MonotonicTime> {
        let unsaved = &self.applier.unsaved;
        if self.saved.running {
            return None;
        }
        if self.saved.pressed {
            return Some(self.saved.frozen_at.plus(PRESSED_INTERVAL));
        }
        if unsaved.operations > 0 && unsaved.bytes >= self.settings.checkpoint_log_bytes.bytes() {
            return Some(self.saved.frozen_at);
        }
        let wanted = || self.tiering.save_wanted(self.saved.flushed);
        let since = unsaved.since.or_else(wanted);
        since.map(|since| since.plus(self.settings.checkpoint_interval))
    }

    pub(super) fn is_copying(&self) -> bool {
        self.saved.freezing.is_some()
    }

    /// Begins a checkpoint where one is due, and copies one slice of what is frozen.
    pub(super) fn freeze(&mut self, now: MonotonicTime, force: bool) -> Frozen {
        if !self.is_copying() {
            let due = self.next_checkpoint().is_some_and(|due| due <= now);
            let forced = force && !self.saved.running && self.applier.unsaved.operations > 0;
            if !due && !forced {
                return Frozen::NotDue;
            }
            self.begin_freeze(now);
        }
        let mut slice = Slice::default();
        let all = self.applier.machine.copy_frozen(&mut slice);
        let Some(mut job) = self.saved.freezing.take() else { return Frozen::NotDue };
        job.slices.push(slice.into_changes());
        if all {
            return Frozen::Whole(job);
        }
        self.saved.freezing = Some(job);
        Frozen::More
    }

    fn begin_freeze(&mut self, now: MonotonicTime) {
        self.applier.unsaved = Default::default();
        self.saved.frozen_at = now;
        self.saved.running = true;
        self.saved.pressed = false;
        self.applier.machine.freeze();
        let archive = self.applier.archive.freeze();
        let (group, applied) = (self.id, self.applier.applied);
        self.saved.freezing = Some(CheckpointJob { group, applied, slices: Vec::new(), archive });
    }

    pub(super) fn saved(&mut self, job: &CheckpointJob) {
        (self.saved.running, self.saved.waits) = (false, false);
        self.saved.flushed = job.applied.index;
    }

    /// The log is dropped up to the lowest of: the flushed local checkpoint, what the machine
    /// still reads, what members are waited for, and, where there is long-term storage, what is
    /// archived: a restart never needs it.
    pub(super) fn truncate_log(&mut self) -> Result<(), Failure> {
        let applied = self.applier.applied.index;
        self.saved.oldest_live = self.applier.machine.oldest_live_index();
        let before_live = self.saved.oldest_live.map_or(applied, |live| LogIndex(live.0 - 1));
        let wanted = before_live.min(applied).min(self.awaited()).min(self.archived());
        let flushed = if planted::active("log-truncated-past-checkpoint") {
            applied
        } else {
            self.saved.flushed
        };
        let soon = self.saved.full_permille >= PRESSED_PERMILLE || self.saved.holds_log;
        if soon && wanted > self.saved.flushed {
            self.saved.pressed = true;
        }
        let target = wanted.min(flushed);
        if target <= self.node.store().truncated().index {
            return Ok(());
        }
        let Ok(term) = self.log.term(self.id, target) else { return Ok(()) };
        let truncate = Truncated { index: target, term };
        let batch = Batch { group: self.id, truncate: Some(truncate), ..Batch::default() };
        match self.log.append(&batch) {
            Ok(_) => self.node.mut_store().truncate(truncate),
            // Tried again with the next look at the log.
            Err(AppendError::Full(_)) => {}
            Err(AppendError::Stopped(stopped)) => {
                return Err(Failure::Host(HostFailure::Log(stopped)));
            }
            Err(error) => return Err(Failure::Quarantine(error.to_string())),
        }
        self.changed = true;
        Ok(())
    }

    fn archived(&self) -> LogIndex {
        if self.tiering.is_on() && !planted::active("log-truncated-before-it-is-archived") {
            // What a new beginning cannot be brought back from yet is not dropped.
            self.applier.archive.restorable_end()
        } else {
            LogIndex(u64::MAX)
        }
    }
}
