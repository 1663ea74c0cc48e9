//! One append connection, without I/O: messages in, proposals out, outcomes in, answers out.
//!
//! The gRPC service is a thin shell around it and the simulation drives it directly. Whoever drives
//! it takes a byte permit for a message ([`AppendConnection::bytes_of`]), hands both to
//! [`AppendConnection::on_request`], and fetches answers with [`AppendConnection::take_response`] or
//! [`AppendConnection::poll_response`].
//!
//! Guarantees:
//! - Blocks of one slot are proposed in the order in which they came, or not at all: once a block
//!   was refused, nothing behind it on that slot is proposed. The client is told once, and opens
//!   the segment again under a new slot.
//! - One message per round carries everything that became known in it; acknowledgements of one slot
//!   are folded into one.
//! - A block's permit is given back when its outcome is known, whether or not the client is still
//!   there.
//! - An error of `on_request` ends the connection: the client does not speak the protocol.

mod answers;
mod blocks;
mod close;
mod open;
mod room;
mod slots;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use proto::error::{Reason, status};
use proto::v1::{AppendBlock, AppendRequest, AppendResponse, Hello, append_request::Message};
use proto::{PROTOCOL_MAX, PROTOCOL_MIN};
use replica::{OutcomeSink, ProposeError};
use tonic::Status;

use crate::append_core::answers::Answers;
pub use crate::append_core::room::SessionBudget;
use crate::append_core::slots::Slots;
use crate::handle::Containers;
use crate::limits::{BLOCK_COST_BYTES, WRITER_TTL, micros};
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::permits::BytePermit;

/// A client's connection for appends.
#[derive(Debug)]
pub struct AppendConnection {
    containers: Containers,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    greeted: bool,
    slots: Slots,
    answers: Answers,
    /// No more messages come; the connection ends once everything is answered.
    finished: bool,
    failure: Option<Status>,
    waker: Option<Waker>,
    /// Whoever waits for the client to take its answers.
    room: Option<Waker>,
}

impl AppendConnection {
    /// `sessions`: what the slots of all connections may take together.
    pub fn new(
        containers: Containers,
        metrics: Arc<Metrics>,
        sessions: &SessionBudget,
    ) -> Arc<Self> {
        metrics.append_connections.add(1);
        let state = State { slots: Slots::new(sessions), ..State::default() };
        Arc::new(Self { containers, metrics, state: Mutex::new(state) })
    }

    /// Bytes that the blocks of a message cost: what a permit is needed for.
    pub fn bytes_of(request: &AppendRequest) -> usize {
        let cost = |block: &AppendBlock| BLOCK_COST_BYTES + block.data.len();
        match &request.message {
            Some(Message::Blocks(blocks)) => blocks.blocks.iter().map(cost).sum(),
            _ => 0,
        }
    }

    /// Takes one message of the client; `permit` covers its bytes. One message at a time: whoever
    /// drives the connection keeps their order.
    pub fn on_request(
        self: &Arc<Self>,
        request: AppendRequest,
        permit: BytePermit,
    ) -> Result<(), Status> {
        let mut state = self.lock();
        match request.message {
            Some(Message::Hello(hello)) => state.greet(&hello)?,
            _ if !state.greeted => {
                let message = "the first message of an append stream must be `hello`";
                return Err(status(Reason::InvalidArgument, message));
            }
            Some(Message::Open(message)) => self.open(&mut state, message)?,
            Some(Message::Blocks(blocks)) => {
                drop(state);
                self.append(blocks, permit)?;
                state = self.lock();
            }
            Some(Message::Close(close)) => self.close(&mut state, close)?,
            None => {
                let message = "a message of an append stream is empty or of a kind that this \
                               version does not know; use a client of this version or older";
                return Err(status(Reason::InvalidArgument, message));
            }
        }
        // What was decided here does not wait for a round.
        let waker = state.answers.has_ends().then(|| state.publish()).flatten();
        drop(state);
        wake(waker);
        Ok(())
    }

    /// Everything that is to be told now, if anything.
    pub fn take_response(&self) -> Option<AppendResponse> {
        self.lock().take_response()
    }

    /// The next answer; `None` once everything is answered after [`AppendConnection::finish`].
    pub fn poll_response(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<AppendResponse, Status>>> {
        let mut state = self.lock();
        if state.answers.is_ready()
            && let Some(response) = state.take_response()
        {
            return Poll::Ready(Some(Ok(response)));
        }
        if let Some(failure) = state.failure.take() {
            state.finished = true;
            state.slots.abandon();
            return Poll::Ready(Some(Err(failure)));
        }
        if state.finished && state.slots.unanswered() == 0 {
            return Poll::Ready(state.take_response().map(Ok));
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// The client sends no more; what it sent is still answered.
    pub fn finish(&self) {
        let waker = {
            let mut state = self.lock();
            state.finished = true;
            state.waker.take()
        };
        wake(waker);
    }

    /// Ends the connection with `failure`; what is under way is not answered any more.
    pub fn fail(&self, failure: Status) {
        let waker = {
            let mut state = self.lock();
            state.failure = Some(failure);
            state.waker.take()
        };
        wake(waker);
    }

    /// Proposals whose outcome is not known yet.
    pub fn unanswered(&self) -> usize {
        self.lock().slots.unanswered()
    }

    /// Nothing under this lock panics by design; a poisoned one is a defect that ends with the
    /// connection.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AppendConnection {
    fn drop(&mut self) {
        self.metrics.append_connections.subtract(1);
    }
}

impl State {
    fn greet(&mut self, hello: &Hello) -> Result<(), Status> {
        if self.greeted {
            let message = "`hello` came twice; it is the first message only";
            return Err(status(Reason::InvalidArgument, message));
        }
        if hello.protocol_max < PROTOCOL_MIN || hello.protocol_min > PROTOCOL_MAX {
            let message = format!(
                "the client `{} {}` speaks protocols {} to {}, this server {PROTOCOL_MIN} to \
                 {PROTOCOL_MAX}; use a client of another version",
                hello.library, hello.version, hello.protocol_min, hello.protocol_max
            );
            return Err(status(Reason::ProtocolUnsupported, message));
        }
        self.greeted = true;
        self.answers.greet(Hello {
            library: "braid".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            writer_kept_micros: micros(WRITER_TTL),
        });
        wake(self.publish());
        Ok(())
    }

    fn publish(&mut self) -> Option<Waker> {
        self.answers.set_ready();
        self.waker.take()
    }

    fn take_response(&mut self) -> Option<AppendResponse> {
        let response = self.answers.take()?;
        for ack in &response.acks {
            self.slots.ack_taken(ack.slot);
        }
        if !self.answers.is_full() {
            wake(self.room.take());
        }
        Some(response)
    }
}

impl OutcomeSink<Outcome> for AppendConnection {
    fn deliver(&self, tag: u64, outcome: Result<Outcome, ProposeError>) {
        let mut state = self.lock();
        match slots::Tag::of(tag) {
            slots::Tag::Open(open) => self.opened(&mut state, open, outcome),
            slots::Tag::Block { slot, sequence } => {
                self.decided(&mut state, slot, sequence, outcome);
            }
        }
    }

    fn round_done(&self) {
        let waker = self.lock().publish();
        wake(waker);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests;
