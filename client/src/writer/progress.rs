//! The ordered watermark as the application sees it, and who waits for it.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{self, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use common::EventNumber;

use crate::error::{ClientError, Result};

/// What is durable, and those who wait for more of it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    acknowledged: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    failed: Option<ClientError>,
    waiters: BinaryHeap<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    number: EventNumber,
    waker: Waker,
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Waiter {}

impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The lowest number is the greatest, so that the heap gives it first.
impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> Ordering {
        other.number.cmp(&self.number)
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
        while waiting.waiters.peek().is_some_and(|waiter| waiter.number <= number) {
            woken.extend(waiting.waiters.pop());
        }
        drop(waiting);
        woken.into_iter().for_each(|waiter| waiter.waker.wake());
    }

    /// Nothing more will be acknowledged.
    pub(super) fn fail(&self, error: &ClientError) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.failed.get_or_insert_with(|| error.clone());
        let woken = std::mem::take(&mut waiting.waiters);
        drop(waiting);
        woken.into_iter().for_each(|waiter| waiter.waker.wake());
    }
}

/// Resolves when the event, and every event before it, is durable. Made by
/// [`EventWriter::append_tracked`](crate::EventWriter::append_tracked); dropping it costs nothing
/// and cancels nothing.
#[derive(Debug)]
#[must_use = "it does nothing unless awaited"]
pub struct Acknowledged {
    progress: Arc<Progress>,
    number: EventNumber,
    registered: Option<Waker>,
}

impl Acknowledged {
    pub(super) fn new(progress: Arc<Progress>, number: EventNumber) -> Self {
        Self { progress, number, registered: None }
    }
}

impl Future for Acknowledged {
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
        if let Some(error) = &waiting.failed {
            return Poll::Ready(Err(error.clone()));
        }
        if !this.registered.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            this.registered = Some(context.waker().clone());
            let waker = context.waker().clone();
            waiting.waiters.push(Waiter { number: this.number, waker });
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn waiters_resolve_in_the_order_of_the_watermark_and_fail_together() {
        let progress = Arc::new(Progress::default());
        let waiter = |number| Acknowledged::new(progress.clone(), EventNumber(number));
        let (mut first, mut second, mut third) = (waiter(1), waiter(2), waiter(3));
        assert_eq!((&mut first).now_or_never(), None);
        progress.advance(EventNumber(2));
        progress.advance(EventNumber(1));
        assert_eq!(progress.acknowledged(), EventNumber(2));
        assert_eq!((&mut first).now_or_never(), Some(Ok(())));
        assert_eq!((&mut second).now_or_never(), Some(Ok(())));
        assert_eq!((&mut third).now_or_never(), None);
        let error = ClientError::Closed { what: "writer" };
        progress.fail(&error);
        assert_eq!((&mut third).now_or_never(), Some(Err(error)));
    }
}
