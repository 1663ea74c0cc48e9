//! The largest stream and the most writers.

use bytes::Bytes;
use common::limits::{ENTRY_BYTES_MAX, SEGMENTS_PER_STREAM_MAX};
use replica::StateMachine;

use super::refused;
use crate::jobs::pending_steps;
use crate::machine::{ControllerMachine, WriterMode};
use crate::operation::Operation;
use crate::outcome::Refusal;
use crate::settings::WRITERS_PER_STREAM_MAX;
use crate::testing::{FakeStores, apply, created, machine, name, run_jobs};

#[test]
fn a_stream_of_100_000_segments_lives_through_its_whole_life() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    let segments = SEGMENTS_PER_STREAM_MAX;
    let id = created(&mut machine, &stores, "demo/wide", segments as u32);
    assert_eq!(stores.inner().segments.len(), segments);
    assert!(machine.containers().values().all(|c| c.segments == segments as u64 / 4));

    let stream = machine.stream_by_id(id).unwrap();
    let ids: Vec<_> = stream.current.iter().map(|key| stream.segment_id(*key)).collect();
    let cut = ids.iter().map(|id| (id.epoch, id.number, 1.into())).collect();
    ids.iter().for_each(|id| stores.grow(*id, 2));
    let truncate = Operation::TruncateStream { stream: id, cut };
    assert!(truncate.encode().len() < ENTRY_BYTES_MAX, "the largest cut fits an entry");
    apply(&mut machine, &truncate).unwrap();
    run_jobs(&mut machine, &stores);

    // The job is over: of it, only that it is gone is saved.
    let saved = machine.freeze_whole().into_iter();
    let saved = saved.filter_map(|change| Some((Bytes::from(change.key), change.value?)));
    let mut restored = ControllerMachine::new();
    restored.restore(&mut saved.collect::<Vec<_>>().into_iter()).unwrap();
    assert!(restored.state() == machine.state());

    apply(&mut machine, &Operation::DeleteStream { stream: name("demo/wide") }).unwrap();
    run_jobs(&mut machine, &stores);
    assert_eq!(stores.inner().forgotten.len(), segments);
}

#[test]
fn the_commands_of_a_step_stay_far_below_an_entry_with_the_longest_names() {
    let mut machine = machine();
    let long = "n".repeat(255);
    let operation = crate::testing::create(&format!("{long}/{long}"), 100_000);
    apply(&mut machine, &operation).unwrap();
    let step = pending_steps(&machine, 1.into(), 1, |_| true).remove(0);
    // What a store must be told of a segment is its names and less than 100 bytes.
    let bytes: usize = step
        .commands
        .iter()
        .map(|command| match &command.action {
            crate::stores::StoreAction::Create(segments) => segments.len() * (2 * 255 + 100),
            other => panic!("{other:?}"),
        })
        .sum();
    assert!(bytes < common::limits::ENTRY_BYTES_TARGET, "{bytes}");
}

#[test]
fn one_name_too_many_is_refused_and_known_ones_still_come_back() {
    let (mut machine, stores) = (machine(), FakeStores::default());
    created(&mut machine, &stores, "demo/hello", 1);
    let register = |number: usize| Operation::RegisterWriter {
        stream: name("demo/hello"),
        writer: format!("w{number}").parse().unwrap(),
        create: true,
        mode: WriterMode::Replay,
    };
    for number in 0..WRITERS_PER_STREAM_MAX {
        machine.apply_operation(&register(number), crate::testing::NOW).unwrap();
    }
    let refusal = refused(&mut machine, &register(WRITERS_PER_STREAM_MAX));
    assert_eq!(refusal, Refusal::TooManyWriters(name("demo/hello")));
    apply(&mut machine, &register(7)).unwrap();
}
