//! Named writers.

use common::{WriterEpoch, WriterId};
use rstest::rstest;

use super::refused;
use crate::jobs::pending_steps;
use crate::machine::{ControllerMachine, StreamState, WriterMode};
use crate::operation::Operation;
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::testing::{FakeStores, apply, create, created, machine, name, run_jobs};

fn registration(writer: &str, create: bool) -> Operation {
    let (stream, writer) = (name("demo/hello"), writer.parse().unwrap());
    Operation::RegisterWriter { stream, writer, create, mode: WriterMode::Replay }
}

fn deletion(writer: &str) -> Operation {
    deletion_of(writer, WriterEpoch(0))
}

fn deletion_of(writer: &str, epoch: WriterEpoch) -> Operation {
    let (stream, writer) = (name("demo/hello"), writer.parse().unwrap());
    Operation::DeleteWriter { stream, writer, epoch }
}

/// Id, epoch, whether it was made, whether segments may know it.
fn facts(outcome: Outcome) -> (WriterId, WriterEpoch, bool, bool) {
    match outcome.unwrap() {
        Accepted::WriterRegistered { writer, epoch, created, may_be_stored, .. } => {
            (writer, epoch, created, may_be_stored)
        }
        other => panic!("{other:?}"),
    }
}

fn with_stream() -> (ControllerMachine, FakeStores) {
    let (mut machine, stores) = (machine(), FakeStores::default());
    created(&mut machine, &stores, "demo/hello", 2);
    (machine, stores)
}

#[test]
fn a_name_has_the_id_of_stream_and_name_and_epochs_are_of_one_counter() {
    let (mut machine, _) = with_stream();
    let stream = machine.stream(&name("demo/hello")).unwrap().id;
    let id = |name: &str| WriterId::of_name(stream, &name.parse().unwrap());
    let epoch = |counter| WriterEpoch::new(1.into(), counter);
    let first = facts(apply(&mut machine, &registration("w", true)));
    assert_eq!(first, (id("w"), epoch(1), true, false));
    let again = facts(apply(&mut machine, &registration("w", false)));
    assert_eq!(again, (id("w"), epoch(2), false, true));
    let other = facts(apply(&mut machine, &registration("v", true)));
    assert_eq!(other, (id("v"), epoch(3), true, false));
    assert_ne!(id("v"), id("w"));
}

#[test]
fn a_name_keeps_its_mode_until_it_is_deleted() {
    let (mut machine, stores) = with_stream();
    apply(&mut machine, &registration("w", true)).unwrap();
    let other = Operation::RegisterWriter {
        stream: name("demo/hello"),
        writer: "w".parse().unwrap(),
        create: true,
        mode: WriterMode::Continue,
    };
    let (kept, given) = (WriterMode::Replay, WriterMode::Continue);
    let (stream, writer) = (name("demo/hello"), "w".parse().unwrap());
    let expected = Refusal::OtherMode { stream, writer, kept, given };
    assert_eq!(refused(&mut machine, &other), expected);
    apply(&mut machine, &deletion("w")).unwrap();
    run_jobs(&mut machine, &stores);
    assert!(facts(apply(&mut machine, &other)).2);
}

#[test]
fn a_deleted_name_is_fenced_at_once_refused_until_it_is_free_and_then_begins_above() {
    let (mut machine, stores) = with_stream();
    let (id, old, ..) = facts(apply(&mut machine, &registration("w", true)));
    let deleted = apply(&mut machine, &deletion("w")).unwrap();
    assert_eq!(apply(&mut machine, &deletion("w")).unwrap(), deleted, "the job that runs");
    let stream = machine.stream(&name("demo/hello")).unwrap();
    assert!(matches!(stream.check_writer(id, old), Err(Refusal::WriterFenced { .. })));
    let refusal = refused(&mut machine, &registration("w", true));
    assert!(matches!(refusal, Refusal::WriterDeleting { .. }), "{refusal}");
    let busy = refused(&mut machine, &Operation::SealStream { stream: name("demo/hello") });
    assert!(matches!(busy, Refusal::Busy { .. }), "{busy}");
    run_jobs(&mut machine, &stores);
    let told: Vec<WriterEpoch> =
        stores.inner().segments.values().map(|segment| segment.writers[&id]).collect();
    let fence = WriterEpoch::new(1.into(), 2);
    assert_eq!(told, [fence, fence]);
    assert!(matches!(refused(&mut machine, &deletion("w")), Refusal::WriterNotFound { .. }));
    let (again, epoch, created, _) = facts(apply(&mut machine, &registration("w", true)));
    assert!((again, created) == (id, true) && epoch > fence);
}

#[test]
fn a_deletion_that_was_given_up_is_begun_again_under_its_epoch() {
    let (mut machine, stores) = with_stream();
    let (id, ..) = facts(apply(&mut machine, &registration("w", true)));
    apply(&mut machine, &deletion("w")).unwrap();
    let step = &pending_steps(&machine, 1.into(), 1, |_| true)[0];
    apply(&mut machine, &step.failed("no")).unwrap();
    assert!(machine.jobs().is_empty());
    let refusal = refused(&mut machine, &registration("w", true));
    assert!(matches!(refusal, Refusal::WriterDeleting { .. }), "{refusal}");
    apply(&mut machine, &deletion("w")).unwrap();
    run_jobs(&mut machine, &stores);
    let told = stores.inner().segments.values().next().unwrap().writers[&id];
    assert_eq!(told, WriterEpoch::new(1.into(), 2));
    assert!(facts(apply(&mut machine, &registration("w", true))).2);
}

#[test]
fn after_a_recovery_a_lost_name_has_its_id_again_a_higher_epoch_and_may_be_stored() {
    let (mut machine, stores) = with_stream();
    let (id, before, ..) = facts(apply(&mut machine, &registration("w", true)));
    // What comes back was recorded before the name was.
    let mut machine = {
        let (mut older, _) = with_stream();
        let recover = Operation::Recover { incarnation: 2.into(), streams_made: 1 };
        apply(&mut older, &recover).unwrap();
        drop(machine);
        older
    };
    let (again, epoch, created, may_be_stored) =
        facts(apply(&mut machine, &registration("w", true)));
    assert_eq!((again, created, may_be_stored), (id, true, true));
    assert!(epoch > before && epoch.incarnation() == 2.into());
    // A stream of the new incarnation has lost nothing.
    created_stream(&mut machine, &stores);
    let new = Operation::RegisterWriter {
        stream: name("demo/new"),
        writer: "w".parse().unwrap(),
        create: true,
        mode: WriterMode::Replay,
    };
    assert!(!facts(apply(&mut machine, &new)).3);
}

fn created_stream(machine: &mut ControllerMachine, stores: &FakeStores) {
    created(machine, stores, "demo/new", 1);
}

#[test]
fn an_unknown_name_is_refused_unless_it_may_be_created() {
    let (mut machine, _) = with_stream();
    let refusal = refused(&mut machine, &registration("w", false));
    let expected = Refusal::WriterNotFound { stream: name("demo/hello"), writer: "w".into() };
    assert_eq!(refusal, expected);
}

#[test]
fn an_older_writer_epoch_is_fenced_and_an_unknown_writer_is_not_found() {
    let (mut machine, _) = with_stream();
    let (id, old, ..) = facts(apply(&mut machine, &registration("w", true)));
    let (_, new, ..) = facts(apply(&mut machine, &registration("w", true)));
    let stream = machine.stream(&name("demo/hello")).unwrap();
    assert_eq!(stream.check_writer(id, new), Ok(()));
    let fenced = Refusal::WriterFenced { given: old, current: new };
    assert_eq!(stream.check_writer(id, old), Err(fenced));
    let unknown = stream.check_writer(WriterId(1), new);
    assert!(matches!(unknown, Err(Refusal::WriterNotFound { .. })));
}

#[rstest]
#[case::being_sealed(false)]
#[case::sealed(true)]
fn a_known_writer_may_come_back_to_a_stream(#[case] to_the_end: bool) {
    let (mut machine, stores) = with_stream();
    apply(&mut machine, &registration("w", true)).unwrap();
    apply(&mut machine, &Operation::SealStream { stream: name("demo/hello") }).unwrap();
    if to_the_end {
        run_jobs(&mut machine, &stores);
    }
    assert!(!facts(apply(&mut machine, &registration("w", true))).2);
    let sealed = Refusal::StreamSealed(name("demo/hello"));
    assert_eq!(refused(&mut machine, &registration("new", true)), sealed);
    let unknown = refused(&mut machine, &registration("new", false));
    assert!(matches!(unknown, Refusal::WriterNotFound { .. }));
}

#[test]
fn a_writer_waits_for_a_stream_that_is_being_made() {
    let mut machine = machine();
    apply(&mut machine, &create("demo/hello", 1)).unwrap();
    let stream = machine.stream(&name("demo/hello")).unwrap();
    let (state, job) = (stream.state, stream.job.unwrap());
    assert_eq!(state, StreamState::Creating);
    let busy = Refusal::Busy { stream: name("demo/hello"), job };
    assert_eq!(refused(&mut machine, &registration("w", true)), busy);
}

#[test]
fn names_of_one_stream_are_not_names_of_another() {
    let (mut machine, stores) = with_stream();
    let (first, ..) = facts(apply(&mut machine, &registration("w", true)));
    apply(&mut machine, &Operation::DeleteStream { stream: name("demo/hello") }).unwrap();
    run_jobs(&mut machine, &stores);
    created(&mut machine, &stores, "demo/hello", 2);
    let unknown = refused(&mut machine, &registration("w", false));
    assert!(matches!(unknown, Refusal::WriterNotFound { .. }));
    let (second, epoch, created, _) = facts(apply(&mut machine, &registration("w", true)));
    assert!(created && first != second && epoch.counter() == 2);
}

#[test]
fn a_deletion_that_comes_again_does_not_end_the_names_next_life() {
    let (mut machine, stores) = with_stream();
    let (id, seen, ..) = facts(apply(&mut machine, &registration("w", true)));
    apply(&mut machine, &deletion_of("w", seen)).unwrap();
    // While it is under way it is the same one.
    let again = apply(&mut machine, &deletion_of("w", seen)).unwrap();
    assert!(matches!(again, Accepted::Started { job: Some(_), .. }), "{again:?}");
    run_jobs(&mut machine, &stores);
    let (same, next, created, _) = facts(apply(&mut machine, &registration("w", true)));
    assert!(same == id && next > seen && created);
    let opened =
        Refusal::WriterOpenedSince { stream: name("demo/hello"), writer: "w".parse().unwrap() };
    assert_eq!(refused(&mut machine, &deletion_of("w", seen)), opened);
    assert!(machine.jobs().is_empty(), "nothing is begun");
    let kept = facts(apply(&mut machine, &registration("w", false)));
    assert!(!kept.2, "the name is still there");
    apply(&mut machine, &deletion_of("w", kept.1)).unwrap();
}
