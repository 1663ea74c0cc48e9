//! The operations of a container as they stand in the log: fixed little-endian headers, version and
//! kind first.
//!
//! ```text
//! create      1 1 | command 22 | identity
//! open        1 2 | writer 16 | session 12 | named u8 | count u32 | { segment 16 | resuming u8 }*
//! append      1 3 | segment 16 | writer 16 | session 12 | previous u64 | last u64 | events u32
//!                 | flags u8 (1: conditional, 2: summed) | expected offset u64 (0 where
//!                 unconditional) | [sum u64 | sum after u64]
//! seal        1 4 | command 22 | segment 16 | count u32 | successors
//! truncate    1 5 | command 22 | segment 16 | offset u64
//! delete      1 6 | command 22 | segment 16
//! forget      1 7 | command 22 | segment 16
//! attributes  1 8 | command 22 | segment 16 | count u32 | updates
//! expire      1 9 | count u32 | { segment 16 | writer 16 }*
//! close       1 10 | writer 16 | session 12 | count u32 | { segment 16 }*
//! del. writer 1 11 | command 22 | segment 16 | writer 16 | epoch u64
//! ```
//!
//! Segment ids are in their own encoding (big-endian, so that they sort). The payload of an append
//! is not part of its header: apply never looks at it. Headers are made from typed values that were
//! checked before, so that whatever is proposed can be decoded by every replica; the golden tests
//! keep the bytes of each kind.

use bytes::{BufMut, Bytes};
use common::{EventNumber, Offset, SegmentId, WriterEpoch, WriterId, WriterSession};

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
    pub(super) const CLOSE: u8 = 10;
    pub(super) const DELETE_WRITER: u8 = 11;
}

/// One change to a container's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Append(Append),
    Open(Open),
    Command(CommandId, Command),
    Expire(Vec<(SegmentId, WriterId)>),
    Close(Close),
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
    pub sum: EventSum,
}

/// What a writer that replays its source adds up of its events in a segment. The store keeps it
/// beside the last number and gives it back; what it means is between the writer's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventSum {
    /// Modulo 2^64.
    pub sum: u64,
    /// The number behind which the sum begins.
    pub after: EventNumber,
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

/// Ends the use of segments by an anonymous writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    pub writer: WriterId,
    pub session: WriterSession,
    pub segments: Vec<SegmentId>,
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
    /// Forgets what the segment knows of a writer, and refuses what comes of it with an epoch below
    /// `epoch`. The segment may be a tombstone.
    DeleteWriter {
        segment: SegmentId,
        writer: WriterId,
        epoch: WriterEpoch,
    },
}

impl Operation {
    /// The header of this operation.
    pub fn encode(&self) -> Bytes {
        match self {
            Operation::Append(append) => written(Append::BYTES_MAX, |out| append.put(out)),
            Operation::Open(open) => written(64 + 17 * open.segments.len(), |out| open.put(out)),
            Operation::Command(id, command) => written(128, |out| command.put(*id, out)),
            Operation::Close(close) => {
                written(64 + 16 * close.segments.len(), |out| close.put(out))
            }
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
            kind::CLOSE => Operation::Close(Close::take(&mut fields)?),
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
    /// Bytes of an append header at most: of one with a sum.
    pub const BYTES_MAX: usize = 2 + 16 + 16 + 12 + 8 + 8 + 4 + 1 + 8 + EventSum::BYTES;

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
        let summed = self.sum != EventSum::default();
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.put_u8(flag(self.expected_offset.is_some(), CONDITIONAL) | flag(summed, SUMMED));
        out.put_u64_le(self.expected_offset.unwrap_or(Offset::ZERO).0);
        if summed {
            self.sum.put(out);
        }
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
            sum: EventSum::default(),
        };
        let flags = fields.u8("flags")?;
        if flags & !(CONDITIONAL | SUMMED) != 0 {
            return Err(CodecError::Impossible { field: "flags", value: flags.into() });
        }
        let offset = fields.offset("expected offset")?;
        append.expected_offset = (flags & CONDITIONAL != 0).then_some(offset);
        if flags & SUMMED != 0 {
            append.sum = EventSum::take(fields)?;
        }
        if append.last <= append.previous {
            return Err(CodecError::Impossible { field: "last number", value: append.last.0 });
        }
        Ok(append)
    }
}

const CONDITIONAL: u8 = 1;
const SUMMED: u8 = 2;

impl EventSum {
    pub(crate) const BYTES: usize = 8 + 8;

    pub(crate) fn put(&self, out: &mut impl BufMut) {
        out.put_u64_le(self.sum);
        out.put_u64_le(self.after.0);
    }

    pub(crate) fn take(fields: &mut Fields<'_>) -> Result<Self, CodecError> {
        Ok(Self { sum: fields.u64("sum")?, after: fields.number("begin of the sum")? })
    }
}

impl Close {
    fn put(&self, out: &mut Vec<u8>) {
        put_kind(out, kind::CLOSE);
        out.put_u128_le(self.writer.0);
        out.put_session(self.session);
        out.put_segments(&self.segments);
    }

    fn take(fields: &mut Fields<'_>) -> Result<Self, CodecError> {
        let (writer, session) = (fields.writer()?, fields.session()?);
        let segments = fields.segments(common::limits::OPEN_SEGMENTS_MAX, "segments")?;
        Ok(Self { writer, session, segments })
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
            | Command::UpdateAttributes { segment, .. }
            | Command::DeleteWriter { segment, .. } => *segment,
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
            Command::DeleteWriter { segment, writer, epoch } => {
                out.put_segment(*segment);
                out.put_u128_le(writer.0);
                out.put_u64_le(epoch.0);
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
            kind::DELETE_WRITER => {
                let writer = fields.writer()?;
                let epoch = WriterEpoch(fields.u64("writer epoch")?);
                Command::DeleteWriter { segment, writer, epoch }
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
            Command::DeleteWriter { .. } => kind::DELETE_WRITER,
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
