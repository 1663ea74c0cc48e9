//! Followers behind what the others have of the log.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::Incarnation;
use futures::future::BoxFuture;
use lts::{ClusterMarker, ErrorKind, Faults, Memory};

use super::*;
use crate::testing::{Location, Shown};
use crate::{Inline, Waiter};

/// A cluster whose members archive into one bucket, each over a way of its own.
pub(super) struct Archiving {
    pub(super) cluster: Cluster,
    pub(super) memory: Memory,
    pub(super) faults: BTreeMap<u64, Arc<Faults>>,
}

impl Archiving {
    pub(super) fn new(seed: u64, voters: &[u64], learners: &[u64]) -> Self {
        Self::of(seed, voters, learners, ByteSize::mib(1))
    }

    pub(super) fn of(seed: u64, voters: &[u64], learners: &[u64], budget: ByteSize) -> Self {
        let mut cluster = Cluster::new(seed, voters, learners);
        let first = cluster.members.values().next().unwrap();
        let memory = Memory::new(first.machine.clock.clone());
        let mut faults = BTreeMap::new();
        for (peer, member) in &mut cluster.members {
            let marker = ClusterMarker { incarnation: Incarnation(1), marker: 7 };
            faults.insert(*peer, attach_to(&mut member.machine, &memory, marker));
            member.machine.shown = Some(Arc::default());
            let log = &mut member.machine.settings.log;
            (log.budget, log.file_size) = (budget, ByteSize::kib(64));
            log.entry_max = ByteSize::kib(32);
        }
        cluster.peers().into_iter().for_each(|peer| cluster.start(peer));
        Self { cluster, memory, faults }
    }

    pub(super) fn rounds(&mut self, count: usize) {
        (0..count).for_each(|_| self.cluster.calm_round());
    }

    /// One that leads, once it does.
    fn led(&mut self) -> u64 {
        self.rounds(40);
        self.cluster.leader()
    }

    fn follower(&mut self) -> u64 {
        let leader = self.led();
        self.cluster.peers().into_iter().rfind(|peer| *peer != leader).unwrap()
    }

    /// Works until the leader's log begins behind this entry.
    pub(super) fn work_past(&mut self, index: LogIndex) {
        for _ in 0..400 {
            if self.cluster.status(self.cluster.leader()).first.0 > index.0 + 1 {
                return;
            }
            self.cluster.propose_bytes(20_000);
            self.rounds(3);
        }
        let leader = self.cluster.leader();
        let log = &self.cluster.members[&leader].node.as_ref().unwrap().log;
        panic!("the log is not dropped: {:?}, {:?}", self.cluster.status(leader), log.usage());
    }

    /// A follower that was down while the log was dropped behind it, and is still.
    pub(super) fn left_behind(&mut self) -> u64 {
        let follower = self.follower();
        (0..20).for_each(|_| self.cluster.propose());
        self.rounds(5);
        let last = self.cluster.status(follower).last;
        self.cluster.crash(follower, CrashOutcome::Random);
        self.work_past(last);
        follower
    }

    /// Waits until the member is being installed; says to which entry.
    fn installing(&mut self, peer: u64) -> LogIndex {
        let installing = (0..200).find_map(|_| {
            self.rounds(1);
            self.cluster.status(peer).installing
        });
        installing.expect("a snapshot arrives")
    }

    /// Lets everybody come to rest and archive everything, and compares all there is.
    pub(super) fn agree(&mut self) {
        self.cluster.heal();
        for _ in 0..3 {
            self.cluster.propose();
            self.rounds(20);
            for member in self.cluster.members.values() {
                member.machine.clock.advance(Duration::from_secs(30));
            }
            self.rounds(20);
        }
        self.cluster.heal();
        self.cluster.check();
        let shown = |peer: &u64| self.cluster.members[peer].machine.shown.clone().unwrap();
        let shown = |peer: &u64| shown(peer).lock().unwrap().clone();
        let all: Vec<Shown> = self.cluster.peers().iter().map(shown).collect();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "members differ");
        for location in all[0].locations.values() {
            match location {
                Location::Log { index, .. } => assert!(*index >= self.cluster.statuses()[0].first),
                Location::Nowhere => panic!("payload is gone"),
                Location::Lost { .. } => panic!("nothing was repaired"),
                Location::Object { .. } => {}
            }
        }
        let leader = self.cluster.leader();
        let memory = self.memory.clone();
        self.check_payloads(&all[0], &memory);
        assert_eq!(self.cluster.status(leader).unarchived_since, None);
    }

    fn check_payloads(&self, shown: &Shown, memory: &Memory) {
        for (number, location) in &shown.locations {
            let Location::Object { rested, bytes } = location else { continue };
            let range = u64::from(rested.offset)..u64::from(rested.offset + bytes);
            let read = memory_get(memory, rested.object.into(), range);
            assert!(read.iter().all(|byte| *byte == *number as u8), "{number}");
        }
    }

    pub(super) fn machine(&mut self, peer: u64) -> &mut Machine {
        &mut self.cluster.members.get_mut(&peer).unwrap().machine
    }
}

fn memory_get(memory: &Memory, path: lts::ObjectPath, range: std::ops::Range<u64>) -> bytes::Bytes {
    use lts::Bucket;
    let memory = memory.clone();
    archive::wait_for(async move { memory.get(&path, range).await }).unwrap()
}

#[rstest]
#[case::a_voter(&[1, 2, 3], &[])]
#[case::a_learner(&[1], &[2])]
fn a_follower_that_was_down_while_the_log_was_dropped_behind_it_comes_back(
    #[case] voters: &[u64],
    #[case] learners: &[u64],
) {
    for wiped in [false, true] {
        let mut archiving = Archiving::new(1, voters, learners);
        let follower = archiving.left_behind();
        if wiped {
            archiving.machine(follower).kv.wipe();
        }
        archiving.faults[&follower].set_outage(Some(ErrorKind::Unavailable));
        archiving.cluster.start(follower);
        archiving.installing(follower);
        archiving.faults[&follower].set_outage(None);
        archiving.agree();
        assert_eq!(archiving.cluster.status(follower).installing, None);
        // What it was given survives, and it may lead.
        archiving.cluster.crash(follower, CrashOutcome::Lost);
        archiving.cluster.start(follower);
        archiving.agree();
    }
}

#[test]
fn a_follower_that_is_a_little_behind_is_waited_for() {
    let mut archiving = Archiving::new(2, &[1, 2, 3], &[]);
    let follower = archiving.follower();
    archiving.cluster.propose();
    archiving.rounds(5);
    let last = archiving.cluster.status(follower).last;
    archiving.cluster.cut_off.insert(follower);
    for _ in 0..15 {
        archiving.cluster.propose_bytes(5_000);
        archiving.rounds(10);
    }
    let status = archiving.cluster.status(archiving.cluster.leader());
    assert!(status.archived.0 > last.0 + 10 && status.checkpointed.0 > last.0 + 10, "{status:?}");
    assert!(status.first.0 <= last.0 + 1, "{status:?}");
    archiving.agree();
    assert!(archiving.cluster.status(follower).first.0 > last.0 + 1, "everybody drops it then");
}

#[test]
fn a_state_that_is_lost_is_brought_back_without_keeping_the_node_from_starting() {
    let mut archiving = Archiving::new(3, &[1, 2, 3], &[]);
    let follower = archiving.follower();
    archiving.work_past(LogIndex(30));
    for _ in 0..100 {
        archiving.cluster.propose();
        archiving.rounds(3);
    }
    assert!(archiving.cluster.status(follower).first > LogIndex(1));
    archiving.cluster.crash(follower, CrashOutcome::Random);
    archiving.machine(follower).kv.wipe();
    archiving.faults[&follower].set_outage(Some(ErrorKind::Unavailable));
    archiving.cluster.start(follower);
    archiving.rounds(50);
    let status = archiving.cluster.status(follower);
    assert!(status.installing.is_some(), "{status:?}");
    assert!(status.storage_failure.is_some(), "{status:?}");
    archiving.faults[&follower].set_outage(None);
    archiving.agree();
}

#[test]
fn an_install_waits_out_an_outage_and_begins_anew_where_the_log_is_dropped_meanwhile() {
    let mut archiving = Archiving::new(4, &[1, 2, 3], &[]);
    let follower = archiving.left_behind();
    archiving.faults[&follower].set_outage(Some(ErrorKind::Unavailable));
    archiving.cluster.start(follower);
    let first = archiving.installing(follower);
    archiving.cluster.propose();
    archiving.rounds(30);
    let leader = archiving.cluster.leader();
    assert!(archiving.cluster.status(leader).serving, "two of three go on");
    archiving.work_past(first);
    archiving.faults[&follower].set_outage(None);
    archiving.agree();
    assert!(archiving.cluster.status(follower).first.0 > first.0 + 1);
}

#[test]
fn an_install_whose_objects_are_gone_moves_on_to_a_later_round() {
    let mut archiving = Archiving::new(5, &[1, 2, 3], &[]);
    let follower = archiving.left_behind();
    archiving.faults[&follower].set_outage(Some(ErrorKind::Unavailable));
    archiving.cluster.start(follower);
    let mark = archiving.installing(follower);
    // Hours with something to do: checkpoints take the place of others, rounds are collected.
    for _ in 0..200 {
        for peer in archiving.cluster.peers() {
            // No write is under way for that long.
            archiving.cluster.work(peer);
            archiving.cluster.members[&peer].machine.clock.advance(Duration::from_secs(60));
        }
        archiving.cluster.propose();
        archiving.rounds(8);
    }
    assert_eq!(archiving.cluster.status(follower).installing, Some(mark));
    archiving.faults[&follower].set_outage(None);
    let moved = (0..2_000).any(|_| {
        archiving.rounds(1);
        archiving.cluster.status(follower).installing.is_some_and(|now| now > mark)
    });
    assert!(moved, "{:?}", archiving.cluster.status(follower));
    archiving.agree();
}

/// What the log of a member says of its group.
fn logged(archiving: &Archiving, peer: u64) -> wal::GroupState {
    archiving.cluster.members[&peer].node.as_ref().unwrap().log.group(GROUP).unwrap()
}

#[test]
fn an_install_that_moves_on_into_a_later_term_promises_nothing_of_the_one_before() {
    let mut archiving = Archiving::new(5, &[1, 2, 3], &[]);
    let follower = archiving.left_behind();
    archiving.faults[&follower].set_outage(Some(ErrorKind::Unavailable));
    archiving.cluster.start(follower);
    let mark = archiving.installing(follower);
    let before = logged(&archiving, follower).hard_state.term;
    for _ in 0..200 {
        if archiving.cluster.status(archiving.cluster.leader()).term <= before {
            let leader = archiving.cluster.leader();
            archiving.cluster.crash(leader, CrashOutcome::Lost);
            archiving.cluster.start(leader);
            archiving.led();
        }
        for member in archiving.cluster.members.values() {
            member.machine.clock.advance(Duration::from_secs(60));
        }
        archiving.cluster.propose();
        archiving.rounds(8);
    }
    archiving.faults[&follower].set_outage(None);
    let moved = (0..2_000).any(|_| {
        archiving.rounds(1);
        archiving.cluster.status(follower).installing.is_some_and(|now| now > mark)
    });
    assert!(moved, "{:?}", archiving.cluster.status(follower));
    let found = logged(&archiving, follower);
    assert!(found.truncated.term > before, "{found:?}");
    assert!(found.hard_state.term >= found.truncated.term, "{found:?}");
    archiving.agree();
}

#[test]
fn an_install_begins_when_its_mark_is_durable_and_not_before() {
    let mut archiving = Archiving::new(8, &[1, 2, 3], &[]);
    let follower = archiving.left_behind();
    archiving.cluster.start(follower);
    let cluster = &mut archiving.cluster;
    let mut held = 0;
    for _ in 0..400 {
        cluster.tick();
        for peer in cluster.peers() {
            cluster.step(peer);
            // Its disk writes nothing any more from when the snapshot is there.
            if peer == follower && cluster.status(follower).installing.is_some() {
                held += 1;
                continue;
            }
            cluster.work(peer);
            cluster.step(peer);
        }
        cluster.deliver_all();
        cluster.collect();
        let work = &cluster.members[&follower].work;
        assert!(held == 0 || work.iter().all(|step| step.storage.is_empty()), "after {held}");
        if held == 20 {
            break;
        }
    }
    assert_eq!(held, 20, "a snapshot arrives");
    archiving.agree();
}

#[test]
fn an_install_follows_its_mark_and_does_not_look_through_the_bucket() {
    let mut archiving = Archiving::new(9, &[1, 2, 3], &[]);
    let follower = archiving.left_behind();
    let faults = archiving.faults[&follower].clone();
    let before = faults.struck();
    let fault = lts::Fault::Error(ErrorKind::Unavailable);
    faults.plan_fault(lts::Operation::List, "", 0, fault);
    archiving.cluster.start(follower);
    archiving.installing(follower);
    let done = (0..400).any(|_| {
        archiving.rounds(1);
        archiving.cluster.status(follower).installing.is_none()
    });
    assert!(done, "{:?}", archiving.cluster.status(follower));
    assert_eq!(faults.struck(), before, "it asked for what the mark names alone");
}

/// Lets so many requests pass, and then none.
struct StopsAfter {
    left: AtomicU64,
    stopped: AtomicBool,
}

impl StopsAfter {
    fn new(requests: u64) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(requests), stopped: AtomicBool::new(false) })
    }
}

impl Waiter for StopsAfter {
    fn wait(&self, future: BoxFuture<'static, ()>) {
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            self.stopped.store(true, Ordering::SeqCst);
            return;
        }
        self.left.store(left - 1, Ordering::SeqCst);
        Inline.wait(future);
    }
}

#[test]
fn an_install_that_crashes_at_any_request_to_the_bucket_ends_well() {
    let mut requests = 0;
    loop {
        let mut archiving = Archiving::new(6, &[1, 2, 3], &[]);
        let follower = archiving.left_behind();
        let waiter = StopsAfter::new(requests);
        archiving.machine(follower).storage.as_mut().unwrap().waiter = waiter.clone();
        archiving.cluster.start(follower);
        for _ in 0..60 {
            archiving.rounds(1);
            if waiter.stopped.load(Ordering::SeqCst) {
                break;
            }
        }
        archiving.cluster.crash(follower, CrashOutcome::Random);
        archiving.machine(follower).storage.as_mut().unwrap().waiter = Arc::new(Inline);
        archiving.cluster.start(follower);
        archiving.agree();
        if !waiter.stopped.load(Ordering::SeqCst) {
            break;
        }
        requests += 1;
    }
    assert!(requests > 5, "the install asked for {requests} objects only");
}

#[test]
fn an_install_that_crashes_in_any_operation_of_the_disk_ends_well() {
    let outcomes = [CrashOutcome::Lost, CrashOutcome::Kept, CrashOutcome::Random];
    for (operation, outcome) in (1..60).map(|n| (n, outcomes[n as usize % 3])) {
        assert!(survives_a_crash(operation, outcome), "crash in operation {operation}");
    }
}

/// Whether an install survives a crash in one of its first operations on the disk.
pub(super) fn survives_a_crash(operation: u64, outcome: CrashOutcome) -> bool {
    let mut archiving = Archiving::new(7, &[1, 2, 3], &[]);
    let follower = archiving.left_behind();
    archiving.cluster.start(follower);
    let member = archiving.cluster.members.get_mut(&follower).unwrap();
    member.doomed = true;
    let before = member.machine.disk.operations();
    member.machine.disk.crash_at(before + operation, outcome);
    for _ in 0..80 {
        archiving.rounds(1);
    }
    if archiving.cluster.members[&follower].node.is_some() {
        archiving.cluster.crash(follower, outcome);
    }
    archiving.agree();
    true
}
