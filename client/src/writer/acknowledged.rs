//! A handle to one event's acknowledgement.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use common::{EventNumber, SegmentId};

use super::Shared;
use crate::error::Result;
use crate::session::Awaited;

/// Resolves when the event is durable, whatever becomes of events of other segments. Made by
/// [`EventWriter::append_tracked`](crate::EventWriter::append_tracked); dropping it cancels
/// nothing.
#[derive(Debug)]
#[must_use = "it does nothing unless awaited"]
pub struct Acknowledged {
    shared: Arc<Shared>,
    event: Awaited,
    /// Where and for whom it waits.
    registered: Option<(Awaited, Waker)>,
}

impl Acknowledged {
    pub(super) fn new(shared: Arc<Shared>, event: Awaited) -> Self {
        Self { shared, event, registered: None }
    }

    /// The event's number.
    pub fn number(&self) -> EventNumber {
        self.event.number()
    }

    /// The segment that the event goes to. Until it is durable that may change: where the segment
    /// is sealed before, it goes to a successor.
    pub fn segment(&mut self) -> SegmentId {
        self.shared.core().segment_of(&mut self.event)
    }
}

impl Future for Acknowledged {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        let mut core = this.shared.core();
        if let Poll::Ready(outcome) = core.outcome(&mut this.event) {
            return Poll::Ready(outcome);
        }
        let waits = this
            .registered
            .as_ref()
            .is_some_and(|(event, waker)| *event == this.event && waker.will_wake(context.waker()));
        if !waits {
            core.wake_at_outcome(this.event, context.waker());
            this.registered = Some((this.event, context.waker().clone()));
        }
        Poll::Pending
    }
}
