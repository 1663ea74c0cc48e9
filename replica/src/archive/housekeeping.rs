//! Entries by which a group looks after its archive. They stand in the log among the machine's
//! operations and are applied by the group itself, on every replica and in every replay.
//!
//! ```text
//! envelope head (version 2) | kind u8 | fields
//! round       1 | recovered u8 | first u64 | last u64 | last term u64 | footer 34
//!               | objects u32 | { sequence u64 | length u32 | crc32 u32 }* | runs u32 | run*
//! checkpoint  2 | index u64 | archived u64 | keep u64 | checkpoint 34 | chunks u32
//!               | { sequence u64 | length u32 | crc32 u32 }*
//! compacted   3 | objects u32 | { name 26 | length u32 | crc32 u32 }* | moved u32
//!               | { owner u128 | position u64 | bytes u32 | pieces u32 | object u32 | offset u32
//!                   | crc32 u32 }*
//! removed     4 | names u32 | name 26 *
//! recovered   5 | incarnation u16
//! skipped     6 | skip (see `skip.rs`)
//! ```
//!
//! Little-endian but for names; runs as in `runs.rs`. Objects of a round and chunks share all of the
//! name but the sequence with the footer and the checkpoint.

use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes};
use common::{Incarnation, LogIndex, Term};
use lts::ObjectName;

use super::error::Problem;
use super::fields::{Fields, word};
use super::frame::ObjectRef;
use super::runs::{Run, Runs};
use super::skip::CommittedSkip;
use crate::resting::{Compacted, Moved, Rested, Tiered};

mod kind {
    pub(super) const ROUND: u8 = 1;
    pub(super) const CHECKPOINT: u8 = 2;
    pub(super) const COMPACTED: u8 = 3;
    pub(super) const REMOVED: u8 = 4;
    pub(super) const RECOVERED: u8 = 5;
    pub(super) const SKIPPED: u8 = 6;
}

/// One change to a group's archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Housekeeping {
    Round(CommittedRound),
    Checkpoint(CommittedCheckpoint),
    Compacted(Compacted),
    /// Objects are gone from the bucket.
    Removed(Vec<ObjectName>),
    /// The cluster was brought back from its bucket: names are led by this from now on.
    Recovered(Incarnation),
    /// The archive goes on behind entries that are lost.
    Skipped(CommittedSkip),
}

/// A round whose objects are all in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedRound {
    pub footer: ObjectRef,
    pub tiered: Tiered,
    /// The term of the last entry.
    pub last_term: Term,
    /// Of before a recovery, or a repair of the log, which takes over what the chain's last rounds
    /// say: their own entries are not in the chain, or were lost.
    pub recovered: bool,
}

impl CommittedRound {
    pub fn range(&self) -> &RangeInclusive<LogIndex> {
        &self.tiered.range
    }
}

/// A checkpoint whose chunks are all in the bucket, and which the chain of rounds has reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedCheckpoint {
    pub reference: ObjectRef,
    /// The log index up to which the state includes the log.
    pub index: LogIndex,
    /// Through which entry the log was archived in that state: rounds behind it are needed to use
    /// the checkpoint, also where they lie before `index`.
    pub archived: LogIndex,
    pub chunks: Vec<ObjectRef>,
    /// Microseconds for which older checkpoints are kept.
    pub keep_micros: u64,
}

impl Housekeeping {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Round(round) => round.put(out),
            Self::Checkpoint(checkpoint) => checkpoint.put(out),
            Self::Compacted(compacted) => put_compacted(compacted, out),
            Self::Removed(names) => {
                out.put_u8(kind::REMOVED);
                out.put_u32_le(word(names.len()));
                names.iter().for_each(|name| out.put_slice(&name.encode()));
            }
            Self::Recovered(incarnation) => {
                out.put_u8(kind::RECOVERED);
                out.put_u16_le(incarnation.0);
            }
            Self::Skipped(skip) => {
                out.put_u8(kind::SKIPPED);
                skip.put(out);
            }
        }
    }

    /// Up to where the log is archived when this has taken effect, where it changes that.
    pub(crate) fn archived_to(&self) -> Option<LogIndex> {
        match self {
            Self::Round(round) => Some(*round.range().end()),
            Self::Skipped(skip) => Some(*skip.lost.end()),
            _ => None,
        }
    }

    pub(crate) fn decode(body: &Bytes) -> Result<Self, Problem> {
        let mut fields = Fields::new(body);
        let decoded = match fields.u8("kind")? {
            kind::ROUND => Self::Round(CommittedRound::take(&mut fields, body)?),
            kind::CHECKPOINT => Self::Checkpoint(CommittedCheckpoint::take(&mut fields)?),
            kind::COMPACTED => Self::Compacted(take_compacted(&mut fields)?),
            kind::REMOVED => {
                let count = fields.u32("names")?;
                let mut rows =
                    Fields::new(fields.rows(count, ObjectName::ENCODED_BYTES, "names")?);
                let names = (0..count).map(|_| rows.array("name").map(ObjectName::decode));
                Self::Removed(names.collect::<Result<_, _>>()?)
            }
            kind::RECOVERED => Self::Recovered(Incarnation(fields.u16("incarnation")?)),
            kind::SKIPPED => Self::Skipped(CommittedSkip::take(&mut fields)?),
            other => return Err(Problem::impossible("kind of housekeeping", other)),
        };
        fields.end()?;
        Ok(decoded)
    }
}

impl CommittedRound {
    fn put(&self, out: &mut Vec<u8>) {
        let (first, last) = self.tiered.range.clone().into_inner();
        out.put_u8(kind::ROUND);
        out.put_u8(u8::from(self.recovered));
        out.put_u64_le(first.0);
        out.put_u64_le(last.0);
        out.put_u64_le(self.last_term.0);
        self.footer.put(out);
        put_rows(&self.tiered.objects, out);
        out.put_u32_le(self.tiered.runs.count());
        out.put_slice(&self.tiered.runs.rows());
    }

    fn take(fields: &mut Fields<'_>, body: &Bytes) -> Result<Self, Problem> {
        let recovered = match fields.u8("whether it is recovered")? {
            0 => false,
            1 => true,
            other => return Err(Problem::impossible("whether it is recovered", other)),
        };
        let (first, last) = (fields.u64("first index")?, fields.u64("last index")?);
        if first == 0 || last < first {
            return Err(Problem::impossible("last index", last));
        }
        let last_term = Term(fields.u64("last term")?);
        let footer = ObjectRef::take(fields, "footer")?;
        let objects = take_rows(fields, footer.name, "objects")?;
        let runs = fields.u32("runs")?;
        let runs = Runs::of_rows(body.slice_ref(fields.rows(runs, Run::BYTES, "runs")?));
        if let Some(run) = runs.iter().find(|run| run.object as usize >= objects.len()) {
            return Err(Problem::impossible("object of a run", run.object));
        }
        let tiered = Tiered { range: LogIndex(first)..=LogIndex(last), objects, runs };
        Ok(Self { footer, tiered, last_term, recovered })
    }
}

impl CommittedCheckpoint {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(kind::CHECKPOINT);
        self.put_fields(out);
    }

    pub(super) fn put_fields(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.index.0);
        out.put_u64_le(self.archived.0);
        out.put_u64_le(self.keep_micros);
        self.reference.put(out);
        put_rows(&self.chunks, out);
    }

    pub(super) fn take(fields: &mut Fields<'_>) -> Result<Self, Problem> {
        let index = LogIndex(fields.u64("index of the checkpoint")?);
        let archived = LogIndex(fields.u64("archived index")?);
        let keep_micros = fields.u64("time to keep")?;
        let reference = ObjectRef::take(fields, "checkpoint")?;
        let chunks = take_rows(fields, reference.name, "chunks")?;
        Ok(Self { reference, index, archived, chunks, keep_micros })
    }
}

fn put_rows(objects: &[ObjectRef], out: &mut Vec<u8>) {
    out.put_u32_le(word(objects.len()));
    objects.iter().for_each(|object| object.put_row(out));
}

fn take_rows(
    fields: &mut Fields<'_>,
    of: ObjectName,
    what: &'static str,
) -> Result<Vec<ObjectRef>, Problem> {
    let count = fields.u32(what)?;
    let mut rows = Fields::new(fields.rows(count, ObjectRef::ROW_BYTES, what)?);
    (0..count).map(|_| ObjectRef::take_row(&mut rows, of, what)).collect()
}

/// owner u128 | position u64 | bytes u32 | pieces u32 | object u32 | offset u32 | crc32 u32
const MOVED_BYTES: usize = 16 + 8 + 5 * 4;

fn put_compacted(compacted: &Compacted, out: &mut Vec<u8>) {
    out.put_u8(kind::COMPACTED);
    out.put_u32_le(word(compacted.objects.len()));
    compacted.objects.iter().for_each(|object| object.put(out));
    out.put_u32_le(word(compacted.moved.len()));
    for moved in &compacted.moved {
        let object = compacted.objects.iter().position(|o| o.name == moved.rested.object);
        let object = object.expect("pieces move to the objects of their compaction");
        out.put_u128_le(moved.owner);
        out.put_u64_le(moved.position);
        let Rested { offset, crc, .. } = moved.rested;
        for field in [moved.bytes, moved.pieces, word(object), offset, crc] {
            out.put_u32_le(field);
        }
    }
}

fn take_compacted(fields: &mut Fields<'_>) -> Result<Compacted, Problem> {
    let count = fields.u32("objects")?;
    let mut rows = Fields::new(fields.rows(count, ObjectRef::BYTES, "objects")?);
    let objects = (0..count).map(|_| ObjectRef::take(&mut rows, "objects"));
    let objects: Vec<ObjectRef> = objects.collect::<Result<_, _>>()?;
    let count = fields.u32("moved pieces")?;
    let mut rows = Fields::new(fields.rows(count, MOVED_BYTES, "moved pieces")?);
    let mut moved = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let (owner, position) = (u128::from_le_bytes(rows.array("owner")?), rows.u64("position")?);
        let (bytes, pieces) = (rows.u32("bytes")?, rows.u32("pieces")?);
        let number = rows.u32("object of a piece")?;
        let object = objects.get(number as usize);
        let object = object.ok_or_else(|| Problem::impossible("object of a piece", number))?.name;
        let rested =
            Rested { object, offset: rows.u32("offset")?, crc: rows.u32("checksum of a piece")? };
        moved.push(Moved { owner, position, bytes, pieces, rested });
    }
    Ok(Compacted { objects, moved })
}
