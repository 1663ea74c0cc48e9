//! Room for what an append connection makes the server remember: slots, and answers that the client
//! does not take.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use super::AppendConnection;
use crate::limits::SLOT_COST_BYTES;

/// What the slots of all append connections may take together. Clones share it.
#[derive(Debug, Clone)]
pub struct SessionBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    used: AtomicU64,
    max: u64,
    of_connection_max: usize,
}

/// What the slots of one connection have taken; given back when dropped.
#[derive(Debug)]
pub(super) struct Charge {
    budget: SessionBudget,
    bytes: u64,
}

impl SessionBudget {
    /// Room for `bytes` of slots, of which each connection uses up `of_connection_max` in its life:
    /// none is used twice, so that each is remembered until the connection ends.
    pub fn new(bytes: u64, of_connection_max: usize) -> Self {
        Self(Arc::new(Shared { used: AtomicU64::new(0), max: bytes, of_connection_max }))
    }

    pub fn used_bytes(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Slots that there may be at a time.
    pub(super) fn slots_max(&self) -> u64 {
        self.0.max / SLOT_COST_BYTES as u64
    }

    pub(super) fn of_connection_max(&self) -> usize {
        self.0.of_connection_max
    }

    pub(super) fn charge(&self) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }
}

impl Default for SessionBudget {
    /// Without a bound, for tests and simulations.
    fn default() -> Self {
        Self::new(u64::MAX, usize::MAX)
    }
}

impl Charge {
    /// Takes what one more slot costs, if that is left.
    pub(super) fn slot(&mut self) -> bool {
        let cost = SLOT_COST_BYTES as u64;
        let more = |used: u64| Some(used + cost).filter(|used| *used <= self.budget.0.max);
        let used = &self.budget.0.used;
        if used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return false;
        }
        self.bytes += cost;
        true
    }

    pub(super) fn budget(&self) -> &SessionBudget {
        &self.budget
    }
}

impl Default for Charge {
    fn default() -> Self {
        SessionBudget::default().charge()
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl AppendConnection {
    /// Returns once the client has taken enough of its answers for another message.
    pub async fn room(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            if !state.answers.is_full() {
                return Poll::Ready(());
            }
            state.room = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
