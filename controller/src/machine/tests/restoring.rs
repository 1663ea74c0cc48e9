//! Saving and restoring: whatever happened, the records give the state back.

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{Offset, WallTime, WriterEpoch};
use proptest::prelude::*;
use replica::{Change, Slice, StateMachine};

use crate::jobs::pending_steps;
use crate::machine::{ControllerMachine, WriterMode};
use crate::operation::{CutOffsets, Operation};
use crate::testing::{introduction, name};

/// What a script does next; numbers pick among what there is.
#[derive(Debug, Clone)]
enum Move {
    CreateScope(u8),
    DeleteScope(u8),
    CreateStream(u8, u32),
    Seal(u8),
    Truncate(u8, Vec<u8>),
    Delete(u8),
    Register(u8, u8, bool),
    DeleteWriter(u8, u8),
    StepDone(usize),
    StepFailed(usize),
    Freeze,
}

fn moves() -> impl Strategy<Value = Move> {
    let stream = 0_u8..6;
    prop_oneof![
        1 => (0_u8..2).prop_map(Move::CreateScope),
        1 => (0_u8..2).prop_map(Move::DeleteScope),
        4 => (stream.clone(), 1_u32..6).prop_map(|(s, n)| Move::CreateStream(s, n)),
        2 => stream.clone().prop_map(Move::Seal),
        3 => (stream.clone(), prop::collection::vec(0_u8..9, 6)).prop_map(|(s, o)| Move::Truncate(s, o)),
        2 => stream.clone().prop_map(Move::Delete),
        3 => (stream.clone(), 0_u8..3, any::<bool>()).prop_map(|(s, w, c)| Move::Register(s, w, c)),
        1 => (stream, 0_u8..3).prop_map(|(s, w)| Move::DeleteWriter(s, w)),
        12 => (0_usize..4).prop_map(Move::StepDone),
        1 => (0_usize..4).prop_map(Move::StepFailed),
        2 => Just(Move::Freeze),
    ]
}

fn stream(number: u8) -> common::ScopedStream {
    name(&format!("scope{}/stream{}", number % 2, number / 2))
}

/// The operation that a move is in this state; `None`: it does not apply.
fn operation(machine: &ControllerMachine, wanted: &Move) -> Option<Operation> {
    let scope = |number: &u8| format!("scope{number}").parse().unwrap();
    let step = |at: &usize| {
        let steps = pending_steps(machine, 1.into(), usize::MAX, |_| true);
        steps.get(at % steps.len().max(1)).cloned()
    };
    Some(match wanted {
        Move::CreateScope(number) => Operation::CreateScope { scope: scope(number) },
        Move::DeleteScope(number) => Operation::DeleteScope { scope: scope(number) },
        Move::CreateStream(number, segments) => Operation::CreateStream {
            stream: stream(*number),
            segments: *segments,
            create_scope: number % 3 == 0,
            token: u64::from(*segments),
        },
        Move::Seal(number) => Operation::SealStream { stream: stream(*number) },
        Move::Truncate(number, offsets) => {
            let found = machine.stream(&stream(*number)).ok()?;
            let cut: CutOffsets = (found.current.iter().zip(offsets))
                .map(|((epoch, number), offset)| (*epoch, *number, Offset(u64::from(*offset))))
                .collect();
            Operation::TruncateStream { stream: found.id, cut }
        }
        Move::Delete(number) => Operation::DeleteStream { stream: stream(*number) },
        Move::Register(number, writer, create) => Operation::RegisterWriter {
            stream: stream(*number),
            writer: format!("writer{writer}").parse().unwrap(),
            create: *create,
            mode: WriterMode::Replay,
        },
        Move::DeleteWriter(number, writer) => Operation::DeleteWriter {
            stream: stream(*number),
            writer: format!("writer{writer}").parse().unwrap(),
            epoch: WriterEpoch(0),
        },
        Move::StepDone(at) => {
            let step = step(at)?;
            let found = machine.jobs().get(&step.job)?;
            let stream = machine.stream_by_id(found.stream).ok()?;
            let lengths = stream.current.iter().map(|key| (stream.segment_id(*key), Offset(8)));
            Operation::StepDone { job: step.job, step: step.step, lengths: lengths.collect() }
        }
        Move::StepFailed(at) => step(at)?.failed("no"),
        Move::Freeze => return None,
    })
}

fn save(machine: &mut ControllerMachine, saved: &mut BTreeMap<Vec<u8>, Bytes>) {
    put(saved, machine.freeze_whole());
}

fn put(saved: &mut BTreeMap<Vec<u8>, Bytes>, changes: Vec<Change>) {
    for change in changes {
        match change.value {
            Some(value) => _ = saved.insert(change.key, value),
            None => assert!(saved.remove(&change.key).is_some() || change.key[0] != b'c'),
        }
    }
}

fn restored(saved: &BTreeMap<Vec<u8>, Bytes>) -> ControllerMachine {
    let pairs = saved.iter().map(|(k, v)| (Bytes::copy_from_slice(k), v.clone()));
    let mut machine = ControllerMachine::new();
    machine.restore(&mut pairs.collect::<Vec<_>>().into_iter()).unwrap();
    machine
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn what_is_saved_gives_the_state_back_and_goes_on_alike(
        script in prop::collection::vec(moves(), 1..60),
    ) {
        let mut machine = ControllerMachine::new();
        let mut saved = BTreeMap::new();
        let mut twin = None;
        for operation in introduction() {
            machine.apply_operation(&operation, WallTime(0)).unwrap();
        }
        for (at, wanted) in (1..).zip(&script) {
            let Some(operation) = operation(&machine, wanted) else {
                save(&mut machine, &mut saved);
                let back = restored(&saved);
                prop_assert_eq!(back.state(), machine.state());
                prop_assert!(back.is_clean());
                twin = Some(back);
                continue;
            };
            let before = machine.state().clone();
            let outcome = machine.apply_operation(&operation, WallTime(at));
            if outcome.is_err() {
                prop_assert_eq!(machine.state(), &before);
            }
            // A restored machine answers and changes as the one that was never stopped.
            if let Some(twin) = &mut twin {
                let same = twin.apply_operation(&operation, WallTime(at));
                let digest = ControllerMachine::digest;
                prop_assert_eq!(digest(&same), digest(&outcome));
                prop_assert_eq!(&same, &outcome);
                prop_assert_eq!(twin.state(), machine.state());
            }
        }
        save(&mut machine, &mut saved);
        let back = restored(&saved);
        prop_assert_eq!(back.state(), machine.state());
    }
}

#[test]
fn a_freeze_holds_what_changed_since_the_last_one_and_nothing_else() {
    let mut machine = crate::testing::machine();
    assert_eq!(machine.freeze_whole().len(), 1 + 1 + 4);
    assert!(machine.freeze_whole().is_empty());
    machine.apply_operation(&crate::testing::create("demo/hello", 2), WallTime(1)).unwrap();
    // Counters, scope, stream, epoch, two segments, job.
    assert_eq!(machine.freeze_whole().len(), 7);
    let known = crate::testing::create("demo/hello", 2);
    machine.apply_operation(&known, WallTime(1)).unwrap();
    assert!(machine.freeze_whole().is_empty());
}

#[test]
fn a_large_frozen_set_is_copied_in_slices_that_later_operations_do_not_reach_into() {
    let mut machine = crate::testing::machine();
    let segments = 3 * Slice::CHANGES_MAX as u32;
    crate::testing::created(
        &mut machine,
        &crate::testing::FakeStores::default(),
        "demo/hello",
        segments,
    );
    machine.freeze();
    let then = machine.state().clone();
    let mut saved = BTreeMap::new();
    let mut slices = 0;
    loop {
        let mut slice = Slice::default();
        let all = machine.copy_frozen(&mut slice);
        assert!(slice.changes().len() <= Slice::CHANGES_MAX);
        slices += 1;
        put(&mut saved, slice.changes().to_vec());
        if all {
            break;
        }
        let other = crate::testing::create(&format!("demo/s{slices}"), 2);
        machine.apply_operation(&other, WallTime(2)).unwrap();
    }
    assert!(slices > 3);
    assert_eq!(restored(&saved).state(), &then);
    put(&mut saved, machine.freeze_whole());
    assert_eq!(restored(&saved).state(), machine.state());
}

#[test]
fn an_entry_with_an_unknown_operation_stops_the_group() {
    let mut builder = replica::envelope::Builder::with_capacity(1, 8);
    builder.push(&[1, 99], 0);
    let context = builder.finish(replica::Stamp::default());
    let payload = Bytes::new();
    let entry =
        replica::Entry::decode(common::GroupId::CONTROLLER, 1.into(), 1.into(), &context, &payload);
    let mut outcomes = Vec::new();
    let mut machine = ControllerMachine::new();
    let stopped = machine.apply(&entry.unwrap(), &mut outcomes).unwrap_err();
    assert!(stopped.to_string().contains("controller operation"), "{stopped}");
    assert!(outcomes.is_empty());
}
