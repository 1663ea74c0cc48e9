//! Old entries are copied forward, so that those who have little do not keep what others need.

use common::{ByteSize, GroupId, LogIndex, Term};

use super::harness::{Step, World, small};
use crate::*;

fn append(group: u64, count: usize, bytes: usize) -> Step {
    Step::Append { group, back: 0, count, bytes }
}

/// Sixteen files of eight sectors.
fn tiny() -> LogSettings {
    LogSettings {
        file_size: ByteSize::kib(32),
        budget: ByteSize::kib(32 * 16),
        block_size: ByteSize::kib(8),
        group_share_percent: 25,
        ..small()
    }
}

/// Fills about a file and drops what came before.
fn round(world: &mut World, group: u64) {
    for _ in 0..4 {
        world.run(&[append(group, 1, 5_000), Step::Write, Step::Prepare]).unwrap();
    }
    let steps = [Step::Truncate { group, keep: 1 }, Step::Write, Step::Prepare];
    world.run(&steps).unwrap();
}

fn rounds(world: &mut World, group: u64, rounds: usize) {
    (0..rounds).for_each(|_| round(world, group));
}

/// Moves on until nothing is left to move.
fn settle(world: &mut World) {
    for _ in 0..50 {
        world.run(&[Step::Prepare, Step::Write]).unwrap();
    }
}

fn moved(world: &World) -> u64 {
    world.log().state().moving.entries
}

fn wal_files(world: &World) -> usize {
    let names = world.disk.list().unwrap();
    names.iter().filter(|name| name.ends_with(".wal")).count()
}

fn has(world: &World, name: &str) -> bool {
    world.disk.list().unwrap().iter().any(|file| file == name)
}

const FIRST: &str = "000000000001.wal";

#[test]
fn a_group_that_has_little_and_never_truncates_does_not_fill_the_log_for_others() {
    let mut world = World::opened(tiny());
    world.run(&[append(2, 3, 100), Step::Write]).unwrap();
    for _ in 0..8 {
        rounds(&mut world, 1, 10);
        assert_eq!(world.refused, 0);
        world.check_live();
        world.step(&Step::Reopen).unwrap();
    }
    assert!(wal_files(&world) <= 9 && !has(&world, FIRST), "{:?}", world.disk.list());
    // It still has all of it, and goes on.
    world.run(&[append(2, 2, 100), Step::Write, Step::Reopen]).unwrap();
    assert_eq!(world.model[&GroupId(2)].entries.len(), 5);
    world.check_live();
}

#[test]
fn a_group_that_uses_its_whole_share_and_stops_does_not_fill_the_log_for_others() {
    // Its entries fill whole files, or stand between those of others.
    for between in [0, 1, 3] {
        let budget = ByteSize::kib(32 * 32);
        let mut world = World::opened(LogSettings { budget, ..tiny() });
        world.run(&[append(1, 1, 1_200), Step::Write, Step::Prepare]).unwrap();
        loop {
            match world.log().admit(GroupId(2), 3 * 1_256, Claim::Client) {
                Err(AppendError::Full(FullReason::GroupShare)) => break,
                Err(_) => settle(&mut world),
                Ok(()) => {}
            }
            world.run(&[append(2, 3, 1_200), append(1, between, 1_200)]).unwrap();
            let truncate = Step::Truncate { group: 1, keep: 1 };
            world.run(&[Step::Write, truncate, Step::Write, Step::Prepare]).unwrap();
        }
        let share = budget.bytes() / 4;
        let bytes = world.log().usage().groups[1].bytes;
        let state = world.log().state();
        assert!(
            bytes > share / 2,
            "{between} {bytes} {share} {:?} {:?}",
            state.moving,
            state.files.iter().map(|f| f.live_bytes()).collect::<Vec<_>>()
        );
        drop(state);
        for _ in 0..600 {
            if world.log().admit(GroupId(1), 5_000, Claim::Client).is_err() {
                // Faster than that is moved: for a moment.
                settle(&mut world);
            }
            world.log().admit(GroupId(1), 5_000, Claim::Client).unwrap();
            let steps = [append(1, 1, 5_000), Step::Truncate { group: 1, keep: 2 }];
            world.run(&steps).unwrap();
            world.run(&[Step::Write, Step::Prepare, Step::Write, Step::Prepare]).unwrap();
        }
        assert!(moved(&world) > 0);
        world.check_live();
        world.step(&Step::Reopen).unwrap();
        world.check_live();
    }
}

#[test]
fn nothing_is_moved_while_the_log_has_room_or_what_is_old_is_much() {
    let mut world = World::opened(tiny());
    world.run(&[append(2, 1, 100), Step::Write]).unwrap();
    rounds(&mut world, 1, 2);
    assert_eq!(moved(&world), 0, "half of the log is free");
    let mut world = World::opened(LogSettings { group_share_percent: 100, ..tiny() });
    while world.refused == 0 {
        world.run(&[append(1, 2, 2_500), append(2, 1, 2_500)]).unwrap();
        world.run(&[Step::Write, Step::Prepare]).unwrap();
    }
    assert_eq!(moved(&world), 0, "everything is of use");
    // A file is given back by truncation, and of the next one little is left.
    for (group, dropped) in [(1, 10), (2, 5)] {
        let keep = world.model[&GroupId(group)].entries.len() as u64 - dropped;
        world.run(&[Step::Truncate { group, keep }, Step::Write]).unwrap();
    }
    settle(&mut world);
    assert_eq!(moved(&world), 0, "whoever can truncate does so");
}

#[test]
fn files_go_only_when_the_copies_are_durable() {
    let mut world = World::opened(tiny());
    world.run(&[append(2, 1, 100), Step::Write]).unwrap();
    while moved(&world) == 0 {
        let truncate = Step::Truncate { group: 1, keep: 1 };
        world.run(&[append(1, 1, 5_000), truncate, Step::Write, Step::Prepare]).unwrap();
    }
    // The copy is in a block that nobody has written yet.
    assert!(has(&world, FIRST));
    for outcome in [CrashOutcome::Lost, CrashOutcome::Kept] {
        let mut trial = world.fork();
        trial.disk.crash(outcome);
        trial.disk.restart();
        trial.recover();
        trial.check_live();
    }
    assert!(!world.log().wants_preparing());
    world.step(&Step::Write).unwrap();
    assert!(world.log().wants_preparing(), "files are freed");
    world.step(&Step::Prepare).unwrap();
    assert!(!has(&world, FIRST));
    world.step(&Step::Kill).unwrap();
    world.check_live();
}

/// A world in which entries 1 to 3 of group 2 are to be moved, with them looked up and read.
fn about_to_move() -> (World, Vec<LogEntry>, impl FnOnce(&mut World)) {
    let mut world = World::opened(LogSettings { budget: ByteSize::kib(32 * 40), ..tiny() });
    world.run(&[append(2, 4, 100), Step::Write]).unwrap();
    rounds(&mut world, 1, 10);
    assert_eq!(moved(&world), 0, "{}", wal_files(&world));
    let log = world.log().clone();
    let settings = world.settings.clone();
    let (group, wanted) = log.state().next_to_move(&settings).unwrap();
    let mut entries = Vec::new();
    log.read_wanted(group, &wanted, &mut entries).unwrap();
    let read = entries.clone();
    let finish = move |world: &mut World| {
        let log = world.log().clone();
        assert!(log.state().append_moved(group, &wanted, &entries, 2, &log));
    };
    (world, read, finish)
}

#[test]
fn what_has_changed_since_it_was_looked_up_is_not_moved() {
    use Step::{Reset, Tombstone, Truncate, Write};
    let none = about_to_move().1;
    assert_eq!(none.iter().map(|entry| entry.index.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let replace = Step::Append { group: 2, back: 2, count: 3, bytes: 50 };
    let meanwhile: [(&str, Vec<Step>, u64); 6] = [
        ("nothing", vec![], 4),
        ("truncated", vec![Truncate { group: 2, keep: 1 }], 1),
        ("replaced", vec![replace.clone()], 2),
        ("replaced and truncated", vec![replace, Truncate { group: 2, keep: 4 }], 1),
        ("reset", vec![Reset { group: 2, ahead: 0 }, append(2, 2, 70)], 0),
        ("gone", vec![Tombstone { group: 2 }, append(2, 4, 90)], 0),
    ];
    for (what, steps, expected) in meanwhile {
        for write in [false, true] {
            let (mut world, _, finish) = about_to_move();
            world.run(&steps).unwrap();
            if write {
                world.step(&Write).unwrap();
            }
            finish(&mut world);
            assert_eq!(moved(&world), expected, "{what}");
            world.check_live();
            world.run(&[Step::Reopen]).unwrap();
            world.check_live();
        }
    }
}

#[test]
fn a_file_with_nothing_but_copies_is_kept_by_every_start() {
    let mut world = about_to_move().0;
    // A file begins, and the copies are all that comes into it.
    world.step(&Step::Kill).unwrap();
    let log = world.log().clone();
    let (group, wanted) = log.state().next_to_move(&world.settings).unwrap();
    let mut entries = Vec::new();
    log.read_wanted(group, &wanted, &mut entries).unwrap();
    assert!(log.state().append_moved(group, &wanted, &entries, 2, &log));
    drop((log, wanted));
    world.step(&Step::Write).unwrap();
    for _ in 0..4 {
        world.step(&Step::Kill).unwrap();
        world.check_live();
    }
    assert!(!has(&world, FIRST));
}

#[test]
fn a_copy_keeps_its_place_through_truncation_and_replacement() {
    for (keep, back) in [(0, 0), (1, 0), (3, 0), (3, 1), (3, 3), (4, 2), (4, 4)] {
        let (mut world, _, finish) = about_to_move();
        finish(&mut world);
        let steps = [
            Step::Append { group: 2, back, count: 2, bytes: 60 },
            Step::Truncate { group: 2, keep: keep + 2 - u64::from(back == 4) },
        ];
        world.run(&steps).unwrap();
        world.step(&Step::Reopen).unwrap();
        rounds(&mut world, 1, 3);
        assert!(!has(&world, FIRST));
        for _ in 0..2 {
            world.step(&Step::Kill).unwrap();
            world.check_live();
        }
    }
}

#[test]
fn the_log_is_read_from_the_copies_alone_whatever_the_order() {
    // Group 2 has entries in every file; the oldest are moved, round after round, behind newer ones.
    let mut world = World::opened(tiny());
    for number in 0..60 {
        if number < 24 {
            world.run(&[append(2, 1, 900), Step::Write]).unwrap();
        }
        round(&mut world, 1);
        if number % 7 == 0 {
            world.step(&Step::Reopen).unwrap();
        }
    }
    assert_eq!((world.refused, has(&world, FIRST)), (0, false));
    let log = world.log().clone();
    let places = |from: u64| log.state().groups[&GroupId(2)].place(LogIndex(from)).unwrap().file;
    assert!((1..24).any(|index| places(index) > places(index + 1)), "the order is another one");
    drop(log);
    world.step(&Step::Kill).unwrap();
    world.check_live();
    world.run(&[Step::Truncate { group: 2, keep: 9 }, Step::Write]).unwrap();
    rounds(&mut world, 1, 20);
    world.step(&Step::Kill).unwrap();
    world.check_live();
}

/// A world with group 2 quarantined behind its first two entries.
fn quarantined() -> World {
    let mut world = World::opened(tiny());
    world.step(&Step::Prepare).unwrap();
    for _ in 0..4 {
        world.run(&[append(2, 1, 700), Step::Write, append(1, 1, 700), Step::Write]).unwrap();
    }
    world.step(&Step::Seal).unwrap();
    world.log = None;
    // Block 0 is the table; then groups 2 and 1 in turn: this is entry 3 of group 2.
    world.disk.flip_bit(FIRST, 6 * SECTOR_BYTES as u64 + 300, 2);
    world.settings.damage = DamagePolicy::Quarantine;
    let recovered = world.open().unwrap();
    assert!(recovered.groups[1].quarantined.is_some(), "{recovered:?}");
    assert_eq!(recovered.groups[1].last, LogIndex(2));
    let kept = world.model.get_mut(&GroupId(2)).unwrap();
    kept.entries.retain(|index, _| *index <= 2);
    (kept.last, kept.last_term) = (2, 1);
    world
}

#[test]
fn a_quarantined_group_keeps_what_it_has_and_no_file_longer_than_others() {
    let mut world = quarantined();
    let whole = world.model[&GroupId(2)].clone();
    for _ in 0..4 {
        rounds(&mut world, 1, 20);
        assert_eq!(world.refused, 0, "{:?} {:?}", world.log(), world.log().usage());
        assert!(!has(&world, FIRST));
        let recovered = world.open().unwrap();
        assert!(recovered.groups[1].quarantined.is_some(), "{recovered:?}");
        let found = world.found(&recovered.groups);
        assert_eq!(found[&GroupId(2)].entries, whole.entries);
        assert_eq!(found[&GroupId(1)], world.model[&GroupId(1)]);
        let batch = Batch { group: GroupId(2), mark: Some(b"m"), ..Batch::default() };
        assert!(matches!(world.log().append(&batch), Err(AppendError::Quarantined { .. })));
    }
    // A repair finds the moved entries, too.
    world.log = None;
    let disk: std::sync::Arc<dyn Disk> = std::sync::Arc::new(world.disk.clone());
    let (settings, clock) = (world.settings.clone(), world.clock.clone());
    let rng = common::Rng::from_seed(3);
    repair(disk, settings, clock, rng, &SavedStates::new(), |_| true).unwrap();
    world.settings.damage = DamagePolicy::Refuse;
    let recovered = world.open().unwrap();
    assert_eq!(recovered.groups[1].quarantined, None);
    assert_eq!(world.found(&recovered.groups)[&GroupId(2)].entries, whole.entries);
}

#[test]
fn an_entry_that_cannot_be_read_is_not_moved_and_its_file_stays() {
    let mut world = World::opened(tiny());
    world.run(&[append(2, 1, 700), Step::Write, append(2, 1, 700), Step::Write]).unwrap();
    let at = 3 * SECTOR_BYTES as u64 + 300;
    world.disk.flip_bit(FIRST, at, 2);
    while world.refused == 0 {
        round(&mut world, 1);
    }
    settle(&mut world);
    assert_eq!(moved(&world), 1, "the entry before it");
    assert!(has(&world, FIRST));
    let damaged = world.log().read(GroupId(2), LogIndex(2), LogIndex(3), usize::MAX);
    assert!(matches!(damaged, Err(ReadError::Damaged { .. })), "{damaged:?}");
    // The start names it, and after the repair the log has room again.
    world.settings.damage = DamagePolicy::Refuse;
    assert!(matches!(world.open(), Err(OpenError::Damaged { .. })));
    world.settings.damage = DamagePolicy::AcceptLoss;
    world.open().unwrap();
    settle(&mut world);
    world.log().admit(GroupId(1), 5_000, Claim::Client).unwrap();
    assert!(!has(&world, FIRST));
    let left = world.log().read(GroupId(2), LogIndex(1), LogIndex(2), usize::MAX).unwrap();
    assert_eq!(left.len(), 1);
}

#[test]
fn lost_entries_and_copies_fill_the_front_together() {
    let mut world = World::opened(tiny());
    for _ in 0..5 {
        world.run(&[append(2, 1, 700), Step::Write]).unwrap();
    }
    world.step(&Step::Seal).unwrap();
    world.log = None;
    // Entry 3 of 5 is given up; the state includes what it did.
    world.disk.flip_bit(FIRST, 4 * SECTOR_BYTES as u64 + 300, 2);
    let disk: std::sync::Arc<dyn Disk> = std::sync::Arc::new(world.disk.clone());
    let saved = Saved { index: LogIndex(5), term: Term(1) };
    let saved = SavedStates::from([(GroupId(2), saved)]);
    let (settings, clock) = (world.settings.clone(), world.clock.clone());
    let lost = repair(disk, settings, clock, common::Rng::from_seed(3), &saved, |_| true).unwrap();
    assert_eq!((lost.len(), lost[0].first, lost[0].last), (1, LogIndex(3), LogIndex(3)));
    let recovered = world.open().unwrap();
    world.model = world.found(&recovered.groups);
    world.history = vec![(world.log().durable(), world.model.clone())];
    for _ in 0..3 {
        rounds(&mut world, 1, 20);
        assert_eq!((world.refused, has(&world, FIRST)), (0, false));
        world.step(&Step::Kill).unwrap();
        let state = world.log().group(GroupId(2)).unwrap();
        assert_eq!((state.first, state.last, state.lost.len()), (LogIndex(1), LogIndex(5), 1));
        world.check_live();
    }
}

#[test]
fn a_group_that_holds_a_quarter_of_the_files_for_itself_is_refused_when_they_are_short() {
    let mut world = World::opened(tiny());
    world.run(&[append(2, 1, 700), Step::Write]).unwrap();
    // It cannot be moved.
    world.disk.flip_bit(FIRST, 2 * SECTOR_BYTES as u64 + 300, 2);
    rounds(&mut world, 1, 2);
    world.log().admit(GroupId(2), 100, Claim::Client).unwrap();
    rounds(&mut world, 1, 3);
    let refused = world.log().admit(GroupId(2), 100, Claim::Client);
    assert_eq!(refused, Err(AppendError::Full(FullReason::GroupShare)));
    world.log().admit(GroupId(2), 100, Claim::FreesSpace).unwrap();
    world.log().admit(GroupId(1), 5_000, Claim::Client).unwrap();
    world.run(&[Step::Truncate { group: 2, keep: 0 }, Step::Write, Step::Prepare]).unwrap();
    world.log().admit(GroupId(2), 100, Claim::Client).unwrap();
}
