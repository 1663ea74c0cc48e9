//! What `braid wal` prints.

use serde::Serialize;
use wal::{Behind, Damage, FileReport, GroupState, Inspection, LostRange};

use crate::failure::Result;
use crate::output::{self, Format, Row, bytes_text};

/// A log folder.
#[derive(Debug, Serialize)]
pub(super) struct InspectionRow {
    store: Option<String>,
    last_block: u64,
    torn_bytes: u64,
    spare_files: usize,
    unused_files: usize,
    files: Vec<FileRow>,
    groups: Vec<GroupRow>,
    /// Damage to acknowledged data.
    damage: Vec<DamageRow>,
    /// Damage to what is not needed any more.
    harmless_damage: Vec<DamageRow>,
    losses: Vec<LossRow>,
}

#[derive(Debug, Serialize)]
struct FileRow {
    file: String,
    size: u64,
    used: u64,
    blocks: u64,
    records: u64,
    first_block: u64,
    last_block: u64,
    header_damaged: bool,
}

#[derive(Debug, Serialize)]
struct GroupRow {
    group: u64,
    term: u64,
    commit: u64,
    truncated: u64,
    first: u64,
    last: u64,
    /// Entries that a repair gave up.
    lost: u64,
    quarantined: Option<String>,
}

#[derive(Debug, Serialize)]
struct DamageRow {
    file: String,
    offset: u64,
    end: u64,
    reason: String,
    groups: Vec<u64>,
}

/// What a group has lost.
#[derive(Debug, Serialize)]
pub(super) struct LossRow {
    group: u64,
    /// The first entry lost.
    first: u64,
    /// The last entry known to be lost, one below `first` where none is.
    last: u64,
    /// Whether whatever came behind is lost as well.
    behind_lost: bool,
    /// Whether long-term storage has them, so that nothing is lost.
    archived: bool,
    reason: String,
}

impl LossRow {
    pub(super) fn new(loss: &LostRange) -> Self {
        let LostRange { group, first, last, behind, reason } = loss;
        let behind_lost = *behind == Behind::Lost;
        let archived = *behind == Behind::Archived;
        let reason = reason.clone();
        Self { group: group.0, first: first.0, last: last.0, behind_lost, archived, reason }
    }
}

/// A sentence for people.
pub(super) fn loss_text(loss: &LostRange) -> String {
    let LostRange { group, first, last, behind, reason } = loss;
    let entries = match last.0.checked_sub(first.0) {
        None => "no entry that is known of".to_owned(),
        Some(0) => format!("entry {first}"),
        Some(_) => format!("entries {first} to {last}"),
    };
    match behind {
        Behind::Lost => format!(
            "group {group} keeps what came before entry {first}, and loses {entries} and whatever \
             came behind ({reason})"
        ),
        Behind::Archived => format!(
            "group {group}: the log lacks {entries}, which long-term storage has: nothing of them is \
             lost ({reason})"
        ),
        Behind::Kept => format!(
            "group {group} loses {entries}: the events in it cannot be read any more; what came \
             before and behind stays ({reason})"
        ),
    }
}

impl InspectionRow {
    pub(super) fn new(found: &Inspection) -> Self {
        Self {
            store: found.store_id.map(|id| format!("{id:032x}")),
            last_block: found.last_block.0,
            torn_bytes: found.torn_bytes,
            spare_files: found.spares.len(),
            unused_files: found.empty.len(),
            files: found.files.iter().map(FileRow::new).collect(),
            groups: found.groups.iter().map(GroupRow::new).collect(),
            damage: found.damage.iter().map(DamageRow::new).collect(),
            harmless_damage: found.harmless.iter().map(DamageRow::new).collect(),
            losses: found.losses.iter().map(LossRow::new).collect(),
        }
    }

    pub(super) fn print(&self, format: Format) -> Result<()> {
        if format != Format::Table {
            return output::print_done(format, "", self);
        }
        output::print(&self.summary())?;
        output::print_list(format, &self.files)?;
        output::print("\n")?;
        output::print_list(format, &self.groups)?;
        for damage in &self.damage {
            output::print(&format!("\nDAMAGED {}\n", damage.text()))?;
        }
        for damage in &self.harmless_damage {
            output::print(&format!("\ndamaged but not needed: {}\n", damage.text()))?;
        }
        Ok(())
    }

    fn summary(&self) -> String {
        let state = if self.damage.is_empty() { "whole" } else { "damaged" };
        let torn = if self.torn_bytes == 0 {
            String::new()
        } else {
            format!("; {} torn at the end, never acknowledged", bytes_text(self.torn_bytes))
        };
        format!(
            "the log is {state} up to block {}{torn}; {}, {} spare\n\n",
            self.last_block,
            output::counted(self.files.len() as u64, "file"),
            self.spare_files
        )
    }
}

impl FileRow {
    fn new(file: &FileReport) -> Self {
        Self {
            file: file.name.clone(),
            size: file.size,
            used: file.used,
            blocks: file.blocks,
            records: file.records,
            first_block: file.first_block.0,
            last_block: file.last_block.0,
            header_damaged: file.header_damaged,
        }
    }
}

impl Row for FileRow {
    const COLUMNS: &'static [&'static str] =
        &["file", "size", "used", "blocks", "records", "first_block", "last_block", "header"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.file.clone(),
            bytes_text(self.size),
            bytes_text(self.used),
            self.blocks.to_string(),
            self.records.to_string(),
            self.first_block.to_string(),
            self.last_block.to_string(),
            if self.header_damaged { "damaged" } else { "whole" }.to_owned(),
        ]
    }
}

impl GroupRow {
    fn new(group: &GroupState) -> Self {
        Self {
            group: group.group.0,
            term: group.hard_state.term.0,
            commit: group.hard_state.commit.0,
            truncated: group.truncated.index.0,
            first: group.first.0,
            last: group.last.0,
            lost: group.lost.iter().map(|lost| lost.last.0 + 1 - lost.first.0).sum(),
            quarantined: group.quarantined.clone(),
        }
    }
}

impl Row for GroupRow {
    const COLUMNS: &'static [&'static str] =
        &["group", "term", "commit", "truncated", "first", "last", "lost", "state"];

    fn cells(&self) -> Vec<String> {
        let Self { group, term, commit, truncated, first, last, lost, .. } = self;
        let numbers = [group, term, commit, truncated, first, last, lost];
        let mut cells: Vec<_> = numbers.iter().map(ToString::to_string).collect();
        cells.push(self.quarantined.clone().unwrap_or_else(|| "whole".to_owned()));
        cells
    }
}

impl DamageRow {
    fn new(damage: &Damage) -> Self {
        Self {
            file: damage.file.clone(),
            offset: damage.offset,
            end: damage.end,
            reason: damage.reason.clone(),
            groups: damage.groups.iter().map(|group| group.0).collect(),
        }
    }

    fn text(&self) -> String {
        let Self { file, offset, end, reason, groups } = self;
        format!("{file}, bytes {offset} to {end}: {reason}; groups {groups:?}")
    }
}
