//! Garbage: what may be deleted, when, and what never.

use super::*;
use crate::archive::Kind;
use crate::tiering::adopted_path;

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
    let payload = objects(&bucket.memory).into_keys().filter(|name| {
        let head = wait_for(bucket.memory.get(&(*name).into(), 0..Kind::PEEK_BYTES as u64));
        Kind::peek(*name, &head.unwrap()).unwrap() == Kind::Packed
    });
    assert_eq!(payload.count(), 0);
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
    for number in 0..15 {
        forget(&mut node, number);
    }
    let newer = ClusterMarker { incarnation: Incarnation(2), marker: 8 };
    wait_for(lts::cluster::claim(&bucket.memory, newer)).unwrap();
    let before = objects(&bucket.memory);
    for _ in 0..200 {
        node.wait(Duration::from_secs(60));
    }
    let left = objects(&bucket.memory);
    assert!(before.keys().all(|name| left.contains_key(name)));
    let failure = node.handle.status().storage_failure.unwrap();
    assert!(failure.contains("has taken the bucket over"), "{failure}");
}

#[test]
fn what_was_put_before_a_recovery_stays_until_it_is_adopted() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    live(&mut node, 15, 0);
    drop(node);
    // What the lost cluster put and never said, as an upload that its end came upon.
    let term = common::Term(1);
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
    assert!(before.keys().all(|name| left.contains_key(name)), "{left:?}");
    let mark = adopted_path(Incarnation(2));
    wait_for(bucket.memory.put(&mark, lts::Payload::from("x"))).unwrap();
    live(&mut node, 150, 2_000);
    assert_eq!(objects(&bucket.memory).keys().filter(of_before).count(), 0);
    node.check_payloads(&bucket.memory);
}
