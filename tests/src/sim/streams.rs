//! Streams: made, sealed, truncated and deleted through the controller's operations and jobs.

use std::collections::{BTreeMap, BTreeSet};

use common::{ContainerId, Incarnation, Offset, ScopedStream, SegmentId, StreamEpoch, StreamId};
use controller::group::query;
use controller::{
    Accepted, Group, GroupError, JobId, Operation as Control, Outcome, Step, StoreId, pending_steps,
};
use proto::convert::SegmentPlace;
use segmentstore::ReadError;

use super::node::container_ids;
use super::scaling::Scale;
use super::world::{Event, World};
use super::writers::Planned;
use crate::history::{Answer, Operation, SegmentRef, What};

/// Where a stream is in its life, as its administrator knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Wanted,
    Live,
    /// An operation is to be submitted, or its job waited for.
    Asked(Control),
    Working {
        of: Control,
        job: JobId,
    },
    /// Segments end and others go on.
    Scaling(Scale),
    Sealed,
    Deleted,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: ScopedStream,
    /// The stream's number in the history: another one for each stream of the same name.
    pub(super) number: u32,
    pub(super) segments: u32,
    pub(super) phase: Phase,
    pub(super) id: Option<StreamId>,
    /// In order of their numbers in the history: those of the first epoch come first.
    pub(super) places: Vec<SegmentPlace>,
    /// Its segments end and others go on.
    pub(super) scales: bool,
    /// The places that take appends, in the order of the key space.
    pub(super) current: Vec<usize>,
    /// Whoever writes uses these.
    pub(super) keys: BTreeSet<u32>,
    pub(super) planned: Vec<Planned>,
    pub(super) sealed: bool,
    /// Offsets where events begin or end, as reads found them.
    pub(super) edges: BTreeMap<u32, Vec<u64>>,
    /// History operations that the phase's end decides.
    pub(super) ops: Vec<u64>,
    pub(super) busy: bool,
}

impl Stream {
    /// Where the controller put the segments of the first epoch.
    pub(super) fn first_places(&self) -> &[SegmentPlace] {
        let first = |place: &SegmentPlace| place.segment.epoch == StreamEpoch(0);
        &self.places[..self.places.partition_point(first)]
    }

    pub(super) fn successors_of(&self, segment: SegmentId) -> Vec<SegmentPlace> {
        let follows = |place: &&SegmentPlace| place.predecessors.contains(&segment);
        self.places.iter().filter(follows).cloned().collect()
    }
}

/// The steps that the controller's leader is carrying out.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    introduced: bool,
    looking: bool,
    running: BTreeSet<JobId>,
}

impl Jobs {
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// What a future of the server came to.
pub(super) enum Effect {
    Introduced(bool),
    Submitted { stream: usize, outcome: Result<Outcome, GroupError> },
    JobSeen { stream: usize, ended: Option<bool> },
    Described { stream: usize, found: Option<(StreamId, Vec<SegmentPlace>)> },
    Steps(Vec<Step>),
    StepOver(JobId),
    Scaled { stream: usize, done: Result<bool, String> },
    Registered { stream: usize, planned: u64, outcome: Result<Outcome, GroupError> },
    Read { op: u64, segment: SegmentRef, last: bool, found: Result<Answer, ReadError> },
}

/// How often anybody looks once nobody writes any more.
const QUIET_MICROS: u64 = 50_000;

impl World {
    fn is_quiet(&self) -> bool {
        !self.chaos && self.clients_are_over()
    }

    pub(super) fn prepare_streams(&mut self) {
        for i in 0..self.plan.streams {
            let name: ScopedStream =
                format!("sim/stream-{i}").parse().expect("a simulated name is a good one");
            self.add_stream(name);
        }
    }

    fn add_stream(&mut self, name: ScopedStream) {
        let segments = self.random.workload.between(1, self.plan.segments_max) as u32;
        let scales = self.plan.scales && self.random.workload.chance(2, 3);
        let number = self.streams.len() as u32;
        self.streams.push(Stream {
            name,
            number,
            segments,
            phase: Phase::Wanted,
            id: None,
            places: Vec::new(),
            scales,
            current: Vec::new(),
            keys: self.stream_keys().into_iter().collect(),
            planned: Vec::new(),
            sealed: false,
            edges: BTreeMap::new(),
            ops: Vec::new(),
            busy: false,
        });
    }

    /// The process is gone, and with it whoever was waiting for an answer.
    pub(super) fn streams_forget(&mut self) {
        for stream in &mut self.streams {
            stream.busy = false;
            stream.planned.iter_mut().for_each(|planned| planned.asked = false);
        }
    }

    /// Carries the controller's jobs on, as its leader would.
    pub(super) fn on_jobs(&mut self) {
        let Some(node) = self.node.as_ref().filter(|_| !self.machine_is_lost) else { return };
        let delay = if self.is_quiet() { QUIET_MICROS } else { 1_500 };
        self.schedule.after(delay, Event::Jobs);
        let Some(term) = node.controller.leadership().borrow().serving else { return };
        let group = node.controller.clone();
        if !self.jobs.introduced {
            if !self.jobs.looking {
                self.jobs.looking = true;
                let containers = container_ids(self.plan.containers).collect();
                self.tasks
                    .spawn(async move { Effect::Introduced(introduce(&group, containers).await) });
                self.wake();
            }
            return;
        }
        if !self.jobs.looking {
            self.jobs.looking = true;
            let running = self.jobs.running.clone();
            self.tasks.spawn(async move {
                let look = move |machine: &controller::ControllerMachine| {
                    pending_steps(machine, term, 4, |job| !running.contains(&job))
                };
                Effect::Steps(query(&group, look).await.unwrap_or_default())
            });
            self.wake();
        }
    }

    pub(super) fn on_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Introduced(done) => {
                self.jobs.looking = false;
                self.jobs.introduced = done;
            }
            Effect::Steps(steps) => {
                self.jobs.looking = false;
                steps.into_iter().for_each(|step| self.carry_out(step));
            }
            Effect::StepOver(job) => _ = self.jobs.running.remove(&job),
            Effect::Scaled { stream, done } => self.on_scaled(stream, done),
            Effect::Submitted { stream, outcome } => self.on_submitted(stream, outcome),
            Effect::JobSeen { stream, ended } => self.on_job_seen(stream, ended),
            Effect::Described { stream, found } => self.on_described(stream, found),
            Effect::Registered { stream, planned, outcome } => {
                self.on_registered(stream, planned, outcome);
            }
            Effect::Read { op, segment, last, found } => self.on_read(op, segment, last, found),
        }
    }

    fn carry_out(&mut self, step: Step) {
        let Some(node) = &self.node else { return };
        self.trace.line(self.schedule.now(), format_args!("step {} of {}", step.step, step.job));
        self.jobs.running.insert(step.job);
        let stores = server::LocalStores(node.store.commands());
        let group = node.controller.clone();
        self.tasks.spawn(async move {
            let job = step.job;
            perform(&group, &stores, step).await;
            Effect::StepOver(job)
        });
        self.wake();
    }

    pub(super) fn on_admin(&mut self) {
        if self.machine_is_lost {
            return;
        }
        let delay = self.random.workload.between(500, 5_000);
        let delay = delay + if self.is_quiet() { QUIET_MICROS } else { 0 };
        self.schedule.after(delay, Event::Admin);
        let Some(node) = &self.node else { return };
        if !self.jobs.introduced || !node.is_serving() || self.stopping {
            return;
        }
        for stream in 0..self.streams.len() {
            if !self.streams[stream].busy {
                self.administer(stream);
            }
            self.register_planned(stream);
        }
    }

    fn administer(&mut self, stream: usize) {
        let s = &self.streams[stream];
        match s.phase.clone() {
            Phase::Wanted => {
                let (name, segments) = (s.name.clone(), s.segments);
                let create =
                    Control::CreateStream { stream: name, segments, create_scope: true, token: 0 };
                self.streams[stream].phase = Phase::Asked(create);
            }
            Phase::Asked(operation) => self.submit(stream, operation),
            Phase::Working { job, .. } => self.look_for(stream, job),
            Phase::Scaling(scale) => self.carry_on_scaling(stream, &scale),
            Phase::Live if self.chaos && s.scales => self.choose_scale(stream),
            Phase::Live | Phase::Sealed if self.chaos => self.choose_operation(stream),
            Phase::Live | Phase::Sealed | Phase::Deleted => {}
        }
    }

    fn submit(&mut self, stream: usize, operation: Control) {
        let Some(node) = &self.node else { return };
        let group = node.controller.clone();
        self.streams[stream].busy = true;
        self.tasks.spawn(async move {
            Effect::Submitted { stream, outcome: group.submit(operation).await }
        });
        self.wake();
    }

    fn look_for(&mut self, stream: usize, job: JobId) {
        let Some(node) = &self.node else { return };
        let group = node.controller.clone();
        self.streams[stream].busy = true;
        self.tasks.spawn(async move {
            let look = move |machine: &controller::ControllerMachine| {
                let running = machine.jobs().contains_key(&job);
                (!running).then(|| machine.failure_of(job).is_none())
            };
            let ended = query(&group, look).await.ok().flatten();
            Effect::JobSeen { stream, ended }
        });
        self.wake();
    }

    fn choose_operation(&mut self, stream: usize) {
        let rng = &mut self.random.workload;
        let (seal, truncate, delete) = (rng.chance(1, 400), rng.chance(1, 60), rng.chance(1, 500));
        let (s, now) = (&self.streams[stream], self.schedule.now());
        let (name, number) = (s.name.clone(), s.number);
        if self.plan.seals && seal && !s.sealed {
            let op = self.recorder.invoke(now, u32::MAX, Operation::Seal { stream: number });
            self.ask(stream, Control::SealStream { stream: name }, vec![op]);
        } else if self.plan.deletes && delete {
            let op = self.recorder.invoke(now, u32::MAX, Operation::Delete { stream: number });
            self.ask(stream, Control::DeleteStream { stream: name }, vec![op]);
        } else if self.plan.truncates && truncate {
            self.truncate(stream);
        }
    }

    pub(super) fn truncate(&mut self, stream: usize) {
        let (s, now) = (&self.streams[stream], self.schedule.now());
        let Some(id) = s.id else { return };
        let mut cut = Vec::new();
        let mut ops = Vec::new();
        for (at, place) in s.first_places().iter().enumerate() {
            let edges = s.edges.get(&(at as u32)).map_or(&[][..], Vec::as_slice);
            let chosen = self.random.workload.below(edges.len() as u64) as usize;
            let offset = edges.get(chosen).copied().unwrap_or_default();
            cut.push((place.segment.epoch, place.segment.number, Offset(offset)));
            let segment = SegmentRef { stream: s.number, segment: at as u32 };
            if offset > 0 {
                let operation = Operation::Truncate { segment, offset };
                ops.push(self.recorder.invoke(now, u32::MAX, operation));
            }
        }
        self.ask(stream, Control::TruncateStream { stream: id, cut }, ops);
    }

    fn ask(&mut self, stream: usize, operation: Control, ops: Vec<u64>) {
        self.trace.line(self.schedule.now(), format_args!("asked for {operation:?}"));
        self.streams[stream].ops = ops;
        self.streams[stream].phase = Phase::Asked(operation);
    }

    fn on_submitted(&mut self, stream: usize, outcome: Result<Outcome, GroupError>) {
        self.trace.line(self.schedule.now(), format_args!("controller: {outcome:?}"));
        self.note_full(&outcome);
        let s = &mut self.streams[stream];
        s.busy = false;
        let Phase::Asked(of) = s.phase.clone() else { return };
        match outcome {
            Ok(Ok(
                Accepted::StreamCreated { job: Some(job), .. }
                | Accepted::Started { job: Some(job), .. },
            )) => s.phase = Phase::Working { of, job },
            Ok(Ok(_)) => self.operation_done(stream, &of),
            Ok(Err(
                controller::Refusal::StreamNotFound(_) | controller::Refusal::ScopeNotFound(_),
            )) if matches!(of, Control::DeleteStream { .. }) => {
                self.operation_done(stream, &of);
            }
            Ok(Err(controller::Refusal::Busy { .. })) | Err(_) => {}
            Ok(Err(refusal)) => {
                self.problem(format!("the controller refuses {of:?}: {refusal}"));
            }
        }
    }

    pub(super) fn note_full(&mut self, outcome: &Result<Outcome, GroupError>) {
        if matches!(outcome, Err(GroupError::LogFull)) {
            self.full_at = Some(self.now());
        }
    }

    fn on_job_seen(&mut self, stream: usize, ended: Option<bool>) {
        self.streams[stream].busy = false;
        let Phase::Working { of, job } = self.streams[stream].phase.clone() else { return };
        match ended {
            Some(true) => self.operation_done(stream, &of),
            Some(false) => self.problem(format!("job {job} of {of:?} failed")),
            None => {}
        }
    }

    fn operation_done(&mut self, stream: usize, of: &Control) {
        let now = self.schedule.now();
        self.trace.line(now, format_args!("done: {of:?}"));
        for op in std::mem::take(&mut self.streams[stream].ops) {
            self.recorder.end(now, u32::MAX, op, What::Ok { answer: Answer::Done });
        }
        match of {
            Control::CreateStream { .. } => self.describe(stream),
            Control::SealStream { .. } => {
                self.streams[stream].sealed = true;
                self.streams[stream].phase = Phase::Sealed;
            }
            Control::DeleteStream { .. } => {
                self.coverage.deletions += 1;
                self.streams[stream].phase = Phase::Deleted;
                self.streams[stream].planned.clear();
                if self.random.workload.chance(1, 2) {
                    let name = self.streams[stream].name.clone();
                    self.add_stream(name);
                }
            }
            _ => {
                self.coverage.truncations += 1;
                let sealed = self.streams[stream].sealed;
                self.streams[stream].phase = if sealed { Phase::Sealed } else { Phase::Live };
            }
        }
    }

    fn describe(&mut self, stream: usize) {
        let Some(node) = &self.node else { return };
        let (group, name) = (node.controller.clone(), self.streams[stream].name.clone());
        self.streams[stream].busy = true;
        self.tasks.spawn(async move {
            let look = move |machine: &controller::ControllerMachine| {
                let found = machine.stream(&name).ok()?;
                let places = found.current.iter().map(|key| {
                    let segment = &found.segments[key];
                    SegmentPlace {
                        segment: found.segment_id(*key),
                        range: segment.range,
                        container: segment.container,
                        endpoint: String::new(),
                        predecessors: Vec::new(),
                    }
                });
                Some((found.id, places.collect()))
            };
            Effect::Described { stream, found: query(&group, look).await.ok().flatten() }
        });
        self.wake();
    }

    fn on_described(&mut self, stream: usize, found: Option<(StreamId, Vec<SegmentPlace>)>) {
        let s = &mut self.streams[stream];
        s.busy = false;
        // Not told: the stream is asked for again, which changes nothing.
        let Some((id, places)) = found else { return };
        s.current = (0..places.len()).collect();
        (s.id, s.places, s.phase) = (Some(id), places, Phase::Live);
        self.trace.line(self.schedule.now(), format_args!("stream {stream} is {id}"));
        self.start_clients(stream);
    }
}

/// Gives the cluster its identity and its store, as the first leader does.
async fn introduce(group: &impl Group, containers: Vec<ContainerId>) -> bool {
    let initialize = Control::Initialize { cluster: 1, incarnation: Incarnation(1) };
    let register =
        Control::RegisterStore { store: StoreId(1), endpoint: String::new(), containers };
    for operation in [initialize, register] {
        if !matches!(group.submit(operation).await, Ok(Ok(_))) {
            return false;
        }
    }
    true
}

/// One step: the commands in order, then the entry that records it. What fails is found again.
async fn perform(group: &impl Group, stores: &dyn controller::SegmentStores, step: Step) {
    let mut answers = Vec::new();
    for command in step.commands.clone() {
        match stores.perform(command).await {
            Ok(answer) => answers.push(answer),
            Err(controller::StoreError::Refused(problem)) => {
                _ = group.submit(step.failed(problem)).await;
                return;
            }
            Err(_) => return,
        }
    }
    if let Ok(done) = step.done(&answers) {
        _ = group.submit(done).await;
    }
}
