use bytes::Bytes;
use common::{
    Attempt, ContainerId, EventNumber, Fence, Incarnation, KeyRange, Offset, ScopedStream,
    SegmentId, SegmentNumber, StreamEpoch, StreamId, Term, WriterEpoch, WriterId, WriterSession,
};
use proptest::prelude::*;

use super::*;
use crate::identity::{AttributeUpdate, Expected, SegmentKind};

fn segment(number: u32) -> SegmentId {
    SegmentId {
        stream: StreamId::new(Incarnation(1), 7),
        epoch: StreamEpoch(2),
        number: SegmentNumber(number),
    }
}

const SESSION: WriterSession = WriterSession { epoch: WriterEpoch(0x0a0b), attempt: Attempt(3) };
const WRITER: WriterId = WriterId(0x1112_1314);

fn command() -> CommandId {
    CommandId { fence: Fence { incarnation: Incarnation(1), term: Term(9) }, job: 5, step: 6 }
}

fn samples() -> Vec<Operation> {
    let identity = SegmentIdentity {
        segment: segment(3),
        stream: ScopedStream::new("demo", "hello").unwrap(),
        range: KeyRange::new(1, 0xff).unwrap(),
        kind: SegmentKind::Stream,
        predecessors: vec![segment(1)],
    };
    let successor = Successor {
        segment: segment(4),
        range: KeyRange::new(1, 0xff).unwrap(),
        container: ContainerId(2),
        predecessors: vec![segment(3)],
    };
    let update = AttributeUpdate {
        name: Bytes::from_static(b"mark"),
        expected: Expected::Value(Bytes::from_static(b"1")),
        value: Some(Bytes::from_static(b"2")),
    };
    let append = Append {
        segment: segment(3),
        writer: WRITER,
        session: SESSION,
        previous: EventNumber(4),
        last: EventNumber(8),
        events: 4,
        expected_offset: None,
        sum: EventSum::default(),
    };
    let open = Open {
        writer: WRITER,
        session: SESSION,
        named: true,
        segments: vec![OpenSegment { segment: segment(3), resuming: true }],
    };
    let of = |command_: Command| Operation::Command(command(), command_);
    vec![
        of(Command::Create(Box::new(identity))),
        Operation::Open(open),
        Operation::Append(append),
        Operation::Append(Append { expected_offset: Some(Offset(0x77)), ..append }),
        of(Command::Seal { segment: segment(3), successors: vec![successor] }),
        of(Command::Truncate { segment: segment(3), offset: Offset(0x1234) }),
        of(Command::Delete { segment: segment(3) }),
        of(Command::Forget { segment: segment(3) }),
        of(Command::UpdateAttributes { segment: segment(3), updates: vec![update] }),
        Operation::Expire(vec![(segment(3), WRITER)]),
        Operation::Append(Append {
            sum: EventSum { sum: 0x1122_3344_5566_7788, after: EventNumber(2) },
            ..append
        }),
        Operation::Close(Close {
            writer: WRITER,
            session: SESSION,
            segments: vec![segment(3), segment(4)],
        }),
        of(Command::DeleteWriter {
            segment: segment(3),
            writer: WRITER,
            epoch: WriterEpoch(0x0a0c),
        }),
    ]
}

const SEGMENT_3: &str = "00010000000000070000000200000003";
const COMMAND: &str = "0100090000000000000005000000000000000600 0000";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_kind_keeps_its_golden_bytes() {
    let (command, writer) = (COMMAND.replace(' ', ""), "14131211000000000000000000000000");
    let session = "0b0a00000000000003000000";
    let range = "0100000000000000ff00000000000000";
    let segment_1 = SEGMENT_3.replace("00000003", "00000001");
    let segment_4 = SEGMENT_3.replace("00000003", "00000004");
    let numbers = "0400000000000000080000000000000004000000";
    let expected = [
        format!("0101{command}{SEGMENT_3}040064656d6f050068656c6c6f{range}0101000000{segment_1}"),
        format!("0102{writer}{session}0101000000{SEGMENT_3}01"),
        format!("0103{SEGMENT_3}{writer}{session}{numbers}000000000000000000"),
        format!("0103{SEGMENT_3}{writer}{session}{numbers}017700000000000000"),
        format!(
            "0104{command}{SEGMENT_3}01000000{segment_4}{range}020000000000000001000000{SEGMENT_3}"
        ),
        format!("0105{command}{SEGMENT_3}3412000000000000"),
        format!("0106{command}{SEGMENT_3}"),
        format!("0107{command}{SEGMENT_3}"),
        format!("0108{command}{SEGMENT_3}0100000004006d61726b02010031{}", "01010032"),
        format!("010901000000{SEGMENT_3}{writer}"),
        format!(
            "0103{SEGMENT_3}{writer}{session}{numbers}020000000000000000\
             88776655443322110200000000000000"
        ),
        format!("010a{writer}{session}02000000{SEGMENT_3}{segment_4}"),
        format!("010b{command}{SEGMENT_3}{writer}0c0a000000000000"),
    ];
    for (operation, expected) in samples().iter().zip(expected) {
        assert_eq!(hex(&operation.encode()), expected, "{operation:?}");
        assert_eq!(Operation::decode(&operation.encode()).as_ref(), Ok(operation));
    }
}

#[test]
fn an_append_header_is_as_large_as_it_may_be_with_a_sum() {
    assert_eq!(samples()[10].encode().len(), Append::BYTES_MAX);
    assert_eq!(samples()[2].encode().len(), Append::BYTES_MAX - EventSum::BYTES);
}

#[test]
fn a_header_cut_short_or_with_more_behind_it_is_refused() {
    for operation in samples() {
        let header = operation.encode();
        for end in 0..header.len() {
            assert!(Operation::decode(&header[..end]).is_err(), "{operation:?} cut at {end}");
        }
        let mut longer = header.to_vec();
        longer.push(0);
        assert_eq!(Operation::decode(&longer), Err(CodecError::Trailing(1)), "{operation:?}");
    }
}

#[test]
fn unknown_versions_and_kinds_are_named() {
    let mut header = samples()[6].encode().to_vec();
    header[0] = 2;
    assert_eq!(Operation::decode(&header), Err(CodecError::Version(2)));
    (header[0], header[1]) = (1, 200);
    assert_eq!(Operation::decode(&header), Err(CodecError::Kind(200)));
}

#[test]
fn impossible_values_are_refused_before_anything_is_allocated() {
    let append = samples()[2].encode();
    let mut backwards = append.to_vec();
    backwards[54..62].copy_from_slice(&3_u64.to_le_bytes());
    assert!(matches!(Operation::decode(&backwards), Err(CodecError::Impossible { .. })));
    let mut open = samples()[1].encode().to_vec();
    open[31..35].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(Operation::decode(&open), Err(CodecError::TooMany { .. })));
    open[31..35].copy_from_slice(&4_000_u32.to_le_bytes());
    assert!(matches!(Operation::decode(&open), Err(CodecError::Short { .. })));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Operation::decode(&bytes);
    }

    #[test]
    fn arbitrary_bytes_behind_a_known_kind_never_panic_and_what_decodes_encodes_the_same(
        kind in 1_u8..12,
        bytes in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..200),
    ) {
        let mut header = vec![VERSION, kind];
        header.extend(bytes);
        if let Ok(operation) = Operation::decode(&header) {
            // An unconditional append ignores its offset, and one whose sum is nothing has none;
            // everything else has one form.
            prop_assert_eq!(Operation::decode(&operation.encode()), Ok(operation));
        }
    }

    #[test]
    fn a_flipped_byte_never_panics(at: proptest::sample::Index, value: u8, sample in 0_usize..13) {
        let mut header = samples()[sample].encode().to_vec();
        let at = at.index(header.len());
        header[at] = value;
        let _ = Operation::decode(&header);
    }
}
