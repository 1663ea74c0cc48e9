//! A bucket that is taken over while the node before still has requests on their way: what arrives
//! late takes nothing from the recovered cluster, and adds nothing to it.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use raft::eraftpb::ConfState;
use rstest::rstest;
use wal::{Batch, ConfRef};

use super::restoring::recovered_from;
use super::*;
use crate::recover::Found;
use crate::restore::{Chain, RestoreFailure};
use crate::worker::Step;
use crate::{GroupSpec, JobKind, check};

/// What is referred to and read by a recovery that takes the bucket over now.
fn needed(machine: &Machine) -> BTreeSet<ObjectName> {
    let storage = machine.storage.as_ref().unwrap();
    let found = match check::bring_back(storage, GROUP, Numbers::new(&Arc::default())) {
        Ok(found) => found,
        Err(RestoreFailure::Nothing) => return BTreeSet::new(),
        Err(broken) => panic!("{broken}"),
    };
    let footers = found.chain.footers.iter().map(|footer| footer.reference.name);
    let copy = found.chain.checkpoint.iter().flat_map(|(committed, _)| committed.names());
    let kept = found.archive.checkpoints().values().flat_map(|kept| kept.committed.names());
    let rounds = found.archive.rounds().values().map(|round| round.footer.name);
    let payload = found.archive.objects().keys().copied();
    footers.chain(copy).chain(kept).chain(rounds).chain(payload).collect()
}

/// Steps until nothing is left to do, and sees that no job takes anything from a recovery that had
/// taken the bucket over just before the job's requests arrived. How many deleted something.
fn settle_before_recoveries(node: &mut Node, bucket: &Attached) -> usize {
    let mut deletions = 0;
    loop {
        let mut step = node.step().unwrap();
        let jobs = std::mem::take(&mut step.storage);
        let busy = step.more || step.wants_files || step.write.is_some() || !jobs.is_empty();
        node.perform(step).unwrap();
        for job in jobs {
            let (needed, before) = (needed(&node.machine), objects(&bucket.memory));
            let kind = job.kind();
            let done = job.perform(&node.workshop());
            let after = objects(&bucket.memory);
            let gone = needed.iter().find(|name| !after.contains_key(name));
            assert_eq!(gone, None, "a {kind:?} takes it from a recovery");
            deletions += usize::from(before.keys().any(|name| !after.contains_key(name)));
            node.worker.storage_done(done).unwrap();
        }
        if !busy {
            return deletions;
        }
    }
}

/// Steps until nothing is left to do but what has to do with the bucket, which is not done.
fn settle_without_jobs(node: &mut Node) {
    loop {
        let step = Step { storage: Vec::new(), ..node.step().unwrap() };
        let busy = step.more || step.wants_files || step.write.is_some();
        node.perform(step).unwrap();
        if !busy {
            return;
        }
    }
}

/// Lets the next round be uploaded, and never told: what it put.
fn upload_untold(node: &mut Node, bucket: &Attached) -> BTreeSet<ObjectName> {
    let before = objects(&bucket.memory);
    node.machine.clock.advance(Duration::from_secs(10));
    loop {
        let mut step = node.step().unwrap();
        let jobs = std::mem::take(&mut step.storage);
        node.perform(step).unwrap();
        for job in jobs {
            let kind = job.kind();
            let done = job.perform(&node.workshop());
            assert!(done.failure().is_none(), "{:?}", done.failure());
            if kind == JobKind::Round {
                let after = objects(&bucket.memory).into_keys();
                return after.filter(|name| !before.contains_key(name)).collect();
            }
            node.worker.storage_done(done).unwrap();
        }
    }
}

/// A round of these numbers that a crash kept from being told, and the group at its next start.
fn with_an_untold_round(numbers: u64) -> (Machine, Attached, Node, BTreeSet<ObjectName>) {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    let settings = &mut machine.storage.as_mut().unwrap().settings;
    (settings.round_bytes, settings.round_bytes_max) = (ByteSize::mib(1), ByteSize::mib(1));
    let mut node = serving(&mut machine);
    node.store(0);
    node.wait(Duration::from_secs(10));
    for number in 1..=numbers {
        drop(propose(&node.handle, number, 100).unwrap());
    }
    settle_without_jobs(&mut node);
    let untold = upload_untold(&mut node, &bucket);
    assert!(untold.len() > 1, "objects and a footer");
    drop(node);
    machine.crash(CrashOutcome::Kept);
    let node = machine.open().unwrap();
    (machine, bucket, node, untold)
}

#[test]
pub(in crate::worker::tests) fn what_a_recovery_may_end_with_is_swept_when_a_later_round_counts() {
    let (_machine, bucket, mut node, untold) = with_an_untold_round(2);
    let deletions = settle_before_recoveries(&mut node, &bucket);
    assert!(deletions > 0, "a later round was made for it");
    let left = objects(&bucket.memory);
    assert!(untold.iter().all(|name| !left.contains_key(name)), "{left:?}");
    assert_eq!(node.check_payloads(&bucket.memory), 3);
}

#[test]
fn an_idle_group_sweeps_what_lies_above_its_last_round_and_comes_to_rest() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    node.store(1);
    for _ in 0..70 {
        node.wait(Duration::from_secs(60));
    }
    let tip = *objects(&bucket.memory).keys().next_back().unwrap();
    let orphan = ObjectName { sequence: tip.sequence + (9 << 20), ..tip };
    wait_for(bucket.memory.put(&orphan.into(), lts::Payload::from("x"))).unwrap();
    drop(node);
    let mut node = serving(&mut machine);
    assert!(!objects(&bucket.memory).contains_key(&orphan));
    let (at_rest, applied) = (objects(&bucket.memory), node.handle.status().applied);
    for _ in 0..70 {
        node.wait(Duration::from_secs(60));
    }
    assert_eq!((objects(&bucket.memory), node.handle.status().applied), (at_rest, applied));
}

#[test]
fn no_deletion_takes_anything_from_a_recovery_whenever_it_arrives() {
    let mut deletions = 0;
    for seed in 0..6 {
        let mut machine = Machine::new(seed);
        let bucket = attach(&mut machine);
        let settings = &mut machine.storage.as_mut().unwrap().settings;
        settings.checkpoint_keep = Duration::from_secs(120);
        settings.grace = Duration::from_secs(60);
        settings.sweep_interval = Duration::from_secs(100);
        let mut rng = Rng::from_seed(seed);
        for life in 0..8 {
            let mut node = machine.open().unwrap();
            for number in life * 100..life * 100 + rng.between(3, 15) {
                deletions += settle_before_recoveries(&mut node, &bucket);
                let number = if number % 3 == 2 { FORGET | (number - 1) } else { number };
                drop(propose(&node.handle, number, 1_000));
                node.machine.clock.advance(Duration::from_secs(rng.between(1, 60)));
            }
            deletions += settle_before_recoveries(&mut node, &bucket);
            if rng.below(3) > 0 {
                node.store(life * 100 + 90);
                upload_untold(&mut node, &bucket);
            }
            drop(node);
            machine.crash(CrashOutcome::Kept);
        }
    }
    assert!(deletions > 20, "{deletions}");
}

/// Objects that were put, on their way again.
struct OnTheirWay(Vec<(ObjectName, Vec<u8>)>);

impl OnTheirWay {
    fn take(bucket: &Attached, names: &BTreeSet<ObjectName>) -> Self {
        let lengths = objects(&bucket.memory);
        let taken = names.iter().map(|name| {
            let paths = [(*name).into()];
            let read = bucket.memory.get(&paths[0], 0..lengths[name] as u64);
            let bytes = wait_for(read).unwrap().to_vec();
            wait_for(bucket.memory.delete(&paths)).unwrap();
            (*name, bytes)
        });
        Self(taken.collect())
    }

    fn arrive(self, memory: &Memory) {
        for (name, bytes) in self.0 {
            wait_for(memory.put(&name.into(), lts::Payload::from(bytes))).unwrap();
        }
    }
}

/// The lost node was archiving the entries of an untold round anew, and others with them or not all
/// of them, when the recovery chose that one.
fn recovered_before_a_late_round(bytes: ByteSize) -> (Machine, Attached, Found) {
    let (mut machine, bucket, node, untold) = with_an_untold_round(6);
    drop(node);
    machine.storage.as_mut().unwrap().settings.round_bytes_max = bytes;
    let mut node = machine.open().unwrap();
    settle_without_jobs(&mut node);
    for number in 7..16 {
        drop(propose(&node.handle, number, 500).unwrap());
        settle_without_jobs(&mut node);
    }
    let late = upload_untold(&mut node, &bucket);
    assert!(untold.iter().all(|name| objects(&bucket.memory).contains_key(name)));
    drop(node);
    let late = OnTheirWay::take(&bucket, &late);
    let (machine, found) = recovered_from(&machine, &bucket.memory, || late.arrive(&bucket.memory));
    (machine, bucket, found)
}

#[rstest]
#[case::that_reaches_further(ByteSize::kib(24), Ordering::Greater)]
#[case::that_reaches_less_far(ByteSize(300), Ordering::Less)]
fn a_round_that_arrives_when_a_recovery_has_chosen_its_last_one_changes_nothing(
    #[case] bytes: ByteSize,
    #[case] reaches: Ordering,
) {
    let (mut machine, bucket, found) = recovered_before_a_late_round(bytes);
    let newest = Chain::find(machine.storage.as_ref().unwrap(), GROUP, None).unwrap();
    assert_eq!(newest.end().0.cmp(&found.end), reaches);
    let spec = GroupSpec { recover: Some(Incarnation(2)), ..GroupSpec::alone(GROUP) };
    let mut node = machine.open_as(spec.clone()).unwrap();
    node.settle().unwrap();
    assert_eq!(node.stored().len(), 7);
    assert_eq!(node.check_payloads(&bucket.memory), 7);
    drop(node);
    // The state is lost before the first round of the new incarnation, and once more behind it.
    for number in [100, 200] {
        machine.kv.wipe();
        let mut node = machine.open_as(spec.clone()).unwrap();
        node.settle().unwrap();
        assert!(node.handle.status().archived >= found.end);
        node.store(number);
        node.wait(Duration::from_secs(60));
        assert_eq!(node.handle.status().unarchived_since, None);
        node.check_payloads(&bucket.memory);
    }
    machine.kv.wipe();
    let mut node = serving(&mut machine);
    assert_eq!(node.stored().len(), 9);
}

/// The group's log says that it has another member.
fn add_learner(machine: &mut Machine, end: LogIndex) {
    let (disk, settings) = (Arc::new(machine.disk.clone()), machine.settings.log.clone());
    let opened = Log::open(disk, settings, machine.clock.clone(), machine.rng.fork("learner"));
    let (log, _) = opened.unwrap();
    let bytes = crate::conf::encode(&ConfState::from((vec![1], vec![2])));
    let conf = Some(ConfRef { index: end, bytes: &bytes });
    log.append(&Batch { group: GROUP, conf, ..Batch::default() }).unwrap();
    while let Some(mut write) = log.begin_write() {
        let result = write.perform();
        log.finish_write(write, result).unwrap();
    }
}

#[rstest]
#[case::that_reaches_further(ByteSize::kib(24), Ordering::Greater)]
#[case::that_reaches_less_far(ByteSize(300), Ordering::Less)]
fn a_member_of_a_recovered_group_is_not_installed_from_a_round_that_arrived_late(
    #[case] bytes: ByteSize,
    #[case] reaches: Ordering,
) {
    let (mut machine, _, found) = recovered_before_a_late_round(bytes);
    let newest = Chain::find(machine.storage.as_ref().unwrap(), GROUP, None).unwrap();
    assert_eq!(newest.end().0.cmp(&found.end), reaches);
    // With a peer, its state is not brought back at its start, but installed.
    add_learner(&mut machine, found.end);
    machine.kv.wipe();
    let mut node = machine.open().unwrap();
    assert_eq!(node.handle.status().installing, Some(found.end));
    node.settle().unwrap();
    let status = node.handle.status();
    let first = LogIndex(found.end.0 + 1);
    assert_eq!((status.installing, status.first), (None, first), "{status:?}");
    assert_eq!(node.stored().len(), 7);
}

#[test]
fn a_recovery_that_crashes_anywhere_takes_all_of_its_last_rounds_over() {
    let (numbers, mut crashes) = (300, 0);
    for operation in 1..40 {
        // The entry that takes over so many places is in a block of its own.
        let (lost, bucket, node, _) = with_an_untold_round(numbers);
        drop(node);
        let (mut machine, _) = recovered_from(&lost, &bucket.memory, || ());
        machine.settings.log.block_size = ByteSize::kib(8);
        // And the state is saved again and again.
        machine.settings.checkpoint_interval = Duration::from_micros(1);
        let before = machine.disk.operations();
        machine.disk.crash_at(before + operation, CrashOutcome::Lost);
        let spec = GroupSpec { recover: Some(Incarnation(2)), ..GroupSpec::alone(GROUP) };
        let crashed = match machine.open_as(spec.clone()) {
            Ok(mut node) => (0..60).any(|_| {
                node.machine.clock.advance(Duration::from_micros(1));
                node.step().and_then(|step| node.perform(step)).is_err()
            }),
            Err(_) => true,
        };
        crashes += u64::from(crashed);
        machine.crash(CrashOutcome::Lost);
        machine.settings.checkpoint_interval = Duration::from_secs(60);
        let mut node = machine.open_as(spec).unwrap();
        node.settle().unwrap();
        assert_eq!(
            node.check_payloads(&bucket.memory),
            1 + numbers as usize,
            "crash in operation {operation}"
        );
        node.store(1_000_000);
        node.wait(Duration::from_secs(60));
        assert_eq!(node.handle.status().unarchived_since, None, "crash in operation {operation}");
    }
    assert!(crashes > 5, "{crashes}");
}
