//! Opening: recover, decide about damage, and find the place for the next block.
//!
//! Where the newest file ends with a sealing block, blocks go on behind it: the seal was the last
//! write, and it vouches for all before. Any other tail is never appended to: torn bytes, or
//! blocks that look valid behind them, can then never come back. A fresh file's first record, the
//! group table, says where the file before ended and holds everything that is known of each group,
//! and it is durable before anything is served. Crashing anywhere in here and opening again leads
//! to the same log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use common::{Clock, GroupId, Rng};

use super::{Demand, Log, Making, Moving, Shared, State, files::usable};
use crate::files::{
    FIRST_BLOCK, Live, LogFile, STORE_DRAFT, STORE_NAME, Spare, file_sequence, spare_name,
    spare_number,
};
use crate::format::{PreviousFile, encode_store_id};
use crate::group::Group;
use crate::recovery::bridge::{Accepted, accept};
use crate::recovery::replay::Verdict;
use crate::recovery::{Scan, ScannedFile, io_error, scan};
use crate::settings::RESERVED_FILES;
use crate::{
    AlignedBuf, DamagePolicy, Disk, DiskLock, LogSettings, OpenError, Recovered, SECTOR_BYTES,
    SavedStates,
};

/// A file is gone on with if one of so many parts of it is free: the first blocks of a start need
/// room at once, before files were made ahead.
const GOES_ON_WITH: u64 = 4;

impl Log {
    /// Recovers the log of a directory, or makes a new one, and locks it.
    pub fn open(
        disk: Arc<dyn Disk>,
        settings: LogSettings,
        clock: Arc<dyn Clock>,
        rng: Rng,
    ) -> Result<(Log, Recovered), OpenError> {
        Self::recover(disk, settings, clock, rng, &SavedStates::new())
    }

    /// [`Log::open`] that knows up to where groups are saved, for when their losses are accepted.
    pub(crate) fn recover(
        disk: Arc<dyn Disk>,
        settings: LogSettings,
        clock: Arc<dyn Clock>,
        mut rng: Rng,
        saved: &SavedStates,
    ) -> Result<(Log, Recovered), OpenError> {
        settings.check()?;
        let lock = disk.lock().map_err(io_error("lock"))?;
        let mut scan = scan(&*disk, settings.store_id)?;
        let repaired = judge(&mut scan, settings.damage, saved)?;
        sync_what_was_read(&*disk, &scan)?;
        let store_id = scan.store_id.or(settings.store_id).unwrap_or_else(|| rng.u128());
        let mut opening = Opening { disk, settings, store_id, making: Making::default() };
        opening.clear_leftovers(&scan)?;
        let spares = opening.take_spares(&mut scan)?;
        let recovered = recovered(&scan, store_id);
        let identified = scan.has_identity_file && scan.store_id.is_some();
        let (disk, had_file) = (opening.disk.clone(), scan.has_identity_file);
        let log = opening.start(scan, spares, clock, rng, lock, &repaired)?;
        if !identified {
            write_store_id(&*disk, store_id, had_file).map_err(io_error("write the identity"))?;
        }
        Ok((log, recovered))
    }
}

/// The groups whose loss was accepted.
#[derive(Debug, Default)]
struct Repaired {
    cut: BTreeSet<GroupId>,
    bridged: BTreeSet<GroupId>,
}

/// Applies the policy to what is damaged.
fn judge(
    scan: &mut Scan,
    policy: DamagePolicy,
    saved: &SavedStates,
) -> Result<Repaired, OpenError> {
    for healed in &scan.verdict.healed {
        tracing::warn!(%healed, "a damaged part of the log holds nothing that is still needed");
    }
    if scan.verdict.losses.is_empty() {
        return Ok(Repaired::default());
    }
    match policy {
        DamagePolicy::Refuse => Err(OpenError::Damaged { damage: scan.verdict.damage.clone() }),
        DamagePolicy::Quarantine => {
            for damage in &scan.verdict.damage {
                tracing::error!(%damage, "acknowledged data is damaged; its groups are quarantined");
            }
            Ok(Repaired::default())
        }
        DamagePolicy::AcceptLoss => accept_losses(&mut scan.verdict, saved),
    }
}

fn accept_losses(verdict: &mut Verdict, saved: &SavedStates) -> Result<Repaired, OpenError> {
    let mut repaired = Repaired::default();
    for loss in &verdict.losses {
        let Some(kept) = verdict.groups.get_mut(&loss.group) else { continue };
        match accept(loss, kept, saved)? {
            Accepted::Cut => {
                kept.quarantined = None;
                repaired.cut.insert(loss.group);
            }
            Accepted::Bridged(bridged) => {
                *kept = bridged.group;
                repaired.bridged.insert(loss.group);
            }
        }
    }
    Ok(repaired)
}

/// What was read may be in a cache only: it must not vanish after somebody was told of it.
fn sync_what_was_read(disk: &dyn Disk, scan: &Scan) -> Result<(), OpenError> {
    for file in &scan.files {
        file.handle.sync().map_err(io_error("sync a log file"))?;
    }
    disk.sync_dir().map_err(io_error("sync the directory"))
}

fn recovered(scan: &Scan, store_id: u128) -> Recovered {
    let groups = &scan.verdict.groups;
    Recovered {
        store_id,
        groups: groups.iter().map(|(group, known)| known.state(*group)).collect(),
        torn_bytes: scan.torn_bytes,
        damage: scan.verdict.damage.clone(),
    }
}

/// The identity file comes last: once it is there, a directory without log files is an error.
fn write_store_id(disk: &dyn Disk, store_id: u128, replace: bool) -> std::io::Result<()> {
    let mut sector = AlignedBuf::zeroed(SECTOR_BYTES);
    encode_store_id(store_id, &mut sector);
    let file = disk.create(STORE_DRAFT)?;
    file.write_at(0, &sector)?;
    file.sync()?;
    if replace {
        disk.remove(STORE_NAME)?;
    }
    disk.rename(STORE_DRAFT, STORE_NAME)?;
    disk.sync_dir()
}

/// The parts of a log that is being opened.
struct Opening {
    disk: Arc<dyn Disk>,
    settings: LogSettings,
    store_id: u128,
    making: Making,
}

impl Opening {
    /// Removes files that were being made when the process ended.
    fn clear_leftovers(&self, scan: &Scan) -> Result<(), OpenError> {
        for name in &scan.unfinished {
            self.disk.remove(name).map_err(io_error("remove an unfinished file"))?;
        }
        Ok(())
    }

    /// The spares, and the files behind the last block, which become spares.
    fn take_spares(&mut self, scan: &mut Scan) -> Result<VecDeque<Spare>, OpenError> {
        let numbers = scan.spares.iter().filter_map(|name| spare_number(name));
        self.making.next_number = numbers.max().unwrap_or(0) + 1;
        let last = scan.files.last().map_or(0, |file| file.header.sequence);
        let mut names = std::mem::take(&mut scan.spares);
        for name in &scan.empty {
            if file_sequence(name).is_some_and(|sequence| sequence > last) {
                let spare = spare_name(self.making.next_number);
                self.making.next_number += 1;
                self.disk.rename(name, &spare).map_err(io_error("rename a file"))?;
                names.push(spare);
            } else {
                tracing::warn!(file = name, "a file that is no part of the log stays behind");
            }
        }
        let mut spares = VecDeque::new();
        for name in names {
            let handle = self.disk.open(&name).map_err(io_error("open a spare file"))?;
            let size = handle.len().map_err(io_error("read a spare file"))?;
            if usable(&self.settings, size) {
                spares.push_back(Spare { name, handle, size });
            } else {
                self.disk.remove(&name).map_err(io_error("remove a spare file"))?;
            }
        }
        // The budget may have been larger once. What a start needs, and what a full log needs to
        // become empty, stays.
        let paid = self.settings.files_max().saturating_sub(scan.files.len());
        while spares.len() > paid.max(RESERVED_FILES + 1)
            && let Some(spare) = spares.pop_back()
        {
            self.disk.remove(&spare.name).map_err(io_error("remove a spare file"))?;
        }
        self.disk.sync_dir().map_err(io_error("sync the directory"))?;
        Ok(spares)
    }

    fn start(
        mut self,
        scan: Scan,
        mut spares: VecDeque<Spare>,
        clock: Arc<dyn Clock>,
        mut rng: Rng,
        lock: DiskLock,
        repaired: &Repaired,
    ) -> Result<Log, OpenError> {
        let start = if goes_on(&scan, &self.settings) {
            Start::behind(&scan)
        } else {
            let spare = match spares.pop_front() {
                Some(spare) => spare,
                None => {
                    let size = self.settings.file_size.bytes();
                    let made = self.making.make_now(&*self.disk, size);
                    made.map_err(io_error("make a log file"))?
                }
            };
            let newest = scan.files.last().map_or(0, |file| file.header.sequence);
            let fresh = LogFile::from_spare(spare, self.store_id, newest + 1, rng.u64());
            fresh.activate(&*self.disk).map_err(io_error("begin a log file"))?;
            Start::afresh(&scan, fresh)
        };
        let holders = scan.verdict.groups.values().filter(|group| group.bytes > 0).count();
        let state = State {
            groups: scan.verdict.groups,
            files: start.files,
            next: None,
            spares,
            freed: VecDeque::new(),
            unfinished: 0,
            demand: Demand::default(),
            disk_full: false,
            tail: start.tail,
            open: None,
            closed: VecDeque::new(),
            outstanding: None,
            last_seq: scan.last_block,
            durable: scan.last_block,
            leaving: VecDeque::new(),
            moving: Moving::default(),
            holders,
            sealed: start.table.is_none(),
            last_block_at: clock.monotonic(),
            buffers: Vec::new(),
            touched: Vec::new(),
            scratch: Vec::new(),
            rng,
            stopped: None,
        };
        let log = Log {
            shared: Arc::new(Shared {
                disk: self.disk,
                settings: self.settings,
                clock,
                store_id: self.store_id,
                state: Mutex::new(state),
                making: Mutex::new(self.making),
                _lock: lock,
            }),
        };
        if let Some(previous) = start.table {
            log.write_first_table(previous, repaired)?;
        }
        // Behind those at the other end that the table's block has freed.
        log.state().freed.extend(start.superseded);
        log.recycle_superseded()?;
        Ok(log)
    }
}

impl Log {
    /// Takes back what the first table, which is durable now, has made useless. Whatever fails behind
    /// the start of the log, the next start finds no more files than this one did.
    fn recycle_superseded(&self) -> Result<(), OpenError> {
        let mut making = self.making();
        loop {
            let others_have_room = self.others_have_room();
            let next = self.to_recycle(&self.state(), others_have_room);
            let Some((file, keep)) = next else { return Ok(()) };
            let recycled = self.recycle(&file, keep, &mut making);
            recycled.map_err(io_error("recycle a log file"))?;
        }
    }

    fn write_first_table(
        &self,
        previous: PreviousFile,
        repaired: &Repaired,
    ) -> Result<(), OpenError> {
        {
            let mut state = self.state();
            state.open_block(&self.shared.settings);
            state.put_table(previous, |row| {
                row.cut = repaired.cut.contains(&row.group);
                row.bridged = repaired.bridged.contains(&row.group);
            });
        }
        let mut write = self.begin_write().expect("a table was just put into a block");
        let result = write.perform();
        let failed =
            result.as_ref().err().map(|error| std::io::Error::new(error.kind(), error.to_string()));
        let finished = self.finish_write(write, result);
        match (finished, failed) {
            (_, Some(source)) => Err(OpenError::Io { operation: "write the group table", source }),
            (Err(stopped), None) => Err(OpenError::Io {
                operation: "write the group table",
                source: std::io::Error::other(stopped),
            }),
            (Ok(_), None) => Ok(()),
        }
    }
}

/// Where an opened log begins to write.
struct Start {
    /// The last one takes the blocks.
    files: VecDeque<Arc<LogFile>>,
    tail: u64,
    /// Where the file before ended, for the table that a fresh file begins with.
    table: Option<PreviousFile>,
    /// Files at the end that hold nothing but states, which that table repeats. They go newest
    /// first, so that no crash leaves a gap between others.
    superseded: VecDeque<Arc<LogFile>>,
}

impl Start {
    fn afresh(scan: &Scan, fresh: Arc<LogFile>) -> Start {
        let (kept, superseded) = scan.files.split_at(needed(scan));
        let table = kept.last().map_or_else(PreviousFile::default, |file| PreviousFile {
            file: file.header.sequence,
            end: file.end,
            block: file.last_block,
        });
        let live = live_entries(&scan.verdict.groups);
        let mut files: VecDeque<_> = kept.iter().map(|file| existing(file, &live)).collect();
        files.push_back(fresh);
        let superseded = superseded.iter().rev().map(|file| existing(file, &live)).collect();
        Start { files, tail: FIRST_BLOCK, table: Some(table), superseded }
    }

    fn behind(scan: &Scan) -> Start {
        let live = live_entries(&scan.verdict.groups);
        let files = scan.files.iter().map(|file| existing(file, &live)).collect();
        let tail = scan.files.last().map_or(FIRST_BLOCK, |file| file.end);
        Start { files, tail, table: None, superseded: VecDeque::new() }
    }
}

/// Whether blocks go on in the newest file. Its last block must be a sealing one with nothing begun
/// behind it, and there must be nothing that a fresh file's table would have to say or let go.
fn goes_on(scan: &Scan, settings: &LogSettings) -> bool {
    let Some(newest) = scan.files.last() else { return false };
    let verdict = &scan.verdict;
    let whole = verdict.damage.is_empty()
        && verdict.healed.is_empty()
        && verdict.losses.is_empty()
        && !newest.header_damaged;
    let frees_nothing = needed(scan) + 1 >= scan.files.len();
    let room = newest.size - newest.end >= newest.size / GOES_ON_WITH;
    let fits = usable(settings, newest.size) && room;
    whole && newest.sealed && !newest.torn && frees_nothing && fits
}

/// How many of the files hold more than states.
fn needed(scan: &Scan) -> usize {
    scan.files.iter().rposition(|file| file.changes_entries).map_or(0, |at| at + 1)
}

fn existing(file: &ScannedFile, live: &BTreeMap<u64, Live>) -> Arc<LogFile> {
    let held = live.get(&file.header.sequence).copied().unwrap_or_default();
    LogFile::existing(file.handle.clone(), &file.header, file.size, held, file.first_block)
}

fn live_entries(groups: &BTreeMap<GroupId, Group>) -> BTreeMap<u64, Live> {
    let mut live: BTreeMap<u64, Live> = BTreeMap::new();
    for place in groups.values().flat_map(Group::places) {
        let held = live.entry(u64::from(place.file)).or_default();
        held.entries += 1;
        held.bytes += place.copy_bytes();
    }
    live
}
