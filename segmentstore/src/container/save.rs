//! The container's saved state: what changed since the last freeze, and back.
//!
//! ```text
//! key                                          value
//! 00                                           container: version u8 | incarnation u16 | term u64
//! 01 segment 16 00                             segment (see `segment`)
//! 01 segment 16 01 chunk u64 big-endian        extents in the log (see `chunked`)
//! 01 segment 16 02 chunk u64 big-endian        time points (see `chunked`)
//! 01 segment 16 03 writer 16 big-endian        writer (see `writers::entry`)
//! 01 segment 16 04 level u8 chunk u64 big-endian
//!                                              time points of a level above 0 (see `time_index`)
//! 01 segment 16 05 chunk u64 big-endian        extents in objects (see `chunked`)
//! ```
//!
//! Keys sort so that a segment comes before its parts. What is copied follows what changed, not
//! what is there: full chunks were encoded when they became full. See `unsaved` for when.

use bytes::{BufMut, Bytes};
use common::{Fence, Incarnation, SegmentId, Term, WriterId};
use replica::{Change, RestoreError, Slice};

use super::segment::Segment;
use super::unsaved::Part;
use super::writers::Trace;
use super::{ContainerMachine, Oldest};
use crate::chunked::ChunkChange;
use crate::codec::{CodecError, Fields, written};
use crate::shared::{Bounds, ReadState};

const CONTAINER_KEY: [u8; 1] = [0];
const SEGMENT_PREFIX: u8 = 1;
const RECORD: u8 = 0;
const EXTENTS: u8 = 1;
const TIMES: u8 = 2;
const WRITERS: u8 = 3;
const OLDER_TIMES: u8 = 4;
const OBJECTS: u8 = 5;
const VERSION: u8 = 1;

fn key(segment: SegmentId, part: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + SegmentId::ENCODED_BYTES + 1 + rest.len());
    key.push(SEGMENT_PREFIX);
    key.extend_from_slice(&segment.encode());
    key.push(part);
    key.extend_from_slice(rest);
    key
}

fn writer_key(segment: SegmentId, writer: WriterId) -> Vec<u8> {
    key(segment, WRITERS, &writer.0.to_be_bytes())
}

pub(super) fn writer_change(segment: SegmentId, writer: WriterId, trace: Option<Trace>) -> Change {
    Change { key: writer_key(segment, writer), value: trace.map(|trace| trace.encode()) }
}

pub(super) fn extents_change(segment: SegmentId, (chunk, value): ChunkChange) -> Change {
    let key = key(segment, EXTENTS, &chunk.to_be_bytes());
    Change { key, value: value.map(Bytes::from) }
}

pub(super) fn objects_change(segment: SegmentId, (chunk, value): ChunkChange) -> Change {
    let key = key(segment, OBJECTS, &chunk.to_be_bytes());
    Change { key, value: value.map(Bytes::from) }
}

/// Level 0 has had a part of its own before there were others.
pub(super) fn times_change(
    segment: SegmentId,
    level: usize,
    (chunk, value): ChunkChange,
) -> Change {
    let value = value.map(Bytes::from);
    if level == 0 {
        return Change { key: key(segment, TIMES, &chunk.to_be_bytes()), value };
    }
    let mut place = [0; 9];
    place[0] = level as u8;
    place[1..].copy_from_slice(&chunk.to_be_bytes());
    Change { key: key(segment, OLDER_TIMES, &place), value }
}

/// Copies a segment's own record and what is not full of its chunks.
pub(super) fn copy_segment(segment: &mut Segment, mut copied: impl FnMut(Change)) {
    let id = segment.identity.segment;
    copied(Change { key: key(id, RECORD, &[]), value: Some(segment.encode()) });
    if let Some(chunk) = segment.shared.lock().extents.save() {
        copied(extents_change(id, chunk));
    }
    if let Some(chunk) = segment.shared.lock().objects.save() {
        copied(objects_change(id, chunk));
    }
    segment.shared.lock().times.save(|level, chunk| copied(times_change(id, level, chunk)));
}

impl ContainerMachine {
    pub(super) fn freeze_parts(&mut self) {
        self.marks.unsaved.freeze();
        if std::mem::take(&mut self.fence_changed) {
            let value = written(11, |out| {
                out.put_u8(VERSION);
                out.put_u16_le(self.fence.incarnation.0);
                out.put_u64_le(self.fence.term.0);
            });
            self.marks.unsaved.keep(Change { key: CONTAINER_KEY.to_vec(), value: Some(value) });
        }
    }

    pub(super) fn copy_parts(&mut self, slice: &mut Slice) -> bool {
        while let Some(part) = self.marks.unsaved.next_frozen(slice) {
            self.copy_part(part, |change| slice.push(change));
        }
        self.marks.unsaved.is_copied()
    }

    /// Copies what still waits of a segment that is about to go.
    pub(super) fn copy_all_of(&mut self, segment: SegmentId) {
        while let Some(part) = self.marks.unsaved.frozen_part_of(segment) {
            if self.marks.unsaved.thaw(part) {
                let mut copies = Vec::new();
                self.copy_part(part, |change| copies.push(change));
                copies.into_iter().for_each(|change| self.marks.unsaved.keep(change));
            }
        }
    }

    /// A part that is gone is removed from the saved state.
    fn copy_part(&mut self, (id, writer): Part, mut copied: impl FnMut(Change)) {
        match (self.segments.get_mut(&id), writer) {
            (Some(segment), None) => copy_segment(segment, copied),
            (None, None) => copied(Change { key: key(id, RECORD, &[]), value: None }),
            (segment, Some(writer)) => {
                let trace = segment.and_then(|segment| segment.writers.trace(writer));
                copied(writer_change(id, writer, trace));
            }
        }
    }

    pub(super) fn load(
        &mut self,
        pairs: &mut dyn Iterator<Item = (Bytes, Bytes)>,
    ) -> Result<(), RestoreError> {
        for (key, value) in pairs {
            self.load_pair(&key, &value).map_err(|error| {
                let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
                RestoreError::new(format!("record `{key}` of {}: {error}", self.container))
            })?;
        }
        for segment in self.segments.values_mut() {
            let mut state = segment.shared.lock();
            state.times.truncate(segment.record.start, |_, _| {});
            state.settle().map_err(|problem| {
                let id = segment.identity.segment;
                RestoreError::new(format!("extents of segment `{id}` {problem}"))
            })?;
            for extent in state.objects.items() {
                self.marks.objects.take(extent.rested.object, extent.bytes);
            }
            drop(state);
            self.marks.has_other_extents(&segment.shared);
        }
        self.oldest_live.set(Oldest::Stale);
        Ok(())
    }

    fn load_pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), CodecError> {
        if key == CONTAINER_KEY {
            return self.load_container(value);
        }
        let mut fields = Fields::new(key);
        let prefix = fields.u8("key prefix")?;
        if prefix != SEGMENT_PREFIX {
            return Err(CodecError::Impossible { field: "key prefix", value: prefix.into() });
        }
        let (id, part) = (fields.segment()?, fields.u8("key part")?);
        if part == RECORD {
            fields.end()?;
            return self.load_segment(id, value);
        }
        let missing = CodecError::Impossible { field: "key of a segment without record", value: 0 };
        let segment = self.segments.get_mut(&id).ok_or(missing)?;
        match part {
            EXTENTS => segment.shared.lock().extents.restore(value),
            OBJECTS => segment.shared.lock().objects.restore(value),
            TIMES => segment.shared.lock().times.restore(0, value),
            OLDER_TIMES => {
                let level = fields.u8("level")?;
                segment.shared.lock().times.restore(level, value)
            }
            WRITERS => {
                let bytes = fields.bytes(16, "writer")?;
                let bytes = bytes.try_into().map_err(|_| CodecError::Short { field: "writer" })?;
                let writer = WriterId(u128::from_be_bytes(bytes));
                segment.writers.put(writer, Trace::decode(value)?);
                self.marks.reschedule(id, &mut segment.writers);
                Ok(())
            }
            other => Err(CodecError::Kind(other)),
        }
    }

    fn load_container(&mut self, value: &[u8]) -> Result<(), CodecError> {
        let mut fields = Fields::new(value);
        let version = fields.u8("version")?;
        if version != VERSION {
            return Err(CodecError::Version(version));
        }
        self.fence = Fence {
            incarnation: Incarnation(fields.u16("incarnation")?),
            term: Term(fields.u64("term")?),
        };
        fields.end()
    }

    fn load_segment(&mut self, id: SegmentId, value: &[u8]) -> Result<(), CodecError> {
        let (identity, record) = Segment::decode(value)?;
        if identity.segment != id {
            return Err(CodecError::Impossible {
                field: "segment",
                value: identity.segment.stream.0,
            });
        }
        let state = ReadState::with_bounds(Bounds {
            start: record.start,
            length: record.length,
            sealed: record.successors.is_some(),
            deleted: record.deleted,
        });
        let segment = self.new_segment(identity, record, state);
        self.segments.insert(id, segment);
        Ok(())
    }
}
