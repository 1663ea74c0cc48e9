//! The log on its way into a bucket, and back out of it.

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Incarnation, LogIndex, Rng};
use lts::{
    Bucket, ClusterMarker, Fault, FaultRates, Faults, Faulty, Guarded, ManualTimer, Memory,
    ObjectName, Operation, Owner,
};
use wal::CrashOutcome;

use super::*;
use crate::archive::{CheckpointSettings, Kind, RoundSettings};
use crate::{Inline, Storage, TieringSettings};

mod checking;
mod clocks;
pub(super) mod collecting;
mod crashing;
mod losing;
mod restoring;
pub(super) mod taking_over;

/// A bucket under a machine, with the faults in front of it.
pub(super) struct Attached {
    pub(super) memory: Memory,
    pub(super) faults: Arc<Faults>,
}

pub(super) fn settings() -> TieringSettings {
    TieringSettings {
        round_bytes: ByteSize::kib(16),
        round_age: Duration::from_secs(10),
        round_bytes_max: ByteSize::kib(24),
        // Some of a round is still in memory, and the rest is read from the log.
        kept_bytes: ByteSize(500),
        round: RoundSettings {
            object_bytes: ByteSize::kib(16),
            own_object_bytes: ByteSize::kib(8),
        },
        checkpoint_bytes: ByteSize::kib(64),
        checkpoint: CheckpointSettings { chunk_bytes: ByteSize(200) },
        ..TieringSettings::default()
    }
}

/// Gives the machine a bucket that outlives its crashes.
pub(super) fn attach(machine: &mut Machine) -> Attached {
    let memory = Memory::new(machine.clock.clone());
    let faults =
        attach_to(machine, &memory, ClusterMarker { incarnation: Incarnation(1), marker: 7 });
    Attached { memory, faults }
}

pub(super) fn attach_to(
    machine: &mut Machine,
    memory: &Memory,
    marker: ClusterMarker,
) -> Arc<Faults> {
    let timer = Arc::new(ManualTimer(machine.clock.clone()));
    let inner = Arc::new(memory.clone());
    let faulty = Faulty::new(inner, timer.clone(), machine.rng.fork("bucket faults"));
    let faults = faulty.faults();
    let clock: Arc<dyn Clock> = machine.clock.clone();
    let rng = machine.rng.fork("guarded");
    let settings_of_bucket = lts::Settings::default();
    let observer: lts::Observer = Arc::new(|_| ());
    let guarded =
        Guarded::new(Arc::new(faulty), &settings_of_bucket, clock.clone(), timer, rng, observer);
    let bucket: Arc<dyn Bucket> = Arc::new(guarded);
    machine.storage = Some(Storage {
        bucket: bucket.clone(),
        waiter: Arc::new(Inline),
        settings: settings(),
        owner: Some(Arc::new(Owner::new(bucket, clock, marker))),
        ready: tokio::sync::watch::channel(true).1,
        held: crate::Held::default(),
    });
    let memory = memory.clone();
    wait_for(async move { lts::cluster::claim(&memory, marker).await }).unwrap();
    faults
}

pub(super) fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
}

/// The names of all objects but the marker, with their bytes.
pub(super) fn objects(memory: &Memory) -> BTreeMap<ObjectName, usize> {
    let mut found = BTreeMap::new();
    let mut after = None;
    loop {
        let page = wait_for(memory.list("0", after.as_ref(), 1_000)).unwrap();
        let of = |o: &lts::Listed| (o.path.as_str().parse().unwrap(), o.length as usize);
        found.extend(page.objects.iter().map(of));
        after = page.objects.last().map(|last| last.path.clone());
        if !page.more {
            return found;
        }
    }
}

impl Node {
    /// Every payload that is in an object is what it was; how many are.
    pub(super) fn check_payloads(&mut self, memory: &Memory) -> usize {
        let locations = self.ask(|numbers| numbers.locations.clone());
        let mut found = 0;
        for (number, location) in locations {
            match location {
                Location::Log { index, .. } => assert!(index >= self.handle.status().first),
                Location::Nowhere => panic!("the payload of {number} is gone"),
                Location::Lost { .. } => {}
                Location::Object { rested, bytes } => {
                    let range = u64::from(rested.offset)..u64::from(rested.offset + bytes);
                    let read = wait_for(memory.get(&rested.object.into(), range)).unwrap();
                    assert!(read.iter().all(|byte| *byte == number as u8), "{number}");
                    assert_eq!(crc32fast::hash(&read), rested.crc);
                    found += 1;
                }
            }
        }
        found
    }
}

#[test]
fn a_group_that_was_added_behind_a_recovery_is_archived_too() {
    let mut machine = Machine::new(1);
    let memory = Memory::new(machine.clock.clone());
    attach_to(&mut machine, &memory, ClusterMarker { incarnation: Incarnation(2), marker: 7 });
    let mut node = serving(&mut machine);
    node.store(0);
    node.wait(Duration::from_secs(10));
    let archived = objects(&memory);
    assert!(!archived.is_empty());
    assert!(archived.keys().all(|name| name.incarnation == Incarnation(2)));
    let indexes = node.handle.status().archived;
    drop(node);
    let node = serving(&mut machine);
    assert!(node.handle.status().archived >= indexes, "a restart does not begin it anew");
}

#[test]
fn a_round_is_the_same_from_memory_from_the_log_and_from_both() {
    let objects_with = |kept_bytes| {
        let mut machine = Machine::new(1);
        let bucket = attach(&mut machine);
        machine.storage.as_mut().unwrap().settings.kept_bytes = kept_bytes;
        let mut node = serving(&mut machine);
        for number in 0..20 {
            node.store(number);
        }
        let kept = machine.storage.as_ref().unwrap().held.bytes();
        node.wait(Duration::from_secs(10));
        assert_eq!(node.check_payloads(&bucket.memory), 20);
        let whole = |(name, bytes): (ObjectName, usize)| {
            let read = wait_for(bucket.memory.get(&name.into(), 0..bytes as u64)).unwrap();
            (name, read)
        };
        let held = machine.storage.as_ref().unwrap().held.bytes();
        assert!(held < 1_000, "but for its own entry, what is archived is not kept: {held}");
        (kept, objects(&bucket.memory).into_iter().map(whole).collect::<Vec<_>>())
    };
    let (nothing, from_log) = objects_with(ByteSize(0));
    let (some, from_both) = objects_with(ByteSize(1_000));
    let (all, from_memory) = objects_with(ByteSize::mib(1));
    assert!(nothing < some && some <= 1_000 && all > 2_000, "{nothing} {some} {all}");
    assert!(from_log == from_both && from_log == from_memory);
}

#[test]
fn what_was_stored_is_archived_after_its_age_and_the_log_is_dropped_behind_it() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    for number in 0..5 {
        node.store(number);
    }
    let last = node.handle.status().applied;
    assert_eq!(node.handle.status().archived, LogIndex(0));
    assert!(node.handle.status().unarchived_bytes > 500);
    node.wait(Duration::from_secs(10));
    let status = node.handle.status();
    assert_eq!((status.archived, status.unarchived_since), (last, None));
    assert_eq!(objects(&bucket.memory).len(), 2, "an object and a footer");
    assert_eq!(node.check_payloads(&bucket.memory), 5);
    assert_eq!(node.handle.status().first, LogIndex(1), "the state is not saved yet");
    node.wait(Duration::from_secs(60));
    assert_eq!(node.handle.status().first, LogIndex(last.0 + 1));
    assert_eq!(node.check_payloads(&bucket.memory), 5);
}

#[test]
fn a_round_that_lacks_what_the_state_refers_to_stops_its_group_and_the_log_keeps_it() {
    let mut machine = Machine::new(1);
    let _bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    machine.journal.disowned.store(3, std::sync::atomic::Ordering::SeqCst);
    for number in 1..5 {
        node.store(number);
    }
    node.wait(Duration::from_secs(10));
    for _ in 0..2 {
        let status = node.handle.status();
        let reason = status.quarantined.expect("it must not go on");
        assert!(reason.contains("DATA_LOST") && reason.contains("payload of 3"), "{reason}");
        assert_eq!(status.first, LogIndex(1));
        // A restart finds the same; another group would not notice.
        drop(node);
        node = machine.open().unwrap();
        node.settle().unwrap();
    }
}

#[test]
fn an_idle_group_comes_to_rest() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    node.store(1);
    for _ in 0..70 {
        node.wait(Duration::from_secs(60));
    }
    let (at_rest, applied) = (objects(&bucket.memory), node.handle.status().applied);
    for _ in 0..70 {
        node.wait(Duration::from_secs(60));
    }
    assert_eq!((objects(&bucket.memory), node.handle.status().applied), (at_rest, applied));
    // Nor does a restart begin anything.
    drop(node);
    let mut node = serving(&mut machine);
    let before = objects(&bucket.memory);
    node.wait(Duration::from_secs(60));
    node.wait(Duration::from_secs(600));
    assert_eq!(objects(&bucket.memory), before);
}

#[test]
fn large_backlogs_are_archived_in_rounds_one_after_the_other() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    bucket.faults.set_outage(Some(lts::ErrorKind::Unavailable));
    let mut node = serving(&mut machine);
    for number in 0..60 {
        let mut answer = propose(&node.handle, number, 3_000).unwrap();
        node.settle().unwrap();
        answer.try_recv().unwrap().unwrap();
    }
    let status = node.handle.status();
    assert!(status.storage_failure.unwrap().contains("planned"));
    assert_eq!((status.archived, status.first), (LogIndex(0), LogIndex(1)));
    bucket.faults.set_outage(None);
    for _ in 0..30 {
        node.wait(Duration::from_secs(10));
    }
    let status = node.handle.status();
    assert_eq!((status.storage_failure, status.unarchived_since), (None, None));
    assert_eq!(node.check_payloads(&bucket.memory), 60);
    let footers = node.handle.status().archived;
    assert!(footers > LogIndex(60));
}

#[test]
fn a_full_log_is_archived_and_truncated_long_before_its_time() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    machine.storage.as_mut().unwrap().settings.round_age = Duration::from_secs(3_600);
    machine.storage.as_mut().unwrap().settings.round_bytes = ByteSize::gib(1);
    machine.settings.checkpoint_interval = Duration::from_secs(3_600);
    let mut node = serving(&mut machine);
    // Twice the log's budget.
    for number in 0..160 {
        let mut answer = propose(&node.handle, number, 50_000).unwrap();
        node.wait(Duration::from_millis(200));
        answer.try_recv().unwrap().unwrap();
    }
    assert!(node.check_payloads(&bucket.memory) > 80);
}

#[test]
fn what_an_idle_group_says_of_its_archive_does_not_hold_back_the_log_of_the_others() {
    let mut machine = Machine::new(1);
    let _bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    let idle = GroupId(GROUP.0 + 1);
    let numbers = Numbers::new(&Arc::new(Journal::default()));
    let idle = node.worker.add_group(GroupSpec::alone(idle), numbers).unwrap();
    node.settle().unwrap();
    let mut answer = propose(&idle, 1, 100).unwrap();
    node.wait(Duration::from_secs(10));
    answer.try_recv().unwrap().unwrap();
    node.wait(Duration::from_secs(60));
    let at_rest = idle.status();
    assert_eq!(at_rest.unarchived_since, None, "only housekeeping is left");
    // Several times the log's budget.
    for number in 0..400 {
        let mut answer = propose(&node.handle, number, 50_000).unwrap();
        node.wait(Duration::from_millis(200));
        answer.try_recv().unwrap().unwrap();
    }
    let moved = idle.status();
    assert!(moved.first > at_rest.last, "{at_rest:?}, then {moved:?}");
    assert!(moved.last.0 < at_rest.last.0 + 40, "it was asked a few times: {moved:?}");
    for _ in 0..70 {
        node.wait(Duration::from_secs(60));
    }
    let rested = idle.status();
    node.wait(Duration::from_secs(600));
    assert_eq!(idle.status().last, rested.last);
}

#[test]
fn every_answer_that_a_bucket_can_give_leads_to_the_same_archive() {
    for seed in 0..40 {
        let mut machine = Machine::new(seed);
        let bucket = attach(&mut machine);
        bucket.faults.set_rates(FaultRates {
            error: 150,
            lost_answer: 150,
            busy: 50,
            short_body: 100,
            ..FaultRates::default()
        });
        let mut node = serving(&mut machine);
        for number in 0..40 {
            let mut answer = propose(&node.handle, number, 1_000).unwrap();
            node.wait(Duration::from_secs(4));
            answer.try_recv().unwrap().unwrap();
        }
        bucket.faults.set_rates(FaultRates::default());
        for _ in 0..20 {
            node.wait(Duration::from_secs(60));
        }
        assert_eq!(node.handle.status().unarchived_since, None, "seed {seed}");
        assert_eq!(node.check_payloads(&bucket.memory), 40);
    }
}

#[test]
pub(super) fn a_footer_is_put_when_what_it_names_is_there() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    let full = Fault::Error(lts::ErrorKind::Full);
    bucket.faults.plan_fault(Operation::Put, "0001/", 1, full);
    let mut node = serving(&mut machine);
    node.store(1);
    node.wait(Duration::from_secs(10));
    let only: Vec<ObjectName> = objects(&bucket.memory).into_keys().collect();
    assert_eq!(only.len(), 1, "the second put failed");
    let head = wait_for(bucket.memory.get(&only[0].into(), 0..Kind::PEEK_BYTES as u64)).unwrap();
    assert_eq!(Kind::peek(only[0], &head), Ok(Kind::Packed));
}

#[test]
fn a_put_that_lasts_does_not_keep_the_group_from_working() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    bucket.faults.plan_fault(Operation::Put, "0001/", 0, Fault::Hang);
    let mut node = serving(&mut machine);
    node.store(1);
    node.machine.clock.advance(Duration::from_secs(10));
    let mut jobs = Vec::new();
    loop {
        let mut step = node.step().unwrap();
        let busy = step.more || step.write.is_some() || step.wants_files;
        jobs.append(&mut step.storage);
        node.perform(step).unwrap();
        if !busy {
            break;
        }
    }
    assert_eq!(jobs.iter().filter(|job| job.kind() == crate::JobKind::Round).count(), 1);
    node.store(2);
    for job in jobs {
        let done = job.perform(&node.workshop());
        node.worker.storage_done(done).unwrap();
    }
    node.settle().unwrap();
    assert!(node.check_payloads(&bucket.memory) >= 1, "the put was tried again");
    node.wait(Duration::from_secs(10));
    assert_eq!(node.check_payloads(&bucket.memory), 2);
}

/// Fills the log while the bucket does not answer, then has it emptied; how much is used then.
fn used_after_a_full_log_was_emptied(machine: &mut Machine, payload: usize) -> u64 {
    let bucket = attach(machine);
    let settings = &mut machine.storage.as_mut().unwrap().settings;
    settings.round_bytes_max = TieringSettings::round_bytes_least(&machine.settings.log);
    bucket.faults.set_outage(Some(lts::ErrorKind::Unavailable));
    let mut node = serving(machine);
    let mut stored = 0;
    loop {
        let mut answer = propose(&node.handle, stored, payload).unwrap();
        node.settle().unwrap();
        match answer.try_recv() {
            Ok(Ok(_)) => stored += 1,
            Ok(Err(ProposeError::LogFull)) => break,
            other => panic!("{other:?}"),
        }
    }
    bucket.faults.set_outage(None);
    for _ in 0..5_000 {
        node.wait(Duration::from_millis(100));
        if node.handle.status().unarchived_since.is_none() {
            assert_eq!(node.check_payloads(&bucket.memory) as u64, stored);
            return node.log.usage().used;
        }
    }
    panic!("{:?}, {:?}", node.handle.status(), node.log.usage());
}

/// The entries of rounds of a single block would need more room than the rounds make.
#[test]
fn rounds_of_the_least_size_empty_a_full_log_within_the_files_that_are_kept_for_it() {
    for payload in [100, 1_000, 3_000, 10_000, 50_000] {
        let mut machine = Machine::new(1);
        let used = used_after_a_full_log_was_emptied(&mut machine, payload);
        let kept = 4 * machine.settings.log.file_size.bytes();
        // And the file that is written to, and one that is not let go yet.
        let most = kept + 2 * machine.settings.log.file_size.bytes();
        assert!(used <= most, "{payload}: {used} bytes are used, {kept} are kept");
    }
}

/// Stores with a second group beside a first one, until it is refused or this many are stored.
fn store_beside(node: &mut Node, other: &GroupHandle<Numbers>, from: u64, count: u64) -> u64 {
    for number in from..from + count {
        let answer = propose(other, number, 20_000);
        node.wait(Duration::from_millis(300));
        match answer.map(|mut answer| answer.try_recv()) {
            Ok(Ok(Ok(_))) => {}
            Ok(Ok(Err(ProposeError::LogFull))) | Err(ProposeError::LogFull) => {
                return number - from;
            }
            other => panic!("{other:?}"),
        }
    }
    count
}

#[test]
fn a_group_that_has_stopped_with_little_in_the_log_does_not_fill_it_for_others() {
    let mut machine = Machine::new(1);
    machine.settings.log.group_share_percent = 25;
    let _bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    let other = GroupSpec::alone(GroupId(GROUP.0 + 1));
    let other = node.worker.add_group(other, Numbers::new(&Arc::default())).unwrap();
    node.settle().unwrap();
    // A few bytes, then it stops for good.
    node.store(1);
    drop(propose(&node.handle, PANIC, 0).unwrap());
    node.settle().unwrap();
    assert!(node.handle.status().quarantined.is_some());
    // Five times what the log holds.
    assert_eq!(store_beside(&mut node, &other, 0, 1_000), 1_000);
    let held = node.log.usage().groups[0];
    assert!(held.bytes > 0 && held.files_held < 32, "it keeps what it has: {held:?}");
    for _ in 0..200 {
        node.wait(Duration::from_secs(10));
    }
    let status = other.status();
    assert_eq!(status.unarchived_since, None, "{status:?}");
    assert_eq!(store_beside(&mut node, &other, 7_777, 1), 1);
}

/// Fills the log with what clients store, then with what is let in although it is full.
fn fill_with_everything(node: &mut Node, bytes: usize) {
    let mut stored = 0;
    while let Ok(mut answer) = propose(&node.handle, stored, 20_000) {
        node.wait(Duration::from_millis(200));
        match answer.try_recv().unwrap() {
            Ok(_) => stored += 1,
            Err(error) => {
                assert_eq!(error, ProposeError::LogFull);
                break;
            }
        }
    }
    for number in 100_000..120_000 {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        let proposal = proposal(number, bytes).exempt().reply(crate::Reply::Once(reply));
        assert!(node.handle.propose(proposal).is_ok());
        for _ in 0..30 {
            let step = node.step().unwrap();
            node.perform(step).unwrap();
        }
        match answer.try_recv().expect("nothing waits for space that may never come") {
            Ok(_) => {}
            Err(error) => {
                assert!(number > 100_000, "something of it is let in");
                return assert_eq!(error, ProposeError::LogFull);
            }
        }
    }
    panic!("the log is never full");
}

#[test]
fn what_frees_space_leaves_the_log_what_archiving_needs() {
    for bytes in [100, 20_000] {
        let mut machine = Machine::new(1);
        let bucket = attach(&mut machine);
        bucket.faults.set_outage(Some(lts::ErrorKind::Unavailable));
        let mut node = serving(&mut machine);
        fill_with_everything(&mut node, bytes);
        bucket.faults.set_outage(None);
        for _ in 0..2_000 {
            node.machine.clock.advance(Duration::from_secs(1));
            for _ in 0..10 {
                let step = node.step().unwrap();
                node.perform(step).unwrap();
            }
            if node.handle.status().unarchived_since.is_none() {
                break;
            }
        }
        (0..20).for_each(|_| node.wait(Duration::from_secs(10)));
        let status = node.handle.status();
        assert_eq!((status.unarchived_since, status.storage_failure), (None, None));
        assert!(status.first.0 + 10 > status.last.0, "{bytes}: the log is dropped");
        node.store(9_999);
    }
}
