//! The operations of a container as they stand in the log: fixed little-endian headers, version and
//! kind first.
//!
//! ```text
//! create      1 1 | command 22 | identity
//! open        1 2 | writer 16 | session 12 | named u8 | count u32 | { segment 16 | resuming u8 }*
//! append      1 3 | segment 16 | writer 16 | session 12 | previous u64 | last u64 | events u32
//!                 | conditional u8 | expected offset u64 (0 where unconditional)
//! seal        1 4 | command 22 | segment 16 | count u32 | successors
//! truncate    1 5 | command 22 | segment 16 | offset u64
//! delete      1 6 | command 22 | segment 16
//! forget      1 7 | command 22 | segment 16
//! attributes  1 8 | command 22 | segment 16 | count u32 | updates
//! expire      1 9 | count u32 | { segment 16 | writer 16 }*
//! ```
//!
//! Segment ids are in their own encoding (big-endian, so that they sort). The payload of an append
//! is not part of its header: apply never looks at it. Headers are made from typed values that were
//! checked before, so that whatever is proposed can be decoded by every replica; the golden tests
//! keep the bytes of each kind.

use bytes::{BufMut, Bytes};
use common::{EventNumber, Offset, SegmentId, WriterId, WriterSession};

use crate::codec::{CodecError, Fields, PutFields, written};
use crate::identity::{AttributeUpdate, CommandId, SegmentIdentity, Successor};
use crate::limits::{ATTRIBUTES_MAX, EXPIRE_WRITERS_MAX};

const VERSION: u8 = 1;

mod kind {
    pub(super) const CREATE: u8 = 1;
    pub(super) const OPEN: u8 = 2;
    pub(super) const APPEND: u8 = 3;
    pub(super) const SEAL: u8 = 4;
    pub(super) const TRUNCATE: u8 = 5;
    pub(super) const DELETE: u8 = 6;
    pub(super) const FORGET: u8 = 7;
    pub(super) const ATTRIBUTES: u8 = 8;
    pub(super) const EXPIRE: u8 = 9;
}

/// One change to a container's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Append(Append),
    Open(Open),
    Command(CommandId, Command),
    Expire(Vec<(SegmentId, WriterId)>),
}

/// A block of events of one writer for one segment: stored whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Append {
    pub segment: SegmentId,
    pub writer: WriterId,
    pub session: WriterSession,
    /// The last number sent to this segment before this block: the chain.
    pub previous: EventNumber,
    pub last: EventNumber,
    /// Events in the block, for rates.
    pub events: u32,
    /// Store only at this length.
    pub expected_offset: Option<Offset>,
}

/// Raises a writer's session on a list of segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    pub writer: WriterId,
    pub session: WriterSession,
    pub named: bool,
    pub segments: Vec<OpenSegment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenSegment {
    pub segment: SegmentId,
    /// A block was once sent to this segment: no entry there means that it expired.
    pub resuming: bool,
}

/// What the controller tells a container to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Create(Box<SegmentIdentity>),
    Seal {
        segment: SegmentId,
        successors: Vec<Successor>,
    },
    Truncate {
        segment: SegmentId,
        offset: Offset,
    },
    /// Leaves a tombstone.
    Delete {
        segment: SegmentId,
    },
    /// Removes a tombstone.
    Forget {
        segment: SegmentId,
    },
    /// All of the updates or none.
    UpdateAttributes {
        segment: SegmentId,
        updates: Vec<AttributeUpdate>,
    },
}

impl Operation {
    /// The header of this operation.
    pub fn encode(&self) -> Bytes {
        match self {
            Operation::Append(append) => written(Append::BYTES, |out| append.put(out)),
            Operation::Open(open) => written(64 + 17 * open.segments.len(), |out| open.put(out)),
            Operation::Command(id, command) => written(128, |out| command.put(*id, out)),
            Operation::Expire(writers) => written(8 + 32 * writers.len(), |out| {
                put_kind(out, kind::EXPIRE);
                out.put_count(writers.len());
                for (segment, writer) in writers {
                    out.put_segment(*segment);
                    out.put_u128_le(writer.0);
                }
            }),
        }
    }

    /// Reads a header; anything but exactly one known operation is an error.
    pub fn decode(header: &[u8]) -> Result<Self, CodecError> {
        let mut fields = Fields::new(header);
        let version = fields.u8("version")?;
        if version != VERSION {
            return Err(CodecError::Version(version));
        }
        let operation = match fields.u8("kind")? {
            kind::APPEND => Operation::Append(Append::take(&mut fields)?),
            kind::OPEN => Operation::Open(Open::take(&mut fields)?),
            kind::EXPIRE => Operation::Expire(take_writers(&mut fields)?),
            kind => {
                let id = CommandId::take(&mut fields)?;
                Operation::Command(id, Command::take(kind, &mut fields)?)
            }
        };
        fields.end()?;
        Ok(operation)
    }

    /// What decides the operation's place among others: the runs of one segment may be put together
    /// in an entry, so that they become one extent.
    pub fn order_key(&self) -> Option<u128> {
        match self {
            Operation::Append(append) => Some(append.order_key()),
            _ => None,
        }
    }
}

impl Append {
    /// Bytes of an append header.
    pub const BYTES: usize = 2 + 16 + 16 + 12 + 8 + 8 + 4 + 1 + 8;

    pub fn order_key(&self) -> u128 {
        u128::from_be_bytes(self.segment.encode())
    }

    /// Puts the header; headers of many blocks may share one buffer.
    pub(crate) fn put(&self, out: &mut impl BufMut) {
        put_kind(out, kind::APPEND);
        out.put_segment(self.segment);
        out.put_u128_le(self.writer.0);
        out.put_session(self.session);
        out.put_u64_le(self.previous.0);
        out.put_u64_le(self.last.0);
        out.put_u32_le(self.events);
        out.put_u8(u8::from(self.expected_offset.is_some()));
        out.put_u64_le(self.expected_offset.unwrap_or(Offset::ZERO).0);
    }

    fn take(fields: &mut Fields<'_>) -> Result<Self, CodecError> {
        let mut append = Self {
            segment: fields.segment()?,
            writer: fields.writer()?,
            session: fields.session()?,
            previous: fields.number("previous number")?,
            last: fields.number("last number")?,
            events: fields.u32("events")?,
            expected_offset: None,
        };
        let conditional = fields.flag("conditional")?;
        let offset = fields.offset("expected offset")?;
        append.expected_offset = conditional.then_some(offset);
        if append.last <= append.previous {
            return Err(CodecError::Impossible { field: "last number", value: append.last.0 });
        }
        Ok(append)
    }
}

impl Open {
    fn put(&self, out: &mut Vec<u8>) {
        put_kind(out, kind::OPEN);
        out.put_u128_le(self.writer.0);
        out.put_session(self.session);
        out.put_u8(u8::from(self.named));
        out.put_count(self.segments.len());
        for open in &self.segments {
            out.put_segment(open.segment);
            out.put_u8(u8::from(open.resuming));
        }
    }

    fn take(fields: &mut Fields<'_>) -> Result<Self, CodecError> {
        let (writer, session) = (fields.writer()?, fields.session()?);
        let named = fields.flag("named")?;
        let count = fields.count(common::limits::OPEN_SEGMENTS_MAX, 17, "segments")?;
        let segments = (0..count)
            .map(|_| {
                let segment = fields.segment()?;
                Ok(OpenSegment { segment, resuming: fields.flag("resuming")? })
            })
            .collect::<Result<_, CodecError>>()?;
        Ok(Self { writer, session, named, segments })
    }
}

impl Command {
    pub fn segment(&self) -> SegmentId {
        match self {
            Command::Create(identity) => identity.segment,
            Command::Seal { segment, .. }
            | Command::Truncate { segment, .. }
            | Command::Delete { segment }
            | Command::Forget { segment }
            | Command::UpdateAttributes { segment, .. } => *segment,
        }
    }

    fn put(&self, id: CommandId, out: &mut Vec<u8>) {
        put_kind(out, self.kind());
        id.put(out);
        match self {
            Command::Create(identity) => identity.put(out),
            Command::Seal { segment, successors } => {
                out.put_segment(*segment);
                Successor::put_all(successors, out);
            }
            Command::Truncate { segment, offset } => {
                out.put_segment(*segment);
                out.put_u64_le(offset.0);
            }
            Command::Delete { segment } | Command::Forget { segment } => out.put_segment(*segment),
            Command::UpdateAttributes { segment, updates } => {
                out.put_segment(*segment);
                out.put_count(updates.len());
                for update in updates {
                    update.put(out);
                }
            }
        }
    }

    fn take(kind: u8, fields: &mut Fields<'_>) -> Result<Self, CodecError> {
        if kind == kind::CREATE {
            return Ok(Command::Create(Box::new(SegmentIdentity::take(fields)?)));
        }
        let segment = fields.segment()?;
        Ok(match kind {
            kind::SEAL => Command::Seal { segment, successors: Successor::take_all(fields)? },
            kind::TRUNCATE => Command::Truncate { segment, offset: fields.offset("offset")? },
            kind::DELETE => Command::Delete { segment },
            kind::FORGET => Command::Forget { segment },
            kind::ATTRIBUTES => {
                let updates = AttributeUpdate::take_all(fields, ATTRIBUTES_MAX)?;
                Command::UpdateAttributes { segment, updates }
            }
            other => return Err(CodecError::Kind(other)),
        })
    }

    fn kind(&self) -> u8 {
        match self {
            Command::Create(_) => kind::CREATE,
            Command::Seal { .. } => kind::SEAL,
            Command::Truncate { .. } => kind::TRUNCATE,
            Command::Delete { .. } => kind::DELETE,
            Command::Forget { .. } => kind::FORGET,
            Command::UpdateAttributes { .. } => kind::ATTRIBUTES,
        }
    }
}

fn put_kind(out: &mut impl BufMut, kind: u8) {
    out.put_u8(VERSION);
    out.put_u8(kind);
}

fn take_writers(fields: &mut Fields<'_>) -> Result<Vec<(SegmentId, WriterId)>, CodecError> {
    let count = fields.count(EXPIRE_WRITERS_MAX, 32, "writers")?;
    (0..count).map(|_| Ok((fields.segment()?, fields.writer()?))).collect()
}

#[cfg(test)]
mod tests;
