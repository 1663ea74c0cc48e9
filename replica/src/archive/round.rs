//! Building a round: entries go in, one after the other, objects come out.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use bytes::Bytes;
use common::limits::ENTRY_BYTES_MAX;
use common::{ByteSize, LogIndex, Term};
use lts::{OBJECT_BYTES_MAX, ObjectName};

use super::error::Problem;
use super::footer::{self, FIXED_BYTES_MAX, MEMBERSHIP_BYTES_MAX};
use super::frame::{BODY_BYTES_MAX, ObjectRef, Sealed};
use super::header::{EntryHeader, EntryKind, FeatureLevel};
use super::packed::{self, Slice};
use super::packer::Packer;
use super::runs::{Run, Runs};
use super::skip::Beginning;

/// Runs of one round: where they lie must fit into the one log entry that commits the round.
const RUNS_MAX: usize = 128 * 1024;

const _: () = {
    assert!(RUNS_MAX * Run::BYTES <= ENTRY_BYTES_MAX / 2);
    assert!(packed::Draft::bytes_of_one(ENTRY_BYTES_MAX) as u64 <= OBJECT_BYTES_MAX);
};

/// How a round is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundSettings {
    /// Bytes of an object that is not made larger; at most 64 MiB, because objects are put whole.
    pub object_bytes: ByteSize,
    /// An owner with this many bytes in a round gets objects of its own: they need not be
    /// compacted, and are deleted as soon as it is. All others share objects, so that the number
    /// of objects follows bytes, not owners.
    pub own_object_bytes: ByteSize,
}

impl Default for RoundSettings {
    fn default() -> Self {
        Self { object_bytes: ByteSize::mib(32), own_object_bytes: ByteSize::mib(4) }
    }
}

/// A committed and applied entry that is to be archived.
#[derive(Debug, Clone)]
pub struct RoundEntry {
    pub index: LogIndex,
    pub term: Term,
    pub kind: EntryKind,
    pub feature_level: FeatureLevel,
    /// The group's rolling hash over all outcomes, this entry's included.
    pub digest: u64,
    /// What apply reads: the envelope of a normal entry.
    pub context: Bytes,
    /// The payload of a normal entry; what an entry that changes the membership says.
    pub data: Bytes,
    /// Whose the payload is that something refers to, in order of place. What apply refused needs
    /// no place and is left out.
    pub owned: Vec<(u128, Range<u32>)>,
}

/// Whether a round took an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    Yes,
    /// The round is full: finish it, and begin the next one with this entry.
    Full,
}

/// Why entries do not make a round. None of them comes of a healthy log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoundError {
    #[error("entry {found} does not continue the round, which goes on at {expected}")]
    Gap { expected: LogIndex, found: LogIndex },
    #[error("entry {index} has term {term}, one before it has {before}")]
    TermBack { index: LogIndex, term: Term, before: Term },
    #[error(
        "entry {index} says that bytes {start} to {end} of its payload have an owner, which {why}"
    )]
    Owned { index: LogIndex, start: u32, end: u32, why: &'static str },
    #[error("entry {index} {problem}")]
    Entry { index: LogIndex, problem: Problem },
    #[error("entry {index} is too large to be archived: {bytes} bytes")]
    TooLarge { index: LogIndex, bytes: usize },
    #[error("the round has no entries")]
    Empty,
    #[error("the membership has {0} bytes")]
    Membership(usize),
    #[error("the round cannot be called `{name}`: {why}")]
    Name { name: ObjectName, why: &'static str },
}

/// A round whose objects are ready to be put: first all of `objects`, then the footer.
#[derive(Debug)]
pub struct Round {
    pub range: RangeInclusive<LogIndex>,
    pub objects: Vec<Sealed>,
    pub footer: Sealed,
    /// Where the payload lies; objects are numbered as in `objects`.
    pub runs: Runs,
}

#[derive(Debug, Default)]
struct Owned {
    bytes: usize,
    slices: Vec<Slice>,
}

/// Gathers a contiguous range of a log. Payload is shared, never copied.
#[derive(Debug)]
pub struct RoundBuilder {
    settings: RoundSettings,
    continues: Option<ObjectRef>,
    begins: Option<Beginning>,
    first: LogIndex,
    next: LogIndex,
    term: Term,
    headers: Vec<u8>,
    owners: BTreeMap<u128, Owned>,
    runs: usize,
    payload_bytes: u64,
}

impl RoundBuilder {
    /// A round that begins at `first`, which is right behind the round that it continues.
    pub fn new(settings: RoundSettings, continues: Option<ObjectRef>, first: LogIndex) -> Self {
        Self {
            settings,
            continues,
            begins: None,
            first,
            next: first,
            term: Term(0),
            headers: Vec::new(),
            owners: BTreeMap::new(),
            runs: 0,
            payload_bytes: 0,
        }
    }

    /// The entries between the round that it continues and this one are lost.
    pub fn behind(self, begins: Option<Beginning>) -> Self {
        Self { begins, ..self }
    }

    /// The index that comes next.
    pub fn next_index(&self) -> LogIndex {
        self.next
    }

    /// Payload bytes that were taken.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Takes the next entry, all of it or, with an error or where the round is full, nothing.
    pub fn push(&mut self, entry: &RoundEntry) -> Result<Taken, RoundError> {
        let RoundEntry { index, term, .. } = *entry;
        if index != self.next {
            return Err(RoundError::Gap { expected: self.next, found: index });
        }
        if term < self.term {
            return Err(RoundError::TermBack { index, term, before: self.term });
        }
        let bytes = entry.context.len() + entry.data.len();
        if bytes > ENTRY_BYTES_MAX {
            return Err(RoundError::TooLarge { index, bytes });
        }
        let slices = entry.slices()?;
        let header = entry.header(&slices);
        header.check().map_err(|problem| RoundError::Entry { index, problem })?;
        if !self.has_room(&header, slices.len()) {
            return match self.next == self.first {
                true => Err(RoundError::TooLarge { index, bytes }),
                false => Ok(Taken::Full),
            };
        }
        header.put(&mut self.headers);
        self.runs += slices.len();
        for (owner, slice) in slices {
            let owned = self.owners.entry(owner).or_default();
            owned.bytes += slice.bytes.len();
            self.payload_bytes += slice.bytes.len() as u64;
            owned.slices.push(slice);
        }
        (self.next, self.term) = (LogIndex(index.0 + 1), term);
        Ok(Taken::Yes)
    }

    /// Whether footer and commit can hold one more entry. There are at most as many objects as
    /// runs.
    fn has_room(&self, header: &EntryHeader, runs: usize) -> bool {
        let runs = self.runs + runs;
        let headers = self.headers.len() + header.encoded_bytes();
        let body = FIXED_BYTES_MAX + runs * (Run::BYTES + ObjectRef::ROW_BYTES) + headers;
        runs <= RUNS_MAX && body <= BODY_BYTES_MAX
    }

    /// Lays the objects out. The first one is called `first_name`, the others follow in sequence,
    /// the footer last: the sequences up to the footer's are used. `membership` is that behind the
    /// last entry.
    pub fn finish(self, first_name: ObjectName, membership: &[u8]) -> Result<Round, RoundError> {
        self.check_name(first_name)?;
        if membership.len() > MEMBERSHIP_BYTES_MAX {
            return Err(RoundError::Membership(membership.len()));
        }
        let last = LogIndex(self.next.0 - 1);
        let (objects, runs, footer_name) = lay_out(self.settings, self.owners, first_name);
        let references: Vec<ObjectRef> = objects.iter().map(|object| object.reference).collect();
        let entries = u32::try_from(self.next.0 - self.first.0)
            .expect("a footer of 64 MiB holds far fewer headers");
        let draft = footer::Draft {
            first: self.first,
            entries,
            continues: self.continues,
            begins: self.begins,
            membership,
            objects: &references,
            runs: &runs,
            headers: self.headers,
        };
        let footer = draft.seal(footer_name);
        Ok(Round { range: self.first..=last, objects, footer, runs })
    }

    fn check_name(&self, name: ObjectName) -> Result<(), RoundError> {
        let refuse = |why| Err(RoundError::Name { name, why });
        if self.next == self.first {
            return Err(RoundError::Empty);
        }
        if name.term < self.term {
            return refuse("its term is below that of the last entry");
        }
        match self.continues {
            Some(previous) if previous.name.group != name.group => {
                refuse("the round that it continues is of another group")
            }
            Some(previous) if previous.name >= name => {
                refuse("the round that it continues has a later name")
            }
            _ if self.begins.is_some_and(|begins| begins.checkpoint.name >= name) => {
                refuse("the checkpoint that it begins with has a later name")
            }
            _ => Ok(()),
        }
    }
}

/// The objects, where the runs are in them, and the name that comes next.
fn lay_out(
    settings: RoundSettings,
    owners: BTreeMap<u128, Owned>,
    first_name: ObjectName,
) -> (Vec<Sealed>, Runs, ObjectName) {
    let target = settings.object_bytes.bytes().min(OBJECT_BYTES_MAX) as usize;
    let (mut own, mut shared) = (Packer::new(target), Packer::new(target));
    for (owner, Owned { bytes, slices }) in owners {
        let large = bytes as u64 >= settings.own_object_bytes.bytes();
        let packer = if large { &mut own } else { &mut shared };
        slices.into_iter().for_each(|slice| packer.push(owner, slice));
        own.close();
    }
    let mut name = first_name;
    let mut runs = Vec::new();
    let mut objects = Vec::new();
    for (ordinal, draft) in (0..).zip(own.finish().into_iter().chain(shared.finish())) {
        objects.push(draft.seal(name, ordinal, &mut runs));
        name.sequence += 1;
    }
    (objects, Runs::encode(runs), name)
}

impl RoundEntry {
    /// The payload to keep, with what lies side by side and has one owner put together.
    fn slices(&self) -> Result<Vec<(u128, Slice)>, RoundError> {
        let mut runs: Vec<(u128, Range<u32>)> = Vec::with_capacity(self.owned.len());
        let payload = if self.kind == EntryKind::Normal { self.data.len() } else { 0 };
        let mut from = 0;
        for (owner, range) in &self.owned {
            let refuse = |why| {
                let Range { start, end } = *range;
                Err(RoundError::Owned { index: self.index, start, end, why })
            };
            if range.start < from || range.end < range.start {
                return refuse("do not follow the ones before them");
            }
            if range.end as usize > payload {
                return refuse("it does not have");
            }
            from = range.end;
            match runs.last_mut() {
                _ if range.is_empty() => {}
                Some((last, run)) if last == owner && run.end == range.start => run.end = range.end,
                _ => runs.push((*owner, range.clone())),
            }
        }
        let slice = |(owner, run): (u128, Range<u32>)| {
            let bytes = self.data.slice(run.start as usize..run.end as usize);
            let crc = crc32fast::hash(&bytes);
            (owner, Slice { index: self.index, start: run.start, bytes, crc })
        };
        Ok(runs.into_iter().map(slice).collect())
    }

    fn header(&self, slices: &[(u128, Slice)]) -> EntryHeader {
        let data_crc = match slices {
            [(_, all)] if all.bytes.len() == self.data.len() => all.crc,
            _ => crc32fast::hash(&self.data),
        };
        let change = if self.kind == EntryKind::Normal { Bytes::new() } else { self.data.clone() };
        EntryHeader {
            index: self.index,
            term: self.term,
            kind: self.kind,
            feature_level: self.feature_level,
            digest: self.digest,
            data_bytes: self.data.len() as u32,
            data_crc,
            context: self.context.clone(),
            change,
        }
    }
}
