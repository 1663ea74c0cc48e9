//! The threads of a node: each a short shell around a value that the worker returns.
//!
//! - *worker*: steps the groups, sleeps on its bell.
//! - *log*: writes large blocks, and goes on by itself while there are more, so that the device is
//!   never idle while the worker copies the next block.
//! - *files*: makes and recycles log files ahead of their use.
//! - *checkpoint*: writes frozen state to the store.
//! - *tiering*, two of them: jobs between groups and their bucket, where there is one.
//! - *watch*: notices a write that does not come back, whoever of the others hangs in it.
//!
//! A failed write, a failed store or a panic outside a group and its jobs ends them all:
//! [`Host::failed`] says why, and the process has to be restarted. A thread that hangs in its I/O cannot be ended: a stop
//! leaves it behind, for the end of the process to take along.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use common::{Clock, GroupId, Incarnation, Rng, Threads};
use tokio::sync::watch;
use wal::{BlockWrite, Disk, Log, Prepared, Recovered, Stall};

use crate::bell::Bell;
use crate::error::{HostFailure, StartError};
use crate::group::{CheckpointJob, FetchJob, Fetched, GroupSpec, SaveError};
use crate::handle::{Gate, GroupHandle};
use crate::kv::Kv;
use crate::machine::StateMachine;
use crate::settings::HostSettings;
use crate::tiering::{Storage, StorageDone, Workshop};
use crate::worker::{Step, Worker, stop_stalled};

mod jobs;
mod opening;
mod steps;
#[cfg(test)]
mod tests;

use jobs::StorageJobs;
pub use steps::{StepCounts, StepTimes};

/// Bytes written after which the files thread looks whether it has to make more.
const FILES_LOOK_BYTES: u64 = 8 << 20;
/// How often a full disk is tried again: nobody rings when an operator makes space on it.
const FULL_LOOK: Duration = Duration::from_secs(1);

/// Threads that work with the bucket. Each has a round in memory, and waits for the log's disk and
/// for the bucket in turn: two of them do not keep up with 300 MB/s next to a busy log. A small node
/// has fewer ([`TieringSettings::jobs`](crate::TieringSettings::jobs)).
const TIERING_THREADS: [&str; 4] = ["braid-tier-0", "braid-tier-1", "braid-tier-2", "braid-tier-3"];

/// The groups of a node with their threads.
pub struct Host {
    log: Log,
    recovered: Recovered,
    /// Closed by a stop.
    kv: Option<Arc<dyn Kv>>,
    /// For whoever asks what memory it has.
    state: Weak<dyn Kv>,
    storage: Option<Storage>,
    clock: Arc<dyn Clock>,
    worker: Option<Worker>,
    center: Arc<Center>,
    threads: Threads,
    /// Ends last: the others may hang while they end.
    watch: Threads,
    patience: Patience,
}

/// How long a host waits for what may never come.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How often the watch thread looks for a write that hangs.
    pub look: Duration,
    /// What a clean stop may take: then the groups not yet saved are replayed at the next start.
    pub stop: Duration,
    /// What the other threads may take to end once the node has failed.
    pub failed: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            look: Duration::from_millis(500),
            stop: Duration::from_mins(2),
            failed: Duration::from_secs(2),
        }
    }
}

/// What the threads share.
struct Center {
    log: Log,
    gate: Arc<Gate>,
    bell: Arc<Bell>,
    mailbox: Mutex<Mailbox>,
    files: Bell,
    storage_jobs: StorageJobs,
    written: AtomicU64,
    step_times: Arc<StepTimes>,
    stop_files: AtomicBool,
    watch: Bell,
    stop_watch: AtomicBool,
    /// The worker has ended as it should: what it left in the log may be sealed.
    ended_well: AtomicBool,
    failed: watch::Sender<Option<HostFailure>>,
}

/// What others have done for the worker.
#[derive(Default)]
struct Mailbox {
    checkpointed: Option<(CheckpointJob, Result<(), SaveError>)>,
    fetched: Vec<Fetched>,
    stored: Vec<StorageDone>,
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
        let (patience, log_rng) = (settings.patience, rng.fork("log"));
        let (log, recovered) = Log::open(disk, settings.log.clone(), clock.clone(), log_rng)?;
        let worker =
            Worker::new(settings, log.clone(), kv.clone(), clock.clone(), rng.fork("worker"));
        let center = Arc::new(Center {
            log: log.clone(),
            gate: worker.gate(),
            bell: worker.bell(),
            mailbox: Mutex::default(),
            files: Bell::default(),
            storage_jobs: StorageJobs::default(),
            written: AtomicU64::new(0),
            step_times: Arc::default(),
            stop_files: AtomicBool::new(false),
            watch: Bell::default(),
            stop_watch: AtomicBool::new(false),
            ended_well: AtomicBool::new(false),
            failed: watch::Sender::default(),
        });
        let (worker, threads, watch) = (Some(worker), Threads::default(), Threads::default());
        let (storage, state, kv) = (None, Arc::downgrade(&kv), Some(kv));
        Ok(Host {
            log,
            recovered,
            kv,
            state,
            storage,
            clock,
            worker,
            center,
            threads,
            watch,
            patience,
        })
    }

    /// Groups that are added from now on archive their log there. Only before [`Host::run`].
    pub fn use_storage(&mut self, storage: Storage) {
        let worker = self.worker.as_mut().expect("storage is given before the threads run");
        worker.use_storage(storage.clone());
        self.storage = Some(storage);
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

    /// The same of several, side by side; their handles in the order of the groups given.
    pub fn add_groups<M: StateMachine>(
        &mut self,
        groups: impl IntoIterator<Item = (GroupId, M)>,
    ) -> Result<Vec<GroupHandle<M>>, StartError> {
        let worker = self.worker.as_mut().expect("groups are added before the threads run");
        let opening = |(group, machine)| worker.opening(GroupSpec::alone(group), machine);
        let opened = opening::open_all(&self.log, groups.into_iter().map(opening).collect())?;
        Ok(opened.into_iter().map(|opened| worker.insert(opened)).collect())
    }

    /// Restores a group that [`prepare`](crate::recover::prepare) laid the foundation of, and has it
    /// raise the incarnation. Only before [`Host::run`].
    pub fn recover_group<M: StateMachine>(
        &mut self,
        group: GroupId,
        machine: M,
        incarnation: Incarnation,
    ) -> Result<GroupHandle<M>, StartError> {
        let worker = self.worker.as_mut().expect("groups are added before the threads run");
        let spec = GroupSpec { recover: Some(incarnation), ..GroupSpec::alone(group) };
        worker.add_group(spec, machine)
    }

    /// Starts the threads.
    pub fn run(&mut self) -> Result<(), StartError> {
        let worker = self.worker.take().expect("a host runs once");
        let kv = self.kv.clone().expect("a host runs before it stops");
        let (blocks, blocks_in) = sync_channel(1);
        let (jobs, jobs_in) = sync_channel(64);
        let (center, look) = (self.center.clone(), self.patience.look);
        let watch = move || watch_writes(&center, look);
        let watching = self.watch.spawn("braid-watch", watch);
        watching.map_err(|source| StartError::Thread { thread: "braid-watch", source })?;
        let center = self.center.clone();
        self.spawn("braid-log", move || write_blocks(&center, &blocks_in))?;
        let center = self.center.clone();
        self.spawn("braid-files", move || make_files(&center))?;
        let (center, of_saves) = (self.center.clone(), kv.clone());
        self.spawn("braid-checkpoint", move || run_background(&center, &*of_saves, &jobs_in))?;
        if let Some(storage) = self.storage.clone() {
            let jobs = storage.settings.jobs.max(1);
            let workshop = Workshop { storage, log: self.log.clone(), kv };
            for name in TIERING_THREADS.into_iter().take(jobs) {
                let (center, workshop) = (self.center.clone(), workshop.clone());
                self.spawn(name, move || run_storage_jobs(&center, &workshop))?;
            }
        }
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
        let spawned = self.threads.spawn(name, move || {
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                center.fail(HostFailure::Thread(name));
            }
        });
        spawned.map_err(|source| StartError::Thread { thread: name, source })
    }

    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// How long the worker's steps took so far.
    pub fn step_times(&self) -> Arc<StepTimes> {
        self.center.step_times.clone()
    }

    /// The state store, for whoever asks what memory it has: it is closed when the host has stopped.
    pub fn state_store(&self) -> Weak<dyn Kv> {
        self.state.clone()
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
    /// Comes back even where the disk does not: then the node has failed, or the stop took too
    /// long, and what hangs is left behind. The state store is closed when it returns, whoever still
    /// holds the host; where something was left behind, never.
    pub fn stop(&mut self) {
        self.center.mailbox().stop = true;
        self.center.bell.ring();
        // Jobs count for nothing before their entries, and those are not taken any more.
        self.center.storage_jobs.stop();
        if let Some(storage) = &self.storage {
            storage.waiter.stop();
        }
        let ended = self.end_threads();
        self.center.stop_watch.store(true, Ordering::Release);
        self.center.watch.ring();
        // It waits for nothing but its bell.
        self.watch.wait(Duration::MAX);
        match self.kv.take() {
            // The threads have ended, and with them who else had it: it is closed here.
            Some(kv) if ended => drop(kv),
            // What hangs still uses it, and may do so while the process ends: it is never closed.
            left => std::mem::forget(left),
        }
    }

    /// Whether all have ended.
    fn end_threads(&mut self) -> bool {
        let mut waited = Duration::ZERO;
        while !self.threads.wait(self.patience.look) {
            waited += self.patience.look;
            let failed = self.center.has_failed();
            if failed && self.threads.wait(self.patience.failed) {
                return true;
            }
            if failed || waited >= self.patience.stop {
                let left = self.threads.abandon().join(", ");
                tracing::error!(threads = left, "they hang and are left behind");
                return false;
            }
        }
        true
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
        // The worker may be what hangs: it does not refuse what comes.
        self.gate.shut();
        self.storage_jobs.stop();
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
    for write in blocks {
        let mut next = Some(write);
        while let Some(write) = next {
            next = if center.write_block(write) { center.log.begin_write() } else { None };
        }
    }
    if center.ended_well.load(Ordering::Acquire) {
        seal(center);
    }
}

/// A clean stop leaves nothing unproven behind: the open block, then a sealing one.
fn seal(center: &Center) {
    while !center.has_failed() {
        let Some(write) = center.log.begin_seal() else { return };
        center.write_block(write);
    }
}

/// Sheds load while a write hangs, and at last gives it up: whoever performs it cannot.
fn watch_writes(center: &Center, look: Duration) {
    while !center.stop_watch.load(Ordering::Acquire) {
        let stall = center.log.stall();
        center.gate.set_stalled(stall >= Stall::Shed);
        if stall >= Stall::Stop {
            return center.fail(HostFailure::Log(stop_stalled(&center.log)));
        }
        center.watch.wait(Some(look));
    }
}

fn make_files(center: &Center) {
    while !center.stop_files.load(Ordering::Acquire) {
        match center.log.prepare_files() {
            Ok(Prepared::More) => center.bell.ring(),
            Ok(Prepared::Unhurried) => center.files.wait(Some(wal::PREPARE_PAUSE)),
            Ok(Prepared::Idle) => {
                center.files.wait(center.log.space().disk_full.then_some(FULL_LOOK));
            }
            // Nothing more will be written, and whoever waits need not find out by trying.
            Err(stopped) => return center.fail(HostFailure::Log(stopped)),
        }
    }
}

fn run_background(center: &Center, kv: &dyn Kv, jobs: &Receiver<Background>) {
    for job in jobs {
        match job {
            Background::Checkpoint(mut job) => {
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

fn run_storage_jobs(center: &Center, workshop: &Workshop) {
    while let Some(job) = center.storage_jobs.next() {
        let done = job.perform(workshop);
        center.mailbox().stored.push(done);
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
        match self.steps(&mut worker) {
            Ok(()) => self.center.ended_well.store(true, Ordering::Release),
            Err(failure) => self.center.fail(failure),
        }
        worker.end();
        self.center.stop_files.store(true, Ordering::Release);
        self.center.files.ring();
    }

    fn steps(&self, worker: &mut Worker) -> Result<(), HostFailure> {
        while !self.center.has_failed() {
            let began = self.clock.monotonic();
            self.take_mail(worker)?;
            let step = worker.step(self.clock.monotonic())?;
            let took = self.clock.monotonic().since(began);
            self.center.step_times.note(took.saturating_sub(step.writing));
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
            worker.checkpointed(job, result)?;
        }
        mail.stored.into_iter().try_for_each(|done| worker.storage_done(done))?;
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
        self.center.storage_jobs.push(step.storage);
        if step.wants_files {
            self.center.files.ring();
        }
    }
}
