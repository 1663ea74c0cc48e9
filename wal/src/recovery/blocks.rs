//! Blocks as they are found on a disk: nothing they say is believed before it checks.

use std::io;

use common::planted;

use crate::error::is_unreadable;
use crate::files::FIRST_BLOCK;
use crate::format::{
    BLOCK_HEADER_BYTES, BlockHeader, FileHeader, RECORD_HEADER_BYTES, RecordHeader, record_bytes,
    seed,
};
use crate::{AlignedBuf, DiskFile, SECTOR_BYTES};

/// Bytes of one read: large enough for the disk's full speed.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// What a block takes at most in practice: an entry of the largest size and everything with it.
const LARGEST_BLOCK_BYTES: usize = 16 * 1024 * 1024;

/// A valid block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a> {
    pub(crate) header: BlockHeader,
    seed: u32,
    offset: u64,
    /// Without the zeros at the end.
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    /// The block at the start of `bytes`, which are at `offset` of the file, if every byte of it
    /// is what was written there in the file's present life.
    pub(crate) fn parse(bytes: &'a [u8], file: &FileHeader, offset: u64) -> Option<Block<'a>> {
        if !BlockHeader::magic_at(bytes) {
            return None;
        }
        let seed = seed(file.salt, file.sequence);
        let header = BlockHeader::decode(seed, bytes)?;
        let of_this_life = header.salt == file.salt && header.file == file.sequence;
        if header.offset != offset || !(of_this_life || planted::active("recycled-block-accepted"))
        {
            return None;
        }
        let block = Block { header, seed, offset, bytes: bytes.get(..header.length as usize)? };
        block.records_check().then_some(block)
    }

    fn records_check(&self) -> bool {
        let mut crc = crc32fast::Hasher::new_with_initial(self.seed);
        let mut at = BLOCK_HEADER_BYTES;
        for _ in 0..self.header.records {
            let Some((header, payload)) = self.record_at(at) else { return false };
            if header.payload_crc != crc32fast::hash(payload) {
                return false;
            }
            crc.update(&self.bytes[at..at + RECORD_HEADER_BYTES]);
            at += record_bytes(payload.len());
        }
        at == self.bytes.len() && crc.finalize() == self.header.records_crc
    }

    fn record_at(&self, at: usize) -> Option<(RecordHeader, &'a [u8])> {
        let bytes = self.bytes.get(at..)?;
        let header = RecordHeader::decode(self.seed, bytes)?;
        let payload = bytes.get(RECORD_HEADER_BYTES..)?.get(..header.length as usize)?;
        Some((header, payload))
    }

    /// Its records with their payloads and places in the file.
    pub(crate) fn records(self) -> impl Iterator<Item = (RecordHeader, &'a [u8], u64)> {
        let mut at = BLOCK_HEADER_BYTES;
        (0..self.header.records).map_while(move |_| {
            let (header, payload) = self.record_at(at)?;
            let place = self.offset + at as u64;
            at += record_bytes(payload.len());
            Some((header, payload, place))
        })
    }

    /// Bytes it takes in the file.
    pub(crate) fn sectors(&self) -> u64 {
        self.bytes.len().next_multiple_of(SECTOR_BYTES) as u64
    }
}

/// The bytes of a file up to where they matter.
#[derive(Debug)]
pub(crate) struct FileBytes(AlignedBuf, usize);

impl FileBytes {
    /// Sectors that the disk cannot read come back as zeros, that is, without a valid block.
    /// `reused` is memory of an earlier file.
    pub(crate) fn read(
        handle: &dyn DiskFile,
        size: u64,
        reused: Option<FileBytes>,
    ) -> io::Result<FileBytes> {
        let size = size as usize;
        let reused = reused.map(|earlier| earlier.0).filter(|bytes| bytes.len() >= size);
        let mut bytes = reused.unwrap_or_else(|| AlignedBuf::zeroed(size));
        for (at, chunk) in bytes[..size].chunks_mut(READ_BYTES).enumerate() {
            read_or_zero(handle, (at * READ_BYTES) as u64, chunk)?;
        }
        Ok(FileBytes(bytes, size))
    }

    /// Reads again what may be a block that came back wrong; `false` when there is nothing.
    pub(crate) fn read_again(&mut self, handle: &dyn DiskFile, offset: u64) -> io::Result<bool> {
        let start = offset as usize;
        let end = self.1.min(start + LARGEST_BLOCK_BYTES);
        let range = &mut self.0[start..end];
        if range[..SECTOR_BYTES.min(range.len())].iter().all(|byte| *byte == 0) {
            return Ok(false);
        }
        read_or_zero(handle, offset, range)?;
        Ok(true)
    }

    pub(crate) fn all(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

/// Reads a range; where the device reports a medium error, sector by sector, leaving zeros.
pub(crate) fn read_or_zero(handle: &dyn DiskFile, offset: u64, into: &mut [u8]) -> io::Result<()> {
    match handle.read_at(offset, into) {
        Err(error) if is_unreadable(&error) => {}
        result => return result,
    }
    for (at, sector) in into.chunks_mut(SECTOR_BYTES).enumerate() {
        let offset = offset + (at * SECTOR_BYTES) as u64;
        match handle.read_at(offset, sector) {
            Err(error) if is_unreadable(&error) => {
                tracing::warn!(offset, %error, "a sector of a log file cannot be read");
                sector.fill(0);
            }
            result => result?,
        }
    }
    Ok(())
}

/// The bytes of a file's first block, if its header is valid.
pub(crate) fn first_block(
    handle: &dyn DiskFile,
    file: &FileHeader,
    size: u64,
) -> io::Result<Option<AlignedBuf>> {
    let mut sector = AlignedBuf::zeroed(SECTOR_BYTES);
    if size < FIRST_BLOCK + SECTOR_BYTES as u64 {
        return Ok(None);
    }
    read_or_zero(handle, FIRST_BLOCK, &mut sector)?;
    let Some(header) = BlockHeader::decode(seed(file.salt, file.sequence), &sector) else {
        return Ok(None);
    };
    let length = (header.length as usize).next_multiple_of(SECTOR_BYTES);
    if length as u64 > size - FIRST_BLOCK {
        return Ok(None);
    }
    let mut bytes = AlignedBuf::zeroed(length);
    read_or_zero(handle, FIRST_BLOCK, &mut bytes)?;
    Ok(Some(bytes))
}
