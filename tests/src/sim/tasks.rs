//! A tiny executor: futures of the simulated server, polled in order after each of its steps.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

type Boxed<E> = Pin<Box<dyn Future<Output = E>>>;

/// Futures that wait for the server; they die with it.
pub(super) struct Tasks<E> {
    futures: Vec<Boxed<E>>,
}

impl<E> Default for Tasks<E> {
    fn default() -> Self {
        Self { futures: Vec::new() }
    }
}

impl<E> Tasks<E> {
    pub(super) fn spawn(&mut self, future: impl Future<Output = E> + 'static) {
        self.futures.push(Box::pin(future));
    }

    /// Polls every future once, in the order of spawning, and returns what the finished ones gave.
    pub(super) fn poll(&mut self) -> Vec<E> {
        let mut context = Context::from_waker(Waker::noop());
        let mut done = Vec::new();
        self.futures.retain_mut(|future| match future.as_mut().poll(&mut context) {
            Poll::Ready(effect) => {
                done.push(effect);
                false
            }
            Poll::Pending => true,
        });
        done
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.futures.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.futures.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn futures_finish_in_the_order_in_which_they_can() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut tasks = Tasks::default();
        tasks.spawn(async move { receiver.await.unwrap_or(0) });
        tasks.spawn(async { 2 });
        assert_eq!(tasks.poll(), [2]);
        sender.send(1).unwrap();
        assert_eq!(tasks.poll(), [1]);
        assert!(tasks.is_empty());
    }
}
