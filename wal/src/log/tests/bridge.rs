//! Repair of groups whose saved state covers a hole: the bytes in the hole are lost, nothing else.

use std::sync::Arc;

use common::{ByteSize, GroupId, LogIndex, Rng, Term};

use super::harness::{Model, Step, World, small};
use crate::*;

const GROUPS: u64 = 3;
/// Entries of each group, and the blocks that hold one entry each, after the table's.
const ENTRIES: u64 = 5;
const BLOCKS: u64 = GROUPS * ENTRIES;

fn append(group: u64, count: usize, bytes: usize) -> Step {
    Step::Append { group, back: 0, count, bytes }
}

/// Block `b`, counted from 0, holds entry `b / GROUPS + 1` of group `b % GROUPS + 1`.
fn groups_in_turn() -> World {
    let mut world = World::opened(LogSettings { file_size: ByteSize::kib(128), ..small() });
    for _ in 0..ENTRIES {
        for group in 1..=GROUPS {
            world.run(&[append(group, 1, 1_000), Step::Write]).unwrap();
        }
    }
    world.step(&Step::Seal).unwrap();
    world.log = None;
    world
}

fn spoil(world: &World, block: u64) {
    let offset = (2 + block) * SECTOR_BYTES as u64;
    world.disk.flip_bit("000000000001.wal", offset + 300, 2);
}

/// Every group is saved up to `index`.
fn saved(index: u64) -> SavedStates {
    let saved = Saved { index: LogIndex(index), term: Term(1) };
    (1..=GROUPS).filter(|_| index > 0).map(|group| (GroupId(group), saved)).collect()
}

fn repair_with(world: &World, saved: &SavedStates) -> Result<Vec<LostRange>, OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(world.disk.clone());
    let (settings, clock) = (world.settings.clone(), world.clock.clone());
    let shown = inspect(&*disk, saved)?.losses;
    let lost = repair(disk, settings, clock, Rng::from_seed(7), saved, |found| {
        assert_eq!(found.losses, shown);
        true
    })?;
    assert_eq!(lost, shown);
    Ok(lost)
}

/// What is left of the model when these entries of each group are spoiled and the states are
/// saved up to `saved`.
fn expected(whole: &Model, spoiled: &[u64], saved: u64) -> Model {
    let mut model = whole.clone();
    for (group, model) in &mut model {
        let of_group = spoiled.iter().filter(|block| *block % GROUPS + 1 == group.0);
        let hit: Vec<u64> = of_group.map(|block| block / GROUPS + 1).collect();
        let end = hit.iter().copied().filter(|index| *index > saved).min();
        model.last = end.map_or(ENTRIES, |end| end - 1);
        model.entries.retain(|index, _| *index <= model.last && !hit.contains(index));
        model.last_term = u64::from(model.last > 0);
    }
    model
}

fn without_promises(mut model: Model) -> Model {
    model.values_mut().for_each(|group| group.hard_state = HardState::default());
    model
}

fn reopened(world: &mut World) -> Model {
    let recovered = world.open().unwrap();
    assert!(recovered.damage.is_empty(), "{recovered:?}");
    let found = world.found(&recovered.groups);
    let ahead = found.values().find(|group| group.hard_state.commit.0 > group.last);
    assert_eq!(ahead, None, "nothing is committed that is not there");
    world.model = found.clone();
    world.history = vec![(world.log().durable(), found.clone())];
    without_promises(found)
}

/// The world with these blocks spoiled, and what it must hold after a repair.
fn trial(world: &World, spoiled: &[u64], saved_index: u64) {
    let mut trial = world.fork();
    spoiled.iter().for_each(|block| spoil(&trial, *block));
    let lost = repair_with(&trial, &saved(saved_index)).unwrap();
    let expected = expected(&world.model, spoiled, saved_index);
    let what = format!("blocks {spoiled:?}, saved {saved_index}, lost {lost:?}");
    assert_eq!(reopened(&mut trial), without_promises(expected.clone()), "{what}");
    for (group, model) in &expected {
        assert!(model.last >= saved_index, "{what}");
        let said: Vec<_> = lost.iter().filter(|range| range.group == *group).collect();
        let entries: u64 = said.iter().map(|range| range.last.0 + 1 - range.first.0).sum();
        let missing = ENTRIES - model.entries.len() as u64;
        let exact = said.iter().all(|range| range.behind == Behind::Kept);
        assert!(if exact { entries == missing } else { entries <= missing }, "{what}");
    }
    for _ in 0..2 {
        trial.run(&[append(1, 2, 700), append(3, 1, 700), Step::Write, Step::Prepare]).unwrap();
        let model = without_promises(trial.model.clone());
        assert_eq!(reopened(&mut trial), model, "{what}");
    }
}

#[test]
fn a_hole_below_the_saved_state_costs_the_entries_in_it_and_no_others() {
    let world = groups_in_turn();
    for saved_index in 0..=ENTRIES {
        for first in 0..BLOCKS {
            trial(&world, &[first], saved_index);
            for second in (first + 1..BLOCKS).step_by(if saved_index % 2 == 0 { 3 } else { 2 }) {
                trial(&world, &[first, second], saved_index);
            }
        }
    }
}

#[test]
fn a_second_hole_in_older_data_is_repaired_as_well() {
    let world = groups_in_turn();
    for (first, second) in [(9, 3), (3, 9), (9, 0), (12, 6)] {
        let mut trial = world.fork();
        for (nth, block) in [first, second].into_iter().enumerate() {
            spoil(&trial, block);
            let lost = repair_with(&trial, &saved(ENTRIES)).unwrap();
            assert_eq!(lost.len(), nth + 1, "{lost:?}");
            let expected = expected(&world.model, &[first, second][..=nth], ENTRIES);
            assert_eq!(reopened(&mut trial), without_promises(expected));
            trial.log = None;
        }
    }
}

#[test]
fn lost_entries_outlive_the_files_around_them_until_they_are_truncated() {
    let mut world = groups_in_turn();
    spoil(&world, 3);
    repair_with(&world, &saved(ENTRIES)).unwrap();
    world.open().unwrap();
    let files = |world: &World| world.disk.list().unwrap();
    let found = world.log().group(GroupId(1)).unwrap();
    let given_up = LostEntries { first: LogIndex(2), last: LogIndex(2), term: Term(1) };
    assert_eq!(found.lost, [given_up]);
    // What was kept of the first file goes, and the file with it; entry 2 is told by tables only.
    for group in 1..=GROUPS {
        let index = LogIndex(if group == 1 { 1 } else { ENTRIES });
        let truncate = Some(Truncated { index, term: Term(1) });
        let batch = Batch { group: GroupId(group), truncate, ..Batch::default() };
        world.log().append(&batch).unwrap();
    }
    world.run(&[append(1, 1, 100), Step::Write, Step::Prepare]).unwrap();
    assert!(files(&world).contains(&"000000000001.wal".to_owned()), "entries 3 to 5 are in it");
    world.run(&[Step::Write]).unwrap();
    let state = |world: &mut World| {
        let groups = world.open().unwrap().groups;
        (groups[0].first, groups[0].last, groups[0].lost.clone())
    };
    assert_eq!(state(&mut world), (LogIndex(2), LogIndex(6), vec![given_up]));
    let truncate = Some(Truncated { index: LogIndex(ENTRIES), term: Term(1) });
    let batch = Batch { group: GroupId(1), truncate, ..Batch::default() };
    world.log().append(&batch).unwrap();
    world.run(&[Step::Write, Step::Prepare]).unwrap();
    assert!(!files(&world).contains(&"000000000001.wal".to_owned()), "{:?}", files(&world));
    assert_eq!(state(&mut world), (LogIndex(6), LogIndex(6), vec![]));
}

#[test]
fn a_repaired_log_opens_when_older_files_before_the_hole_have_gone() {
    const LAST: u64 = 12;
    let settings = LogSettings {
        file_size: ByteSize::kib(32),
        budget: ByteSize::kib(32 * 20),
        block_size: ByteSize::kib(8),
        entry_max: ByteSize::kib(8),
        ..small()
    };
    let mut world = World::opened(settings);
    for _ in 0..LAST {
        world.run(&[append(1, 1, 5_000), Step::Write, Step::Prepare]).unwrap();
    }
    world.step(&Step::Seal).unwrap();
    world.log = None;
    // In the second block of the second of the files that hold the group.
    world.disk.flip_bit("000000000002.wal", 3 * SECTOR_BYTES as u64 + 300, 2);
    let state = Saved { index: LogIndex(LAST), term: Term(1) };
    let lost = repair_with(&world, &[(GroupId(1), state)].into_iter().collect()).unwrap();
    assert_eq!(lost.len(), 1, "{lost:?}");
    let given_up = world.open().unwrap().groups[0].lost.clone();
    assert_eq!(given_up.len(), 1, "{given_up:?}");
    let first_is_there =
        |world: &World| world.disk.list().unwrap().contains(&"000000000001.wal".to_owned());
    let mut index = LogIndex(0);
    while first_is_there(&world) {
        index = LogIndex(index.0 + 1);
        let truncate = Some(Truncated { index, term: Term(1) });
        world.log().append(&Batch { group: GroupId(1), truncate, ..Batch::default() }).unwrap();
        world.run(&[Step::Write, Step::Prepare]).unwrap();
    }
    assert!(index.0 + 1 < given_up[0].first.0, "entries before the hole are left in its file");
    for _ in 0..3 {
        let recovered = world.open().unwrap();
        assert!(recovered.damage.is_empty(), "{recovered:?}");
        let group = &recovered.groups[0];
        assert_eq!((group.first, group.last), (LogIndex(index.0 + 1), LogIndex(LAST)));
        assert_eq!(group.lost, given_up);
    }
}

#[test]
fn entries_lost_before_the_first_file_that_is_left_stay_lost() {
    let mut world = groups_in_turn();
    world.open().unwrap();
    world.run(&[Step::HardState { group: 3, vote: 1 }, Step::Write]).unwrap();
    // Without a sealing block every start begins a file.
    for _ in 0..3 {
        world.open().unwrap();
        world.run(&[append(1, 1, 500), Step::Write]).unwrap();
    }
    world.log = None;
    world.disk.lose_file("000000000001.wal");
    let lost = repair_with(&world, &saved(ENTRIES)).unwrap();
    let range = |range: &LostRange| (range.group.0, range.first.0, range.last.0, range.behind);
    let lost: Vec<_> = lost.iter().map(range).collect();
    assert_eq!(lost[0], (1, 1, ENTRIES, Behind::Kept));
    assert_eq!(lost[1], (2, 1, ENTRIES, Behind::Lost), "{lost:?}");
    for _ in 0..3 {
        let found = reopened(&mut world);
        let kept: Vec<u64> = found[&GroupId(1)].entries.keys().copied().collect();
        assert_eq!(kept, [6, 7, 8]);
        assert_eq!(found[&GroupId(2)].last, ENTRIES);
        world.run(&[append(3, 3, 5_000), Step::Write, Step::Prepare]).unwrap();
    }
}

#[test]
fn a_saved_state_of_another_log_is_refused_and_nothing_is_changed() {
    let world = groups_in_turn();
    spoil(&world, 3);
    let before = inspect(&world.disk, &SavedStates::new()).unwrap();
    let foreign = Saved { index: LogIndex(4), term: Term(2) };
    let foreign = SavedStates::from([(GroupId(1), foreign)]);
    let refused = repair_with(&world, &foreign).unwrap_err();
    assert!(refused.to_string().contains("do not belong together"), "{refused}");
    assert_eq!(inspect(&world.disk, &SavedStates::new()).unwrap(), before);
}

#[test]
fn an_interrupted_repair_below_the_saved_state_is_begun_anew_or_is_done() {
    let world = groups_in_turn();
    spoil(&world, 6);
    spoil(&world, 10);
    let expected = without_promises(expected(&world.model, &[6, 10], ENTRIES));
    for step in 1.. {
        let mut trial = world.fork();
        trial.disk.crash_at(trial.disk.operations() + step, CrashOutcome::Random);
        let repaired = repair_with(&trial, &saved(ENTRIES)).is_ok();
        trial.disk.restart();
        if trial.open().is_err() {
            assert!(!repaired);
            repair_with(&trial, &saved(ENTRIES)).unwrap();
        }
        assert_eq!(reopened(&mut trial), expected);
        if repaired {
            break;
        }
    }
}

/// What must be left where these entries of each group are spoiled, its state is saved up to `saved`
/// and it is archived up to `archived`.
fn expected_with(whole: &Model, spoiled: &[u64], saved: u64, archived: u64) -> Model {
    let mut model = expected(whole, spoiled, saved);
    for (group, model) in &mut model {
        let of_group = spoiled.iter().filter(|block| *block % GROUPS + 1 == group.0);
        let hit: Vec<u64> = of_group.map(|block| block / GROUPS + 1).collect();
        let first = hit.iter().copied().min().unwrap_or(u64::MAX);
        let beyond = hit.iter().any(|index| *index > saved);
        if !beyond || archived <= saved || archived < first {
            continue;
        }
        let end = hit.iter().copied().filter(|index| *index > archived).min();
        *model = whole[group].clone();
        model.truncated = Truncated { index: LogIndex(archived), term: Term(1) };
        model.last = end.map_or(ENTRIES, |end| end - 1);
        model.entries.retain(|index, _| (archived + 1..=model.last).contains(index));
        model.last_term = 1;
    }
    model
}

#[test]
fn a_log_begins_behind_what_is_archived_where_that_reaches_further_than_the_state() {
    let world = groups_in_turn();
    for (saved_index, archived) in [(0, 2), (0, ENTRIES), (1, 4), (2, 3), (3, 1), (4, ENTRIES)] {
        let mut states = saved(saved_index);
        let end = Saved { index: LogIndex(archived), term: Term(1) };
        (1..=GROUPS).for_each(|group| states.insert_archive(GroupId(group), end));
        for first in 0..BLOCKS {
            for second in (first..BLOCKS).step_by(4) {
                let mut trial = world.fork();
                let spoiled = if first == second { vec![first] } else { vec![first, second] };
                spoiled.iter().for_each(|block| spoil(&trial, *block));
                let lost = repair_with(&trial, &states).unwrap();
                let expected = expected_with(&world.model, &spoiled, saved_index, archived);
                let what = format!("{spoiled:?}, {saved_index}, {archived}, {lost:?}");
                assert_eq!(reopened(&mut trial), without_promises(expected), "{what}");
                let is_archived = |range: &LostRange| range.last.0 <= archived;
                for range in &lost {
                    let told = range.behind == Behind::Archived;
                    let entries = range.last >= range.first;
                    assert!(!entries || told == is_archived(range), "{what}");
                }
                trial.run(&[append(1, 2, 700), Step::Write, Step::Prepare]).unwrap();
                let model = without_promises(trial.model.clone());
                assert_eq!(reopened(&mut trial), model, "{what}");
            }
        }
    }
}
