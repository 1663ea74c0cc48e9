//! Extents: where runs of a segment's bytes rest.

use common::{LogIndex, Offset};
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

impl ObjectExtent {
    /// The first offset behind the run.
    pub fn end(&self) -> Offset {
        self.offset.plus(self.bytes.into())
    }
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
        if extent.offset.0.checked_add(extent.bytes.into()).is_none() {
            return Err(CodecError::Impossible { field: "offset", value: extent.offset.0 });
        }
        Ok(extent)
    }
}
