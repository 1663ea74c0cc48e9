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

use common::{ContainerId, Fence, Offset, SegmentId, Term};

use crate::machine::{ControllerMachine, Job, Phase, SegmentKey, Stream};
use crate::operation::Operation;
use crate::stores::{
    JobId, NewSegment, SegmentSeal, StoreAction, StoreAnswer, StoreCommand, StoreError,
};

/// The next step of one job: its commands may be carried out in any order, all of them before the
/// step is recorded.
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
    let fence = Fence { incarnation: cluster.incarnation, term };
    let jobs = machine.jobs().iter().filter(|(id, _)| wanted(**id)).take(most);
    jobs.map(|(id, job)| {
        let stream = machine.stream_by_id(job.stream).expect("a job's stream exists");
        step_of(*id, job, stream, fence)
    })
    .collect()
}

/// Derives the step that `job` is at: the same from the same record, whoever asks and how often.
fn step_of(id: JobId, job: &Job, stream: &Stream, fence: Fence) -> Step {
    let mut step = job.step;
    for (phase, segments) in job.phases(stream) {
        let steps = job.steps_for(segments);
        if step < steps {
            let skip = step as usize * job.batch as usize;
            let actions = actions(phase, stream, skip, job.batch as usize);
            let command = |(container, action)| StoreCommand {
                container,
                job: id,
                step: job.step,
                fence,
                action,
            };
            return Step {
                job: id,
                step: job.step,
                commands: actions.into_iter().map(command).collect(),
            };
        }
        step -= steps;
    }
    unreachable!("job {id} is removed with its last step, but stands at step {}", job.step)
}

/// A phase's `count` segments after the first `skip`, as one action per container.
fn actions(
    phase: Phase,
    stream: &Stream,
    skip: usize,
    count: usize,
) -> Vec<(ContainerId, StoreAction)> {
    let id = |key| stream.segment_id(key);
    let container = |key| stream.segments[&key].container;
    let current = stream.current.iter().copied().skip(skip).take(count);
    match phase {
        Phase::Create => {
            let items = current.map(|key| (container(key), new_segment(stream, key)));
            grouped(items, StoreAction::Create)
        }
        Phase::Seal => {
            let seal = |key| SegmentSeal { segment: id(key), successors: Vec::new() };
            grouped(current.map(|key| (container(key), seal(key))), StoreAction::Seal)
        }
        Phase::Truncate => {
            let slice = stream.head.iter().skip(skip).take(count);
            let items = slice.map(|(key, offset)| (container(*key), (id(*key), *offset)));
            grouped(items, StoreAction::Truncate)
        }
        Phase::DeleteEarlier => {
            let earlier = stream.before_head().into_iter().skip(skip).take(count);
            grouped(earlier.map(|key| (container(key), id(key))), StoreAction::Delete)
        }
        Phase::DeleteAll => {
            let all = stream.segments.keys().copied().skip(skip).take(count);
            grouped(all.map(|key| (container(key), id(key))), StoreAction::Delete)
        }
        Phase::Forget => {
            let live = stream.segments.iter().map(|(key, s)| (s.container, id(*key)));
            let removed = stream.removed.iter().map(|(key, r)| (r.container, id(*key)));
            grouped(live.chain(removed).skip(skip).take(count), StoreAction::Forget)
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

impl Step {
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
