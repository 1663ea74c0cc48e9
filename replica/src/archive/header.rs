//! What a footer keeps of an entry: all that apply reads, and nothing of the payload.
//!
//! ```text
//! term u64 | kind u8 | feature level u16 | digest u64 | data length u32 | data crc32 u32
//!     | context length u32 | context | data (of entries that change the membership)
//! ```
//!
//! The index is not written: headers stand for consecutive indexes, so that there can be no gap.

use bytes::{BufMut, Bytes};
use common::{LogIndex, Term};

use super::error::Problem;
use super::fields::{Fields, word};
use crate::entry::Stamp;
use crate::envelope;

/// Which version of apply's behaviour an entry was applied under: raised by the group's log itself
/// once every replica can, so that replay behaves as the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeatureLevel(pub u16);

impl FeatureLevel {
    /// That of groups that were never raised.
    pub const FIRST: FeatureLevel = FeatureLevel(1);
}

/// What an entry is to Raft. The numbers are persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Operations; or, without context, a leader's empty entry.
    Normal = 0,
    /// A change of the membership by one member.
    Membership = 1,
    /// A change of the membership by several members.
    JointMembership = 2,
}

impl EntryKind {
    fn decode(kind: u8) -> Result<Self, Problem> {
        match kind {
            0 => Ok(Self::Normal),
            1 => Ok(Self::Membership),
            2 => Ok(Self::JointMembership),
            other => Err(Problem::impossible("kind of entry", other)),
        }
    }
}

/// An archived entry without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryHeader {
    pub index: LogIndex,
    pub term: Term,
    pub kind: EntryKind,
    pub feature_level: FeatureLevel,
    /// The group's rolling hash over all outcomes, this entry's included: replay stops where its
    /// own differs.
    pub digest: u64,
    /// Bytes of the entry's data, which is the payload of a normal entry.
    pub data_bytes: u32,
    /// CRC-32 (IEEE) of the entry's data.
    pub data_crc: u32,
    /// The envelope with stamps and operations, as it was in the log.
    pub context: Bytes,
    /// The data of an entry that changes the membership; empty for a normal one.
    pub change: Bytes,
}

impl EntryHeader {
    /// Bytes beside context and change.
    pub(super) const FIXED_BYTES: usize = 8 + 1 + 2 + 8 + 4 + 4 + 4;

    /// When the entry was made; a leader's empty entry does not say.
    pub fn stamp(&self) -> Option<Stamp> {
        if self.context.is_empty() {
            return None;
        }
        let checked = envelope::check(&self.context, self.payload_bytes() as usize);
        Some(checked.expect("headers are made and read with a valid envelope").stamp)
    }

    /// Bytes that may lie in the round's objects.
    pub fn payload_bytes(&self) -> u32 {
        if self.kind == EntryKind::Normal { self.data_bytes } else { 0 }
    }

    pub(super) fn encoded_bytes(&self) -> usize {
        Self::FIXED_BYTES + self.context.len() + self.change.len()
    }

    /// An entry's context says what its kind needs: checked before it is written and after it was
    /// read.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let Self { index, .. } = *self;
        if self.kind != EntryKind::Normal {
            let crc = crc32fast::hash(&self.change);
            if self.change.len() != self.data_bytes as usize || self.data_crc != crc {
                return Err(Problem::impossible("membership change's checksum", self.data_crc));
            }
            return Ok(());
        }
        if self.context.is_empty() && self.data_bytes == 0 {
            return Ok(());
        }
        match envelope::check(&self.context, self.data_bytes as usize) {
            Ok(_) => Ok(()),
            Err(error) => Err(Problem::Envelope { index, error }),
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.term.0);
        out.put_u8(self.kind as u8);
        out.put_u16_le(self.feature_level.0);
        out.put_u64_le(self.digest);
        out.put_u32_le(self.data_bytes);
        out.put_u32_le(self.data_crc);
        out.put_u32_le(word(self.context.len()));
        out.put_slice(&self.context);
        out.put_slice(&self.change);
    }

    /// Reads the header at the front of `fields`, which are a part of `owner`.
    pub(super) fn take(
        fields: &mut Fields<'_>,
        owner: &Bytes,
        index: LogIndex,
    ) -> Result<Self, Problem> {
        let term = Term(fields.u64("term")?);
        let kind = EntryKind::decode(fields.u8("kind of entry")?)?;
        let feature_level = FeatureLevel(fields.u16("feature level")?);
        let digest = fields.u64("digest")?;
        let data_bytes = fields.u32("data length")?;
        let data_crc = fields.u32("data checksum")?;
        let context = owner.slice_ref(fields.counted("context")?);
        let change_bytes = if kind == EntryKind::Normal { 0 } else { data_bytes as usize };
        let change = owner.slice_ref(fields.bytes(change_bytes, "membership change")?);
        let header = Self {
            index,
            term,
            kind,
            feature_level,
            digest,
            data_bytes,
            data_crc,
            context,
            change,
        };
        Ok(header)
    }
}
