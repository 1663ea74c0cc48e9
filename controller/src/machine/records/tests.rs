use std::collections::{BTreeMap, VecDeque};

use common::{KeyRange, Offset, SegmentNumber, WallTime, WriterEpoch, WriterId};

use super::*;
use crate::machine::cluster::{Cluster, Container, Store};
use crate::machine::job::{Job, JobKind, Phase};
use crate::machine::scopes::Scope;
use crate::machine::stream::{Epoch, Segment, Stream, StreamState, Writer, WriterMode};

const STREAM: StreamId = StreamId(7);

fn id(epoch: u32, number: u32) -> SegmentId {
    SegmentId { stream: STREAM, epoch: epoch.into(), number: number.into() }
}

/// A state that has every record, with a value in every field.
fn example() -> State {
    let key = |epoch: u32, number: u32| (StreamEpoch(epoch), SegmentNumber(number));
    let segment = |predecessors, sealed| Segment {
        range: KeyRange::ALL,
        container: ContainerId(2),
        predecessors,
        sealed,
        successors: Vec::new(),
    };
    let writer = Writer {
        id: WriterId(0x0102),
        epoch: WriterEpoch(5),
        mode: WriterMode::Continue,
        registered: WallTime(7),
        deleting: true,
    };
    let mut stream = Stream {
        id: STREAM,
        name: "s/t".parse().unwrap(),
        state: StreamState::Active,
        segments_configured: 1,
        created: WallTime(3),
        token: 10,
        job: Some(JobId(9)),
        epochs: vec![
            Epoch { number: StreamEpoch(0), created: WallTime(3), sealed: Vec::new() },
            Epoch { number: StreamEpoch(1), created: WallTime(4), sealed: vec![key(0, 0)] },
        ],
        segments: [(key(1, 1), segment(vec![key(0, 0)], Some(Offset(8))))].into(),
        current: Vec::new(),
        first: Vec::new(),
        head_in_order: Vec::new(),
        head: [(key(1, 1), Offset(4))].into(),
        head_is_ahead: true,
        leaving: VecDeque::new(),
        removed: [(key(0, 0), segment(Vec::new(), Some(Offset(6))))].into(),
        writers: [("w".parse().unwrap(), writer)].into(),
        writer_names: BTreeMap::new(),
    };
    stream.index();
    let scope = Scope { created: WallTime(2), streams: [("t".parse().unwrap(), STREAM)].into() };
    let job = Job {
        stream: STREAM,
        kind: JobKind::Delete { seal_first: true },
        step: 1,
        phase: Phase::Forget,
        after: Some(key(1, 1)),
        batch: 512,
        started: WallTime(5),
    };
    State {
        cluster: Some(Cluster {
            id: 0x0B,
            incarnation: 1.into(),
            streams_made: 2,
            jobs_made: 3,
            writer_epochs_made: 4,
            era: 5,
            passed_over: vec![(6, 7)],
        }),
        stores: [(StoreId(1), Store { endpoint: "h:1".into() })].into(),
        containers: [(ContainerId(2), Container { store: StoreId(1), segments: 1 })].into(),
        scopes: [("s".parse().unwrap(), scope)].into(),
        streams: [(STREAM, stream)].into(),
        jobs: [(JobId(9), job)].into(),
        failures: [(JobId(8), "no".to_owned())].into(),
        segments: 2,
    }
}

fn golden() -> Vec<(Key, &'static str, &'static str)> {
    const ALL: &str = "0000000000000000ffffffffffffffff";
    const SEGMENT: &str = concat!(
        "01",
        "0000000000000000ffffffffffffffff",
        "0200000000000000",
        "01000000",
        "0000000000000000",
        "01",
        "0800000000000000"
    );
    const REMOVED: &str = concat!(
        "01",
        "0000000000000000ffffffffffffffff",
        "0200000000000000",
        "00000000",
        "01",
        "0600000000000000"
    );
    assert!(SEGMENT.contains(ALL) && REMOVED.contains(ALL));
    vec![
        (
            Key::Cluster,
            "63",
            "01 0b000000000000000000000000000000 0100 0200000000000000 0300000000000000 \
             0400000000000000 05000000 01000000 0600000000000000 0700000000000000",
        ),
        (Key::Store(StoreId(1)), "74 0000000000000001", "01 0300683a31"),
        (Key::Container(ContainerId(2)), "6f 0000000000000002", "01 0100000000000000"),
        (Key::Scope("s".parse().unwrap()), "70 73", "01 0200000000000000"),
        (
            Key::Stream(STREAM),
            "73 0000000000000007",
            "01 010073 010074 82 01000000 0300000000000000 0900000000000000 \
             0a00000000000000",
        ),
        (
            Key::Epoch(STREAM, StreamEpoch(0)),
            "65 0000000000000007 00000000",
            "01 0300000000000000 00000000",
        ),
        (
            Key::Epoch(STREAM, StreamEpoch(1)),
            "65 0000000000000007 00000001",
            "01 0400000000000000 01000000 0000000000000000",
        ),
        (Key::Segment(id(1, 1)), "67 0000000000000007 00000001 00000001", SEGMENT),
        (Key::Head(id(1, 1)), "68 0000000000000007 00000001 00000001", "01 0400000000000000"),
        (Key::Removed(id(0, 0)), "72 0000000000000007 00000000 00000000", REMOVED),
        (
            Key::Writer(STREAM, "w".parse().unwrap()),
            "77 0000000000000007 77",
            "01 02010000000000000000000000000000 0500000000000000 02 0700000000000000 01",
        ),
        (
            Key::Job(JobId(9)),
            "6a 0000000000000009",
            "01 0700000000000000 05 01000000 00020000 0500000000000000 06 01 01000000 01000000",
        ),
        (Key::Failure(JobId(8)), "66 0000000000000008", "01 02006e6f"),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pairs(state: &State) -> Vec<(Bytes, Bytes)> {
    let records = golden().into_iter().map(|(key, ..)| {
        let value = state.value(&key).unwrap();
        (Bytes::from(key.encode()), value)
    });
    records.collect()
}

#[test]
fn each_record_keeps_its_bytes() {
    let state = example();
    for (key, key_hex, value_hex) in golden() {
        assert_eq!(hex(&key.encode()), key_hex.replace(' ', ""), "{key:?}");
        assert_eq!(hex(&state.value(&key).unwrap()), value_hex.replace(' ', ""), "{key:?}");
        assert_eq!(Key::decode(&key.encode()), Ok(key));
    }
}

#[test]
fn a_job_that_deletes_a_writer_keeps_its_bytes_and_needs_the_writer() {
    let mut state = example();
    let job = state.jobs.get_mut(&JobId(9)).unwrap();
    job.kind = JobKind::DeleteWriter { writer: WriterId(0x0102) };
    job.phase = Phase::DeleteWriter;
    let key = Key::Job(JobId(9));
    assert_eq!(
        hex(&state.value(&key).unwrap()),
        "01 0700000000000000 06 02010000000000000000000000000000 01000000 00020000 \
         0500000000000000 08 01 01000000 01000000"
            .replace(' ', "")
    );
    let records = pairs(&state);
    assert_eq!(State::restore(&mut records.clone().into_iter()).unwrap(), state);
    let without = records.into_iter().filter(|(key, _)| key[0] != b'w').collect::<Vec<_>>();
    let refused = State::restore(&mut without.into_iter()).unwrap_err();
    assert!(refused.to_string().contains("writer of its job"), "{refused}");
}

#[test]
fn a_state_is_restored_from_its_records_in_any_order() {
    let state = example();
    let mut records = pairs(&state);
    assert_eq!(State::restore(&mut records.clone().into_iter()).unwrap(), state);
    records.reverse();
    assert_eq!(State::restore(&mut records.into_iter()).unwrap(), state);
}

#[test]
fn a_record_that_is_damaged_or_of_a_newer_version_is_refused() {
    let state = example();
    for at in 0..golden().len() {
        for damage in [0, 1, 2] {
            let mut records = pairs(&state);
            let value = &mut records[at].1;
            *value = match damage {
                0 => value.slice(..value.len() - 1),
                1 => Bytes::from([&value[..], &[0]].concat()),
                _ => Bytes::from([&[2], &value[1..]].concat()),
            };
            let refused = State::restore(&mut records.into_iter()).unwrap_err();
            assert!(refused.to_string().contains("saved"), "{refused}");
        }
    }
}

#[test]
fn a_state_with_a_missing_or_unknown_record_is_refused() {
    // What nothing refers to may be missing: stores, an unsaved head, failures, and so on.
    let needed = [b'o', b'p', b's', b'g', b'j'];
    for (at, (key, ..)) in golden().iter().enumerate() {
        let mut records = pairs(&example());
        records.remove(at);
        let restored = State::restore(&mut records.into_iter());
        assert_eq!(restored.is_err(), needed.contains(&key.encode()[0]), "without {key:?}");
    }
    let mut records = pairs(&example());
    records.push((Bytes::from_static(b"zz"), Bytes::from_static(&[1])));
    assert!(State::restore(&mut records.into_iter()).is_err());
}
