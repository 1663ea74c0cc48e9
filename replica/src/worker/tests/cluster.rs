//! Groups of several members over an in-memory network that loses, delays, doubles and reorders,
//! on disks that lose what was not synced.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll, Waker};

use futures::future::LocalBoxFuture;
use raft::eraftpb::{Message, MessageType};
use rstest::rstest;
use wal::CrashOutcome;

use super::archive::attach_to;
use super::*;
use crate::GroupStatus;

mod installing;
mod invariants;
mod lagging;
mod planted;
mod promises;
mod reads;
mod rounds;
mod seeds;

use invariants::Invariants;

struct Member {
    machine: Machine,
    node: Option<Node>,
    /// What the member's own threads would do, done when chance picks it.
    work: Vec<Step>,
    /// The disk is going to fail: whatever the node says then, it is down.
    doomed: bool,
}

struct Cluster {
    members: BTreeMap<u64, Member>,
    voters: Vec<u64>,
    learners: Vec<u64>,
    network: Vec<Message>,
    /// Members that nobody hears.
    cut_off: BTreeSet<u64>,
    journal: Arc<Journal>,
    rng: Rng,
    next: u64,
    waiting: Vec<Answer>,
    acknowledged: BTreeMap<u64, u64>,
    asked: Vec<Asked>,
    /// Questions that were answered.
    answered: usize,
    invariants: Invariants,
}

/// A question for the numbers stored, and what was acknowledged before it.
struct Asked {
    acknowledged: BTreeSet<u64>,
    answer: LocalBoxFuture<'static, Result<BTreeMap<u64, u64>, ProposeError>>,
}

impl Cluster {
    fn new(seed: u64, voters: &[u64], learners: &[u64]) -> Self {
        let journal = Arc::<Journal>::default();
        let machine = |peer: &u64| {
            let mut machine = Machine::new(seed * 100 + peer);
            machine.journal = journal.clone();
            machine.settings.checkpoint_log_bytes = ByteSize::kib(8);
            (*peer, Member { machine, node: None, work: Vec::new(), doomed: false })
        };
        let members = voters.iter().chain(learners).map(machine).collect();
        Self {
            members,
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            network: Vec::new(),
            cut_off: BTreeSet::new(),
            journal: journal.clone(),
            rng: Rng::from_seed(seed),
            next: 0,
            waiting: Vec::new(),
            acknowledged: BTreeMap::new(),
            asked: Vec::new(),
            answered: 0,
            invariants: Invariants::default(),
        }
    }

    fn started(seed: u64, voters: &[u64], learners: &[u64]) -> Self {
        let mut cluster = Self::new(seed, voters, learners);
        cluster.peers().into_iter().for_each(|peer| cluster.start(peer));
        cluster
    }

    fn peers(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }

    fn start(&mut self, peer: u64) {
        let spec = GroupSpec {
            group: GROUP,
            peer,
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            recover: None,
        };
        let member = self.members.get_mut(&peer).unwrap();
        match member.machine.open_as(spec) {
            Ok(node) => member.node = Some(node),
            Err(_) if member.doomed => self.crash(peer, CrashOutcome::Random),
            Err(error) => panic!("member {peer} does not start: {error}"),
        }
        self.look(peer);
    }

    /// An event is over.
    fn look(&mut self, peer: u64) {
        self.invariants.look(peer, &self.members[&peer]);
    }

    fn crash(&mut self, peer: u64, outcome: CrashOutcome) {
        let member = self.members.get_mut(&peer).unwrap();
        if let Some(mut node) = member.node.take() {
            // A process that dies answers nobody; the test's clients see a broken connection.
            node.worker.end();
        }
        member.work.clear();
        member.doomed = false;
        member.machine.crash(outcome);
        self.invariants.crashed(peer);
    }

    fn step(&mut self, peer: u64) {
        let member = self.members.get_mut(&peer).unwrap();
        let Some(node) = &mut member.node else { return };
        let mut step = match node.step() {
            Ok(step) => step,
            Err(_) if member.doomed => return self.crash(peer, CrashOutcome::Random),
            Err(failure) => panic!("member {peer} failed: {failure}"),
        };
        let messages = std::mem::take(&mut step.messages);
        member.work.push(step);
        self.look(peer);
        let Some(node) = &self.members[&peer].node else { return };
        messages.iter().for_each(|(_, message)| self.invariants.sent(node, message));
        self.network.extend(messages.into_iter().map(|(_, message)| message));
    }

    fn work(&mut self, peer: u64) {
        let member = self.members.get_mut(&peer).unwrap();
        let Some(node) = &mut member.node else { return };
        for step in std::mem::take(&mut member.work) {
            match node.perform(step) {
                Ok(_) => {}
                Err(_) if member.doomed => return self.crash(peer, CrashOutcome::Random),
                Err(failure) => panic!("member {peer} failed: {failure}"),
            }
        }
        self.look(peer);
    }

    fn deliver(&mut self, at: usize) {
        let message = self.network.swap_remove(at);
        let cut = self.cut_off.contains(&message.from) || self.cut_off.contains(&message.to);
        let peer = message.to;
        let Some(member) = self.members.get_mut(&peer) else { return };
        if let (Some(node), false) = (&mut member.node, cut) {
            node.worker.receive(GROUP, message).unwrap();
        }
        self.look(peer);
    }

    fn deliver_all(&mut self) {
        for message in std::mem::take(&mut self.network) {
            self.network.push(message);
            self.deliver(self.network.len() - 1);
        }
    }

    fn tick(&self) {
        for member in self.members.values() {
            member.machine.clock.advance(Duration::from_millis(100));
        }
    }

    fn propose(&mut self) {
        self.propose_bytes(700);
    }

    fn propose_bytes(&mut self, bytes: usize) {
        let number = self.next;
        for member in self.members.values() {
            let Some(node) = &member.node else { continue };
            if let Ok(answer) = propose(&node.handle, number, bytes) {
                self.next += 1;
                self.waiting.push(answer);
                return;
            }
        }
    }

    /// Asks a member what is stored, if it takes questions.
    fn ask(&mut self, peer: u64) {
        let Some(node) = &self.members[&peer].node else { return };
        let handle = node.handle.clone();
        let answer = async move { handle.query(|numbers| numbers.stored.clone()).await };
        let acknowledged = self.acknowledged.keys().copied().collect();
        self.asked.push(Asked { acknowledged, answer: Box::pin(answer) });
        // Whoever asks does so at once.
        self.hear();
    }

    /// An answer has everything that was acknowledged before its question.
    fn hear(&mut self) {
        let answered = &mut self.answered;
        self.asked.retain_mut(|asked| {
            let mut context = Context::from_waker(Waker::noop());
            let Poll::Ready(answer) = asked.answer.as_mut().poll(&mut context) else { return true };
            if let Ok(stored) = answer {
                let lacking = asked.acknowledged.iter().find(|number| !stored.contains_key(number));
                assert_eq!(lacking, None, "an answer lacks what was acknowledged before");
                *answered += 1;
            }
            false
        });
    }

    fn collect(&mut self) {
        self.hear();
        let acknowledged = &mut self.acknowledged;
        self.waiting.retain_mut(|answer| match answer.try_recv() {
            Ok(Ok(stored)) => {
                assert_eq!(acknowledged.insert(stored.number, stored.place), None);
                false
            }
            Ok(Err(_)) => false,
            Err(tokio::sync::oneshot::error::TryRecvError::Empty) => true,
            Err(error) => panic!("a taken proposal was never answered: {error}"),
        });
    }

    /// One event that chance picks.
    fn chaos(&mut self) {
        let peers = self.peers();
        let peer = peers[self.rng.below(peers.len() as u64) as usize];
        let event = self.rng.below(1_000);
        let at = self.rng.below(self.network.len() as u64) as usize;
        match event {
            0..250 => self.step(peer),
            250..400 => self.work(peer),
            400..760 if !self.network.is_empty() => {
                if self.rng.chance(1, 30) {
                    self.network.push(self.network[at].clone());
                }
                self.deliver(at);
            }
            760..775 if !self.network.is_empty() => {
                self.network.swap_remove(at);
            }
            775..900 => self.tick(),
            900..955 => self.propose(),
            955..985 => self.ask(peer),
            985..988 => {
                let outcomes = [CrashOutcome::Lost, CrashOutcome::Kept, CrashOutcome::Random];
                let outcome = outcomes[self.rng.below(3) as usize];
                self.crash(peer, outcome);
            }
            988..994 if self.members[&peer].node.is_none() => self.start(peer),
            994..996 => {
                self.cut_off.insert(peer);
            }
            996.. => self.cut_off.clear(),
            _ => {}
        }
        self.collect();
    }

    /// Everybody is up and hears everybody, until all have applied the same.
    fn heal(&mut self) {
        self.cut_off.clear();
        for peer in self.peers() {
            if self.members[&peer].node.is_none() {
                self.start(peer);
            }
        }
        for _ in 0..3_000 {
            self.calm_round();
            if self.agreed() {
                return;
            }
        }
        panic!("the group does not come to rest: {:?}", self.statuses());
    }

    fn calm_round(&mut self) {
        self.tick();
        for peer in self.peers() {
            self.step(peer);
            self.work(peer);
            self.step(peer);
        }
        self.deliver_all();
        self.collect();
    }

    fn leader(&self) -> u64 {
        let serves = |peer: &u64| self.members[peer].node.is_some() && self.status(*peer).serving;
        self.peers().into_iter().find(serves).expect("a member leads")
    }

    fn status(&self, peer: u64) -> GroupStatus {
        self.members[&peer].node.as_ref().unwrap().handle.status()
    }

    fn statuses(&self) -> Vec<GroupStatus> {
        self.peers().into_iter().map(|peer| self.status(peer)).collect()
    }

    fn agreed(&self) -> bool {
        let statuses = self.statuses();
        let led = statuses.iter().any(|status| status.serving && status.applied == status.last);
        let same =
            |a: &GroupStatus, b: &GroupStatus| (a.applied, a.digest) == (b.applied, b.digest);
        let answered = self.waiting.is_empty() && self.asked.is_empty();
        led && answered && statuses.windows(2).all(|w| same(&w[0], &w[1]))
    }

    /// Acknowledged numbers are where their acknowledgement said, and no member gave up.
    fn check(&self) {
        for status in self.statuses() {
            assert_eq!(status.quarantined, None);
        }
        let mut places = BTreeMap::new();
        for number in self.journal.numbers() {
            let next = places.len() as u64;
            places.entry(number).or_insert(next);
        }
        for (number, place) in &self.acknowledged {
            assert_eq!(places.get(number), Some(place), "{number} was acknowledged");
        }
    }
}

#[rstest]
#[case::three_voters(&[1, 2, 3], &[])]
#[case::a_voter_and_a_learner(&[1], &[2])]
fn acknowledged_entries_survive_faults_and_all_members_agree(
    #[case] voters: &[u64],
    #[case] learners: &[u64],
) {
    let (mut acknowledged, mut answered) = (0, 0);
    for seed in 0..seeds() {
        let cluster = run(seed, voters, learners);
        acknowledged += cluster.acknowledged.len();
        answered += cluster.answered;
    }
    assert!(acknowledged > 500, "the runs show little: {acknowledged} acknowledged");
    assert!(answered > 60, "the runs show little: {answered} questions answered");
}

/// How many seeds the tests under faults run: as many as the environment says, and 25 when it says
/// nothing.
fn seeds() -> u64 {
    let Ok(text) = std::env::var("BRAID_CLUSTER_SEEDS") else { return 25 };
    let seeds = text.parse().unwrap_or_else(|_| panic!("BRAID_CLUSTER_SEEDS is `{text}`"));
    assert!(seeds >= 25, "{seeds} seeds show too little, 25 are the least");
    seeds
}

/// One seed, until all have settled.
fn run(seed: u64, voters: &[u64], learners: &[u64]) -> Cluster {
    let mut cluster = Cluster::started(seed, voters, learners);
    (0..3_000).for_each(|_| cluster.chaos());
    cluster.heal();
    cluster.check();
    cluster
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut cluster = Cluster::started(seed, &[1, 2, 3], &[]);
        (0..2_000).for_each(|_| cluster.chaos());
        (cluster.journal.numbers(), cluster.acknowledged, cluster.network.len())
    };
    assert_eq!(run(7), run(7));
}

#[test]
fn a_voter_that_crashes_after_any_step_never_forks_its_learner() {
    for steps in 0..40 {
        let mut cluster = Cluster::started(steps, &[1], &[2]);
        let mut before_vote = None;
        for at in 0..steps {
            cluster.step(1);
            let log = &cluster.members[&1].node.as_ref().unwrap().log;
            let before_vote = before_vote.get_or_insert_with(|| log.durable());
            let appends = |m: &Message| m.get_msg_type() == MessageType::MsgAppend;
            let held = log.durable() == *before_vote;
            assert!(!held || !cluster.network.iter().any(appends), "vote not durable");
            if at % 3 == 2 {
                cluster.work(1);
            }
            cluster.propose();
            cluster.step(2);
            cluster.work(2);
            cluster.deliver_all();
        }
        cluster.crash(1, CrashOutcome::Lost);
        cluster.collect();
        cluster.start(1);
        cluster.next += 1_000;
        (0..20).for_each(|_| {
            cluster.calm_round();
            cluster.propose();
        });
        cluster.heal();
        cluster.check();
    }
}

#[test]
fn a_leader_never_drops_what_a_follower_lacks() {
    let mut cluster = Cluster::started(3, &[1, 2, 3], &[]);
    while !cluster.agreed() {
        cluster.calm_round();
    }
    let leader = cluster.peers().into_iter().find(|peer| cluster.status(*peer).serving).unwrap();
    let behind = cluster.peers().into_iter().find(|peer| *peer != leader).unwrap();
    let applied = cluster.status(behind).applied;
    cluster.cut_off.insert(behind);
    for _ in 0..100 {
        cluster.propose();
        cluster.calm_round();
    }
    let status = cluster.status(leader);
    assert!(status.checkpointed > applied, "the state is saved far ahead: {status:?}");
    assert!(status.first.0 <= applied.0 + 1, "entries are gone: {status:?}");
    cluster.heal();
    cluster.check();
    for _ in 0..20 {
        cluster.propose();
        cluster.calm_round();
    }
    let firsts = cluster.statuses().into_iter().map(|status| status.first).max().unwrap();
    assert!(firsts > applied, "caught up, so the leader's log can go: {firsts}");
}
