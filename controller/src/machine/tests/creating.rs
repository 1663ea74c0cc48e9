//! Identity, scopes, creating streams, placement.

use common::{ContainerId, KeyRange, ScopeName, StreamId};

use super::refused;
use crate::machine::{ControllerMachine, StreamState};
use crate::operation::{Operation, StoreId};
use crate::outcome::{Accepted, Refusal};
use crate::stores::JobId;
use crate::testing::{
    FakeStores, NOW, apply, create, created, introduction, machine, name, run_jobs,
};

fn scope(text: &str) -> ScopeName {
    text.parse().unwrap()
}

#[test]
fn nothing_is_made_before_the_cluster_has_its_identity_and_a_store() {
    let mut machine = ControllerMachine::new();
    let register = &introduction()[1];
    assert_eq!(refused(&mut machine, register), Refusal::NotInitialized);
    assert_eq!(refused(&mut machine, &create("demo/hello", 1)), Refusal::NotInitialized);
    let make_scope = Operation::CreateScope { scope: scope("demo") };
    assert_eq!(refused(&mut machine, &make_scope), Refusal::NotInitialized);
    apply(&mut machine, &introduction()[0]).unwrap();
    // Not even the scope that would have been made on the way.
    assert_eq!(refused(&mut machine, &create("demo/hello", 1)), Refusal::NoContainers);
    assert!(machine.scopes().is_empty());
}

#[test]
fn the_first_identity_counts() {
    let mut machine = machine();
    let other = Operation::Initialize { cluster: 99, incarnation: 7.into() };
    let outcome = apply(&mut machine, &other);
    assert_eq!(outcome, Ok(Accepted::Initialized { cluster: crate::testing::CLUSTER }));
    assert_eq!(machine.cluster().unwrap().incarnation.0, 1);
}

#[test]
fn a_store_that_comes_back_elsewhere_keeps_its_containers_and_their_segments() {
    let mut machine = machine();
    created(&mut machine, &FakeStores::default(), "demo/hello", 4);
    let moved = Operation::RegisterStore {
        store: StoreId(1),
        endpoint: "other:7070".into(),
        containers: vec![ContainerId(2), ContainerId(6)],
    };
    assert_eq!(apply(&mut machine, &moved), Ok(Accepted::StoreRegistered));
    assert_eq!(machine.endpoint_of(ContainerId(5)), "other:7070");
    assert_eq!(machine.containers()[&ContainerId(2)].segments, 1);
    assert_eq!(machine.containers().len(), 5);
    assert_eq!(machine.endpoint_of(ContainerId(99)), "");
}

#[test]
fn a_scope_is_made_once_and_deleted_only_when_it_is_empty() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let make = Operation::CreateScope { scope: scope("demo") };
    let delete = Operation::DeleteScope { scope: scope("demo") };
    assert_eq!(refused(&mut machine, &delete), Refusal::ScopeNotFound(scope("demo")));
    assert_eq!(apply(&mut machine, &make), Ok(Accepted::ScopeCreated { created: true }));
    assert_eq!(apply(&mut machine, &make), Ok(Accepted::ScopeCreated { created: false }));
    created(&mut machine, &stores, "demo/hello", 1);
    let full = Refusal::ScopeNotEmpty { scope: scope("demo"), streams: 1, first: "hello".into() };
    assert_eq!(refused(&mut machine, &delete), full);
    apply(&mut machine, &Operation::DeleteStream { stream: name("demo/hello") }).unwrap();
    // The stream counts until its job is done.
    assert_eq!(refused(&mut machine, &delete), full);
    run_jobs(&mut machine, &stores);
    assert_eq!(apply(&mut machine, &delete), Ok(Accepted::ScopeDeleted));
    assert_eq!(refused(&mut machine, &delete), Refusal::ScopeNotFound(scope("demo")));
}

#[test]
fn a_stream_needs_its_scope_unless_it_may_make_it() {
    let mut machine = machine();
    let mut operation = Operation::CreateStream {
        stream: name("demo/hello"),
        segments: 1,
        create_scope: false,
        token: 0,
    };
    assert_eq!(refused(&mut machine, &operation), Refusal::ScopeNotFound(scope("demo")));
    apply(&mut machine, &Operation::CreateScope { scope: scope("demo") }).unwrap();
    assert!(apply(&mut machine, &operation).is_ok());
    operation = create("new/hello", 1);
    assert!(apply(&mut machine, &operation).is_ok());
    assert_eq!(machine.scopes().len(), 2);
}

#[test]
fn a_new_stream_tiles_the_key_space_and_is_active_when_its_segments_are_made() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let outcome = apply(&mut machine, &create("demo/hello", 5));
    let id = StreamId::new(1.into(), 1);
    let job = Some(JobId::new(1.into(), 1));
    assert_eq!(outcome, Ok(Accepted::StreamCreated { stream: id, created: true, job }));
    let stream = machine.stream_by_id(id).unwrap();
    assert_eq!((stream.state, stream.created, stream.job), (StreamState::Creating, NOW, job));
    assert!(stream.active().is_empty(), "nobody appends before all segments are there");
    // Asking again finds the same job.
    let again = apply(&mut machine, &create("demo/hello", 9));
    assert_eq!(again, Ok(Accepted::StreamCreated { stream: id, created: false, job }));

    run_jobs(&mut machine, &stores);
    let stream = machine.stream_by_id(id).unwrap();
    assert_eq!((stream.state, stream.job), (StreamState::Active, None));
    let ranges: Vec<_> = stream.active().iter().map(|key| stream.segments[key].range).collect();
    assert_eq!(ranges, KeyRange::tile(5));
    assert_eq!(stores.inner().segments.len(), 5);
    let again = apply(&mut machine, &create("demo/hello", 9));
    assert_eq!(again, Ok(Accepted::StreamCreated { stream: id, created: false, job: None }));
}

#[test]
fn a_stream_of_no_segment_or_too_many_is_refused() {
    let mut machine = machine();
    for segments in [0, 100_001, u32::MAX] {
        let refusal = refused(&mut machine, &create("demo/hello", segments));
        assert_eq!(refusal, Refusal::SegmentCount(segments));
        assert!(refusal.to_string().contains("100000"), "{refusal}");
    }
}

#[test]
fn a_segment_goes_to_the_container_with_the_fewest() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let counts = |machine: &ControllerMachine| -> Vec<u64> {
        machine.containers().values().map(|container| container.segments).collect()
    };
    created(&mut machine, &stores, "demo/a", 6);
    assert_eq!(counts(&machine), [2, 2, 1, 1]);
    created(&mut machine, &stores, "demo/b", 2);
    assert_eq!(counts(&machine), [2, 2, 2, 2]);
    created(&mut machine, &stores, "demo/c", 1);
    assert_eq!(counts(&machine), [3, 2, 2, 2]);
    apply(&mut machine, &Operation::DeleteStream { stream: name("demo/a") }).unwrap();
    run_jobs(&mut machine, &stores);
    assert_eq!(counts(&machine), [1, 0, 1, 1]);
    let id = created(&mut machine, &stores, "demo/d", 1);
    let stream = machine.stream_by_id(id).unwrap();
    assert_eq!(stream.segments.values().next().unwrap().container, ContainerId(3));
}

#[test]
fn a_name_that_is_used_again_gives_another_stream() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let first = created(&mut machine, &stores, "demo/hello", 2);
    apply(&mut machine, &Operation::DeleteStream { stream: name("demo/hello") }).unwrap();
    let job = machine.stream_by_id(first).unwrap().job.unwrap();
    let busy = Refusal::Busy { stream: name("demo/hello"), job };
    assert_eq!(refused(&mut machine, &create("demo/hello", 2)), busy);
    run_jobs(&mut machine, &stores);
    let second = created(&mut machine, &stores, "demo/hello", 2);
    assert!(second > first);
    assert_eq!(machine.stream_by_id(first), Err(Refusal::StreamIdNotFound(first)));
}
