//! What a peer promises, and to whom: votes, terms, entries.

use raft::eraftpb::Entry;

use super::*;

pub(super) fn message(kind: MessageType, term: u64, (from, to): (u64, u64)) -> Message {
    let mut message = Message { term, from, to, ..Message::default() };
    message.set_msg_type(kind);
    message
}

/// Peer 2 of three voters.
fn peer_2(machine: &mut Machine) -> Node {
    let voters = vec![1, 2, 3];
    machine.open_as(GroupSpec { peer: 2, voters, ..GroupSpec::alone(GROUP) }).unwrap()
}

/// Gives it a message and says what it answers once all is written.
fn told(node: &mut Node, message: Message) -> Vec<Message> {
    node.worker.receive(GROUP, message).unwrap();
    let mut answers = Vec::new();
    for _ in 0..4 {
        let step = node.step().unwrap();
        answers.extend(node.perform(step).unwrap());
    }
    answers
}

/// Whether it gives its vote of this term to this candidate.
fn votes(node: &mut Node, term: u64, candidate: u64) -> bool {
    let answers = told(node, message(MessageType::MsgRequestVote, term, (candidate, 2)));
    let of_vote = |m: &&Message| m.get_msg_type() == MessageType::MsgRequestVoteResponse;
    let answer = answers.iter().find(of_vote).expect("a candidate is answered");
    assert_eq!((answer.to, answer.term), (candidate, term));
    !answer.reject
}

#[test]
fn a_vote_survives_a_crash() {
    for outcome in [CrashOutcome::Kept, CrashOutcome::Lost] {
        let mut machine = Machine::new(1);
        let mut node = peer_2(&mut machine);
        assert!(votes(&mut node, 5, 1));
        machine.crash(outcome);
        let mut node = peer_2(&mut machine);
        assert!(!votes(&mut node, 5, 3), "it votes twice in one term");
        assert!(votes(&mut node, 5, 1), "the vote is still the first one's");
        assert!(votes(&mut node, 6, 3), "the next term is another matter");
    }
}

#[test]
fn a_term_that_was_answered_in_survives_a_crash() {
    let mut machine = Machine::new(1);
    let mut node = peer_2(&mut machine);
    let mut append = message(MessageType::MsgAppend, 5, (1, 2));
    append.set_entries(vec![Entry { index: 1, term: 5, ..Entry::default() }].into());
    let answers = told(&mut node, append);
    assert!(answers.iter().any(|m| m.get_msg_type() == MessageType::MsgAppendResponse));
    machine.crash(CrashOutcome::Lost);
    let mut node = peer_2(&mut machine);
    node.settle().unwrap();
    let status = node.handle.status();
    assert_eq!((status.term.0, status.last), (5, LogIndex(1)));
}

#[test]
fn messages_wait_for_the_vote_whatever_ready_they_come_with() {
    let mut machine = Machine::new(1);
    let spec = GroupSpec { learners: vec![2], ..GroupSpec::alone(GROUP) };
    let mut node = machine.open_as(spec).unwrap();
    // It leads at once, and its vote is on the way to the disk for a long time.
    let first = node.step().unwrap();
    assert!(first.write.is_some() && first.messages.is_empty());
    let mut later = Vec::new();
    for _ in 0..3 {
        machine.clock.advance(machine.settings.tick * machine.settings.heartbeat_ticks as u32);
        // The learner has heard of the term all the same, from another life of this node.
        let alive = message(MessageType::MsgHeartbeatResponse, 1, (2, 1));
        node.worker.receive(GROUP, alive).unwrap();
        let mut lacks = message(MessageType::MsgAppendResponse, 1, (2, 1));
        (lacks.reject, lacks.index, lacks.reject_hint) = (true, 0, 0);
        node.worker.receive(GROUP, lacks).unwrap();
        let step = node.step().unwrap();
        assert!(step.messages.is_empty(), "its vote may be forgotten: {:?}", step.messages);
        later.push(step);
    }
    node.perform(first).unwrap();
    let kinds = |step: &Step| -> Vec<MessageType> {
        step.messages.iter().map(|(_, message)| message.get_msg_type()).collect()
    };
    let sent = kinds(&node.step().unwrap());
    for kind in [MessageType::MsgHeartbeat, MessageType::MsgAppend] {
        assert!(sent.contains(&kind), "they leave once the vote is durable: {sent:?}");
    }
}

#[test]
fn proposals_and_questions_that_travelled_are_not_taken() {
    let mut cluster = Cluster::started(4, &[1, 2, 3], &[]);
    while !cluster.agreed() {
        cluster.calm_round();
    }
    let leader = cluster.leader();
    let last = cluster.status(leader).last;
    for kind in [MessageType::MsgPropose, MessageType::MsgReadIndex] {
        for peer in cluster.peers() {
            let from = peer % 3 + 1;
            // A term of 0 is that of a message which knows none.
            let mut travelled = message(kind, 0, (from, peer));
            travelled
                .set_entries(vec![Entry { data: vec![1; 8].into(), ..Entry::default() }].into());
            let node = cluster.members.get_mut(&peer).unwrap().node.as_mut().unwrap();
            node.worker.receive(GROUP, travelled).unwrap();
            cluster.step(peer);
            let answers = [kind, MessageType::MsgReadIndexResp];
            let passed_on = cluster.network.iter().find(|m| answers.contains(&m.get_msg_type()));
            assert_eq!(passed_on, None, "peer {peer}");
        }
    }
    (0..20).for_each(|_| cluster.calm_round());
    assert!(cluster.statuses().iter().all(|status| status.last == last), "one was taken");
    cluster.check();
}
