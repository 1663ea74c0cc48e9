//! The formats: what is encoded reads back, what is damaged does not, and the bytes are for ever.

use bytes::Bytes;
use common::{GroupId, LogIndex, Term};
use proptest::prelude::*;

use super::*;
use crate::{BlockSeq, Conf, HardState, LostEntries, SECTOR_BYTES, Truncated};

fn any_row() -> impl Strategy<Value = GroupRow> {
    let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    let numbers = prop::array::uniform10(any::<u64>());
    let lost = prop::collection::vec(any::<[u64; 3]>(), 0..4);
    (numbers, any::<[bool; 3]>(), bytes(), bytes(), bytes(), lost).prop_map(
        |(n, [cut, quarantined, bridged], conf, mark, tombstone, lost)| GroupRow {
            group: GroupId(n[0]),
            cut,
            bridged,
            quarantined,
            sequence: n[1],
            entry_sequence: n[2],
            hard_state: HardState { term: Term(n[3]), vote: n[4], commit: LogIndex(n[5]) },
            truncated: Truncated { index: LogIndex(n[6]), term: Term(n[7]) },
            last: LogIndex(n[8]),
            last_term: Term(n[9]),
            conf: conf.map(|bytes| Conf { index: LogIndex(n[0] ^ 1), bytes: Bytes::from(bytes) }),
            mark: mark.map(Bytes::from),
            tombstone: tombstone.map(Bytes::from),
            lost: lost.into_iter().map(lost_entries).collect(),
        },
    )
}

fn lost_entries([first, last, term]: [u64; 3]) -> LostEntries {
    LostEntries { first: LogIndex(first), last: LogIndex(last), term: Term(term) }
}

fn any_block() -> impl Strategy<Value = BlockHeader> {
    (any::<[u64; 5]>(), BLOCK_HEADER_BYTES as u32.., any::<[u32; 2]>(), any::<bool>()).prop_map(
        |(n, length, [records, records_crc], sealing)| BlockHeader {
            salt: n[0],
            file: n[1],
            offset: n[2],
            seq: BlockSeq(n[3]),
            synced_through: BlockSeq(n[4]),
            length,
            records,
            records_crc,
            sealing,
        },
    )
}

fn any_record() -> impl Strategy<Value = RecordHeader> {
    let kinds = prop::sample::select(vec![
        RecordKind::Entry,
        RecordKind::HardState,
        RecordKind::Truncate,
        RecordKind::Conf,
        RecordKind::Mark,
        RecordKind::Reset,
        RecordKind::Tombstone,
        RecordKind::Commits,
        RecordKind::Table,
        RecordKind::Seal,
        RecordKind::Moved,
    ]);
    (kinds, any::<[u64; 4]>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u8>()).prop_map(
        |(kind, n, payload_crc, length, context, entry_kind)| RecordHeader {
            payload_crc,
            length,
            context_length: context.min(length),
            kind,
            entry_kind,
            group: GroupId(n[0]),
            sequence: n[1],
            term: Term(n[2]),
            index: LogIndex(n[3]),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_reads_back_and_no_cut_of_it_does(
        rows in prop::collection::vec(any_row(), 0..6), n: [u64; 3], cut: prop::sample::Index,
    ) {
        let previous = PreviousFile { file: n[0], end: n[1], block: BlockSeq(n[2]) };
        let table = Table { previous, rows };
        let bytes = table.encode();
        let rows: usize = table.rows.iter().map(GroupRow::encoded_bytes).sum();
        prop_assert_eq!(bytes.len(), Table::EMPTY_BYTES + rows);
        prop_assert_eq!(Table::decode(&bytes[..cut.index(bytes.len())]), None);
        prop_assert_eq!(Table::decode(&bytes), Some(table));
    }

    #[test]
    fn a_block_header_reads_back_under_its_seed_only(block in any_block(), seed: u32, bit in 0..512usize) {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        block.encode(seed, &mut bytes);
        prop_assert_eq!(BlockHeader::decode(seed, &bytes), Some(block));
        prop_assert_eq!(BlockHeader::decode(seed ^ 1, &bytes), None);
        prop_assert_eq!(BlockHeader::claimed_salt(&bytes), Some((block.salt, block.file)));
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(BlockHeader::decode(seed, &bytes), None);
    }

    #[test]
    fn a_record_header_reads_back_under_its_seed_only(
        record in any_record(), seed: u32, bit in 0..448usize,
    ) {
        let mut bytes = [0xff; RECORD_HEADER_BYTES];
        record.encode(seed, &mut bytes);
        prop_assert_eq!(RecordHeader::decode(seed, &bytes), Some(record));
        prop_assert_eq!(RecordHeader::decode(seed.wrapping_add(1), &bytes), None);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(RecordHeader::decode(seed, &bytes), None);
    }

    #[test]
    fn a_file_header_reads_back_and_no_damaged_one_does(
        store_id: u128, n: [u64; 3], bit in 0..SECTOR_BYTES * 8,
    ) {
        let header = FileHeader { store_id, sequence: n[0], salt: n[1], file_bytes: n[2] };
        let mut sector = vec![7; SECTOR_BYTES];
        header.encode(&mut sector);
        prop_assert_eq!(FileHeader::decode(&sector), Ok(header));
        prop_assert_eq!(decode_store_id(&sector), Err(HeaderError::Invalid));
        sector[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(FileHeader::decode(&sector), Err(HeaderError::Invalid));
        encode_store_id(store_id, &mut sector);
        prop_assert_eq!(decode_store_id(&sector), Ok(store_id));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Table::decode(&bytes);
        let _ = RecordHeader::decode(0, &bytes);
        let _ = BlockHeader::decode(0, &bytes);
        let _ = BlockHeader::claimed_salt(&bytes);
    }
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat());
    lines.collect::<Vec<_>>().join("\n")
}

/// One example of each format. A change here is a new format version.
#[test]
fn version_1_is_as_it_was_written_down() {
    let mut sector = vec![0; SECTOR_BYTES];
    let header = FileHeader { store_id: 0xabcd, sequence: 7, salt: 0x5a17, file_bytes: 64 << 20 };
    header.encode(&mut sector);
    let mut golden = format!("file header, zeros left out\n{}\n", hex(&sector[..64]));
    encode_store_id(0xabcd, &mut sector);
    golden += &format!("identity, zeros left out\n{}\n", hex(&sector[..32]));
    let seed = seed(0x5a17, 7);
    let mut bytes = [0; BLOCK_HEADER_BYTES];
    let block = BlockHeader {
        salt: 0x5a17,
        file: 7,
        offset: 8192,
        seq: BlockSeq(99),
        synced_through: BlockSeq(98),
        length: 500,
        records: 3,
        records_crc: 0xdead_beef,
        sealing: true,
    };
    block.encode(seed, &mut bytes);
    golden += &format!("block header\n{}\n", hex(&bytes));
    let record = RecordHeader {
        payload_crc: 0xfeed_f00d,
        length: 40,
        context_length: 8,
        kind: RecordKind::Entry,
        entry_kind: 2,
        group: GroupId(3),
        sequence: 12,
        term: Term(4),
        index: LogIndex(1_000),
    };
    record.encode(seed, &mut bytes[..RECORD_HEADER_BYTES]);
    golden += &format!("record header\n{}\n", hex(&bytes[..RECORD_HEADER_BYTES]));
    let moved = RecordHeader { kind: RecordKind::Moved, sequence: 13, ..record };
    moved.encode(seed, &mut bytes[..RECORD_HEADER_BYTES]);
    golden += &format!("record header of a moved entry\n{}\n", hex(&bytes[..RECORD_HEADER_BYTES]));
    let row = GroupRow {
        group: GroupId(3),
        cut: true,
        bridged: false,
        quarantined: true,
        sequence: 12,
        entry_sequence: 11,
        hard_state: HardState { term: Term(4), vote: 1, commit: LogIndex(999) },
        truncated: Truncated { index: LogIndex(500), term: Term(2) },
        last: LogIndex(1_000),
        last_term: Term(4),
        conf: Some(Conf { index: LogIndex(9), bytes: Bytes::from_static(b"conf") }),
        mark: Some(Bytes::from_static(b"mark")),
        tombstone: Some(Bytes::from_static(b"tomb")),
        lost: Vec::new(),
    };
    let repaired = GroupRow {
        bridged: true,
        lost: vec![lost_entries([5, 7, 2]), lost_entries([9, 9, 3])],
        ..GroupRow::default()
    };
    let previous = PreviousFile { file: 6, end: 4096 * 9, block: BlockSeq(90) };
    golden += &format!("table\n{}\n", hex(&Table { previous, rows: vec![row] }.encode()));
    let bytes = Table { previous, rows: vec![repaired] }.encode();
    golden += &format!("table after a repair\n{}\n", hex(&bytes));
    let kept = include_str!("../../tests/data/format-1.txt");
    assert_eq!(golden, kept, "the bytes of a format that is in use have changed:\n{golden}");
}
