//! A writer of one segment that speaks the wire protocol itself: unlike the client library it
//! sends conditional appends, draws its batching from the seed, and is easy to make a second
//! process of.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use common::{ContainerId, Rng, SegmentId, WriterId};
use proto::v1::{self, append_request::Message};

use crate::history::EventRef;

/// An append: one event, several to be stored together, or one that expects an offset.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// The operation of the history.
    pub(super) op: u64,
    pub(super) events: Vec<EventRef>,
    pub(super) data: Bytes,
    pub(super) expected_offset: Option<u64>,
}

impl Item {
    fn last_number(&self) -> u64 {
        self.events.last().map_or(0, |event| event.number)
    }
}

/// What became of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    Acknowledged { op: u64 },
    Refused { op: u64, reason: &'static str },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    Closed,
    Opening { slot: u32 },
    Open { slot: u32, sent_to: u64 },
}

/// Why a writer takes no more appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Fenced,
    Sealed,
    Gone,
    Expired,
}

#[derive(Debug)]
pub(super) struct RawWriter {
    pub(super) segment: SegmentId,
    pub(super) container: ContainerId,
    pub(super) ended: Option<Ended>,
    /// The segment's length as far as the writer knows.
    pub(super) known_length: u64,
    pub(super) named: bool,
    writer: WriterId,
    epoch: u64,
    attempt: u32,
    next_slot: u32,
    session: Session,
    /// A block was ever sent.
    resuming: bool,
    /// Everything up to this number is stored.
    stored: u64,
    /// Not yet decided, in the order of their numbers.
    pending: VecDeque<Item>,
    rng: Rng,
}

impl RawWriter {
    pub(super) fn new(
        index: u32,
        segment: SegmentId,
        container: ContainerId,
        epoch: u64,
        named: bool,
        rng: Rng,
    ) -> Self {
        Self {
            segment,
            container,
            ended: None,
            known_length: 0,
            writer: WriterId(u128::from(index) + 1),
            named,
            epoch,
            attempt: 0,
            next_slot: 1,
            session: Session::Closed,
            resuming: false,
            stored: 0,
            pending: VecDeque::new(),
            rng,
        }
    }

    /// Takes an append. One that an earlier process is known to have stored is acknowledged.
    pub(super) fn push(&mut self, item: Item) -> Vec<Notice> {
        if item.last_number() <= self.stored {
            return vec![Notice::Acknowledged { op: item.op }];
        }
        self.pending.push_back(item);
        Vec::new()
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What to send now, at most one message; `None` when there is nothing to do but wait.
    pub(super) fn poll_send(&mut self) -> Option<v1::AppendRequest> {
        if self.ended.is_some() || self.pending.is_empty() {
            return None;
        }
        match self.session {
            Session::Closed => Some(self.open()),
            Session::Opening { .. } => None,
            Session::Open { slot, sent_to } => self.blocks(slot, sent_to),
        }
    }

    /// The connection is gone; the next one starts anew.
    pub(super) fn on_disconnect(&mut self) {
        self.session = Session::Closed;
        self.next_slot = 1;
    }

    fn open(&mut self) -> v1::AppendRequest {
        self.attempt += 1;
        let slot = self.next_slot;
        self.next_slot += 1;
        self.session = Session::Opening { slot };
        let segment = v1::OpenSegment {
            slot,
            segment: Some(self.segment.into()),
            container: self.container.0,
            resuming: self.resuming,
        };
        let open = v1::OpenSessions {
            writer: proto::convert::writer_bytes(self.writer),
            session: Some(v1::WriterSession { epoch: self.epoch, attempt: self.attempt }),
            segments: vec![segment],
            named: self.named,
        };
        v1::AppendRequest { message: Some(Message::Open(open)) }
    }

    /// One to three blocks of one to four items, drawn anew at each sending.
    fn blocks(&mut self, slot: u32, sent_to: u64) -> Option<v1::AppendRequest> {
        let mut sent_to = sent_to;
        let mut blocks = Vec::new();
        for _ in 0..self.rng.between(1, 3) {
            let unsent = self.pending.iter().filter(|item| item.last_number() > sent_to);
            let items = self.rng.between(1, 4) as usize;
            let mut chosen: Vec<&Item> = unsent.take(items).collect();
            // An atomic batch and a conditional append are blocks of their own.
            let alone = |item: &&Item| item.expected_offset.is_some() || item.events.len() > 1;
            let together = chosen.iter().position(alone).map_or(chosen.len(), |at| at.max(1));
            chosen.truncate(together);
            let Some(last) = chosen.last() else { break };
            let mut data = BytesMut::new();
            chosen.iter().for_each(|item| data.extend_from_slice(&item.data));
            let block = v1::AppendBlock {
                slot,
                previous_number: sent_to,
                last_number: last.last_number(),
                events: chosen.iter().map(|item| item.events.len() as u32).sum(),
                expected_offset: last.expected_offset,
                data: data.freeze(),
                sum: 0,
                sum_after: 0,
            };
            sent_to = block.last_number;
            blocks.push(block);
        }
        if blocks.is_empty() {
            return None;
        }
        self.resuming = true;
        self.session = Session::Open { slot, sent_to };
        Some(v1::AppendRequest { message: Some(Message::Blocks(v1::AppendBlocks { blocks })) })
    }

    /// The session that a writer without a name which ends here asks to be closed.
    pub(super) fn close(&mut self) -> Vec<u32> {
        match std::mem::replace(&mut self.session, Session::Closed) {
            Session::Open { slot, .. } if !self.named && self.ended.is_none() => vec![slot],
            _ => Vec::new(),
        }
    }

    pub(super) fn on_response(&mut self, response: &v1::AppendResponse) -> Vec<Notice> {
        let mut notices = Vec::new();
        for opened in &response.opened {
            if self.session == (Session::Opening { slot: opened.slot }) {
                self.on_opened(opened, &mut notices);
            }
        }
        for ack in &response.acks {
            if matches!(self.session, Session::Open { slot, .. } if slot == ack.slot) {
                self.known_length = ack.length;
                self.acknowledge(ack.last_number, &mut notices);
            }
        }
        for failure in &response.failures {
            let current = match self.session {
                Session::Closed => None,
                Session::Opening { slot } | Session::Open { slot, .. } => Some(slot),
            };
            if current == Some(failure.slot) {
                self.on_failure(failure, &mut notices);
            }
        }
        notices
    }

    fn on_opened(&mut self, opened: &v1::SessionOpened, notices: &mut Vec<Notice>) {
        self.known_length = opened.length;
        self.acknowledge(opened.last_number, notices);
        if opened.sealed {
            self.end(Ended::Sealed, notices);
        } else {
            self.session = Session::Open { slot: opened.slot, sent_to: opened.last_number };
        }
    }

    fn acknowledge(&mut self, last: u64, notices: &mut Vec<Notice>) {
        self.stored = self.stored.max(last);
        while let Some(item) = self.pending.pop_front_if(|item| item.last_number() <= last) {
            notices.push(Notice::Acknowledged { op: item.op });
        }
    }

    fn on_failure(&mut self, failure: &v1::SessionFailure, notices: &mut Vec<Notice>) {
        self.session = Session::Closed;
        match failure.reason() {
            v1::Reason::WriterFenced => {
                let current = failure.current.unwrap_or_default();
                self.attempt = self.attempt.max(current.attempt);
                if current.epoch > self.epoch {
                    self.ended = Some(Ended::Fenced);
                }
            }
            v1::Reason::OffsetMismatch => {
                self.acknowledge(failure.last_number, notices);
                self.known_length = failure.length;
                // Nothing before it was refused, else the refusal would be another one.
                let refused = self.pending.pop_front_if(|item| item.expected_offset.is_some());
                let op = refused.expect("only a conditional append misses its offset").op;
                notices.push(Notice::Refused { op, reason: "OFFSET_MISMATCH" });
            }
            v1::Reason::SegmentSealed => {
                self.acknowledge(failure.last_number, notices);
                self.end(Ended::Sealed, notices);
            }
            v1::Reason::SegmentNotFound => self.ended = Some(Ended::Gone),
            v1::Reason::WriterExpired => self.ended = Some(Ended::Expired),
            // Broken, full, not the leader, …: open again.
            _ => {}
        }
    }

    /// The segment takes no more: what is left was certainly not stored.
    fn end(&mut self, ended: Ended, notices: &mut Vec<Notice>) {
        self.ended = Some(ended);
        let refused = self.pending.drain(..);
        notices.extend(refused.map(|item| Notice::Refused { op: item.op, reason: "SEALED" }));
    }
}
