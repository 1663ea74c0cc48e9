//! What a log directory holds, as data, and giving up what it has lost: the library behind
//! `braid wal inspect` and `braid wal repair`.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Clock, GroupId, LogIndex, Rng};

use crate::files::file_name;
use crate::recovery::bridge::{Accepted, accept};
use crate::recovery::replay::Loss;
use crate::recovery::{Scan, scan};
use crate::{
    BlockSeq, Damage, DamagePolicy, Disk, GroupState, Log, LogSettings, LostEntries, OpenError,
    Saved,
};

/// What there is of groups outside the log.
#[derive(Debug, Clone, Default)]
pub struct SavedStates {
    states: BTreeMap<GroupId, Saved>,
    archives: BTreeMap<GroupId, Saved>,
}

impl SavedStates {
    pub fn new() -> Self {
        Self::default()
    }

    /// The group's state is saved up to here.
    pub fn insert(&mut self, group: GroupId, saved: Saved) {
        self.states.insert(group, saved);
    }

    /// The group is archived up to here, elsewhere: whoever runs it can bring it back from there,
    /// state and bytes.
    pub fn insert_archive(&mut self, group: GroupId, end: Saved) {
        self.archives.insert(group, end);
    }

    pub(crate) fn state(&self, group: GroupId) -> Option<Saved> {
        self.states.get(&group).copied()
    }

    pub(crate) fn archive(&self, group: GroupId) -> Option<Saved> {
        self.archives.get(&group).copied()
    }
}

impl<const N: usize> From<[(GroupId, Saved); N]> for SavedStates {
    fn from(states: [(GroupId, Saved); N]) -> Self {
        states.into_iter().collect()
    }
}

impl FromIterator<(GroupId, Saved)> for SavedStates {
    fn from_iter<I: IntoIterator<Item = (GroupId, Saved)>>(states: I) -> Self {
        Self { states: states.into_iter().collect(), ..Self::default() }
    }
}

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
    /// The entries before it stay.
    pub first: LogIndex,
    /// One below `first` where records are missing but no entry is known to be.
    pub last: LogIndex,
    pub behind: Behind,
    pub reason: String,
}

/// What becomes of what lies behind a lost range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// It is lost as well, also what nothing tells of: nothing is replayed across a hole.
    Lost,
    /// It stays: the group's saved state includes what the lost entries did.
    Kept,
    /// It stays, and nothing is lost: the entries are archived elsewhere.
    Archived,
}

/// Reads a log directory without changing it. While a process writes to it, the block under way
/// shows as torn. `saved` tells which losses a saved state covers.
pub fn inspect(disk: &dyn Disk, saved: &SavedStates) -> Result<Inspection, OpenError> {
    report(scan(disk, None)?, saved)
}

fn report(scan: Scan, saved: &SavedStates) -> Result<Inspection, OpenError> {
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
    let groups = &scan.verdict.groups;
    let mut losses = Vec::new();
    for loss in &scan.verdict.losses {
        let accepted = accept(loss, &groups[&loss.group], saved)?;
        let archived = saved.archive(loss.group).map_or(LogIndex(0), |end| end.index);
        losses.extend(lost_ranges(loss, &accepted, archived));
    }
    Ok(Inspection {
        store_id: scan.store_id,
        files: files.collect(),
        spares: scan.spares.clone(),
        empty: scan.empty.iter().chain(&scan.unfinished).cloned().collect(),
        last_block: scan.last_block,
        torn_bytes: scan.torn_bytes,
        groups: groups.iter().map(|(group, known)| known.state(*group)).collect(),
        losses,
        damage: scan.verdict.damage,
        harmless: scan.verdict.healed,
    })
}

/// The ranges of a loss in order, at least one, of a group that is archived so far.
fn lost_ranges(loss: &Loss, accepted: &Accepted, archived: LogIndex) -> Vec<LostRange> {
    let range = |first, last, behind| LostRange {
        group: loss.group,
        first,
        last,
        behind,
        reason: loss.reason.clone(),
    };
    let next = LogIndex(loss.kept.0 + 1);
    let Accepted::Bridged(bridged) = accepted else {
        return vec![range(next, loss.seen, Behind::Lost)];
    };
    let mut ranges = Vec::new();
    for LostEntries { first, last, .. } in bridged.lost.iter().copied() {
        if first <= archived {
            ranges.push(range(first, last.min(archived), Behind::Archived));
        }
        if last > archived {
            ranges.push(range(first.max(LogIndex(archived.0 + 1)), last, Behind::Kept));
        }
    }
    if ranges.is_empty() {
        ranges.push(range(next, loss.kept, Behind::Kept));
    }
    if !bridged.goes_on {
        match ranges.last_mut() {
            Some(newest) if newest.behind == Behind::Kept => newest.behind = Behind::Lost,
            _ => {
                let end = bridged.group.last;
                ranges.push(range(LogIndex(end.0 + 1), loss.seen.max(end), Behind::Lost));
            }
        }
    }
    ranges
}

/// Gives up what damaged groups have lost, for good. `accept` is shown the exact ranges first;
/// `false` leaves everything as it is. Returns what was given up.
///
/// A group whose state is saved beyond its hole (`saved`) keeps all of its log but the holes:
/// nothing below its saved state is replayed. Of one that is archived beyond its hole, and further
/// than it is saved, the log begins anew behind what is archived: up to there it has to be brought
/// back. Any other is cut at its hole: nothing behind it is replayed. In all cases the log reaches as
/// far as the saved state does. The groups go on at the
/// index they keep; their commit index is held down to it, their promises are kept. Whoever runs
/// the groups must begin a new term and tell writers of the loss.
pub fn repair(
    disk: Arc<dyn Disk>,
    settings: LogSettings,
    clock: Arc<dyn Clock>,
    rng: Rng,
    saved: &SavedStates,
    accept: impl FnOnce(&Inspection) -> bool,
) -> Result<Vec<LostRange>, OpenError> {
    let found = inspect(&*disk, saved)?;
    if found.losses.is_empty() || !accept(&found) {
        return Ok(Vec::new());
    }
    let settings = LogSettings { damage: DamagePolicy::AcceptLoss, ..settings };
    // Opening writes what is accepted into the table of a fresh file and makes it durable.
    Log::recover(disk, settings, clock, rng, saved)?;
    Ok(found.losses)
}
