//! Compaction: small pieces of many objects, copied next to their neighbours.
//!
//! Pieces of one owner that follow one another become one place in one object. What lies side by
//! side in an object is read at once: pieces of consecutive owners do.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt, TryStreamExt};
use lts::{ErrorKind, ObjectName, Operation};

use super::{NameRange, Storage, StorageFailure};
use crate::archive::{CompactedDraft, Sealed};
use crate::resting::{Compacted, CompactionPlan, Moved, Piece, Rested};

/// Bytes between two pieces that are read with them rather than asked for apart.
const GAP_BYTES: u32 = 64 << 10;
/// Bytes of one run: what a reader has to read for its checksum.
const RUN_BYTES: usize = 1 << 20;
/// Reads at a time.
const READS: usize = 8;

/// A compaction to be made.
pub(crate) struct Compaction {
    pub(crate) names: NameRange,
    pub(crate) plan: CompactionPlan,
}

impl Compaction {
    pub(super) fn perform(self, storage: &Storage) -> Result<Compacted, StorageFailure> {
        let pieces = self.plan.pieces;
        let bytes = storage.read_pieces(&pieces)?;
        let mut draft =
            CompactedDraft::new(storage.settings.round.object_bytes, self.names.first());
        let mut at = 0;
        while at < pieces.len() {
            let count = pieces[at..].windows(2).take_while(|two| follows(&two[0], &two[1])).count();
            let end = at + count + 1;
            draft.push(&pieces[at], (end - at) as u32, runs(&bytes[at..end]));
            at = end;
        }
        let (objects, moved): (Vec<Sealed>, Vec<Moved>) = draft.finish();
        let references = objects.iter().map(|object| object.reference).collect();
        storage.look_lately()?;
        storage.put_all(objects)?;
        Ok(Compacted { objects: references, moved })
    }
}

fn follows(before: &Piece, next: &Piece) -> bool {
    before.owner == next.owner && before.position + u64::from(before.bytes) == next.position
}

/// The bytes of pieces, one after the other, in runs.
fn runs(pieces: &[Bytes]) -> Vec<Bytes> {
    let mut runs = Vec::new();
    let mut open = BytesMut::new();
    for mut piece in pieces.iter().cloned() {
        while open.len() + piece.len() >= RUN_BYTES {
            open.extend_from_slice(&piece.split_to(RUN_BYTES - open.len()));
            runs.push(std::mem::take(&mut open).freeze());
        }
        open.extend_from_slice(&piece);
    }
    if !open.is_empty() {
        runs.push(open.freeze());
    }
    runs
}

/// A range of an object that holds pieces, by their place in the plan.
struct Read {
    object: ObjectName,
    range: Range<u32>,
    pieces: Vec<usize>,
}

impl Storage {
    /// The bytes of the pieces, in their order, each checked.
    fn read_pieces(&self, pieces: &[Piece]) -> Result<Vec<Bytes>, StorageFailure> {
        let reads = reads(pieces);
        let ranges: Vec<_> = reads.iter().map(|read| (read.object, read.range.clone())).collect();
        let bucket = self.bucket.clone();
        let read = async move {
            let gets = ranges.into_iter().map(|(object, range)| {
                let bucket = bucket.clone();
                let range = u64::from(range.start)..u64::from(range.end);
                async move { bucket.get(&object.into(), range).await }
            });
            stream::iter(gets).buffered(READS).try_collect::<Vec<Bytes>>().await
        };
        let found = self.run(read)??;
        let mut bytes = vec![Bytes::new(); pieces.len()];
        for (read, found) in reads.iter().zip(found) {
            for place in &read.pieces {
                let Piece { rested, bytes: length, .. } = pieces[*place];
                let start = (rested.offset - read.range.start) as usize;
                let piece = found.slice(start..start + length as usize);
                self.check(rested, &piece)?;
                bytes[*place] = piece;
            }
        }
        Ok(bytes)
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

fn reads(pieces: &[Piece]) -> Vec<Read> {
    let mut by_object = BTreeMap::<ObjectName, Vec<usize>>::new();
    for (place, piece) in pieces.iter().enumerate() {
        by_object.entry(piece.rested.object).or_default().push(place);
    }
    let mut reads: Vec<Read> = Vec::new();
    for (object, mut places) in by_object {
        places.sort_unstable_by_key(|place| pieces[*place].rested.offset);
        let first = reads.len();
        for place in places {
            let Piece { rested, bytes, .. } = pieces[place];
            let end = rested.offset + bytes;
            match reads[first..].last_mut() {
                Some(read) if rested.offset <= read.range.end.saturating_add(GAP_BYTES) => {
                    read.range.end = read.range.end.max(end);
                    read.pieces.push(place);
                }
                _ => reads.push(Read { object, range: rested.offset..end, pieces: vec![place] }),
            }
        }
    }
    reads
}
