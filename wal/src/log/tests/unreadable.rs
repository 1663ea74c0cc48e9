//! Sectors that the medium does not give back: whom they hit, and whom they do not.

use std::io::ErrorKind;
use std::sync::Arc;

use common::clock::ManualClock;
use common::{ByteSize, GroupId, LogIndex, Rng};

use super::harness::{Step, World, small};
use crate::*;

const FIRST: &str = "000000000001.wal";

fn append(group: u64, count: usize, bytes: usize) -> Step {
    Step::Append { group, back: 0, count, bytes }
}

/// The log of a world, on its disk with faults.
fn reopened(world: &mut World) -> (Log, Arc<Faults>) {
    world.log = None;
    let disk = FaultyDisk::new(Arc::new(world.disk.clone()), |_| ());
    let faults = disk.faults();
    let (clock, rng) = (Arc::new(ManualClock::default()), Rng::from_seed(9));
    let opened = Log::open(Arc::new(disk), world.settings.clone(), clock, rng);
    (opened.unwrap().0, faults)
}

/// Entries 1 and 2 of group 1 with one of group 2 between them, and where that lies.
fn one_between_two(drops_it: bool) -> (World, u64) {
    let mut world = World::opened(LogSettings { file_size: ByteSize::kib(32), ..small() });
    world.step(&Step::Prepare).unwrap();
    for group in [1, 2, 1] {
        world.run(&[append(group, 1, 700), Step::Write]).unwrap();
    }
    let between = world.log().state().groups[&GroupId(2)].place(LogIndex(1)).unwrap();
    if drops_it {
        world.run(&[Step::Truncate { group: 2, keep: 0 }, Step::Write]).unwrap();
    }
    world.step(&Step::Seal).unwrap();
    (world, u64::from(between.offset) / SECTOR_BYTES as u64 * SECTOR_BYTES as u64)
}

#[test]
fn a_dead_sector_between_the_entries_of_a_group_does_not_hit_it() {
    for drops_it in [true, false] {
        let (mut world, at) = one_between_two(drops_it);
        let (log, faults) = reopened(&mut world);
        faults.kill_sector(FIRST, at);
        let (group, all) = (GroupId(1), LogIndex(1)..LogIndex(3));
        let both = log.read(group, all.start, all.end, usize::MAX).unwrap();
        assert_eq!(both.len(), 2);
        let dealt: Vec<_> = log.walk([(group, all)]).collect();
        let walked: usize = dealt.iter().map(|(_, entries)| entries.as_ref().unwrap().len()).sum();
        assert_eq!(walked, 2);
        if !drops_it {
            let hit = log.read(GroupId(2), LogIndex(1), LogIndex(2), usize::MAX).unwrap_err();
            assert!(hit.is_damage(), "{hit:?}");
        }
    }
}

#[test]
fn an_error_of_the_medium_that_passes_is_no_damage() {
    let (mut world, _) = one_between_two(false);
    let (log, faults) = reopened(&mut world);
    for strikes in 1..=2 {
        for _ in 0..strikes {
            let fault = Fault::Error(ErrorKind::InvalidData);
            faults.plan_fault(DiskOperation::Read, "", 0, fault);
        }
        let both = log.read(GroupId(1), LogIndex(1), LogIndex(3), usize::MAX).unwrap();
        assert_eq!(both.len(), 2, "{strikes} errors");
    }
    assert_eq!(faults.struck(), 3);
}

#[test]
fn entries_whose_reading_fails_for_a_moment_are_moved_when_it_works_again() {
    let files = |count: u64| ByteSize::kib(32 * count);
    let of = |budget| LogSettings {
        file_size: files(1),
        budget,
        block_size: ByteSize::kib(8),
        group_share_percent: 25,
        ..small()
    };
    let mut world = World::opened(of(files(40)));
    world.run(&[append(2, 4, 100), Step::Write]).unwrap();
    for _ in 0..10 {
        for _ in 0..4 {
            world.run(&[append(1, 1, 5_000), Step::Write, Step::Prepare]).unwrap();
        }
        world.run(&[Step::Truncate { group: 1, keep: 1 }, Step::Write, Step::Prepare]).unwrap();
    }
    assert_eq!(world.log().state().moving.entries, 0, "there is room");
    world.settings = of(files(16));
    let (log, faults) = reopened(&mut world);
    // A machine without memory for it, and not the medium: of the run, and twice of its first entry.
    for _ in 0..3 {
        let fault = Fault::Error(ErrorKind::OutOfMemory);
        faults.plan_fault(DiskOperation::Read, FIRST, 0, fault);
    }
    for _ in 0..20 {
        log.prepare_files().unwrap();
        while let Some(mut write) = log.begin_write() {
            let result = write.perform();
            log.finish_write(write, result).unwrap();
        }
    }
    assert_eq!(faults.struck(), 3);
    assert_eq!(log.state().moving.entries, 4, "all that the oldest file has");
}
