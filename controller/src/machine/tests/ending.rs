//! Sealing and deleting streams, and the steps of jobs.

use common::Offset;

use super::refused;
use crate::jobs::pending_steps;
use crate::machine::{StreamState, WriterMode};
use crate::operation::Operation;
use crate::outcome::{Accepted, Refusal};
use crate::settings::{JOB_FAILURES_MAX, SEGMENTS_PER_STEP};
use crate::stores::{JobId, StoreAction};
use crate::testing::{FakeStores, apply, create, created, cut, machine, name, run_jobs};

fn seal() -> Operation {
    Operation::SealStream { stream: name("demo/hello") }
}

fn delete() -> Operation {
    Operation::DeleteStream { stream: name("demo/hello") }
}

#[test]
fn what_does_not_exist_is_not_sealed_truncated_deleted_or_written() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    for operation in [seal(), delete()] {
        let refusal = refused(&mut machine, &operation);
        assert!(matches!(refusal, Refusal::ScopeNotFound(_)), "{refusal}");
    }
    created(&mut machine, &stores, "demo/other", 1);
    for operation in [seal(), delete()] {
        let refusal = refused(&mut machine, &operation);
        assert_eq!(refusal, Refusal::StreamNotFound(name("demo/hello")));
    }
    let truncate =
        Operation::TruncateStream { stream: common::StreamId(4711), cut: cut(&[(0, 0, 0)]) };
    let refusal = refused(&mut machine, &truncate);
    assert!(matches!(refusal, Refusal::StreamIdNotFound(_)), "{refusal}");
}

#[test]
fn sealing_records_the_final_lengths_and_ends_appends_at_once() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let id = created(&mut machine, &stores, "demo/hello", 2);
    let keys = machine.stream_by_id(id).unwrap().current.clone();
    for (key, length) in keys.iter().zip([10, 20]) {
        stores.grow(machine.stream_by_id(id).unwrap().segment_id(*key), length);
    }
    let started = apply(&mut machine, &seal()).unwrap();
    let stream = machine.stream_by_id(id).unwrap();
    assert_eq!(stream.state, StreamState::Sealing);
    assert!(stream.active().is_empty());
    // Asking again finds the same job.
    assert_eq!(apply(&mut machine, &seal()).unwrap(), started);
    run_jobs(&mut machine, &stores);
    let stream = machine.stream_by_id(id).unwrap();
    assert_eq!(stream.state, StreamState::Sealed);
    let lengths: Vec<_> = keys.iter().map(|key| stream.segments[key].sealed).collect();
    assert_eq!(lengths, [Some(Offset(10)), Some(Offset(20))]);
    assert_eq!(apply(&mut machine, &seal()), Ok(Accepted::Started { stream: id, job: None }));
    assert!(stream_job(&mut machine, &delete()).is_some());
}

fn stream_job(machine: &mut crate::ControllerMachine, operation: &Operation) -> Option<JobId> {
    match apply(machine, operation).unwrap() {
        Accepted::Started { job, .. } => job,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stream_has_one_job_at_a_time() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let outcome = apply(&mut machine, &create("demo/hello", 1)).unwrap();
    let Accepted::StreamCreated { stream, job: Some(job), .. } = outcome else { panic!() };
    let busy = Refusal::Busy { stream: name("demo/hello"), job };
    let truncate = Operation::TruncateStream { stream, cut: cut(&[(0, 0, 1)]) };
    for operation in [seal(), delete(), truncate.clone()] {
        assert_eq!(refused(&mut machine, &operation), busy);
    }
    run_jobs(&mut machine, &stores);
    let job = stream_job(&mut machine, &truncate).unwrap();
    let busy = Refusal::Busy { stream: name("demo/hello"), job };
    for operation in [seal(), delete(), truncate] {
        assert_eq!(refused(&mut machine, &operation), busy);
    }
}

#[test]
fn deleting_seals_first_deletes_and_forgets_every_segment_and_leaves_nothing() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let empty = machine.state().clone();
    let id = created(&mut machine, &stores, "demo/hello", 3);
    let register = Operation::RegisterWriter {
        stream: name("demo/hello"),
        writer: "w".parse().unwrap(),
        create: true,
        mode: WriterMode::Replay,
    };
    apply(&mut machine, &register).unwrap();
    let job = stream_job(&mut machine, &delete()).unwrap();
    assert_eq!(stream_job(&mut machine, &delete()), Some(job), "asking again finds the same job");
    let gone = Refusal::StreamNotFound(name("demo/hello"));
    assert_eq!(refused(&mut machine, &seal()), gone);
    assert_eq!(refused(&mut machine, &register), gone);
    let truncate = Operation::TruncateStream { stream: id, cut: cut(&[(0, 0, 1)]) };
    assert_eq!(refused(&mut machine, &truncate), gone);

    let mut kinds = Vec::new();
    while let Some(step) = pending_steps(&machine, 1.into(), 1, |_| true).pop() {
        kinds.push(match step.commands[0].action {
            StoreAction::Seal(_) => "seal",
            StoreAction::Delete(_) => "delete",
            StoreAction::Forget(_) => "forget",
            _ => "other",
        });
        let answers: Vec<_> =
            step.commands.iter().map(|command| stores.carry_out(command).unwrap()).collect();
        apply(&mut machine, &step.done(&answers).unwrap()).unwrap();
    }
    assert_eq!(kinds, ["seal", "delete", "forget"]);
    assert!(stores.inner().segments.is_empty());
    apply(&mut machine, &Operation::DeleteScope { scope: "demo".parse().unwrap() }).unwrap();
    let (mut left, mut before) = (machine.state().clone(), empty);
    (left.cluster, before.cluster) = (None, None);
    assert_eq!(left, before, "only the counters remember the stream");
    assert_eq!(refused(&mut machine, &delete()), Refusal::ScopeNotFound("demo".parse().unwrap()));
}

#[test]
fn a_step_is_recorded_once_and_only_in_its_turn() {
    let (mut machine, _) = (machine(), FakeStores::default());
    let outcome = apply(&mut machine, &create("demo/hello", SEGMENTS_PER_STEP + 8)).unwrap();
    let Accepted::StreamCreated { job: Some(job), .. } = outcome else { panic!() };
    let done = |step| Operation::StepDone { job, step, lengths: Vec::new() };
    let passed = Ok(Accepted::StepPassed { job });
    assert_eq!(apply(&mut machine, &done(1)), passed, "ahead of its turn");
    let recorded = |finished| Ok(Accepted::StepRecorded { job, finished });
    assert_eq!(apply(&mut machine, &done(0)), recorded(false));
    assert_eq!(apply(&mut machine, &done(0)), passed, "twice");
    assert_eq!(apply(&mut machine, &done(1)), recorded(true));
    assert_eq!(apply(&mut machine, &done(1)), passed, "after the job");
    let unknown = Operation::StepDone { job: JobId(99), step: 0, lengths: Vec::new() };
    assert_eq!(apply(&mut machine, &unknown), Ok(Accepted::StepPassed { job: JobId(99) }));
}

fn give_up(machine: &mut crate::ControllerMachine, job: JobId) {
    let failed = Operation::StepFailed { job, step: 0, message: "lost".into() };
    let recorded = Accepted::StepRecorded { job, finished: true };
    assert_eq!(apply(machine, &failed), Ok(recorded));
    assert_eq!(machine.failure_of(job), Some("lost"));
    assert_eq!(apply(machine, &failed), Ok(Accepted::StepPassed { job }));
}

#[test]
fn a_job_that_is_given_up_leaves_the_stream_free_and_can_be_begun_again() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let outcome = apply(&mut machine, &create("demo/hello", 1)).unwrap();
    let Accepted::StreamCreated { stream, job: Some(job), .. } = outcome else { panic!() };
    give_up(&mut machine, job);
    let truncate = Operation::TruncateStream { stream, cut: cut(&[(0, 0, 1)]) };
    let register = Operation::RegisterWriter {
        stream: name("demo/hello"),
        writer: "w".parse().unwrap(),
        create: true,
        mode: WriterMode::Replay,
    };
    for operation in [seal(), truncate.clone(), register] {
        assert_eq!(refused(&mut machine, &operation), Refusal::NotMade(name("demo/hello")));
    }
    let outcome = apply(&mut machine, &create("demo/hello", 1)).unwrap();
    assert!(matches!(outcome, Accepted::StreamCreated { created: false, job: Some(_), .. }));
    run_jobs(&mut machine, &stores);
    assert_eq!(machine.stream_by_id(stream).unwrap().state, StreamState::Active);

    for operation in [truncate, seal()] {
        let job = stream_job(&mut machine, &operation).unwrap();
        give_up(&mut machine, job);
        assert!(machine.jobs().is_empty());
    }
    let stream_state =
        |machine: &crate::ControllerMachine| machine.stream_by_id(stream).unwrap().state;
    assert_eq!(stream_state(&machine), StreamState::Sealing);
    assert!(stream_job(&mut machine, &seal()).is_some());
    run_jobs(&mut machine, &stores);
    assert_eq!(stream_state(&machine), StreamState::Sealed);
}

#[test]
fn a_deletion_is_never_given_up_and_passes_over_what_cannot_be_sealed() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    created(&mut machine, &stores, "demo/hello", 1);
    let job = stream_job(&mut machine, &delete()).unwrap();
    let failed = |step| Operation::StepFailed { job, step, message: "lost".into() };
    let passed_over = Accepted::StepRecorded { job, finished: false };
    assert_eq!(apply(&mut machine, &failed(0)), Ok(passed_over));
    assert_eq!(apply(&mut machine, &failed(1)), Ok(Accepted::StepPassed { job }));
    assert_eq!(machine.failure_of(job), None);
    assert_eq!(machine.jobs()[&job].step, 1);
}

#[test]
fn only_the_newest_failures_are_remembered() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let stream = created(&mut machine, &stores, "demo/hello", 1);
    let mut jobs = Vec::new();
    for offset in 1..=JOB_FAILURES_MAX as u64 + 1 {
        let truncate = Operation::TruncateStream { stream, cut: cut(&[(0, 0, offset)]) };
        let job = stream_job(&mut machine, &truncate).unwrap();
        give_up(&mut machine, job);
        jobs.push(job);
    }
    assert_eq!(machine.failure_of(jobs[0]), None);
    assert!(jobs[1..].iter().all(|job| machine.failure_of(*job).is_some()));
}

#[test]
fn lengths_of_other_streams_and_later_lengths_are_not_taken_over() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let other = created(&mut machine, &stores, "demo/other", 1);
    let id = created(&mut machine, &stores, "demo/hello", 1);
    let job = stream_job(&mut machine, &seal()).unwrap();
    let segment = |stream| common::SegmentId { stream, ..Default::default() };
    let lengths =
        vec![(segment(other), Offset(5)), (segment(id), Offset(6)), (segment(id), Offset(7))];
    apply(&mut machine, &Operation::StepDone { job, step: 0, lengths }).unwrap();
    let sealed = |id| machine.stream_by_id(id).unwrap().segments.values().next().unwrap().sealed;
    assert_eq!((sealed(other), sealed(id)), (None, Some(Offset(6))));
}
