//! The log's planted bugs: each is caught by a check that passes without it.

use std::sync::Arc;

use common::clock::ManualClock;
use common::{ByteSize, GroupId, LogIndex, Rng, Term, planted};
use wal::{
    Batch, Disk, EntryRef, Log, LogEntry, LogSettings, OpenError, Prepared, SimDisk, Truncated,
};

const GROUP: GroupId = GroupId(1);

fn open(disk: &SimDisk) -> Result<Log, OpenError> {
    let settings = LogSettings {
        budget: ByteSize::kib(32 * 16),
        file_size: ByteSize::kib(32),
        entry_max: ByteSize::kib(16),
        files_ahead: 1,
        block_size: ByteSize::kib(8),
        ..LogSettings::default()
    };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Ok(Log::open(disk, settings, Arc::new(ManualClock::default()), Rng::from_seed(7))?.0)
}

fn write(log: &Log) {
    while let Some(mut write) = log.begin_seal() {
        let result = write.perform();
        log.finish_write(write, result).unwrap();
    }
    while log.prepare_files().unwrap() != Prepared::Idle {}
}

/// Appends an entry of two sectors and writes it.
fn append(log: &Log, index: u64, truncate: Option<u64>) {
    let data = vec![index as u8; 5_000];
    let entries =
        [EntryRef { index: LogIndex(index), term: Term(1), kind: 0, context: b"", data: &data }];
    let truncate = truncate.map(|index| Truncated { index: LogIndex(index), term: Term(1) });
    log.append(&Batch { group: GROUP, entries: &entries, truncate, ..Batch::default() }).unwrap();
    let mut block = log.begin_write().unwrap();
    let result = block.perform();
    log.finish_write(block, result).unwrap();
}

fn read(log: &Log) -> Vec<LogEntry> {
    let beyond = LogIndex(log.last_index(GROUP).0 + 1);
    log.read(GROUP, log.first_index(GROUP), beyond, usize::MAX).unwrap()
}

/// Acknowledged data that rots is never taken for a torn tail.
fn rot_is_named() -> bool {
    let disk = SimDisk::new(Rng::from_seed(1));
    let log = open(&disk).unwrap();
    (1..=2).for_each(|index| append(&log, index, None));
    write(&log);
    drop(log);
    let name = disk.list().unwrap().into_iter().find(|name| name.ends_with(".wal")).unwrap();
    // The table takes the sector behind the header; the second entry's block comes two later.
    disk.flip_bit(&name, 4_096 * 4 + 500, 1);
    matches!(open(&disk), Err(OpenError::Damaged { .. }))
}

/// A file that comes round again shows nothing of its earlier life, wherever the log stops.
fn reopening_shows_what_was_written() -> bool {
    let disk = SimDisk::new(Rng::from_seed(1));
    let mut log = open(&disk).unwrap();
    write(&log);
    for index in 1..=40 {
        append(&log, index, (index > 4).then(|| index - 4));
        while log.prepare_files().unwrap() != Prepared::Idle {}
        if index < 25 {
            continue;
        }
        let before = read(&log);
        let copy = disk.fork();
        copy.restart();
        match open(&copy) {
            Ok(log) if read(&log) == before => {}
            _ => return false,
        }
    }
    write(&log);
    let before = read(&log);
    drop(log);
    log = open(&disk).unwrap();
    read(&log) == before
}

#[test]
fn a_torn_tail_cut_although_a_later_block_proves_it_is_caught() {
    assert!(rot_is_named());
    let _bug = planted::plant("proven-tail-cut");
    assert!(!rot_is_named());
}

#[test]
fn stale_bytes_of_a_recycled_file_taken_for_blocks_are_caught() {
    assert!(reopening_shows_what_was_written());
    let _bug = planted::plant("recycled-block-accepted");
    assert!(!reopening_shows_what_was_written());
}
