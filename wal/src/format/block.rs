//! The header of a block: one group commit.

use super::{Reader, put_u32, put_u64, seeded_crc};
use crate::BlockSeq;

pub(crate) const BLOCK_HEADER_BYTES: usize = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"BBLK");
const CRC_FROM: usize = 8;

/// `magic u32 | crc u32 | salt u64 | file sequence u64 | own offset u64 | block sequence u64 |
/// synced through u64 | length u32 | records u32 | crc of the record headers u32 | kind u32`.
///
/// `length` counts the block without the zeros that fill its last sector. `synced_through` is the
/// newest block that was durable when this one was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) salt: u64,
    pub(crate) file: u64,
    pub(crate) offset: u64,
    pub(crate) seq: BlockSeq,
    pub(crate) synced_through: BlockSeq,
    pub(crate) length: u32,
    pub(crate) records: u32,
    pub(crate) records_crc: u32,
    pub(crate) sealing: bool,
}

impl BlockHeader {
    pub(crate) fn encode(&self, seed: u32, bytes: &mut [u8]) {
        put_u32(bytes, 0, MAGIC);
        put_u64(bytes, 8, self.salt);
        put_u64(bytes, 16, self.file);
        put_u64(bytes, 24, self.offset);
        put_u64(bytes, 32, self.seq.0);
        put_u64(bytes, 40, self.synced_through.0);
        put_u32(bytes, 48, self.length);
        put_u32(bytes, 52, self.records);
        put_u32(bytes, 56, self.records_crc);
        put_u32(bytes, 60, u32::from(self.sealing));
        let crc = seeded_crc(seed, &[&bytes[CRC_FROM..BLOCK_HEADER_BYTES]]);
        put_u32(bytes, 4, crc);
    }

    /// The header, if magic, checksum and bounds are right. What it says is not yet compared
    /// with where it was found.
    pub(crate) fn decode(seed: u32, bytes: &[u8]) -> Option<BlockHeader> {
        let bytes = bytes.get(..BLOCK_HEADER_BYTES)?;
        let mut fields = Reader(bytes);
        let (magic, crc) = (fields.u32()?, fields.u32()?);
        if magic != MAGIC || crc != seeded_crc(seed, &[&bytes[CRC_FROM..]]) {
            return None;
        }
        let header = BlockHeader {
            salt: fields.u64()?,
            file: fields.u64()?,
            offset: fields.u64()?,
            seq: BlockSeq(fields.u64()?),
            synced_through: BlockSeq(fields.u64()?),
            length: fields.u32()?,
            records: fields.u32()?,
            records_crc: fields.u32()?,
            sealing: fields.u32()? != 0,
        };
        (header.length as usize >= BLOCK_HEADER_BYTES).then_some(header)
    }

    /// Whether `bytes` could be the start of any block header: a cheap test for searches.
    pub(crate) fn magic_at(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC.to_le_bytes())
    }

    /// The salt and the file sequence that a block header claims, unchecked.
    pub(crate) fn claimed_salt(bytes: &[u8]) -> Option<(u64, u64)> {
        let mut fields = Reader(bytes.get(8..24)?);
        Some((fields.u64()?, fields.u64()?))
    }
}
