//! Appending: where each record of a batch goes, whether there is room for it, and the copy.

use std::sync::Arc;

use bytes::Bytes;
use common::{GroupId, LogIndex, limits};

use super::{Log, State};
use crate::block::{OpenBlock, commits_bytes};
use crate::files::{FIRST_BLOCK, LogFile, Spare};
use crate::format::{
    BLOCK_HEADER_BYTES, PreviousFile, RecordHeader, RecordKind, Table, record_bytes,
};
use crate::group::{Group, Place};
use crate::settings::RESERVED_FILES;
use crate::{
    AlignedBuf, AppendError, Batch, BlockSeq, Conf, EntryRef, FullReason, LogSettings, SECTOR_BYTES,
};

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
enum Move {
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

impl Log {
    /// Whether the leader may propose `bytes` more for `group`: asked before, so that `append` of
    /// what was proposed does not meet a full log.
    pub fn admit(&self, group: GroupId, bytes: usize) -> Result<(), AppendError> {
        let state = self.state();
        state.check_running()?;
        let settings = &self.shared.settings;
        if let Some(known) = state.groups.get(&group) {
            refuse_quarantined(group, known)?;
            let share = settings.budget.bytes() / 100 * u64::from(settings.group_share_percent);
            let shared = state.groups.values().filter(|other| other.bytes > 0).count() > 1;
            if shared && known.bytes + bytes as u64 > share {
                return Err(AppendError::Full(FullReason::GroupShare));
            }
        }
        state.entry_room(settings, bytes)
    }

    /// Whether the open block can take another entry of the target size now. `false` passes by
    /// itself: a block or a file is on its way.
    pub fn room(&self) -> bool {
        let state = self.state();
        let settings = &self.shared.settings;
        let cap = settings.block_size.as_usize();
        let target = limits::ENTRY_BYTES_TARGET.min(cap / 2);
        state.stopped.is_none()
            && state.closed.is_empty()
            && state.open.as_ref().is_none_or(|block| block.length + target <= cap)
            && state.entry_room(settings, target) != Err(AppendError::Full(FullReason::Preparing))
    }

    /// Copies a batch into the open block and returns the block that must be durable for all of
    /// it to be. Panics when the entries do not follow the group's log or one another: that is a
    /// bug of the caller, found before anything is changed.
    pub fn append(&self, batch: &Batch<'_>) -> Result<BlockSeq, AppendError> {
        let mut state = self.state();
        state.check_running()?;
        if let Err(bug) = state.check_batch(batch) {
            drop(state);
            panic!("{bug}");
        }
        if let Some(known) = state.groups.get(&batch.group)
            && batch.tombstone.is_none()
        {
            refuse_quarantined(batch.group, known)?;
        }
        let known = state.groups.entry(batch.group).or_default();
        let new = known.sequence == 0;
        if let Err(error) = state.plan(batch, &self.shared.settings) {
            if new {
                state.groups.remove(&batch.group);
            }
            return Err(error);
        }
        Ok(state.append(batch, self))
    }

    /// Notes a group's newest commit index; it rides in the next block that touches the group.
    pub fn note_commit(&self, group: GroupId, commit: LogIndex) {
        if let Some(known) = self.state().groups.get_mut(&group) {
            known.noted_commit = known.noted_commit.max(commit);
        }
    }
}

fn refuse_quarantined(group: GroupId, known: &Group) -> Result<(), AppendError> {
    match &known.quarantined {
        Some(reason) => Err(AppendError::Quarantined { group, reason: reason.clone() }),
        None => Ok(()),
    }
}

fn entry_bytes(entry: &EntryRef<'_>) -> usize {
    record_bytes(entry.context.len() + entry.data.len())
}

/// Bytes of everything in the batch but its entries.
fn meta_bytes(batch: &Batch<'_>) -> usize {
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
fn together(batch: &Batch<'_>, cap: usize) -> usize {
    let all: usize = batch.entries.iter().map(entry_bytes).sum();
    if BLOCK_HEADER_BYTES + meta_bytes(batch) + all <= cap {
        batch.entries.len()
    } else {
        batch.entries.len().min(1)
    }
}

impl State {
    fn check_batch(&self, batch: &Batch<'_>) -> Result<(), String> {
        let group = batch.group;
        if group == GroupId(0) {
            return Err("a batch belongs to group 0, which is no group".to_owned());
        }
        let (mut last, mut truncated) = match self.groups.get(&group) {
            Some(known) if batch.tombstone.is_none() => (known.last, known.truncated.index),
            _ => (LogIndex(0), LogIndex(0)),
        };
        if let Some(reset) = batch.reset {
            (last, truncated) = (reset.index, reset.index);
        }
        if let Some(first) = batch.entries.first()
            && (first.index.0 > last.0 + 1 || first.index <= truncated)
        {
            let at = first.index;
            return Err(format!(
                "group {group}: entry {at} does not follow the log, which has {truncated}..={last}"
            ));
        }
        if !batch.entries.windows(2).all(|pair| pair[1].index.0 == pair[0].index.0 + 1) {
            return Err(format!("group {group}: the entries of a batch are not consecutive"));
        }
        match batch.truncate {
            Some(to) if to.index > last => Err(format!(
                "group {group}: truncation to {} is beyond the last index {last}",
                to.index
            )),
            _ => Ok(()),
        }
    }

    /// Whether the batch fits, without changing anything.
    fn plan(&self, batch: &Batch<'_>, settings: &LogSettings) -> Result<(), AppendError> {
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
        let limit = fresh.left.saturating_sub(fresh.used + commits_bytes(2));
        if largest > limit {
            return Err(AppendError::TooLarge { bytes: largest, limit });
        }
        let mut files = 0;
        let rest = batch.entries[first..].iter().map(entry_bytes);
        for bytes in std::iter::once(unit).chain(rest) {
            files += usize::from(cursor.advance(bytes, groups, cap, fresh) == Move::NewFile);
        }
        self.check_files(settings, files, !batch.entries.is_empty())
    }

    /// Whether an entry of `bytes` fits the active file, or files that can be had.
    fn entry_room(&self, settings: &LogSettings, bytes: usize) -> Result<(), AppendError> {
        let groups = self.open.as_ref().map_or(1, |block| block.touched.len());
        let cap = settings.block_size.as_usize();
        let fresh = Fresh { left: 0, used: 0 };
        match self.cursor().advance(record_bytes(bytes), groups, cap, fresh) {
            Move::NewFile => {
                let files = 1 + bytes / settings.file_size.as_usize();
                self.check_files(settings, files, true)
            }
            _ => Ok(()),
        }
    }

    /// Whether `files` more can be put into use: for entries not the last reserved ones, unless
    /// more are about to be made.
    fn check_files(
        &self,
        settings: &LogSettings,
        files: usize,
        entries: bool,
    ) -> Result<(), AppendError> {
        let available = self.available();
        if files == 0 || (!entries && available >= files) {
            return Ok(());
        }
        if available >= files + RESERVED_FILES {
            return Ok(());
        }
        let can_make = self.files_total() < settings.files_max() || !self.freed.is_empty();
        if can_make && !self.disk_full {
            if available > files {
                return Ok(());
            }
            return Err(AppendError::Full(FullReason::Preparing));
        }
        let reason = if can_make { FullReason::Disk } else { FullReason::Budget };
        Err(AppendError::Full(reason))
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

    fn append(&mut self, batch: &Batch<'_>, log: &Log) -> BlockSeq {
        let settings = &log.shared.settings;
        let first = together(batch, settings.block_size.as_usize());
        let (head, rest) = batch.entries.split_at(first);
        let unit = meta_bytes(batch) + head.iter().map(entry_bytes).sum::<usize>();
        self.make_room(unit, log);
        self.put_meta(batch, head.last().map(|entry| entry.index));
        for entry in head {
            self.put_entry(batch.group, entry);
        }
        if let Some(to) = batch.truncate {
            let mut header = self.next_header(RecordKind::Truncate, batch.group);
            (header.index, header.term) = (to.index, to.term);
            self.push(header, [&[], &[]]);
            self.change(batch.group, |known, dropped| known.truncate(to, dropped));
        }
        for entry in rest {
            self.make_room(entry_bytes(entry), log);
            self.put_entry(batch.group, entry);
        }
        if let Some(hard_state) = batch.hard_state {
            let known = self.known(batch.group);
            known.noted_commit = known.noted_commit.max(hard_state.commit);
        }
        self.last_seq
    }

    /// Puts everything but the entries into the open block. `proven` is the last entry that
    /// goes into it, too: the commit index must not run ahead of it.
    fn put_meta(&mut self, batch: &Batch<'_>, proven: Option<LogIndex>) {
        let group = batch.group;
        if let Some(bytes) = batch.tombstone {
            let header = self.next_header(RecordKind::Tombstone, group);
            self.push(header, [&[], bytes]);
            let bytes = Bytes::copy_from_slice(bytes);
            self.change(group, |known, dropped| known.bury(bytes, dropped));
        }
        if let Some(to) = batch.reset {
            let mut header = self.next_header(RecordKind::Reset, group);
            (header.index, header.term) = (to.index, to.term);
            self.push(header, [&[], &[]]);
            self.change(group, |known, dropped| known.reset(to, dropped));
        }
        if let Some(mark) = batch.mark {
            let header = self.next_header(RecordKind::Mark, group);
            self.push(header, [&[], mark]);
            self.known(group).mark = (!mark.is_empty()).then(|| Bytes::copy_from_slice(mark));
        }
        if let Some(mut hard_state) = batch.hard_state {
            let all = batch.entries.last().map(|entry| entry.index);
            if let (Some(proven), true) = (proven, proven != all) {
                hard_state.commit = hard_state.commit.min(proven);
            }
            let mut header = self.next_header(RecordKind::HardState, group);
            header.term = hard_state.term;
            let mut payload = [0; 16];
            payload[..8].copy_from_slice(&hard_state.vote.to_le_bytes());
            payload[8..].copy_from_slice(&hard_state.commit.0.to_le_bytes());
            self.push(header, [&[], &payload]);
            self.known(group).hard_state = hard_state;
        }
        if let Some(conf) = batch.conf {
            let mut header = self.next_header(RecordKind::Conf, group);
            header.index = conf.index;
            self.push(header, [&[], conf.bytes]);
            self.known(group).conf =
                Some(Conf { index: conf.index, bytes: Bytes::copy_from_slice(conf.bytes) });
        }
    }

    fn put_entry(&mut self, group: GroupId, entry: &EntryRef<'_>) {
        let mut header = self.next_header(RecordKind::Entry, group);
        (header.index, header.term, header.entry_kind) = (entry.index, entry.term, entry.kind);
        let (file, offset) = self.push(header, [entry.context, entry.data]);
        let place = Place {
            term: entry.term,
            file,
            offset: offset as u32,
            length: (entry.context.len() + entry.data.len()) as u32,
        };
        self.active().add_live(1);
        self.change(group, |known, dropped| known.put(entry.index, place, dropped));
    }

    fn known(&mut self, group: GroupId) -> &mut Group {
        self.groups.entry(group).or_default()
    }

    /// The header of the group's next record.
    fn next_header(&mut self, kind: RecordKind, group: GroupId) -> RecordHeader {
        let known = self.known(group);
        known.sequence += 1;
        if kind.changes_entries() {
            known.entry_sequence = known.sequence;
        }
        RecordHeader::new(kind, group, known.sequence)
    }

    /// Copies a record into the open block; returns its place.
    fn push(&mut self, header: RecordHeader, parts: [&[u8]; 2]) -> (u32, u64) {
        let block = self.open.as_mut().expect("room was made");
        let known = self.groups.entry(header.group).or_default();
        if known.touched != block.seq {
            known.touched = block.seq;
            block.touched.push(header.group);
        }
        (block.file.sequence as u32, block.push(header, parts))
    }

    /// Changes a group's entries and remembers which files they leave, for when it is durable.
    fn change(&mut self, group: GroupId, change: impl FnOnce(&mut Group, &mut dyn FnMut(Place))) {
        let seq = self.last_seq;
        let (groups, leaving) = (&mut self.groups, &mut self.leaving);
        let known = groups.entry(group).or_default();
        change(known, &mut |place| match leaving.back_mut() {
            Some((at, file, count)) if *at == seq && *file == place.file => *count += 1,
            _ => leaving.push_back((seq, place.file, 1)),
        });
    }

    /// Makes the open block one that takes `bytes` more, in the active file or the next.
    fn make_room(&mut self, bytes: usize, log: &Log) {
        let settings = &log.shared.settings;
        let groups = self.open.as_ref().map_or(1, |block| block.touched.len());
        let fresh = Fresh { left: 0, used: 0 };
        match self.cursor().advance(bytes, groups, settings.block_size.as_usize(), fresh) {
            Move::Stay => {}
            Move::NewBlock => {
                self.close_open();
                self.open_block(settings);
            }
            Move::NewFile => {
                self.close_open();
                let previous = self.previous();
                self.roll(log.shared.store_id);
                self.open_block(settings);
                self.put_table(previous, |_| false);
            }
        }
    }

    pub(super) fn open_block(&mut self, settings: &LogSettings) {
        let buffer = self
            .buffers
            .pop()
            .unwrap_or_else(|| AlignedBuf::zeroed(settings.block_size.as_usize()));
        self.last_seq = self.last_seq.next();
        self.sealed = false;
        let file = self.active().clone();
        if file.first_block() == BlockSeq(0) {
            file.set_first_block(self.last_seq);
        }
        let touched = std::mem::take(&mut self.touched);
        self.open = Some(OpenBlock::new(self.last_seq, file, self.tail, buffer, touched));
    }

    /// Closes the open block: the commit indexes of the groups in it are its last record.
    pub(super) fn close_open(&mut self) {
        let Some(mut block) = self.open.take() else { return };
        self.scratch.clear();
        for group in &block.touched {
            let Some(known) = self.groups.get_mut(group) else { continue };
            let commit = known.noted_commit.min(known.last);
            if commit > known.hard_state.commit {
                known.hard_state.commit = commit;
                self.scratch.extend_from_slice(&group.0.to_le_bytes());
                self.scratch.extend_from_slice(&commit.0.to_le_bytes());
            }
        }
        block.push_commits(&self.scratch);
        let (closed, touched) = block.close();
        self.touched = touched;
        self.tail = closed.offset + closed.bytes as u64;
        self.closed.push_back(closed);
    }

    /// The next file becomes the active one. That there is one was checked.
    pub(super) fn roll(&mut self, store_id: u128) {
        let next = match self.next.take() {
            Some(next) => next,
            None => {
                let spare = self.spares.pop_front().expect("a file was planned for");
                self.file_after(spare, store_id)
            }
        };
        self.files.push_back(next);
        self.tail = FIRST_BLOCK;
    }

    pub(super) fn file_after(&mut self, spare: Spare, store_id: u128) -> Arc<LogFile> {
        let sequence = self.files.back().map_or(0, |file| file.sequence) + 1;
        LogFile::from_spare(spare, store_id, sequence, self.rng.u64())
    }

    /// Puts the group table into the open block, the first of its file. `cut` tells the groups
    /// whose losses were accepted.
    pub(super) fn put_table(&mut self, previous: PreviousFile, cut: impl Fn(GroupId) -> bool) {
        let rows = self.groups.iter().map(|(group, known)| {
            let mut row = known.row(*group);
            row.cut = cut(*group);
            row
        });
        let table = Table { previous, rows: rows.collect() };
        let block = self.open.as_mut().expect("the table goes into a block just opened");
        block.push(RecordHeader::new(RecordKind::Table, GroupId(0), 0), [&[], &table.encode()]);
    }
}
