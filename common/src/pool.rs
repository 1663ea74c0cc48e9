//! A few threads for blocking work, and their bounded queue.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Threads;

/// Jobs that may wait: deep enough to keep a disk busy, short enough that nobody waits for long
/// behind what others read ahead.
const QUEUE_JOBS_MAX: usize = 64;

/// How long the end of the pool waits for a job whose disk does not answer.
const END_WAIT_MAX: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// A few threads, or none: then jobs run where they are submitted, for tests and simulations.
#[derive(Debug)]
pub struct ThreadPool {
    room: Arc<Semaphore>,
    queue: Option<Arc<Queue>>,
    threads: Threads,
}

#[derive(Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    changed: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<(Job, OwnedSemaphorePermit)>,
    closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queue")
    }
}

impl ThreadPool {
    /// Starts `threads` threads called `name-0`, `name-1` and so on.
    pub fn start(name: &str, threads: usize) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let mut pool = Self::inline();
        pool.queue = Some(queue.clone());
        for i in 0..threads {
            let queue = queue.clone();
            pool.threads.spawn(&format!("{name}-{i}"), move || queue.run())?;
        }
        Ok(pool)
    }

    /// No threads: jobs run where they are submitted.
    pub fn inline() -> Self {
        let room = Arc::new(Semaphore::new(QUEUE_JOBS_MAX));
        Self { room, queue: None, threads: Threads::default() }
    }

    /// Waits for room for one job.
    pub async fn room(&self) -> OwnedSemaphorePermit {
        self.room.clone().acquire_owned().await.expect("the queue's semaphore is never closed")
    }

    /// Room for one job that nobody waits for: only while the queue is at most half full.
    pub fn spare_room(&self) -> Option<OwnedSemaphorePermit> {
        if self.room.available_permits() <= QUEUE_JOBS_MAX / 2 {
            return None;
        }
        self.room.clone().try_acquire_owned().ok()
    }

    /// Queues a job; it holds its room until a thread takes it. A pool that is dropped forgets the
    /// jobs that wait and ends those that run.
    pub fn submit(&self, room: OwnedSemaphorePermit, job: impl FnOnce() + Send + 'static) {
        match &self.queue {
            None => job(),
            Some(queue) => {
                let mut jobs = queue.jobs.lock().unwrap_or_else(PoisonError::into_inner);
                jobs.waiting.push_back((Box::new(job), room));
                queue.changed.notify_one();
            }
        }
    }
}

impl Queue {
    /// What one thread does until the pool is dropped.
    fn run(&self) {
        while let Some((job, room)) = self.next() {
            // Room is for what waits.
            drop(room);
            job();
        }
    }

    fn next(&self) -> Option<(Job, OwnedSemaphorePermit)> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if jobs.closed {
                return None;
            }
            if let Some(job) = jobs.waiting.pop_front() {
                return Some(job);
            }
            jobs = self.changed.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        let Some(queue) = &self.queue else { return };
        let waiting = {
            let mut jobs = queue.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            jobs.closed = true;
            std::mem::take(&mut jobs.waiting)
        };
        drop(waiting);
        queue.changed.notify_all();
        if !self.threads.wait(END_WAIT_MAX) {
            let left = self.threads.abandon().join(", ");
            tracing::error!(threads = left, "jobs hang and are left behind");
        }
    }
}
