//! The answer that is being collected for the client.

use std::time::Duration;

use common::limits::PAGE_ITEMS_MAX;
use proto::v1::{
    AppendResponse, BlockAck, Hello, Reason, SegmentPlace, SessionFailure, SessionOpened,
};
use replica::ProposeError;

use crate::handle::{ContainerError, propose_reason};
use crate::identity::Successor;
use crate::limits::RETRY_AFTER;
use crate::outcome::{Opened, Refusal};

#[derive(Debug, Default)]
pub(super) struct Answers {
    collected: AppendResponse,
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

    /// Takes what was collected; `None` where that is nothing.
    pub(super) fn take(&mut self) -> Option<AppendResponse> {
        self.ready = false;
        let AppendResponse { hello, opened, acks, failures, closed } = &self.collected;
        let empty = hello.is_none()
            && opened.is_empty()
            && acks.is_empty()
            && failures.is_empty()
            && closed.is_empty();
        (!empty).then(|| std::mem::take(&mut self.collected))
    }

    pub(super) fn opened(&mut self, slot: u32, opened: &Opened) {
        let (successors, has_more_successors) = places(opened.successors.as_deref());
        self.collected.opened.push(SessionOpened {
            slot,
            last_number: opened.last_number.0,
            length: opened.length.0,
            sealed: opened.successors.is_some(),
            successors,
            has_more_successors,
            sum: opened.sum.sum,
            sum_after: opened.sum.after.0,
        });
    }

    pub(super) fn closed(&mut self, slot: u32) {
        self.collected.closed.push(slot);
    }

    /// Notes an acknowledgement; one of the same slot that is not sent yet is raised instead.
    pub(super) fn ack(&mut self, at: &mut Option<usize>, ack: BlockAck) {
        match at.and_then(|at| self.collected.acks.get_mut(at)) {
            Some(earlier) => {
                earlier.last_number = earlier.last_number.max(ack.last_number);
                earlier.length = earlier.length.max(ack.length);
            }
            None => {
                *at = Some(self.collected.acks.len());
                self.collected.acks.push(ack);
            }
        }
    }

    pub(super) fn fail(&mut self, failure: SessionFailure) {
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

fn places(successors: Option<&[Successor]>) -> (Vec<SegmentPlace>, bool) {
    let successors = successors.unwrap_or_default();
    let first = successors.iter().take(PAGE_ITEMS_MAX).map(Successor::place).collect();
    (first, successors.len() > PAGE_ITEMS_MAX)
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).max(1)
}
