//! Planning: where each record of a batch goes, and whether there are files for it.
//!
//! A batch is planned before anything of it is appended, by the rule that appending follows.

use super::State;
use crate::block::commits_bytes;
use crate::files::FIRST_BLOCK;
use crate::format::{BLOCK_HEADER_BYTES, Table, record_bytes};
use crate::settings::RESERVED_FILES;
use crate::{AppendError, Batch, EntryRef, FullReason, LogSettings, SECTOR_BYTES};

/// Where filling is: in a block of some length, in a file with some bytes left for that block.
/// Planning a batch and appending it move it by the same rule.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    /// Length of the open block; 0 when there is none.
    block: usize,
    /// Bytes from the block's start to the end of its file, without the room for a seal.
    left: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    Stay,
    NewBlock,
    NewFile,
}

/// What a new file offers its first block.
#[derive(Debug, Clone, Copy)]
struct Fresh {
    left: usize,
    /// Header and table.
    used: usize,
}

impl Fresh {
    /// Bytes of the largest record that fits behind the table.
    fn limit(&self) -> usize {
        self.left.saturating_sub(self.used + commits_bytes(2))
    }
}

impl Cursor {
    /// Moves over `bytes` of records that must stay together, for one more group at most.
    fn advance(&mut self, bytes: usize, groups: usize, cap: usize, fresh: Fresh) -> Move {
        let spare = commits_bytes(groups + 1);
        let start = self.block.max(BLOCK_HEADER_BYTES);
        let fits = start + bytes + spare <= self.left;
        let full = self.block > BLOCK_HEADER_BYTES && self.block + bytes > cap;
        if fits && !full {
            let step = if self.block == 0 { Move::NewBlock } else { Move::Stay };
            self.block = start + bytes;
            return step;
        }
        let behind = self.left.saturating_sub(self.taken(groups));
        if self.block > 0 && BLOCK_HEADER_BYTES + bytes + commits_bytes(1) <= behind {
            *self = Cursor { block: BLOCK_HEADER_BYTES + bytes, left: behind };
            return Move::NewBlock;
        }
        *self = Cursor { block: fresh.used + bytes, left: fresh.left };
        Move::NewFile
    }

    /// Bytes of the file that the block takes once it is closed, at most.
    fn taken(&self, groups: usize) -> usize {
        if self.block == 0 {
            return 0;
        }
        (self.block + commits_bytes(groups)).next_multiple_of(SECTOR_BYTES)
    }
}

pub(super) fn entry_bytes(entry: &EntryRef<'_>) -> usize {
    record_bytes(entry.context.len() + entry.data.len())
}

/// Bytes of everything in the batch but its entries.
pub(super) fn meta_bytes(batch: &Batch<'_>) -> usize {
    let string = |bytes: Option<&[u8]>| bytes.map_or(0, |bytes| record_bytes(bytes.len()));
    let fixed = |set: bool, bytes: usize| if set { record_bytes(bytes) } else { 0 };
    string(batch.tombstone)
        + fixed(batch.reset.is_some(), 0)
        + string(batch.mark)
        + fixed(batch.hard_state.is_some(), 16)
        + string(batch.conf.map(|conf| conf.bytes))
        + fixed(batch.truncate.is_some(), 0)
}

/// How many of the entries stay with the rest of the batch in one block: all, if a block can take
/// them.
pub(super) fn together(batch: &Batch<'_>, cap: usize) -> usize {
    let all: usize = batch.entries.iter().map(entry_bytes).sum();
    if BLOCK_HEADER_BYTES + meta_bytes(batch) + all <= cap {
        batch.entries.len()
    } else {
        batch.entries.len().min(1)
    }
}

impl State {
    /// Whether the batch fits, without changing anything.
    pub(super) fn plan(
        &self,
        batch: &Batch<'_>,
        settings: &LogSettings,
    ) -> Result<(), AppendError> {
        let cap = settings.block_size.as_usize();
        let meta = meta_bytes(batch);
        let first = together(batch, cap);
        let unit = meta + batch.entries[..first].iter().map(entry_bytes).sum::<usize>();
        let mut cursor = self.cursor();
        let groups = self.open.as_ref().map_or(1, |block| block.touched.len());
        // The common case needs no look at the table: all of it fits the open block.
        if first == batch.entries.len() {
            let fresh = Fresh { left: 0, used: 0 };
            if cursor.advance(unit, groups, cap, fresh) != Move::NewFile {
                return Ok(());
            }
            cursor = self.cursor();
        }
        let fresh = self.fresh(settings.file_size.bytes() as usize, meta);
        let largest = batch.entries[first..].iter().map(entry_bytes).max().unwrap_or(0).max(unit);
        let limit = fresh.limit();
        if largest > limit {
            return Err(AppendError::TooLarge { bytes: largest, limit });
        }
        let mut files = 0;
        let rest = batch.entries[first..].iter().map(entry_bytes);
        for bytes in std::iter::once(unit).chain(rest) {
            files += usize::from(cursor.advance(bytes, groups, cap, fresh) == Move::NewFile);
        }
        let kept = match (batch.entries.is_empty(), batch.admitted) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => RESERVED_FILES,
        };
        if files == 0 { Ok(()) } else { self.check_files(settings, files, kept) }
    }

    /// Whether an entry of `bytes` fits the active file, or files that can be had, and `kept` are
    /// left. They must be left also where no further file is needed: whoever may have more than
    /// this one began the active file, and needs what is free in it.
    pub(super) fn entry_room(
        &self,
        settings: &LogSettings,
        bytes: usize,
        kept: usize,
    ) -> Result<(), AppendError> {
        match self.next_move(record_bytes(bytes), settings) {
            Move::NewFile => {
                let files = 1 + bytes / settings.file_size.as_usize();
                self.check_files(settings, files, kept)
            }
            _ => self.check_files(settings, 0, kept),
        }
    }

    /// Whether `files` more can be put into use and `kept` are left, unless more are about to be
    /// made.
    pub(super) fn check_files(
        &self,
        settings: &LogSettings,
        files: usize,
        kept: usize,
    ) -> Result<(), AppendError> {
        let available = self.available();
        if available >= files + kept {
            return Ok(());
        }
        let more = settings.files_max().saturating_sub(self.files_total()) + self.freed.len();
        // What is waited for must suffice once it is there.
        let can_make = more > 0 && available + more >= files + kept;
        if can_make && !self.disk_full {
            if files == 0 || available > files {
                return Ok(());
            }
            return Err(AppendError::Full(FullReason::Preparing));
        }
        let reason = if can_make { FullReason::Disk } else { FullReason::Budget };
        Err(AppendError::Full(reason))
    }

    /// Bytes of the largest record that a new file would take now.
    pub(super) fn largest_record(&self, settings: &LogSettings) -> usize {
        self.fresh(settings.file_size.as_usize(), 0).limit()
    }

    /// What it takes to put `bytes` of records after what is there.
    pub(super) fn next_move(&self, bytes: usize, settings: &LogSettings) -> Move {
        let groups = self.open.as_ref().map_or(1, |block| block.touched.len());
        let fresh = Fresh { left: 0, used: 0 };
        self.cursor().advance(bytes, groups, settings.block_size.as_usize(), fresh)
    }

    fn cursor(&self) -> Cursor {
        let end = self.active().size.saturating_sub(self.seal_bytes() as u64);
        match &self.open {
            Some(block) => {
                Cursor { block: block.length, left: end.saturating_sub(block.offset) as usize }
            }
            None => Cursor { block: 0, left: end.saturating_sub(self.tail) as usize },
        }
    }

    /// Room kept at the end of a file for one sealing block.
    pub(super) fn seal_bytes(&self) -> usize {
        let groups = self.groups.len() + 1;
        (BLOCK_HEADER_BYTES + commits_bytes(groups)).next_multiple_of(SECTOR_BYTES)
    }

    /// What a new file offers after its table, which may have grown by `growth` until then.
    fn fresh(&self, file_size: usize, growth: usize) -> Fresh {
        let rows: usize =
            self.groups.iter().map(|(group, known)| known.row(*group).encoded_bytes()).sum();
        Fresh {
            left: file_size - FIRST_BLOCK as usize - self.seal_bytes(),
            used: BLOCK_HEADER_BYTES + record_bytes(Table::EMPTY_BYTES + rows + growth),
        }
    }
}
