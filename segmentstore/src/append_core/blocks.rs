//! Blocks: checked, proposed, acknowledged.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use common::limits::EVENT_BYTES_MAX;
use common::{EventNumber, Offset};
use proto::v1::{AppendBlock, AppendBlocks, BlockAck, Reason, SessionFailure};
use replica::{Proposal, ProposeError, Reply};
use tonic::Status;

use super::answers::{invalid, not_proposed};
use super::slots::{Session, Tag};
use super::{AppendConnection, State};
use crate::handle::ContainerError;
use crate::limits::{BLOCK_COST_BYTES, ZERO_COPY_BYTES_MIN};
use crate::operation::{Append, EventSum};
use crate::outcome::Outcome;
use crate::permits::BytePermit;

/// Blocks that are proposed under one lock: a worker with an outcome does not wait for a message of
/// thousands.
const BLOCKS_PER_LOCK: usize = 32;

impl AppendConnection {
    pub(super) fn append(
        self: &Arc<Self>,
        message: AppendBlocks,
        mut permit: BytePermit,
    ) -> Result<(), Status> {
        // One buffer for the headers and the small payloads of the whole message.
        let small = |block: &AppendBlock| match block.data.len() {
            bytes if bytes < ZERO_COPY_BYTES_MIN => bytes,
            _ => 0,
        };
        let payloads: usize = message.blocks.iter().map(small).sum();
        let mut buffer =
            BytesMut::with_capacity(message.blocks.len() * Append::BYTES_MAX + payloads);
        let mut blocks = message.blocks.into_iter();
        while blocks.len() > 0 {
            let mut state = self.lock();
            for block in blocks.by_ref().take(BLOCKS_PER_LOCK) {
                let permit = permit.split(BLOCK_COST_BYTES + block.data.len());
                self.append_block(&mut state, block, permit, &mut buffer)?;
            }
        }
        Ok(())
    }

    fn append_block(
        self: &Arc<Self>,
        state: &mut State,
        block: AppendBlock,
        permit: BytePermit,
        buffer: &mut BytesMut,
    ) -> Result<(), Status> {
        let slot = block.slot;
        let Some(entry) = state.slots.get_mut(slot) else {
            // The slot is used up by this: what else comes on it has been answered.
            state.slots.add(slot, None)?;
            let message = format!("slot {slot} was never opened on this connection; open it first");
            self.end_session(state, slot, invalid(slot, Reason::InvalidArgument, message));
            return Ok(());
        };
        // The client has been told that the session is over.
        let Some(session) = &entry.session else { return Ok(()) };
        let closed = entry.closing.then(|| closed(slot));
        if let Some(failure) = closed.or_else(|| check(&block)) {
            self.end_session(state, slot, failure);
            return Ok(());
        }
        let container = session.container.clone();
        let (header, key) = header(session, &block, buffer);
        let payload = own(block.data, buffer);
        let last = EventNumber(block.last_number);
        let Some(sequence) = state.slots.add_block(slot, last, permit) else { return Ok(()) };
        let tag = Tag::Block { slot, sequence }.number();
        let mut proposal = Proposal::new(header, payload);
        proposal.order_key = Some(key);
        let reply = Reply::Sink { sink: self.clone(), tag };
        if let Err(refused) = container.propose(proposal.reply(reply)) {
            state.slots.take_block(slot, sequence);
            let failure = not_proposed(slot, &ContainerError::Propose(refused.error));
            self.end_session(state, slot, failure);
        }
        Ok(())
    }

    /// The outcome of a block is known.
    pub(super) fn decided(
        &self,
        state: &mut State,
        slot: u32,
        sequence: u32,
        outcome: Result<Outcome, ProposeError>,
    ) {
        let Some(last) = state.slots.take_block(slot, sequence) else { return };
        let Some(entry) = state.slots.get_mut(slot) else { return };
        // Whoever was told that the session is over decides anew after an `Open`.
        if entry.session.is_none() {
            return;
        }
        match outcome {
            Ok(
                Outcome::Appended { last_number, length }
                | Outcome::Duplicate { last_number, length },
            ) => {
                assert!(last_number >= last, "an acknowledged block is stored");
                let ack = BlockAck { slot, last_number: last_number.0, length: length.0 };
                state.answers.ack(&mut entry.ack, ack);
            }
            Ok(Outcome::Refused(refusal)) => self.refuse(state, slot, &refusal),
            Ok(other) => unreachable!("a block was answered with {other:?}"),
            Err(error) => {
                let failure = not_proposed(slot, &ContainerError::Propose(error));
                self.end_session(state, slot, failure);
            }
        }
    }
}

fn closed(slot: u32) -> SessionFailure {
    let message = format!("slot {slot} was closed; open the segment again under another slot");
    invalid(slot, Reason::InvalidArgument, message)
}

/// Why a block cannot be proposed, whatever the segment's state.
fn check(block: &AppendBlock) -> Option<SessionFailure> {
    let bytes = block.data.len();
    let (reason, message) = if bytes == 0 {
        (Reason::InvalidArgument, "a block has no data; send at least one event".to_owned())
    } else if bytes > EVENT_BYTES_MAX {
        let message = format!(
            "a block of {bytes} bytes is too large; at most {EVENT_BYTES_MAX} bytes are allowed, \
             framing included"
        );
        (Reason::TooLarge, message)
    } else if block.last_number <= block.previous_number {
        let message = format!(
            "a block's `last_number` {} is not above its `previous_number` {}",
            block.last_number, block.previous_number
        );
        (Reason::InvalidArgument, message)
    } else {
        return None;
    };
    Some(invalid(block.slot, reason, message))
}

fn header(session: &Session, block: &AppendBlock, buffer: &mut BytesMut) -> (Bytes, u128) {
    let append = Append {
        segment: session.segment,
        writer: session.writer,
        session: session.session,
        previous: EventNumber(block.previous_number),
        last: EventNumber(block.last_number),
        events: block.events,
        expected_offset: block.expected_offset.map(Offset),
        sum: EventSum { sum: block.sum, after: EventNumber(block.sum_after) },
    };
    append.put(buffer);
    (buffer.split().freeze(), append.order_key())
}

/// A large block's bytes as they are; a small one's copied, so that it does not keep the buffer it
/// was received in alive.
fn own(data: Bytes, buffer: &mut BytesMut) -> Bytes {
    if data.len() >= ZERO_COPY_BYTES_MIN {
        return data;
    }
    buffer.put_slice(&data);
    buffer.split().freeze()
}
