//! The bytes on disk, version 1. All numbers are little-endian.
//!
//! ```text
//! file   = header (one sector) | block | block | …            fixed size, zero-filled ahead
//! block  = block header | record | record | … | zeros          whole sectors, never rewritten
//! record = record header | payload | zeros                     whole 8 bytes
//! ```
//!
//! Every checksum of blocks and record headers starts from a seed made of the file's salt and
//! sequence, so that bytes of the file's earlier lives never validate. Payload checksums are not
//! seeded. A block's checksum covers its header, and through it the headers of its records; each of
//! those covers the checksum of its payload.

mod block;
mod header;
mod record;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use block::{BLOCK_HEADER_BYTES, BlockHeader};
pub(crate) use header::{FileHeader, HeaderError, VERSION, decode_store_id, encode_store_id};
pub(crate) use record::{RECORD_HEADER_BYTES, RecordHeader, RecordKind, record_bytes};
pub(crate) use table::{GroupRow, PreviousFile, Table};

use common::planted;

/// Where the checksums of a file's blocks and record headers start.
pub(crate) fn seed(salt: u64, sequence: u64) -> u32 {
    if planted::active("recycled-block-accepted") {
        return 0;
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&sequence.to_le_bytes());
    hasher.finalize()
}

pub(crate) fn seeded_crc(seed: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Reads numbers and byte strings off the front of a payload; `None` when it ends too early.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        Some(u128::from_le_bytes(self.bytes(16)?.try_into().ok()?))
    }

    /// A byte string led by its length.
    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        self.bytes(length)
    }
}
