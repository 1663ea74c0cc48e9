//! Between wire messages and the vocabulary of `common`. What a peer sent is checked here: a
//! missing or impossible value is an error that names the field.

use common::{
    Attempt, ContainerId, CutCoverage, KeyRange, SegmentId, SegmentNumber, StreamCut, StreamEpoch,
    StreamId, WriterEpoch, WriterId, WriterSession,
};

use crate::v1;

/// A field of a message that is missing or impossible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}` {problem}")]
pub struct FieldError {
    pub field: &'static str,
    pub problem: &'static str,
}

impl FieldError {
    pub const fn missing(field: &'static str) -> Self {
        Self { field, problem: "is missing" }
    }
}

impl From<SegmentId> for v1::SegmentId {
    fn from(id: SegmentId) -> Self {
        Self { stream: id.stream.0, epoch: id.epoch.0, number: id.number.0 }
    }
}

impl From<v1::SegmentId> for SegmentId {
    fn from(id: v1::SegmentId) -> Self {
        Self {
            stream: StreamId(id.stream),
            epoch: StreamEpoch(id.epoch),
            number: SegmentNumber(id.number),
        }
    }
}

/// The segment id in a message field that must be there.
pub fn segment_id(id: Option<v1::SegmentId>) -> Result<SegmentId, FieldError> {
    id.map(SegmentId::from).ok_or(FieldError::missing("segment"))
}

impl From<WriterSession> for v1::WriterSession {
    fn from(session: WriterSession) -> Self {
        Self { epoch: session.epoch.0, attempt: session.attempt.0 }
    }
}

impl From<v1::WriterSession> for WriterSession {
    fn from(session: v1::WriterSession) -> Self {
        Self { epoch: WriterEpoch(session.epoch), attempt: Attempt(session.attempt) }
    }
}

impl From<KeyRange> for v1::KeyRange {
    fn from(range: KeyRange) -> Self {
        Self { low: range.low(), high: range.high() }
    }
}

/// The key range in a message field that must be there.
pub fn key_range(range: Option<v1::KeyRange>) -> Result<KeyRange, FieldError> {
    let range = range.ok_or(FieldError::missing("range"))?;
    KeyRange::new(range.low, range.high)
        .ok_or(FieldError { field: "range", problem: "has its low end above its high end" })
}

impl From<CutCoverage> for v1::CutCoverage {
    fn from(covers: CutCoverage) -> Self {
        match covers {
            CutCoverage::Everything => Self::default(),
            CutCoverage::Keys(range) => Self { keys: Some(range.into()), segments: false },
            CutCoverage::Segments => Self { keys: None, segments: true },
        }
    }
}

/// What a cut covers, as a message field says it; absent: everything.
pub fn cut_coverage(covers: Option<v1::CutCoverage>) -> Result<CutCoverage, FieldError> {
    match covers.unwrap_or_default() {
        v1::CutCoverage { keys: None, segments: false } => Ok(CutCoverage::Everything),
        v1::CutCoverage { keys: None, segments: true } => Ok(CutCoverage::Segments),
        v1::CutCoverage { keys, segments: false } => Ok(CutCoverage::Keys(key_range(keys)?)),
        _ => Err(FieldError { field: "covers", problem: "names both keys and segments" }),
    }
}

/// The offsets of a cut.
pub fn cut_offsets(cut: &StreamCut) -> Vec<v1::SegmentOffset> {
    let offset = |(segment, offset): (SegmentId, common::Offset)| v1::SegmentOffset {
        segment: Some(segment.into()),
        offset: offset.0,
    };
    cut.segments().map(offset).collect()
}

/// The writer id in a message field: 16 bytes, big-endian.
pub fn writer_id(bytes: &[u8]) -> Result<WriterId, FieldError> {
    let bytes: [u8; 16] = bytes
        .try_into()
        .map_err(|_| FieldError { field: "writer", problem: "is not 16 bytes long" })?;
    Ok(WriterId(u128::from_be_bytes(bytes)))
}

/// A writer id as it stands in a message field.
pub fn writer_bytes(writer: WriterId) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(&writer.0.to_be_bytes())
}

/// A segment, its range, its container and where that is led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentPlace {
    pub segment: SegmentId,
    pub range: KeyRange,
    pub container: ContainerId,
    /// `host:port`; empty: the endpoint that gave the answer.
    pub endpoint: String,
    pub predecessors: Vec<SegmentId>,
}

impl From<SegmentPlace> for v1::SegmentPlace {
    fn from(place: SegmentPlace) -> Self {
        Self {
            segment: Some(place.segment.into()),
            range: Some(place.range.into()),
            container: place.container.0,
            endpoint: place.endpoint,
            predecessors: place.predecessors.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::SegmentPlace> for SegmentPlace {
    type Error = FieldError;

    fn try_from(place: v1::SegmentPlace) -> Result<Self, FieldError> {
        Ok(Self {
            segment: segment_id(place.segment)?,
            range: key_range(place.range)?,
            container: ContainerId(place.container),
            endpoint: place.endpoint,
            predecessors: place.predecessors.into_iter().map(Into::into).collect(),
        })
    }
}
