//! The answer that is being collected for the client.

use std::time::Duration;

use common::limits::PAGE_ITEMS_MAX;
use proto::v1::{
    AppendResponse, BlockAck, Hello, Reason, SegmentPlace, SessionFailure, SessionOpened,
};
use replica::ProposeError;

use crate::handle::{ContainerError, propose_reason};
use crate::identity::Successor;
use crate::limits::{ANSWER_BYTES_MAX, RETRY_AFTER, SUCCESSOR_BYTES_MAX, UNREAD_ANSWER_BYTES_MAX};
use crate::outcome::{Opened, Refusal};

#[derive(Debug, Default)]
pub(super) struct Answers {
    collected: AppendResponse,
    /// About what `collected` takes.
    bytes: usize,
    /// Acknowledgements that were taken before those that are collected.
    acks_taken: usize,
    /// A round is complete, or something cannot wait for one.
    ready: bool,
}

impl Answers {
    pub(super) fn greet(&mut self, hello: Hello) {
        self.collected.hello = Some(hello);
    }

    pub(super) fn set_ready(&mut self) {
        self.ready = true;
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether a session's end is to be told.
    pub(super) fn has_ends(&self) -> bool {
        !self.collected.failures.is_empty() || !self.collected.closed.is_empty()
    }

    /// Whether the client has left so much untaken that nothing more is taken from it.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= UNREAD_ANSWER_BYTES_MAX
    }

    /// Takes what was collected, or as much of it as one answer holds; `None` where that is nothing.
    pub(super) fn take(&mut self) -> Option<AppendResponse> {
        self.ready = false;
        let AppendResponse { hello, opened, acks, failures, closed } = &self.collected;
        let sessions = opened.len() + acks.len() + failures.len() + closed.len();
        if hello.is_none() && sessions == 0 {
            return None;
        }
        let taken = match self.bytes <= ANSWER_BYTES_MAX {
            true => std::mem::take(&mut self.collected),
            false => self.take_part(),
        };
        self.acks_taken += taken.acks.len();
        Some(self.counted(taken))
    }

    /// Of each slot first that it is open, then acknowledgements, then its end, as they came.
    fn take_part(&mut self) -> AppendResponse {
        self.ready = true;
        let collected = &mut self.collected;
        let mut room = ANSWER_BYTES_MAX;
        AppendResponse {
            hello: collected.hello.take(),
            opened: part(&mut collected.opened, &mut room, opened_bytes),
            acks: part(&mut collected.acks, &mut room, |_| ITEM_BYTES),
            closed: part(&mut collected.closed, &mut room, |_| CLOSED_BYTES),
            failures: part(&mut collected.failures, &mut room, failure_bytes),
        }
    }

    fn counted(&mut self, taken: AppendResponse) -> AppendResponse {
        let opened: usize = taken.opened.iter().map(opened_bytes).sum();
        let failures: usize = taken.failures.iter().map(failure_bytes).sum();
        let plain = taken.acks.len() * ITEM_BYTES + taken.closed.len() * CLOSED_BYTES;
        self.bytes -= opened + failures + plain;
        taken
    }

    pub(super) fn opened(&mut self, slot: u32, opened: &Opened) {
        let successors = opened.successors.as_deref().filter(|_| !self.is_full());
        let (successors, mut has_more_successors) = places(successors);
        has_more_successors |= self.is_full() && has_successors(opened.successors.as_deref());
        let answer = SessionOpened {
            slot,
            last_number: opened.last_number.0,
            length: opened.length.0,
            sealed: opened.successors.is_some(),
            successors,
            has_more_successors,
            sum: opened.sum.sum,
            sum_after: opened.sum.after.0,
        };
        self.bytes += opened_bytes(&answer);
        self.collected.opened.push(answer);
    }

    pub(super) fn closed(&mut self, slot: u32) {
        self.bytes += CLOSED_BYTES;
        self.collected.closed.push(slot);
    }

    /// Notes an acknowledgement; one of the same slot that is not sent yet is raised instead.
    pub(super) fn ack(&mut self, at: &mut Option<usize>, ack: BlockAck) {
        let place = at.and_then(|at| at.checked_sub(self.acks_taken));
        match place.and_then(|at| self.collected.acks.get_mut(at)) {
            Some(earlier) => {
                earlier.last_number = earlier.last_number.max(ack.last_number);
                earlier.length = earlier.length.max(ack.length);
            }
            None => {
                *at = Some(self.acks_taken + self.collected.acks.len());
                self.bytes += ITEM_BYTES;
                self.collected.acks.push(ack);
            }
        }
    }

    pub(super) fn fail(&mut self, mut failure: SessionFailure) {
        if self.is_full() && !failure.successors.is_empty() {
            failure.successors = Vec::new();
            failure.has_more_successors = true;
        }
        self.bytes += failure_bytes(&failure);
        self.collected.failures.push(failure);
    }
}

/// A failure that is decided from the message alone.
pub(super) fn invalid(slot: u32, reason: Reason, message: String) -> SessionFailure {
    SessionFailure { slot, reason: reason.into(), message, ..SessionFailure::default() }
}

/// A failure that apply decided.
pub(super) fn refused(slot: u32, refusal: &Refusal) -> SessionFailure {
    let mut failure = invalid(slot, refusal.reason(), refusal.to_string());
    match refusal {
        Refusal::WriterFenced { current } => failure.current = Some((*current).into()),
        Refusal::SegmentSealed { last_number, length, successors } => {
            (failure.last_number, failure.length) = (last_number.0, length.0);
            (failure.successors, failure.has_more_successors) = places(Some(successors));
        }
        Refusal::SessionBroken { last_number, length }
        | Refusal::OffsetMismatch { last_number, length, .. } => {
            (failure.last_number, failure.length) = (last_number.0, length.0);
        }
        _ => {}
    }
    failure
}

/// A failure because there is no outcome.
pub(super) fn not_proposed(slot: u32, error: &ContainerError) -> SessionFailure {
    let mut failure = invalid(slot, error.reason(), error.to_string());
    failure.retry_after_millis = match error {
        ContainerError::Propose(ProposeError::Full { retry_after }) => millis(*retry_after),
        ContainerError::Propose(error) if propose_reason(error) == Reason::TooLarge => 0,
        _ => millis(RETRY_AFTER),
    };
    failure
}

/// As many successors as an answer has room for, and whether there are more.
fn places(successors: Option<&[Successor]>) -> (Vec<SegmentPlace>, bool) {
    let successors = successors.unwrap_or_default();
    let mut bytes = 0;
    let fit = |place: &SegmentPlace| {
        bytes += place_bytes(place);
        bytes <= SUCCESSOR_BYTES_MAX
    };
    let first = successors.iter().take(PAGE_ITEMS_MAX).map(Successor::place);
    let first: Vec<_> = first.take_while(fit).collect();
    let has_more = first.len() < successors.len();
    (first, has_more)
}

fn has_successors(successors: Option<&[Successor]>) -> bool {
    successors.is_some_and(|successors| !successors.is_empty())
}

/// About what an item of an answer takes, in memory and on the wire.
const ITEM_BYTES: usize = 64;
const CLOSED_BYTES: usize = 8;

fn place_bytes(place: &SegmentPlace) -> usize {
    2 * ITEM_BYTES + place.predecessors.len() * ITEM_BYTES
}

fn opened_bytes(opened: &SessionOpened) -> usize {
    ITEM_BYTES + opened.successors.iter().map(place_bytes).sum::<usize>()
}

fn failure_bytes(failure: &SessionFailure) -> usize {
    let successors: usize = failure.successors.iter().map(place_bytes).sum();
    2 * ITEM_BYTES + failure.message.len() + successors
}

/// Takes the first items out, as many as there is room for, and at least one where there is any.
fn part<T>(items: &mut Vec<T>, room: &mut usize, bytes: impl Fn(&T) -> usize) -> Vec<T> {
    let fits = |item: &&T| {
        let before = *room;
        *room = room.saturating_sub(bytes(item));
        before > 0
    };
    let count = items.iter().take_while(fits).count();
    items.drain(..count).collect()
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_that_stayed_behind_is_raised_where_it_is_now() {
        let (mut answers, mut places) = (Answers::default(), vec![None; 20_000]);
        let ack = |slot: usize, last_number| BlockAck { slot: slot as u32, last_number, length: 1 };
        for (slot, place) in places.iter_mut().enumerate() {
            answers.ack(place, ack(slot, 1));
        }
        let first = answers.take().unwrap().acks;
        assert!(!first.is_empty() && first.len() < 20_000 && answers.is_ready());
        for slot in [19_000, 19_999] {
            answers.ack(&mut places[slot], ack(slot, 7));
        }
        let rest = answers.take().unwrap().acks;
        assert_eq!(first.len() + rest.len(), 20_000, "no slot is told twice");
        let raised: Vec<_> = rest.iter().filter(|ack| ack.last_number == 7).collect();
        assert_eq!(raised.iter().map(|ack| ack.slot).collect::<Vec<_>>(), [19_000, 19_999]);
    }
}
