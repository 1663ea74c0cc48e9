//! Rounds of leaders that are deposed before they can say so.

use super::installing::Archiving;
use super::*;
use crate::worker::tests::archive::objects;
use crate::{JobKind, StorageDone, StorageJob};

/// A leader that has put a round and was cut off before it could say so; what it would have said.
struct Deposed {
    archiving: Archiving,
    leader: u64,
    done: StorageDone,
}

/// Steps a member, and takes its jobs with rounds out of what it wants done.
fn step_without_rounds(archiving: &mut Archiving, peer: u64) -> Vec<StorageJob> {
    archiving.cluster.step(peer);
    let member = archiving.cluster.members.get_mut(&peer).unwrap();
    let mut rounds = Vec::new();
    for step in &mut member.work {
        let (round, others) = step.storage.drain(..).partition(|job| job.kind() == JobKind::Round);
        step.storage = others;
        rounds.extend::<Vec<_>>(round);
    }
    rounds
}

/// Lets time pass until the member wants a round done.
fn next_round(archiving: &mut Archiving, peer: u64) -> StorageJob {
    for _ in 0..300 {
        archiving.cluster.tick();
        for other in archiving.cluster.peers() {
            if other != peer {
                archiving.cluster.step(other);
                archiving.cluster.work(other);
                archiving.cluster.step(other);
            }
        }
        if let Some(job) = step_without_rounds(archiving, peer).pop() {
            archiving.cluster.work(peer);
            return job;
        }
        archiving.cluster.work(peer);
        archiving.cluster.deliver_all();
        archiving.cluster.collect();
    }
    panic!("no round is due");
}

fn perform(archiving: &mut Archiving, peer: u64, job: StorageJob) -> StorageDone {
    let node = archiving.cluster.members[&peer].node.as_ref().unwrap();
    let done = job.perform(&node.workshop());
    assert!(done.failure().is_none(), "{done:?}");
    done
}

impl Deposed {
    fn new(seed: u64) -> Self {
        let mut archiving = Archiving::new(seed, &[1, 2, 3], &[]);
        archiving.rounds(40);
        (0..10).for_each(|_| archiving.cluster.propose());
        archiving.rounds(5);
        let leader = archiving.cluster.leader();
        let job = next_round(&mut archiving, leader);
        let done = perform(&mut archiving, leader, job);
        archiving.cluster.cut_off.insert(leader);
        Self { archiving, leader, done }
    }

    /// The others go on without it, and archive the same entries in objects of their own.
    fn others_go_on(&mut self) {
        for _ in 0..40 {
            self.archiving.rounds(10);
            self.archiving.cluster.propose();
        }
        let leader = self.archiving.cluster.leader();
        assert_ne!(leader, self.leader);
        assert!(self.archiving.cluster.status(leader).archived > LogIndex(10));
    }

    fn tell(&mut self) {
        let Self { archiving, leader, done } = self;
        let node = archiving.cluster.members.get_mut(leader).unwrap().node.as_mut().unwrap();
        let nothing = StorageDone {
            group: GROUP,
            ticket: crate::tiering::Ticket::default(),
            kind: JobKind::Round,
            result: Err(crate::StorageFailure::Stopping),
        };
        node.worker.storage_done(std::mem::replace(done, nothing)).unwrap();
    }
}

#[test]
fn what_a_deposed_leader_has_put_is_never_referred_to_and_is_swept() {
    let mut deposed = Deposed::new(11);
    let put = objects(&deposed.archiving.memory);
    assert!(put.len() >= 2, "an object and a footer: {put:?}");
    deposed.others_go_on();
    deposed.archiving.cluster.cut_off.clear();
    deposed.archiving.rounds(20);
    deposed.tell();
    deposed.archiving.agree();
    let left = objects(&deposed.archiving.memory);
    assert!(put.keys().all(|name| !left.contains_key(name)), "{put:?} are still there: {left:?}");
}

/// Whether the payload of everything is there after a leader that was deposed leads again, in
/// another term, and hears of an upload of its first as of one of its second; and whether what that
/// had put is swept, as nobody may refer to it.
pub(super) fn survives_a_leader_that_comes_back(seed: u64) -> bool {
    let mut archiving = Archiving::new(seed, &[1], &[2]);
    archiving.rounds(40);
    (0..10).for_each(|_| archiving.cluster.propose());
    archiving.rounds(5);
    let job = next_round(&mut archiving, 1);
    let late = perform(&mut archiving, 1, job);
    let put = objects(&archiving.memory);
    archiving.cluster.crash(1, CrashOutcome::Kept);
    archiving.cluster.collect();
    archiving.cluster.start(1);
    archiving.cluster.propose();
    let job = next_round(&mut archiving, 1);
    let done = perform(&mut archiving, 1, job);
    let node = archiving.cluster.members.get_mut(&1).unwrap().node.as_mut().unwrap();
    node.worker.storage_done(late).unwrap();
    node.worker.storage_done(done).unwrap();
    archiving.agree();
    let left = objects(&archiving.memory);
    put.keys().all(|name| !left.contains_key(name))
}

#[test]
fn a_leader_that_comes_back_cannot_refer_to_what_it_put_before() {
    assert!((0..5).all(survives_a_leader_that_comes_back));
}
