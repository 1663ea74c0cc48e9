//! The threads of a node: each a short shell around a value that the worker returns.
//!
//! - *worker*: steps the groups, sleeps on its bell.
//! - *log*: writes large blocks, and goes on by itself while there are more, so that the device is
//!   never idle while the worker copies the next block.
//! - *files*: makes and recycles log files ahead of their use.
//! - *checkpoint*: writes frozen state to the store.
//!
//! A failed write, a failed store or a panic outside a group ends them all: [`Host::failed`] says
//! why, and the process has to be restarted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use common::tasks::spawn_thread;
use common::{Clock, GroupId, Rng};
use tokio::sync::watch;
use wal::{BlockWrite, Disk, Log, Prepared, Recovered, Stall};

use crate::bell::Bell;
use crate::error::{HostFailure, StartError};
use crate::group::{CheckpointJob, FetchJob, Fetched, GroupSpec};
use crate::handle::GroupHandle;
use crate::kv::{Kv, KvError};
use crate::machine::StateMachine;
use crate::settings::HostSettings;
use crate::worker::{Step, Worker, stop_stalled};

#[cfg(test)]
mod tests;

/// Bytes written after which the files thread looks whether it has to make more.
const FILES_LOOK_BYTES: u64 = 8 << 20;
/// How often the log thread looks after a write of the worker that does not come back.
const STALL_LOOK: Duration = Duration::from_millis(500);
/// How often a full disk is tried again: nobody rings when an operator makes space on it.
const FULL_LOOK: Duration = Duration::from_secs(1);

/// The groups of a node with their threads.
pub struct Host {
    log: Log,
    recovered: Recovered,
    kv: Arc<dyn Kv>,
    clock: Arc<dyn Clock>,
    worker: Option<Worker>,
    center: Arc<Center>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads share.
struct Center {
    log: Log,
    bell: Arc<Bell>,
    mailbox: Mutex<Mailbox>,
    files: Bell,
    written: AtomicU64,
    stop_files: AtomicBool,
    failed: watch::Sender<Option<HostFailure>>,
}

/// What others have done for the worker.
#[derive(Default)]
struct Mailbox {
    checkpointed: Option<(CheckpointJob, Result<(), KvError>)>,
    fetched: Vec<Fetched>,
    stop: bool,
}

/// Work for the checkpoint thread.
enum Background {
    Checkpoint(CheckpointJob),
    Fetch(FetchJob),
}

impl Host {
    /// Recovers the log. Add the groups, then [`Host::run`].
    pub fn start(
        settings: HostSettings,
        disk: Arc<dyn Disk>,
        kv: Arc<dyn Kv>,
        clock: Arc<dyn Clock>,
        mut rng: Rng,
    ) -> Result<Host, StartError> {
        let log_rng = rng.fork("log");
        let (log, recovered) = Log::open(disk, settings.log.clone(), clock.clone(), log_rng)?;
        let worker =
            Worker::new(settings, log.clone(), kv.clone(), clock.clone(), rng.fork("worker"));
        let center = Arc::new(Center {
            log: log.clone(),
            bell: worker.bell(),
            mailbox: Mutex::default(),
            files: Bell::default(),
            written: AtomicU64::new(0),
            stop_files: AtomicBool::new(false),
            failed: watch::Sender::default(),
        });
        Ok(Host { log, recovered, kv, clock, worker: Some(worker), center, threads: Vec::new() })
    }

    /// Restores a group of which this node is the only member. Only before [`Host::run`].
    pub fn add_group<M: StateMachine>(
        &mut self,
        group: GroupId,
        machine: M,
    ) -> Result<GroupHandle<M>, StartError> {
        let worker = self.worker.as_mut().expect("groups are added before the threads run");
        worker.add_group(GroupSpec::alone(group), machine)
    }

    /// Starts the threads.
    pub fn run(&mut self) -> Result<(), StartError> {
        let worker = self.worker.take().expect("a host runs once");
        let (blocks, blocks_in) = sync_channel(1);
        let (jobs, jobs_in) = sync_channel(64);
        let center = self.center.clone();
        self.spawn("braid-log", move || write_blocks(&center, &blocks_in))?;
        let center = self.center.clone();
        self.spawn("braid-files", move || make_files(&center))?;
        let (center, kv) = (self.center.clone(), self.kv.clone());
        self.spawn("braid-checkpoint", move || run_background(&center, &*kv, &jobs_in))?;
        let (center, clock) = (self.center.clone(), self.clock.clone());
        self.spawn("braid-worker", move || {
            WorkerShell { center: &center, clock: &*clock, blocks, jobs }.run(worker);
        })
    }

    /// A thread that must not end by a panic unnoticed.
    fn spawn(
        &mut self,
        name: &'static str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), StartError> {
        let center = self.center.clone();
        let thread = spawn_thread(name, move || {
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                center.fail(HostFailure::Thread(name));
            }
        });
        self.threads.push(thread.map_err(|source| StartError::Thread { thread: name, source })?);
        Ok(())
    }

    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// What recovery found.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Set once the node cannot go on: the process should end.
    pub fn failed(&self) -> watch::Receiver<Option<HostFailure>> {
        self.center.failed.subscribe()
    }

    /// Refuses new work, finishes what was taken, saves the state, seals the log, ends the threads.
    pub fn stop(&mut self) {
        self.center.mailbox().stop = true;
        self.center.bell.ring();
        let ran = !self.threads.is_empty();
        for thread in self.threads.drain(..) {
            // A panic in it has been reported as the failure.
            let _ = thread.join();
        }
        if ran {
            self.seal();
        }
    }

    /// A clean stop leaves nothing unproven behind: the open block, then a sealing one.
    fn seal(&self) {
        while !self.center.has_failed() {
            let Some(write) = self.log.begin_seal() else { return };
            self.center.write_block(write);
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Center {
    fn mailbox(&self) -> std::sync::MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first failure counts; everybody stops.
    fn fail(&self, failure: HostFailure) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                tracing::error!(%failure, "the node stops");
                *failed = Some(failure);
            }
            first
        });
        self.stop_files.store(true, Ordering::Release);
        self.files.ring();
        self.bell.ring();
    }

    fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    fn note_written(&self, bytes: usize) {
        let before = self.written.fetch_add(bytes as u64, Ordering::Relaxed);
        if before / FILES_LOOK_BYTES != (before + bytes as u64) / FILES_LOOK_BYTES {
            self.files.ring();
        }
    }

    fn write_block(&self, mut write: BlockWrite) -> bool {
        let bytes = write.len();
        let result = write.perform();
        match self.log.finish_write(write, result) {
            Ok(_) => {
                self.bell.ring();
                self.note_written(bytes);
                true
            }
            Err(stopped) => {
                self.fail(HostFailure::Log(stopped));
                false
            }
        }
    }
}

fn write_blocks(center: &Center, blocks: &Receiver<BlockWrite>) {
    loop {
        match blocks.recv_timeout(STALL_LOOK) {
            Ok(write) => {
                let mut next = Some(write);
                while let Some(write) = next {
                    next = if center.write_block(write) { center.log.begin_write() } else { None };
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if center.log.stall() >= Stall::Stop {
                    center.fail(HostFailure::Log(stop_stalled(&center.log)));
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn make_files(center: &Center) {
    while !center.stop_files.load(Ordering::Acquire) {
        match center.log.prepare_files() {
            Ok(Prepared::More) => center.bell.ring(),
            Ok(Prepared::Idle) => {
                center.files.wait(center.log.usage().disk_full.then_some(FULL_LOOK));
            }
            // Whoever wrote last reports it.
            Err(_) => return,
        }
    }
}

fn run_background(center: &Center, kv: &dyn Kv, jobs: &Receiver<Background>) {
    for job in jobs {
        match job {
            Background::Checkpoint(job) => {
                let result = job.run(kv);
                center.mailbox().checkpointed = Some((job, result));
                // Truncation may have freed files.
                center.files.ring();
            }
            Background::Fetch(job) => {
                let fetched = job.perform(&center.log);
                center.mailbox().fetched.push(fetched);
            }
        }
        center.bell.ring();
    }
}

/// The thread around the worker.
struct WorkerShell<'a> {
    center: &'a Center,
    clock: &'a dyn Clock,
    blocks: SyncSender<BlockWrite>,
    jobs: SyncSender<Background>,
}

impl WorkerShell<'_> {
    fn run(self, mut worker: Worker) {
        if let Err(failure) = self.steps(&mut worker) {
            self.center.fail(failure);
        }
        worker.end();
        self.center.stop_files.store(true, Ordering::Release);
        self.center.files.ring();
    }

    fn steps(&self, worker: &mut Worker) -> Result<(), HostFailure> {
        while !self.center.has_failed() {
            self.take_mail(worker)?;
            let step = worker.step(self.clock.monotonic())?;
            let (more, stopped, wake_at) = (step.more, step.stopped, step.wake_at);
            self.hand_out(step);
            if stopped && !more {
                return Ok(());
            }
            if !more {
                let now = self.clock.monotonic();
                self.center.bell.wait(wake_at.map(|at| at.since(now)));
            }
        }
        Ok(())
    }

    fn take_mail(&self, worker: &mut Worker) -> Result<(), HostFailure> {
        let mail = std::mem::take(&mut *self.center.mailbox());
        if mail.stop {
            worker.stop();
        }
        if let Some((job, result)) = mail.checkpointed {
            worker.checkpointed(&job, result)?;
        }
        mail.fetched.into_iter().try_for_each(|fetched| worker.fetched(fetched))
    }

    fn hand_out(&self, step: Step) {
        self.center.note_written(step.written_bytes);
        if let Some(write) = step.write {
            // The log thread ends after the worker, unless it has failed and said so.
            let _ = self.blocks.send(write);
        }
        if let Some(job) = step.checkpoint {
            let _ = self.jobs.send(Background::Checkpoint(job));
        }
        for job in step.fetches {
            let _ = self.jobs.send(Background::Fetch(job));
        }
        if step.wants_files {
            self.center.files.ring();
        }
    }
}
