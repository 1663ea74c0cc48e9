//! Named threads with one owner, who waits for their end, though not for ever: a thread whose disk
//! does not answer cannot be ended, and must not keep the process from ending.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::tasks::spawn_thread;

/// The threads of a component. Dropping the set leaves those that still run alone: wait first.
#[derive(Debug, Default)]
pub struct Threads {
    handles: Vec<(String, JoinHandle<()>)>,
    running: Arc<Running>,
}

/// The names of the threads that have not ended.
#[derive(Debug, Default)]
struct Running {
    names: Mutex<BTreeSet<String>>,
    changed: Condvar,
}

/// Takes the name out when the thread ends, by a panic too.
struct Ended {
    name: String,
    running: Arc<Running>,
}

impl Threads {
    /// Starts a thread; names are unique within the set.
    pub fn spawn(
        &mut self,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let ended = Ended { name: name.to_owned(), running: self.running.clone() };
        self.running.names().insert(name.to_owned());
        // Dropped unrun, the closure takes the name out again.
        let handle = spawn_thread(name, move || {
            let _ended = ended;
            run();
        })?;
        self.handles.push((name.to_owned(), handle));
        Ok(())
    }

    /// Waits until every thread has ended, at most for `limit`; whether all have. A panic in one
    /// counts as its end: what it means is for whoever spawned it to say.
    pub fn wait(&mut self, limit: Duration) -> bool {
        let names = self.running.names();
        let waited =
            self.running.changed.wait_timeout_while(names, limit, |names| !names.is_empty());
        let all = waited.unwrap_or_else(PoisonError::into_inner).0.is_empty();
        if all {
            // They are past their last line: this does not wait for anything that may hang.
            for (name, handle) in self.handles.drain(..) {
                if handle.join().is_err() {
                    tracing::error!(thread = name, "a thread panicked");
                }
            }
        }
        all
    }

    /// Gives up on the threads that still run and names them.
    pub fn abandon(&mut self) -> Vec<String> {
        self.handles.clear();
        let running = std::mem::take(&mut self.running);
        running.names().iter().cloned().collect()
    }
}

impl Running {
    fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.running.names().remove(&self.name);
        self.running.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn threads_that_end_are_waited_for_and_one_that_hangs_is_named_and_left() {
        let mut threads = Threads::default();
        let (release, held) = channel::<()>();
        threads.spawn("short", || {}).unwrap();
        threads.spawn("hung", move || assert!(held.recv().is_ok())).unwrap();
        assert!(!threads.wait(Duration::from_millis(1)));
        release.send(()).unwrap();
        assert!(threads.wait(Duration::MAX));

        let (_release, held) = channel::<()>();
        threads.spawn("hung", move || assert!(held.recv().is_err())).unwrap();
        assert!(!threads.wait(Duration::ZERO));
        assert_eq!(threads.abandon(), ["hung"]);
        assert!(threads.wait(Duration::ZERO), "it is nobody's any more");
    }

    #[test]
    fn a_thread_that_panics_has_ended() {
        let mut threads = Threads::default();
        threads.spawn("broken", || panic!("planned")).unwrap();
        assert!(threads.wait(Duration::MAX));
    }
}
