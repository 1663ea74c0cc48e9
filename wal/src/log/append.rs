//! Appending: a batch is checked, planned, and copied into the open block.

use std::sync::Arc;

use bytes::Bytes;
use common::{GroupId, LogIndex, limits};

use super::files::file_of;
use super::plan::{Move, entry_bytes, meta_bytes, together};
use super::{Log, State};
use crate::block::OpenBlock;
use crate::files::{FIRST_BLOCK, LogFile, Spare};
use crate::format::{GroupRow, PreviousFile, RecordHeader, RecordKind, Table};
use crate::group::{Group, Place};
use crate::settings::RESERVED_FILES;
use crate::{
    AlignedBuf, AppendError, Batch, BlockSeq, Claim, Conf, EntryRef, FullReason, LogEntry,
    LogSettings,
};

impl Log {
    /// Whether the leader may propose `bytes` more for `group`: asked before, so that `append` of
    /// what was proposed does not meet a full log.
    pub fn admit(&self, group: GroupId, bytes: usize, claim: Claim) -> Result<(), AppendError> {
        let state = self.state();
        state.check_running()?;
        let settings = &self.shared.settings;
        if let Some(known) = state.groups.get(&group) {
            refuse_quarantined(group, known)?;
            let beyond = known.bytes + bytes as u64 > settings.group_share()
                || state.moving.hostages(group) * settings.file_size.bytes()
                    > settings.group_share();
            if claim == Claim::Client && beyond && state.has_several() {
                return Err(AppendError::Full(FullReason::GroupShare));
            }
        }
        let kept = match claim {
            Claim::Client => settings.files_kept(),
            Claim::FreesSpace => RESERVED_FILES,
        };
        state.entry_room(settings, bytes, kept)
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
            && state.entry_room(settings, target, RESERVED_FILES)
                != Err(AppendError::Full(FullReason::Preparing))
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
        let truncated = self.known(batch.group).truncated.index;
        if let Some(to) = batch.truncate.filter(|to| to.index > truncated) {
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
            let block = self.last_seq;
            let known = self.known(group);
            (known.hard_state, known.promised_in) = (hard_state, block);
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
        self.active().enter(place.copy_bytes());
        self.change(group, |known, dropped| known.put(entry.index, place, dropped));
    }

    /// Puts a copy of an entry that is in an older file into the open block.
    pub(super) fn put_moved(&mut self, group: GroupId, entry: &LogEntry) {
        let mut header = self.next_header(RecordKind::Moved, group);
        (header.index, header.term, header.entry_kind) = (entry.index, entry.term, entry.kind);
        let (file, offset) = self.push(header, [&entry.context, &entry.data]);
        let place = Place {
            term: entry.term,
            file,
            offset: offset as u32,
            length: (entry.context.len() + entry.data.len()) as u32,
        };
        self.active().enter(place.copy_bytes());
        self.change(group, |known, dropped| known.relocate(entry.index, place, dropped));
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
        let (groups, files, leaving) = (&mut self.groups, &self.files, &mut self.leaving);
        let known = groups.entry(group).or_default();
        let held = known.bytes > 0;
        change(known, &mut |place| {
            let file = file_of(files, place.file).expect("a file with entries is not released");
            file.leave(place.copy_bytes());
            match leaving.back_mut() {
                Some((at, file, count)) if *at == seq && *file == place.file => *count += 1,
                _ => leaving.push_back((seq, place.file, 1)),
            }
        });
        match (held, known.bytes > 0) {
            (false, true) => self.holders += 1,
            (true, false) => self.holders -= 1,
            _ => {}
        }
    }

    /// Makes the open block one that takes `bytes` more, in the active file or the next.
    pub(super) fn make_room(&mut self, bytes: usize, log: &Log) {
        let settings = &log.shared.settings;
        match self.next_move(bytes, settings) {
            Move::Stay => {}
            Move::NewBlock => {
                self.close_open();
                self.open_block(settings);
            }
            Move::NewFile => {
                self.close_open();
                let previous = self.previous();
                self.roll(settings, log.shared.store_id);
                self.open_block(settings);
                self.put_table(previous, |_| ());
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
    pub(super) fn roll(&mut self, settings: &LogSettings, store_id: u128) {
        let next = match self.next.take() {
            Some(next) => next,
            None => {
                let spare = self.spares.pop_front().expect("a file was planned for");
                self.file_after(spare, store_id)
            }
        };
        self.files.push_back(next);
        self.demand.rolled();
        self.tail = FIRST_BLOCK;
        self.count_hostages(settings);
    }

    pub(super) fn file_after(&mut self, spare: Spare, store_id: u128) -> Arc<LogFile> {
        let sequence = self.files.back().map_or(0, |file| file.sequence) + 1;
        LogFile::from_spare(spare, store_id, sequence, self.rng.u64())
    }

    /// Puts the group table into the open block, the first of its file. `mark` marks the rows of
    /// groups whose losses were accepted.
    pub(super) fn put_table(&mut self, previous: PreviousFile, mark: impl Fn(&mut GroupRow)) {
        let rows = self.groups.iter().map(|(group, known)| {
            let mut row = known.row(*group);
            mark(&mut row);
            row
        });
        let table = Table { previous, rows: rows.collect() };
        let block = self.open.as_mut().expect("the table goes into a block just opened");
        block.push(RecordHeader::new(RecordKind::Table, GroupId(0), 0), [&[], &table.encode()]);
    }
}
