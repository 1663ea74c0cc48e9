//! Everything that is simulated, and the loop that moves it from event to event.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use common::clock::ManualClock;
use common::{Clock, MonotonicTime, Rng, WallTime};
use prost::Message;
use proto::v1::{AppendRequest, AppendResponse};
use replica::MemKv;
use wal::SimDisk;

use super::bucket::{Request, SimBucket};
use super::clients::Client;
use super::invariants::Invariants;
use super::network::Connection;
use super::node::{Machine, Node, Stepped};
use super::plan::Plan;
use super::recovery::Progress;
use super::streams::{Effect, Jobs, Stream};
use super::tasks::Tasks;
use super::trace::Trace;
use super::{Coverage, Options, Report, schedule::Schedule};
use crate::checker;
use crate::history::Recorder;

/// 2026-01-01, so that times look like times.
const EPOCH: WallTime = WallTime(1_767_225_600_000_000);

pub(super) enum Event {
    /// The worker's bell rang.
    Step,
    /// The block under way has reached the disk.
    Written,
    Checkpoint,
    Files,
    /// The controller's leader looks for steps to carry out.
    Jobs,
    Restart,
    Request {
        connection: u32,
        request: Box<AppendRequest>,
    },
    Response {
        connection: u32,
        response: Box<AppendResponse>,
    },
    /// The server notices that a client is gone, or a client that the server is.
    ServerCloses {
        connection: u32,
    },
    ClientCloses {
        connection: u32,
    },
    /// What a writer sent comes once more.
    Echo {
        requests: Vec<AppendRequest>,
    },
    Client {
        client: usize,
    },
    /// Someone administers streams, or reads one.
    Admin,
    Look,
    Fault,
    DiskHasSpace,
    ChaosEnds,
    /// A job with the bucket has its turn.
    Storage {
        job: u64,
    },
    /// What a process sent to the bucket arrives after its end.
    Late {
        request: Request,
    },
    OutageEnds,
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) plan: Plan,
    pub(super) schedule: Schedule<Event>,
    pub(super) trace: Trace,
    pub(super) clock: Arc<ManualClock>,
    pub(super) machine: Machine,
    pub(super) node: Option<Node>,
    pub(super) tasks: Tasks<Effect>,
    pub(super) jobs: Jobs,
    pub(super) streams: Vec<Stream>,
    pub(super) clients: Vec<Client>,
    pub(super) connections: BTreeMap<u32, Connection>,
    pub(super) next_connection: u32,
    pub(super) recorder: Recorder,
    pub(super) coverage: Coverage,
    pub(super) problems: Vec<String>,
    pub(super) chaos: bool,
    pub(super) stopping: bool,
    pub(super) finished: bool,
    pub(super) settled: bool,
    pub(super) disk_is_full: bool,
    pub(super) healed_at: u64,
    pub(super) last_reads_left: usize,
    pub(super) next_writer: u32,
    /// When something was last refused because the log is full.
    pub(super) full_at: Option<u64>,
    pub(super) next_planned: u64,
    pub(super) stall_next: u64,
    pub(super) late_requests: u64,
    pub(super) state_was_lost: bool,
    pub(super) machine_is_lost: bool,
    pub(super) at_rest_since: u64,
    pub(super) sweeps_at_rest: BTreeMap<common::GroupId, u64>,
    pub(super) progress: Progress,
    pub(super) invariants: Invariants,
    pub(super) step_at: Option<u64>,
    pub(super) write_scheduled: bool,
    pub(super) checkpoint_scheduled: bool,
    pub(super) files_scheduled: bool,
    pub(super) random: Random,
}

/// One generator per component, so that drawing in one moves no other.
pub(super) struct Random {
    pub(super) node: Rng,
    pub(super) disk: Rng,
    pub(super) network: Rng,
    pub(super) faults: Rng,
    pub(super) workload: Rng,
    pub(super) bucket: Rng,
}

impl World {
    pub(super) fn new(options: &Options) -> Self {
        Self::with_plan(options, |_| {})
    }

    pub(super) fn with_plan(options: &Options, change: impl FnOnce(&mut Plan)) -> Self {
        let mut rng = Rng::from_seed(options.seed);
        let mut plan = Plan::draw(&mut rng.fork("plan"));
        change(&mut plan);
        let clock = Arc::new(ManualClock::new(EPOCH));
        let mut random = rng.fork("bucket");
        let bucket = plan.bucket.as_ref().map(|plan| SimBucket::new(plan, EPOCH, &mut random));
        let machine = Machine {
            disk: SimDisk::new(rng.fork("sim disk")),
            kv: MemKv::new(),
            clock: clock.clone(),
            plan: plan.disk.clone(),
            containers: plan.containers,
            bucket,
            recovering: None,
        };
        let mut world = Self {
            seed: options.seed,
            plan,
            schedule: Schedule::default(),
            trace: Trace::new(options.print),
            clock,
            machine,
            node: None,
            tasks: Tasks::default(),
            jobs: Jobs::default(),
            streams: Vec::new(),
            clients: Vec::new(),
            connections: BTreeMap::new(),
            next_connection: 1,
            recorder: Recorder::default(),
            coverage: Coverage::default(),
            problems: Vec::new(),
            chaos: true,
            stopping: false,
            finished: false,
            settled: false,
            disk_is_full: false,
            healed_at: 0,
            last_reads_left: 0,
            next_writer: 0,
            full_at: None,
            next_planned: 0,
            stall_next: 0,
            late_requests: 0,
            state_was_lost: false,
            machine_is_lost: false,
            at_rest_since: 0,
            sweeps_at_rest: BTreeMap::new(),
            progress: Progress::default(),
            invariants: Invariants::default(),
            step_at: None,
            write_scheduled: false,
            checkpoint_scheduled: false,
            files_scheduled: false,
            random: Random {
                node: rng.fork("node"),
                disk: rng.fork("disk times"),
                network: rng.fork("network"),
                faults: rng.fork("faults"),
                workload: rng.fork("workload"),
                bucket: random,
            },
        };
        world.prepare();
        world
    }

    fn prepare(&mut self) {
        let plan = format!("{:?}", self.plan);
        self.note(format_args!("plan {plan}"));
        self.schedule.after(0, Event::Restart);
        self.prepare_streams();
        self.schedule.after(1_000, Event::Admin);
        if self.plan.reads {
            self.schedule.after(20_000, Event::Look);
        }
        self.schedule.after(self.plan.faults.interval, Event::Fault);
        if let (Some(bucket), Some(plan)) = (&self.machine.bucket, &self.plan.bucket) {
            bucket.set_rates(plan.rates());
        }
        let chaos = self.random.faults.between(1_000_000, 4_000_000);
        self.schedule.after(chaos, Event::ChaosEnds);
    }

    pub(super) fn run(mut self) -> Report {
        while !self.finished && self.problems.is_empty() {
            let before = self.schedule.now();
            let Some(event) = self.schedule.next() else {
                self.problem("nothing is left to happen".to_owned());
                break;
            };
            self.clock.advance(Duration::from_micros(self.schedule.now() - before));
            if let Some(bucket) = &self.machine.bucket {
                bucket.follow(self.clock.monotonic());
            }
            self.handle(event);
            self.check_invariants();
        }
        self.report()
    }

    fn report(self) -> Report {
        let history = self.recorder.into_lines();
        let (summary, violations) = checker::check(&history);
        // An unfinished run has no last reads, and what they would show is not known.
        let violations = if self.finished { violations } else { Vec::new() };
        Report {
            seed: self.seed,
            trace: self.trace.hash(),
            trace_lines: self.trace.lines(),
            summary,
            coverage: self.coverage,
            violations,
            problems: self.problems,
            history,
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Step => self.on_step(),
            Event::Written => self.on_written(),
            Event::Checkpoint => self.on_checkpoint(),
            Event::Files => self.on_files(),
            Event::Jobs => self.on_jobs(),
            Event::Restart => self.on_restart(),
            Event::Request { connection, request } => self.on_request(connection, *request),
            Event::Response { connection, response } => self.on_response(connection, *response),
            Event::ServerCloses { connection } => self.on_server_closes(connection),
            Event::ClientCloses { connection } => self.on_client_closes(connection),
            Event::Echo { requests } => self.on_echo(requests),
            Event::Client { client } => self.on_client(client),
            Event::Admin => self.on_admin(),
            Event::Look => self.on_look(),
            Event::Fault => self.on_fault(),
            Event::DiskHasSpace => self.on_space(),
            Event::ChaosEnds => self.on_chaos_ends(),
            Event::Storage { job } => self.on_storage(job),
            Event::Late { request } => self.on_late(request),
            Event::OutageEnds => self.on_outage_ends(),
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.schedule.now()
    }

    pub(super) fn monotonic(&self) -> MonotonicTime {
        self.clock.monotonic()
    }

    pub(super) fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.line(self.schedule.now(), what);
    }

    pub(super) fn note_message(&mut self, what: fmt::Arguments<'_>, message: &impl Message) {
        self.trace.bytes(&message.encode_to_vec());
        self.note(what);
    }

    /// The run cannot go on: its seed failed.
    pub(super) fn problem(&mut self, what: String) {
        self.note(format_args!("problem: {what}"));
        self.problems.push(what);
    }

    /// Rings the worker's bell: it steps a moment later.
    pub(super) fn wake(&mut self) {
        let delay = self.random.node.between(1, 30);
        self.wake_at(self.now() + delay);
    }

    fn wake_at(&mut self, at: u64) {
        if self.step_at.is_none_or(|planned| at < planned) {
            self.step_at = Some(at);
            self.schedule.at(at, Event::Step);
        }
    }

    fn on_step(&mut self) {
        if self.step_at.is_some_and(|at| at > self.now()) {
            // A later wake-up was replaced by an earlier one, which has been.
            return;
        }
        self.step_at = None;
        let now = self.monotonic();
        let Some(node) = &mut self.node else { return };
        match node.step(now) {
            Ok(stepped) => self.after_step(stepped),
            Err(failure) => self.node_failed(failure),
        }
    }

    fn after_step(&mut self, stepped: Stepped) {
        self.note_progress();
        self.schedule_jobs();
        if let Some(node) = &self.node
            && let Err(reason) = node.check()
        {
            self.problem(format!("a group is quarantined: {reason}"));
            return;
        }
        if stepped.write && !self.write_scheduled {
            self.write_scheduled = true;
            let delay = self.random.disk.between(20, self.plan.disk.write_micros);
            let delay = delay + std::mem::take(&mut self.stall_next);
            self.schedule.after(delay, Event::Written);
        }
        if stepped.checkpoint && !self.checkpoint_scheduled {
            self.checkpoint_scheduled = true;
            let delay = self.random.disk.between(50, 20_000);
            self.schedule.after(delay, Event::Checkpoint);
        }
        if stepped.files {
            self.schedule_files(100);
        }
        if let Some(at) = stepped.wake_at {
            self.wake_at(at.0.max(self.now() + 1));
        }
        self.deliver_responses();
        self.poll_tasks();
        if stepped.stopped {
            self.on_stopped();
        }
    }

    pub(super) fn poll_tasks(&mut self) {
        let effects = self.tasks.poll();
        for effect in effects {
            self.on_effect(effect);
        }
    }

    fn on_written(&mut self) {
        self.write_scheduled = false;
        let Some(node) = &mut self.node else { return };
        match node.perform_write() {
            Ok(bytes) => {
                self.coverage.blocks += 1;
                self.note(format_args!("block of {bytes}"));
                self.schedule_files(200);
                self.wake();
            }
            Err(failure) => self.node_failed(failure),
        }
    }

    fn on_checkpoint(&mut self) {
        self.checkpoint_scheduled = false;
        let Some(node) = &mut self.node else { return };
        match node.perform_checkpoint() {
            Ok(()) => {
                self.coverage.checkpoints += 1;
                self.note(format_args!("checkpoint"));
                self.wake();
            }
            Err(failure) => self.node_failed(failure),
        }
    }

    pub(super) fn schedule_files(&mut self, delay: u64) {
        if !self.files_scheduled {
            self.files_scheduled = true;
            self.schedule.after(delay, Event::Files);
        }
    }

    fn on_files(&mut self) {
        self.files_scheduled = false;
        let Some(node) = &mut self.node else { return };
        match node.prepare_files() {
            // A file that could not be made is no failure of the log, whatever the reason.
            Ok(_) if self.machine.disk.crashed() => {
                self.node_failed("the files found it crashed".to_owned());
            }
            Ok(more) => {
                if more {
                    self.schedule_files(100);
                    self.wake();
                }
            }
            Err(failure) => self.node_failed(failure),
        }
    }
}
