//! Followers that lag, and what their leaders make of late answers.

use lts::ErrorKind;

use super::installing::Archiving;
use super::promises::message;
use super::*;

#[test]
fn late_answers_do_not_make_a_leader_look_for_what_it_has_dropped() {
    let mut machine = Machine::new(1);
    let spec = GroupSpec { learners: vec![2], ..GroupSpec::alone(GROUP) };
    let mut node = machine.open_as(spec).unwrap();
    node.settle().unwrap();
    for number in 0..5 {
        node.store(number);
    }
    let (term, has) = (node.handle.status().term.0, node.handle.status().last.0);
    let answer = |index: u64, reject: bool, hint: u64| {
        let mut answer = message(MessageType::MsgAppendResponse, term, (2, 1));
        (answer.index, answer.reject, answer.reject_hint) = (index, reject, hint);
        answer
    };
    node.worker.receive(GROUP, answer(has, false, 0)).unwrap();
    node.wait(machine.settings.checkpoint_interval);
    let status = node.handle.status();
    assert_eq!(status.first.0, has + 1, "what everybody has is dropped");
    (10..15).for_each(|number| {
        node.store(number);
    });
    // What was sent since is lost, and the follower says so. Then come answers of long ago, when it
    // had nothing.
    let last = node.handle.status().last.0;
    node.worker.receive(GROUP, answer(last, true, has)).unwrap();
    node.worker.receive(GROUP, answer(has, true, 0)).unwrap();
    node.worker.receive(GROUP, answer(has, true, 1)).unwrap();
    let steps = |node: &mut Node| -> Vec<Message> {
        let mut sent = Vec::new();
        for _ in 0..3 {
            let step = node.step().unwrap();
            sent.extend(node.perform(step).unwrap());
        }
        sent
    };
    // The network loses what it sends at once; the next sign of life asks for it again.
    steps(&mut node);
    let alive = message(MessageType::MsgHeartbeatResponse, term, (2, 1));
    node.worker.receive(GROUP, alive).unwrap();
    let sent = steps(&mut node);
    let from: Vec<u64> = sent
        .iter()
        .filter(|message| message.get_msg_type() == MessageType::MsgAppend)
        .map(|message| message.index)
        .collect();
    assert!(from.contains(&has), "it goes on behind {has}: {from:?}, {sent:?}");
}

#[test]
fn a_follower_far_behind_is_brought_up_from_the_disk() {
    let mut cluster = Cluster::new(6, &[1, 2, 3], &[]);
    for member in cluster.members.values_mut() {
        // Nothing that is applied stays in memory, and a message has a few entries.
        member.machine.settings.recent_bytes_max = ByteSize(0);
        member.machine.settings.log.file_size = ByteSize::kib(64);
        member.machine.settings.log.entry_max = ByteSize::kib(32);
    }
    cluster.peers().into_iter().for_each(|peer| cluster.start(peer));
    (0..40).for_each(|_| cluster.calm_round());
    let leader = cluster.leader();
    let behind = cluster.peers().into_iter().rfind(|peer| *peer != leader).unwrap();
    cluster.cut_off.insert(behind);
    for _ in 0..150 {
        cluster.propose();
        cluster.calm_round();
    }
    let status = cluster.status(leader);
    assert!(status.applied.0 > cluster.status(behind).applied.0 + 100, "{status:?}");
    cluster.heal();
    cluster.check();
    assert!(cluster.acknowledged.len() > 100);
}

#[test]
fn a_follower_whose_log_is_full_takes_no_more_and_goes_on_later() {
    let mut archiving = Archiving::of(9, &[1, 2, 3], &[], ByteSize::mib(6));
    archiving.rounds(40);
    let leader = archiving.cluster.leader();
    let small = archiving.cluster.peers().into_iter().rfind(|peer| *peer != leader).unwrap();
    archiving.cluster.crash(small, CrashOutcome::Kept);
    archiving.machine(small).settings.log.budget = ByteSize::kib(768);
    archiving.cluster.start(small);
    archiving.faults.values().for_each(|faults| faults.set_outage(Some(ErrorKind::Unavailable)));
    for _ in 0..60 {
        archiving.cluster.propose_bytes(20_000);
        archiving.rounds(3);
    }
    archiving.rounds(20);
    let leader = archiving.cluster.leader();
    let (of_leader, of_small) = (archiving.cluster.status(leader), archiving.cluster.status(small));
    assert!(of_small.last < of_leader.last, "its log is not full: {of_small:?}");
    assert_eq!(of_small.applied, of_small.last.min(of_small.commit), "it works with what it has");
    assert_eq!(archiving.cluster.acknowledged.len(), 60, "the others went on");
    archiving.faults.values().for_each(|faults| faults.set_outage(None));
    // It stays behind until the leader's log is dropped past it, and so on while it is that small.
    for _ in 0..3 {
        let before = archiving.cluster.status(small).last;
        archiving.work_past(before);
        archiving.rounds(100);
        assert!(archiving.cluster.status(small).last > before, "it takes nothing any more");
    }
    archiving.cluster.crash(small, CrashOutcome::Kept);
    archiving.machine(small).settings.log.budget = ByteSize::mib(6);
    archiving.agree();
}
