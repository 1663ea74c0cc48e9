//! A block being filled, and one on its way to the disk.

use std::io;
use std::sync::Arc;

use common::GroupId;

use crate::files::LogFile;
use crate::format::{
    BLOCK_HEADER_BYTES, BlockHeader, RECORD_HEADER_BYTES, RecordHeader, RecordKind, record_bytes,
};
use crate::{AlignedBuf, BlockSeq, Disk, SECTOR_BYTES};

/// Copied and checksummed at a time, so that the checksum reads what the copy left in the cache.
const COPY_BYTES: usize = 16 * 1024;

/// The block that takes records. Its place in its file is fixed; its end is not.
#[derive(Debug)]
pub(crate) struct OpenBlock {
    pub(crate) seq: BlockSeq,
    pub(crate) file: Arc<LogFile>,
    pub(crate) offset: u64,
    pub(crate) length: usize,
    /// Groups with a record in it, each once.
    pub(crate) touched: Vec<GroupId>,
    pub(crate) buffer: AlignedBuf,
    records: u32,
    records_crc: crc32fast::Hasher,
    sealing: bool,
}

/// A block that takes no more records and waits for the one before it.
#[derive(Debug)]
pub(crate) struct ClosedBlock {
    pub(crate) seq: BlockSeq,
    pub(crate) file: Arc<LogFile>,
    pub(crate) offset: u64,
    /// Whole sectors.
    pub(crate) bytes: usize,
    pub(crate) buffer: AlignedBuf,
    header: BlockHeader,
}

/// Room that a block keeps for the record of commit indexes.
pub(crate) const fn commits_bytes(groups: usize) -> usize {
    record_bytes(16 * groups)
}

impl OpenBlock {
    pub(crate) fn new(
        seq: BlockSeq,
        file: Arc<LogFile>,
        offset: u64,
        buffer: AlignedBuf,
        mut touched: Vec<GroupId>,
    ) -> Self {
        touched.clear();
        Self {
            seq,
            records_crc: crc32fast::Hasher::new_with_initial(file.seed),
            file,
            offset,
            length: BLOCK_HEADER_BYTES,
            touched,
            buffer,
            records: 0,
            sealing: false,
        }
    }

    pub(crate) fn mark_sealing(&mut self) {
        self.sealing = true;
    }

    /// Copies a record in; its payload is `parts` one after the other, the first of them an
    /// entry's context. Returns where the record is in the file.
    pub(crate) fn push(&mut self, mut header: RecordHeader, parts: [&[u8]; 2]) -> u64 {
        let length = parts[0].len() + parts[1].len();
        let (start, end) = (self.length, self.length + record_bytes(length));
        self.buffer.grow(end);
        let mut at = start + RECORD_HEADER_BYTES;
        let mut crc = crc32fast::Hasher::new();
        for chunk in parts.into_iter().flat_map(|part| part.chunks(COPY_BYTES)) {
            let copied = &mut self.buffer[at..at + chunk.len()];
            copied.copy_from_slice(chunk);
            crc.update(copied);
            at += chunk.len();
        }
        self.buffer[at..end].fill(0);
        header.payload_crc = crc.finalize();
        header.length = length as u32;
        header.context_length = parts[0].len() as u32;
        let bytes = &mut self.buffer[start..start + RECORD_HEADER_BYTES];
        header.encode(self.file.seed, bytes);
        self.records_crc.update(bytes);
        self.records += 1;
        self.length = end;
        self.offset + start as u64
    }

    /// The newest commit indexes, as the last record.
    pub(crate) fn push_commits(&mut self, commits: &[u8]) {
        if !commits.is_empty() {
            let header = RecordHeader::new(RecordKind::Commits, GroupId(0), 0);
            self.push(header, [&[], commits]);
        }
    }

    pub(crate) fn close(mut self) -> (ClosedBlock, Vec<GroupId>) {
        let bytes = self.length.next_multiple_of(SECTOR_BYTES);
        self.buffer[self.length..bytes].fill(0);
        let header = BlockHeader {
            salt: self.file.salt,
            file: self.file.sequence,
            offset: self.offset,
            seq: self.seq,
            synced_through: BlockSeq(0),
            length: self.length as u32,
            records: self.records,
            records_crc: self.records_crc.finalize(),
            sealing: self.sealing,
        };
        let closed = ClosedBlock {
            seq: self.seq,
            file: self.file,
            offset: self.offset,
            bytes,
            buffer: self.buffer,
            header,
        };
        (closed, self.touched)
    }
}

impl ClosedBlock {
    /// Fills in what is durable now, which makes the block final.
    pub(crate) fn issue(mut self, disk: Arc<dyn Disk>, synced_through: BlockSeq) -> BlockWrite {
        self.header.synced_through = synced_through;
        self.header.encode(self.file.seed, &mut self.buffer[..BLOCK_HEADER_BYTES]);
        BlockWrite {
            seq: self.seq,
            disk,
            file: self.file,
            offset: self.offset,
            bytes: self.bytes,
            buffer: Arc::new(self.buffer),
        }
    }
}

/// One block on its way to the disk. Perform it, then hand it to [`crate::Log::finish_write`].
#[derive(Debug)]
pub struct BlockWrite {
    pub(crate) seq: BlockSeq,
    pub(crate) file: Arc<LogFile>,
    pub(crate) offset: u64,
    pub(crate) bytes: usize,
    pub(crate) buffer: Arc<AlignedBuf>,
    disk: Arc<dyn Disk>,
}

impl BlockWrite {
    /// Bytes to be written.
    #[expect(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub fn len(&self) -> usize {
        self.bytes
    }

    pub fn seq(&self) -> BlockSeq {
        self.seq
    }

    /// The only I/O of the append path: one write, and before the first block of a file that
    /// was not prepared, putting that file into use. An error is final for the log.
    pub fn perform(&mut self) -> io::Result<()> {
        self.file.activate(&*self.disk)?;
        self.file.handle.write_at(self.offset, &self.buffer[..self.bytes])
    }
}
