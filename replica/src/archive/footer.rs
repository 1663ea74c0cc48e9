//! A round's footer: every entry's header, and where the payload lies.
//!
//! ```text
//! frame | first index u64 | entries u32 | objects u32 | runs u32 | links u8
//!       | { name 26 | length u32 | crc32 u32 } (bit 0 of links: the round that it continues)
//!       | beginning (bit 1: entries before it are lost; see `skip.rs`)
//!       | membership length u32 | membership
//!       | { sequence u64 | length u32 | crc32 u32 }* (objects)
//!       | run* | header* | frame
//! ```
//!
//! Runs as in `runs.rs`, headers as in `header.rs`. The round's objects share incarnation, group
//! and term with the footer and have lower sequences. A footer that was decoded has been walked
//! from end to end: its headers are whole, and its runs lie within their entries and objects.

use std::ops::{Range, RangeInclusive};

use bytes::{BufMut, Bytes};
use common::{LogIndex, Term};
use lts::ObjectName;

use super::error::{ObjectError, Problem};
use super::fields::{Fields, word};
use super::frame::{self, HEAD_BYTES, Kind, ObjectRef, Sealed, TAIL_BYTES};
use super::header::EntryHeader;
use super::runs::{Run, Runs};
use super::skip::Beginning;

/// Bytes of an encoded membership: far more than any group has members.
pub(super) const MEMBERSHIP_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a footer's body without objects, runs and headers, at most.
pub(super) const FIXED_BYTES_MAX: usize =
    8 + 4 + 4 + 4 + 1 + ObjectRef::BYTES + Beginning::BYTES + 4 + MEMBERSHIP_BYTES_MAX;

/// What links a round to what was before it.
const CONTINUES: u8 = 1;
const BEGINS: u8 = 2;

/// What a footer is made of.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) first: LogIndex,
    pub(super) entries: u32,
    pub(super) continues: Option<ObjectRef>,
    pub(super) begins: Option<Beginning>,
    pub(super) membership: &'a [u8],
    pub(super) objects: &'a [ObjectRef],
    pub(super) runs: &'a Runs,
    pub(super) headers: Vec<u8>,
}

impl Draft<'_> {
    pub(super) fn seal(self, name: ObjectName) -> Sealed {
        let mut out = Vec::new();
        out.put_u64_le(self.first.0);
        out.put_u32_le(self.entries);
        out.put_u32_le(word(self.objects.len()));
        out.put_u32_le(self.runs.count());
        let continues = self.continues.map_or(0, |_| CONTINUES);
        out.put_u8(continues | self.begins.map_or(0, |_| BEGINS));
        if let Some(previous) = &self.continues {
            previous.put(&mut out);
        }
        if let Some(beginning) = &self.begins {
            beginning.put(&mut out);
        }
        out.put_u32_le(word(self.membership.len()));
        out.put_slice(self.membership);
        self.objects.iter().for_each(|object| object.put_row(&mut out));
        frame::seal(Kind::Footer, name, [out.into(), self.runs.rows(), self.headers.into()])
    }
}

/// A round as its footer tells it.
#[derive(Debug, Clone)]
pub struct Footer {
    /// What the next round names as the one it continues.
    pub reference: ObjectRef,
    /// The round before this one; `None` where the chain begins here.
    pub continues: Option<ObjectRef>,
    /// Entries between that one and this are lost: the chain begins here anew.
    pub begins: Option<Beginning>,
    /// The membership behind the last entry, opaque here.
    pub membership: Bytes,
    pub objects: Vec<ObjectRef>,
    pub runs: Runs,
    first: LogIndex,
    entries: u32,
    last_term: Term,
    headers: Bytes,
}

/// Where payload bytes of an entry lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    pub object: ObjectRef,
    /// The run that holds them: what has to be read for its checksum to be compared.
    pub run: Run,
    /// Where in the object the bytes that were asked for begin and end.
    pub start: u32,
    pub end: u32,
}

impl Located {
    /// Whether these bytes, read from the object, are the run.
    pub fn check(&self, run: &[u8]) -> Result<(), ObjectError> {
        let refuse = |problem: Problem| Err(problem.of(self.object.name));
        if run.len() != self.run.bytes as usize {
            let declared = self.run.bytes.into();
            return refuse(Problem::Length { have: run.len() as u64, declared });
        }
        let (recorded, computed) = (self.run.crc, crc32fast::hash(run));
        if recorded != computed {
            return refuse(Problem::PartChecksum { what: "a run", recorded, computed });
        }
        Ok(())
    }
}

impl Footer {
    pub fn decode(name: ObjectName, bytes: &Bytes) -> Result<Self, ObjectError> {
        Self::read(name, bytes).map_err(|problem| problem.of(name))
    }

    /// The indexes whose entries are archived.
    pub fn range(&self) -> RangeInclusive<LogIndex> {
        self.first..=self.last_index()
    }

    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.first.0 + u64::from(self.entries) - 1)
    }

    /// The term of the last entry: with its index, where a log can go on.
    pub fn last_term(&self) -> Term {
        self.last_term
    }

    /// The headers of all entries, in order.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = EntryHeader> + '_ {
        let mut fields = Fields::new(&self.headers);
        (0..self.entries).map(move |ordinal| {
            let index = LogIndex(self.first.0 + u64::from(ordinal));
            let header = EntryHeader::take(&mut fields, &self.headers, index);
            header.expect("the footer was walked when it was decoded")
        })
    }

    /// Whether this round is the one behind `previous`, and continues exactly that.
    pub fn follows(&self, previous: &Footer) -> Result<(), ObjectError> {
        let refuse = |problem: Problem| Err(problem.of(self.reference.name));
        let Some(link) = self.continues.filter(|_| self.begins.is_none()) else {
            return refuse(Problem::impossible("link to the round before it", 0_u8));
        };
        link.expect(&previous.reference)?;
        if self.first.0 != previous.last_index().0 + 1 {
            return refuse(Problem::impossible("first index", self.first.0));
        }
        if self.first_term() < previous.last_term {
            return refuse(Problem::impossible("first term", self.first_term().0));
        }
        Ok(())
    }

    /// The term of the first entry.
    pub(crate) fn first_term(&self) -> Term {
        self.headers().next().expect("a round has entries").term
    }

    /// Where a range of an entry's payload lies. All that apply ever knew as one extent lies in
    /// one run; payload of refused operations is not archived.
    pub fn locate(&self, index: LogIndex, range: Range<u32>) -> Option<Located> {
        let run = self.runs.find(index, range.clone())?;
        let shift = |at: u32| run.offset + (at - run.start);
        let object = self.objects[run.object as usize];
        Some(Located { object, run, start: shift(range.start), end: shift(range.end) })
    }

    fn read(name: ObjectName, bytes: &Bytes) -> Result<Self, Problem> {
        let (reference, body) = frame::open(Kind::Footer, name, bytes)?;
        let mut fields = Fields::new(&body);
        let first = LogIndex(fields.u64("first index")?);
        let entries = fields.u32("entries")?;
        let objects = fields.u32("objects")?;
        let runs = fields.u32("runs")?;
        let (continues, begins) = take_links(&mut fields, name, first)?;
        let membership = body.slice_ref(fields.counted("membership")?);
        let mut rows = Fields::new(fields.rows(objects, ObjectRef::ROW_BYTES, "objects")?);
        let objects = (0..objects)
            .map(|_| ObjectRef::take_row(&mut rows, name, "objects"))
            .collect::<Result<Vec<_>, _>>()?;
        if !objects.is_sorted_by(|a, b| a.name < b.name) {
            return Err(Problem::impossible("order of objects", objects.len() as u64));
        }
        let runs = Runs::of_rows(body.slice_ref(fields.rows(runs, Run::BYTES, "runs")?));
        let headers = body.slice_ref(fields.rest());
        let last_term = Term(0);
        let mut footer = Self {
            reference,
            continues,
            begins,
            membership,
            objects,
            runs,
            first,
            entries,
            last_term,
            headers,
        };
        footer.last_term = footer.check()?;
        Ok(footer)
    }

    /// Walks all headers and runs, so that using them afterwards cannot fail. Returns the term of
    /// the last entry.
    fn check(&self) -> Result<Term, Problem> {
        let last = self.first.0.checked_add(u64::from(self.entries));
        if self.entries == 0 || last.is_none() {
            return Err(Problem::impossible("number of entries", self.entries));
        }
        let mut fields = Fields::new(&self.headers);
        let mut runs = self.runs.iter().peekable();
        let mut term = Term(0);
        for ordinal in 0..self.entries {
            let index = LogIndex(self.first.0 + u64::from(ordinal));
            let header = EntryHeader::take(&mut fields, &self.headers, index)?;
            header.check()?;
            if header.term < term || header.term > self.reference.name.term {
                return Err(Problem::impossible("term", header.term.0));
            }
            term = header.term;
            let mut from = 0;
            while let Some(run) = runs.next_if(|run| run.index == index) {
                self.check_run(&run, from..u64::from(header.payload_bytes()))?;
                from = run.in_entry().end;
            }
        }
        if let Some(run) = runs.next() {
            return Err(Problem::impossible("log index of a run", run.index.0));
        }
        fields.end()?;
        Ok(term)
    }

    fn check_run(&self, run: &Run, within: Range<u64>) -> Result<(), Problem> {
        let place = run.in_entry();
        if place.is_empty() || place.start < within.start || place.end > within.end {
            return Err(Problem::impossible("start of a run", run.start));
        }
        let object = self.objects.get(run.object as usize);
        let object = object.ok_or_else(|| Problem::impossible("object of a run", run.object))?;
        let bytes = run.in_object();
        if bytes.start < HEAD_BYTES as u64
            || bytes.end + TAIL_BYTES as u64 > u64::from(object.length)
        {
            return Err(Problem::impossible("offset of a run", run.offset));
        }
        Ok(())
    }
}

/// The round before, and what a new beginning says.
fn take_links(
    fields: &mut Fields<'_>,
    name: ObjectName,
    first: LogIndex,
) -> Result<(Option<ObjectRef>, Option<Beginning>), Problem> {
    let links = fields.u8("links")?;
    if links & !(CONTINUES | BEGINS) != 0 {
        return Err(Problem::impossible("links", links));
    }
    let before = |object: ObjectRef| match object.name.group == name.group && object.name < name {
        true => Ok(object),
        false => Err(Problem::OtherName(object.name)),
    };
    let mut continues = None;
    if links & CONTINUES != 0 {
        continues = Some(before(ObjectRef::take(fields, "round that it continues")?)?);
    }
    let mut begins = None;
    if links & BEGINS != 0 {
        let beginning = Beginning::take(fields)?;
        before(beginning.checkpoint)?;
        if beginning.first_lost == LogIndex(0) || beginning.first_lost >= first {
            return Err(Problem::impossible("first lost index", beginning.first_lost.0));
        }
        begins = Some(beginning);
    }
    Ok((continues, begins))
}
