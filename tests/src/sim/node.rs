//! The simulated server: log, replicas, containers and controller as they ship, driven by hand.
//!
//! What threads do in the product are values here: a block to write, a checkpoint to save, files
//! to make. The world performs them as events of their own, so that anything may happen between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use common::{ByteSize, Clock, ContainerId, GroupId, Incarnation, MonotonicTime, Rng};
use controller::{ControllerGroup, ControllerMachine};
use proto::v1::{AppendRequest, AppendResponse};
use replica::archive::Archive;
use replica::{
    CheckpointJob, GroupHandle, GroupSpec, GroupStatus, HostSettings, JobKind, Kv, MemKv, Storage,
    StorageDone, StorageJob, Worker, Workshop,
};
use segmentstore::append_core::AppendConnection;
use segmentstore::{ContainerMachine, Containers, Memory, SegmentStore};
use wal::{BlockWrite, Log, LogSettings, Prepared, SimDisk};

use super::bucket::SimBucket;
use super::plan::DiskPlan;

/// What survives the process.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) disk: SimDisk,
    pub(super) kv: MemKv,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) plan: DiskPlan,
    pub(super) containers: u64,
    pub(super) bucket: Option<SimBucket>,
    /// It is being made from the bucket, under this incarnation.
    pub(super) recovering: Option<Incarnation>,
}

/// One run of the server process.
pub(super) struct Node {
    pub(super) controller: ControllerGroup,
    pub(super) store: SegmentStore,
    pub(super) log: Log,
    worker: Worker,
    machine: Machine,
    groups: Vec<GroupHandle<ContainerMachine>>,
    connections: BTreeMap<u32, Arc<AppendConnection>>,
    write: Option<BlockWrite>,
    checkpoint: Option<CheckpointJob>,
    storage: Option<Storage>,
    /// Between the group and the bucket, by number.
    jobs: BTreeMap<u64, Job>,
    new_jobs: Vec<u64>,
    next_job: u64,
}

/// A piece of work with the bucket.
enum Job {
    Begun(StorageJob),
    /// Done, and the worker has not heard of it.
    Done(StorageDone),
}

/// What became of a job's turn.
pub(super) enum Turn {
    /// There is no such job any more.
    Gone,
    Performed {
        group: GroupId,
        kind: JobKind,
        failure: Option<String>,
    },
    Told {
        group: GroupId,
        kind: JobKind,
        failed: bool,
    },
}

/// What a step leaves to be done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stepped {
    pub(super) write: bool,
    pub(super) checkpoint: bool,
    pub(super) files: bool,
    pub(super) wake_at: Option<MonotonicTime>,
    pub(super) stopped: bool,
}

/// Why the process ended, in its own words.
pub(super) type Failure = String;

impl Machine {
    fn log_settings(&self) -> LogSettings {
        let plan = &self.plan;
        LogSettings {
            budget: ByteSize(plan.file_size * plan.files),
            file_size: ByteSize(plan.file_size),
            entry_max: ByteSize(plan.file_size / 2),
            files_ahead: 1,
            block_size: ByteSize(plan.block_size),
            ..LogSettings::default()
        }
    }

    pub(super) fn open_log(&self, rng: &mut Rng) -> Result<Log, Failure> {
        let (disk, clock) = (Arc::new(self.disk.clone()), self.clock.clone());
        let opened = Log::open(disk, self.log_settings(), clock, rng.fork("log"));
        Ok(opened.map_err(|error| text(&error))?.0)
    }

    /// The groups of the node.
    pub(super) fn groups(&self) -> impl Iterator<Item = GroupId> {
        let containers = container_ids(self.containers).map(|id| id.group());
        std::iter::once(GroupId::CONTROLLER).chain(containers)
    }
}

fn text(error: &dyn std::error::Error) -> Failure {
    let cause = error.source().map_or_else(String::new, |source| format!(": {source}"));
    format!("start: {error}{cause}")
}

impl Node {
    pub(super) fn start(machine: Machine, rng: &mut Rng) -> Result<Self, Failure> {
        let plan = &machine.plan;
        let log = machine.open_log(rng)?;
        let settings = HostSettings {
            checkpoint_log_bytes: ByteSize(plan.checkpoint_log_bytes),
            checkpoint_interval: std::time::Duration::from_millis(plan.checkpoint_millis),
            inline_write_max: ByteSize(plan.inline_write_max),
            log: machine.log_settings(),
            ..HostSettings::default()
        };
        let kv: Arc<dyn Kv> = Arc::new(machine.kv.clone());
        let mut worker =
            Worker::new(settings, log.clone(), kv, machine.clock.clone(), rng.fork("worker"));
        let storage = machine.bucket.as_ref().map(|bucket| bucket.storage(rng));
        storage.iter().cloned().for_each(|storage| worker.use_storage(storage));
        let spec = |group| GroupSpec { recover: machine.recovering, ..GroupSpec::alone(group) };
        let controller = worker
            .add_group(spec(GroupId::CONTROLLER), ControllerMachine::new())
            .map_err(|error| text(&error))?;
        let store = segmentstore::Settings {
            tail_cache: ByteSize(plan.tail_cache),
            // The least that the store's own check allows.
            read_cache: ByteSize::mib(20),
            object_cache: ByteSize::mib(20),
            object_read_ahead: ByteSize::mib(20),
            ..segmentstore::Settings::default()
        };
        let memory = Memory::new(&store);
        let mut groups = Vec::new();
        for id in container_ids(machine.containers) {
            let container = ContainerMachine::new(id, memory.clone());
            let group = worker.add_group(spec(id.group()), container);
            groups.push(group.map_err(|error| text(&error))?);
        }
        let ids = container_ids(machine.containers);
        let handles = ids.zip(&groups).map(|(id, group)| (id, Arc::new(group.clone()) as _));
        let containers = Containers::new(handles);
        let source = Arc::new(log.clone());
        let clock = machine.clock.clone();
        let tasks = common::Tasks::new();
        let bucket = storage.as_ref().map(|storage| storage.bucket.clone());
        let store = SegmentStore::inline(containers, source, bucket, &memory, &store, clock, tasks);
        Ok(Self {
            controller: ControllerGroup(controller),
            store,
            log,
            worker,
            machine,
            groups,
            connections: BTreeMap::new(),
            write: None,
            checkpoint: None,
            storage,
            jobs: BTreeMap::new(),
            new_jobs: Vec::new(),
            next_job: 0,
        })
    }

    /// Steps the worker until it can go no further by itself.
    pub(super) fn step(&mut self, now: MonotonicTime) -> Result<Stepped, Failure> {
        loop {
            let step = self.worker.step(now).map_err(|failure| failure.to_string())?;
            assert!(step.messages.is_empty(), "a group of one sends no messages");
            if let Some(write) = step.write {
                self.write = Some(write);
            }
            if let Some(job) = step.checkpoint {
                self.checkpoint = Some(job);
            }
            for job in step.storage {
                self.next_job += 1;
                self.jobs.insert(self.next_job, Job::Begun(job));
                self.new_jobs.push(self.next_job);
            }
            if !step.more {
                return Ok(Stepped {
                    write: self.write.is_some(),
                    checkpoint: self.checkpoint.is_some(),
                    files: step.wants_files,
                    wake_at: step.wake_at,
                    stopped: step.stopped,
                });
            }
        }
    }

    /// Performs the block write that is under way. The first value is its length.
    pub(super) fn perform_write(&mut self) -> Result<usize, Failure> {
        let Some(mut write) = self.write.take() else { return Ok(0) };
        let bytes = write.len();
        let result = write.perform();
        self.log.finish_write(write, result).map_err(|stopped| stopped.to_string())?;
        Ok(bytes)
    }

    /// Saves the frozen state.
    pub(super) fn perform_checkpoint(&mut self) -> Result<(), Failure> {
        let Some(mut job) = self.checkpoint.take() else { return Ok(()) };
        let result = job.run(&self.machine.kv);
        self.worker.checkpointed(job, result).map_err(|failure| failure.to_string())
    }

    /// Makes or recycles log files, one step; whether there is more to do.
    pub(super) fn prepare_files(&mut self) -> Result<bool, Failure> {
        let prepared = self.log.prepare_files().map_err(|stopped| stopped.to_string())?;
        Ok(prepared != Prepared::Idle)
    }

    /// The jobs that have begun since this was asked last.
    pub(super) fn take_new_jobs(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.new_jobs)
    }

    /// Whether something is under way with the bucket that anybody waits for.
    pub(super) fn has_jobs(&self) -> bool {
        let kind = |job: &Job| match job {
            Job::Begun(job) => job.kind(),
            Job::Done(done) => done.kind,
        };
        self.jobs.values().any(|job| kind(job) != JobKind::Sweep)
    }

    /// Performs a job, or tells the worker what came of it.
    pub(super) fn turn(&mut self, number: u64) -> Result<Turn, Failure> {
        match self.jobs.remove(&number) {
            None => Ok(Turn::Gone),
            Some(Job::Begun(job)) => {
                let done = job.perform(&self.workshop().expect("jobs come with a bucket"));
                let failure = done.failure().map(ToString::to_string);
                let turn = Turn::Performed { group: done.group, kind: done.kind, failure };
                self.jobs.insert(number, Job::Done(done));
                Ok(turn)
            }
            Some(Job::Done(done)) => {
                let (group, kind, failed) = (done.group, done.kind, done.failure().is_some());
                self.worker.storage_done(done).map_err(|failure| failure.to_string())?;
                Ok(Turn::Told { group, kind, failed })
            }
        }
    }

    /// The jobs that nobody has performed yet, for a process that is about to be no more.
    pub(super) fn take_jobs(&mut self) -> Vec<StorageJob> {
        let begun = |job| match job {
            Job::Begun(job) => Some(job),
            Job::Done(_) => None,
        };
        std::mem::take(&mut self.jobs).into_values().filter_map(begun).collect()
    }

    pub(super) fn workshop(&self) -> Option<Workshop> {
        let (storage, log) = (self.storage.clone()?, self.log.clone());
        Some(Workshop { storage, log, kv: Arc::new(self.machine.kv.clone()) })
    }

    pub(super) fn archive(&self, group: GroupId) -> Option<&Archive> {
        self.worker.archive(group)
    }

    /// Every group as it is now.
    pub(super) fn statuses(&self) -> Vec<(GroupId, GroupStatus)> {
        let containers = self.groups.iter().map(|group| (group.group(), group.status()));
        let controller = (GroupId::CONTROLLER, self.controller.0.status());
        std::iter::once(controller).chain(containers).collect()
    }

    pub(super) fn begin_stop(&mut self) {
        self.worker.stop();
    }

    /// The end of a clean stop: seals the log.
    pub(super) fn seal(&mut self) -> Result<(), Failure> {
        while let Some(mut write) = self.log.begin_seal() {
            let result = write.perform();
            self.log.finish_write(write, result).map_err(|stopped| stopped.to_string())?;
        }
        Ok(())
    }

    pub(super) fn accept(&mut self, connection: u32) {
        self.connections.insert(connection, self.store.connect());
    }

    /// Takes a client's message. An error ends the connection.
    pub(super) fn request(
        &mut self,
        connection: u32,
        request: AppendRequest,
    ) -> Result<(), Failure> {
        let Some(open) = self.connections.get(&connection) else { return Ok(()) };
        let bytes = AppendConnection::bytes_of(&request);
        let permit = self.store.permits().try_acquire(bytes).ok_or("the byte permits leak")?;
        open.on_request(request, permit).map_err(|status| status.to_string())
    }

    pub(super) fn close(&mut self, connection: u32) {
        self.connections.remove(&connection);
    }

    /// The answers that are ready, by connection.
    pub(super) fn take_responses(&mut self) -> Vec<(u32, AppendResponse)> {
        let mut context = Context::from_waker(Waker::noop());
        let mut responses = Vec::new();
        for (id, connection) in &self.connections {
            while let Poll::Ready(Some(Ok(response))) = connection.poll_response(&mut context) {
                responses.push((*id, response));
            }
        }
        responses
    }

    /// Every group is healthy; the reason of the first that is not.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let controller = self.controller.0.status().quarantined;
        let containers = self.groups.iter().filter_map(|group| group.status().quarantined);
        controller.into_iter().chain(containers).next().map_or(Ok(()), Err)
    }

    /// What all replicas of the groups would have to agree on.
    pub(super) fn digests(&self) -> Vec<u64> {
        let containers = self.groups.iter().map(|group| group.status().digest);
        std::iter::once(self.controller.0.status().digest).chain(containers).collect()
    }

    /// Whether every group leads and serves.
    pub(super) fn is_serving(&self) -> bool {
        self.controller.0.status().serving && self.groups.iter().all(|g| g.status().serving)
    }
}

pub(super) fn container_ids(count: u64) -> impl Iterator<Item = ContainerId> {
    (2..2 + count).map(ContainerId)
}
