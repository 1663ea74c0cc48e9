//! Damage to acknowledged data: named, never skipped, never served, and given up only on request.

use std::sync::Arc;

use common::clock::ManualClock;
use common::{ByteSize, GroupId, LogIndex, Rng};

use super::harness::{Model, Step, World, small};
use crate::*;

const SECTOR: u64 = SECTOR_BYTES as u64;

fn append(group: u64, count: usize, bytes: usize) -> Step {
    Step::Append { group, back: 0, count, bytes }
}

/// Three groups in turn, one block each, sealed at the end; all in the first file.
fn three_groups() -> World {
    let mut world = World::opened(small());
    for _ in 0..3 {
        for group in 1..=3 {
            world.run(&[append(group, 1, 1_000), Step::Write]).unwrap();
        }
    }
    world.step(&Step::Seal).unwrap();
    world.log = None;
    world
}

/// Offsets of the blocks of a file, by the sequences they have.
fn block_offsets(world: &World, name: &str) -> Vec<u64> {
    let bytes = world.disk.bytes(name);
    (SECTOR..bytes.len() as u64)
        .step_by(SECTOR_BYTES)
        .filter(|offset| bytes[*offset as usize..].starts_with(b"BBLK"))
        .collect()
}

fn first_file(world: &World) -> String {
    world.disk.list().unwrap().into_iter().find(|name| name.ends_with(".wal")).unwrap()
}

fn with(world: &mut World, damage: DamagePolicy) -> Result<Recovered, OpenError> {
    world.settings.damage = damage;
    world.open()
}

fn quarantined(recovered: &Recovered) -> Vec<u64> {
    let hit = recovered.groups.iter().filter(|state| state.quarantined.is_some());
    hit.map(|state| state.group.0).collect()
}

#[test]
fn a_damaged_block_that_a_later_one_vouches_for_is_refused_by_file_offset_and_group() {
    let mut world = three_groups();
    let file = first_file(&world);
    // Block 0 is the table; then groups 1, 2, 3, 1, 2, 3, …
    let hit = block_offsets(&world, &file)[5];
    world.disk.flip_bit(&file, hit + 200, 3);
    let refused = with(&mut world, DamagePolicy::Refuse).unwrap_err();
    let OpenError::Damaged { damage } = &refused else { panic!("{refused}") };
    assert_eq!((damage[0].file.as_str(), damage[0].offset), (file.as_str(), hit));
    assert_eq!(damage[0].groups, [GroupId(2)]);
    let text = refused.to_string();
    assert!(text.contains(&file) && text.contains("--accept-loss"), "{text}");
}

#[test]
fn only_the_groups_hit_are_quarantined_and_stay_so_until_their_peer_is_gone() {
    let mut world = three_groups();
    let file = first_file(&world);
    let hit = block_offsets(&world, &file)[5];
    world.disk.flip_bit(&file, hit + 200, 3);
    for more in 0..3 {
        let recovered = with(&mut world, DamagePolicy::Quarantine).unwrap();
        assert_eq!(quarantined(&recovered), [2]);
        assert_eq!(recovered.groups[1].last, LogIndex(1), "what came before the hole");
        assert_eq!(recovered.groups[0].last, LogIndex(3 + more));
        let batch = Batch { group: GroupId(2), mark: Some(b"m"), ..Batch::default() };
        let refused = world.log().append(&batch).unwrap_err();
        assert!(matches!(refused, AppendError::Quarantined { .. }), "{refused}");
        world.run(&[append(1, 1, 100), Step::Write]).unwrap();
        assert!(matches!(with(&mut world, DamagePolicy::Refuse), Err(OpenError::Damaged { .. })));
        assert_eq!(quarantined(&with(&mut world, DamagePolicy::Quarantine).unwrap()), [2]);
    }
    world.step(&Step::Tombstone { group: 2 }).unwrap();
    world.step(&Step::Write).unwrap();
    let recovered = with(&mut world, DamagePolicy::Refuse).unwrap();
    assert_eq!(quarantined(&recovered), []);
    assert_eq!(recovered.groups[1].tombstone.as_deref(), Some(&b"gone"[..]));
}

#[test]
fn repair_shows_the_exact_ranges_first_and_cuts_only_the_groups_hit() {
    let mut world = three_groups();
    let file = first_file(&world);
    let hit = block_offsets(&world, &file)[5];
    world.disk.flip_bit(&file, hit + 200, 3);
    let disk: Arc<dyn Disk> = Arc::new(world.disk.clone());
    let clock = Arc::new(ManualClock::default());
    let none = SavedStates::new();
    let before = inspect(&*disk, &none).unwrap();
    let expected = LostRange {
        group: GroupId(2),
        first: LogIndex(2),
        last: LogIndex(3),
        behind: Behind::Lost,
        reason: before.losses[0].reason.clone(),
    };
    assert_eq!(before.losses, [expected]);
    let refused = repair(disk.clone(), small(), clock.clone(), Rng::from_seed(1), &none, |_| false);
    assert_eq!(refused.unwrap(), []);
    assert_eq!(inspect(&*disk, &none).unwrap(), before, "nothing was changed without consent");
    let lost = repair(disk.clone(), small(), clock.clone(), Rng::from_seed(1), &none, |found| {
        found.losses == before.losses
    });
    assert_eq!(lost.unwrap(), before.losses);
    for _ in 0..2 {
        let recovered = with(&mut world, DamagePolicy::Refuse).unwrap();
        assert_eq!(recovered.groups[1].last, LogIndex(1));
        assert_eq!(recovered.groups[2].last, LogIndex(3));
        let found = world.found(&recovered.groups);
        assert_eq!(found[&GroupId(1)], world.model[&GroupId(1)]);
        assert_eq!(found[&GroupId(3)], world.model[&GroupId(3)]);
        // Files are made and recycled between the starts: what tells of the cut must stay.
        world.run(&[Step::Prepare]).unwrap();
    }
    let again =
        repair(disk, small(), clock, Rng::from_seed(1), &none, |_| panic!("nothing to repair"));
    assert!(matches!(again, Ok(lost) if lost.is_empty()) || world.log.is_some());
    let found = world.log().group(GroupId(2)).unwrap();
    world.model.get_mut(&GroupId(2)).unwrap().entries.retain(|index, _| *index <= 1);
    let cut = world.model.get_mut(&GroupId(2)).unwrap();
    (cut.last, cut.last_term) = (found.last.0, found.last_term.0);
    for _ in 0..3 {
        let steps = [Step::Prepare, append(2, 4, 500), Step::Write, Step::Prepare, Step::Reopen];
        world.run(&steps).unwrap();
        world.check_live();
    }
}

/// Every sector that holds blocks is damaged in turn, in several ways: the log either opens with
/// exactly what was acknowledged or names the file. It never opens with less, or with more.
#[test]
fn no_damaged_sector_goes_unnoticed() {
    let mut world = World::opened(LogSettings { file_size: ByteSize::kib(32), ..small() });
    for round in 0..4 {
        for group in 1..=3 {
            let bytes = 900 + 1_000 * round * group as usize;
            world.run(&[append(group, 2, bytes), Step::Write, Step::Prepare]).unwrap();
        }
        world.run(&[Step::HardState { group: 2, vote: 1 }, Step::Conf { group: 3 }]).unwrap();
    }
    world.run(&[Step::Truncate { group: 1, keep: 3 }, Step::Write, Step::Seal]).unwrap();
    assert_eq!(world.refused, 0);
    world.log = None;
    let mut rng = Rng::from_seed(5);
    let (mut named, mut harmless) = (0, 0);
    for name in world.disk.list().unwrap().into_iter().filter(|name| name.ends_with(".wal")) {
        for offset in (0..world.disk.bytes(&name).len() as u64).step_by(SECTOR_BYTES) {
            for way in 0..3 {
                let mut trial = world.fork();
                match way {
                    0 => trial.disk.flip_bit(&name, offset + rng.below(64), rng.u64() as u8),
                    1 => trial.disk.flip_bit(&name, offset + rng.below(SECTOR), rng.u64() as u8),
                    _ => trial.disk.replace_sector(&name, offset, &[way; SECTOR_BYTES]),
                }
                if opens_whole_or_names(&mut trial, &name) {
                    harmless += 1;
                } else {
                    named += 1;
                }
            }
        }
    }
    assert!(named > 60 && harmless > 20, "{named} named, {harmless} harmless");
}

fn opens_whole_or_names(trial: &mut World, name: &str) -> bool {
    match with(trial, DamagePolicy::Refuse) {
        Ok(recovered) => {
            let found = trial.found(&recovered.groups);
            assert_eq!(found, trial.model, "damage in {name} went unnoticed");
            true
        }
        Err(OpenError::Damaged { damage }) => {
            assert!(damage.iter().any(|damage| damage.file == name), "{damage:?}");
            repaired_is_a_prefix(trial);
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// After the loss is accepted every group has a prefix of what it had.
fn repaired_is_a_prefix(trial: &mut World) {
    let recovered = with(trial, DamagePolicy::AcceptLoss).unwrap();
    let found: Model = trial.found(&recovered.groups);
    for (group, model) in &found {
        let whole = &trial.model[group];
        assert!(model.last <= whole.last);
        for (index, entry) in &model.entries {
            assert_eq!(whole.entries.get(index).unwrap_or(entry), entry);
        }
    }
    let again = with(trial, DamagePolicy::Refuse).unwrap();
    assert_eq!(trial.found(&again.groups), found);
}

#[test]
fn a_torn_tail_is_cut_and_never_comes_back() {
    for seed in 0..24 {
        let mut world = World::new(small(), seed);
        world.open().unwrap();
        world.run(&[append(1, 2, 500), Step::Write]).unwrap();
        world.disk.crash_at(world.disk.operations() + 1, CrashOutcome::Random);
        world.run(&[append(1, 3, 3_000), Step::Write]).unwrap_err();
        world.log = None;
        world.disk.restart();
        world.recover();
        let kept = world.model.clone();
        for _ in 0..3 {
            world.run(&[append(2, 1, 10), Step::Write]).unwrap();
            world.step(&Step::Reopen).unwrap();
            assert_eq!(world.model[&GroupId(1)], kept[&GroupId(1)]);
        }
    }
}

#[test]
fn the_last_block_is_proven_by_its_seal() {
    let mut sealed = three_groups();
    let file = first_file(&sealed);
    let offsets = block_offsets(&sealed, &file);
    let (last, seal) = (offsets[9], offsets[10]);
    let mut only_seal = sealed.fork();
    sealed.disk.flip_bit(&file, last + 70, 1);
    assert!(matches!(with(&mut sealed, DamagePolicy::Refuse), Err(OpenError::Damaged { .. })));
    // Without its seal the last block is the tail.
    only_seal.disk.flip_bit(&file, seal + 70, 1);
    with(&mut only_seal, DamagePolicy::Refuse).unwrap();
    assert_eq!(only_seal.log().last_index(GroupId(3)), LogIndex(3));
}

#[test]
fn a_disk_that_lied_is_found_out_by_a_later_block() {
    let mut world = World::opened(small());
    world.run(&[append(1, 1, 100), Step::Write]).unwrap();
    world.disk.lie(true);
    world.run(&[append(1, 1, 100), append(2, 1, 100), Step::Write]).unwrap();
    world.disk.lie(false);
    let lied = block_offsets(&world, &first_file(&world))[2];
    world.run(&[append(1, 1, 100), Step::Write, Step::Seal]).unwrap();
    world.log = None;
    world.disk.crash(CrashOutcome::Lost);
    world.disk.restart();
    let refused = with(&mut world, DamagePolicy::Refuse).unwrap_err();
    let OpenError::Damaged { damage } = refused else { panic!("{refused}") };
    assert_eq!((damage[0].offset, damage[0].groups.len()), (lied, 2));
}

#[test]
fn a_hole_that_everything_was_truncated_past_does_not_matter() {
    let mut world = World::opened(LogSettings { file_size: ByteSize::kib(32), ..small() });
    world.step(&Step::Prepare).unwrap();
    // Group 2 holds the first file; group 1 moves on.
    world.run(&[append(2, 1, 100), append(1, 1, 100), Step::Write]).unwrap();
    world.run(&[append(1, 2, 2_000), Step::Write, append(2, 1, 50), Step::Write]).unwrap();
    let hit = block_offsets(&world, &first_file(&world))[2];
    for _ in 0..8 {
        world.run(&[append(1, 2, 3_000), Step::Write, Step::Prepare]).unwrap();
    }
    world.run(&[Step::Truncate { group: 1, keep: 2 }, Step::Write]).unwrap();
    world.run(&[append(1, 8, 1_800), Step::Write, Step::Prepare, Step::Seal]).unwrap();
    assert_eq!(world.refused, 0);
    world.log = None;
    let file = first_file(&world);
    world.disk.flip_bit(&file, hit + 100, 1);
    let recovered = with(&mut world, DamagePolicy::Refuse).unwrap();
    assert_eq!(world.found(&recovered.groups), world.model);
    assert_eq!(inspect(&world.disk, &SavedStates::new()).unwrap().harmless.len(), 1);
}

#[test]
fn a_missing_file_is_named() {
    let mut world = World::opened(LogSettings { file_size: ByteSize::kib(32), ..small() });
    for _ in 0..9 {
        world.run(&[append(1, 2, 3_000), Step::Write, Step::Prepare]).unwrap();
    }
    world.log = None;
    for missing in ["000000000001.wal", "000000000002.wal"] {
        let mut trial = world.fork();
        trial.disk.lose_file(missing);
        let refused = with(&mut trial, DamagePolicy::Refuse).unwrap_err();
        let OpenError::Damaged { damage } = &refused else { panic!("{refused}") };
        assert_eq!(damage[0].groups, [GroupId(1)], "{refused}");
        repaired_is_a_prefix(&mut trial);
    }
}

#[test]
fn a_damaged_file_header_costs_nothing() {
    let mut world = three_groups();
    let file = first_file(&world);
    world.disk.replace_sector(&file, 0, &[0xee; SECTOR_BYTES]);
    let recovered = with(&mut world, DamagePolicy::Refuse).unwrap();
    assert_eq!(world.found(&recovered.groups), world.model);
}

#[test]
fn a_log_of_another_version_is_refused_by_its_number() {
    let mut world = three_groups();
    let file = first_file(&world);
    let mut header = [0; SECTOR_BYTES];
    header.copy_from_slice(&world.disk.bytes(&file)[..SECTOR_BYTES]);
    header[8] = 9;
    let crc = crc32fast::hash(&[&header[..12], &header[16..]].concat());
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    world.disk.replace_sector(&file, 0, &header);
    let refused = with(&mut world, DamagePolicy::Refuse).unwrap_err();
    assert!(matches!(refused, OpenError::Version { found: 9, supported: 1, .. }), "{refused}");
}

/// A log on a faulty disk with three entries in one block.
fn faulty() -> (Log, SimDisk, Arc<Faults>) {
    let sim = SimDisk::new(Rng::from_seed(1));
    let disk = FaultyDisk::new(Arc::new(sim.clone()), |_| ());
    let faults = disk.faults();
    let clock = Arc::new(ManualClock::default());
    let (log, _) = Log::open(Arc::new(disk), small(), clock, Rng::from_seed(2)).unwrap();
    let data = [7; 400];
    let entries: Vec<EntryRef<'_>> = (1..=3)
        .map(|index| EntryRef {
            index: LogIndex(index),
            term: common::Term(1),
            kind: 0,
            context: &data[..3],
            data: &data,
        })
        .collect();
    log.append(&Batch { group: GroupId(1), entries: &entries, ..Batch::default() }).unwrap();
    let mut write = log.begin_write().unwrap();
    let result = write.perform();
    log.finish_write(write, result).unwrap();
    (log, sim, faults)
}

fn read_all(log: &Log) -> Result<Vec<LogEntry>, ReadError> {
    log.read(GroupId(1), LogIndex(1), LogIndex(4), usize::MAX)
}

#[test]
fn a_bit_flipped_on_the_way_is_read_again() {
    let (log, _, faults) = faulty();
    let sound = read_all(&log).unwrap();
    for bit in (0..2_048 * 8).step_by(61) {
        faults.plan_fault(DiskOperation::Read, "", 0, Fault::FlipBit(bit));
        assert_eq!(read_all(&log).unwrap(), sound);
    }
}

#[test]
fn a_bit_flipped_at_rest_is_told_with_its_place() {
    let (log, sim, _) = faulty();
    let file = "000000000001.wal";
    let bytes = sim.bytes(file);
    let block = (SECTOR as usize..)
        .step_by(SECTOR_BYTES)
        .filter(|at| bytes[*at..].starts_with(b"BBLK"))
        .nth(1)
        .unwrap() as u64;
    sim.flip_bit(file, block + 64 + 56 + 100, 5);
    let ReadError::Damaged { group, index, damage } = read_all(&log).unwrap_err() else {
        panic!("another error");
    };
    assert_eq!((group, index), (GroupId(1), LogIndex(1)));
    assert_eq!((damage.file.as_str(), damage.offset), (file, block + 64));
    assert_eq!(log.read(GroupId(1), LogIndex(2), LogIndex(4), usize::MAX).unwrap().len(), 2);
}

#[test]
fn a_disk_that_cannot_be_read_is_told_apart_from_damage() {
    let (log, _, faults) = faulty();
    let kind = std::io::ErrorKind::PermissionDenied;
    // The read of the run, and two of its first entry.
    for _ in 0..3 {
        faults.plan_fault(DiskOperation::Read, "", 0, Fault::Error(kind));
    }
    assert!(matches!(read_all(&log), Err(ReadError::Io { .. })));
    read_all(&log).unwrap();
}

#[test]
fn a_bit_flipped_on_the_way_does_not_make_recovery_cut_anything() {
    let mut world = World::opened(small());
    world.run(&[append(1, 2, 900), Step::Write, append(2, 2, 5_000), Step::Write]).unwrap();
    world.log = None;
    for bit in (0..65_536 * 8).step_by(9_973) {
        let disk = FaultyDisk::new(Arc::new(world.disk.fork()), |_| ());
        // The header, the first block's header and the first block come before the whole file.
        disk.faults().plan_fault(DiskOperation::Read, "000000000001", 3, Fault::FlipBit(bit));
        let clock = Arc::new(ManualClock::default());
        let (log, recovered) =
            Log::open(Arc::new(disk), small(), clock, Rng::from_seed(1)).unwrap();
        world.log = Some(log);
        assert_eq!(world.found(&recovered.groups), world.model, "bit {bit}");
    }
}

#[test]
fn a_repair_that_is_interrupted_is_begun_anew_or_is_done() {
    let world = three_groups();
    let file = first_file(&world);
    let hit = block_offsets(&world, &file)[5];
    world.disk.flip_bit(&file, hit + 200, 3);
    for step in 1.. {
        let mut trial = world.fork();
        trial.disk.crash_at(trial.disk.operations() + step, CrashOutcome::Random);
        let repaired = with(&mut trial, DamagePolicy::AcceptLoss).is_ok();
        trial.log = None;
        trial.disk.restart();
        match with(&mut trial, DamagePolicy::Refuse) {
            Ok(_) => {}
            Err(OpenError::Damaged { .. }) if !repaired => {
                with(&mut trial, DamagePolicy::AcceptLoss).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        let last = |group| trial.log().last_index(GroupId(group));
        assert_eq!([last(1), last(2), last(3)], [3, 1, 3].map(LogIndex));
        if repaired {
            break;
        }
    }
}

#[test]
fn what_a_start_has_read_is_durable_before_anybody_is_told() {
    let mut world = World::opened(small());
    world.run(&[append(1, 1, 100), Step::Write]).unwrap();
    // The device keeps blocks in a cache that a power cut loses, and the process is killed before it
    // is told that they were written.
    world.disk.lie(true);
    world.run(&[append(1, 2, 100), append(2, 1, 100), Step::Write]).unwrap();
    world.disk.lie(false);
    let written = world.model.clone();
    world.log = None;
    let recovered = world.open().unwrap();
    assert_eq!(world.found(&recovered.groups), written);
    world.log = None;
    world.disk.crash(CrashOutcome::Lost);
    world.disk.restart();
    let recovered = world.open().unwrap();
    assert_eq!(world.found(&recovered.groups), written, "it was served before the power went");
}

fn copy_file(world: &World, from: &str, to: &str) {
    let bytes = world.disk.bytes(from);
    let mut buffer = AlignedBuf::zeroed(bytes.len());
    buffer.copy_from_slice(&bytes);
    world.disk.create(to).unwrap().write_at(0, &buffer).unwrap();
    world.disk.sync_dir().unwrap();
}

#[test]
fn a_copy_of_a_file_under_another_name_is_no_part_of_the_log() {
    let mut world = World::opened(LogSettings { file_size: ByteSize::kib(32), ..small() });
    for _ in 0..6 {
        world.run(&[append(1, 2, 3_000), Step::Write, Step::Prepare]).unwrap();
    }
    world.run(&[Step::Truncate { group: 1, keep: 4 }, Step::Write, Step::Prepare]).unwrap();
    world.step(&Step::Seal).unwrap();
    world.log = None;
    let before = inspect(&world.disk, &SavedStates::new()).unwrap();
    let (oldest, newest) = (before.files[0].name.clone(), before.files.last().unwrap());
    let names = ["000000000001.wal".to_owned(), format!("{:012}.wal", newest.sequence + 3)];
    for from in [&oldest, &newest.name] {
        for to in &names {
            let mut trial = world.fork();
            copy_file(&trial, from, to);
            let after = inspect(&trial.disk, &SavedStates::new()).unwrap();
            assert_eq!((&after.files, &after.groups), (&before.files, &before.groups));
            assert!(after.empty.contains(to) && after.damage.is_empty());
            let recovered = with(&mut trial, DamagePolicy::Refuse).unwrap();
            assert_eq!(trial.found(&recovered.groups), world.model);
        }
    }
}

/// The sector of a block that holds one small entry.
fn sector(world: &World, file: &str, offset: u64) -> [u8; SECTOR_BYTES] {
    let mut sector = [0; SECTOR_BYTES];
    sector.copy_from_slice(&world.disk.bytes(file)[offset as usize..][..SECTOR_BYTES]);
    sector
}

#[test]
fn a_block_that_was_written_to_the_place_of_another_is_damage_there() {
    let world = three_groups();
    let file = first_file(&world);
    let blocks = block_offsets(&world, &file);
    // Block 0 is the table; then groups 1, 2, 3, 1, 2, 3, …, and the seal.
    for (from, to) in [(5, 4), (6, 5), (9, 8), (3, 4), (1, 9)] {
        let mut trial = world.fork();
        trial.disk.replace_sector(&file, blocks[to], &sector(&world, &file, blocks[from]));
        let refused = with(&mut trial, DamagePolicy::Refuse).unwrap_err();
        let OpenError::Damaged { damage } = &refused else { panic!("{refused}") };
        let found: Vec<_> = damage.iter().map(|d| (d.file.as_str(), d.offset)).collect();
        assert_eq!(found, [(file.as_str(), blocks[to])], "{from} at {to}");
        let hit = GroupId((to as u64 - 1) % 3 + 1);
        assert_eq!(damage[0].groups, [hit], "{from} at {to}");
    }
}

#[test]
fn another_entry_in_the_place_of_one_is_never_served() {
    let mut world = three_groups();
    world.open().unwrap();
    let file = first_file(&world);
    let blocks = block_offsets(&world, &file);
    // Of the same group and an older index, and of another group and the same index.
    for (from, to, group, index) in [(1, 4, 1, 2), (4, 7, 1, 3), (5, 4, 1, 2), (4, 5, 2, 2)] {
        let whole = sector(&world, &file, blocks[to]);
        world.disk.replace_sector(&file, blocks[to], &sector(&world, &file, blocks[from]));
        let (low, high) = (LogIndex(index), LogIndex(index + 1));
        let read = world.log().read(GroupId(group), low, high, usize::MAX);
        let Err(ReadError::Damaged { damage, .. }) = &read else { panic!("{read:?}") };
        assert_eq!((damage.file.as_str(), damage.groups[0]), (file.as_str(), GroupId(group)));
        world.disk.replace_sector(&file, blocks[to], &whole);
        assert_eq!(world.log().read(GroupId(group), low, high, usize::MAX).unwrap().len(), 1);
    }
}

#[test]
fn an_entry_of_an_older_term_in_the_place_of_its_successor_is_never_served() {
    let mut world = World::opened(small());
    world.run(&[append(1, 2, 1_000), Step::Write]).unwrap();
    let replaced = Step::Append { group: 1, back: 1, count: 1, bytes: 1_000 };
    let older = [append(1, 1, 1_000), Step::Write, replaced, Step::Write];
    world.run(&older).unwrap();
    let file = first_file(&world);
    let blocks = block_offsets(&world, &file);
    world.disk.replace_sector(&file, blocks[3], &sector(&world, &file, blocks[2]));
    let read = world.log().read(GroupId(1), LogIndex(3), LogIndex(4), usize::MAX);
    assert!(matches!(read, Err(ReadError::Damaged { .. })), "{read:?}");
}

#[test]
fn a_promise_behind_a_hole_is_kept_by_whoever_goes_on_before_it() {
    for saved in [0, 3] {
        let mut world = World::opened(small());
        for index in 0..3 {
            world.run(&[append(2, 1, 900), Step::Write]).unwrap();
            world.run(&[Step::HardState { group: 2, vote: 5 + index }, Step::Write]).unwrap();
        }
        let newer = Step::Append { group: 1, back: 1, count: 1, bytes: 10 };
        world.run(&[append(1, 1, 10), newer, Step::HardState { group: 2, vote: 9 }]).unwrap();
        world.run(&[Step::Write, Step::Seal]).unwrap();
        let promised = world.model[&GroupId(2)].hard_state;
        assert_eq!((promised.term.0, promised.vote), (2, 9));
        world.log = None;
        // Entry 2, between the promises.
        let file = first_file(&world);
        world.disk.flip_bit(&file, block_offsets(&world, &file)[3] + 200, 3);
        let quarantined = with(&mut world.fork(), DamagePolicy::Quarantine).unwrap();
        let of_group = |recovered: &Recovered| {
            let found = recovered.groups[1].hard_state;
            (found.term, found.vote)
        };
        assert_eq!(of_group(&quarantined), (promised.term, 9));
        let saved = Saved { index: LogIndex(saved), term: common::Term(1) };
        let saved = SavedStates::from([(GroupId(2), saved)]);
        let disk: Arc<dyn Disk> = Arc::new(world.disk.clone());
        let clock = Arc::new(ManualClock::default());
        repair(disk, small(), clock, Rng::from_seed(1), &saved, |_| true).unwrap();
        for _ in 0..2 {
            let recovered = with(&mut world, DamagePolicy::Refuse).unwrap();
            assert_eq!(of_group(&recovered), (promised.term, 9));
        }
    }
}

#[test]
fn what_is_committed_never_runs_ahead_of_the_entries_that_prove_it() {
    let mut world = World::opened(small());
    let data = vec![3; 9_000];
    let entries: Vec<EntryRef<'_>> = (1..=4)
        .map(|index| EntryRef {
            index: LogIndex(index),
            term: common::Term(1),
            kind: 0,
            context: b"",
            data: &data,
        })
        .collect();
    let hard_state = Some(HardState { term: common::Term(1), vote: 1, commit: LogIndex(4) });
    let batch = Batch { group: GroupId(1), hard_state, entries: &entries, ..Batch::default() };
    world.step(&Step::Prepare).unwrap();
    world.log().append(&batch).unwrap();
    for blocks in 0..5 {
        // The process dies: it is not there any more when the next one comes.
        let mut trial = world.fork();
        trial.disk.restart();
        let recovered = trial.open().unwrap();
        if let Some(group) = recovered.groups.first() {
            assert!(group.hard_state.commit <= group.last, "{blocks} blocks: {group:?}");
            assert_eq!(group.last == LogIndex(4), group.hard_state.commit == LogIndex(4));
        }
        world.step(&Step::Write).unwrap();
    }
}
