//! The groups as the records tell them, and which of them lost acknowledged records.
//!
//! Every record of a group has the next number of the group's record sequence. A number left out
//! is a hole; so is a table or a sealing block that says a higher number than was read; and a group
//! of which nothing is read behind a damaged region cannot be proven complete. Behind a hole a
//! group is built anew beside what it was before. If in the end a table has told its state and all
//! entries that it has not truncated were read behind the hole, the hole does not matter. Else
//! the group counts as it was before the hole: never is anything replayed across one. The pieces
//! between holes are kept for a repair ([`super::bridge`]).

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{GroupId, LogIndex};

use super::bridge;
use crate::format::{GroupRow, Reader, RecordHeader, RecordKind, Table};
use crate::group::{Group, Place};
use crate::{BlockSeq, Conf, Damage, HardState, Truncated};

/// A part of the log that should hold blocks and does not.
#[derive(Debug, Clone)]
pub(crate) struct Region {
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) end: u64,
    /// The first block missing.
    pub(crate) expected: BlockSeq,
    pub(crate) reason: String,
}

/// What a group has lost.
#[derive(Debug, Clone)]
pub(crate) struct Loss {
    pub(crate) group: GroupId,
    /// The last index that is sound.
    pub(crate) kept: LogIndex,
    /// The last index that was seen behind the hole, or said to be there.
    pub(crate) seen: LogIndex,
    pub(crate) reason: String,
    /// The group between its holes, oldest first.
    pub(crate) pieces: Vec<Group>,
}

/// What the records add up to.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Damaged groups as they were before their hole, with the newest hard state, and marked.
    pub(crate) groups: BTreeMap<GroupId, Group>,
    /// Regions that hit a group.
    pub(crate) damage: Vec<Damage>,
    pub(crate) losses: Vec<Loss>,
    /// Regions that hit nobody any more.
    pub(crate) healed: Vec<Damage>,
}

/// A group while its records are read.
#[derive(Debug, Default)]
struct Replayed {
    group: Group,
    hole: Option<Hole>,
    /// Nothing was read of it since this region.
    unproven: Option<usize>,
}

#[derive(Debug)]
struct Hole {
    before: Group,
    /// Between this hole and later ones.
    islands: Vec<Group>,
    /// The region it comes from, if any.
    region: Option<usize>,
    /// Whether a table behind it told the group's state.
    told: bool,
    /// A table says that the group was quarantined before: only a cut or a tombstone ends that.
    permanent: bool,
    reason: String,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    groups: BTreeMap<GroupId, Replayed>,
    regions: Vec<Region>,
    /// Whether a table was read: then a group that it does not name is new.
    has_base: bool,
}

fn ignore(_: Place) {}

impl Hole {
    /// Whether nothing behind it, nor in it, changed which entries there are.
    fn only_metadata(&self, row: &GroupRow) -> bool {
        !self.permanent && self.before.sequence >= row.entry_sequence
    }
}

impl Replayed {
    fn open_hole(&mut self, region: Option<usize>, reason: String) {
        let before = std::mem::take(&mut self.group);
        match &mut self.hole {
            Some(hole) => {
                hole.told = false;
                hole.islands.push(before);
            }
            None => {
                let (islands, told, permanent) = (Vec::new(), false, false);
                self.hole = Some(Hole { before, islands, region, told, permanent, reason });
            }
        }
    }

    fn proven(&mut self) {
        self.unproven = None;
    }

    /// A copy says of an entry where it is, on whatever side of a hole it was appended: index and term
    /// tell an entry from every other. So what was before a hole keeps what has been moved behind it.
    fn relocate(&mut self, record: &RecordHeader, file: u64, offset: u64) {
        let place = place(record, file, offset);
        let Some(hole) = &mut self.hole else { return };
        hole.before.relocate(record.index, place, &mut ignore);
        for island in &mut hole.islands {
            island.relocate(record.index, place, &mut ignore);
        }
    }

    /// The group in pieces, oldest first.
    fn pieces(&self) -> Vec<&Group> {
        let old =
            self.hole.iter().flat_map(|hole| std::iter::once(&hole.before).chain(&hole.islands));
        old.chain([&self.group]).collect()
    }

    fn row(&mut self, row: &GroupRow, region: Option<usize>) {
        if row.cut {
            let mut group = match self.hole.take() {
                Some(hole) => hole.before,
                None => std::mem::take(&mut self.group),
            };
            group.drop_from(LogIndex(row.last.0 + 1), &mut ignore);
            group.adopt(row);
            self.group = group;
        } else if row.bridged
            && let Some(group) = bridge::as_accepted(&self.pieces(), row)
        {
            self.hole = None;
            self.group = group;
        } else if let Some(hole) = self.hole.take_if(|hole| hole.only_metadata(row)) {
            self.group = hole.before;
            self.group.adopt(row);
        } else if self.group.sequence == row.sequence
            || (self.group.sequence < row.sequence && self.group.sequence >= row.entry_sequence)
        {
            // Nothing missing, or nothing that the table does not say.
            self.group.adopt(row);
            if let Some(hole) = &mut self.hole {
                hole.told = true;
            }
        } else {
            let reason =
                format!("records {} to {} are missing", self.group.sequence + 1, row.sequence);
            self.open_hole(region, reason);
            self.group.adopt(row);
            if let Some(hole) = &mut self.hole {
                hole.told = true;
            }
        }
        if row.quarantined {
            if self.hole.is_none() {
                self.open_hole(None, "it lost acknowledged records before".to_owned());
                self.group.adopt(row);
            }
            if let Some(hole) = &mut self.hole {
                hole.permanent = true;
            }
        }
        self.proven();
    }
}

/// A payload of (group, number) pairs and nothing else.
fn whole(payload: &[u8]) -> Option<&[u8]> {
    payload.len().is_multiple_of(16).then_some(payload)
}

impl Replay {
    /// A region that held acknowledged blocks is gone: until something is read of a group again,
    /// it may be hit.
    pub(crate) fn damage(&mut self, region: Region) {
        let number = self.regions.len();
        self.regions.push(region);
        for replayed in self.groups.values_mut() {
            replayed.unproven.get_or_insert(number);
        }
    }

    fn last_region(&self) -> Option<usize> {
        self.regions.len().checked_sub(1)
    }

    /// Takes a record whose checksums are right. What it says and this program does not know is never
    /// skipped: the error says what it is.
    pub(crate) fn record(
        &mut self,
        record: &RecordHeader,
        payload: &[u8],
        file: u64,
        offset: u64,
    ) -> Result<(), &'static str> {
        match record.kind {
            RecordKind::Table => self.table(&Table::decode(payload).ok_or("a group table")?),
            RecordKind::Seal => self.seal(whole(payload).ok_or("a sealing record")?),
            RecordKind::Commits => {
                self.commits(whole(payload).ok_or("a record of commit indexes")?)
            }
            RecordKind::Unknown => return Err("a kind of record"),
            _ => self.group_record(record, payload, file, offset)?,
        }
        Ok(())
    }

    fn table(&mut self, table: &Table) {
        let region = self.last_region();
        for row in &table.rows {
            let is_new = !self.groups.contains_key(&row.group);
            let replayed = self.groups.entry(row.group).or_default();
            if is_new && !self.has_base {
                replayed.group = Group::from_row(row);
            }
            replayed.row(row, region);
        }
        self.has_base = true;
    }

    fn seal(&mut self, payload: &[u8]) {
        let mut fields = Reader(payload);
        while let (Some(group), Some(sequence)) = (fields.u64(), fields.u64()) {
            let region = self.last_region();
            let replayed = self.groups.entry(GroupId(group)).or_default();
            if replayed.group.sequence != sequence {
                let reason =
                    format!("records {} to {sequence} are missing", replayed.group.sequence + 1);
                replayed.open_hole(region, reason);
                replayed.group.sequence = sequence;
            }
            replayed.proven();
        }
    }

    fn commits(&mut self, payload: &[u8]) {
        let mut fields = Reader(payload);
        while let (Some(group), Some(commit)) = (fields.u64(), fields.u64()) {
            if let Some(replayed) = self.groups.get_mut(&GroupId(group)) {
                let hard_state = &mut replayed.group.hard_state;
                hard_state.commit = hard_state.commit.max(LogIndex(commit));
            }
        }
    }

    fn group_record(
        &mut self,
        record: &RecordHeader,
        payload: &[u8],
        file: u64,
        offset: u64,
    ) -> Result<(), &'static str> {
        let region = self.last_region();
        let replayed = self.groups.entry(record.group).or_default();
        let expected = replayed.group.sequence + 1;
        if record.sequence != expected {
            let reason = format!("records {expected} to {} are missing", record.sequence - 1);
            replayed.open_hole(region, reason);
        }
        if record.kind == RecordKind::Tombstone {
            // Whatever is missing before it is gone for good anyway.
            replayed.hole = None;
        }
        replayed.proven();
        if record.kind == RecordKind::Moved {
            replayed.relocate(record, file, offset);
        }
        apply(&mut replayed.group, record, payload, file, offset)
    }

    pub(crate) fn finish(self) -> Verdict {
        let mut verdict = Verdict::default();
        let mut hit: Vec<Vec<GroupId>> = vec![Vec::new(); self.regions.len()];
        let mut elsewhere = Vec::new();
        for (id, replayed) in self.groups {
            let region = replayed.hole.as_ref().map_or(replayed.unproven, |hole| hole.region);
            let (group, loss) = replayed.finish(id);
            if let Some(loss) = loss {
                match region {
                    Some(region) => hit[region].push(id),
                    None => elsewhere.push((id, loss.reason.clone())),
                }
                verdict.losses.push(loss);
            }
            verdict.groups.insert(id, group);
        }
        for (region, groups) in self.regions.into_iter().zip(hit) {
            let list = if groups.is_empty() { &mut verdict.healed } else { &mut verdict.damage };
            list.push(Damage {
                file: region.file,
                offset: region.offset,
                end: region.end,
                reason: region.reason,
                groups,
            });
        }
        for (group, reason) in elsewhere {
            let file = "(all files)".to_owned();
            verdict.damage.push(Damage { file, offset: 0, end: 0, reason, groups: vec![group] });
        }
        verdict
    }
}

impl Replayed {
    /// The group as it counts, and what it has lost.
    fn finish(mut self, id: GroupId) -> (Group, Option<Loss>) {
        self.group.fill_front();
        let truncated = self.group.truncated;
        let group = &self.group;
        let sound = match &self.hole {
            None => self.unproven.is_none() && group.complete(),
            Some(hole) => hole.told && !hole.permanent && group.complete(),
        };
        if sound {
            self.group.truncate(truncated, &mut ignore);
            self.group.forget_moved();
            return (self.group, None);
        }
        let pieces: Vec<Group> = self.pieces().into_iter().cloned().collect();
        let group = self.group;
        let missing = format!(
            "entries {} to {} are missing",
            truncated.index.0 + 1,
            group.first().0.saturating_sub(1)
        );
        let (mut kept, reason) = match self.hole {
            Some(hole) => (hole.before, hole.reason),
            None if self.unproven.is_some() && group.complete() => {
                (group.clone(), "nothing proves that its last records were read".to_owned())
            }
            None => (Group::default(), missing),
        };
        let seen = group.last.max(kept.last);
        kept.cut_to_sound(&group);
        kept.forget_moved();
        let loss = Loss { group: id, kept: kept.last, seen, reason: reason.clone(), pieces };
        kept.quarantined = Some(reason);
        (kept, Some(loss))
    }
}

impl Group {
    /// Makes a group that ends at a hole fit to go on from there: promises are the newest seen
    /// on either side, the commit index does not exceed the log.
    fn cut_to_sound(&mut self, behind: &Group) {
        self.sequence = self.sequence.max(behind.sequence);
        self.entry_sequence = self.sequence;
        if behind.hard_state.term >= self.hard_state.term {
            self.hard_state.term = behind.hard_state.term;
            self.hard_state.vote = behind.hard_state.vote;
        }
        if behind.truncated.index > self.truncated.index {
            let to = behind.truncated;
            self.truncate(to, &mut ignore);
        } else if self.truncated.index < self.last {
            let to = self.truncated;
            self.truncate(to, &mut ignore);
        }
        if !self.complete() {
            let to = self.truncated;
            self.reset(to, &mut ignore);
        }
        self.hard_state.commit = self.hard_state.commit.min(self.last);
        if behind.conf.as_ref().is_some_and(|conf| conf.index <= self.last) {
            self.conf.clone_from(&behind.conf);
        }
        if behind.tombstone.is_some() {
            self.tombstone.clone_from(&behind.tombstone);
        }
    }
}

fn place(record: &RecordHeader, file: u64, offset: u64) -> Place {
    let (file, offset) = (file as u32, offset as u32);
    Place { term: record.term, file, offset, length: record.length }
}

fn apply(
    group: &mut Group,
    record: &RecordHeader,
    payload: &[u8],
    file: u64,
    offset: u64,
) -> Result<(), &'static str> {
    group.sequence = record.sequence;
    if record.kind.changes_entries() {
        group.entry_sequence = record.sequence;
    }
    let to = Truncated { index: record.index, term: record.term };
    let bytes = || Bytes::copy_from_slice(payload);
    match record.kind {
        RecordKind::Entry => group.put(record.index, place(record, file, offset), &mut ignore),
        RecordKind::Moved => {
            group.relocate(record.index, place(record, file, offset), &mut ignore);
        }
        RecordKind::HardState => {
            let mut fields = Reader(payload);
            let numbers = (fields.u64(), fields.u64(), fields.0.is_empty());
            let (Some(vote), Some(commit), true) = numbers else { return Err("a hard state") };
            let commit = LogIndex(commit);
            group.hard_state = HardState { term: record.term, vote, commit };
        }
        RecordKind::Truncate => group.truncate(to, &mut ignore),
        RecordKind::Conf => group.conf = Some(Conf { index: record.index, bytes: bytes() }),
        RecordKind::Mark => group.mark = (!payload.is_empty()).then(bytes),
        RecordKind::Reset => group.reset(to, &mut ignore),
        RecordKind::Tombstone => group.bury(bytes(), &mut ignore),
        // Of no group.
        RecordKind::Commits | RecordKind::Table | RecordKind::Seal | RecordKind::Unknown => {}
    }
    Ok(())
}
