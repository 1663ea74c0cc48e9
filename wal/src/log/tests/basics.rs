//! Appending and reading, without anything going wrong.

use std::sync::Arc;

use common::{ByteSize, GroupId, LogIndex, Term};

use super::harness::{Step, World, small};
use crate::*;

const G: GroupId = GroupId(1);

fn entry<'a>(index: u64, term: u64, context: &'a [u8], data: &'a [u8]) -> EntryRef<'a> {
    EntryRef { index: LogIndex(index), term: Term(term), kind: 3, context, data }
}

fn flush(log: &Log) -> BlockSeq {
    let mut durable = log.durable();
    while let Some(mut write) = log.begin_write() {
        let result = write.perform();
        durable = log.finish_write(write, result).unwrap();
    }
    durable
}

#[test]
fn an_entry_comes_back_as_it_was_before_and_after_it_is_durable() {
    let world = World::opened(small());
    let log = world.log();
    let entries = [entry(1, 1, b"head", b"payload"), entry(2, 1, b"", b""), entry(3, 2, b"x", b"")];
    let seq = log.append(&Batch { group: G, entries: &entries, ..Batch::default() }).unwrap();
    for durable in [false, true] {
        let read = log.read(G, LogIndex(1), LogIndex(4), usize::MAX).unwrap();
        assert_eq!(read.len(), 3, "durable: {durable}");
        assert_eq!((&read[0].context[..], &read[0].data[..]), (&b"head"[..], &b"payload"[..]));
        assert_eq!((read[2].term, read[2].kind, &read[2].context[..]), (Term(2), 3, &b"x"[..]));
        assert!(durable || log.durable() < seq);
        flush(log);
    }
    assert_eq!(log.durable(), seq);
    assert_eq!((log.first_index(G), log.last_index(G)), (LogIndex(1), LogIndex(3)));
    assert_eq!(log.term(G, LogIndex(3)).unwrap(), Term(2));
    assert_eq!(log.term(G, LogIndex(0)).unwrap(), Term(0));
}

#[test]
fn an_entry_of_an_issued_block_is_read_while_the_disk_works_on_it() {
    let world = World::opened(small());
    let log = world.log();
    let entries = [entry(1, 1, b"a", b"b")];
    log.append(&Batch { group: G, entries: &entries, ..Batch::default() }).unwrap();
    let mut write = log.begin_write().unwrap();
    assert!(log.begin_write().is_none(), "one write is outstanding at a time");
    assert_eq!(log.read(G, LogIndex(1), LogIndex(2), 1).unwrap()[0].data, "b");
    let next = [entry(2, 1, b"", b"second")];
    let second = log.append(&Batch { group: G, entries: &next, ..Batch::default() }).unwrap();
    assert!(second > write.seq());
    let result = write.perform();
    assert!(log.finish_write(write, result).unwrap() < second);
    assert_eq!(flush(log), second);
}

#[test]
fn what_cannot_be_read_is_told_apart() {
    let mut world = World::opened(small());
    world
        .run(&[
            Step::Append { group: 1, back: 0, count: 9, bytes: 10 },
            Step::Truncate { group: 1, keep: 4 },
            Step::Write,
        ])
        .unwrap();
    let log = world.log();
    let read = |group, low, high| {
        log.read(GroupId(group), LogIndex(low), LogIndex(high), usize::MAX).unwrap_err()
    };
    assert!(matches!(read(1, 5, 7), ReadError::Truncated { first: LogIndex(6), .. }));
    assert!(matches!(read(1, 8, 11), ReadError::BeyondEnd { last: LogIndex(9), .. }));
    assert!(matches!(read(2, 1, 2), ReadError::UnknownGroup(GroupId(2))));
    assert_eq!(log.term(G, LogIndex(5)).unwrap(), Term(1));
    assert!(matches!(log.term(G, LogIndex(4)), Err(ReadError::Truncated { .. })));
    assert!(matches!(log.term(G, LogIndex(10)), Err(ReadError::BeyondEnd { .. })));
    assert!(log.read(G, LogIndex(6), LogIndex(6), 0).unwrap().is_empty());
}

#[test]
fn a_read_returns_at_least_one_entry_and_stops_at_its_limit() {
    let mut world = World::opened(small());
    let step = Step::Append { group: 1, back: 0, count: 10, bytes: 1_000 };
    world.run(&[step, Step::Write]).unwrap();
    let count = |limit| {
        world.log().read(G, LogIndex(1), LogIndex(11), limit).map(|read| read.len()).unwrap()
    };
    assert_eq!([count(0), count(1_000), count(3_500), count(1 << 20)], [1, 1, 3, 10]);
}

#[test]
fn entries_among_those_of_another_group_do_not_keep_them_in_memory() {
    let mut world = World::opened(small());
    let alone = Step::Append { group: 1, back: 0, count: 4, bytes: 3_000 };
    world.run(&[alone, Step::Write]).unwrap();
    for _ in 0..4 {
        let rare = Step::Append { group: 2, back: 0, count: 1, bytes: 100 };
        let frequent = Step::Append { group: 1, back: 0, count: 4, bytes: 3_000 };
        world.run(&[rare, frequent, Step::Write]).unwrap();
    }
    let own_memory = |group| {
        let read = world.log().read(GroupId(group), LogIndex(1), LogIndex(5), usize::MAX).unwrap();
        let data: Vec<_> = read.into_iter().map(|entry| entry.data).collect();
        data.iter().filter(|data| data.is_unique()).count()
    };
    assert_eq!(own_memory(1), 0, "side by side: as they were read");
    assert_eq!(own_memory(2), 4);
}

#[test]
fn groups_and_all_kinds_of_records_survive_a_clean_restart() {
    let mut world = World::opened(small());
    world
        .run(&[
            Step::Append { group: 1, back: 0, count: 5, bytes: 300 },
            Step::Append { group: 2, back: 0, count: 2, bytes: 3_000 },
            Step::HardState { group: 1, vote: 7 },
            Step::Write,
            Step::Conf { group: 2 },
            Step::Append { group: 1, back: 2, count: 1, bytes: 30 },
            Step::Truncate { group: 1, keep: 2 },
            Step::Reset { group: 3, ahead: 17 },
            Step::Append { group: 3, back: 0, count: 2, bytes: 40 },
            Step::Append { group: 4, back: 0, count: 2, bytes: 40 },
            Step::Tombstone { group: 4 },
            Step::Write,
            Step::Reopen,
            Step::Append { group: 3, back: 1, count: 4, bytes: 40 },
            Step::Reopen,
            Step::Reopen,
        ])
        .unwrap();
    assert_eq!(world.model.len(), 4);
    world.check_live();
}

#[test]
fn the_newest_commit_index_rides_in_the_next_block_that_touches_the_group() {
    let mut world = World::opened(small());
    let three = Step::Append { group: 1, back: 0, count: 3, bytes: 10 };
    world.run(&[three, Step::Write]).unwrap();
    world.log().note_commit(G, LogIndex(3));
    assert!(world.log().begin_write().is_none(), "a commit index alone is no reason to write");
    world.run(&[Step::Append { group: 1, back: 0, count: 1, bytes: 10 }, Step::Write]).unwrap();
    let recovered = world.open().unwrap();
    assert_eq!(recovered.groups[0].hard_state.commit, LogIndex(3));
}

#[test]
fn a_batch_larger_than_a_block_is_split_and_its_commit_never_runs_ahead() {
    let mut world = World::opened(LogSettings { file_size: ByteSize::kib(128), ..small() });
    let data = vec![9; 6_000];
    let entries: Vec<EntryRef<'_>> = (1..=40).map(|index| entry(index, 1, b"c", &data)).collect();
    let hard_state = HardState { term: Term(1), vote: 1, commit: LogIndex(40) };
    let batch =
        Batch { group: G, entries: &entries, hard_state: Some(hard_state), ..Batch::default() };
    world.prepare().unwrap();
    let seq = world.log().append(&batch).unwrap();
    let mut states = Vec::new();
    while let Some(mut write) = world.log().begin_write() {
        let result = write.perform();
        world.log().finish_write(write, result).unwrap();
        let found = inspect(&world.disk, &SavedStates::new()).unwrap();
        let state = &found.groups[0];
        assert!(state.hard_state.commit <= state.last, "{state:?}");
        assert_eq!(state.hard_state.term, Term(1));
        states.push(state.last);
    }
    assert!(states.len() > 5 && world.log().durable() == seq);
    let recovered = world.open().unwrap();
    assert_eq!(recovered.groups[0].hard_state, hard_state);
    assert_eq!(recovered.groups[0].last, LogIndex(40));
}

#[test]
fn an_entry_that_no_file_can_hold_is_refused_before_anything_changes() {
    let world = World::opened(small());
    let data = vec![1; 70_000];
    let entries = [entry(1, 1, b"", &data)];
    let refused = world.log().append(&Batch { group: G, entries: &entries, ..Batch::default() });
    assert!(matches!(refused, Err(AppendError::TooLarge { .. })), "{refused:?}");
    assert_eq!(world.log().group(G), None);
}

#[test]
#[should_panic(expected = "does not follow the log")]
fn an_entry_that_leaves_a_gap_is_a_bug() {
    let world = World::opened(small());
    let entries = [entry(2, 1, b"", b"")];
    let _ = world.log().append(&Batch { group: G, entries: &entries, ..Batch::default() });
}

#[test]
fn an_idle_log_seals_once_and_then_is_idle() {
    let mut world = World::opened(small());
    world.step(&Step::Append { group: 1, back: 0, count: 1, bytes: 10 }).unwrap();
    world.step(&Step::Write).unwrap();
    let due = world.log().seal_due().unwrap();
    assert!(world.log().begin_write().is_none(), "not before it is due");
    world.clock.advance(std::time::Duration::from_millis(100));
    assert!(common::Clock::monotonic(&*world.clock) >= due);
    let before = world.log().durable();
    assert_eq!(flush(world.log()), before.next());
    world.clock.advance(std::time::Duration::from_secs(3_600));
    assert_eq!((flush(world.log()), world.log().seal_due()), (before.next(), None));
    let seal = inspect(&world.disk, &SavedStates::new()).unwrap();
    assert_eq!(seal.last_block, before.next());
}

#[test]
fn a_clean_stop_seals_at_once() {
    let mut world = World::opened(small());
    world.step(&Step::Append { group: 1, back: 0, count: 1, bytes: 10 }).unwrap();
    world.step(&Step::Write).unwrap();
    let mut write = world.log().begin_seal().unwrap();
    let result = write.perform();
    world.log().finish_write(write, result).unwrap();
    assert!(world.log().begin_seal().is_none());
}

#[test]
fn a_failed_write_is_final() {
    let sim = SimDisk::new(common::Rng::from_seed(1));
    let disk = FaultyDisk::new(Arc::new(sim), |_| ());
    let faults = disk.faults();
    let clock = Arc::new(common::clock::ManualClock::default());
    let rng = common::Rng::from_seed(2);
    let (log, _) = Log::open(Arc::new(disk), small(), clock, rng).unwrap();
    faults.plan_fault(DiskOperation::Write, "", 0, Fault::Error(std::io::ErrorKind::Other));
    let entries = [entry(1, 1, b"", b"x")];
    let batch = Batch { group: G, entries: &entries, ..Batch::default() };
    log.append(&batch).unwrap();
    let mut write = log.begin_write().unwrap();
    let result = write.perform();
    let before = log.durable();
    let stopped = log.finish_write(write, result).unwrap_err();
    assert!(stopped.to_string().contains("restart"), "{stopped}");
    let next = [entry(2, 1, b"", b"x")];
    let refused = log.append(&Batch { group: G, entries: &next, ..Batch::default() });
    assert_eq!(refused, Err(AppendError::Stopped(stopped.clone())));
    assert!(log.begin_write().is_none() && log.begin_seal().is_none() && !log.room());
    assert_eq!((log.durable(), log.prepare_files()), (before, Err(stopped)));
}

#[test]
fn a_stalled_write_is_told_by_its_age() {
    let mut world = World::opened(small());
    world.step(&Step::Append { group: 1, back: 0, count: 1, bytes: 10 }).unwrap();
    let mut write = world.log().begin_write().unwrap();
    let mut seen = Vec::new();
    for seconds in [0, 2, 8, 50] {
        world.clock.advance(std::time::Duration::from_secs(seconds));
        seen.push(world.log().stall());
    }
    assert_eq!(seen, [Stall::None, Stall::Shed, Stall::Unready, Stall::Stop]);
    let result = write.perform();
    world.log().finish_write(write, result).unwrap();
    assert_eq!(world.log().stall(), Stall::None);
}

#[test]
fn room_ends_when_the_open_block_is_full_and_comes_back_with_the_disk() {
    let world = World::opened(LogSettings { block_size: ByteSize::kib(16), ..small() });
    let log = world.log();
    let data = vec![1; 6_000];
    let first = [entry(1, 1, b"", &data)];
    log.append(&Batch { group: G, entries: &first, ..Batch::default() }).unwrap();
    let mut write = log.begin_write().unwrap();
    let more = [entry(2, 1, b"", &data), entry(3, 1, b"", &data)];
    log.append(&Batch { group: G, entries: &more, ..Batch::default() }).unwrap();
    assert!(!log.room());
    let result = write.perform();
    log.finish_write(write, result).unwrap();
    flush(log);
    assert!(log.room());
}

#[test]
fn a_foreign_store_is_refused_by_name() {
    let mut world = World::opened(small());
    let mine = world.log().store_id();
    world.settings.store_id = Some(mine);
    world.open().unwrap();
    world.settings.store_id = Some(mine ^ 1);
    let refused = world.open().unwrap_err();
    assert!(matches!(refused, OpenError::ForeignStore { found, .. } if found == mine), "{refused}");
}

#[test]
fn a_directory_that_lost_its_files_is_not_taken_for_a_new_one() {
    let mut world = World::opened(small());
    world.log = None;
    for name in world.disk.list().unwrap() {
        if name != "store" {
            world.disk.lose_file(&name);
        }
    }
    assert!(matches!(world.open(), Err(OpenError::Missing { .. })));
}

#[test]
fn a_second_log_on_the_directory_is_refused() {
    let world = World::opened(small());
    let clock = Arc::new(common::clock::ManualClock::default());
    let rng = common::Rng::from_seed(2);
    let disk: Arc<dyn Disk> = Arc::new(world.disk.clone());
    let Err(refused) = Log::open(disk, small(), clock, rng) else {
        panic!("two logs on one directory");
    };
    assert!(world.log().room());
    assert!(matches!(refused, OpenError::Io { operation: "lock", .. }), "{refused}");
}

#[test]
fn the_smallest_file_takes_the_largest_entry_beside_the_table() {
    let file_size = ByteSize::kib(12 * 1024 + 8);
    let product = LogSettings { file_size, ..LogSettings::default() };
    assert!(World::new(product.clone(), 1).open().is_ok());
    let file_size = ByteSize(product.file_size.bytes() - SECTOR_BYTES as u64);
    let refused = World::new(LogSettings { file_size, ..product }, 1).open().unwrap_err();
    assert!(refused.to_string().contains("from 12296KiB to 1GiB"), "{refused}");
    for kib in [1, 16, 24, 25, 48, 300] {
        let entry_max = ByteSize::kib(kib);
        let file_size =
            (1..).map(|sectors| ByteSize(sectors * SECTOR_BYTES as u64)).find(|file_size| {
                let (file_size, budget) = (*file_size, ByteSize(file_size.bytes() * 20));
                let block_size = ByteSize::kib(8);
                let settings = LogSettings { file_size, budget, block_size, entry_max, ..small() };
                World::new(settings, 1).open().is_ok()
            });
        let file_size = file_size.unwrap();
        let budget = ByteSize(file_size.bytes() * 20);
        let block_size = ByteSize::kib(8);
        let settings = LogSettings { file_size, budget, block_size, entry_max, ..small() };
        let mut world = World::opened(settings);
        world.step(&Step::Prepare).unwrap();
        for group in 1..=8 {
            let append = Step::Append { group, back: 0, count: 1, bytes: entry_max.as_usize() };
            world.run(&[append, Step::Write, Step::Prepare]).unwrap();
            world.run(&[Step::Conf { group }, Step::Write, Step::Prepare]).unwrap();
        }
        assert_eq!(world.refused, 0, "{file_size}");
        world.check_live();
    }
}

#[test]
fn settings_that_cannot_work_are_refused_with_what_to_write() {
    let cases = [
        LogSettings { file_size: ByteSize(100), ..small() },
        LogSettings { file_size: ByteSize::kib(28), ..small() },
        LogSettings { entry_max: ByteSize::kib(49), ..small() },
        LogSettings { block_size: ByteSize(100), ..small() },
        LogSettings { budget: ByteSize::kib(128), ..small() },
        LogSettings { group_share_percent: 0, ..small() },
    ];
    for settings in cases {
        let refused = World::new(settings, 1).open().unwrap_err().to_string();
        assert!(refused.contains("write "), "{refused}");
    }
}
