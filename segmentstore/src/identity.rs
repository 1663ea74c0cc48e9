//! What a segment is, for as long as anybody asks: fixed at its creation.

use bytes::{BufMut, Bytes};
use common::limits::NAME_BYTES_MAX;
use common::{ContainerId, Fence, Incarnation, KeyRange, ScopedStream, SegmentId, Term};
use proto::v1;

use crate::codec::{CodecError, Fields, PutFields};
use crate::limits::{ATTRIBUTE_VALUE_BYTES_MAX, NEIGHBOURS_MAX};

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SegmentKind {
    /// Events of a stream.
    Stream,
}

/// A segment's own description; disaster recovery makes streams again from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentIdentity {
    pub segment: SegmentId,
    pub stream: ScopedStream,
    pub range: KeyRange,
    pub kind: SegmentKind,
    /// The segments that this one took its keys from.
    pub predecessors: Vec<SegmentId>,
}

/// A segment that goes on where a sealed one ended. Where it is led is looked up when it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    pub segment: SegmentId,
    pub range: KeyRange,
    pub container: ContainerId,
    pub predecessors: Vec<SegmentId>,
}

/// Which step of which controller job a command is, and under which fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommandId {
    pub fence: Fence,
    pub job: u64,
    pub step: u32,
}

/// A change of one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeUpdate {
    pub name: Bytes,
    pub expected: Expected,
    /// `None` removes the attribute.
    pub value: Option<Bytes>,
}

/// What an attribute must be for its update to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    Anything,
    Absent,
    Value(Bytes),
}

impl SegmentKind {
    fn code(self) -> u8 {
        match self {
            SegmentKind::Stream => 1,
        }
    }

    fn of_code(code: u8) -> Result<Self, CodecError> {
        match code {
            1 => Ok(SegmentKind::Stream),
            other => Err(CodecError::Impossible { field: "segment kind", value: other.into() }),
        }
    }
}

impl SegmentIdentity {
    /// segment 16 | scope | stream | range 16 | kind u8 | count u32 | predecessors 16 each
    pub(crate) fn put(&self, out: &mut impl BufMut) {
        out.put_segment(self.segment);
        out.put_stream(&self.stream);
        out.put_range(self.range);
        out.put_u8(self.kind.code());
        out.put_segments(&self.predecessors);
    }

    pub(crate) fn take(fields: &mut Fields<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            segment: fields.segment()?,
            stream: fields.stream()?,
            range: fields.range()?,
            kind: SegmentKind::of_code(fields.u8("segment kind")?)?,
            predecessors: fields.segments(NEIGHBOURS_MAX, "predecessors")?,
        })
    }
}

impl Successor {
    const BYTES_MIN: usize = SegmentId::ENCODED_BYTES + 16 + 8 + 4;

    /// segment 16 | range 16 | container u64 | count u32 | predecessors 16 each
    fn put(&self, out: &mut impl BufMut) {
        out.put_segment(self.segment);
        out.put_range(self.range);
        out.put_u64_le(self.container.0);
        out.put_segments(&self.predecessors);
    }

    fn take(fields: &mut Fields<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            segment: fields.segment()?,
            range: fields.range()?,
            container: fields.container()?,
            predecessors: fields.segments(NEIGHBOURS_MAX, "predecessors")?,
        })
    }

    pub(crate) fn put_all(successors: &[Self], out: &mut impl BufMut) {
        out.put_count(successors.len());
        for successor in successors {
            successor.put(out);
        }
    }

    pub(crate) fn take_all(fields: &mut Fields<'_>) -> Result<Vec<Self>, CodecError> {
        let count = fields.count(NEIGHBOURS_MAX, Self::BYTES_MIN, "successors")?;
        (0..count).map(|_| Self::take(fields)).collect()
    }

    /// As it stands in an answer; the endpoint is the one that the answer comes from.
    pub fn place(&self) -> v1::SegmentPlace {
        v1::SegmentPlace {
            segment: Some(self.segment.into()),
            range: Some(self.range.into()),
            container: self.container.0,
            endpoint: String::new(),
            predecessors: self.predecessors.iter().map(|segment| (*segment).into()).collect(),
        }
    }
}

impl CommandId {
    /// incarnation u16 | term u64 | job u64 | step u32
    pub(crate) fn put(self, out: &mut impl BufMut) {
        out.put_u16_le(self.fence.incarnation.0);
        out.put_u64_le(self.fence.term.0);
        out.put_u64_le(self.job);
        out.put_u32_le(self.step);
    }

    pub(crate) fn take(fields: &mut Fields<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            fence: Fence {
                incarnation: Incarnation(fields.u16("fence incarnation")?),
                term: Term(fields.u64("fence term")?),
            },
            job: fields.u64("job")?,
            step: fields.u32("step")?,
        })
    }

    /// Whether this is the same step of the same job, whoever leads the controller by now.
    pub(crate) fn is_retry_of(self, earlier: Option<Self>) -> bool {
        earlier.is_some_and(|earlier| (earlier.job, earlier.step) == (self.job, self.step))
    }
}

impl AttributeUpdate {
    const BYTES_MIN: usize = 2 + 1 + 1;

    /// name | expected u8 [value] | present u8 [value]
    pub(crate) fn put(&self, out: &mut impl BufMut) {
        out.put_string(&self.name);
        match &self.expected {
            Expected::Anything => out.put_u8(0),
            Expected::Absent => out.put_u8(1),
            Expected::Value(value) => {
                out.put_u8(2);
                out.put_string(value);
            }
        }
        out.put_u8(u8::from(self.value.is_some()));
        if let Some(value) = &self.value {
            out.put_string(value);
        }
    }

    fn take(fields: &mut Fields<'_>) -> Result<Self, CodecError> {
        let name = fields.string(NAME_BYTES_MAX, "attribute name")?;
        let expected = match fields.u8("attribute expectation")? {
            0 => Expected::Anything,
            1 => Expected::Absent,
            2 => Expected::Value(take_value(fields)?),
            value => {
                let field = "attribute expectation";
                return Err(CodecError::Impossible { field, value: value.into() });
            }
        };
        let present = fields.flag("attribute presence")?;
        let value = if present { Some(take_value(fields)?) } else { None };
        Ok(Self { name: Bytes::copy_from_slice(name), expected, value })
    }

    pub(crate) fn take_all(fields: &mut Fields<'_>, max: usize) -> Result<Vec<Self>, CodecError> {
        let count = fields.count(max, Self::BYTES_MIN, "attributes")?;
        (0..count).map(|_| Self::take(fields)).collect()
    }
}

fn take_value(fields: &mut Fields<'_>) -> Result<Bytes, CodecError> {
    fields.string(ATTRIBUTE_VALUE_BYTES_MAX, "attribute value").map(Bytes::copy_from_slice)
}
