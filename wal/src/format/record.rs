//! The header of a record, and the payloads of the small ones.

use common::{GroupId, LogIndex, Term};

use super::{Reader, put_u32, put_u64, seeded_crc};

pub(crate) const RECORD_HEADER_BYTES: usize = 56;
const CRC_FROM: usize = 4;

/// What a record says. The numbers are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RecordKind {
    /// A Raft entry: context and data.
    Entry = 1,
    /// `vote u64 | commit u64`; the term is in the header.
    HardState = 2,
    /// The entries up to the header's index are dropped.
    Truncate = 3,
    /// The group's membership as of the header's index.
    Conf = 4,
    /// The mark of a snapshot being installed; empty when it is done.
    Mark = 5,
    /// All entries are dropped; the log goes on behind the header's index.
    Reset = 6,
    /// The group is gone; the payload stays.
    Tombstone = 7,
    /// Newest commit indexes: `(group u64 | commit u64)*`. Of no group.
    Commits = 8,
    /// The group table. Of no group.
    Table = 9,
    /// Each group's last record sequence: `(group u64 | sequence u64)*`. Of no group.
    Seal = 10,
    /// A copy of the entry with the header's index and term: it is here from now on. Nothing else of
    /// the group changes.
    Moved = 11,
    /// Of a newer program: never written, and a log that has one is not opened.
    Unknown = 255,
}

impl RecordKind {
    fn decode(code: u8) -> RecordKind {
        match code {
            1 => Self::Entry,
            2 => Self::HardState,
            3 => Self::Truncate,
            4 => Self::Conf,
            5 => Self::Mark,
            6 => Self::Reset,
            7 => Self::Tombstone,
            8 => Self::Commits,
            9 => Self::Table,
            10 => Self::Seal,
            11 => Self::Moved,
            _ => Self::Unknown,
        }
    }

    /// Whether the record changes which entries the group has, or where one is: then no later table
    /// makes up for it.
    pub(crate) fn changes_entries(self) -> bool {
        matches!(self, Self::Entry | Self::Reset | Self::Tombstone | Self::Moved)
    }

    /// Whether the payload is an entry's.
    pub(crate) fn is_entry(self) -> bool {
        matches!(self, Self::Entry | Self::Moved)
    }
}

/// `crc u32 | payload crc u32 | length u32 | context length u32 | kind u8 | entry kind u8 |
/// zero u16 | zero u32 | group u64 | sequence u64 | term u64 | index u64`. The crc is seeded and
/// covers the rest of the header; `length` counts the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) payload_crc: u32,
    pub(crate) length: u32,
    pub(crate) context_length: u32,
    pub(crate) kind: RecordKind,
    pub(crate) entry_kind: u8,
    pub(crate) group: GroupId,
    pub(crate) sequence: u64,
    pub(crate) term: Term,
    pub(crate) index: LogIndex,
}

impl RecordHeader {
    /// A header of `kind` for `group` with everything else zero.
    pub(crate) fn new(kind: RecordKind, group: GroupId, sequence: u64) -> Self {
        Self {
            payload_crc: 0,
            length: 0,
            context_length: 0,
            kind,
            entry_kind: 0,
            group,
            sequence,
            term: Term(0),
            index: LogIndex(0),
        }
    }

    pub(crate) fn encode(&self, seed: u32, bytes: &mut [u8]) {
        put_u32(bytes, 4, self.payload_crc);
        put_u32(bytes, 8, self.length);
        put_u32(bytes, 12, self.context_length);
        bytes[16] = self.kind as u8;
        bytes[17] = self.entry_kind;
        bytes[18..24].fill(0);
        put_u64(bytes, 24, self.group.0);
        put_u64(bytes, 32, self.sequence);
        put_u64(bytes, 40, self.term.0);
        put_u64(bytes, 48, self.index.0);
        let crc = seeded_crc(seed, &[&bytes[CRC_FROM..RECORD_HEADER_BYTES]]);
        put_u32(bytes, 0, crc);
    }

    pub(crate) fn decode(seed: u32, bytes: &[u8]) -> Option<RecordHeader> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        let mut fields = Reader(bytes);
        if fields.u32()? != seeded_crc(seed, &[&bytes[CRC_FROM..]]) {
            return None;
        }
        let header = RecordHeader {
            payload_crc: fields.u32()?,
            length: fields.u32()?,
            context_length: fields.u32()?,
            kind: RecordKind::decode(bytes[16]),
            entry_kind: bytes[17],
            group: {
                fields.bytes(8)?;
                GroupId(fields.u64()?)
            },
            sequence: fields.u64()?,
            term: Term(fields.u64()?),
            index: LogIndex(fields.u64()?),
        };
        (header.context_length <= header.length).then_some(header)
    }
}

/// Bytes a record with `payload` bytes takes in a block.
pub(crate) const fn record_bytes(payload: usize) -> usize {
    (RECORD_HEADER_BYTES + payload).next_multiple_of(8)
}
