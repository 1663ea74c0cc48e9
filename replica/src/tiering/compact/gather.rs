//! Gathers pieces that lie scattered in many objects into one buffer.
//!
//! What lies side by side in an object is read at once, with the gaps in between, which may be far
//! more than the pieces: slow segments have a few bytes here and there in objects full of others'.
//! So every read is short, a few are under way at a time, and what they bring is copied to its
//! place and dropped at once: no piece keeps alive what was read around it.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt, TryStreamExt};
use lts::{Bucket, ErrorKind, ObjectName, Operation};

use crate::resting::{Piece, Rested};
use crate::tiering::held::{Held, Holding};
use crate::tiering::{Storage, StorageFailure};

/// Bytes between two pieces that are read with them rather than asked for apart.
const GAP_BYTES: u32 = 64 << 10;
/// Reads at a time.
const READS: usize = 8;
/// Bytes of one read at most, and at least where the budget is small.
const READ_BYTES: u64 = 1 << 20;
const READ_BYTES_LEAST: u64 = 4 << 10;

/// A piece, or a part of one that is longer than a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    object: ObjectName,
    offset: u32,
    bytes: u32,
    /// Where it belongs in the buffer.
    to: usize,
}

const _: () = assert!(size_of::<Piece>() + size_of::<Part>() <= Piece::COST as usize);

/// A range of an object, and what of it is wanted.
#[derive(Debug)]
struct Read {
    object: ObjectName,
    range: Range<u32>,
    parts: Vec<Part>,
}

impl Storage {
    /// The bytes of the pieces, one piece after the other, each checked; and the count of the memory
    /// that they are.
    pub(super) fn gather(&self, pieces: &[Piece]) -> Result<(Bytes, Holding), StorageFailure> {
        let total: usize = pieces.iter().map(|piece| piece.bytes as usize).sum();
        let holding = self.held.hold(total as u64 + pieces.len() as u64 * Piece::COST);
        let reads = reads(pieces, self.read_bytes());
        let into = BytesMut::zeroed(total);
        let read = read_all(self.bucket.clone(), self.held.clone(), reads, into);
        let bytes = self.run(read)??.freeze();
        let mut rest = bytes.clone();
        for piece in pieces {
            self.check(piece.rested, &rest.split_to(piece.bytes as usize))?;
        }
        Ok((bytes, holding))
    }

    /// So many that all reads under way have at most what one compaction copies.
    fn read_bytes(&self) -> u32 {
        let share = self.settings.compaction_bytes_max.bytes() / READS as u64;
        share.clamp(READ_BYTES_LEAST, READ_BYTES) as u32
    }

    fn check(&self, rested: Rested, bytes: &[u8]) -> Result<(), StorageFailure> {
        let computed = crc32fast::hash(bytes);
        if computed == rested.crc {
            return Ok(());
        }
        let Rested { object, offset, crc } = rested;
        let why = format!(
            "the checksum of {} bytes at {offset} is {crc:08x}, they have {computed:08x}",
            bytes.len()
        );
        let (kind, operation) = (ErrorKind::Damaged, Operation::Get);
        Err(lts::Error::new(kind, operation, object, self.bucket.url(), why).into())
    }
}

async fn read_all(
    bucket: Arc<dyn Bucket>,
    held: Held,
    reads: Vec<Read>,
    mut into: BytesMut,
) -> Result<BytesMut, lts::Error> {
    let gets = reads.into_iter().map(|read| {
        let (bucket, held) = (&bucket, &held);
        async move {
            let holding = held.hold(read.range.len() as u64);
            let range = u64::from(read.range.start)..u64::from(read.range.end);
            let bytes = bucket.get(&read.object.into(), range).await?;
            Ok((read, bytes, holding))
        }
    });
    let mut found = stream::iter(gets).buffer_unordered(READS);
    while let Some((read, bytes, _holding)) = found.try_next().await? {
        for Part { offset, bytes: count, to, .. } in read.parts {
            let (from, count) = ((offset - read.range.start) as usize, count as usize);
            into[to..to + count].copy_from_slice(&bytes[from..from + count]);
        }
    }
    drop(found);
    Ok(into)
}

/// Reads of at most `read_bytes` that bring all pieces.
fn reads(pieces: &[Piece], read_bytes: u32) -> Vec<Read> {
    let mut parts: Vec<Part> = Vec::with_capacity(pieces.len());
    let mut to = 0;
    for Piece { rested: Rested { object, offset, .. }, bytes, .. } in pieces {
        for done in (0..*bytes).step_by(read_bytes as usize) {
            let (offset, count) = (offset + done, read_bytes.min(bytes - done));
            parts.push(Part { object: *object, offset, bytes: count, to: to + done as usize });
        }
        to += *bytes as usize;
    }
    parts.sort_unstable();
    let mut reads: Vec<Read> = Vec::new();
    for part in parts {
        let end = part.offset + part.bytes;
        match reads.last_mut() {
            Some(read) if read.reaches(&part) && end - read.range.start <= read_bytes => {
                read.range.end = read.range.end.max(end);
                read.parts.push(part);
            }
            _ => {
                let (object, range) = (part.object, part.offset..end);
                reads.push(Read { object, range, parts: vec![part] });
            }
        }
    }
    reads
}

impl Read {
    /// Whether there is little between this and a part behind it.
    fn reaches(&self, part: &Part) -> bool {
        self.object == part.object && part.offset <= self.range.end.saturating_add(GAP_BYTES)
    }
}
