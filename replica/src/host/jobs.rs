//! Jobs with long-term storage, for threads that may wait long.
//!
//! The worker never waits to hand one over, and there are few: one of a kind for each group.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::tiering::StorageJob;

#[derive(Debug, Default)]
pub(super) struct StorageJobs {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<StorageJob>,
    stopped: bool,
}

impl StorageJobs {
    pub(super) fn push(&self, jobs: Vec<StorageJob>) {
        if !jobs.is_empty() {
            self.lock().jobs.extend(jobs);
            self.changed.notify_all();
        }
    }

    /// The next job, when there is one; `None` once nobody wants them any more.
    pub(super) fn next(&self) -> Option<StorageJob> {
        let waits = |queue: &mut Queue| !queue.stopped && queue.jobs.is_empty();
        let queue = self.changed.wait_while(self.lock(), waits);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        if queue.stopped { None } else { queue.jobs.pop_front() }
    }

    /// What was not begun is not done: the next start finds what is to do.
    pub(super) fn stop(&self) {
        let mut queue = self.lock();
        queue.stopped = true;
        queue.jobs.clear();
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
