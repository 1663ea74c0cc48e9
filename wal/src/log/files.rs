//! Files made ahead and files recycled: everything that takes or gives back space. None of it is
//! on the append path; it runs step by step on a thread of its own, or between blocks.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::MonotonicTime;

use super::{Log, State};
use crate::files::{LogFile, Pin, Spare, spare_name, unfinished_name};
use crate::settings::RESERVED_FILES;
use crate::{AlignedBuf, Disk, DiskFile, LogSettings, Stopped};

/// Zeros written at a time: in a hurry, and otherwise, when a block of the log that comes in between
/// waits for them.
const STEP_BYTES: usize = 1024 * 1024;
const SMALL_STEP_BYTES: usize = 256 * 1024;
/// How long to wait after the disk was full, or a file could not be made.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Space that is left to others on the disk, in files. The state's checkpoints come first of them:
/// without one no truncation is possible, and the log would never give space back.
const ROOM_FILES: u64 = 2;

/// The pause after [`Prepared::Unhurried`]: some 100 MB/s of files are made ahead, and a log that
/// needs more than that is in a hurry soon.
pub const PREPARE_PAUSE: Duration = Duration::from_millis(2);

/// Whether [`Log::prepare_files`] has more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// Call again soon.
    More,
    /// Call again after a pause of about [`PREPARE_PAUSE`], which leaves the disk to the log's
    /// blocks: there are files enough until then.
    Unhurried,
    /// Nothing to do until the log has rolled or truncated, or for a second after the disk was
    /// full.
    Idle,
}

/// The file being made, and the next number for a name.
#[derive(Debug, Default)]
pub(super) struct Making {
    pub(super) next_number: u64,
    pub(super) current: Option<Unfinished>,
    retry_at: Option<MonotonicTime>,
    zeros: Option<AlignedBuf>,
}

#[derive(Debug)]
pub(super) struct Unfinished {
    name: String,
    handle: Arc<dyn DiskFile>,
    written: u64,
}

impl Making {
    /// Makes a whole file now: for the first ones, before anything else runs.
    pub(super) fn make_now(&mut self, disk: &dyn Disk, size: u64) -> io::Result<Spare> {
        loop {
            if let Some(spare) = self.make_some(disk, size, STEP_BYTES)? {
                return Ok(spare);
            }
        }
    }

    /// Writes up to `step` of the zeros of a file; returns it when it is complete.
    fn make_some(&mut self, disk: &dyn Disk, size: u64, step: usize) -> io::Result<Option<Spare>> {
        let Some(current) = &mut self.current else {
            let name = unfinished_name(self.next_number);
            self.next_number += 1;
            let handle = disk.create(&name)?;
            self.current = Some(Unfinished { name, handle, written: 0 });
            return Ok(None);
        };
        if current.written < size {
            let zeros = self.zeros.get_or_insert_with(|| AlignedBuf::zeroed(STEP_BYTES));
            let step = (size - current.written).min(step as u64);
            current.handle.write_at(current.written, &zeros[..step as usize])?;
            current.written += step;
            return Ok(None);
        }
        self.zeros = None;
        current.handle.sync()?;
        let name = spare_name(self.next_number);
        self.next_number += 1;
        disk.rename(&current.name, &name)?;
        disk.sync_dir()?;
        let handle = current.handle.clone();
        self.current = None;
        Ok(Some(Spare { name, handle, size }))
    }

    /// Whether the disk has space for the rest of a file and, beside it, for what others need.
    fn check_room(&self, disk: &dyn Disk, size: u64) -> io::Result<()> {
        let written = self.current.as_ref().map_or(0, |current| current.written);
        let (free, room) = (disk.space()?.free, ROOM_FILES * size);
        if free >= size.saturating_sub(written).saturating_add(room) {
            return Ok(());
        }
        let text =
            format!("the disk has {free} bytes left, and {room} of them are for checkpoints");
        Err(io::Error::new(io::ErrorKind::StorageFull, text))
    }

    /// Gives up on the file being made.
    fn give_up(&mut self, disk: &dyn Disk) {
        if let Some(unfinished) = self.current.take()
            && let Err(error) = disk.remove(&unfinished.name)
        {
            tracing::warn!(file = unfinished.name, %error, "an unfinished log file stays behind");
        }
    }
}

/// How many files a busy log will want before the next truncation gives some back: as many freed
/// files are worth keeping, for a file made anew costs the disk each of its bytes twice. It follows
/// a growing demand at once and a falling one slowly, as PostgreSQL estimates the distance between
/// its checkpoints.
#[derive(Debug, Default)]
pub(super) struct Demand {
    pub(super) files: usize,
    /// Files put into use since files were last released.
    rolled: usize,
}

impl Demand {
    pub(super) fn rolled(&mut self) {
        self.rolled += 1;
    }

    /// Several groups may release files one after the other: only the first one ends the cycle.
    pub(super) fn released(&mut self) {
        let rolled = std::mem::take(&mut self.rolled);
        if rolled > 0 {
            self.files = rolled.max((9 * self.files + rolled) / 10);
        }
    }
}

enum Task {
    Recycle(Arc<LogFile>, bool),
    /// A spare that others need the space of.
    GiveBack(Spare),
    Activate(Arc<LogFile>),
    Make,
    /// Copy entries out of the oldest file.
    MoveEntries,
    Nothing,
}

impl Log {
    /// Does one step of making files ahead and recycling free ones; at most a megabyte of I/O. Not
    /// on the worker's thread.
    pub fn prepare_files(&self) -> Result<Prepared, Stopped> {
        let mut making = self.making();
        let others_have_room = self.others_have_room();
        let task = {
            let mut state = self.state();
            state.check_running()?;
            state.release(&self.shared.settings);
            self.next_task(&mut state, &making, others_have_room)
        };
        match task {
            Task::Nothing => return Ok(Prepared::Idle),
            Task::Recycle(file, keep) => {
                let done = self.recycle(&file, keep, &mut making);
                self.or_stop("recycle a log file", done)?;
            }
            Task::GiveBack(spare) => {
                let done = self.give_back(&spare);
                self.or_stop("remove a spare log file", done)?;
            }
            Task::Activate(file) => {
                let done = file.activate(&*self.shared.disk);
                self.or_stop("put a log file into use", done)?;
            }
            Task::Make => return Ok(self.make(&mut making)),
            Task::MoveEntries => return Ok(self.move_entries()),
        }
        Ok(Prepared::More)
    }

    /// Whether the disk has the space that is left to others. A disk that cannot tell keeps the
    /// log from nothing here: it fails where it matters.
    pub(super) fn others_have_room(&self) -> bool {
        let room = ROOM_FILES * self.shared.settings.file_size.bytes();
        self.shared.disk.space().map_or(true, |space| space.free >= room)
    }

    fn next_task(&self, state: &mut State, making: &Making, others_have_room: bool) -> Task {
        let settings = &self.shared.settings;
        if let Some((file, keep)) = self.to_recycle(state, others_have_room) {
            return Task::Recycle(file, keep);
        }
        if !others_have_room
            && state.available() > self.wanted(state, others_have_room)
            && let Some(spare) = state.spares.pop_back()
        {
            return Task::GiveBack(spare);
        }
        if state.next.is_none()
            && let Some(spare) = state.spares.pop_front()
        {
            let next = state.file_after(spare, self.shared.store_id);
            state.next = Some(next.clone());
            return Task::Activate(next);
        }
        let waits = making.retry_at.is_some_and(|at| at > self.shared.clock.monotonic());
        let wanted = state.available() < RESERVED_FILES + settings.files_ahead
            && state.files_total() < settings.files_max() + state.unfinished;
        if wanted && !waits {
            state.unfinished = 1;
            return Task::Make;
        }
        if state.should_move(settings) {
            return Task::MoveEntries;
        }
        Task::Nothing
    }

    /// The next of the freed files, and whether it becomes a spare or goes.
    pub(super) fn to_recycle(
        &self,
        state: &State,
        others_have_room: bool,
    ) -> Option<(Arc<LogFile>, bool)> {
        let settings = &self.shared.settings;
        let file = state.freed.front()?;
        let keep = file.size == settings.file_size.bytes()
            && state.files_total() <= settings.files_max()
            && state.available() < self.wanted(state, others_have_room);
        Some((file.clone(), keep))
    }

    /// Files that are worth keeping once they are there.
    fn wanted(&self, state: &State, others_have_room: bool) -> usize {
        let least = 2 * (RESERVED_FILES + self.shared.settings.files_ahead);
        if others_have_room { least.max(state.demand.files) } else { least }
    }

    /// Only the front of the freed files is recycled, and each rename is synced before the next:
    /// after a crash no file is missing between others.
    pub(super) fn recycle(
        &self,
        file: &Arc<LogFile>,
        keep: bool,
        making: &mut Making,
    ) -> io::Result<()> {
        let disk = &*self.shared.disk;
        let mut spare = None;
        if keep {
            let name = spare_name(making.next_number);
            making.next_number += 1;
            disk.rename(&file.name(), &name)?;
            spare = Some(Spare { name, handle: file.handle.clone(), size: file.size });
        } else {
            disk.remove(&file.name())?;
        }
        disk.sync_dir()?;
        let mut state = self.state();
        state.freed.pop_front();
        state.spares.extend(spare);
        // Space came back, or a file did.
        state.disk_full = false;
        making.retry_at = None;
        Ok(())
    }

    fn give_back(&self, spare: &Spare) -> io::Result<()> {
        self.shared.disk.remove(&spare.name)?;
        self.shared.disk.sync_dir()
    }

    /// Whether there is something for [`Log::prepare_files`] that truncation has brought, or a block
    /// with entries that it moves, which is durable now.
    pub fn wants_preparing(&self) -> bool {
        let state = self.state();
        !state.freed.is_empty() || state.moving.goes_on(state.durable)
    }

    /// A file that cannot be made is no failure of the log: nothing is in it.
    fn make(&self, making: &mut Making) -> Prepared {
        let size = self.shared.settings.file_size.bytes();
        let disk = &*self.shared.disk;
        let hurried = self.state().available() <= RESERVED_FILES + 1;
        let step = if hurried { STEP_BYTES } else { SMALL_STEP_BYTES };
        let made = making.check_room(disk, size).and_then(|()| making.make_some(disk, size, step));
        let mut state = self.state();
        match made {
            Ok(None) if hurried => return Prepared::More,
            Ok(None) => return Prepared::Unhurried,
            Ok(Some(spare)) => {
                state.spares.push_back(spare);
                state.disk_full = false;
                making.retry_at = None;
            }
            Err(error) => {
                if !state.disk_full {
                    tracing::warn!(%error, "no further log file could be made");
                }
                state.disk_full = true;
                making.give_up(&*self.shared.disk);
                making.retry_at = Some(self.shared.clock.monotonic().plus(RETRY_AFTER));
            }
        }
        state.unfinished = 0;
        if state.disk_full { Prepared::Idle } else { Prepared::More }
    }

    fn or_stop(&self, what: &str, done: io::Result<()>) -> Result<(), Stopped> {
        let mut state = self.state();
        if let Err(error) = done {
            state.stop(&format!("could not {what}: {error}"));
        }
        state.check_running()
    }

    /// Keeps the file that holds the group's entry `index` now, and with it all later ones, from
    /// being recycled until the pin is dropped; `None` when the entry is not there.
    pub fn pin(&self, group: common::GroupId, index: common::LogIndex) -> Option<Pin> {
        let state = self.state();
        let place = state.groups.get(&group)?.place(index)?;
        Some(Pin::new(state.file(place.file)?))
    }
}

impl State {
    pub(super) fn file(&self, sequence: u32) -> Option<&Arc<LogFile>> {
        file_of(&self.files, sequence)
    }
}

/// The file of a sequence among those with records.
pub(super) fn file_of(files: &VecDeque<Arc<LogFile>>, sequence: u32) -> Option<&Arc<LogFile>> {
    let oldest = files.front()?.sequence;
    let guess = u64::from(sequence).checked_sub(oldest)? as usize;
    // Sequences are consecutive but where recovery left files out.
    let near = files.get(guess.min(files.len() - 1))?;
    if near.sequence == u64::from(sequence) {
        return Some(near);
    }
    files.iter().find(|file| file.sequence == u64::from(sequence))
}

/// Whether a spare of this size is of use.
pub(super) fn usable(settings: &LogSettings, size: u64) -> bool {
    size == settings.file_size.bytes()
}
