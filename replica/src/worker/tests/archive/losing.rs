//! Entries that a repair of the log gave up before they were archived.

use std::ops::RangeInclusive;

use wal::{Disk, SavedStates};

use super::restoring::recovered;
use super::*;
use crate::check::{CheckSettings, check};
use crate::restore::Chain;

/// The payload of these numbers rots where the log holds it; everything is proven by later blocks.
fn spoil(machine: &Machine, numbers: &[u64]) {
    numbers.iter().for_each(|number| spoil_bytes(machine, &[*number as u8; 60]));
    let refused = machine.clone().open().map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("damaged"), "{refused}");
}

fn spoil_bytes(machine: &Machine, what: &[u8]) {
    let mut spoiled = 0;
    for name in machine.disk.list().unwrap() {
        let bytes = machine.disk.bytes(&name);
        if let Some(at) = bytes.windows(what.len()).position(|window| window == what) {
            machine.disk.flip_bit(&name, at as u64 + 9, 1);
            spoiled += 1;
        }
    }
    assert_eq!(spoiled, 1, "it is in one place");
}

/// Seals the log, so that every block of it is proven.
fn stopped(node: Node) {
    while let Some(mut write) = node.log.begin_seal() {
        let result = write.perform();
        node.log.finish_write(write, result).unwrap();
    }
}

/// Gives up what rotted, by what is saved and, where it is asked, archived.
fn repaired(machine: &Machine, asked: bool) -> Vec<wal::LostRange> {
    let kv: &dyn Kv = &machine.kv;
    let mut saved = SavedStates::new();
    if let Some(applied) = kv.applied(GROUP).unwrap() {
        saved.insert(GROUP, wal::Saved { index: applied.index, term: applied.term });
    }
    if asked {
        let salvaged = Chain::salvage(machine.storage.as_ref().unwrap(), GROUP).unwrap();
        let (index, term) = salvaged.chain.unwrap().end();
        saved.insert_archive(GROUP, wal::Saved { index, term });
    }
    let disk = Arc::new(machine.disk.clone());
    let (settings, clock) = (machine.settings.log.clone(), machine.clock.clone());
    wal::repair(disk, settings, clock, Rng::from_seed(7), &saved, |_| true).unwrap()
}

/// Gives up what rotted; the state is saved beyond it.
fn repair(machine: &Machine) -> Vec<RangeInclusive<u64>> {
    let lost = repaired(machine, false);
    assert!(lost.iter().all(|range| range.behind == wal::Behind::Kept));
    lost.into_iter().map(|range| range.first.0..=range.last.0).collect()
}

/// Stored while the bucket did not answer, saved, and some of it lost since.
fn holed(numbers: u64, rotten: &[u64]) -> (Machine, Attached, Vec<RangeInclusive<u64>>) {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    bucket.faults.set_outage(Some(lts::ErrorKind::Unavailable));
    let mut node = serving(&mut machine);
    for number in 1..=numbers {
        node.store(number);
    }
    node.wait(machine.settings.checkpoint_interval);
    assert!(node.handle.status().checkpointed.0 >= numbers);
    node.store(numbers + 1);
    stopped(node);
    spoil(&machine, rotten);
    let lost = repair(&machine);
    (machine, bucket, lost)
}

/// What of the numbers is lost, and that all others are in objects.
fn lost_numbers(node: &mut Node) -> Vec<u64> {
    let locations = node.ask(|numbers| numbers.locations.clone());
    let lost = |(number, location): (&u64, &Location)| match location {
        Location::Lost { .. } => Some(*number),
        _ => None,
    };
    locations.iter().filter_map(lost).collect()
}

fn archives_all(node: &mut Node) {
    for _ in 0..60 {
        node.wait(Duration::from_secs(10));
    }
    let status = node.handle.status();
    assert_eq!((status.unarchived_since, status.unarchived_bytes), (None, 0), "{status:?}");
    assert_eq!(status.storage_failure, None);
    assert!(status.first > LogIndex(1), "the log is dropped behind it: {status:?}");
}

fn findings(machine: &Machine) -> Vec<String> {
    let numbers = || Numbers::new(&Arc::default());
    let settings = CheckSettings { grace: Duration::ZERO, now: common::WallTime(u64::MAX / 2) };
    let observer: crate::check::Observer = Arc::new(|_| ());
    let storage = machine.storage.as_ref().unwrap();
    let report = check(storage, GROUP, numbers, settings, &observer).unwrap();
    report
        .findings
        .into_iter()
        .map(|finding| format!("{}: {}", finding.subject, finding.what))
        .collect()
}

#[test]
fn a_group_that_was_repaired_is_archived_again() {
    let (mut machine, bucket, lost) = holed(9, &[5]);
    let [range] = &lost[..] else { panic!("{lost:?}") };
    let mut node = serving(&mut machine);
    node.wait(Duration::from_secs(60));
    let told = |node: &Node| {
        let ranges = node.handle.status().lost.into_iter();
        ranges.map(|range| range.start().0..=range.end().0).collect::<Vec<_>>()
    };
    assert_eq!(told(&node), lost, "before anything is archived");
    bucket.faults.set_outage(None);
    archives_all(&mut node);
    assert_eq!(told(&node), lost, "and for good");
    assert_eq!(lost_numbers(&mut node), [5]);
    assert_eq!(node.check_payloads(&bucket.memory), 9);
    assert!(node.handle.status().archived.0 > *range.end());
    // Far more than the log holds.
    for number in 1_000..1_400 {
        let mut answer = propose(&node.handle, number, 20_000).unwrap();
        node.wait(Duration::from_millis(300));
        answer.try_recv().unwrap().unwrap();
    }
    archives_all(&mut node);
    // The state alone, then everything comes back from the bucket, and it is as whole as it can be.
    let (stored, locations) = (node.stored(), node.ask(|n| n.locations.clone()));
    drop(node);
    let found = findings(&machine);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("lost"), "{found:?}");
    machine.kv.wipe();
    let mut node = serving(&mut machine);
    assert_eq!((node.stored(), node.ask(|n| n.locations.clone())), (stored.clone(), locations));
    drop(node);
    let mut machine = recovered(&machine, &bucket.memory);
    let mut node = serving(&mut machine);
    assert_eq!(node.stored(), stored);
    assert_eq!(lost_numbers(&mut node), [5]);
    assert_eq!(told(&node), lost);
}

#[test]
fn rounds_go_up_to_the_lost_entries_and_on_behind_them_over_several_holes() {
    let (mut machine, bucket, lost) = holed(30, &[5, 12, 13, 20]);
    assert_eq!(lost.len(), 3, "{lost:?}");
    bucket.faults.set_outage(None);
    let mut node = serving(&mut machine);
    archives_all(&mut node);
    assert_eq!(lost_numbers(&mut node), [5, 12, 13, 20]);
    assert_eq!(node.check_payloads(&bucket.memory), 27);
    let stored = node.stored();
    drop(node);
    let mut machine = recovered(&machine, &bucket.memory);
    let mut node = serving(&mut machine);
    assert_eq!(node.stored(), stored);
    assert_eq!(node.check_payloads(&bucket.memory), 27);
}

/// At every moment the bucket and what the machine has lead to the same: whatever was stored is
/// there, and of its payload only what the repair gave up is lost.
#[test]
fn a_crash_at_any_step_of_a_new_beginning_is_gone_on_from() {
    for steps in (0..160).step_by(3) {
        let (mut machine, bucket, _) = holed(12, &[3, 8]);
        bucket.faults.set_outage(None);
        let mut node = serving(&mut machine);
        let mut done = 0;
        while done < steps {
            let step = node.step().unwrap();
            let busy = step.more || step.wants_files || step.write.is_some();
            let busy = busy || step.checkpoint.is_some() || !step.storage.is_empty();
            node.perform(step).unwrap();
            done += 1;
            if !busy {
                node.machine.clock.advance(Duration::from_secs(10));
            }
        }
        drop(node);
        machine.crash(CrashOutcome::Random);
        let mut node = serving(&mut machine);
        archives_all(&mut node);
        assert_eq!(lost_numbers(&mut node), [3, 8], "after {steps} steps");
        assert_eq!(node.check_payloads(&bucket.memory), 11);
        drop(node);
        let mut machine = recovered(&machine, &bucket.memory);
        let mut node = serving(&mut machine);
        assert_eq!((1..=13).filter(|number| node.stored().contains_key(number)).count(), 13);
    }
}

/// The machine is gone at any moment: what comes back is a beginning of what was, without holes of
/// its own, and what is given up by that is told.
#[test]
fn a_recovery_at_any_step_of_a_new_beginning_ends_before_or_behind_it() {
    let (mut before, mut behind, mut unreached) = (0, 0, 0);
    for steps in (0..200).step_by(2) {
        let (mut machine, bucket, lost) = holed(12, &[6]);
        bucket.faults.set_outage(None);
        machine.storage.as_mut().unwrap().settings.round_bytes_max = ByteSize(300);
        let mut node = serving(&mut machine);
        for _ in 0..steps {
            let step = node.step().unwrap();
            let busy = step.more || step.wants_files || step.write.is_some();
            let busy = busy || step.checkpoint.is_some() || !step.storage.is_empty();
            node.perform(step).unwrap();
            if !busy {
                node.machine.clock.advance(Duration::from_secs(10));
            }
        }
        let first = node.handle.status().first.0;
        drop(node);
        let storage = machine.storage.clone().unwrap();
        let Ok(salvaged) = Chain::salvage(&storage, GROUP) else { continue };
        let Some(chain) = salvaged.chain else { continue };
        let end = chain.end().0.0;
        assert!(!lost[0].contains(&end), "{end} in {lost:?}");
        if end < *lost[0].start() {
            before += 1;
        } else {
            behind += 1;
            assert_eq!(salvaged.losses, [], "after {steps} steps");
        }
        if !salvaged.losses.is_empty() {
            let what = &salvaged.losses[0].what;
            assert!(what.contains("lost") && what.contains("checkpoint"), "{what}");
            assert!(first <= *lost[0].start(), "nothing is dropped that does not come back");
            unreached += 1;
            continue;
        }
        let mut machine = recovered(&machine, &bucket.memory);
        let mut node = serving(&mut machine);
        node.store(1_000);
        archives_all(&mut node);
        node.check_payloads(&bucket.memory);
        let expected: &[u64] = if end < *lost[0].start() { &[] } else { &[6] };
        assert_eq!(lost_numbers(&mut node), expected, "after {steps} steps, {end}");
    }
    let of = format!("{before} before, {unreached} of them unreached, {behind} behind");
    assert!(before > 5 && behind > 5 && unreached > 0, "{of}");
}

/// Stored and archived, saved early, and some more that is stored alone.
fn archived(saved: u64, numbers: u64, more: u64) -> (Machine, Attached) {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    machine.settings.checkpoint_interval = Duration::from_secs(40);
    let mut node = serving(&mut machine);
    for number in 1..=saved {
        node.store(number);
    }
    node.wait(Duration::from_secs(if saved > 0 { 40 } else { 1 }));
    for number in saved + 1..=numbers {
        node.store(number);
    }
    node.wait(Duration::from_secs(11));
    let status = node.handle.status();
    assert_eq!(status.unarchived_since, None, "{status:?}");
    assert_eq!(status.checkpointed > LogIndex(0), saved > 0, "{status:?}");
    assert!(status.checkpointed.0 < numbers, "{status:?}");
    bucket.faults.set_outage(Some(lts::ErrorKind::Unavailable));
    for number in numbers + 1..=numbers + more {
        node.store(number);
    }
    stopped(node);
    bucket.faults.set_outage(None);
    machine.clock.advance(Duration::from_secs(60));
    (machine, bucket)
}

/// It works, its log goes into the bucket, and everything comes back from there.
fn works_on(mut machine: Machine, bucket: &Attached, stored: u64) {
    // What comes now takes the places of what was given up.
    machine.journal = Arc::default();
    let mut node = serving(&mut machine);
    assert_eq!(node.stored().len() as u64, stored);
    node.store(200);
    archives_all(&mut node);
    assert_eq!(lost_numbers(&mut node), [] as [u64; 0]);
    assert_eq!(node.check_payloads(&bucket.memory) as u64, stored + 1);
    assert!(node.handle.status().lost.is_empty());
    drop(node);
    assert_eq!(findings(&machine), [] as [String; 0]);
    let mut node = serving(&mut machine);
    assert_eq!(node.stored().len() as u64, stored + 1);
    drop(node);
    let mut machine = recovered(&machine, &bucket.memory);
    assert_eq!(serving(&mut machine).stored().len() as u64, stored + 1);
}

#[test]
fn a_hole_above_the_saved_state_costs_nothing_that_is_archived() {
    for (saved, rotten) in [(0, vec![2]), (0, vec![3, 9]), (5, vec![8]), (5, vec![6, 7, 12])] {
        let (machine, bucket) = archived(saved, 12, 3);
        spoil(&machine, &rotten);
        let lost = repaired(&machine, true);
        assert!(lost.iter().all(|range| range.behind == wal::Behind::Archived), "{lost:?}");
        works_on(machine, &bucket, 15);
    }
    // Without a word from the bucket all behind it goes.
    let (machine, _bucket) = archived(5, 12, 3);
    spoil(&machine, &[8]);
    assert_eq!(repaired(&machine, false)[0].behind, wal::Behind::Lost);
}

#[test]
fn a_hole_beyond_what_is_archived_costs_what_is_behind_it() {
    let (machine, bucket) = archived(5, 12, 3);
    spoil(&machine, &[7, 14]);
    let lost = repaired(&machine, true);
    let [below, beyond] = &lost[..] else { panic!("{lost:?}") };
    assert_eq!((below.behind, beyond.behind), (wal::Behind::Archived, wal::Behind::Lost));
    works_on(machine, &bucket, 13);
}

/// The round's own entry is behind its last one, and rots as any other.
#[test]
fn what_a_round_said_whose_entry_is_lost_is_taken_over() {
    for more in [0, 3] {
        let (machine, bucket) = archived(0, 12, more);
        let chain = Chain::find(machine.storage.as_ref().unwrap(), GROUP, None).unwrap();
        let tip = chain.footers.last().unwrap().reference.name;
        spoil_bytes(&machine, &tip.encode());
        spoil(&machine, &[4]);
        let lost = repaired(&machine, true);
        assert_eq!(lost.last().unwrap().behind, wal::Behind::Lost, "{lost:?}");
        works_on(machine, &bucket, 12);
    }
}

/// What was begun at a start is gone on with at the next one.
#[test]
fn a_round_that_is_taken_over_survives_crashes_and_a_bucket_that_does_not_answer() {
    for steps in 0..40 {
        let (mut machine, bucket) = archived(0, 12, 0);
        let chain = Chain::find(machine.storage.as_ref().unwrap(), GROUP, None).unwrap();
        spoil_bytes(&machine, &chain.footers.last().unwrap().reference.name.encode());
        spoil(&machine, &[4]);
        repaired(&machine, true);
        bucket.faults.set_outage(Some(lts::ErrorKind::Unavailable));
        let refused = machine.open().map(|_| ()).unwrap_err();
        assert!(matches!(refused, StartError::Archive { .. }), "{refused}");
        bucket.faults.set_outage(None);
        machine.clock.advance(Duration::from_secs(60));
        let mut node = machine.open().unwrap();
        for _ in 0..steps {
            let step = node.step().unwrap();
            node.perform(step).unwrap();
            node.machine.clock.advance(Duration::from_secs(3));
        }
        drop(node);
        machine.crash(CrashOutcome::Random);
        works_on(machine, &bucket, 12);
    }
}
