//! What readers know of an object: where its blocks are, and the checksum of any of its runs.
//!
//! A *block* is a row of whole runs, ended by the one with which it has a mebibyte. Blocks follow
//! from the object's index alone, so that all readers share them, and each can be checked by itself.

use std::ops::Range;

use bytes::Bytes;
use lts::{ObjectName, ObjectPath};
use replica::archive::{ObjectError, PackedIndex, Problem};

use super::crc::Shift;
use crate::extent::ObjectExtent;
use crate::limits::OBJECT_BLOCK_BYTES;

/// See the module.
#[derive(Debug)]
pub(crate) struct ObjectIndex {
    object: ObjectName,
    path: ObjectPath,
    /// Where each run begins, and where the last one ends.
    marks: Vec<Mark>,
    /// The marks at which blocks begin, and the last one.
    blocks: Vec<u32>,
    /// Tells this index from another one under the same name.
    fingerprint: u32,
}

/// A place between runs.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// Its offset in the object.
    at: u32,
    /// CRC-32 of all payload before it.
    crc: u32,
}

/// Why an extent is not what its object holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mismatch {
    #[error(
        "no run of it begins at byte {begin} and none ends at byte {end}, as the segment needs"
    )]
    Tiling { begin: u32, end: u64 },
    #[error(
        "bytes {begin} to {end} of it have checksum {found:08x}, the segment has recorded {recorded:08x}"
    )]
    Checksum { begin: u32, end: u64, recorded: u32, found: u32 },
}

impl ObjectIndex {
    pub(super) fn new(object: ObjectName, packed: &PackedIndex) -> Self {
        let mut fingerprint = crc32fast::Hasher::new();
        let (mut marks, mut blocks) = (Vec::new(), Vec::new());
        let (mut mark, mut block_bytes) = (Mark { at: 0, crc: 0 }, OBJECT_BLOCK_BYTES);
        let mut shift = Shift::by(0);
        for run in packed.runs() {
            if block_bytes >= OBJECT_BLOCK_BYTES {
                blocks.push(marks.len() as u32);
                block_bytes = 0;
            }
            marks.push(Mark { at: run.offset, ..mark });
            shift = shift.and_then_by(run.bytes);
            mark = Mark { at: run.offset + run.bytes, crc: shift.join(mark.crc, run.crc) };
            block_bytes += run.bytes;
            fingerprint.update(&run.bytes.to_le_bytes());
            fingerprint.update(&run.crc.to_le_bytes());
        }
        blocks.push(marks.len() as u32);
        marks.push(mark);
        marks.shrink_to_fit();
        let (path, fingerprint) = (object.into(), fingerprint.finalize());
        Self { object, path, marks, blocks, fingerprint }
    }

    pub(crate) fn object(&self) -> ObjectName {
        self.object
    }

    pub(super) fn path(&self) -> &ObjectPath {
        &self.path
    }

    pub(super) fn fingerprint(&self) -> u32 {
        self.fingerprint
    }

    /// Bytes in memory, about.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.marks) + size_of_val(&*self.blocks)
    }

    /// How many blocks there are.
    pub(crate) fn blocks(&self) -> u32 {
        self.blocks.len() as u32 - 1
    }

    /// Whether the object holds what a segment's state says it does.
    pub(crate) fn check(&self, extent: &ObjectExtent) -> Result<(), Mismatch> {
        let begin = extent.rested.offset;
        let end = u64::from(begin) + u64::from(extent.bytes);
        let marks = self.mark_at(begin.into()).zip(self.mark_at(end));
        let (first, last) = marks.ok_or(Mismatch::Tiling { begin, end })?;
        let found = Shift::by(extent.bytes).split(first.crc, last.crc);
        if found != extent.rested.crc {
            return Err(Mismatch::Checksum { begin, end, recorded: extent.rested.crc, found });
        }
        Ok(())
    }

    fn mark_at(&self, at: u64) -> Option<Mark> {
        let found = self.marks.binary_search_by_key(&at, |mark| mark.at.into());
        found.ok().map(|found| self.marks[found])
    }

    /// The block that holds a byte of the object.
    pub(crate) fn block_at(&self, at: u64) -> Option<u32> {
        let behind = self.blocks.partition_point(|mark| self.offset_of(*mark) <= at);
        let block = behind.checked_sub(1)? as u32;
        (block < self.blocks()).then_some(block)
    }

    /// Where blocks that follow one another lie in the object.
    pub(crate) fn range(&self, blocks: Range<u32>) -> Range<u64> {
        let [begin, end] = [blocks.start, blocks.end].map(|block| self.blocks[block as usize]);
        self.offset_of(begin)..self.offset_of(end)
    }

    /// Bytes of blocks that follow one another.
    pub(crate) fn bytes(&self, blocks: Range<u32>) -> usize {
        let range = self.range(blocks);
        (range.end - range.start) as usize
    }

    fn offset_of(&self, mark: u32) -> u64 {
        self.marks[mark as usize].at.into()
    }

    /// Checks every byte of a block; where it is damaged, says which run is.
    pub(super) fn verify(&self, block: u32, bytes: &Bytes) -> Result<(), ObjectError> {
        let [begin, end] = [block, block + 1].map(|block| self.blocks[block as usize] as usize);
        let (first, last) = (self.marks[begin], self.marks[end]);
        let recorded = Shift::by(last.at - first.at).split(first.crc, last.crc);
        let computed = crc32fast::hash(bytes);
        if recorded == computed {
            return Ok(());
        }
        let error = |recorded, computed| {
            let problem = Problem::PartChecksum { what: "a run", recorded, computed };
            ObjectError { object: self.object, problem }
        };
        for (run, next) in self.marks[begin..end].iter().zip(&self.marks[begin + 1..]) {
            let recorded = Shift::by(next.at - run.at).split(run.crc, next.crc);
            let run = (run.at - first.at) as usize..(next.at - first.at) as usize;
            let computed = crc32fast::hash(&bytes[run]);
            if recorded != computed {
                return Err(error(recorded, computed));
            }
        }
        Err(error(recorded, computed))
    }
}
