//! The container's saved state: what changed since the last freeze, and back.
//!
//! ```text
//! key                                          value
//! 00                                           container: version u8 | incarnation u16 | term u64
//! 01 segment 16 00                             segment (see `segment`)
//! 01 segment 16 01 chunk u64 big-endian        extents (see `chunked`)
//! 01 segment 16 02 chunk u64 big-endian        time points (see `chunked`)
//! 01 segment 16 03 writer 16 big-endian        writer (see `writers`)
//! ```
//!
//! Keys sort so that a segment comes before its parts. The work of a freeze follows what changed,
//! not what is there: full chunks were encoded when they became full.

use bytes::{BufMut, Bytes};
use common::{Fence, Incarnation, SegmentId, Term, WriterId};
use replica::{Change, RestoreError};

use super::expire::schedule;
use super::segment::Segment;
use super::writers::Writer;
use super::{ContainerMachine, Oldest};
use crate::codec::{CodecError, Fields, written};
use crate::shared::{Bounds, ReadState};

const CONTAINER_KEY: [u8; 1] = [0];
const SEGMENT_PREFIX: u8 = 1;
const RECORD: u8 = 0;
pub(super) const EXTENTS: u8 = 1;
pub(super) const TIMES: u8 = 2;
const WRITERS: u8 = 3;
const VERSION: u8 = 1;

fn key(segment: SegmentId, part: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + SegmentId::ENCODED_BYTES + 1 + rest.len());
    key.push(SEGMENT_PREFIX);
    key.extend_from_slice(&segment.encode());
    key.push(part);
    key.extend_from_slice(rest);
    key
}

pub(super) fn chunk_key(segment: SegmentId, part: u8, chunk: u64) -> Vec<u8> {
    key(segment, part, &chunk.to_be_bytes())
}

fn writer_key(segment: SegmentId, writer: WriterId) -> Vec<u8> {
    key(segment, WRITERS, &writer.0.to_be_bytes())
}

/// What removes a tombstone from the saved state.
pub(super) fn removal(tombstone: &mut Segment) -> Vec<Change> {
    let id = tombstone.identity.segment;
    // Removed writers that were not saved yet, first.
    let mut keys = Vec::new();
    tombstone.writers.save(|writer, _| keys.push(writer_key(id, writer)));
    keys.extend(tombstone.writers.iter().map(|(writer, _)| writer_key(id, writer)));
    keys.push(key(id, RECORD, &[]));
    keys.into_iter().map(|key| Change { key, value: None }).collect()
}

impl ContainerMachine {
    pub(super) fn save(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.changes);
        if std::mem::take(&mut self.fence_dirty) {
            let value = written(11, |out| {
                out.put_u8(VERSION);
                out.put_u16_le(self.fence.incarnation.0);
                out.put_u64_le(self.fence.term.0);
            });
            changes.push(Change { key: CONTAINER_KEY.to_vec(), value: Some(value) });
        }
        for id in std::mem::take(&mut self.dirty) {
            if let Some(segment) = self.segments.get_mut(&id).filter(|segment| segment.dirty) {
                save_segment(segment, &mut changes);
            }
        }
        changes
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
            let (start, length) = (segment.record.start, segment.record.length);
            segment.shared.lock().truncate(start, |_| {});
            segment.times.truncate(start, |_| {});
            let end = segment.shared.lock().extents.last().map_or(start, |last| last.end());
            if end != length {
                let id = segment.identity.segment;
                let detail =
                    format!("extents of segment `{id}` end at {end}, its length is {length}");
                return Err(RestoreError::new(detail));
            }
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
            TIMES => segment.times.points.restore(value),
            WRITERS => {
                let bytes = fields.bytes(16, "writer")?;
                let bytes = bytes.try_into().map_err(|_| CodecError::Short { field: "writer" })?;
                let writer = WriterId(u128::from_be_bytes(bytes));
                let mut entry = Writer::decode(value)?;
                schedule(&mut self.due, id, writer, None, &mut entry);
                segment.writers.restore(writer, entry);
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

fn save_segment(segment: &mut Segment, changes: &mut Vec<Change>) {
    let id = segment.identity.segment;
    segment.dirty = false;
    changes.push(Change { key: key(id, RECORD, &[]), value: Some(segment.encode()) });
    let extents = segment.shared.lock().extents.save();
    for (part, chunk) in [(EXTENTS, extents), (TIMES, segment.times.points.save())] {
        if let Some((chunk, value)) = chunk {
            changes.push(Change { key: chunk_key(id, part, chunk), value: value.map(Bytes::from) });
        }
    }
    segment
        .writers
        .save(|writer, value| changes.push(Change { key: writer_key(id, writer), value }));
}
