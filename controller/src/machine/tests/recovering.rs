//! Bringing the records in line with what the containers have after a recovery.

use common::{ContainerId, Incarnation, KeyRange, Offset, SegmentId, StreamId};

use super::refused;
use crate::machine::{JobKind, SegmentKey, StreamState};
use crate::operation::{AdoptedSegment, FoundSegment, Operation};
use crate::outcome::{Accepted, Refusal};
use crate::testing::{FakeSegment, FakeStores, apply, created, cut, machine, name, run_jobs};

const LOST: StreamId = StreamId(1 << 48 | 77);

fn key(epoch: u32, number: u32) -> SegmentKey {
    (epoch.into(), number.into())
}

fn segment(number: u32, range: KeyRange, sealed: Option<u64>) -> AdoptedSegment {
    AdoptedSegment {
        key: key(0, number),
        range,
        container: ContainerId(2 + u64::from(number)),
        predecessors: Vec::new(),
        sealed: sealed.map(Offset),
    }
}

fn halves(sealed: Option<u64>) -> Vec<AdoptedSegment> {
    let ranges = KeyRange::tile(2);
    vec![segment(0, ranges[0], sealed), segment(1, ranges[1], sealed)]
}

fn adopt(text: &str, segments: Vec<AdoptedSegment>) -> Operation {
    Operation::AdoptStream { stream: LOST, name: name(text), segments }
}

fn found(number: u32, start: u64, length: u64, deleted: bool) -> FoundSegment {
    let (start, length) = (Offset(start), Offset(length));
    FoundSegment { key: key(0, number), start, length, sealed: false, deleted }
}

fn sealed(number: u32, length: u64) -> FoundSegment {
    FoundSegment { sealed: true, ..found(number, 0, length, false) }
}

/// What the stores have of a stream.
fn found_in(stores: &FakeStores, stream: StreamId) -> Vec<FoundSegment> {
    let inner = stores.inner();
    let of_stream = inner.segments.iter().filter(|(id, _)| id.stream == stream);
    let found = |(id, segment): (&SegmentId, &FakeSegment)| FoundSegment {
        key: (id.epoch, id.number),
        start: segment.start,
        length: segment.length,
        sealed: segment.sealed && !segment.deleted,
        deleted: segment.deleted,
    };
    of_stream.map(found).collect()
}

#[test]
fn the_incarnation_leads_what_is_made_afterwards_and_counters_pass_what_was_met() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let before = created(&mut machine, &stores, "demo/before", 1);
    let recover = Operation::Recover { incarnation: Incarnation(2), streams_made: 40 };
    assert_eq!(apply(&mut machine, &recover), Ok(Accepted::Recovered));
    assert_eq!(apply(&mut machine, &recover), Ok(Accepted::Recovered));
    let after = created(&mut machine, &stores, "demo/after", 1);
    assert_eq!((before.incarnation(), after.incarnation()), (Incarnation(1), Incarnation(2)));
    assert_eq!(after.counter(), 41);
    assert!(machine.knew_stream(StreamId::new(Incarnation(1), 40)), "made, and gone");
    assert!(!machine.knew_stream(LOST));
}

#[test]
fn a_stream_is_made_again_from_its_segments_and_is_sealed_where_they_are() {
    for (sealed, state) in [(None, StreamState::Active), (Some(9), StreamState::Sealed)] {
        let mut machine = machine();
        let adopted = apply(&mut machine, &adopt("demo/lost", halves(sealed)));
        assert_eq!(adopted, Ok(Accepted::Adopted { stream: LOST }));
        let stream = machine.stream(&name("demo/lost")).unwrap();
        assert_eq!((stream.id, stream.state, stream.current.len()), (LOST, state, 2));
        assert_eq!(stream.segments[&key(0, 1)].container, ContainerId(3));
        assert_eq!(machine.containers()[&ContainerId(3)].segments, 1);
        assert!(machine.knew_stream(LOST));
        let again = apply(&mut machine, &adopt("demo/lost", halves(sealed)));
        assert_eq!(again, Ok(Accepted::Adopted { stream: LOST }));
    }
}

#[test]
fn segments_of_several_epochs_become_epochs_again() {
    let mut machine = machine();
    let all = segment(0, KeyRange::ALL, Some(5));
    let after = |number: u32, range| AdoptedSegment {
        key: key(1, number),
        predecessors: vec![key(0, 0)],
        ..segment(number, range, None)
    };
    let halves = KeyRange::tile(2);
    let segments = vec![all, after(1, halves[0]), after(2, halves[1])];
    apply(&mut machine, &adopt("demo/lost", segments)).unwrap();
    let stream = machine.stream(&name("demo/lost")).unwrap();
    assert_eq!(stream.current, [key(1, 1), key(1, 2)]);
    assert_eq!(stream.epochs[1].sealed, [key(0, 0)]);
    assert_eq!(stream.segments[&key(0, 0)].successors, [key(1, 1), key(1, 2)]);
}

#[test]
fn a_name_that_is_taken_and_segments_that_leave_a_gap_are_refused() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    created(&mut machine, &stores, "demo/hello", 1);
    let refusal = refused(&mut machine, &adopt("demo/hello", halves(None)));
    assert_eq!(refusal, Refusal::NameTaken(name("demo/hello")));
    let mut gap = halves(None);
    gap.remove(0);
    let nowhere = vec![AdoptedSegment { container: ContainerId(99), ..halves(None).remove(0) }];
    for segments in [gap, Vec::new(), nowhere] {
        let refusal = refused(&mut machine, &adopt("demo/lost", segments));
        assert_eq!(refusal, Refusal::CannotAdopt(name("demo/lost")));
    }
}

#[test]
fn places_are_set_to_what_is_there() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let id = created(&mut machine, &stores, "demo/hello", 2);
    let whole = Operation::ReconcileStream {
        stream: id,
        found: vec![found(0, 0, 100, false), found(1, 0, 100, false)],
    };
    assert_eq!(apply(&mut machine, &whole), Ok(Accepted::Reconciled { stream: id, clamped: 0 }));
    let keys = machine.stream_by_id(id).unwrap().current.clone();
    for key in keys {
        stores.grow(machine.stream_by_id(id).unwrap().segment_id(key), 100);
    }
    let truncate = Operation::TruncateStream { stream: id, cut: cut(&[(0, 0, 50), (0, 1, 60)]) };
    apply(&mut machine, &truncate).unwrap();
    run_jobs(&mut machine, &stores);
    apply(&mut machine, &Operation::SealStream { stream: name("demo/hello") }).unwrap();
    run_jobs(&mut machine, &stores);
    // One segment ends before the head, the other one begins behind it.
    let reconcile = Operation::ReconcileStream {
        stream: id,
        found: vec![found(0, 10, 20, false), found(1, 70, 100, false)],
    };
    let outcome = apply(&mut machine, &reconcile).unwrap();
    assert!(matches!(outcome, Accepted::Reconciled { clamped: 3, .. }), "{outcome:?}");
    let stream = machine.stream_by_id(id).unwrap();
    let head: Vec<_> = stream.head_offsets().iter().map(|(_, offset)| offset.0).collect();
    assert_eq!(head, [20, 70]);
    assert_eq!(stream.segments[&key(0, 0)].sealed, Some(Offset(20)));
    let again = apply(&mut machine, &reconcile);
    assert_eq!(again, Ok(Accepted::Reconciled { stream: id, clamped: 0 }));
}

#[test]
fn a_deletion_that_only_a_container_knows_is_carried_to_its_end() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let id = created(&mut machine, &stores, "demo/hello", 2);
    let reconcile = Operation::ReconcileStream {
        stream: id,
        found: vec![found(0, 0, 5, false), found(1, 5, 5, true)],
    };
    let outcome = apply(&mut machine, &reconcile).unwrap();
    assert!(matches!(outcome, Accepted::Started { job: Some(_), .. }), "{outcome:?}");
    assert_eq!(machine.stream_by_id(id).unwrap().state, StreamState::Deleting);
    let job = machine.jobs().values().next().unwrap();
    assert_eq!(job.kind, JobKind::Delete { seal_first: false }, "a deleted segment is not sealed");
}

#[test]
fn a_seal_that_only_a_container_knows_is_carried_to_its_end() {
    for others in [vec![], vec![1]] {
        let (mut machine, stores) = (machine(), FakeStores::default());
        let id = created(&mut machine, &stores, "demo/hello", 2);
        let segment =
            |number: u32| SegmentId { stream: id, epoch: 0.into(), number: number.into() };
        stores.grow(segment(0), 7);
        stores.grow(segment(1), 9);
        for number in others.iter().chain([&0]) {
            stores.seal(segment(*number));
        }
        let reconcile = Operation::ReconcileStream { stream: id, found: found_in(&stores, id) };
        let outcome = apply(&mut machine, &reconcile).unwrap();
        assert!(matches!(outcome, Accepted::Started { job: Some(_), .. }), "{outcome:?}");
        assert_eq!(machine.stream_by_id(id).unwrap().state, StreamState::Sealing);
        run_jobs(&mut machine, &stores);
        let stream = machine.stream_by_id(id).unwrap();
        assert_eq!((stream.state, stream.active()), (StreamState::Sealed, &[][..]));
        let lengths: Vec<_> = stream.segments.values().map(|record| record.sealed).collect();
        assert_eq!(lengths, [Some(Offset(7)), Some(Offset(9))]);
        assert!(stores.segment(segment(1)).unwrap().sealed);
        let again = Operation::ReconcileStream { stream: id, found: found_in(&stores, id) };
        assert_eq!(
            apply(&mut machine, &again),
            Ok(Accepted::Reconciled { stream: id, clamped: 0 })
        );
    }
}

#[test]
fn a_seal_that_was_given_up_goes_on_where_a_segment_is_sealed() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let id = created(&mut machine, &stores, "demo/hello", 1);
    apply(&mut machine, &Operation::SealStream { stream: name("demo/hello") }).unwrap();
    let (job, _) = machine.jobs().first_key_value().unwrap();
    let failed = Operation::StepFailed { job: *job, step: 0, message: "planned".into() };
    apply(&mut machine, &failed).unwrap();
    let open = Operation::ReconcileStream { stream: id, found: vec![found(0, 0, 5, false)] };
    assert_eq!(apply(&mut machine, &open), Ok(Accepted::Reconciled { stream: id, clamped: 0 }));
    let ended = Operation::ReconcileStream { stream: id, found: vec![sealed(0, 5)] };
    assert!(matches!(apply(&mut machine, &ended), Ok(Accepted::Started { job: Some(_), .. })));
    run_jobs(&mut machine, &stores);
    assert_eq!(machine.stream_by_id(id).unwrap().state, StreamState::Sealed);
}

#[test]
fn a_truncation_and_a_seal_that_only_the_containers_know_follow_one_another() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let id = created(&mut machine, &stores, "demo/hello", 2);
    let segments = vec![FoundSegment { start: Offset(4), ..sealed(0, 7) }, found(1, 0, 3, false)];
    let reconcile = Operation::ReconcileStream { stream: id, found: segments };
    assert_eq!(
        apply(&mut machine, &reconcile),
        Ok(Accepted::Reconciled { stream: id, clamped: 1 })
    );
    let head = machine.stream_by_id(id).unwrap().head_offsets();
    assert_eq!(head, [(key(0, 0), Offset(4)), (key(0, 1), Offset(0))]);
    let outcome = apply(&mut machine, &reconcile).unwrap();
    assert!(matches!(outcome, Accepted::Started { job: Some(_), .. }), "{outcome:?}");
}

#[test]
fn a_workflow_whose_steps_a_container_lost_begins_anew() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    // More segments than one step has.
    let count = crate::settings::SEGMENTS_PER_STEP + 1;
    let id = created(&mut machine, &stores, "demo/hello", count);
    apply(&mut machine, &Operation::DeleteStream { stream: name("demo/hello") }).unwrap();
    for _ in 0..3 {
        for step in crate::jobs::pending_steps(&machine, 1.into(), 1, |_| true) {
            let answers = step.commands.iter().map(|command| stores.carry_out(command));
            let answers: Vec<_> = answers.collect::<Result<_, _>>().unwrap();
            apply(&mut machine, &step.done(&answers).unwrap()).unwrap();
        }
    }
    assert_eq!(machine.jobs().values().next().unwrap().step, 3, "some are deleted");
    // The container ended before the seals.
    for segment in stores.inner().segments.values_mut() {
        (segment.sealed, segment.deleted) = (false, false);
    }
    let reconcile = Operation::ReconcileStream { stream: id, found: found_in(&stores, id) };
    assert_eq!(
        apply(&mut machine, &reconcile),
        Ok(Accepted::Reconciled { stream: id, clamped: 0 })
    );
    assert_eq!(machine.jobs().values().next().unwrap().step, 0);
    run_jobs(&mut machine, &stores);
    assert!(machine.stream_by_id(id).is_err() && stores.inner().segments.is_empty());
}

#[test]
fn what_earlier_builds_reconciled_is_replayed_as_they_did_it() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let id = created(&mut machine, &stores, "demo/hello", 2);
    apply(&mut machine, &Operation::SealStream { stream: name("demo/hello") }).unwrap();
    let found = vec![found(0, 3, 5, false), found(1, 0, 5, true)];
    let reconcile = Operation::ReconcilePlaces { stream: id, found };
    assert_eq!(
        apply(&mut machine, &reconcile),
        Ok(Accepted::Reconciled { stream: id, clamped: 1 })
    );
}
