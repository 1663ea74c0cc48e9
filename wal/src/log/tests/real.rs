//! The log on a real disk.

use std::sync::Arc;

use common::{ByteSize, GroupId, LogIndex, Rng, SystemClock, Term};

use super::harness::small;
use crate::test_directory::test_directory;
use crate::*;

fn open(path: &std::path::Path, settings: &LogSettings) -> (Log, Recovered) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(path, false).unwrap());
    Log::open(disk, settings.clone(), SystemClock::shared(), Rng::from_seed(1)).unwrap()
}

fn write(log: &Log) {
    while let Some(mut write) = log.begin_write() {
        let result = write.perform();
        log.finish_write(write, result).unwrap();
    }
}

#[test]
fn entries_survive_rolling_recycling_and_reopening_on_a_real_disk() {
    let directory = test_directory();
    let settings = LogSettings { file_size: ByteSize::kib(128), ..small() };
    let (mut log, _) = open(directory.path(), &settings);
    let group = GroupId(4);
    let data: Vec<u8> = (0..6_000).map(|at| at as u8).collect();
    for index in 1..=200 {
        let entries = [EntryRef {
            index: LogIndex(index),
            term: Term(index / 50),
            kind: 0,
            context: &data[..index as usize],
            data: &data[index as usize..],
        }];
        let truncate = (index > 30 && index % 10 == 0).then(|| Truncated {
            index: LogIndex(index - 30),
            term: log.term(group, LogIndex(index - 30)).unwrap(),
        });
        let batch = Batch { group, entries: &entries, truncate, ..Batch::default() };
        log.append(&batch).unwrap();
        write(&log);
        while log.prepare_files().unwrap() != Prepared::Idle {}
        if index % 67 == 0 {
            drop(log);
            log = open(directory.path(), &settings).0;
        }
    }
    let read = log.read(group, LogIndex(171), LogIndex(201), usize::MAX).unwrap();
    assert_eq!(read.len(), 30);
    for entry in read {
        assert_eq!([&entry.context[..], &entry.data[..]].concat(), data);
        assert_eq!(entry.context.len() as u64, entry.index.0);
    }
    drop(log);
    let (_, recovered) = open(directory.path(), &settings);
    assert_eq!(recovered.groups[0].first, LogIndex(171));
    assert_eq!(recovered.torn_bytes, 0);
}

#[test]
fn a_second_process_would_be_told_that_the_directory_is_in_use() {
    let directory = test_directory();
    let (_log, _) = open(directory.path(), &small());
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(directory.path(), false).unwrap());
    let again = Log::open(disk, small(), SystemClock::shared(), Rng::from_seed(1));
    let Err(OpenError::Io { operation: "lock", source }) = again else { panic!("opened twice") };
    assert!(source.to_string().contains("in use by another process"), "{source}");
}
