//! The sessions of one connection, by the slot numbers that the client chose.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use common::{EventNumber, SegmentId, WriterId, WriterSession};
use proto::error::{Reason, status, status_with};
use tonic::Status;

use super::room::{Charge, SessionBudget};
use crate::handle::ContainerHandle;
use crate::limits::RETRY_AFTER;
use crate::permits::BytePermit;

/// The answers that a connection waits for carry a tag that says what they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// An `Open` or `Close` entry, by its number on this connection.
    Open(u32),
    Block {
        slot: u32,
        sequence: u32,
    },
}

const SEQUENCE_MAX: u32 = u32::MAX >> 1;

impl Tag {
    pub(super) fn number(self) -> u64 {
        match self {
            Tag::Open(open) => u64::from(open) << 1 | 1,
            Tag::Block { slot, sequence } => u64::from(slot) << 32 | u64::from(sequence) << 1,
        }
    }

    pub(super) fn of(number: u64) -> Self {
        match number & 1 {
            1 => Tag::Open((number >> 1) as u32),
            _ => Tag::Block { slot: (number >> 32) as u32, sequence: number as u32 >> 1 },
        }
    }
}

/// A session on a segment.
pub(super) struct Session {
    pub(super) segment: SegmentId,
    pub(super) writer: WriterId,
    pub(super) session: WriterSession,
    pub(super) container: Arc<dyn ContainerHandle>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({} {:x} {})", self.segment, self.writer.0, self.session)
    }
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    /// `None` once the session is over.
    pub(super) session: Option<Session>,
    /// Blocks that were proposed and are not answered, in their order.
    in_flight: VecDeque<InFlight>,
    next_sequence: u32,
    /// The client has closed it: it takes no more blocks.
    pub(super) closing: bool,
    /// Where the slot's acknowledgement stands in the answer that is being collected.
    pub(super) ack: Option<usize>,
}

#[derive(Debug)]
struct InFlight {
    sequence: u32,
    last: EventNumber,
    permit: BytePermit,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: BTreeMap<u32, Slot>,
    opens: BTreeMap<u32, Vec<u32>>,
    next_open: u32,
    unanswered: usize,
    charge: Charge,
}

impl Slots {
    pub(super) fn new(sessions: &SessionBudget) -> Self {
        Self { charge: sessions.charge(), ..Self::default() }
    }

    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(&slot)
    }

    /// Uses up a slot number; `None` makes one whose session is over from the beginning.
    pub(super) fn add(&mut self, slot: u32, session: Option<Session>) -> Result<(), Status> {
        let slots_max = self.charge.budget().of_connection_max();
        if self.slots.len() >= slots_max {
            let message = format!(
                "the connection has opened {slots_max} sessions, as many as it may in its life \
                 (`limits.sessions_per_connection` of the server); connect again"
            );
            return Err(status(Reason::ResourceExhausted, message));
        }
        if self.slots.contains_key(&slot) {
            let message = format!("slot {slot} was used before on this connection; choose another");
            return Err(status(Reason::InvalidArgument, message));
        }
        if !self.charge.slot() {
            let message = format!(
                "this server keeps at most {} sessions of writers on segments, and has as many; \
                 use fewer writers or segments at a time, or raise `memory.limit`",
                self.charge.budget().slots_max()
            );
            return Err(status_with(Reason::ResourceExhausted, message, [], Some(RETRY_AFTER)));
        }
        self.slots.insert(slot, Slot { session, ..Slot::default() });
        Ok(())
    }

    /// Remembers which slots the next `Open` or `Close` entry is for.
    pub(super) fn add_open(&mut self, slots: Vec<u32>) -> u32 {
        let open = self.next_open;
        self.next_open = self.next_open.wrapping_add(1);
        self.opens.insert(open, slots);
        self.unanswered += 1;
        open
    }

    pub(super) fn take_open(&mut self, open: u32) -> Option<Vec<u32>> {
        let slots = self.opens.remove(&open)?;
        self.unanswered -= 1;
        Some(slots)
    }

    /// Notes a block that is about to be proposed and returns its sequence number.
    pub(super) fn add_block(
        &mut self,
        slot: u32,
        last: EventNumber,
        permit: BytePermit,
    ) -> Option<u32> {
        let entry = self.slots.get_mut(&slot)?;
        let sequence = entry.next_sequence;
        entry.next_sequence = (sequence + 1) & SEQUENCE_MAX;
        entry.in_flight.push_back(InFlight { sequence, last, permit });
        self.unanswered += 1;
        Some(sequence)
    }

    /// Takes a block back whose outcome is known; its permit is given back.
    pub(super) fn take_block(&mut self, slot: u32, sequence: u32) -> Option<EventNumber> {
        let entry = self.slots.get_mut(&slot)?;
        // Outcomes come in order but for blocks whose proposals were lost.
        let at = entry.in_flight.iter().position(|block| block.sequence == sequence)?;
        let block = entry.in_flight.remove(at)?;
        drop(block.permit);
        self.unanswered -= 1;
        Some(block.last)
    }

    pub(super) fn ack_taken(&mut self, slot: u32) {
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.ack = None;
        }
    }

    /// Ends all sessions: nothing more is proposed or told.
    pub(super) fn abandon(&mut self) {
        for slot in self.slots.values_mut() {
            slot.session = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_opens_as_many_sessions_in_its_life_as_it_may_and_is_told_to_come_again() {
        let budget = SessionBudget::new(u64::MAX, 2);
        let mut slots = Slots::new(&budget);
        slots.add(7, None).unwrap();
        slots.add(8, None).unwrap();
        let refused = slots.add(9, None).unwrap_err();
        assert_eq!(proto::error::reason_of(&refused), Reason::ResourceExhausted);
        assert!(refused.message().contains("opened 2 sessions"), "{refused}");
        assert!(refused.message().contains("connect again"), "{refused}");
        Slots::new(&budget).add(9, None).unwrap();
    }

    #[test]
    fn tags_read_back() {
        let tags = [
            Tag::Open(0),
            Tag::Open(u32::MAX),
            Tag::Block { slot: 0, sequence: 0 },
            Tag::Block { slot: u32::MAX, sequence: SEQUENCE_MAX },
            Tag::Block { slot: 1, sequence: 2 },
        ];
        for tag in tags {
            assert_eq!(Tag::of(tag.number()), tag);
        }
    }
}
