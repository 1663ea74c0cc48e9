//! A walk gives what reads give, and reads what groups share once.

use std::collections::BTreeMap;
use std::ops::Range;

use common::{ByteSize, GroupId, LogIndex, Rng};

use super::harness::{Step, World, small};
use crate::*;

fn append(group: u64, back: u64, bytes: usize) -> Step {
    Step::Append { group, back, count: 1, bytes }
}

/// Everything that the log has, by group.
fn wanted(world: &World) -> Vec<(GroupId, Range<LogIndex>)> {
    let range = |state: GroupState| (state.group, state.first..LogIndex(state.last.0 + 1));
    world.model.keys().filter_map(|group| world.log().group(*group)).map(range).collect()
}

/// What a walk gives, in the order in which it came.
fn walked(world: &World) -> BTreeMap<GroupId, Vec<LogEntry>> {
    let mut found = BTreeMap::<_, Vec<LogEntry>>::new();
    for (group, entries) in world.log().walk(wanted(world)) {
        found.entry(group).or_default().extend(entries.unwrap());
    }
    found
}

/// The same, group by group.
fn read(world: &World) -> BTreeMap<GroupId, Vec<LogEntry>> {
    let mut found = BTreeMap::new();
    for (group, range) in wanted(world) {
        let (mut low, mut entries) = (range.start, Vec::new());
        while low < range.end {
            entries.extend(world.log().read(group, low, range.end, 10_000).unwrap());
            low = LogIndex(range.start.0 + entries.len() as u64);
        }
        if !entries.is_empty() {
            found.insert(group, entries);
        }
    }
    found
}

/// Six groups in turn, over several files.
fn interleaved() -> World {
    let mut world = World::opened(LogSettings { budget: ByteSize::mib(8), ..small() });
    for at in 0..400 {
        world.run(&[append(at % 6 + 1, 0, 1_000), Step::Write, Step::Prepare]).unwrap();
    }
    world.step(&Step::Reopen).unwrap();
    world
}

#[test]
fn a_walk_reads_what_groups_share_once() {
    let world = interleaved();
    let before = world.disk.bytes_read();
    let found = walked(&world);
    let of_walk = world.disk.bytes_read() - before;
    assert_eq!(found, read(&world));
    let of_reads = world.disk.bytes_read() - before - of_walk;
    assert_eq!(found.values().map(Vec::len).sum::<usize>(), 400);
    // A block of one such entry has one sector.
    assert!(of_walk <= 401 * SECTOR_BYTES as u64, "{of_walk} bytes");
    assert!(of_reads >= 3 * of_walk, "{of_reads} bytes for reads, {of_walk} for the walk");
}

#[test]
fn a_walk_reads_what_groups_share_once_where_the_oldest_of_it_was_moved() {
    let mut world = World::opened(small());
    for at in 0..400 {
        let steps = [append(at % 6 + 1, 0, 1_000), Step::Write, Step::Prepare, Step::Write];
        world.run(&steps).unwrap();
    }
    let places = |group: u64| {
        let state = world.log().state();
        let places = state.groups[&GroupId(group)].places().map(|place| place.file);
        places.collect::<Vec<_>>()
    };
    assert!((1..=6).all(|group| !places(group).is_sorted()), "{:?}", places(1));
    let held = world.log().space().used;
    let before = world.disk.bytes_read();
    let found = walked(&world);
    let of_walk = world.disk.bytes_read() - before;
    assert_eq!(found, read(&world));
    // Sectors at the ends of runs are read twice.
    assert!(of_walk <= held * 5 / 4, "{of_walk} bytes are read, all files have {held}");
}

#[test]
fn a_walk_gives_what_reads_give_whatever_happened_before() {
    for seed in 0..60 {
        let mut rng = Rng::from_seed(seed);
        let mut world = World::opened(small());
        for _ in 0..150 {
            let (group, back) = (rng.between(1, 4), rng.below(4));
            let step = match rng.below(12) {
                0..5 => append(group, if back == 3 { 2 } else { 0 }, rng.below(6_000) as usize),
                5 => Step::Truncate { group, keep: back },
                6 if rng.chance(1, 8) => Step::Reset { group, ahead: back },
                7 if rng.chance(1, 8) => Step::Reopen,
                8 => Step::Prepare,
                _ => Step::Write,
            };
            world.step(&step).unwrap();
        }
        // What is not durable yet is among it.
        assert_eq!(walked(&world), read(&world), "seed {seed}");
    }
}

#[test]
fn an_entry_that_cannot_be_read_ends_its_group_and_only_that() {
    let world = interleaved();
    let hit = world.log().state().groups[&GroupId(3)].place(LogIndex(20)).unwrap();
    let file = files::file_name(u64::from(hit.file));
    world.disk.flip_bit(&file, u64::from(hit.offset) + 100, 1);
    let whole = wanted(&world);
    let mut found = BTreeMap::<_, Vec<LogIndex>>::new();
    let mut failed = Vec::new();
    for (group, entries) in world.log().walk(whole.clone()) {
        assert!(!failed.contains(&group), "nothing comes behind an error");
        match entries {
            Ok(entries) => {
                found.entry(group).or_default().extend(entries.iter().map(|entry| entry.index));
            }
            Err(error) => {
                assert!(matches!(error, ReadError::Damaged { index: LogIndex(20), .. }), "{error}");
                failed.push(group);
            }
        }
    }
    assert_eq!(failed, [GroupId(3)]);
    for (group, range) in whole {
        let last = found[&group].last().copied().unwrap();
        match group {
            GroupId(3) => assert!(last < LogIndex(20)),
            _ => assert_eq!(last.0 + 1, range.end.0),
        }
    }
}

#[test]
fn a_walk_tells_what_is_not_there_to_be_read() {
    let world = interleaved();
    let beyond = LogIndex(1)..LogIndex(1_000);
    let walk = [(GroupId(1), beyond), (GroupId(77), LogIndex(1)..LogIndex(2))];
    let errors =
        world.log().walk(walk).filter_map(|(group, entries)| Some((group, entries.err()?)));
    let errors: Vec<_> = errors.collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(matches!(errors[0], (GroupId(77), ReadError::UnknownGroup(_))), "{errors:?}");
    assert!(matches!(errors[1], (GroupId(1), ReadError::BeyondEnd { .. })), "{errors:?}");
}
