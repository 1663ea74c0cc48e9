//! The group table: the first record of every file. It holds all that the log knows of every
//! group but its entries, so that no older file is ever needed for that.

use bytes::Bytes;
use common::{GroupId, LogIndex, Term};

use super::Reader;
use crate::{BlockSeq, Conf, HardState, LostEntries, Truncated};

const TABLE_VERSION: u32 = 1;
const CUT: u32 = 1;
const QUARANTINED: u32 = 2;
const HAS_CONF: u32 = 4;
const HAS_MARK: u32 = 8;
const HAS_TOMBSTONE: u32 = 16;
const BRIDGED: u32 = 32;
const HAS_LOST: u32 = 64;
const KNOWN_FLAGS: u32 =
    CUT | QUARANTINED | HAS_CONF | HAS_MARK | HAS_TOMBSTONE | BRIDGED | HAS_LOST;

/// Bytes of one range of lost entries.
const LOST_BYTES: usize = 24;

/// Where the file before this one ended. Bytes behind that end were never acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PreviousFile {
    /// 0 when there is none.
    pub(crate) file: u64,
    pub(crate) end: u64,
    pub(crate) block: BlockSeq,
}

/// One group in the table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct GroupRow {
    pub(crate) group: GroupId,
    /// What the group lost was accepted: it ends at `last`, whatever older files say.
    pub(crate) cut: bool,
    /// What the group lost was accepted: of the entries that older files do not have, those in
    /// `lost` are given up.
    pub(crate) bridged: bool,
    /// The group has lost acknowledged records and waits for its peer to be replaced.
    pub(crate) quarantined: bool,
    /// The group's last record before this table.
    pub(crate) sequence: u64,
    /// The last of them that changed which entries there are.
    pub(crate) entry_sequence: u64,
    pub(crate) hard_state: HardState,
    pub(crate) truncated: Truncated,
    pub(crate) last: LogIndex,
    pub(crate) last_term: Term,
    pub(crate) conf: Option<Conf>,
    pub(crate) mark: Option<Bytes>,
    pub(crate) tombstone: Option<Bytes>,
    /// Entries given up that are not truncated yet.
    pub(crate) lost: Vec<LostEntries>,
}

/// `version u32 | previous file u64, end u64, block u64 | count u32 | row*`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Table {
    pub(crate) previous: PreviousFile,
    pub(crate) rows: Vec<GroupRow>,
}

impl GroupRow {
    /// Bytes of the row, for planning.
    pub(crate) fn encoded_bytes(&self) -> usize {
        let string = |s: Option<&Bytes>| s.map_or(0, |bytes| 4 + bytes.len());
        84 + self.conf.as_ref().map_or(0, |conf| 12 + conf.bytes.len())
            + string(self.mark.as_ref())
            + string(self.tombstone.as_ref())
            + if self.lost.is_empty() { 0 } else { 4 + LOST_BYTES * self.lost.len() }
    }

    /// `group u64 | flags u32 | sequence u64 | entry sequence u64 | term, vote, commit u64 |
    /// truncated index, term u64 | last index, term u64 | [conf index u64, string] | [mark
    /// string] | [tombstone string] | [count u32, (first, last, term u64)*]`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        let flags = flag(self.cut, CUT)
            | flag(self.quarantined, QUARANTINED)
            | flag(self.conf.is_some(), HAS_CONF)
            | flag(self.mark.is_some(), HAS_MARK)
            | flag(self.tombstone.is_some(), HAS_TOMBSTONE)
            | flag(self.bridged, BRIDGED)
            | flag(!self.lost.is_empty(), HAS_LOST);
        out.extend_from_slice(&self.group.0.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        for number in [
            self.sequence,
            self.entry_sequence,
            self.hard_state.term.0,
            self.hard_state.vote,
            self.hard_state.commit.0,
            self.truncated.index.0,
            self.truncated.term.0,
            self.last.0,
            self.last_term.0,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        if let Some(conf) = &self.conf {
            out.extend_from_slice(&conf.index.0.to_le_bytes());
            put_string(out, &conf.bytes);
        }
        for string in [&self.mark, &self.tombstone].into_iter().flatten() {
            put_string(out, string);
        }
        if !self.lost.is_empty() {
            out.extend_from_slice(&(self.lost.len() as u32).to_le_bytes());
        }
        for number in self.lost.iter().flat_map(|lost| [lost.first.0, lost.last.0, lost.term.0]) {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn decode(fields: &mut Reader<'_>) -> Option<GroupRow> {
        let (group, flags) = (GroupId(fields.u64()?), fields.u32()?);
        if flags & !KNOWN_FLAGS != 0 {
            return None;
        }
        let mut row = GroupRow {
            group,
            cut: flags & CUT != 0,
            bridged: flags & BRIDGED != 0,
            quarantined: flags & QUARANTINED != 0,
            sequence: fields.u64()?,
            entry_sequence: fields.u64()?,
            hard_state: HardState {
                term: Term(fields.u64()?),
                vote: fields.u64()?,
                commit: LogIndex(fields.u64()?),
            },
            truncated: Truncated { index: LogIndex(fields.u64()?), term: Term(fields.u64()?) },
            last: LogIndex(fields.u64()?),
            last_term: Term(fields.u64()?),
            ..GroupRow::default()
        };
        if flags & HAS_CONF != 0 {
            let index = LogIndex(fields.u64()?);
            row.conf = Some(Conf { index, bytes: Bytes::copy_from_slice(fields.string()?) });
        }
        if flags & HAS_MARK != 0 {
            row.mark = Some(Bytes::copy_from_slice(fields.string()?));
        }
        if flags & HAS_TOMBSTONE != 0 {
            row.tombstone = Some(Bytes::copy_from_slice(fields.string()?));
        }
        if flags & HAS_LOST != 0 {
            let count = fields.u32()?;
            row.lost = (0..count).map(|_| decode_lost(fields)).collect::<Option<_>>()?;
        }
        Some(row)
    }
}

fn decode_lost(fields: &mut Reader<'_>) -> Option<LostEntries> {
    let (first, last) = (LogIndex(fields.u64()?), LogIndex(fields.u64()?));
    Some(LostEntries { first, last, term: Term(fields.u64()?) })
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

impl Table {
    /// Bytes of a table without rows.
    pub(crate) const EMPTY_BYTES: usize = 32;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let rows: usize = self.rows.iter().map(GroupRow::encoded_bytes).sum();
        let mut out = Vec::with_capacity(Self::EMPTY_BYTES + rows);
        out.extend_from_slice(&TABLE_VERSION.to_le_bytes());
        for number in [self.previous.file, self.previous.end, self.previous.block.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&(self.rows.len() as u32).to_le_bytes());
        for row in &self.rows {
            row.encode(&mut out);
        }
        out
    }

    /// `None` for a table of another version, or of rows that say more than is known here.
    pub(crate) fn decode(payload: &[u8]) -> Option<Table> {
        let mut fields = Reader(payload);
        if fields.u32()? != TABLE_VERSION {
            return None;
        }
        let previous = PreviousFile {
            file: fields.u64()?,
            end: fields.u64()?,
            block: BlockSeq(fields.u64()?),
        };
        let count = fields.u32()?;
        let rows = (0..count).map(|_| GroupRow::decode(&mut fields)).collect::<Option<_>>()?;
        fields.0.is_empty().then_some(Table { previous, rows })
    }
}
