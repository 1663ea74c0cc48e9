//! The simulated server: log, replicas, containers and controller as they ship, driven by hand.
//!
//! What threads do in the product are values here: a block to write, a checkpoint to save, files
//! to make. The world performs them as events of their own, so that anything may happen between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use common::{ByteSize, Clock, ContainerId, MonotonicTime, Rng};
use controller::{ControllerGroup, ControllerMachine};
use proto::v1::{AppendRequest, AppendResponse};
use replica::{CheckpointJob, GroupHandle, GroupSpec, HostSettings, Kv, MemKv, Worker};
use segmentstore::append_core::AppendConnection;
use segmentstore::{ContainerMachine, Containers, Memory, SegmentStore};
use wal::{BlockWrite, Log, LogSettings, Prepared, SimDisk};

use super::plan::DiskPlan;

/// What survives the process.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) disk: SimDisk,
    pub(super) kv: MemKv,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) plan: DiskPlan,
    pub(super) containers: u64,
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

impl Node {
    pub(super) fn start(machine: Machine, rng: &mut Rng) -> Result<Self, Failure> {
        let text = |error: &dyn std::error::Error| {
            let cause = error.source().map_or_else(String::new, |source| format!(": {source}"));
            format!("start: {error}{cause}")
        };
        let plan = &machine.plan;
        let settings = LogSettings {
            budget: ByteSize(plan.file_size * plan.files),
            file_size: ByteSize(plan.file_size),
            entry_max: ByteSize(plan.file_size / 2),
            files_ahead: 1,
            block_size: ByteSize(plan.block_size),
            ..LogSettings::default()
        };
        let disk = Arc::new(machine.disk.clone());
        let (log, _) = Log::open(disk, settings.clone(), machine.clock.clone(), rng.fork("log"))
            .map_err(|error| text(&error))?;
        let settings = HostSettings {
            checkpoint_log_bytes: ByteSize(plan.checkpoint_log_bytes),
            checkpoint_interval: std::time::Duration::from_millis(plan.checkpoint_millis),
            inline_write_max: ByteSize(plan.inline_write_max),
            log: settings,
            ..HostSettings::default()
        };
        let kv: Arc<dyn Kv> = Arc::new(machine.kv.clone());
        let mut worker =
            Worker::new(settings, log.clone(), kv, machine.clock.clone(), rng.fork("worker"));
        let controller = worker
            .add_group(GroupSpec::alone(common::GroupId::CONTROLLER), ControllerMachine::new())
            .map_err(|error| text(&error))?;
        let store = segmentstore::Settings {
            tail_cache: ByteSize(plan.tail_cache),
            // The least that the store's own check allows.
            read_cache: ByteSize::mib(20),
            ..segmentstore::Settings::default()
        };
        let memory = Memory::new(&store);
        let mut groups = Vec::new();
        for id in container_ids(machine.containers) {
            let container = ContainerMachine::new(id, memory.clone());
            let group = worker.add_group(GroupSpec::alone(id.group()), container);
            groups.push(group.map_err(|error| text(&error))?);
        }
        let ids = container_ids(machine.containers);
        let handles = ids.zip(&groups).map(|(id, group)| (id, Arc::new(group.clone()) as _));
        let containers = Containers::new(handles);
        let source = Arc::new(log.clone());
        let clock = machine.clock.clone();
        let tasks = common::Tasks::new();
        let store = SegmentStore::inline(containers, source, None, &memory, &store, clock, tasks);
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
