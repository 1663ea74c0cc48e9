//! Packed objects: the payload of a round, grouped by owner, with an index behind it.
//!
//! ```text
//! frame | payload | owner* | index length u32 | index crc32 u32 | frame
//! owner = id u128 (big-endian) | runs u32 | { index u64 | start u32 | bytes u32 | crc32 u32 }*
//! ```
//!
//! Runs follow one another in the object as they do in the index, so that offsets need not be
//! written. The index can be read without the payload: its crc covers the head of the frame, the
//! index and its length. It says whose bytes an object holds to whoever has nothing else: a check
//! of the bucket, or compaction. Readers of events know their runs from the footer.

use std::ops::Range;

use bytes::{BufMut, Bytes};
use common::LogIndex;
use lts::{OBJECT_BYTES_MAX, ObjectName};

use super::error::{ObjectError, Problem};
use super::fields::{Fields, word};
use super::frame::{self, HEAD_BYTES, Kind, ObjectRef, Sealed, TAIL_BYTES};
use super::runs::Run;

const OWNER_BYTES: usize = 16 + 4;
const ROW_BYTES: usize = 8 + 3 * 4;
/// Bytes behind the index.
const ENDING_BYTES: usize = 4 + 4 + TAIL_BYTES;

/// Payload of one owner on its way into an object.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub(super) index: LogIndex,
    pub(super) start: u32,
    pub(super) bytes: Bytes,
    pub(super) crc: u32,
}

/// An object in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    owners: Vec<(u128, Vec<Slice>)>,
    payload_bytes: usize,
    index_bytes: usize,
}

impl Draft {
    /// Bytes of an object with one slice.
    pub(super) const fn bytes_of_one(slice: usize) -> usize {
        HEAD_BYTES + slice + OWNER_BYTES + ROW_BYTES + ENDING_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Bytes of the object once it holds this slice, too.
    pub(super) fn bytes_with(&self, owner: u128, slice: &Slice) -> usize {
        let head = if self.is_last(owner) { 0 } else { OWNER_BYTES };
        let index = self.index_bytes + head + ROW_BYTES;
        HEAD_BYTES + self.payload_bytes + slice.bytes.len() + index + ENDING_BYTES
    }

    /// Bytes of the object, at most, once it holds so many more slices of one owner.
    pub(super) fn bytes_with_all(&self, slices: usize, bytes: usize) -> usize {
        let index = self.index_bytes + OWNER_BYTES + slices * ROW_BYTES;
        HEAD_BYTES + self.payload_bytes + bytes + index + ENDING_BYTES
    }

    /// Where the next slice begins in the object.
    pub(super) fn next_offset(&self) -> u32 {
        word(HEAD_BYTES + self.payload_bytes)
    }

    pub(super) fn push(&mut self, owner: u128, slice: Slice) {
        if !self.is_last(owner) {
            self.owners.push((owner, Vec::new()));
            self.index_bytes += OWNER_BYTES;
        }
        self.payload_bytes += slice.bytes.len();
        self.index_bytes += ROW_BYTES;
        let (_, slices) = self.owners.last_mut().expect("an owner was pushed");
        slices.push(slice);
    }

    fn is_last(&self, owner: u128) -> bool {
        self.owners.last().is_some_and(|(last, _)| *last == owner)
    }

    /// The object, and where its runs are as the round's object number `ordinal`.
    pub(super) fn seal(self, name: ObjectName, ordinal: u32, runs: &mut Vec<Run>) -> Sealed {
        let (index, length) = self.index(name);
        let mut offset = word(HEAD_BYTES);
        let mut body = Vec::new();
        for Slice { index, start, bytes, crc } in self.owners.into_iter().flat_map(|(_, all)| all) {
            let count = word(bytes.len());
            runs.push(Run { index, start, bytes: count, object: ordinal, offset, crc });
            offset += count;
            body.push(bytes);
        }
        body.push(index.into());
        let sealed = frame::seal(Kind::Packed, name, body);
        debug_assert_eq!(sealed.reference.length, length);
        sealed
    }

    /// The index with what follows it, and the length of the whole object.
    fn index(&self, name: ObjectName) -> (Vec<u8>, u32) {
        let mut out = Vec::with_capacity(self.index_bytes + ENDING_BYTES);
        for (owner, slices) in &self.owners {
            out.put_u128(*owner);
            out.put_u32_le(word(slices.len()));
            for slice in slices {
                out.put_u64_le(slice.index.0);
                out.put_u32_le(slice.start);
                out.put_u32_le(word(slice.bytes.len()));
                out.put_u32_le(slice.crc);
            }
        }
        out.put_u32_le(word(self.index_bytes));
        let length = word(HEAD_BYTES + self.payload_bytes + self.index_bytes + ENDING_BYTES);
        out.put_u32_le(index_crc(name, length, &out));
        (out, length)
    }
}

fn index_crc(name: ObjectName, length: u32, index: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame::head(Kind::Packed, name, length));
    hasher.update(index);
    hasher.finalize()
}

/// A run as the object that holds it describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedRun {
    pub owner: u128,
    pub index: LogIndex,
    pub start: u32,
    pub bytes: u32,
    /// Where the run begins in the object.
    pub offset: u32,
    pub crc: u32,
}

/// The index of a packed object.
#[derive(Debug, Clone)]
pub struct PackedIndex {
    rows: Bytes,
}

impl PackedIndex {
    /// What to read of an object of `length` bytes to decode its index, by its last bytes (12 are
    /// enough). Only a hint: nothing is checked but that there can be such a range.
    pub fn range(name: ObjectName, length: u64, last: &[u8]) -> Result<Range<u64>, ObjectError> {
        let short = || Problem::Short("index").of(name);
        let ending = last.len().checked_sub(ENDING_BYTES).ok_or_else(short)?;
        let index = Fields::new(&last[ending..]).u32("index length").map_err(|p| p.of(name))?;
        let begin = length.checked_sub(u64::from(index) + ENDING_BYTES as u64);
        match begin {
            Some(begin) if begin >= HEAD_BYTES as u64 => Ok(begin..length),
            _ => Err(Problem::impossible("index length", index).of(name)),
        }
    }

    /// Reads the index of an object of `length` bytes from its last ones, of which there may be
    /// more than needed.
    pub fn decode(name: ObjectName, length: u64, last: &Bytes) -> Result<Self, ObjectError> {
        Self::read(name, length, last).map_err(|problem| problem.of(name))
    }

    fn read(name: ObjectName, length: u64, last: &Bytes) -> Result<Self, Problem> {
        if length > OBJECT_BYTES_MAX || last.len() as u64 > length {
            return Err(Problem::impossible("length", length));
        }
        let ending = last.len().checked_sub(ENDING_BYTES).ok_or(Problem::Short("index"))?;
        let mut fields = Fields::new(&last[ending..]);
        let index = fields.u32("index length")?;
        let recorded = fields.u32("index checksum")?;
        let begin = ending.checked_sub(index as usize).ok_or(Problem::Short("index"))?;
        let computed = index_crc(name, word(length as usize), &last[begin..ending + 4]);
        if recorded != computed {
            return Err(Problem::PartChecksum { what: "its index", recorded, computed });
        }
        let found = Self { rows: last.slice(begin..ending) };
        let declared = (HEAD_BYTES + ENDING_BYTES) as u64 + u64::from(index) + found.check()?;
        if declared != length {
            return Err(Problem::Length { have: length, declared });
        }
        Ok(found)
    }

    /// Walks the whole index, so that iterating afterwards cannot fail. Returns the payload bytes.
    fn check(&self) -> Result<u64, Problem> {
        let mut walk = Walk::new(&self.rows);
        let mut payload = 0;
        while let Some(run) = walk.next()? {
            payload += u64::from(run.bytes);
        }
        Ok(payload)
    }

    /// The runs in the order in which they lie in the object: owner by owner, each in the order
    /// of the log.
    pub fn runs(&self) -> impl Iterator<Item = PackedRun> + '_ {
        let mut walk = Walk::new(&self.rows);
        std::iter::from_fn(move || walk.next().expect("the index was walked before"))
    }
}

struct Walk<'a> {
    fields: Fields<'a>,
    owner: u128,
    left: u32,
    offset: u32,
}

impl<'a> Walk<'a> {
    fn new(rows: &'a [u8]) -> Self {
        Self { fields: Fields::new(rows), owner: 0, left: 0, offset: HEAD_BYTES as u32 }
    }

    fn next(&mut self) -> Result<Option<PackedRun>, Problem> {
        if self.left == 0 {
            if self.fields.is_empty() {
                return Ok(None);
            }
            self.owner = u128::from_be_bytes(self.fields.array("owner")?);
            self.left = self.fields.u32("runs of an owner")?;
        }
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| Problem::impossible("runs of an owner", 0_u32))?;
        let fields = &mut self.fields;
        let run = PackedRun {
            owner: self.owner,
            index: LogIndex(fields.u64("log index")?),
            start: fields.u32("start of a run")?,
            bytes: fields.u32("length of a run")?,
            offset: self.offset,
            crc: fields.u32("checksum of a run")?,
        };
        let end = self.offset.checked_add(run.bytes);
        self.offset = end.ok_or_else(|| Problem::impossible("length of a run", run.bytes))?;
        Ok(Some(run))
    }
}

/// A packed object that was read as a whole.
#[derive(Debug, Clone)]
pub struct PackedObject {
    pub reference: ObjectRef,
    pub index: PackedIndex,
    bytes: Bytes,
}

impl PackedObject {
    /// Checks everything, down to each run's checksum.
    pub fn decode(name: ObjectName, bytes: Bytes) -> Result<Self, ObjectError> {
        Self::read(name, bytes).map_err(|problem| problem.of(name))
    }

    fn read(name: ObjectName, bytes: Bytes) -> Result<Self, Problem> {
        let (reference, _) = frame::open(Kind::Packed, name, &bytes)?;
        let index = PackedIndex::read(name, bytes.len() as u64, &bytes)?;
        let object = Self { reference, index, bytes };
        for run in object.index.runs() {
            let computed = crc32fast::hash(&object.payload(&run));
            if run.crc != computed {
                let recorded = run.crc;
                return Err(Problem::PartChecksum { what: "a run", recorded, computed });
            }
        }
        Ok(object)
    }

    /// The bytes of one of its runs, shared.
    pub fn payload(&self, run: &PackedRun) -> Bytes {
        let begin = run.offset as usize;
        self.bytes.slice(begin..begin + run.bytes as usize)
    }
}
