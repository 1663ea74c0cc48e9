//! The writer's side: sessions, blocks, re-batching, successors, and the second process.

use std::collections::BTreeSet;

use super::store::Answer;
use super::{Message, Rule, Session, SessionChain, key_of};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A second process that still asks what the first one stored.
    Starting,
    Running,
    /// A higher epoch exists: stopped for good.
    Fenced,
    /// Told that what was in flight is of unknown outcome: stopped.
    Expired,
    /// Done, and its entries forgotten.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// The writer does not know this segment.
    Unknown,
    Closed,
    Opening,
    Open,
    /// Known to be sealed, its events settled.
    Sealed,
}

/// A writer's session on one segment with its connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Link {
    pub state: LinkState,
    pub attempt: u8,
    /// A block was ever sent to this segment.
    pub ever_sent: bool,
    /// The chain: the last number sent in this session.
    pub sent_to: u8,
    /// Numbers sent in this session.
    pub sent: BTreeSet<u8>,
    /// In flight on the connection, and on the one before.
    pub current: Vec<Message>,
    pub late: Vec<Message>,
    /// An answer was lost: nothing more comes back on this connection.
    pub muted: bool,
}

impl Link {
    fn new(state: LinkState) -> Self {
        Self {
            state,
            attempt: 0,
            ever_sent: false,
            sent_to: 0,
            sent: BTreeSet::new(),
            current: Vec::new(),
            late: Vec::new(),
            muted: false,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.state, LinkState::Opening | LinkState::Open)
    }

    /// The session is over; the next thing on this segment is an `Open`.
    fn end_session(&mut self, state: LinkState) {
        self.state = state;
        self.sent.clear();
        self.sent_to = 0;
    }

    /// The connection is given up; what is in flight may still arrive.
    pub(super) fn disconnect(&mut self) {
        self.late = std::mem::take(&mut self.current);
        self.muted = false;
        self.end_session(LinkState::Closed);
    }

    /// The leader fell with everything that was in flight to it.
    pub(super) fn fall(&mut self) {
        self.current.clear();
        self.muted = false;
        if self.is_connected() {
            self.end_session(LinkState::Closed);
        }
    }
}

/// A process of the writer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    pub phase: Phase,
    /// The writer epoch.
    pub epoch: u8,
    pub reconnects: u8,
    pub links: Vec<Link>,
    pub acknowledged: BTreeSet<u8>,
    /// Refused for their expected offset, which the application was told.
    pub refused: BTreeSet<u8>,
}

impl Process {
    pub(super) fn first(model: &SessionChain) -> Self {
        let state = |segment| match model.layout.is_first(segment) {
            true => LinkState::Closed,
            false => LinkState::Unknown,
        };
        let links = (0..model.layout.segments()).map(|segment| Link::new(state(segment)));
        Self {
            phase: Phase::Running,
            epoch: 1,
            reconnects: model.reconnects,
            links: links.collect(),
            acknowledged: BTreeSet::new(),
            refused: BTreeSet::new(),
        }
    }

    /// A second process of the same named writer, as it begins: the controller told it a new epoch
    /// and the segments that it has published.
    pub(super) fn second(model: &SessionChain, published: bool) -> Self {
        let state = |segment| match model.layout.is_first(segment) {
            true if !published => LinkState::Closed,
            // Published after the seal, so that these are known to be sealed; what they stored is
            // to be asked.
            true if model.keeps(Rule::ResumeAsksSealed) && model.keeps(Rule::SealBeforePublish) => {
                LinkState::Closed
            }
            true => LinkState::Sealed,
            false if published => LinkState::Closed,
            false => LinkState::Unknown,
        };
        let links = (0..model.layout.segments()).map(|segment| Link::new(state(segment)));
        let phase =
            if model.keeps(Rule::ResumeOpensAll) { Phase::Starting } else { Phase::Running };
        Self { phase, epoch: 2, links: links.collect(), reconnects: 0, ..Self::first(model) }
    }

    pub(super) fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running)
    }

    fn is_decided(&self, number: u8) -> bool {
        self.acknowledged.contains(&number) || self.refused.contains(&number)
    }

    pub(super) fn has_finished(&self, model: &SessionChain) -> bool {
        model.numbers().all(|number| self.is_decided(number))
    }

    /// Where events of `key` go now: the first segment of the road that is not known to be sealed.
    fn target(&self, model: &SessionChain, key: u8) -> Option<usize> {
        let mut road = model.layout.road(key);
        road.find(|segment| self.links[*segment].state != LinkState::Sealed)
    }

    fn pending(&self, model: &SessionChain, segment: usize) -> Vec<u8> {
        let numbers = model.numbers().filter(|number| !self.is_decided(*number));
        numbers.filter(|number| self.target(model, key_of(*number)) == Some(segment)).collect()
    }

    fn is_held_back(&self, model: &SessionChain, segment: usize) -> bool {
        model.keeps(Rule::HoldSuccessorBack)
            && model
                .layout
                .predecessors(segment)
                .iter()
                .any(|before| self.links[*before].state != LinkState::Sealed)
    }

    pub(super) fn may_open(&self, model: &SessionChain, segment: usize) -> bool {
        if self.links[segment].state != LinkState::Closed {
            return false;
        }
        match self.phase {
            Phase::Starting => true,
            // A held-back successor has a predecessor to be asked first: any segment may be opened
            // to learn whether it is sealed.
            _ => {
                let waited_for = model.layout.is_first(segment) && !self.has_finished(model);
                waited_for
                    || (!self.pending(model, segment).is_empty()
                        && !self.is_held_back(model, segment))
            }
        }
    }

    pub(super) fn open(&mut self, model: &SessionChain, segment: usize) {
        let epoch = self.epoch;
        let link = &mut self.links[segment];
        if model.keeps(Rule::NewAttemptEachOpen) || link.attempt == 0 {
            link.attempt += 1;
        }
        let session = (epoch, link.attempt);
        link.current.push(Message::Open { session, resuming: link.ever_sent });
        link.end_session(LinkState::Opening);
    }

    /// The blocks that may be sent next, as (pending numbers to skip, numbers to take).
    pub(super) fn sendable(&self, model: &SessionChain, segment: usize) -> Vec<(usize, usize)> {
        let link = &self.links[segment];
        let may_send = self.phase == Phase::Running
            && link.state == LinkState::Open
            && !self.is_held_back(model, segment);
        if !may_send {
            return Vec::new();
        }
        let unsent = self.unsent(model, segment);
        let alone = |number: u8| model.conditional.is_some_and(|(n, _)| n == number);
        match unsent[..] {
            [] => vec![],
            [first, second, ..] if !alone(first) && !alone(second) => {
                let mut choices = vec![(0, 1), (0, 2)];
                if !model.keeps(Rule::SuccessorInNumberOrder) && !model.layout.is_first(segment) {
                    choices.push((1, 1));
                }
                choices
            }
            _ => vec![(0, 1)],
        }
    }

    fn unsent(&self, model: &SessionChain, segment: usize) -> Vec<u8> {
        let mut pending = self.pending(model, segment);
        pending.retain(|number| !self.links[segment].sent.contains(number));
        pending
    }

    pub(super) fn send(&mut self, model: &SessionChain, segment: usize, skip: usize, count: usize) {
        let unsent = self.unsent(model, segment);
        let numbers = unsent[skip..skip + count].to_vec();
        let epoch = self.epoch;
        let link = &mut self.links[segment];
        assert!(
            numbers[0] > link.sent_to || model.removed.is_some(),
            "with all rules a chain only grows"
        );
        let session = (epoch, link.attempt);
        let previous = link.sent_to;
        link.sent_to = numbers[count - 1];
        link.sent.extend(&numbers);
        link.ever_sent = true;
        link.current.push(Message::Block { session, previous, numbers });
    }

    pub(super) fn on_answer(
        &mut self,
        model: &SessionChain,
        segment: usize,
        message: &Message,
        answer: Answer,
    ) {
        if !self.concerns(segment, message) {
            return;
        }
        match answer {
            Answer::Opened { last, sealed: true } | Answer::Sealed { last } => {
                self.on_sealed(model, segment, last);
            }
            Answer::Opened { last, sealed: false } => {
                self.acknowledge(model, segment, last);
                let link = &mut self.links[segment];
                link.state = LinkState::Open;
                link.sent_to = last;
            }
            Answer::Stored { last } => self.acknowledge(model, segment, last),
            Answer::Fenced { current } => self.on_fenced(segment, current),
            Answer::Broken => self.links[segment].end_session(LinkState::Closed),
            Answer::Mismatch => {
                self.refused.extend(model.conditional.map(|(number, _)| number));
                self.links[segment].end_session(LinkState::Closed);
            }
            Answer::Expired => self.phase = Phase::Expired,
        }
        if self.phase == Phase::Starting && self.knows_all(model) {
            self.phase = Phase::Running;
        }
    }

    /// Whether the answer is to the present session: what came before it decides nothing.
    fn concerns(&self, segment: usize, message: &Message) -> bool {
        let link = &self.links[segment];
        let (session, state) = match message {
            Message::Open { session, .. } => (session, LinkState::Opening),
            Message::Block { session, .. } => (session, LinkState::Open),
        };
        *session == (self.epoch, link.attempt) && link.state == state
    }

    fn on_sealed(&mut self, model: &SessionChain, segment: usize, last: u8) {
        if model.keeps(Rule::SealedSettles) || self.phase == Phase::Starting {
            self.acknowledge(model, segment, last);
        }
        self.links[segment].end_session(LinkState::Sealed);
        for (after, link) in self.links.iter_mut().enumerate() {
            let follows = model.layout.predecessors(after).contains(&segment);
            let told = self.phase != Phase::Starting || model.keeps(Rule::ResumeFollowsSuccessors);
            if follows && link.state == LinkState::Unknown && told {
                link.state = LinkState::Closed;
            }
        }
    }

    fn on_fenced(&mut self, segment: usize, current: Session) {
        if current.0 > self.epoch {
            self.phase = Phase::Fenced;
        } else {
            let link = &mut self.links[segment];
            link.attempt = link.attempt.max(current.1);
            link.end_session(LinkState::Closed);
        }
    }

    /// Everything of this segment's keys up to `last` is stored, here or in a predecessor.
    fn acknowledge(&mut self, model: &SessionChain, segment: usize, last: u8) {
        let of_segment = (1..=last).filter(|n| model.layout.covers(segment, key_of(*n)));
        let refused = &self.refused;
        self.acknowledged.extend(of_segment.filter(|number| !refused.contains(number)));
    }

    /// A resuming process has heard from every segment it must ask.
    fn knows_all(&mut self, model: &SessionChain) -> bool {
        let waits =
            self.links.iter().any(|l| matches!(l.state, LinkState::Closed | LinkState::Opening));
        if !waits && !model.keeps(Rule::ResumeFollowsSuccessors) {
            // What it did not follow it finds out about when it needs it.
            let unknown = self.links.iter_mut().filter(|l| l.state == LinkState::Unknown);
            unknown.for_each(|link| link.state = LinkState::Closed);
        }
        !waits
    }
}
