//! The first sector of a log file, and the identity file of the directory.

use crate::SECTOR_BYTES;

use super::{Reader, put_u32, put_u64, seeded_crc};

pub(crate) const VERSION: u32 = 1;

const FILE_MAGIC: u64 = u64::from_le_bytes(*b"BRAIDWAL");
const STORE_MAGIC: u64 = u64::from_le_bytes(*b"BRAIDSTO");
const CRC_AT: usize = 12;

/// `magic u64 | version u32 | crc u32 | store u128 | sequence u64 | salt u64 | file bytes u64 |
/// zeros`. The crc covers the rest of the sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) store_id: u128,
    pub(crate) sequence: u64,
    pub(crate) salt: u64,
    pub(crate) file_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// Not a header, or a damaged one.
    Invalid,
    /// A sound header of another format version.
    Version(u32),
}

impl FileHeader {
    pub(crate) fn encode(&self, sector: &mut [u8]) {
        sector.fill(0);
        put_u64(sector, 0, FILE_MAGIC);
        put_u32(sector, 8, VERSION);
        sector[16..32].copy_from_slice(&self.store_id.to_le_bytes());
        put_u64(sector, 32, self.sequence);
        put_u64(sector, 40, self.salt);
        put_u64(sector, 48, self.file_bytes);
        seal(sector);
    }

    pub(crate) fn decode(sector: &[u8]) -> Result<FileHeader, HeaderError> {
        let mut fields = open(sector, FILE_MAGIC)?;
        let header = (|| {
            Some(FileHeader {
                store_id: fields.u128()?,
                sequence: fields.u64()?,
                salt: fields.u64()?,
                file_bytes: fields.u64()?,
            })
        })();
        header.ok_or(HeaderError::Invalid)
    }
}

/// The identity file: `magic u64 | version u32 | crc u32 | store u128 | zeros`.
pub(crate) fn encode_store_id(store_id: u128, sector: &mut [u8]) {
    sector.fill(0);
    put_u64(sector, 0, STORE_MAGIC);
    put_u32(sector, 8, VERSION);
    sector[16..32].copy_from_slice(&store_id.to_le_bytes());
    seal(sector);
}

pub(crate) fn decode_store_id(sector: &[u8]) -> Result<u128, HeaderError> {
    open(sector, STORE_MAGIC)?.u128().ok_or(HeaderError::Invalid)
}

fn seal(sector: &mut [u8]) {
    let crc = checksum(sector);
    put_u32(sector, CRC_AT, crc);
}

fn checksum(sector: &[u8]) -> u32 {
    seeded_crc(0, &[&sector[..CRC_AT], &sector[CRC_AT + 4..SECTOR_BYTES]])
}

/// Checks magic, checksum and version, in this order of what may be said.
fn open(sector: &[u8], magic: u64) -> Result<Reader<'_>, HeaderError> {
    let mut fields = Reader(sector);
    let lead = (|| Some((fields.u64()?, fields.u32()?, fields.u32()?)))();
    match lead {
        Some((found, version, crc)) if found == magic && crc == checksum(sector) => {
            if version == VERSION { Ok(fields) } else { Err(HeaderError::Version(version)) }
        }
        _ => Err(HeaderError::Invalid),
    }
}
