//! Reading a log directory back: which blocks are there, which are missing, and who is hit.
//!
//! Files are read in the order of their sequences, each up to the end that the next one's table
//! records, else up to its last valid block. A region without valid blocks is
//!
//! - a *torn tail*, cut, if no later block says that it was durable: nobody was told;
//! - *damage to acknowledged data* if one does. Reading goes on behind it; the record sequences
//!   tell which groups are hit ([`replay`]).
//!
//! Nothing is written here. The same scan serves opening, inspection and repair.

pub(crate) mod blocks;
pub(crate) mod bridge;
pub(crate) mod replay;

use std::io;
use std::sync::Arc;

use common::planted;

use crate::files::{
    FIRST_BLOCK, STORE_NAME, file_name, file_sequence, is_unfinished, spare_number,
};
use crate::format::{
    BlockHeader, FileHeader, HeaderError, PreviousFile, RecordHeader, RecordKind, Table, VERSION,
    decode_store_id, seed,
};
use crate::{AlignedBuf, BlockSeq, Disk, DiskFile, OpenError, SECTOR_BYTES};
use blocks::{Block, FileBytes};
use replay::{Region, Replay, Verdict};

/// What a directory holds.
#[derive(Debug)]
pub(crate) struct Scan {
    /// From the identity file or, before that is written, from the files.
    pub(crate) store_id: Option<u128>,
    pub(crate) has_identity_file: bool,
    /// Files with at least one block, oldest first.
    pub(crate) files: Vec<ScannedFile>,
    /// Log files that no block was acknowledged in.
    pub(crate) empty: Vec<String>,
    pub(crate) spares: Vec<String>,
    pub(crate) unfinished: Vec<String>,
    pub(crate) last_block: BlockSeq,
    pub(crate) torn_bytes: u64,
    pub(crate) verdict: Verdict,
}

/// A log file that was read.
#[derive(Debug)]
pub(crate) struct ScannedFile {
    pub(crate) name: String,
    pub(crate) handle: Arc<dyn DiskFile>,
    pub(crate) header: FileHeader,
    pub(crate) header_damaged: bool,
    pub(crate) size: u64,
    /// Behind the last valid block.
    pub(crate) end: u64,
    /// Whether the last valid block is a sealing one.
    pub(crate) sealed: bool,
    /// Whether a block was begun behind it.
    pub(crate) torn: bool,
    pub(crate) blocks: u64,
    pub(crate) records: u64,
    pub(crate) first_block: BlockSeq,
    pub(crate) last_block: BlockSeq,
    /// Whether any record in it changes which entries a group has.
    pub(crate) changes_entries: bool,
}

/// A log file whose header was read, before its blocks are.
struct Candidate {
    sequence: u64,
    name: String,
    handle: Arc<dyn DiskFile>,
    size: u64,
    header: FileHeader,
    header_damaged: bool,
    /// What its table says of the file before it, if its first block is valid.
    previous: Option<PreviousFile>,
}

pub(crate) fn io_error(operation: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io { operation, source }
}

/// Reads the whole directory.
pub(crate) fn scan(disk: &dyn Disk, expected_store: Option<u128>) -> Result<Scan, OpenError> {
    let names = disk.list().map_err(io_error("list the files"))?;
    let mut scan = Scan {
        store_id: None,
        has_identity_file: false,
        files: Vec::new(),
        empty: Vec::new(),
        spares: names.iter().filter(|name| spare_number(name).is_some()).cloned().collect(),
        unfinished: names.iter().filter(|name| is_unfinished(name)).cloned().collect(),
        last_block: BlockSeq(0),
        torn_bytes: 0,
        verdict: Verdict::default(),
    };
    if names.iter().any(|name| name == STORE_NAME) {
        scan.store_id = read_store_id(disk)?;
        scan.has_identity_file = true;
    }
    let mut candidates = Vec::new();
    for name in &names {
        if let Some(sequence) = file_sequence(name) {
            match candidate(disk, name, sequence)? {
                Some(candidate) => candidates.push(candidate),
                None => scan.empty.push(name.clone()),
            }
        }
    }
    check_store(&mut scan, &candidates, expected_store)?;
    read_blocks(&mut scan, candidates)?;
    if scan.files.is_empty() && scan.has_identity_file {
        return Err(OpenError::Missing { store_id: scan.store_id.unwrap_or_default() });
    }
    Ok(scan)
}

fn read_store_id(disk: &dyn Disk) -> Result<Option<u128>, OpenError> {
    let mut sector = AlignedBuf::zeroed(SECTOR_BYTES);
    let read = disk.open(STORE_NAME).and_then(|file| file.read_at(0, &mut sector));
    read.map_err(io_error("read the identity file"))?;
    match decode_store_id(&sector) {
        Ok(store_id) => Ok(Some(store_id)),
        Err(HeaderError::Version(found)) => Err(version(STORE_NAME, found)),
        Err(HeaderError::Invalid) => {
            tracing::warn!("the identity file is damaged; the log files tell the identity");
            Ok(None)
        }
    }
}

fn version(file: &str, found: u32) -> OpenError {
    OpenError::Version { file: file.to_owned(), found, supported: VERSION }
}

/// Reads a file's header and first block. A file counts only if the sequence in its header is
/// that of its name; one with a damaged header counts if its blocks are of that name.
fn candidate(disk: &dyn Disk, name: &str, sequence: u64) -> Result<Option<Candidate>, OpenError> {
    let handle = disk.open(name).map_err(io_error("open a log file"))?;
    let length = handle.len().map_err(io_error("read a log file"))?;
    let size = length / SECTOR_BYTES as u64 * SECTOR_BYTES as u64;
    if size < FIRST_BLOCK {
        return Ok(None);
    }
    let mut sector = AlignedBuf::zeroed(SECTOR_BYTES);
    blocks::read_or_zero(&*handle, 0, &mut sector).map_err(io_error("read a log file"))?;
    let (header, header_damaged) = match FileHeader::decode(&sector) {
        Ok(header) if header.sequence == sequence => (header, false),
        Ok(_) => return Ok(None),
        Err(HeaderError::Version(found)) => return Err(version(name, found)),
        Err(HeaderError::Invalid) => match header_from_blocks(&*handle, sequence, size)? {
            Some(header) => {
                tracing::warn!(
                    file = name,
                    "the header of a log file is damaged; its blocks are read"
                );
                (header, true)
            }
            None => return Ok(None),
        },
    };
    let first =
        blocks::first_block(&*handle, &header, size).map_err(io_error("read a log file"))?;
    let previous = first.and_then(|bytes| table_of(&bytes, &header)).map(|table| table.previous);
    let name = name.to_owned();
    Ok(Some(Candidate { sequence, name, handle, size, header, header_damaged, previous }))
}

/// Every block says the salt and sequence of its file, and its checksum proves it.
fn header_from_blocks(
    handle: &dyn DiskFile,
    sequence: u64,
    size: u64,
) -> Result<Option<FileHeader>, OpenError> {
    let bytes = FileBytes::read(handle, size, None).map_err(io_error("read a log file"))?;
    for offset in (FIRST_BLOCK..size).step_by(SECTOR_BYTES) {
        let at = &bytes.all()[offset as usize..];
        if !BlockHeader::magic_at(at) {
            continue;
        }
        if let Some((salt, claimed)) = BlockHeader::claimed_salt(at)
            && claimed == sequence
            && BlockHeader::decode(seed(salt, sequence), at).is_some()
        {
            return Ok(Some(FileHeader { store_id: 0, sequence, salt, file_bytes: size }));
        }
    }
    Ok(None)
}

fn table_of(bytes: &[u8], header: &FileHeader) -> Option<Table> {
    let block = Block::parse(bytes, header, FIRST_BLOCK)?;
    let (record, payload, _) = block.records().next()?;
    (record.kind == RecordKind::Table).then(|| Table::decode(payload)).flatten()
}

fn check_store(
    scan: &mut Scan,
    candidates: &[Candidate],
    expected: Option<u128>,
) -> Result<(), OpenError> {
    let identity = scan.store_id.map(|store_id| (STORE_NAME, store_id));
    let headers = candidates
        .iter()
        .filter(|candidate| !candidate.header_damaged)
        .map(|candidate| (candidate.name.as_str(), candidate.header.store_id));
    let mut known = expected;
    for (file, found) in identity.into_iter().chain(headers) {
        if let Some(expected) = known
            && found != expected
        {
            return Err(OpenError::ForeignStore { file: file.to_owned(), found, expected });
        }
        known = Some(found);
        scan.store_id = known;
    }
    Ok(())
}

fn read_blocks(scan: &mut Scan, candidates: Vec<Candidate>) -> Result<(), OpenError> {
    let mut reading = Reading::default();
    let ends: Vec<Option<u64>> = candidates
        .iter()
        .enumerate()
        .map(|(at, candidate)| {
            let mut later = candidates[at + 1..].iter().filter_map(|later| later.previous);
            later.find(|previous| previous.file == candidate.sequence).map(|found| found.end)
        })
        .collect();
    for (candidate, end) in candidates.into_iter().zip(ends) {
        if reading.ended {
            scan.empty.push(candidate.name);
            continue;
        }
        reading.check_follows(&candidate, scan.files.last());
        let scanned = reading.read_file(candidate, end).map_err(io_error("read a log file"))?;
        if let Some(unknown) = reading.unknown.take() {
            return Err(unknown);
        }
        if scanned.blocks == 0 && end.is_none() {
            scan.empty.push(scanned.name);
        } else {
            scan.files.push(scanned);
        }
    }
    scan.torn_bytes = reading.torn_bytes;
    scan.last_block = reading.last;
    scan.verdict = reading.replay.finish();
    Ok(())
}

/// The state of reading blocks in order.
#[derive(Default)]
struct Reading {
    replay: Replay,
    last: BlockSeq,
    /// What lies behind the last valid block of a file whose end no table tells: the next valid
    /// block tells what it is.
    tail: Option<Region>,
    /// Bytes of blocks that were begun and nobody was told of.
    torn_bytes: u64,
    /// Nothing behind counts.
    ended: bool,
    /// What a newer program wrote.
    unknown: Option<OpenError>,
    /// Of the file read before.
    memory: Option<FileBytes>,
}

impl Reading {
    /// Files follow one another as their tables say; one that does not is missing its predecessor.
    fn check_follows(&mut self, candidate: &Candidate, before: Option<&ScannedFile>) {
        let (Some(previous), Some(before)) = (candidate.previous, before) else { return };
        if previous.file > before.header.sequence {
            self.replay.damage(Region {
                file: file_name(previous.file),
                offset: 0,
                end: previous.end,
                expected: self.last.next(),
                reason: "the file is missing".to_owned(),
            });
        }
    }

    /// `end` is where the next file's table says that this one ended.
    fn read_file(&mut self, candidate: Candidate, end: Option<u64>) -> io::Result<ScannedFile> {
        // What lies behind a known end is not even read: a crash leaves a file nearly empty.
        let limit = end.unwrap_or(candidate.size).min(candidate.size);
        let mut bytes = FileBytes::read(&*candidate.handle, limit, self.memory.take())?;
        let mut file = ScannedFile::new(candidate);
        let (mut offset, mut reread) = (FIRST_BLOCK, None);
        while offset < limit {
            if let Some(block) = self.next_block(&bytes, &file, offset) {
                offset += block.sectors();
                self.take(&block, &mut file);
                file.end = offset;
                continue;
            }
            // A bit may have flipped on the way: nothing is cut on a single reading.
            if reread != Some(offset) && bytes.read_again(&*file.handle, offset)? {
                reread = Some(offset);
                continue;
            }
            let found = self.search(&bytes, &file, offset + SECTOR_BYTES as u64, limit);
            let region = Region {
                file: file.name.clone(),
                offset,
                end: found.unwrap_or(limit),
                expected: self.last.next(),
                reason: "no valid block, though a later one vouches for it".to_owned(),
            };
            let vouched = found.and_then(|at| self.next_block(&bytes, &file, at));
            let proven = vouched.is_some_and(|b| b.header.synced_through >= region.expected);
            if planted::active("proven-tail-cut") {
                self.ended = true;
                break;
            }
            if !proven && end.is_none() {
                let tail = &bytes.all()[offset as usize..];
                self.torn_bytes += torn_bytes(tail, &file.header);
                file.torn = found.is_some() || is_begun(tail, &file.header);
                self.tail.get_or_insert(region);
                break;
            }
            if file.blocks == 0 {
                // A file in use has a first block: what is missing is here, not at the end of
                // the file before.
                self.tail = None;
            }
            self.replay.damage(region);
            offset = found.unwrap_or(limit);
        }
        self.memory = Some(bytes);
        Ok(file)
    }

    /// The block at `offset`, if it is one of this file's present life that comes after what was
    /// read before.
    fn next_block<'a>(
        &self,
        bytes: &'a FileBytes,
        file: &ScannedFile,
        offset: u64,
    ) -> Option<Block<'a>> {
        let block = Block::parse(&bytes.all()[offset as usize..], &file.header, offset)?;
        let newer = block.header.seq > self.last || planted::active("recycled-block-accepted");
        newer.then_some(block)
    }

    fn search(&self, bytes: &FileBytes, file: &ScannedFile, from: u64, end: u64) -> Option<u64> {
        (from..end)
            .step_by(SECTOR_BYTES)
            .find(|offset| self.next_block(bytes, file, *offset).is_some())
    }

    fn take(&mut self, block: &Block<'_>, file: &mut ScannedFile) {
        if let Some(region) = self.tail.take()
            && block.header.synced_through >= region.expected
        {
            self.replay.damage(region);
        }
        self.last = self.last.max(block.header.seq);
        if file.blocks == 0 {
            file.first_block = block.header.seq;
        }
        file.last_block = block.header.seq;
        file.sealed = block.header.sealing;
        file.blocks += 1;
        for (record, payload, offset) in block.records() {
            file.records += 1;
            file.changes_entries |=
                record.kind.changes_entries() || tells_a_repair(&record, payload);
            let taken = self.replay.record(&record, payload, file.header.sequence, offset);
            if let Err(what) = taken {
                let file = file.name.clone();
                self.unknown.get_or_insert(OpenError::Unknown { file, offset, what });
            }
        }
    }
}

/// Whether a record says that a repair accepted a loss. Nothing else says so, so its file stays for
/// as long as the file with the hole: without it the hole would look like fresh damage, and what
/// was acknowledged after the repair would be cut with the rest.
fn tells_a_repair(record: &RecordHeader, payload: &[u8]) -> bool {
    let accepts = |table: Table| table.rows.iter().any(|row| row.cut || row.bridged);
    record.kind == RecordKind::Table && Table::decode(payload).is_some_and(accepts)
}

impl ScannedFile {
    fn new(candidate: Candidate) -> Self {
        Self {
            name: candidate.name,
            handle: candidate.handle,
            header: candidate.header,
            header_damaged: candidate.header_damaged,
            size: candidate.size,
            end: FIRST_BLOCK,
            sealed: false,
            torn: false,
            blocks: 0,
            records: 0,
            first_block: BlockSeq(0),
            last_block: BlockSeq(0),
            changes_entries: false,
        }
    }
}

/// Whether a block of the file's present life was begun at the start of `bytes`, as far as its
/// first sector tells.
fn is_begun(bytes: &[u8], file: &FileHeader) -> bool {
    BlockHeader::magic_at(bytes)
        && BlockHeader::claimed_salt(bytes) == Some((file.salt, file.sequence))
}

/// Bytes of the block that was begun at the start of `bytes`, as far as its header tells.
fn torn_bytes(bytes: &[u8], file: &FileHeader) -> u64 {
    match BlockHeader::decode(seed(file.salt, file.sequence), bytes) {
        Some(header) => u64::from(header.length),
        None => 0,
    }
}
