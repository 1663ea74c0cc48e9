//! Wide streams are made and dropped in slices.

use common::KeyRange;
use replica::StateMachine;

use super::refused;
use crate::jobs::pending_steps;
use crate::machine::{ControllerMachine, StreamState, WriterMode};
use crate::operation::Operation;
use crate::outcome::{Accepted, Refusal};
use crate::settings::SEGMENTS_PER_STEP;
use crate::testing::{FakeStores, apply, create, created, cut, machine, name, run_jobs};

const WIDE: u32 = 3 * SEGMENTS_PER_STEP + 100;

fn delete() -> Operation {
    Operation::DeleteStream { stream: name("demo/wide") }
}

fn register(number: usize) -> Operation {
    Operation::RegisterWriter {
        stream: name("demo/wide"),
        writer: format!("w{number}").parse().unwrap(),
        create: true,
        mode: WriterMode::Replay,
    }
}

/// Applies an operation and checks how many records it changed.
fn apply_counted(machine: &mut ControllerMachine, operation: &Operation) {
    machine.unsaved.clear();
    apply(machine, operation).unwrap();
    let changed = machine.unsaved.len();
    // Beside the step's segments: the job, the stream, its epoch, the scope and the counters.
    assert!(changed <= SEGMENTS_PER_STEP as usize + 5, "{changed} records by {operation:?}");
}

fn run_counted(machine: &mut ControllerMachine, stores: &FakeStores) -> usize {
    let mut steps = 0;
    while let Some(step) = pending_steps(machine, 1.into(), 1, |_| true).pop() {
        let answers = step.commands.iter().map(|command| stores.carry_out(command).unwrap());
        let done = step.done(&answers.collect::<Vec<_>>()).unwrap();
        apply_counted(machine, &done);
        assert_restored_alike(machine);
        steps += 1;
    }
    steps
}

/// What is saved now is what is there now.
fn assert_restored_alike(machine: &ControllerMachine) {
    let mut restored = ControllerMachine::new();
    restored.restore(&mut machine.all_pairs().into_iter()).unwrap();
    assert!(restored.state() == machine.state(), "the state is another one when it is restored");
}

#[test]
fn no_entry_of_a_wide_streams_life_changes_more_records_than_a_step_has_segments() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let empty = machine.state().clone();
    apply_counted(&mut machine, &create("demo/wide", WIDE));
    assert_eq!(
        machine.stream(&name("demo/wide")).unwrap().current.len(),
        SEGMENTS_PER_STEP as usize
    );
    assert_eq!(run_counted(&mut machine, &stores), 4);
    let stream = machine.stream(&name("demo/wide")).unwrap();
    let id = stream.id;
    let ranges: Vec<_> = stream.current.iter().map(|key| stream.segments[key].range).collect();
    assert_eq!(ranges, KeyRange::tile(WIDE));
    assert!(machine.containers().values().all(|c| c.segments == u64::from(WIDE) / 4));

    // The head of a wide stream comes with the truncation's own entry, and goes in slices.
    let places: Vec<_> = (0..WIDE).map(|number| (0, number, 0)).collect();
    stores.grow(machine.stream_by_id(id).unwrap().segment_id((0.into(), 0.into())), 2);
    let mut moved = places;
    moved[0].2 = 1;
    apply(&mut machine, &Operation::TruncateStream { stream: id, cut: cut(&moved) }).unwrap();
    assert_eq!(run_counted(&mut machine, &stores), 4);
    (0..600).for_each(|number| _ = apply(&mut machine, &register(number)).unwrap());

    apply_counted(&mut machine, &delete());
    // Sealed, deleted and forgotten in four steps each, then its segments, head and writers.
    let records = (WIDE + WIDE + 600).div_ceil(SEGMENTS_PER_STEP) as usize;
    assert_eq!(run_counted(&mut machine, &stores), 3 * 4 + records - 1);
    assert!(stores.inner().segments.is_empty());
    assert_eq!(stores.inner().forgotten.len(), WIDE as usize);
    apply(&mut machine, &Operation::DeleteScope { scope: "demo".parse().unwrap() }).unwrap();
    let (mut left, mut before) = (machine.state().clone(), empty);
    (left.cluster, before.cluster) = (None, None);
    assert!(left == before, "only the counters remember the stream");
}

#[test]
fn a_wide_creation_that_was_given_up_half_way_is_begun_again_or_deleted() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let begin = |machine: &mut ControllerMachine| {
        apply(machine, &create("demo/wide", WIDE)).unwrap();
        let step = pending_steps(machine, 1.into(), 1, |_| true).remove(0);
        let answers = step.commands.iter().map(|command| stores.carry_out(command).unwrap());
        let done = step.done(&answers.collect::<Vec<_>>()).unwrap();
        apply(machine, &done).unwrap();
        let next = pending_steps(machine, 1.into(), 1, |_| true).remove(0);
        apply(machine, &next.failed("lost")).unwrap();
        assert!(machine.jobs().is_empty());
        assert_eq!(machine.state.segments, u64::from(WIDE), "room is kept for all of them");
        assert_restored_alike(machine);
    };
    begin(&mut machine);
    run_jobs_of(&mut machine, &create("demo/wide", WIDE), &stores);
    let stream = machine.stream(&name("demo/wide")).unwrap();
    assert_eq!((stream.state, stream.current.len()), (StreamState::Active, WIDE as usize));
    assert_eq!(stores.inner().segments.len(), WIDE as usize);
    run_jobs_of(&mut machine, &delete(), &stores);

    begin(&mut machine);
    apply(&mut machine, &delete()).unwrap();
    assert_eq!(
        machine.state.segments,
        u64::from(2 * SEGMENTS_PER_STEP),
        "what was not recorded never will be"
    );
    // The store refuses to seal what it does not have; the deletion goes on.
    while let Some(step) = pending_steps(&machine, 1.into(), 1, |_| true).pop() {
        let answers = step.commands.iter().map(|command| stores.carry_out(command));
        let done = match answers.collect::<Result<Vec<_>, _>>() {
            Ok(answers) => step.done(&answers).unwrap(),
            Err(error) => step.failed(error.to_string()),
        };
        apply(&mut machine, &done).unwrap();
        assert_restored_alike(&machine);
    }
    assert!(machine.stream(&name("demo/wide")).is_err());
    assert_eq!(machine.state.segments, 0);
    assert!(machine.containers().values().all(|container| container.segments == 0));
    assert!(stores.inner().segments.is_empty());
}

fn run_jobs_of(machine: &mut ControllerMachine, operation: &Operation, stores: &FakeStores) {
    apply(machine, operation).unwrap();
    run_jobs(machine, stores);
}

#[test]
fn a_job_that_begins_again_does_what_is_left_of_every_phase() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let id = created(&mut machine, &stores, "demo/wide", WIDE);
    apply(&mut machine, &delete()).unwrap();
    let all = machine.stream_by_id(id).unwrap().segments.len();
    // Up to where half of the records are dropped.
    while machine.stream_by_id(id).unwrap().segments.len() > all / 2 {
        let step = pending_steps(&machine, 1.into(), 1, |_| true).remove(0);
        let answers = step.commands.iter().map(|command| stores.carry_out(command).unwrap());
        let done = step.done(&answers.collect::<Vec<_>>()).unwrap();
        apply(&mut machine, &done).unwrap();
    }
    let found = Operation::ReconcileStream { stream: id, found: Vec::new() };
    apply(&mut machine, &found).unwrap();
    assert_restored_alike(&machine);
    let step = pending_steps(&machine, 1.into(), 1, |_| true).remove(0);
    let seals =
        |command: &crate::StoreCommand| matches!(command.action, crate::StoreAction::Seal(_));
    assert_eq!(step.step, 0);
    assert!(step.commands.iter().all(seals), "from the first phase on");
}

#[test]
fn a_stream_or_segments_beyond_what_the_cluster_takes_are_refused_with_the_limit() {
    let mut machine = machine();
    machine.state.segments = common::limits::SEGMENTS_MAX - 3;
    let refusal = refused(&mut machine, &create("demo/wide", 4));
    assert!(matches!(refusal, Refusal::TooManySegments { asked: 4, .. }), "{refusal:?}");
    assert!(refusal.to_string().contains(&common::limits::SEGMENTS_MAX.to_string()), "{refusal}");
    assert_eq!(refusal.reason(), proto::error::Reason::LimitReached);
    assert!(matches!(
        apply(&mut machine, &create("demo/wide", 3)),
        Ok(Accepted::StreamCreated { created: true, .. })
    ));
    let refusal = refused(&mut machine, &create("demo/one-more", 1));
    assert!(matches!(refusal, Refusal::TooManySegments { asked: 1, .. }), "{refusal:?}");
    // What is there can be asked for again.
    assert!(apply(&mut machine, &create("demo/wide", 3)).is_ok());
}
