//! Owned tasks and threads: nothing is spawned into the void.
//!
//! A component owns a [`Tasks`]. Stopping it cancels its token and waits for every task. What a
//! task's panic means is said at its spawn: it ends the task set and shows in [`Tasks::failed`].

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A set of tasks with one cancellation token and one drain. Cloning shares the set.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
    failed: Arc<AtomicBool>,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the set is stopped; a task selects on it where it waits.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// A set of its own whose token is cancelled together with this one's.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), ..Self::default() }
    }

    /// Runs `task` on the current runtime. A panic in it is reported, marks the set as failed and
    /// cancels the others.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(&tokio::runtime::Handle::current(), name, task);
    }

    /// Runs `task` on the given runtime; otherwise as [`Tasks::spawn`].
    pub fn spawn_on(
        &self,
        runtime: &tokio::runtime::Handle,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let set = self.clone();
        let guard = self.tracker.token();
        runtime.spawn(async move {
            let _guard = guard;
            let watch = PanicWatch { set, name, done: false };
            task.await;
            watch.finish();
        });
    }

    /// Whether a task of this set has panicked.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Cancels the token without waiting.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Cancels the token and waits until every task has ended.
    pub async fn stop(&self) {
        self.token.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

struct PanicWatch {
    set: Tasks,
    name: &'static str,
    done: bool,
}

impl PanicWatch {
    fn finish(mut self) {
        self.done = true;
    }
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        // A dropped future (runtime shutdown) is not a failure; an unwinding one is.
        if !self.done && std::thread::panicking() {
            tracing::error!(task = self.name, "task panicked; its component stops");
            self.set.failed.store(true, Ordering::Release);
            self.set.token.cancel();
        }
    }
}

/// Starts a named thread. The caller joins the handle: threads have owners too.
pub fn spawn_thread<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stop_cancels_and_waits_for_every_task() {
        let tasks = Tasks::new();
        let ended = Arc::new(AtomicBool::new(false));
        let (token, flag) = (tasks.token(), ended.clone());
        tasks.spawn("waiter", async move {
            token.cancelled().await;
            flag.store(true, Ordering::SeqCst);
        });
        tasks.stop().await;
        assert!(ended.load(Ordering::SeqCst) && !tasks.failed());
    }

    #[tokio::test]
    async fn a_panic_marks_the_set_failed_and_cancels_it() {
        let tasks = Tasks::new();
        tasks.spawn("broken", async { panic!("planned") });
        tasks.token().cancelled().await;
        assert!(tasks.failed());
        tasks.stop().await;
    }
}
