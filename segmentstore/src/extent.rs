//! Extents: where runs of a segment's bytes rest.
//!
//! Bytes come into a segment as extents of the log. Once a round has archived their entries they
//! are extents of objects, and stay so: what rests in objects is always the older part of a segment.

use common::{LogIndex, Offset};
use lts::ObjectName;
use replica::Rested;

use crate::chunked::ChunkItem;
use crate::codec::{CodecError, Fields};

/// A run of a segment's bytes inside the payload of one log entry of the container's group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where the run begins in the segment.
    pub offset: Offset,
    pub index: LogIndex,
    /// Where the run begins in the entry's payload.
    pub start: u32,
    pub bytes: u32,
}

/// A run of a segment's bytes inside one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectExtent {
    /// Where the run begins in the segment.
    pub offset: Offset,
    pub bytes: u32,
    pub rested: Rested,
}

/// A run of a segment's bytes, wherever it is.
pub(crate) trait SegmentRun: ChunkItem {
    fn bytes(&self) -> u32;
    /// The first offset behind the run.
    fn end(&self) -> Offset;
}

impl Extent {
    /// The first offset behind the run.
    pub fn end(&self) -> Offset {
        self.offset.plus(self.bytes.into())
    }

    /// Takes `bytes` more in where they lie directly behind this run in the same entry.
    pub(crate) fn absorb(&mut self, index: LogIndex, start: u32, bytes: u32) -> bool {
        let adjacent = self.index == index && self.start + self.bytes == start;
        if adjacent {
            self.bytes += bytes;
        }
        adjacent
    }
}

impl ObjectExtent {
    /// Bytes of an extent that is put together of others, at most: as much as a reader fetches at
    /// once, and a share of an object, so that one extent keeps no more than that of it alive.
    pub(crate) const BYTES_MAX: u32 = 16 << 20;

    /// Extents below this are small: reading one costs a request that brings little, and many of
    /// them cost memory.
    pub(crate) const SMALL_BELOW: u32 = 1 << 20;

    /// The first offset behind the run.
    pub fn end(&self) -> Offset {
        self.offset.plus(self.bytes.into())
    }

    /// What is lost is of no size: nothing copies it.
    pub(crate) fn is_small(&self) -> bool {
        self.bytes < Self::SMALL_BELOW && self.rested.lost_entry().is_none()
    }

    /// This and `next` as one, where they are neighbours in the segment and in their object and
    /// not too large together.
    pub(crate) fn joined(&self, next: &Self) -> Option<Self> {
        let (rested, bytes) = (self.rested, self.bytes.checked_add(next.bytes)?);
        let neighbours = self.end() == next.offset
            && rested.object == next.rested.object
            && u64::from(rested.offset) + u64::from(self.bytes) == u64::from(next.rested.offset);
        if !neighbours || bytes > Self::BYTES_MAX || rested.lost_entry().is_some() {
            return None;
        }
        let crc = joined_crc(rested.crc, next);
        Some(Self { bytes, rested: Rested { crc, ..rested }, ..*self })
    }
}

/// The checksum of bytes with checksum `crc` and those of `next` behind them.
pub(crate) fn joined_crc(crc: u32, next: &ObjectExtent) -> u32 {
    let mut joined = crc32fast::Hasher::new_with_initial(crc);
    let behind = next.rested.crc;
    joined.combine(&crc32fast::Hasher::new_with_initial_len(behind, next.bytes.into()));
    joined.finalize()
}

impl SegmentRun for Extent {
    fn bytes(&self) -> u32 {
        self.bytes
    }

    fn end(&self) -> Offset {
        Extent::end(self)
    }
}

impl SegmentRun for ObjectExtent {
    fn bytes(&self) -> u32 {
        self.bytes
    }

    fn end(&self) -> Offset {
        ObjectExtent::end(self)
    }
}

impl ChunkItem for Extent {
    const BYTES: usize = 24;

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.0.to_le_bytes());
        out.extend_from_slice(&self.index.0.to_le_bytes());
        out.extend_from_slice(&self.start.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
    }

    fn take(fields: &mut Fields<'_>) -> Result<Self, CodecError> {
        let extent = Self {
            offset: fields.offset("offset")?,
            index: LogIndex(fields.u64("log index")?),
            start: fields.u32("start")?,
            bytes: fields.u32("bytes")?,
        };
        if extent.start.checked_add(extent.bytes).is_none() {
            return Err(CodecError::Impossible { field: "bytes", value: extent.bytes.into() });
        }
        check_end(extent.offset, extent.bytes)?;
        Ok(extent)
    }
}

impl ChunkItem for ObjectExtent {
    const BYTES: usize = 8 + 4 + ObjectName::ENCODED_BYTES + 4 + 4;

    /// offset u64 | bytes u32 | object 26 | offset in it u32 | crc32 u32
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.0.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.rested.object.encode());
        out.extend_from_slice(&self.rested.offset.to_le_bytes());
        out.extend_from_slice(&self.rested.crc.to_le_bytes());
    }

    fn take(fields: &mut Fields<'_>) -> Result<Self, CodecError> {
        let (offset, bytes) = (fields.offset("offset")?, fields.u32("bytes")?);
        let name = fields.bytes(ObjectName::ENCODED_BYTES, "object")?;
        let name = name.try_into().map_err(|_| CodecError::Short { field: "object" })?;
        let rested = Rested {
            object: ObjectName::decode(name),
            offset: fields.u32("offset in the object")?,
            crc: fields.u32("crc32")?,
        };
        if rested.offset.checked_add(bytes).is_none() {
            return Err(CodecError::Impossible { field: "bytes", value: bytes.into() });
        }
        check_end(offset, bytes)?;
        Ok(Self { offset, bytes, rested })
    }
}

fn check_end(offset: Offset, bytes: u32) -> Result<(), CodecError> {
    match offset.0.checked_add(bytes.into()) {
        Some(_) => Ok(()),
        None => Err(CodecError::Impossible { field: "offset", value: offset.0 }),
    }
}
