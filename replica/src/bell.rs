//! Wakes the worker: rung by whoever has work for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A flag with a waiter. Ringing it again before it was heard costs one atomic operation.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    asleep: Mutex<()>,
    wake: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Taking the lock orders the flag before the waiter's check or its sleep.
            drop(self.asleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_one();
        }
    }

    /// Sleeps until rung or until `timeout` has passed, and takes the ring back.
    pub(crate) fn wait(&self, timeout: Option<Duration>) {
        let guard = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = |_: &mut ()| !self.rung.load(Ordering::Acquire);
        match timeout {
            Some(timeout) => {
                drop(self.wake.wait_timeout_while(guard, timeout, silent));
            }
            None => drop(self.wake.wait_while(guard, silent)),
        }
        self.rung.store(false, Ordering::Release);
    }
}
