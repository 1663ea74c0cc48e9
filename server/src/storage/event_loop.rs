//! The event loop of long-term storage, driven by a thread of its own for as long as the process
//! lives: an HTTP client binds its connections to the loop that they were made on, and a loop that
//! serves clients must not stand behind the bytes of a round.

use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use common::Tasks;
use common::tasks::spawn_thread;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::error::ServerError;

/// The loop has ended: the process is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("long-term storage is stopped")]
pub struct Stopped;

impl From<Stopped> for ServerError {
    fn from(stopped: Stopped) -> Self {
        ServerError::Fatal { message: stopped.to_string() }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct EventLoop {
    handle: Handle,
    /// What runs on it. A panic in one ends all.
    tasks: Tasks,
    end: CancellationToken,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl EventLoop {
    pub(crate) fn start() -> Result<Self, ServerError> {
        let failed = |error: std::io::Error| ServerError::Start {
            component: "event loop of long-term storage",
            message: error.to_string(),
            data_damaged: false,
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (handle, end) = (runtime.handle().clone(), CancellationToken::new());
        let ended = end.clone();
        let thread = spawn_thread("lts", move || runtime.block_on(ended.cancelled()));
        let thread = Mutex::new(Some(thread.map_err(failed)?));
        Ok(Self { handle, tasks: Tasks::new(), end, thread })
    }

    /// Runs a task until it ends or the loop is stopped.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let token = self.tasks.token();
        self.tasks.spawn_on(&self.handle, name, async move {
            // What is stopped has no outcome.
            let _ = token.run_until_cancelled(task).await;
        });
    }

    /// Runs `work` there and waits for it.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = Result<T, Stopped>> + Send + 'static {
        let (done, outcome) = oneshot::channel();
        self.spawn("ask long-term storage", async move {
            // Nobody may wait any more.
            let _ = done.send(work.await);
        });
        async move { outcome.await.map_err(|_| Stopped) }
    }

    /// Runs `work` there and blocks this thread until it is done. Not from an event loop's thread,
    /// which others wait for.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Stopped> {
        let (done, outcome) = mpsc::sync_channel(1);
        self.spawn("ask long-term storage", async move {
            // Nobody may wait any more.
            let _ = done.send(work.await);
        });
        outcome.recv().map_err(|_| Stopped)
    }

    /// Returns when its tasks are told to end: by a stop, or by the panic of one.
    pub(crate) async fn cancelled(&self) {
        self.tasks.token().cancelled().await;
    }

    /// Tells what runs there to end, and refuses what comes.
    pub(crate) fn cancel(&self) {
        self.tasks.cancel();
    }

    /// Ends the tasks, then the loop.
    pub(crate) async fn stop(&self) {
        self.tasks.stop().await;
        self.join();
    }

    fn join(&self) {
        self.end.cancel();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        // The last one who holds the loop may be a task on it, which cannot wait for its own end.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("the thread of long-term storage panicked");
        }
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.tasks.cancel();
        self.join();
    }
}
