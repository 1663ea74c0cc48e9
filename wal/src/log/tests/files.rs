//! Space: made ahead, recycled, shared, short, and given back.

use std::time::Duration;

use common::{ByteSize, GroupId, LogIndex};

use super::harness::{Step, World, small};
use crate::*;

fn append(group: u64, count: usize, bytes: usize) -> Step {
    Step::Append { group, back: 0, count, bytes }
}

fn tiny() -> LogSettings {
    LogSettings {
        file_size: ByteSize::kib(32),
        budget: ByteSize::kib(32 * 10),
        block_size: ByteSize::kib(8),
        group_share_percent: 100,
        ..small()
    }
}

fn wal_files(world: &World) -> usize {
    let names = world.disk.list().unwrap();
    names.iter().filter(|name| name.ends_with(".wal")).count()
}

/// One round that fills about a file and truncates what came before.
fn round(world: &mut World, group: u64) {
    for _ in 0..4 {
        world.run(&[append(group, 1, 5_000), Step::Write]).unwrap();
    }
    let steps = [Step::Truncate { group, keep: 1 }, Step::Write, Step::Prepare];
    world.run(&steps).unwrap();
}

#[test]
fn truncated_files_come_round_and_the_disk_does_not_grow() {
    let mut world = World::opened(tiny());
    world.step(&Step::Prepare).unwrap();
    for _ in 0..5 {
        round(&mut world, 1);
    }
    let files = world.disk.list().unwrap().len();
    for _ in 0..40 {
        round(&mut world, 1);
    }
    assert_eq!((world.disk.list().unwrap().len(), world.refused), (files, 0));
    world.step(&Step::Reopen).unwrap();
    world.check_live();
}

fn spares(world: &World) -> usize {
    let names = world.disk.list().unwrap();
    names.iter().filter(|name| name.starts_with("spare-")).count()
}

/// Fills files without truncating, then truncates and prepares: a cycle of a busy log.
fn cycle(world: &mut World, files: usize) {
    for _ in 0..4 * files {
        world.run(&[append(1, 1, 5_000), Step::Write, Step::Prepare]).unwrap();
    }
    world.run(&[Step::Truncate { group: 1, keep: 1 }, Step::Write, Step::Prepare]).unwrap();
}

#[test]
fn a_busy_log_keeps_the_files_that_a_truncation_frees_and_a_quiet_one_gives_them_back() {
    let budget = ByteSize::kib(32 * 60);
    let mut world = World::opened(LogSettings { budget, ..tiny() });
    cycle(&mut world, 20);
    let kept = spares(&world);
    assert!(kept >= 18, "{kept} spares are kept");
    let files = world.disk.list().unwrap().len();
    cycle(&mut world, 20);
    assert_eq!(world.disk.list().unwrap().len(), files, "a cycle like the last needs no new file");
    for _ in 0..60 {
        cycle(&mut world, 1);
    }
    assert!(spares(&world) <= 8, "{} spares are kept for little traffic", spares(&world));
    assert_eq!(world.refused, 0);
    world.step(&Step::Reopen).unwrap();
    world.check_live();
}

#[test]
fn spares_beyond_the_usual_are_given_back_when_others_need_the_space() {
    let budget = ByteSize::kib(32 * 60);
    let mut world = World::opened(LogSettings { budget, ..tiny() });
    cycle(&mut world, 20);
    let kept = spares(&world);
    assert!(kept >= 18, "{kept} spares are kept");
    // Whatever else is on the disk has grown.
    let file = 32 << 10;
    let taken = world.disk.space().unwrap().free;
    world.disk.set_capacity(u64::MAX - taken + file);
    world.step(&Step::Prepare).unwrap();
    let left = spares(&world);
    assert!(left < kept, "{left} spares are left");
    assert!(world.disk.space().unwrap().free >= 2 * file, "others have what they need");
    cycle(&mut world, 2);
    assert_eq!(world.refused, 0);
    world.step(&Step::Reopen).unwrap();
    world.check_live();
}

#[test]
fn truncation_says_that_it_wants_preparing_until_they_are_taken() {
    let mut world = World::opened(tiny());
    for _ in 0..12 {
        world.run(&[append(1, 1, 5_000), Step::Write, Step::Prepare]).unwrap();
    }
    assert!(!world.log().wants_preparing());
    world.run(&[Step::Truncate { group: 1, keep: 0 }, Step::Write]).unwrap();
    assert!(world.log().wants_preparing());
    world.step(&Step::Prepare).unwrap();
    assert!(!world.log().wants_preparing());
}

#[test]
fn files_are_made_in_a_hurry_only_while_there_are_few() {
    let settings = LogSettings { files_ahead: 4, ..tiny() };
    let sim = SimDisk::new(common::Rng::from_seed(1));
    let clock = std::sync::Arc::new(common::clock::ManualClock::default());
    let rng = common::Rng::from_seed(2);
    let (log, _) = Log::open(std::sync::Arc::new(sim.clone()), settings, clock, rng).unwrap();
    let made = || sim.list().unwrap().iter().filter(|name| !name.starts_with("new-")).count();
    let (mut hurried, mut unhurried) = (0, 0);
    loop {
        let before = made();
        match log.prepare_files().unwrap() {
            Prepared::Idle => break,
            Prepared::More if before == made() => hurried = before,
            Prepared::More => {}
            Prepared::Unhurried => unhurried = before.max(unhurried),
        }
    }
    assert!(hurried < unhurried, "in a hurry up to {hurried}, not at {unhurried}");
    assert_eq!(log.usage().spare, 6 * (32 << 10));
}

#[test]
fn a_pinned_file_is_not_recycled() {
    let mut world = World::opened(tiny());
    world.run(&[append(1, 2, 3_000), Step::Write]).unwrap();
    let pin = world.log().pin(GroupId(1), LogIndex(1)).unwrap();
    assert!(world.log().pin(GroupId(1), LogIndex(9)).is_none());
    round(&mut world, 1);
    round(&mut world, 1);
    let held = wal_files(&world);
    drop(pin);
    world.step(&Step::Prepare).unwrap();
    assert!(wal_files(&world) < held);
}

#[test]
fn truncation_frees_a_file_only_once_it_is_durable() {
    let mut world = World::opened(tiny());
    for _ in 0..6 {
        world.run(&[append(1, 1, 5_000), Step::Write, Step::Prepare]).unwrap();
    }
    let held = wal_files(&world);
    world.run(&[Step::Truncate { group: 1, keep: 0 }, Step::Prepare]).unwrap();
    assert_eq!(wal_files(&world), held);
    world.run(&[Step::Write, Step::Prepare]).unwrap();
    assert!(wal_files(&world) < held);
}

#[test]
fn truncation_frees_no_file_while_its_block_waits_for_the_one_before() {
    let mut world = World::opened(tiny());
    for _ in 0..6 {
        world.run(&[append(1, 1, 5_000), Step::Write, Step::Prepare]).unwrap();
    }
    let held = wal_files(&world);
    world.step(&append(2, 1, 100)).unwrap();
    let mut write = world.log().begin_write().unwrap();
    world.step(&Step::Truncate { group: 1, keep: 0 }).unwrap();
    let result = write.perform();
    world.reported = world.log().finish_write(write, result).unwrap();
    world.step(&Step::Prepare).unwrap();
    assert_eq!(wal_files(&world), held);
    world.disk.crash(CrashOutcome::Lost);
    world.log = None;
    world.disk.restart();
    world.recover();
    assert_eq!(world.model[&GroupId(1)].entries.len(), 6);
}

#[test]
fn a_full_budget_refuses_entries_and_keeps_files_for_what_frees_space() {
    let mut world = World::opened(tiny());
    while world.refused == 0 {
        world.run(&[append(1, 1, 5_000), Step::Write, Step::Prepare]).unwrap();
    }
    let log = world.log();
    let full = Err(AppendError::Full(FullReason::Budget));
    assert_eq!(log.admit(GroupId(1), 5_000, Claim::Client), full);
    assert!(log.room(), "a full log must not keep the worker from hard states");
    assert!(log.usage().used <= log.usage().budget);
    // Promises still go in, through both reserved files if need be.
    for vote in 0..10 {
        world.run(&[Step::HardState { group: 1, vote }, Step::Write, Step::Prepare]).unwrap();
    }
    assert_eq!(world.refused, 1);
    let truncate = Step::Truncate { group: 1, keep: 1 };
    world.run(&[truncate, Step::Write, Step::Prepare]).unwrap();
    world.log().admit(GroupId(1), 5_000, Claim::Client).unwrap();
    world.run(&[append(1, 1, 5_000), Step::Write, Step::Reopen]).unwrap();
    assert_eq!(world.refused, 1);
    world.check_live();
}

#[test]
fn admitted_entries_may_use_all_reserved_files_but_the_last() {
    let mut world = World::opened(tiny());
    while world.refused == 0 {
        world.run(&[append(1, 1, 5_000), Step::Write, Step::Prepare]).unwrap();
    }
    let log = world.log().clone();
    let mut last = log.last_index(GroupId(1));
    let mut add = |world: &mut World, admitted| {
        let entry = EntryRef {
            index: LogIndex(last.0 + 1),
            term: common::Term(1),
            kind: 0,
            context: b"",
            data: &[7; 5_000],
        };
        let entries = &[entry];
        let batch = Batch { group: GroupId(1), entries, admitted, ..Batch::default() };
        let added = log.append(&batch);
        last.0 += u64::from(added.is_ok());
        world.step(&Step::Write).unwrap();
        added.map(|_| last)
    };
    assert_eq!(add(&mut world, false), Err(AppendError::Full(FullReason::Budget)));
    let before = add(&mut world, true).unwrap();
    let mut last = before;
    while let Ok(added) = add(&mut world, true) {
        last = added;
    }
    assert!(last > before, "the file that was begun takes more than one entry");
    assert_eq!(world.log().usage().spare, 32 * 1024, "one file is left");
    // It is there for the record that frees the others.
    let truncate = Some(Truncated { index: last, term: common::Term(1) });
    world.log().append(&Batch { group: GroupId(1), truncate, ..Batch::default() }).unwrap();
    world.run(&[Step::Write, Step::Prepare]).unwrap();
    world.log().admit(GroupId(1), 5_000, Claim::Client).unwrap();
}

/// Appends an entry that was admitted.
fn add(world: &mut World) {
    let log = world.log().clone();
    let (group, term) = (GroupId(1), common::Term(1));
    let index = LogIndex(log.last_index(group).0 + 1);
    let entries = &[EntryRef { index, term, kind: 0, context: b"", data: &[7; 5_000] }];
    log.append(&Batch { group, entries, admitted: true, ..Batch::default() }).unwrap();
    world.run(&[Step::Write, Step::Prepare]).unwrap();
}

/// Appends until the log admits no more; how many files are left then.
fn fill(world: &mut World, claim: Claim) -> u64 {
    while world.log().admit(GroupId(1), 5_000, claim).is_ok() {
        add(world);
    }
    let usage = world.log().usage();
    (usage.budget - usage.used) / (32 << 10)
}

#[test]
fn clients_leave_files_to_what_frees_space_and_that_leaves_two_to_what_archives_it() {
    let mut world = World::opened(LogSettings { budget: ByteSize::kib(32 * 40), ..tiny() });
    assert_eq!(fill(&mut world, Claim::Client), 6);
    let full = Err(AppendError::Full(FullReason::Budget));
    assert_eq!(world.log().admit(GroupId(1), 5_000, Claim::Client), full);
    assert_eq!(fill(&mut world, Claim::FreesSpace), 2);
    assert_eq!(world.log().usage().spare, 2 * (32 << 10), "both are there");
}

#[test]
fn what_is_free_in_a_file_is_for_those_who_were_allowed_to_begin_it() {
    let mut world = World::opened(LogSettings { budget: ByteSize::kib(32 * 40), ..tiny() });
    fill(&mut world, Claim::Client);
    let before = world.log().state().files.len();
    add(&mut world);
    assert_eq!(world.log().state().files.len(), before + 1);
    let full = Err(AppendError::Full(FullReason::Budget));
    assert_eq!(world.log().admit(GroupId(1), 10, Claim::Client), full);
    world.log().admit(GroupId(1), 10, Claim::FreesSpace).unwrap();
    fill(&mut world, Claim::FreesSpace);
    add(&mut world);
    assert_eq!(world.log().admit(GroupId(1), 10, Claim::FreesSpace), full);
}

#[test]
fn one_group_beyond_its_share_is_refused_while_others_go_on() {
    let budget = ByteSize::kib(32 * 16);
    let mut world = World::opened(LogSettings { budget, group_share_percent: 25, ..tiny() });
    // Alone it may have all.
    for _ in 0..26 {
        world.run(&[append(1, 1, 5_000), Step::Write, Step::Prepare]).unwrap();
    }
    world.log().admit(GroupId(1), 5_000, Claim::Client).unwrap();
    assert_eq!(world.log().usage().groups[0].share_permille, 0);
    world.run(&[append(2, 1, 100), Step::Write]).unwrap();
    let refused = world.log().admit(GroupId(1), 5_000, Claim::Client);
    assert_eq!(refused, Err(AppendError::Full(FullReason::GroupShare)));
    world.log().admit(GroupId(2), 5_000, Claim::Client).unwrap();
    let usage = world.log().usage();
    assert_eq!(usage.oldest_held_by, Some(GroupId(1)));
    assert!(usage.groups[0].bytes > 5_000 * 25 && usage.groups[0].files_held > 2);
    let share = budget.bytes() / 100 * 25;
    assert_eq!(usage.groups[0].share_permille, usage.groups[0].bytes * 1_000 / share);
    assert_eq!(usage.groups[1].share_permille, usage.groups[1].bytes * 1_000 / share);
}

#[test]
fn a_full_disk_loses_nothing_and_the_log_digs_itself_out() {
    let mut world = World::opened(tiny());
    world.step(&Step::Prepare).unwrap();
    let files = world.disk.list().unwrap().len() as u64;
    world.disk.set_capacity((files + 3) * 32 * 1024);
    while world.refused == 0 {
        world.run(&[append(1, 1, 5_000), Step::Write, Step::Prepare]).unwrap();
    }
    assert!(world.log().usage().disk_full);
    let refused = world.log().admit(GroupId(1), 5_000, Claim::Client);
    assert_eq!(refused, Err(AppendError::Full(FullReason::Disk)));
    // It starts without a free byte, too.
    world.disk.set_capacity(0);
    world.step(&Step::Reopen).unwrap();
    world.check_live();
    world.run(&[Step::HardState { group: 1, vote: 3 }, Step::Write]).unwrap();
    world.run(&[Step::Truncate { group: 1, keep: 1 }, Step::Write, Step::Prepare]).unwrap();
    world.run(&[append(1, 1, 5_000), Step::Write]).unwrap();
    assert_eq!(world.refused, 1);
    // Space comes back.
    world.disk.set_capacity(u64::MAX);
    world.clock.advance(Duration::from_secs(1));
    world.step(&Step::Prepare).unwrap();
    assert!(!world.log().usage().disk_full);
    world.log().admit(GroupId(1), 5_000, Claim::Client).unwrap();
}

#[test]
fn a_full_disk_is_left_the_space_that_checkpoints_need() {
    let file = 32 * 1024;
    let mut world = World::opened(LogSettings { budget: ByteSize(100 * file), ..tiny() });
    world.disk.set_capacity(20 * file);
    while world.refused == 0 {
        world.run(&[append(1, 1, 5_000), Step::Write, Step::Prepare]).unwrap();
    }
    assert_eq!(
        world.log().admit(GroupId(1), 5_000, Claim::Client),
        Err(AppendError::Full(FullReason::Disk))
    );
    let left = world.disk.space().unwrap().free;
    let unfinished =
        |world: &World| world.disk.list().unwrap().iter().any(|name| name.starts_with("new-"));
    assert!((2 * file..3 * file).contains(&left), "{left} bytes are left");
    // What others take meanwhile stays theirs, however often the log tries.
    world.disk.set_capacity(20 * file - left);
    for _ in 0..5 {
        world.clock.advance(Duration::from_secs(1));
        let before = world.disk.operations();
        world.step(&Step::Prepare).unwrap();
        assert_eq!(world.disk.operations(), before, "a try takes nothing, not even for a moment");
    }
    // A file that was begun before is given up when somebody else needs the space.
    world.disk.set_capacity(23 * file);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.log().prepare_files().unwrap(), Prepared::More);
    assert!(unfinished(&world));
    world.disk.set_capacity(20 * file - left);
    world.step(&Step::Prepare).unwrap();
    assert!(!unfinished(&world));
    world.disk.set_capacity(u64::MAX);
    world.clock.advance(Duration::from_secs(1));
    world.step(&Step::Prepare).unwrap();
    world.log().admit(GroupId(1), 5_000, Claim::Client).unwrap();
}

/// The newest files after a start: the one that takes blocks, and whether it was there before.
fn restarts(world: &mut World, times: usize, between: &[Step]) -> usize {
    let before = world.went_on;
    for _ in 0..times {
        world.run(between).unwrap();
        world.step(&Step::Reopen).unwrap();
        world.check_live();
    }
    world.went_on - before
}

#[test]
fn restarts_behind_a_sealing_block_fill_the_newest_file() {
    let settings =
        LogSettings { file_size: ByteSize::kib(256), budget: ByteSize::kib(256 * 10), ..small() };
    let mut world = World::opened(settings);
    // An entry that lives on keeps its file, and all later ones.
    world.run(&[append(1, 1, 100), Step::Write, Step::Prepare]).unwrap();
    let between = [append(2, 1, 100), Step::Truncate { group: 2, keep: 0 }, Step::Prepare];
    assert!(restarts(&mut world, 100, &between) > 90);
    assert_eq!(world.refused, 0);
    assert!(wal_files(&world) <= 8, "{:?}", world.disk.list());
    assert_eq!(restarts(&mut world, 3, &[]), 3, "an idle start writes nothing");
}

#[test]
fn only_a_whole_sealed_file_with_room_is_gone_on_with() {
    let fresh = |prepare: &dyn Fn(&mut World)| {
        let mut world = World::opened(small());
        world.run(&[append(1, 2, 500), Step::Write, Step::Seal]).unwrap();
        prepare(&mut world);
        world.log = None;
        world.open().unwrap();
        world.went_on == 0
    };
    assert!(!fresh(&|_| ()), "sealed");
    let unsealed = [append(1, 1, 500), Step::Write];
    assert!(fresh(&|world| world.run(&unsealed).unwrap()));
    assert!(fresh(&|world| world.run(&[append(1, 1, 43_000), Step::Write, Step::Seal]).unwrap()));
    assert!(fresh(&|world| {
        world.settings.file_size = ByteSize::kib(128);
        world.settings.budget = ByteSize::kib(128 * 10);
    }));
    for outcome in [CrashOutcome::Lost, CrashOutcome::Kept] {
        let begun = fresh(&|world| {
            world.disk.crash_at(world.disk.operations() + 1, outcome);
            world.run(&[append(1, 1, 9_000), Step::Write]).unwrap_err();
            world.log = None;
            world.disk.restart();
        });
        assert_eq!(begun, outcome == CrashOutcome::Kept, "a lost block leaves nothing behind");
    }
    // A block whose first sector came through, with part of the rest.
    assert!(fresh(&|world| {
        let at = world.log().state().tail;
        world.run(&[append(1, 1, 9_000), Step::Write]).unwrap();
        world.disk.replace_sector("000000000001.wal", at + 4096, &[0; SECTOR_BYTES]);
    }));
}

#[test]
fn restarting_over_and_over_takes_no_space() {
    let mut world = World::opened(tiny());
    world.run(&[append(1, 1, 5_000), Step::Write, Step::Prepare]).unwrap();
    for vote in 0..30 {
        world.run(&[Step::HardState { group: 1, vote }, Step::Write]).unwrap();
        world.run(&[Step::Reopen, Step::Prepare]).unwrap();
    }
    assert!(wal_files(&world) <= 4, "{:?}", world.disk.list());
}

fn files(world: &World) -> usize {
    let names = world.disk.list().unwrap();
    names.iter().filter(|name| name.ends_with(".wal") || name.starts_with("spare-")).count()
}

#[test]
fn a_file_goes_only_when_the_table_of_the_newest_one_is_durable() {
    for outcome in [CrashOutcome::Lost, CrashOutcome::Kept, CrashOutcome::Random] {
        let mut world = World::opened(tiny());
        let promise = Step::HardState { group: 1, vote: 7 };
        world.run(&[promise, append(1, 2, 5_000), Step::Write, Step::Prepare]).unwrap();
        world.run(&[Step::Truncate { group: 1, keep: 0 }, Step::Write]).unwrap();
        // The first file has nothing that is needed but what the next one's table says, which is in
        // no block that was written.
        let before = world.log().state().files.len();
        while world.log().state().files.len() == before {
            world.step(&append(1, 1, 5_000)).unwrap();
        }
        world.step(&Step::Prepare).unwrap();
        world.disk.crash(outcome);
        world.log = None;
        world.disk.restart();
        world.recover();
        assert_eq!(world.model[&GroupId(1)].hard_state.vote, 7);
        world.check_live();
    }
}

#[test]
fn files_that_nothing_needs_are_taken_back_at_a_start() {
    let mut world = World::opened(tiny());
    for _ in 0..20 {
        world.run(&[append(1, 1, 5_000), Step::Write, Step::Prepare]).unwrap();
    }
    let held = wal_files(&world);
    // The process ends between the truncation and the files' way back.
    world.run(&[Step::Truncate { group: 1, keep: 1 }, Step::Write]).unwrap();
    for _ in 0..2 {
        world.open().unwrap();
        world.step(&Step::Prepare).unwrap();
        assert!(wal_files(&world) < held && wal_files(&world) <= 3, "{:?}", world.disk.list());
        world.check_live();
    }
}

#[test]
fn starts_that_fail_behind_the_log_leave_no_files_behind() {
    let mut world = World::opened(tiny());
    world.run(&[append(1, 1, 5_000), Step::Write]).unwrap();
    // Nothing is made ahead: the process ends before its threads run.
    let mut seen = Vec::new();
    for _ in 0..40 {
        world.open().unwrap();
        seen.push(files(&world));
    }
    assert!(seen.iter().all(|files| *files <= 3), "{seen:?}");
    world.check_live();
    // The disk is full now, and that is no reason not to start.
    world.disk.set_capacity(0);
    for _ in 0..3 {
        world.open().unwrap();
        world.check_live();
    }
}

#[test]
fn starts_of_a_full_log_that_fail_stay_within_the_budget() {
    let mut world = World::opened(tiny());
    while world.refused == 0 {
        world.run(&[append(1, 1, 5_000), Step::Write, Step::Prepare]).unwrap();
    }
    for _ in 0..40 {
        world.open().unwrap();
        assert!(files(&world) <= tiny().files_max(), "{:?}", world.disk.list());
    }
    world.check_live();
    world.run(&[Step::Truncate { group: 1, keep: 1 }, Step::Write, Step::Prepare]).unwrap();
    world.log().admit(GroupId(1), 5_000, Claim::Client).unwrap();
}

#[test]
fn spares_that_the_budget_does_not_pay_for_go_at_the_next_start() {
    let mut world = World::opened(LogSettings { budget: ByteSize::kib(32 * 60), ..tiny() });
    cycle(&mut world, 20);
    assert!(files(&world) > tiny().files_max(), "{:?}", world.disk.list());
    world.settings = tiny();
    world.open().unwrap();
    assert!(files(&world) <= tiny().files_max(), "{:?}", world.disk.list());
    world.check_live();
}

#[test]
fn files_of_another_size_are_read_and_not_recycled() {
    let mut world = World::opened(tiny());
    world.run(&[append(1, 2, 3_000), Step::Write, Step::Prepare]).unwrap();
    world.settings.file_size = ByteSize::kib(64);
    world.settings.budget = ByteSize::kib(64 * 10);
    world.step(&Step::Reopen).unwrap();
    world.check_live();
    world.run(&[append(1, 1, 9_000), Step::Truncate { group: 1, keep: 1 }]).unwrap();
    world.run(&[Step::Write, Step::Write, Step::Prepare, Step::Reopen]).unwrap();
    world.check_live();
    let sizes = world.disk.list().unwrap();
    let sizes: Vec<(String, usize)> =
        sizes.into_iter().map(|name| (name.clone(), world.disk.bytes(&name).len())).collect();
    assert!(sizes.iter().all(|(_, bytes)| [4 << 10, 64 << 10].contains(bytes)), "{sizes:?}");
}

#[test]
fn a_file_that_cannot_be_recycled_stops_the_log() {
    let sim = SimDisk::new(common::Rng::from_seed(1));
    let disk = FaultyDisk::new(std::sync::Arc::new(sim), |_| ());
    let faults = disk.faults();
    let clock = std::sync::Arc::new(common::clock::ManualClock::default());
    let rng = common::Rng::from_seed(2);
    let (log, _) = Log::open(std::sync::Arc::new(disk), tiny(), clock, rng).unwrap();
    faults.plan_fault(DiskOperation::Sync, "spare-", 0, Fault::Error(std::io::ErrorKind::Other));
    faults.plan_fault(DiskOperation::Sync, "new-", 1, Fault::Error(std::io::ErrorKind::Other));
    let stopped = loop {
        match log.prepare_files() {
            Ok(Prepared::More | Prepared::Unhurried) => {}
            other => break other,
        }
    };
    let stopped = stopped.unwrap_err();
    assert!(stopped.reason.contains("put a log file into use"), "{stopped}");
}
