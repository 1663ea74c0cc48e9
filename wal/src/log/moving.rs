//! Copying entries forward, so that a few old ones do not keep all files.
//!
//! Files are given back from the oldest end only. A group that cannot truncate, however little it
//! has, would in time keep every file that comes after its first entry, and everybody be refused.
//! So when the log gets full, and the oldest files together hold little that anybody still has,
//! that little is copied into the newest file: a record that says of an entry, known by its index and
//! term, that it is there now. Nothing else of the group changes, so that this is done for a
//! quarantined group, too. The older file goes once the copies are durable, like after a truncation.
//!
//! A copy is made by whoever prepares files: it is looked up under the lock, read and checked
//! outside it, and appended under the lock again if the entry is still there, and still where it
//! was. What cannot be read is not moved, and keeps its file: it is the only trace of what was
//! acknowledged.

use common::{GroupId, LogIndex};

use super::read::Wanted;
use super::{Log, Move, Prepared, State};
use crate::format::record_bytes;
use crate::settings::RESERVED_FILES;
use crate::{BlockSeq, LogEntry, LogSettings, ReadError};

/// Bytes of records that are moved at a time, before others get their turn; at least one entry.
const STEP_BYTES: u64 = 1024 * 1024;
/// Bytes of a block that are not for records, generously: a step is to fill whole sectors.
const BESIDES_BYTES: u64 = 256;
/// Entries looked at under the lock in a step.
const STEP_LOOKS: usize = 16 * 1024;
/// Moving begins when so many parts of the files are in use.
const BEGINS_AT: usize = 2;
/// The part of the files in use from which on it counts who holds them: what is cheap is moved by then.
const HOSTAGES_COUNT: (usize, usize) = (3, 4);
/// It must bring so many parts of the files, and one at least.
const WORTH: usize = 8;

/// What is under way, and who holds whom.
#[derive(Debug, Default)]
pub(super) struct Moving {
    /// The block with what was moved last, until it is durable and the next step may begin.
    waits_for: Option<BlockSeq>,
    /// Where the search in the oldest file goes on.
    cursor: Cursor,
    /// The oldest file holds something that cannot be read: it stays.
    stuck: Option<u64>,
    /// The group that alone holds the oldest files, and how many.
    hostages: Option<(GroupId, u64)>,
    /// Entries moved since the start.
    pub(super) entries: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Cursor {
    file: u64,
    group: GroupId,
    index: LogIndex,
}

impl Moving {
    pub(super) fn goes_on(&self, durable: BlockSeq) -> bool {
        self.waits_for.is_some_and(|block| block <= durable)
    }

    /// Files that nobody but this group keeps from being used again, while the log is short of them.
    pub(super) fn hostages(&self, group: GroupId) -> u64 {
        self.hostages.filter(|(holder, _)| *holder == group).map_or(0, |(_, files)| files)
    }
}

impl State {
    /// Files with records, and how many of them clients may fill.
    fn fullness(&self, settings: &LogSettings) -> (usize, usize) {
        let used = self.files.len() + self.freed.len();
        let all = if self.disk_full { self.files_total() } else { settings.files_max() };
        (used, all.saturating_sub(settings.files_kept()).max(1))
    }

    pub(super) fn is_scarce(&self, settings: &LogSettings) -> bool {
        let (used, all) = self.fullness(settings);
        used * BEGINS_AT >= all
    }

    /// Whether the oldest file is worth moving out of: how many of the files are kept for others,
    /// then.
    ///
    /// The oldest files, few or many of them, must hold little for what they take: nothing while half
    /// of the log is in use, and up to half of it when all is.
    fn worth_moving(&self, settings: &LogSettings) -> Option<usize> {
        let (used, all) = self.fullness(settings);
        let scarce = (used * BEGINS_AT).checked_sub(all)?.min(all) as u64;
        let oldest = self.files.front()?;
        if oldest.live_bytes() == 0 || self.moving.stuck == Some(oldest.sequence) {
            return None;
        }
        let least = settings.file_size.bytes() * (all / WORTH).max(1) as u64;
        let (mut held, mut taken) = (0, 0);
        for file in self.files.range(..self.files.len() - 1) {
            held += file.live_bytes();
            taken += file.size;
            let cheap = held * (all * BEGINS_AT) as u64 <= taken * scarce;
            if cheap && taken >= held + least {
                let little = held <= settings.file_size.bytes() / 4;
                return Some(if little { 1 } else { RESERVED_FILES });
            }
        }
        None
    }

    /// Whether there is something to move now: a step waits until the one before is durable.
    pub(super) fn should_move(&mut self, settings: &LogSettings) -> bool {
        if self.moving.waits_for.is_some_and(|block| block > self.durable) {
            return false;
        }
        self.moving.waits_for = None;
        self.worth_moving(settings).is_some()
    }

    /// Some entries of one group in the oldest file.
    pub(super) fn next_to_move(
        &mut self,
        settings: &LogSettings,
    ) -> Option<(GroupId, Vec<Wanted>)> {
        let file = self.files.front()?.sequence;
        let bytes_max = STEP_BYTES.min(settings.block_size.bytes() - BESIDES_BYTES);
        let mut cursor = self.moving.cursor;
        if cursor.file != file {
            cursor = Cursor { file, ..Cursor::default() };
        }
        let in_file = |group: &crate::group::Group| {
            group.holdings.oldest().is_some_and(|oldest| u64::from(oldest.file) == file)
        };
        let later = self.groups.range(cursor.group..).chain(self.groups.range(..cursor.group));
        let (id, group) = later.into_iter().find(|(_, group)| in_file(group))?;
        let from = if *id == cursor.group { cursor.index } else { LogIndex(0) };
        let (mut found, mut bytes, mut next) = (Vec::new(), 0, LogIndex(0));
        for (index, place) in group.indexed_from(from).take(STEP_LOOKS) {
            if u64::from(place.file) == file && !place.is_lost() {
                if bytes + place.bytes() > bytes_max && bytes > 0 {
                    break;
                }
                bytes += place.bytes();
                found.push(Wanted { index, place, source: self.source(&place) });
            }
            next = LogIndex(index.0 + 1);
        }
        // Behind the last entry the search begins anew.
        let index = if next > group.last { LogIndex(0) } else { next };
        self.moving.cursor = Cursor { file, group: *id, index };
        Some((*id, found))
    }

    /// Appends copies of entries that are where they were; `false` where there is no room for more.
    pub(super) fn append_moved(
        &mut self,
        group: GroupId,
        wanted: &[Wanted],
        entries: &[LogEntry],
        kept: usize,
        log: &Log,
    ) -> bool {
        let settings = &log.shared.settings;
        for (wanted, entry) in wanted.iter().zip(entries) {
            let place = self.groups.get(&group).and_then(|known| known.place(entry.index));
            if place != Some(wanted.place) {
                continue;
            }
            let bytes = record_bytes(wanted.place.length as usize);
            if self.next_move(bytes, settings) == Move::NewFile
                && (bytes > self.largest_record(settings)
                    || self.check_files(settings, 1, kept).is_err())
            {
                return false;
            }
            self.make_room(bytes, log);
            self.put_moved(group, entry);
            self.moving.waits_for = Some(self.last_seq);
            self.moving.entries += 1;
        }
        true
    }

    /// Looks anew who holds the oldest files.
    pub(super) fn count_hostages(&mut self, settings: &LogSettings) {
        self.moving.hostages = None;
        let (used, all) = self.fullness(settings);
        if used * HOSTAGES_COUNT.1 < all * HOSTAGES_COUNT.0 {
            return;
        }
        let newest = self.active().sequence;
        let (mut first, mut second) = (None::<(u64, GroupId)>, newest);
        for (group, known) in &self.groups {
            let Some(oldest) = known.holdings.oldest() else { continue };
            let file = u64::from(oldest.file);
            match first {
                Some((before, _)) if file >= before => second = second.min(file),
                _ => {
                    second = first.map_or(second, |(before, _)| before);
                    first = Some((file, *group));
                }
            }
        }
        self.moving.hostages = first.map(|(file, group)| (group, second - file));
    }
}

impl Log {
    /// Moves some entries out of the oldest file.
    pub(super) fn move_entries(&self) -> Prepared {
        let settings = &self.shared.settings;
        let (kept, next) = {
            let mut state = self.state();
            let Some(kept) = state.worth_moving(settings) else { return Prepared::Idle };
            // What waits to be written comes first: memory has a bound.
            if !state.closed.is_empty() {
                state.moving.waits_for = Some(state.last_seq);
                return Prepared::Idle;
            }
            (kept, state.next_to_move(settings))
        };
        let Some((group, wanted)) = next else { return Prepared::Idle };
        let mut entries = Vec::with_capacity(wanted.len());
        let read = self.read_wanted(group, &wanted, &mut entries);
        let mut state = self.state();
        let passes = match read {
            Err(error) if error.is_damage() => {
                tracing::error!(
                    %group,
                    %error,
                    "old entries that cannot be read are not moved: their file and all later ones stay"
                );
                state.moving.stuck = Some(u64::from(wanted[0].place.file));
                false
            }
            // The machine's fault and not the medium's: it may pass.
            Err(error @ ReadError::Io { .. }) => {
                tracing::warn!(%group, %error, "old entries cannot be read to be moved; tried again");
                true
            }
            // Any other error says that the entries are gone meanwhile.
            Ok(()) | Err(_) => false,
        };
        if state.check_running().is_err() {
            return Prepared::Idle;
        }
        let all = state.append_moved(group, &wanted, &entries, kept, self);
        state.count_hostages(settings);
        if all && !passes { Prepared::More } else { Prepared::Idle }
    }
}
