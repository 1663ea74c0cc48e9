//! The ordered watermark as the application sees it, and who waits for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{self, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use common::EventNumber;

use crate::error::{ClientError, Result};
use crate::waiters::Waiters;

/// What is durable, and those who wait for more of it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    acknowledged: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The first number that the watermark will never come to, and why.
    failed: Option<(EventNumber, ClientError)>,
    waiters: Waiters,
}

impl Waiting {
    fn failure(&self, number: EventNumber) -> Option<&ClientError> {
        self.failed.as_ref().filter(|(first, _)| *first <= number).map(|(_, error)| error)
    }
}

impl Progress {
    pub(super) fn acknowledged(&self) -> EventNumber {
        EventNumber(self.acknowledged.load(atomic::Ordering::Acquire))
    }

    pub(super) fn advance(&self, number: EventNumber) {
        let before = self.acknowledged.fetch_max(number.0, atomic::Ordering::AcqRel);
        if before >= number.0 {
            return;
        }
        let mut woken = Vec::new();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.waiters.take_through(number.0, &mut woken);
        drop(waiting);
        woken.into_iter().for_each(Waker::wake);
    }

    /// The watermark will never come to `number`. An earlier one may still be told.
    pub(super) fn fail(&self, number: EventNumber, error: &ClientError) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.failed.as_ref().is_some_and(|(known, _)| *known <= number) {
            return;
        }
        waiting.failed = Some((number, error.clone()));
        let woken = waiting.waiters.take_from(number.0);
        drop(waiting);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Waits until everything up to `number` is durable.
    pub(super) fn wait(self: &Arc<Self>, number: EventNumber) -> Reached {
        Reached { progress: self.clone(), number, registered: None }
    }
}

/// Resolves when the event, and every event before it, is durable, or will never be.
#[derive(Debug)]
#[must_use = "it does nothing unless awaited"]
pub(super) struct Reached {
    progress: Arc<Progress>,
    number: EventNumber,
    registered: Option<Waker>,
}

impl Future for Reached {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        if this.progress.acknowledged() >= this.number {
            return Poll::Ready(Ok(()));
        }
        let mut waiting = this.progress.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at again under the lock: from here on an advance finds the waiter.
        if this.progress.acknowledged() >= this.number {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = waiting.failure(this.number) {
            return Poll::Ready(Err(error.clone()));
        }
        if !this.registered.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            this.registered = Some(context.waker().clone());
            waiting.waiters.add(this.number.0, context.waker());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn waiters_resolve_in_the_order_of_the_watermark_and_fail_from_a_number_on() {
        let progress = Arc::new(Progress::default());
        let waiter = |number| progress.wait(EventNumber(number));
        let (mut first, mut second, mut third) = (waiter(1), waiter(2), waiter(3));
        assert_eq!((&mut first).now_or_never(), None);
        progress.advance(EventNumber(2));
        progress.advance(EventNumber(1));
        assert_eq!(progress.acknowledged(), EventNumber(2));
        assert_eq!((&mut first).now_or_never(), Some(Ok(())));
        assert_eq!((&mut second).now_or_never(), Some(Ok(())));
        assert_eq!((&mut third).now_or_never(), None);
        let error = ClientError::Closed { what: "writer" };
        progress.fail(EventNumber(4), &error);
        assert_eq!((&mut third).now_or_never(), None);
        assert_eq!(waiter(4).now_or_never(), Some(Err(error.clone())));
        progress.fail(EventNumber(3), &error);
        assert_eq!((&mut third).now_or_never(), Some(Err(error)));
        assert_eq!(waiter(2).now_or_never(), Some(Ok(())));
    }
}
