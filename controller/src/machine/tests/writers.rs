//! Named writers.

use common::{WriterEpoch, WriterId};
use rstest::rstest;

use super::refused;
use crate::machine::{ControllerMachine, StreamState};
use crate::operation::Operation;
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::testing::{FakeStores, apply, create, created, machine, name, run_jobs};

fn registration(writer: &str, create: bool, source_fingerprint: u64) -> Operation {
    let (stream, writer) = (name("demo/hello"), writer.parse().unwrap());
    Operation::RegisterWriter { stream, writer, create, source_fingerprint }
}

fn facts(outcome: Outcome) -> (WriterId, WriterEpoch, bool, u64) {
    match outcome.unwrap() {
        Accepted::WriterRegistered { writer, epoch, created, source_fingerprint, .. } => {
            (writer, epoch, created, source_fingerprint)
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
fn a_name_keeps_its_id_and_fingerprint_and_each_registration_raises_the_epoch() {
    let (mut machine, _) = with_stream();
    let (id, first, created, fingerprint) = facts(apply(&mut machine, &registration("w", true, 7)));
    assert_eq!((created, fingerprint, first), (true, 7, WriterEpoch::new(1.into(), 1)));
    let again = facts(apply(&mut machine, &registration("w", false, 8)));
    assert_eq!(again, (id, WriterEpoch::new(1.into(), 2), false, 7));
    let other = facts(apply(&mut machine, &registration("v", true, 0)));
    assert_ne!(other.0, id);
    assert_eq!((other.1, other.3), (WriterEpoch::new(1.into(), 1), 0));
}

#[test]
fn an_unknown_name_is_refused_unless_it_may_be_created() {
    let (mut machine, _) = with_stream();
    let refusal = refused(&mut machine, &registration("w", false, 0));
    let expected = Refusal::WriterNotFound { stream: name("demo/hello"), writer: "w".into() };
    assert_eq!(refusal, expected);
}

#[test]
fn an_older_writer_epoch_is_fenced_and_an_unknown_writer_is_not_found() {
    let (mut machine, _) = with_stream();
    let (id, old, ..) = facts(apply(&mut machine, &registration("w", true, 0)));
    let (_, new, ..) = facts(apply(&mut machine, &registration("w", true, 0)));
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
    apply(&mut machine, &registration("w", true, 0)).unwrap();
    apply(&mut machine, &Operation::SealStream { stream: name("demo/hello") }).unwrap();
    if to_the_end {
        run_jobs(&mut machine, &stores);
    }
    assert!(!facts(apply(&mut machine, &registration("w", true, 0))).2);
    let sealed = Refusal::StreamSealed(name("demo/hello"));
    assert_eq!(refused(&mut machine, &registration("new", true, 0)), sealed);
    let unknown = refused(&mut machine, &registration("new", false, 0));
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
    assert_eq!(refused(&mut machine, &registration("w", true, 0)), busy);
}

#[test]
fn names_of_one_stream_are_not_names_of_another() {
    let (mut machine, stores) = with_stream();
    let (first, ..) = facts(apply(&mut machine, &registration("w", true, 0)));
    apply(&mut machine, &Operation::DeleteStream { stream: name("demo/hello") }).unwrap();
    run_jobs(&mut machine, &stores);
    created(&mut machine, &stores, "demo/hello", 2);
    let unknown = refused(&mut machine, &registration("w", false, 0));
    assert!(matches!(unknown, Refusal::WriterNotFound { .. }));
    let (second, epoch, created, _) = facts(apply(&mut machine, &registration("w", true, 0)));
    assert!(created && first != second && epoch.counter() == 1);
}
