//! One group that breaks, wherever it does, and another one on the same node that goes on.

use raft::eraftpb::{Message, MessageType};
use wal::{CrashOutcome, Disk};

use super::archive::{Attached, attach, objects};
use super::*;
use crate::kv::{Pairs, Whole};
use crate::{Applied, Changes, GroupHandle, KvError, MemKv, OutcomeSink, Reply, Space};

const OTHER: GroupId = GroupId(3);

/// A node with a group that breaks and one that does not.
struct Pair {
    node: Node,
    other: GroupHandle<Numbers>,
}

impl Pair {
    fn new(machine: &mut Machine) -> Self {
        let mut node = machine.open().unwrap();
        let numbers = Numbers::new(&Arc::default());
        let other = node.worker.add_group(GroupSpec::alone(OTHER), numbers).unwrap();
        node.settle().unwrap();
        assert!(other.status().serving);
        Self { node, other }
    }

    fn store(&mut self, mut numbers: std::ops::Range<u64>) {
        assert!(numbers.all(|number| self.node.store(number).number == number));
    }

    /// Lets minutes pass in which everything becomes due.
    fn wait(&mut self) {
        (0..40).for_each(|_| self.node.wait(Duration::from_secs(10)));
    }

    /// Why the first group stopped; the other one still serves.
    fn quarantined(&mut self) -> String {
        let mut answer = propose(&self.other, 7, 100).unwrap();
        self.node.settle().unwrap();
        assert_eq!(answer.try_recv().unwrap().map(|stored| stored.number), Ok(7));
        let status = self.node.handle.status();
        assert!(!status.serving, "{status:?}");
        let refused = propose(&self.node.handle, 1, 0).unwrap_err();
        assert!(matches!(refused, ProposeError::Quarantined(_)), "{refused}");
        status.quarantined.expect("the first group is quarantined")
    }
}

/// A machine that saves and archives soon.
fn busy() -> (Machine, Attached) {
    let mut machine = Machine::new(1);
    machine.settings.checkpoint_log_bytes = ByteSize::kib(16);
    let bucket = attach(&mut machine);
    (machine, bucket)
}

#[test]
fn a_round_that_panics_quarantines_its_group_now_and_at_every_start() {
    let (mut machine, _bucket) = busy();
    for life in 0..3 {
        let mut pair = Pair::new(&mut machine);
        // It serves until it comes to the round again: no start fails for it.
        assert!(pair.node.handle.status().serving);
        pair.node.store(life);
        machine.journal.break_down(Some("making a round"));
        pair.wait();
        let why = pair.quarantined();
        assert!(why.contains("a round") && why.contains("broken while making a round"), "{why}");
        machine.journal.break_down(None);
    }
    let mut pair = Pair::new(&mut machine);
    pair.wait();
    let status = pair.node.handle.status();
    assert_eq!((status.unarchived_since, status.quarantined), (None, None), "nothing was lost");
}

#[test]
fn a_state_that_cannot_be_frozen_quarantines_its_group() {
    let (mut machine, _bucket) = busy();
    let mut pair = Pair::new(&mut machine);
    pair.node.store(1);
    machine.journal.break_down(Some("freezing"));
    pair.wait();
    let why = pair.quarantined();
    assert!(why.contains("broken while freezing"), "{why}");
    // The store is free for the other's checkpoints.
    pair.wait();
    assert!(pair.other.status().checkpointed > LogIndex(0));
}

#[test]
fn a_checkpoint_that_panics_quarantines_its_group_and_the_other_is_saved() {
    let (mut machine, _bucket) = busy();
    let mut pair = Pair::new(&mut machine);
    pair.node.store(1);
    machine.clock.advance(machine.settings.checkpoint_interval);
    let mut job = loop {
        let mut step = pair.node.step().unwrap();
        let job = step.checkpoint.take_if(|job| job.group == GROUP);
        pair.node.perform(step).unwrap();
        if let Some(job) = job {
            break job;
        }
    };
    let result = job.run(&BrokenKv(MemKv::new()));
    pair.node.worker.checkpointed(job, result).unwrap();
    let why = pair.quarantined();
    assert!(why.contains("saving its state panicked") && why.contains("store is broken"), "{why}");
    pair.wait();
    assert!(pair.other.status().checkpointed > LogIndex(0));
}

#[test]
fn a_state_whose_restoring_panics_quarantines_its_group_at_the_start() {
    for doing in ["restoring", "beginning", "applying"] {
        let (mut machine, _bucket) = busy();
        let mut pair = Pair::new(&mut machine);
        pair.node.store(1);
        pair.wait();
        pair.node.store(2);
        drop(pair);
        machine.journal.break_down(Some(doing));
        let mut pair = Pair::new(&mut machine);
        let why = pair.quarantined();
        assert!(why.contains("panicked") && why.contains(doing), "{why}");
        drop(pair);
        machine.journal.break_down(None);
        assert_eq!(serving(&mut machine).store(3).place, 2, "nothing was lost");
    }
}

#[test]
fn an_archived_log_whose_replay_panics_quarantines_its_group_at_the_start() {
    let (mut machine, _bucket) = busy();
    let mut pair = Pair::new(&mut machine);
    pair.store(0..20);
    pair.wait();
    assert!(pair.node.handle.status().first > LogIndex(1));
    drop(pair);
    machine.kv.wipe();
    machine.journal.break_down(Some("applying"));
    let mut pair = Pair::new(&mut machine);
    let why = pair.quarantined();
    assert!(why.contains("restoring it panicked") && why.contains("applying"), "{why}");
}

#[test]
fn jobs_that_wait_are_not_done_for_a_group_that_is_quarantined_meanwhile() {
    let (mut machine, bucket) = busy();
    let mut pair = Pair::new(&mut machine);
    pair.node.store(1);
    machine.clock.advance(Duration::from_secs(20));
    let mut jobs = Vec::new();
    for _ in 0..10 {
        let mut step = pair.node.step().unwrap();
        jobs.extend(step.storage.extract_if(.., |job| job.group == GROUP));
        pair.node.perform(step).unwrap();
    }
    assert!(jobs.iter().any(|job| job.kind() == crate::JobKind::Round), "{jobs:?}");
    drop(propose(&pair.node.handle, PANIC, 0).unwrap());
    let before = objects(&bucket.memory);
    while pair.node.handle.status().quarantined.is_none() {
        let mut step = pair.node.step().unwrap();
        step.storage.clear();
        pair.node.perform(step).unwrap();
    }
    let first = pair.node.handle.status().first;
    for job in jobs {
        let done = job.perform(&pair.node.workshop());
        assert!(matches!(done.failure(), Some(crate::StorageFailure::Stopping)), "{done:?}");
        pair.node.worker.storage_done(done).unwrap();
    }
    let of_group = |found: &std::collections::BTreeMap<lts::ObjectName, usize>| {
        found.keys().filter(|name| name.group == GROUP).count()
    };
    assert_eq!(of_group(&objects(&bucket.memory)), of_group(&before));
    pair.wait();
    let status = pair.node.handle.status();
    assert_eq!(pair.node.log.first_index(GROUP), first, "its log stays as it was: {status:?}");
    assert_eq!(of_group(&objects(&bucket.memory)), of_group(&before));
    pair.quarantined();
}

/// Panics when it is told that its proposal failed.
struct BrokenSink;

impl OutcomeSink<Stored> for BrokenSink {
    fn deliver(&self, _tag: u64, outcome: Result<Stored, ProposeError>) {
        outcome.expect("a broken sink");
    }

    fn round_done(&self) {}
}

#[test]
fn an_end_reaches_every_group_whatever_one_of_them_does() {
    let mut pair = Pair::new(&mut Machine::new(1));
    let reply = Reply::Sink { sink: Arc::new(BrokenSink), tag: 1 };
    assert!(pair.node.handle.propose(proposal(1, 10).reply(reply)).is_ok());
    let mut waiting = propose(&pair.other, 2, 10).unwrap();
    pair.node.worker.end();
    assert!(matches!(waiting.try_recv().unwrap(), Err(ProposeError::Stopping)));
    assert_eq!(propose(&pair.other, 3, 10).unwrap_err(), ProposeError::Stopping);
}

#[test]
fn a_tick_that_panics_quarantines_its_group() {
    let mut machine = Machine::new(1);
    machine.settings.recent_bytes_max = ByteSize(0);
    let voters = vec![1, 2, 3];
    let spec = GroupSpec { voters, ..GroupSpec::alone(GROUP) };
    let mut node = machine.open_as(spec).unwrap();
    let numbers = Numbers::new(&Arc::default());
    let other = node.worker.add_group(GroupSpec::alone(OTHER), numbers).unwrap();
    // An entry of a leader, committed, applied and forgotten.
    let entry = raft::eraftpb::Entry { index: 1, term: 1, ..Default::default() };
    let mut append = message(MessageType::MsgAppend, 1, (2, 1));
    append.set_entries(vec![entry].into());
    append.commit = 1;
    node.worker.receive(GROUP, append).unwrap();
    node.settle().unwrap();
    assert_eq!(node.handle.status().applied, LogIndex(1));
    // Whoever begins an election asks the log for its last term: it must not be gone.
    let batch = wal::Batch { group: GROUP, tombstone: Some(b"gone"), ..Default::default() };
    node.log.append(&batch).unwrap();
    let mut pair = Pair { node, other };
    pair.wait();
    let why = pair.quarantined();
    assert!(why.contains("a tick panicked"), "{why}");
}

fn message(kind: MessageType, term: u64, (from, to): (u64, u64)) -> Message {
    let mut message = Message { term, from, to, ..Message::default() };
    message.set_msg_type(kind);
    message
}

#[test]
fn a_message_to_a_peer_that_was_replaced_does_not_reach_the_new_one() {
    let voters = vec![1, 2, 3];
    let spec = GroupSpec { peer: 3, voters, ..GroupSpec::alone(GROUP) };
    let mut node = Machine::new(1).open_as(spec).unwrap();
    let ask = |node: &mut Node, to| {
        let mut vote = message(MessageType::MsgRequestVote, 5, (1, to));
        (vote.index, vote.log_term) = (9, 4);
        node.worker.receive(GROUP, vote).unwrap();
        let mut answers = Vec::new();
        for _ in 0..4 {
            let step = node.step().unwrap();
            answers.extend(node.perform(step).unwrap());
        }
        answers
    };
    assert!(ask(&mut node, 2).is_empty());
    assert_eq!(node.handle.status().term, common::Term(0), "it did not even see the term");
    let answers = ask(&mut node, 3);
    assert!(answers.iter().any(|m| m.get_msg_type() == MessageType::MsgRequestVoteResponse));
}

/// Spoils the payload of a number wherever a log file has it.
fn spoil(machine: &Machine, number: u64) {
    let mut spoiled = 0;
    for name in machine.disk.list().unwrap() {
        let bytes = machine.disk.bytes(&name);
        let is_payload = |window: &[u8]| window.iter().all(|byte| *byte == number as u8);
        if let Some(at) = bytes.windows(60).position(is_payload) {
            machine.disk.flip_bit(&name, at as u64 + 9, 1);
            spoiled += 1;
        }
    }
    assert_eq!(spoiled, 1);
}

#[test]
fn an_entry_that_rots_before_it_is_archived_quarantines_its_group() {
    let (mut machine, bucket) = busy();
    bucket.faults.set_outage(Some(lts::ErrorKind::Unavailable));
    let mut pair = Pair::new(&mut machine);
    pair.store(10..20);
    spoil(&machine, 12);
    bucket.faults.set_outage(None);
    pair.wait();
    let why = pair.quarantined();
    assert!(why.contains("cannot be archived") && why.contains(".wal"), "{why}");
    assert!(why.contains("braid wal inspect"), "{why}");
    // What the next start says of it is another matter: the log as a whole is refused.
    drop(pair);
    let refused = machine.open().map(|_| ()).unwrap_err();
    assert!(matches!(refused, StartError::Log(wal::OpenError::Damaged { .. })), "{refused}");
}

#[test]
fn an_entry_that_rots_before_a_follower_has_it_quarantines_its_group() {
    let mut machine = Machine::new(1);
    machine.settings.recent_bytes_max = ByteSize(0);
    let spec = GroupSpec { learners: vec![2], ..GroupSpec::alone(GROUP) };
    let mut node = machine.open_as(spec).unwrap();
    let numbers = Numbers::new(&Arc::default());
    let other = node.worker.add_group(GroupSpec::alone(OTHER), numbers).unwrap();
    node.settle().unwrap();
    let mut pair = Pair { node, other };
    pair.store(10..20);
    spoil(&machine, 12);
    // The follower has nothing yet, and says so.
    for _ in 0..3 {
        let term = pair.node.handle.status().term.0;
        let mut lacks = message(MessageType::MsgAppendResponse, term, (2, 1));
        (lacks.reject, lacks.index, lacks.reject_hint) = (true, 0, 0);
        pair.node.worker.receive(GROUP, lacks).unwrap();
        let alive = message(MessageType::MsgHeartbeatResponse, term, (2, 1));
        pair.node.worker.receive(GROUP, alive).unwrap();
        for _ in 0..10 {
            let step = pair.node.step().unwrap();
            pair.node.perform(step).unwrap();
        }
    }
    let why = pair.quarantined();
    assert!(why.contains("for a follower") && why.contains("damaged"), "{why}");
}

#[test]
fn an_entry_that_rots_between_the_scan_and_the_replay_quarantines_its_group_alone() {
    let mut machine = Machine::new(1);
    let mut pair = Pair::new(&mut machine);
    pair.store(10..20);
    drop(pair);
    machine.crash(CrashOutcome::Kept);
    // A bit that flips on the way from the disk, twice.
    let disk: Arc<dyn Disk> = Arc::new(machine.disk.clone());
    let (settings, clock) = (machine.settings.clone(), machine.clock.clone());
    let rng = Rng::from_seed(3);
    let (log, _) = Log::open(disk, settings.log.clone(), clock.clone(), rng.clone()).unwrap();
    spoil(&machine, 12);
    let kv = Arc::new(machine.kv.clone());
    let mut worker = Worker::new(settings, log.clone(), kv, clock, rng);
    let add = |worker: &mut Worker, group| {
        worker.add_group(GroupSpec::alone(group), Numbers::new(&Arc::default())).unwrap()
    };
    let (handle, other) = (add(&mut worker, GROUP), add(&mut worker, OTHER));
    let mut pair = Pair { node: Node { machine, worker, log, handle }, other };
    pair.node.settle().unwrap();
    let why = pair.quarantined();
    assert!(why.contains("read the log of group 2") && why.contains(".wal"), "{why}");
}

#[test]
fn an_older_log_beside_a_newer_state_refuses_the_start_of_all_groups() {
    let (mut machine, _bucket) = busy();
    let mut pair = Pair::new(&mut machine);
    pair.store(0..3);
    let older = machine.disk.fork();
    pair.store(3..6);
    pair.wait();
    drop(pair);
    // The other group has saved nothing: by itself it would begin at an entry that it had already.
    machine.disk = older;
    machine.disk.restart();
    let refused = machine.open().map(|_| ()).unwrap_err();
    assert!(matches!(refused, StartError::LogBehind { .. }), "{refused}");
    assert!(refused.to_string().contains("acknowledged data is missing"), "{refused}");
}

/// Panics when it is written to.
#[derive(Debug)]
struct BrokenKv(MemKv);

impl Kv for BrokenKv {
    fn write(&self, _: GroupId, _: Applied, _: Changes<'_>) -> Result<(), KvError> {
        panic!("the store is broken");
    }

    fn flush(&self) -> Result<(), KvError> {
        self.0.flush()
    }

    fn applied(&self, group: GroupId) -> Result<Option<Applied>, KvError> {
        self.0.applied(group)
    }

    fn scan(&self, group: GroupId, space: Space) -> Result<Pairs<'_>, KvError> {
        self.0.scan(group, space)
    }

    fn whole(&self, group: GroupId) -> Result<Option<Whole<'_>>, KvError> {
        self.0.whole(group)
    }

    fn clear(&self, group: GroupId) -> Result<(), KvError> {
        self.0.clear(group)
    }

    fn load(
        &self,
        group: GroupId,
        pairs: &mut dyn Iterator<Item = (Space, bytes::Bytes, bytes::Bytes)>,
    ) -> Result<(), KvError> {
        self.0.load(group, pairs)
    }

    fn memory_bytes(&self) -> u64 {
        self.0.memory_bytes()
    }
}
