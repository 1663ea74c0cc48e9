//! Housekeeping entries keep their bytes, and no bytes make their reader panic.

use proptest::prelude::*;

use super::*;
use crate::archive::housekeeping::{CommittedCheckpoint, CommittedRound, Housekeeping};
use crate::archive::runs::{Run, Runs};
use crate::archive::skip::CommittedSkip;
use crate::resting::{Compacted, Moved, Rested, Tiered};

fn reference(sequence: u64) -> ObjectRef {
    ObjectRef { name: name(sequence), length: 1_000, checksum: 0x0a0b_0c0d }
}

fn samples() -> Vec<Housekeeping> {
    let run = Run { index: LogIndex(6), start: 1, bytes: 20, object: 1, offset: 36, crc: 7 };
    let tiered = Tiered {
        range: LogIndex(5)..=LogIndex(8),
        objects: vec![reference(1), reference(2)],
        runs: Runs::encode(vec![run]),
    };
    let rested = Rested { object: name(5), offset: 36, crc: 9 };
    vec![
        Housekeeping::Round(CommittedRound {
            footer: reference(3),
            tiered,
            last_term: Term(4),
            recovered: true,
        }),
        Housekeeping::Checkpoint(CommittedCheckpoint {
            reference: reference(4),
            index: LogIndex(8),
            archived: LogIndex(4),
            chunks: vec![reference(2)],
            keep_micros: 77,
        }),
        Housekeeping::Compacted(Compacted {
            objects: vec![reference(5)],
            moved: vec![Moved { owner: 9, position: 100, bytes: 50, pieces: 3, rested }],
        }),
        Housekeeping::Removed(vec![name(1)]),
        Housekeeping::Recovered(Incarnation(2)),
        Housekeeping::Skipped(CommittedSkip {
            lost: LogIndex(9)..=LogIndex(11),
            last_term: Term(4),
            checkpoint: CommittedCheckpoint {
                reference: reference(7),
                index: LogIndex(12),
                archived: LogIndex(8),
                chunks: vec![reference(6)],
                keep_micros: 77,
            },
            recovered: true,
        }),
    ]
}

fn encoded(said: &Housekeeping) -> Bytes {
    let mut out = Vec::new();
    said.encode(&mut out);
    out.into()
}

#[test]
fn every_kind_reads_back_and_keeps_its_bytes() {
    let lengths: Vec<usize> = samples().iter().map(|said| encoded(said).len()).collect();
    assert_eq!(lengths, [128, 79, 87, 31, 3, 104]);
    let crcs: Vec<u32> = samples().iter().map(|s| crc32fast::hash(&encoded(s))).collect();
    assert_eq!(crcs, GOLDEN);
    for said in samples() {
        assert_eq!(Housekeeping::decode(&encoded(&said)), Ok(said));
    }
}

const GOLDEN: [u32; 6] = [952121489, 3658954824, 1110075723, 3303369464, 3418126715, 1071785189];

#[test]
fn what_cannot_be_is_refused() {
    for said in samples() {
        let bytes = encoded(&said);
        for cut in 0..bytes.len() {
            assert!(Housekeeping::decode(&bytes.slice(..cut)).is_err(), "{said:?} cut at {cut}");
        }
        let longer = Bytes::from([&bytes[..], b"?"].concat());
        assert!(Housekeeping::decode(&longer).is_err());
    }
    assert!(Housekeeping::decode(&Bytes::from_static(&[9])).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        kind in 0_u8..8, bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = Housekeeping::decode(&Bytes::from([&[kind], &bytes[..]].concat()));
    }
}
