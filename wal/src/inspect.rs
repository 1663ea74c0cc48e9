//! What a log directory holds, as data, and giving up what it has lost: the library behind
//! `braid wal inspect` and `braid wal repair`.

use std::sync::Arc;

use common::{Clock, GroupId, LogIndex, Rng};

use crate::files::file_name;
use crate::recovery::{Scan, scan};
use crate::{BlockSeq, Damage, DamagePolicy, Disk, GroupState, Log, LogSettings, OpenError};

/// A log directory at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    pub store_id: Option<u128>,
    pub files: Vec<FileReport>,
    /// Files made ahead or recycled.
    pub spares: Vec<String>,
    /// Files that hold no block, or were not finished.
    pub empty: Vec<String>,
    pub last_block: BlockSeq,
    /// Bytes of a block that was begun and never acknowledged, as far as its header tells.
    pub torn_bytes: u64,
    /// Sorted by group; a damaged one as it was before its hole.
    pub groups: Vec<GroupState>,
    /// Damage that hits a group.
    pub damage: Vec<Damage>,
    /// Damage that hits nothing that is still needed.
    pub harmless: Vec<Damage>,
    pub losses: Vec<LostRange>,
}

/// One log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    pub name: String,
    pub sequence: u64,
    pub size: u64,
    /// Bytes up to the end of the last valid block.
    pub used: u64,
    pub blocks: u64,
    pub records: u64,
    pub first_block: BlockSeq,
    pub last_block: BlockSeq,
    /// The file's own header is damaged; its blocks prove what it is.
    pub header_damaged: bool,
}

/// What a group has lost, and would lose for good by [`repair`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRange {
    pub group: GroupId,
    /// The last index that stays.
    pub kept: LogIndex,
    /// The last index known to have been there: those from `kept + 1` on are lost, and all
    /// behind it that nothing tells of.
    pub seen: LogIndex,
    pub reason: String,
}

/// Reads a log directory without changing it. While a process writes to it, the block under way
/// shows as torn.
pub fn inspect(disk: &dyn Disk) -> Result<Inspection, OpenError> {
    let scan = scan(disk, None)?;
    Ok(report(scan))
}

fn report(scan: Scan) -> Inspection {
    let files = scan.files.iter().map(|file| FileReport {
        name: file_name(file.header.sequence),
        sequence: file.header.sequence,
        size: file.size,
        used: file.end,
        blocks: file.blocks,
        records: file.records,
        first_block: file.first_block,
        last_block: file.last_block,
        header_damaged: file.header_damaged,
    });
    let losses = scan.verdict.losses.iter().map(|loss| LostRange {
        group: loss.group,
        kept: loss.kept,
        seen: loss.seen,
        reason: loss.reason.clone(),
    });
    let groups = &scan.verdict.groups;
    Inspection {
        store_id: scan.store_id,
        files: files.collect(),
        spares: scan.spares.clone(),
        empty: scan.empty.iter().chain(&scan.unfinished).cloned().collect(),
        last_block: scan.last_block,
        torn_bytes: scan.torn_bytes,
        groups: groups.iter().map(|(group, known)| known.state(*group)).collect(),
        losses: losses.collect(),
        damage: scan.verdict.damage,
        harmless: scan.verdict.healed,
    }
}

/// Cuts every damaged group at its hole, for good: nothing behind it is replayed. `accept` is shown
/// the exact ranges first; `false` leaves everything as it is. Returns what was given up.
///
/// The groups go on at the index they keep; their commit index is held down to it, their promises
/// are kept. Whoever runs the groups must begin a new term and tell writers of the loss.
pub fn repair(
    disk: Arc<dyn Disk>,
    settings: LogSettings,
    clock: Arc<dyn Clock>,
    rng: Rng,
    accept: impl FnOnce(&Inspection) -> bool,
) -> Result<Vec<LostRange>, OpenError> {
    let found = inspect(&*disk)?;
    if found.losses.is_empty() || !accept(&found) {
        return Ok(Vec::new());
    }
    let settings = LogSettings { damage: DamagePolicy::AcceptLoss, ..settings };
    // Opening writes the cut into the table of a fresh file and makes it durable.
    Log::open(disk, settings, clock, rng)?;
    Ok(found.losses)
}
