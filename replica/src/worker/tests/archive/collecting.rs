//! Garbage: what may be deleted, when, and what never.

use super::*;
use crate::archive::Kind;
use crate::tiering::{JobKind, adopted_path};

const HOUR: Duration = Duration::from_secs(3_600);

pub(super) fn forget(node: &mut Node, number: u64) {
    let mut answer = propose(&node.handle, FORGET | number, 0).unwrap();
    node.settle().unwrap();
    answer.try_recv().unwrap().unwrap();
}

/// Lets minutes pass, with something to do in each.
pub(super) fn live(node: &mut Node, minutes: u64, first: u64) {
    for number in first..first + minutes {
        node.store(number);
        node.wait(Duration::from_secs(60));
    }
}

/// Forgets everything that is in the oldest object; which one that is.
pub(super) fn forget_an_object(node: &mut Node) -> ObjectName {
    let object = match node.ask(|numbers| numbers.locations[&0]) {
        Location::Object { rested, .. } => rested.object,
        other => panic!("{other:?}"),
    };
    let in_it = node.ask(move |numbers| {
        let there = |location: &Location| {
            matches!(location, Location::Object { rested, .. } if rested.object == object)
        };
        let numbers = numbers.locations.iter().filter(|(_, location)| there(location));
        numbers.map(|(number, _)| *number).collect::<Vec<u64>>()
    });
    for number in in_it {
        forget(node, number);
    }
    object
}

#[test]
fn an_object_that_nobody_refers_to_goes_after_its_grace_once_no_checkpoint_needs_it() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    node.store(0);
    live(&mut node, 20, 1);
    let object = forget_an_object(&mut node);
    live(&mut node, 9, 100);
    assert!(objects(&bucket.memory).contains_key(&object), "its grace is not over");
    live(&mut node, 30, 200);
    assert!(objects(&bucket.memory).contains_key(&object), "a kept checkpoint needs it");
    live(&mut node, 90, 300);
    assert!(!objects(&bucket.memory).contains_key(&object));
    node.check_payloads(&bucket.memory);
}

#[test]
fn a_group_that_went_idle_collects_what_it_dropped_before() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    live(&mut node, 15, 0);
    for number in 0..15 {
        forget(&mut node, number);
    }
    for _ in 0..200 {
        node.wait(Duration::from_secs(60));
    }
    assert_eq!(node.check_payloads(&bucket.memory), 0);
    assert_eq!(payload_objects(&bucket.memory), 0);
}

fn payload_objects(memory: &Memory) -> usize {
    let payload = objects(memory).into_keys().filter(|name| {
        let head = wait_for(memory.get(&(*name).into(), 0..Kind::PEEK_BYTES as u64));
        Kind::peek(*name, &head.unwrap()).unwrap() == Kind::Packed
    });
    payload.count()
}

/// Whatever was saved, copied or archived shortly before.
#[test]
fn what_is_dropped_before_a_group_goes_idle_is_collected_whenever_that_is() {
    for seconds in (0..720).step_by(40) {
        let mut machine = Machine::new(1);
        let bucket = attach(&mut machine);
        let mut node = serving(&mut machine);
        live(&mut node, 15, 0);
        node.wait(Duration::from_secs(seconds));
        for number in 0..15 {
            forget(&mut node, number);
        }
        for _ in 0..360 {
            node.wait(Duration::from_secs(5));
        }
        for _ in 0..180 {
            node.wait(Duration::from_secs(60));
        }
        let left = payload_objects(&bucket.memory);
        assert_eq!(left, 0, "{seconds} s after the last one was stored");
        let (at_rest, applied) = (objects(&bucket.memory), node.handle.status().applied);
        for _ in 0..180 {
            node.wait(Duration::from_secs(60));
        }
        assert_eq!(node.handle.status().applied, applied, "it came to rest");
        assert_eq!(objects(&bucket.memory), at_rest);
    }
}

/// The round that is due, while everything else is done.
fn held_round(node: &mut Node) -> StorageJob {
    let mut held = None;
    loop {
        let mut step = node.step().unwrap();
        let busy = step.more || step.write.is_some() || step.wants_files;
        let at = step.storage.iter().position(|job| job.kind() == JobKind::Round);
        held = at.map(|at| step.storage.remove(at)).or(held);
        node.perform(step).unwrap();
        if !busy {
            return held.expect("a round is due");
        }
    }
}

#[test]
fn what_a_late_round_brought_for_nothing_goes_though_the_group_is_idle() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    node.store(1);
    node.machine.clock.advance(Duration::from_secs(10));
    let round = held_round(&mut node);
    forget(&mut node, 1);
    // The state is saved and copied, and the copy does not have what the round is going to say.
    for _ in 0..15 {
        node.wait(Duration::from_secs(60));
    }
    let done = round.perform(&node.workshop());
    node.worker.storage_done(done).unwrap();
    node.settle().unwrap();
    assert_eq!(payload_objects(&bucket.memory), 1);
    for _ in 0..180 {
        node.wait(Duration::from_secs(60));
    }
    assert_eq!(payload_objects(&bucket.memory), 0);
    let applied = node.handle.status().applied;
    for _ in 0..180 {
        node.wait(Duration::from_secs(60));
    }
    assert_eq!(node.handle.status().applied, applied, "it came to rest");
}

#[test]
fn what_an_interrupted_upload_left_is_swept_after_the_next_start_and_nothing_else() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    node.store(0);
    node.machine.clock.advance(Duration::from_secs(10));
    loop {
        let step = node.step().unwrap();
        let done = !step.storage.is_empty();
        for job in step.storage {
            // Uploaded, and never told.
            drop(job.perform(&node.workshop()));
        }
        if done {
            break;
        }
    }
    let orphans = objects(&bucket.memory);
    assert_eq!(orphans.len(), 2);
    drop(node);
    machine.crash(CrashOutcome::Kept);
    let mut node = serving(&mut machine);
    node.wait(Duration::from_secs(10));
    node.wait(HOUR);
    let left = objects(&bucket.memory);
    assert!(orphans.keys().all(|orphan| !left.contains_key(orphan)), "{left:?}");
    assert_eq!(node.check_payloads(&bucket.memory), 1);
}

#[test]
pub(in crate::worker::tests) fn a_node_deletes_nothing_in_a_bucket_that_a_recovery_has_taken_over()
{
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    live(&mut node, 15, 0);
    // Due at once: nobody refers to it, and it lies below what counts.
    let tip = *objects(&bucket.memory).keys().next_back().unwrap();
    let garbage = ObjectName { sequence: 900, ..tip };
    wait_for(bucket.memory.put(&garbage.into(), lts::Payload::from("x"))).unwrap();
    for number in 0..15 {
        forget(&mut node, number);
    }
    let newer = ClusterMarker { incarnation: Incarnation(2), marker: 8 };
    wait_for(lts::cluster::claim(&bucket.memory, newer)).unwrap();
    let before = objects(&bucket.memory);
    assert!(node.handle.look_after_storage());
    for _ in 0..200 {
        node.wait(Duration::from_secs(60));
    }
    let left = objects(&bucket.memory);
    assert!(before.keys().all(|name| left.contains_key(name)));
    let failure = node.handle.status().storage_failure.unwrap();
    assert!(failure.contains("was taken over by a recovery"), "{failure}");
}

#[test]
fn what_counts_by_being_there_is_not_put_into_a_bucket_that_was_taken_over() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    live(&mut node, 2, 0);
    let newer = ClusterMarker { incarnation: Incarnation(2), marker: 8 };
    wait_for(lts::cluster::claim(&bucket.memory, newer)).unwrap();
    let counting = |memory: &Memory| {
        let kind = |name: ObjectName| {
            let head = wait_for(memory.get(&name.into(), 0..Kind::PEEK_BYTES as u64));
            Kind::peek(name, &head.unwrap()).unwrap()
        };
        let kinds = objects(memory).into_keys().map(kind);
        kinds.filter(|kind| matches!(kind, Kind::Footer | Kind::Checkpoint)).count()
    };
    let (before, archived) = (counting(&bucket.memory), node.handle.status().archived);
    live(&mut node, 30, 100);
    assert_eq!(counting(&bucket.memory), before);
    assert_eq!(node.handle.status().archived, archived);
    assert!(node.machine.storage.as_ref().unwrap().owner.as_ref().unwrap().refused().is_some());
}

#[test]
fn what_was_put_before_a_recovery_stays_until_it_is_adopted() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    live(&mut node, 15, 0);
    drop(node);
    // What the lost cluster put and never said, as an upload that its end came upon.
    let term = common::Term(0);
    let orphan = ObjectName { incarnation: Incarnation(1), group: GROUP, term, sequence: 1 << 40 };
    wait_for(bucket.memory.put(&orphan.into(), lts::Payload::from("x"))).unwrap();
    let mut machine = restoring::recovered(&machine, &bucket.memory);
    let mut node = serving(&mut machine);
    let before = objects(&bucket.memory);
    let of_before = |name: &&ObjectName| name.incarnation == Incarnation(1);
    for number in 0..15 {
        forget(&mut node, number);
    }
    live(&mut node, 150, 1_000);
    let left = objects(&bucket.memory);
    assert!(before.keys().filter(of_before).all(|name| left.contains_key(name)), "{left:?}");
    let mark = adopted_path(Incarnation(2));
    wait_for(bucket.memory.put(&mark, lts::Payload::from("x"))).unwrap();
    live(&mut node, 150, 2_000);
    assert_eq!(objects(&bucket.memory).keys().filter(of_before).count(), 0);
    node.check_payloads(&bucket.memory);
}

/// A cluster that was recovered, and an object that an upload of the old one left behind. What else
/// is in the bucket is another group's.
fn recovered_with_an_orphan(seed: u64) -> (Machine, Attached, ObjectName) {
    let mut machine = Machine::new(seed);
    let bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    live(&mut node, 15, 0);
    let before = objects(&bucket.memory);
    bucket.faults.plan_fault(Operation::Put, "0001/", 1, Fault::Error(lts::ErrorKind::Full));
    node.store(15);
    node.wait(Duration::from_secs(10));
    let mut left = objects(&bucket.memory).into_keys().filter(|name| !before.contains_key(name));
    let orphan = left.next().unwrap();
    let others = ObjectName { group: GroupId(GROUP.0 + 1), ..orphan };
    wait_for(bucket.memory.put(&others.into(), lts::Payload::from("another group's"))).unwrap();
    drop(node);
    (restoring::recovered(&machine, &bucket.memory), bucket, orphan)
}

fn adopt(bucket: &Attached) {
    let mark = adopted_path(Incarnation(2));
    wait_for(bucket.memory.put(&mark, lts::Payload::from("x"))).unwrap();
}

#[test]
pub(in crate::worker::tests) fn what_an_upload_of_an_earlier_incarnation_left_is_swept_after_the_adoption()
 {
    let (mut machine, bucket, orphan) = recovered_with_an_orphan(1);
    let is_there = || objects(&bucket.memory).contains_key(&orphan);
    let mut node = serving(&mut machine);
    live(&mut node, 150, 1_000);
    assert!(is_there(), "nobody has adopted it");
    adopt(&bucket);
    assert!(node.handle.look_after_storage());
    live(&mut node, 9, 2_000);
    assert!(is_there(), "the adoption was seen a moment ago");
    live(&mut node, 2, 3_000);
    assert!(!is_there());
    let others = ObjectName { group: GroupId(GROUP.0 + 1), ..orphan };
    assert!(objects(&bucket.memory).contains_key(&others), "it is another group's");
    node.check_payloads(&bucket.memory);
    // What is left is whole: the machine is lost once more.
    let stored = node.stored();
    drop(node);
    let mut machine = restoring::recovered(&machine, &bucket.memory);
    let mut node = serving(&mut machine);
    let again = node.stored();
    assert!(
        stored.keys().filter(|number| **number < 3_000).all(|number| again.contains_key(number))
    );
    node.check_payloads(&bucket.memory);
}

#[test]
fn a_cluster_that_lost_the_bucket_sweeps_nothing_of_before() {
    let (mut machine, bucket, orphan) = recovered_with_an_orphan(1);
    let mut node = serving(&mut machine);
    adopt(&bucket);
    let newer = ClusterMarker { incarnation: Incarnation(3), marker: 8 };
    wait_for(lts::cluster::claim(&bucket.memory, newer)).unwrap();
    live(&mut node, 150, 1_000);
    assert!(objects(&bucket.memory).contains_key(&orphan));
    let failure = node.handle.status().storage_failure.unwrap();
    assert!(failure.contains("was taken over by a recovery"), "{failure}");
}

/// Sweeps under faults until the machine goes down in the middle of it.
fn sweep_until_crash(machine: &mut Machine) {
    let Ok(mut node) = machine.open() else { return };
    for number in 0..100 {
        let Ok(answer) = propose(&node.handle, 1_000 + number, 500) else { return };
        node.machine.clock.advance(Duration::from_secs(60));
        drop(answer);
        if node.settle().is_err() {
            return;
        }
    }
}

#[test]
fn a_sweep_of_earlier_incarnations_goes_on_after_a_crash_at_any_moment() {
    for seed in 0..24 {
        let (mut machine, bucket, orphan) = recovered_with_an_orphan(seed);
        adopt(&bucket);
        bucket.faults.set_rates(FaultRates {
            error: 150,
            lost_answer: 150,
            ..FaultRates::default()
        });
        let mut rng = Rng::from_seed(seed);
        for _ in 0..2 {
            let before = machine.disk.operations();
            machine.disk.crash_at(before + rng.between(5, 300), CrashOutcome::Random);
            sweep_until_crash(&mut machine);
            machine.crash(CrashOutcome::Random);
        }
        bucket.faults.set_rates(FaultRates::default());
        let mut node = serving(&mut machine);
        live(&mut node, 90, 2_000);
        assert!(!objects(&bucket.memory).contains_key(&orphan), "seed {seed}");
        assert!(node.stored().len() >= 15 + 90, "seed {seed}");
        node.check_payloads(&bucket.memory);
        let status = node.handle.status();
        assert_eq!(status.storage_failure, None, "seed {seed}");
    }
}

/// A bucket that takes nothing new and deletes keeps the log full; that the deletion cannot be said
/// is no reason to do it again at once.
#[test]
fn a_deletion_that_finds_no_room_to_be_said_is_done_again_only_at_its_time() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    machine.storage.as_mut().unwrap().settings.grace = 5 * HOUR;
    let mut node = serving(&mut machine);
    live(&mut node, 15, 200_000);
    for number in 200_000..200_015 {
        forget(&mut node, number);
    }
    live(&mut node, 150, 200_100);
    bucket.faults.set_outage(Some(lts::ErrorKind::Full));
    fill_with_everything(&mut node, 20_000);
    let before = objects(&bucket.memory).len();
    node.machine.clock.advance(5 * HOUR);
    let steps = |node: &mut Node| {
        for _ in 0..200 {
            let step = node.step().unwrap();
            node.perform(step).unwrap();
        }
    };
    steps(&mut node);
    assert!(objects(&bucket.memory).len() < before, "something is deleted");
    // The next one would meet it.
    let struck = bucket.faults.struck();
    let denied = Fault::Error(lts::ErrorKind::Denied);
    bucket.faults.plan_fault(Operation::Delete, "", 0, denied);
    steps(&mut node);
    assert_eq!(bucket.faults.struck(), struck, "while no time passes");
}
