//! What tests of this crate share: a group that applies in memory, stores that remember, a scale
//! put into the state by hand.

mod fake_stores;
mod local_group;
mod scaled;

use std::time::Duration;

use common::{
    ContainerId, Incarnation, Offset, ScopedStream, SegmentNumber, StreamEpoch, WallTime,
};

use tokio::time::Instant;

pub(crate) use fake_stores::{FakeSegment, FakeStores};
pub(crate) use local_group::LocalGroup;
pub(crate) use scaled::scale;

use crate::jobs::pending_steps;
use crate::machine::ControllerMachine;
use crate::operation::{CutOffsets, Operation, StoreId};
use crate::outcome::{Accepted, Outcome};

pub(crate) const CLUSTER: u128 = 0xB1AD;
pub(crate) const NOW: WallTime = WallTime(1_700_000_000_000_000);

/// Advances a clock that stands still, in steps in which everybody does what is due.
pub(crate) async fn pass(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        tokio::time::advance(Duration::from_millis(1)).await;
    }
}

pub(crate) fn name(text: &str) -> ScopedStream {
    text.parse().unwrap()
}

pub(crate) fn containers() -> Vec<ContainerId> {
    (2..=5).map(ContainerId).collect()
}

pub(crate) fn introduction() -> [Operation; 2] {
    [
        Operation::Initialize { cluster: CLUSTER, incarnation: Incarnation(1) },
        Operation::RegisterStore {
            store: StoreId(1),
            endpoint: String::new(),
            containers: containers(),
        },
    ]
}

/// A machine that has its identity and four containers.
pub(crate) fn machine() -> ControllerMachine {
    let mut machine = ControllerMachine::new();
    for operation in introduction() {
        apply(&mut machine, &operation).unwrap();
    }
    machine
}

pub(crate) fn apply(machine: &mut ControllerMachine, operation: &Operation) -> Outcome {
    let encoded = operation.encode();
    assert_eq!(&Operation::decode(&encoded).unwrap(), operation);
    machine.apply_operation(operation, NOW)
}

/// Carries out every pending step until no job is left.
pub(crate) fn run_jobs(machine: &mut ControllerMachine, stores: &FakeStores) {
    while !machine.jobs().is_empty() {
        for step in pending_steps(machine, 1.into(), usize::MAX, |_| true) {
            let answers = step.commands.iter().map(|command| stores.carry_out(command));
            let answers: Vec<_> = answers.collect::<Result<_, _>>().unwrap();
            apply(machine, &step.done(&answers).unwrap()).unwrap();
        }
    }
}

pub(crate) fn create(text: &str, segments: u32) -> Operation {
    Operation::CreateStream { stream: name(text), segments, create_scope: true, token: 0 }
}

/// A stream that is made to the end.
pub(crate) fn created(
    machine: &mut ControllerMachine,
    stores: &FakeStores,
    text: &str,
    segments: u32,
) -> common::StreamId {
    let outcome = apply(machine, &create(text, segments)).unwrap();
    run_jobs(machine, stores);
    match outcome {
        Accepted::StreamCreated { stream, .. } => stream,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn cut(places: &[(u32, u32, u64)]) -> CutOffsets {
    let place = |(epoch, number, offset): &(u32, u32, u64)| {
        (StreamEpoch(*epoch), SegmentNumber(*number), Offset(*offset))
    };
    places.iter().map(place).collect()
}
