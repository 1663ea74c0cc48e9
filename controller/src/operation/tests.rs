use rstest::rstest;

use super::*;
use crate::testing::name;

fn examples() -> Vec<(Operation, &'static str)> {
    let stream = || name("s/t");
    let segment = SegmentId { stream: StreamId(7), epoch: 1.into(), number: 2.into() };
    vec![
        (
            Operation::Initialize { cluster: 0x0102, incarnation: Incarnation(3) },
            "01 01 02010000000000000000000000000000 0300",
        ),
        (
            Operation::RegisterStore {
                store: StoreId(4),
                endpoint: "h:1".into(),
                containers: vec![ContainerId(2), ContainerId(3)],
            },
            "01 02 0400000000000000 0300683a31 02000000 0200000000000000 0300000000000000",
        ),
        (Operation::CreateScope { scope: "s".parse().unwrap() }, "01 03 010073"),
        (Operation::DeleteScope { scope: "s".parse().unwrap() }, "01 04 010073"),
        (
            Operation::CreateStream { stream: stream(), segments: 5, create_scope: true, token: 6 },
            "01 05 010073 010074 05000000 01 0600000000000000",
        ),
        (Operation::SealStream { stream: stream() }, "01 06 010073 010074"),
        (
            Operation::TruncateStream {
                stream: StreamId(7),
                cut: vec![(1.into(), 2.into(), Offset(9))],
            },
            "01 07 0700000000000000 01000000 01000000 02000000 0900000000000000",
        ),
        (Operation::DeleteStream { stream: stream() }, "01 08 010073 010074"),
        (Operation::DeleteStreamById { stream: StreamId(7) }, "01 12 0700000000000000"),
        (
            Operation::RegisterWriter {
                stream: stream(),
                writer: "w".parse().unwrap(),
                create: true,
                mode: WriterMode::Continue,
            },
            "01 09 010073 010074 010077 01 02",
        ),
        (
            Operation::DeleteWriter {
                stream: stream(),
                writer: "w".parse().unwrap(),
                epoch: WriterEpoch(5),
            },
            "01 11 010073 010074 010077 0500000000000000",
        ),
        (
            Operation::StepDone { job: JobId(8), step: 3, lengths: vec![(segment, Offset(9))] },
            "01 0a 0800000000000000 03000000 01000000 0700000000000000 01000000 02000000 \
             0900000000000000",
        ),
        (
            Operation::Recover { incarnation: Incarnation(2), streams_made: 9 },
            "01 0c 0200 0900000000000000",
        ),
        (
            Operation::AdoptStream {
                stream: StreamId(7),
                name: stream(),
                segments: vec![AdoptedSegment {
                    key: (1.into(), 2.into()),
                    range: KeyRange::new(3, 4).unwrap(),
                    container: ContainerId(5),
                    predecessors: vec![(0.into(), 6.into())],
                    sealed: Some(Offset(8)),
                }],
            },
            "01 0d 0700000000000000 010073 010074 01000000 01000000 02000000 0300000000000000 \
             0400000000000000 0500000000000000 01000000 00000000 06000000 01 0800000000000000",
        ),
        (
            Operation::ReconcileStream {
                stream: StreamId(7),
                found: vec![FoundSegment {
                    key: (1.into(), 2.into()),
                    start: Offset(3),
                    length: Offset(4),
                    sealed: true,
                    deleted: false,
                }],
            },
            "01 0f 0700000000000000 01000000 01000000 02000000 0300000000000000 0400000000000000 01 \
             00",
        ),
        (
            Operation::ReconcilePlaces {
                stream: StreamId(7),
                found: vec![FoundSegment {
                    key: (1.into(), 2.into()),
                    start: Offset(3),
                    length: Offset(4),
                    sealed: false,
                    deleted: true,
                }],
            },
            "01 0e 0700000000000000 01000000 01000000 02000000 0300000000000000 0400000000000000 01",
        ),
        (
            Operation::RaiseFence { above: Fence { incarnation: 2.into(), term: 3.into() } },
            "01 10 0200 0300000000000000",
        ),
        (
            Operation::StepFailed { job: JobId(8), step: 3, message: "no".into() },
            "01 0b 0800000000000000 03000000 02006e6f",
        ),
    ]
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn each_operation_keeps_its_bytes() {
    for (operation, hex) in examples() {
        assert_eq!(operation.encode().to_vec(), bytes(hex), "{operation:?}");
        assert_eq!(Operation::decode(&bytes(hex)), Ok(operation));
    }
}

#[test]
fn an_operation_cut_short_or_too_long_is_refused() {
    for (operation, hex) in examples() {
        let whole = bytes(hex);
        for end in 0..whole.len() {
            assert!(Operation::decode(&whole[..end]).is_err(), "{operation:?} cut at {end}");
        }
        assert!(Operation::decode(&[&whole[..], &[0]].concat()).is_err(), "{operation:?} too long");
    }
}

#[rstest]
#[case::of_another_version("02 03 010073")]
#[case::of_an_unknown_kind("01 63 010073")]
#[case::with_a_name_that_is_none("01 03 01002f")]
#[case::with_bytes_that_are_no_text("01 03 0100ff")]
#[case::with_a_flag_that_is_none("01 05 010073 010074 05000000 02 0600000000000000")]
#[case::with_a_list_longer_than_the_bytes("01 07 0700000000000000 ffffffff")]
fn an_operation_is_refused(#[case] hex: &str) {
    let refused = Operation::decode(&bytes(hex)).unwrap_err();
    assert!(refused.to_string().contains("controller operation"), "{refused}");
}
