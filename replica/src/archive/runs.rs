//! Where the payload of entries lies: rows sorted by place in the log, searched as they are.
//!
//! ```text
//! { index u64 | start u32 | bytes u32 | object u32 | offset u32 | crc32 u32 }*
//! ```

use std::ops::Range;

use bytes::{BufMut, Bytes};
use common::LogIndex;

use super::fields::word;

/// Payload bytes of one owner that lie side by side in one entry and in one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub index: LogIndex,
    /// Where the run begins in the entry's payload.
    pub start: u32,
    pub bytes: u32,
    /// Which of the round's objects.
    pub object: u32,
    /// Where the run begins in the object.
    pub offset: u32,
    /// CRC-32 (IEEE) of the run; those of neighbours can be combined.
    pub crc: u32,
}

impl Run {
    pub(super) const BYTES: usize = 8 + 5 * 4;

    /// Where the run lies in the entry's payload.
    pub fn in_entry(&self) -> Range<u64> {
        u64::from(self.start)..u64::from(self.start) + u64::from(self.bytes)
    }

    /// Where the run lies in the object.
    pub fn in_object(&self) -> Range<u64> {
        u64::from(self.offset)..u64::from(self.offset) + u64::from(self.bytes)
    }

    fn decode(row: &[u8; Self::BYTES]) -> Self {
        let word = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
        Self {
            index: LogIndex(u64::from(word(0)) | u64::from(word(4)) << 32),
            start: word(8),
            bytes: word(12),
            object: word(16),
            offset: word(20),
            crc: word(24),
        }
    }
}

/// The runs of a round, by place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs {
    bytes: Bytes,
}

impl Runs {
    /// Takes runs in any order.
    pub fn encode(mut runs: Vec<Run>) -> Self {
        runs.sort_unstable_by_key(|run| (run.index, run.start));
        let mut bytes = Vec::with_capacity(runs.len() * Run::BYTES);
        for run in runs {
            bytes.put_u64_le(run.index.0);
            for field in [run.start, run.bytes, run.object, run.offset, run.crc] {
                bytes.put_u32_le(field);
            }
        }
        Self { bytes: bytes.into() }
    }

    /// Whole rows; whether they are in order is for the reader of the footer to see.
    pub(super) fn of_rows(bytes: Bytes) -> Self {
        debug_assert_eq!(bytes.len() % Run::BYTES, 0);
        Self { bytes }
    }

    pub(super) fn rows(&self) -> Bytes {
        self.bytes.clone()
    }

    pub(super) fn count(&self) -> u32 {
        word(self.len())
    }

    pub fn len(&self) -> usize {
        self.bytes.len() / Run::BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Run> + '_ {
        self.as_rows().iter().map(Run::decode)
    }

    /// The run that holds all of a range of an entry's payload.
    pub fn find(&self, index: LogIndex, range: Range<u32>) -> Option<Run> {
        let rows = self.as_rows();
        let behind = rows.partition_point(|row| {
            let run = Run::decode(row);
            (run.index, run.start) <= (index, range.start)
        });
        let run = Run::decode(&rows[behind.checked_sub(1)?]);
        let forward = range.start <= range.end;
        let within = forward && run.index == index && u64::from(range.end) <= run.in_entry().end;
        within.then_some(run)
    }

    fn as_rows(&self) -> &[[u8; Run::BYTES]] {
        self.bytes.as_chunks().0
    }
}
