//! What holds after every event of a cluster, whatever happened before.
//!
//! - A term has one leader.
//! - A peer votes for one candidate in a term, in what it says and in its log, in all its lives.
//! - Its log never goes back behind a promise that was durable.
//! - What promises leaves only when the promise is durable: a message of a term once the log knows
//!   that term, a vote once the log has it, an answer to entries once these are on the disk.
//! - A commit index never goes back.

use std::collections::BTreeMap;

use common::{LogIndex, Term};
use raft::eraftpb::{Message, MessageType};
use wal::BlockSeq;

use super::Member;
use crate::testing::{GROUP, Node};

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Invariants {
    leaders: BTreeMap<Term, u64>,
    /// Whom a peer told that it has its vote.
    votes: BTreeMap<(u64, Term), u64>,
    peers: BTreeMap<u64, Seen>,
}

/// One peer, in its present life; of earlier ones what was durable.
#[derive(Debug, Default)]
struct Seen {
    promises: Vec<Promise>,
    durable: BlockSeq,
    commit: LogIndex,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Promise {
    term: Term,
    vote: u64,
    block: BlockSeq,
}

impl Promise {
    /// Whether a log that holds this one may be that of a peer which made `earlier`.
    fn keeps(&self, earlier: &Promise) -> bool {
        let same = earlier.vote == 0 || self.vote == earlier.vote;
        self.term > earlier.term || (self.term == earlier.term && same)
    }
}

impl Seen {
    fn durable_promises(&self) -> impl Iterator<Item = &Promise> {
        self.promises.iter().filter(|promise| promise.block <= self.durable)
    }

    fn has_durable(&self, is_kept: impl Fn(&Promise) -> bool) -> bool {
        self.durable_promises().any(is_kept)
    }
}

impl Invariants {
    /// A peer's process is gone, and what was not durable may be gone with it.
    pub(super) fn crashed(&mut self, peer: u64) {
        let seen = self.peers.entry(peer).or_default();
        let durable = seen.durable;
        seen.promises.retain(|promise| promise.block <= durable);
        // It is told with the next entries anew.
        seen.commit = LogIndex(0);
    }

    /// Something happened at a peer, or it has started.
    pub(super) fn look(&mut self, peer: u64, member: &Member) {
        let Some(node) = &member.node else { return };
        let seen = self.peers.entry(peer).or_default();
        seen.durable = node.log.durable();
        let Some((found, block)) = node.log.promise(GROUP) else { return };
        let now = Promise { term: found.term, vote: found.vote, block };
        let broken = seen.promises.iter().find(|earlier| !now.keeps(earlier));
        assert_eq!(broken, None, "peer {peer} went back to {now:?}");
        if seen.promises.last() != Some(&now) {
            seen.promises.push(now);
        }
        let status = node.handle.status();
        if status.installing.is_some() {
            seen.commit = LogIndex(0);
            return;
        }
        assert!(status.commit >= seen.commit, "commit of peer {peer}: {status:?}");
        seen.commit = status.commit;
        if status.leader == Some(peer) {
            let leader = *self.leaders.entry(status.term).or_insert(peer);
            assert_eq!(leader, peer, "term {} has two leaders", status.term);
        }
    }

    /// A message leaves its peer.
    pub(super) fn sent(&mut self, node: &Node, message: &Message) {
        let (from, term, kind) = (message.from, Term(message.term), message.get_msg_type());
        if matches!(kind, MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse) {
            // These ask what would be, in a term that nobody is in.
            return;
        }
        let seen = self.peers.entry(from).or_default();
        let knows_term = seen.has_durable(|promise| promise.term >= term);
        assert!(knows_term, "{kind:?} of a term that may be forgotten: {message:?}");
        let vote = match kind {
            MessageType::MsgRequestVote => Some(from),
            MessageType::MsgRequestVoteResponse if !message.reject => Some(message.to),
            _ => None,
        };
        if let Some(vote) = vote {
            let has_vote = |p: &Promise| p.term > term || (p.term == term && p.vote == vote);
            assert!(seen.has_durable(has_vote), "a vote that may be forgotten: {message:?}");
            let first = *self.votes.entry((from, term)).or_insert(vote);
            assert_eq!(first, vote, "peer {from} votes twice in term {term}");
        }
        if kind == MessageType::MsgAppendResponse && !message.reject {
            check_taken(node, term, LogIndex(message.index));
        }
    }
}

/// Entries that a peer says it has are on its disk. Those of an earlier term may have been replaced
/// since.
fn check_taken(node: &Node, term: Term, index: LogIndex) {
    let found = node.log.group(GROUP).expect("a member has a log");
    let same_term = found.hard_state.term == term;
    let dropped = index <= found.truncated.index;
    let taken = dropped || node.log.has_durable(GROUP, index);
    assert!(taken || !same_term, "entry {index} is answered for and may be forgotten: {found:?}");
}
