//! One segment as apply sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use common::Offset;
use common::limits::NAME_BYTES_MAX;

use crate::codec::{CodecError, Fields, PutFields, written};
use crate::container::unsaved::Generation;
use crate::container::writers::WriterTable;
use crate::identity::{CommandId, SegmentIdentity, Successor};
use crate::limits::{ATTRIBUTE_VALUE_BYTES_MAX, ATTRIBUTES_MAX};
use crate::shared::SegmentShared;

/// A segment, or the tombstone of one.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) identity: SegmentIdentity,
    pub(crate) record: Record,
    pub(crate) writers: WriterTable,
    /// Start, length and seal stand in `record`, too: readers see them here.
    pub(crate) shared: Arc<SegmentShared>,
    /// When it was listed as changed.
    pub(crate) mark: Generation,
    /// In the machine's list of segments whose readers are to be woken.
    pub(crate) to_wake: bool,
}

/// What changes in a segment's life and is saved in one piece.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Record {
    pub(crate) start: Offset,
    pub(crate) length: Offset,
    /// Of a sealed segment.
    pub(crate) successors: Option<Arc<[Successor]>>,
    pub(crate) deleted: bool,
    pub(crate) attributes: BTreeMap<Bytes, Bytes>,
    /// The last command that was carried out.
    pub(crate) command: Option<CommandId>,
}

impl Segment {
    /// Sealed or deleted.
    pub(crate) fn takes_no_more(&self) -> bool {
        self.record.successors.is_some() || self.record.deleted
    }

    /// version u8 | flags u8 | start u64 | length u64 | identity | [successors] | [command 22]
    /// | count u32 | { name | value }*
    pub(crate) fn encode(&self) -> Bytes {
        let record = &self.record;
        written(256, |out| {
            out.put_u8(VERSION);
            let flag = |set: bool, flag: u8| if set { flag } else { 0 };
            out.put_u8(
                flag(record.successors.is_some(), SEALED)
                    | flag(record.deleted, DELETED)
                    | flag(record.command.is_some(), COMMANDED),
            );
            out.put_u64_le(record.start.0);
            out.put_u64_le(record.length.0);
            self.identity.put(out);
            if let Some(successors) = &record.successors {
                Successor::put_all(successors, out);
            }
            if let Some(command) = record.command {
                command.put(out);
            }
            out.put_count(record.attributes.len());
            for (name, value) in &record.attributes {
                out.put_string(name);
                out.put_string(value);
            }
        })
    }

    pub(crate) fn decode(value: &[u8]) -> Result<(SegmentIdentity, Record), CodecError> {
        let mut fields = Fields::new(value);
        let version = fields.u8("version")?;
        if version != VERSION {
            return Err(CodecError::Version(version));
        }
        let flags = fields.u8("flags")?;
        if flags & !(SEALED | DELETED | COMMANDED) != 0 {
            return Err(CodecError::Impossible { field: "flags", value: flags.into() });
        }
        let (start, length) = (fields.offset("start")?, fields.offset("length")?);
        if start > length {
            return Err(CodecError::Impossible { field: "start", value: start.0 });
        }
        let identity = SegmentIdentity::take(&mut fields)?;
        let successors = match flags & SEALED {
            0 => None,
            _ => Some(Successor::take_all(&mut fields)?.into()),
        };
        let command = match flags & COMMANDED {
            0 => None,
            _ => Some(CommandId::take(&mut fields)?),
        };
        let attributes = take_attributes(&mut fields)?;
        fields.end()?;
        let deleted = flags & DELETED != 0;
        Ok((identity, Record { start, length, successors, deleted, attributes, command }))
    }
}

fn take_attributes(fields: &mut Fields<'_>) -> Result<BTreeMap<Bytes, Bytes>, CodecError> {
    let count = fields.count(ATTRIBUTES_MAX, 4, "attributes")?;
    let mut attributes = BTreeMap::new();
    for _ in 0..count {
        let name = fields.string(NAME_BYTES_MAX, "attribute name")?;
        let value = fields.string(ATTRIBUTE_VALUE_BYTES_MAX, "attribute value")?;
        attributes.insert(Bytes::copy_from_slice(name), Bytes::copy_from_slice(value));
    }
    Ok(attributes)
}

const VERSION: u8 = 1;
const SEALED: u8 = 1;
const DELETED: u8 = 2;
const COMMANDED: u8 = 4;
