//! Archiving groups under faults that chance picks.

use lts::{ErrorKind, FaultRates};

use super::installing::Archiving;
use super::*;

impl Archiving {
    /// One event that chance picks: any of before, and what a bucket and a state store can suffer.
    fn chaos(&mut self) {
        let peers = self.cluster.peers();
        let peer = peers[self.cluster.rng.below(peers.len() as u64) as usize];
        match self.cluster.rng.below(1_000) {
            0..4 => {
                let outage = self.cluster.rng.chance(1, 3).then_some(ErrorKind::Unavailable);
                self.faults[&peer].set_outage(outage);
            }
            4..12 => {
                // A write that takes so long would be the end of its node.
                peers.iter().for_each(|peer| self.cluster.work(*peer));
                let ahead = Duration::from_secs(self.cluster.rng.between(1, 50));
                for member in self.cluster.members.values() {
                    member.machine.clock.advance(ahead);
                }
            }
            12..16 if self.cluster.members[&peer].node.is_none() => self.machine(peer).kv.wipe(),
            16..26 => {
                self.work(15_000);
                self.rounds(1);
            }
            _ => self.cluster.chaos(),
        }
    }

    /// More to archive, while every log has room: one that is full of what cannot be archived is
    /// another test's.
    fn work(&mut self, bytes: usize) {
        let has_room = |member: &Member| {
            member.node.as_ref().is_none_or(|node| {
                let usage = node.log.usage();
                usage.used * 10 < usage.budget * 6
            })
        };
        let keeps_up = self.cluster.waiting.len() < 8;
        if keeps_up && self.cluster.members.values().all(has_room) {
            self.cluster.propose_bytes(bytes);
        }
    }

    fn calm(&mut self) {
        for faults in self.faults.values() {
            faults.set_outage(None);
            faults.set_rates(FaultRates::default());
        }
        self.cluster.cut_off.clear();
        for peer in self.cluster.peers() {
            if self.cluster.members[&peer].node.is_none() {
                self.cluster.start(peer);
            }
        }
    }
}

/// One seed; returns how many snapshots were installed, and how many proposals acknowledged.
fn run(seed: u64, voters: &[u64], learners: &[u64]) -> (usize, usize) {
    let mut archiving = Archiving::of(seed, voters, learners, ByteSize::kib(1_536));
    let rates = FaultRates { error: 60, lost_answer: 60, short_body: 40, ..FaultRates::default() };
    archiving.faults.values().for_each(|faults| faults.set_rates(rates));
    let mut installs = BTreeSet::new();
    for _ in 0..4 {
        // Somebody is away for long enough to be left behind.
        let peers = archiving.cluster.peers();
        let away = peers[archiving.cluster.rng.below(peers.len() as u64) as usize];
        if archiving.cluster.members[&away].node.is_some() {
            archiving.cluster.crash(away, CrashOutcome::Random);
        }
        for at in 0..450 {
            // The others work on for a while, then anything may happen again.
            if at < 50 {
                archiving.work(25_000);
                archiving.rounds(2);
            } else {
                archiving.chaos();
            }
            for (peer, member) in &archiving.cluster.members {
                let status = member.node.as_ref().map(|node| node.handle.status());
                installs.extend(status.and_then(|s| Some((*peer, s.installing?))));
            }
        }
    }
    archiving.calm();
    archiving.agree();
    (installs.len(), archiving.cluster.acknowledged.len())
}

#[rstest]
#[case::three_voters(&[1, 2, 3], &[])]
#[case::a_voter_and_a_learner(&[1], &[2])]
fn members_that_archive_agree_whatever_fails(#[case] voters: &[u64], #[case] learners: &[u64]) {
    let (mut installs, mut acknowledged) = (0, 0);
    for seed in 0..seeds() {
        let (more_installs, more) = run(seed, voters, learners);
        (installs, acknowledged) = (installs + more_installs, acknowledged + more);
    }
    assert!(installs > 10 && acknowledged > 300, "{installs} installs, {acknowledged}");
}
