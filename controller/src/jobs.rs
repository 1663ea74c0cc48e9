//! Jobs: what the leader has segment stores do, step by step.
//!
//! The deciding half is here and free of tasks and clocks: [`pending_steps`] says what is to be
//! done next, [`Step::done`] turns the stores' answers into the operation that records it. A
//! simulation drives these; the product drives them with [`runner::Jobs`].
//!
//! A step may be carried out any number of times by any number of leaders: stores carry out
//! commands idempotently, refuse those of deposed leaders by the fence, and the state records a
//! step once.

pub mod runner;

use std::collections::BTreeMap;
use std::ops::Bound;

use common::{ContainerId, Fence, Offset, SegmentId, Term};

use crate::machine::{ControllerMachine, Job, JobKind, Phase, SegmentKey, Stream};
use crate::operation::Operation;
use crate::stores::{
    JobId, NewSegment, SegmentSeal, StoreAction, StoreAnswer, StoreCommand, StoreError,
};

/// Segments of the steps of one look, give or take the last step.
const SEGMENTS_PER_LOOK: usize = 1_024;

/// Jobs that one look learns of.
const JOBS_PER_LOOK: usize = 1_024;

/// The next step of one job: its commands may be carried out in any order, all of them before the
/// step is recorded. A step that only changes the state has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub job: JobId,
    pub step: u32,
    pub commands: Vec<StoreCommand>,
}

/// The next step of each job that `wanted` accepts, at most `most` of them, oldest job first, to be
/// commanded by the leader of `term`. Nothing before the cluster has its identity.
pub fn pending_steps(
    machine: &ControllerMachine,
    term: Term,
    most: usize,
    wanted: impl Fn(JobId) -> bool,
) -> Vec<Step> {
    let Some(cluster) = machine.cluster() else { return Vec::new() };
    let fence = cluster.fence(term);
    let jobs = machine.jobs().iter().filter(|(id, _)| wanted(**id)).take(most);
    jobs.map(|(id, job)| step_of(machine, *id, job, fence)).collect()
}

/// What a look at the state found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The next step of each of the jobs asked for that was looked at and exists, in their order.
    pub(crate) steps: Vec<Step>,
    /// So many of the jobs asked for were looked at.
    pub(crate) looked_at: usize,
    /// Jobs that are newer than those known, the oldest first, and the last of them.
    pub(crate) new: Vec<JobId>,
    pub(crate) newest: Option<JobId>,
}

/// The next steps of `jobs`, and jobs that are newer than `known`. A look at wide streams ends early,
/// so that it costs the state's thread less than a millisecond.
pub(crate) fn next_steps(
    machine: &ControllerMachine,
    term: Term,
    jobs: &[JobId],
    known: Option<JobId>,
) -> Found {
    let Some(cluster) = machine.cluster() else { return Found::default() };
    let fence = cluster.fence(term);
    let mut found = Found::default();
    let mut segments = 0;
    for id in jobs {
        if segments >= SEGMENTS_PER_LOOK {
            break;
        }
        found.looked_at += 1;
        if let Some(job) = machine.jobs().get(id) {
            let step = step_of(machine, *id, job, fence);
            segments += step.segments();
            found.steps.push(step);
        }
    }
    let newer = (known.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
    found.new = machine.jobs().range(newer).take(JOBS_PER_LOOK).map(|(id, _)| *id).collect();
    found.newest = found.new.last().copied();
    found
}

/// Derives the step that `job` is at: the same from the same record, whoever asks and how often.
fn step_of(machine: &ControllerMachine, id: JobId, job: &Job, fence: Fence) -> Step {
    let stream = machine.stream_by_id(job.stream).expect("a job's stream exists");
    let slice = job.slice(stream);
    let command = |(container, action)| {
        let (job, step) = (id, job.step);
        StoreCommand { container, job, step, fence, action }
    };
    let commands = actions(job, stream, slice).into_iter().map(command).collect();
    Step { job: id, step: job.step, commands }
}

/// What is done to a phase's segments, as one action per container.
fn actions(job: &Job, stream: &Stream, slice: Vec<SegmentKey>) -> Vec<(ContainerId, StoreAction)> {
    let id = |key| stream.segment_id(key);
    let container = |key| stream.known_segment(key).expect("a job's segments are known").container;
    let slice = slice.into_iter();
    match job.phase {
        Phase::Create => {
            let items = slice.map(|key| (container(key), new_segment(stream, key)));
            grouped(items, StoreAction::Create)
        }
        Phase::Seal => {
            let seal = |key| SegmentSeal { segment: id(key), successors: Vec::new() };
            grouped(slice.map(|key| (container(key), seal(key))), StoreAction::Seal)
        }
        Phase::Truncate => {
            let items = slice.map(|key| (container(key), (id(key), stream.head[&key])));
            grouped(items, StoreAction::Truncate)
        }
        Phase::DeleteEarlier | Phase::DeleteAll => {
            grouped(slice.map(|key| (container(key), id(key))), StoreAction::Delete)
        }
        Phase::Forget => grouped(slice.map(|key| (container(key), id(key))), StoreAction::Forget),
        Phase::Drop => Vec::new(),
        Phase::DeleteWriter => {
            let JobKind::DeleteWriter { writer } = job.kind else {
                unreachable!("the phase is of this kind of job alone")
            };
            let name = &stream.writer_names[&writer];
            let epoch = stream.writers[name].epoch;
            grouped(slice.map(|key| (container(key), id(key))), |segments| {
                StoreAction::DeleteWriter { writer, epoch, segments }
            })
        }
    }
}

fn new_segment(stream: &Stream, key: SegmentKey) -> NewSegment {
    let segment = &stream.segments[&key];
    NewSegment {
        segment: stream.segment_id(key),
        stream: stream.name.clone(),
        range: segment.range,
        predecessors: segment.predecessors.iter().map(|key| stream.segment_id(*key)).collect(),
    }
}

fn grouped<T>(
    items: impl Iterator<Item = (ContainerId, T)>,
    action: impl Fn(Vec<T>) -> StoreAction,
) -> Vec<(ContainerId, StoreAction)> {
    let mut groups: BTreeMap<ContainerId, Vec<T>> = BTreeMap::new();
    for (container, item) in items {
        groups.entry(container).or_default().push(item);
    }
    groups.into_iter().map(|(container, items)| (container, action(items))).collect()
}

impl StoreAction {
    /// How many segments it is about.
    fn segments(&self) -> usize {
        match self {
            Self::Create(segments) => segments.len(),
            Self::Seal(segments) => segments.len(),
            Self::Truncate(segments) => segments.len(),
            Self::Delete(segments)
            | Self::Forget(segments)
            | Self::DeleteWriter { segments, .. } => segments.len(),
        }
    }
}

impl Step {
    /// The containers that its commands go to, each once.
    pub(crate) fn containers(&self) -> Vec<ContainerId> {
        self.commands.iter().map(|command| command.container).collect()
    }

    fn segments(&self) -> usize {
        self.commands.iter().map(|command| command.action.segments()).sum()
    }

    /// The operation that records the step, given an answer to each command in order. Answers that
    /// leave a sealed segment's length out are an error of the store.
    pub fn done(&self, answers: &[StoreAnswer]) -> Result<Operation, StoreError> {
        assert_eq!(answers.len(), self.commands.len(), "one answer for each command of a step");
        let mut lengths: Vec<(SegmentId, Offset)> = Vec::new();
        for (command, answer) in self.commands.iter().zip(answers) {
            let StoreAction::Seal(seals) = &command.action else { continue };
            for seal in seals {
                let found = answer.lengths.iter().find(|(segment, _)| *segment == seal.segment);
                lengths.push(*found.ok_or_else(|| {
                    let text = format!("no length was told of sealed segment {}", seal.segment);
                    StoreError::Unavailable(text)
                })?);
            }
        }
        Ok(Operation::StepDone { job: self.job, step: self.step, lengths })
    }

    /// The operation that gives the job up, where its kind may be given up.
    pub fn failed(&self, message: impl Into<String>) -> Operation {
        Operation::StepFailed { job: self.job, step: self.step, message: message.into() }
    }
}

#[cfg(test)]
mod tests;
