//! What goes out.

use common::limits::{APPEND_BLOCK_BYTES_MAX, OPEN_SEGMENTS_MAX};
use common::{Attempt, WriterSession};
use proto::convert::writer_bytes;
use proto::v1;

use super::segment::State;
use super::{LinkId, Slots, WriterCore};

/// Bytes a block takes in a message besides its data, about.
const BLOCK_ENVELOPE_BYTES: usize = 32;

impl WriterCore {
    /// The next message for a link, if there is one: sessions first, then blocks of as many
    /// segments as fit. For a connection of one writer only.
    #[cfg(any(test, feature = "simulation"))]
    pub fn poll_send(&mut self, link: LinkId, slots: &mut Slots) -> Option<v1::AppendRequest> {
        use v1::append_request::Message;
        let message = match self.poll_open(link, slots) {
            Some(open) => Message::Open(open),
            None => {
                let mut blocks = Vec::new();
                self.poll_blocks(link, self.message_bytes(link), &mut blocks);
                if blocks.is_empty() {
                    // Those that may be forgotten open first.
                    Message::Open(self.poll_open(link, slots)?)
                } else {
                    Message::Blocks(v1::AppendBlocks { blocks })
                }
            }
        };
        Some(v1::AppendRequest { message: Some(message) })
    }

    /// Whether the link has something to send.
    pub fn has_work(&self, link: LinkId) -> bool {
        let link = &self.links[link.0];
        self.failed.is_none() && !(link.opens.is_empty() && link.ready.is_empty())
    }

    /// Whether the link has sessions to ask for.
    pub fn wants_open(&self, link: LinkId) -> bool {
        self.failed.is_none() && !self.links[link.0].opens.is_empty()
    }

    /// Bytes for one message: it grows with the number of segments that have something to say.
    pub fn message_bytes(&self, link: LinkId) -> usize {
        let segments = self.links[link.0].ready.len().max(1);
        (segments * self.limits.block_bytes).min(APPEND_BLOCK_BYTES_MAX)
    }

    /// Sessions that are wanted on a link, under a new attempt. The slots in it are the writer's
    /// until the connection ends.
    pub fn poll_open(&mut self, link: LinkId, slots: &mut Slots) -> Option<v1::OpenSessions> {
        let mut segments = Vec::new();
        while segments.len() < OPEN_SEGMENTS_MAX && self.failed.is_none() {
            let Some(index) = self.links[link.0].opens.pop_front() else { break };
            let segment = &mut self.segments[index];
            if segment.state != State::WantsOpen || segment.link != link {
                continue;
            }
            let slot = slots.next();
            segment.state = State::Opening(slot);
            self.links[link.0].slots.insert(slot, index);
            segments.push(v1::OpenSegment {
                slot,
                segment: Some(segment.place.segment.into()),
                container: segment.place.container.0,
                resuming: segment.resuming,
            });
        }
        self.rest(link);
        if segments.is_empty() {
            return None;
        }
        self.attempt = Attempt(self.attempt.0 + 1);
        Some(v1::OpenSessions {
            writer: writer_bytes(self.identity.writer),
            session: Some(self.session().into()),
            segments,
            named: self.identity.is_named(),
        })
    }

    /// Adds blocks for a link to `out`, about `room` bytes; gives the bytes added.
    pub fn poll_blocks(
        &mut self,
        link: LinkId,
        room: usize,
        out: &mut Vec<v1::AppendBlock>,
    ) -> usize {
        let mut bytes = 0;
        while bytes < room && self.failed.is_none() {
            let Some(index) = self.links[link.0].ready.pop_front() else { break };
            if self.segments[index].link != link {
                // It moved, and stands in its new link's queue.
                continue;
            }
            self.segments[index].ready = false;
            if let Some(block) = self.next_block(index) {
                bytes += block.data.len() + BLOCK_ENVELOPE_BYTES;
                out.push(block);
                self.offer(index);
            }
        }
        self.rest(link);
        bytes
    }

    pub(super) fn session(&self) -> WriterSession {
        WriterSession { epoch: self.identity.epoch, attempt: self.attempt }
    }

    fn next_block(&mut self, index: usize) -> Option<v1::AppendBlock> {
        let sums = self.sums();
        let segment = &mut self.segments[index];
        let State::Open(slot) = segment.state else { return None };
        if !segment.can_send(&self.limits) {
            return None;
        }
        let kept = self.links[segment.link.0].writer_kept;
        if segment.in_flight == 0 && self.boot_time.since(segment.last_used) >= kept {
            // The store may have forgotten the writer: the answer to an `Open` tells.
            self.leave_session(index);
            self.want_open(index);
            return None;
        }
        if segment.queue.len() == segment.in_flight {
            segment.close_block(false);
        }
        let block = &mut segment.queue[segment.in_flight];
        block.sent = true;
        segment.in_flight += 1;
        segment.in_flight_bytes += block.data.len();
        segment.resuming = true;
        segment.sent_through = segment.sent_through.max(block.last);
        segment.chain_sum = segment.chain_sum.wrapping_add(block.sum);
        let previous_number = std::mem::replace(&mut segment.chain, block.last);
        assert!(previous_number < block.last, "the chain ascends");
        Some(v1::AppendBlock {
            slot,
            previous_number,
            last_number: block.last,
            events: block.events,
            expected_offset: None,
            data: block.data.clone(),
            sum: if sums { segment.chain_sum } else { 0 },
            sum_after: segment.acknowledged_sum.after,
        })
    }

    /// Nothing more to send on the link: the next thing is announced again.
    fn rest(&mut self, link: LinkId) {
        let link = &mut self.links[link.0];
        if link.opens.is_empty() && link.ready.is_empty() {
            link.announced = false;
        }
    }
}
