//! Where payload rests once it has left the log, in words that a state machine and the archive of
//! its group share.
//!
//! A machine knows payload as ranges of log entries, whole: what it took over as one range is
//! archived as one run and comes back as one place with one checksum.

use std::ops::RangeInclusive;

use common::{GroupId, Incarnation, LogIndex, Term};
use lts::ObjectName;

use crate::archive::{ObjectRef, Runs};

/// A range of an entry's payload, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnedRun {
    pub index: LogIndex,
    /// Where it begins in the entry's payload.
    pub start: u32,
    pub bytes: u32,
    /// Bytes of one owner lie together in objects.
    pub owner: u128,
}

/// Tells whose the payload of entries is. Taken from the machine on the worker, asked off it.
pub trait Owners: Send {
    /// What the state refers to of these entries' payload, in order of index and start, without
    /// overlaps. What is dropped meanwhile may be among it or not; what comes meanwhile may not.
    fn owned(self: Box<Self>, range: RangeInclusive<LogIndex>) -> Vec<OwnedRun>;
}

/// Of machines whose operations have no payload.
#[derive(Debug)]
pub(crate) struct Nobody;

impl Owners for Nobody {
    fn owned(self: Box<Self>, _range: RangeInclusive<LogIndex>) -> Vec<OwnedRun> {
        Vec::new()
    }
}

/// A committed round: where the payload of a range of the log lies from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiered {
    pub range: RangeInclusive<LogIndex>,
    pub objects: Vec<ObjectRef>,
    /// Objects are numbered as in `objects`.
    pub runs: Runs,
}

/// A place in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rested {
    pub object: ObjectName,
    /// Where the bytes begin in the object.
    pub offset: u32,
    /// CRC-32 (IEEE) of the bytes.
    pub crc: u32,
}

impl Rested {
    /// Stands for bytes that rest nowhere: they were in this entry, which a repair of the log gave
    /// up before it was archived. No object has a name of this incarnation.
    pub fn lost(group: GroupId, entry: LogIndex, start: u32) -> Self {
        let (incarnation, term, sequence) = (Incarnation(0), Term(0), entry.0);
        let object = ObjectName { incarnation, group, term, sequence };
        Self { object, offset: start, crc: 0 }
    }

    /// The entry that the bytes were lost with; `None` where they rest in an object.
    pub fn lost_entry(&self) -> Option<LogIndex> {
        let ObjectName { incarnation, sequence, .. } = self.object;
        (incarnation == Incarnation(0)).then_some(LogIndex(sequence))
    }
}

impl Tiered {
    /// Where a range of an entry's payload lies that was archived as one run.
    pub fn locate(&self, index: LogIndex, start: u32, bytes: u32) -> Option<Rested> {
        let run = self.runs.find(index, start..start.checked_add(bytes)?)?;
        let object = self.objects.get(run.object as usize)?.name;
        (run.start == start && run.bytes == bytes).then_some(Rested {
            object,
            offset: run.offset + u32::from(common::planted::active("extent-in-the-wrong-place")),
            crc: run.crc,
        })
    }
}

/// Bytes in an object that are to be copied next to their neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub owner: u128,
    /// Where the bytes begin in what they are a part of (a segment, say).
    pub position: u64,
    pub rested: Rested,
    pub bytes: u32,
}

impl Piece {
    /// Bytes of memory that a piece costs whoever copies it, beside its own: of a slow segment it
    /// may be more than those.
    pub(crate) const COST: u64 = 192;
}

/// What a compaction copies: pieces in order of owner and position. Pieces that follow one another
/// without a gap become one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompactionPlan {
    pub pieces: Vec<Piece>,
}

impl CompactionPlan {
    /// Bytes of all pieces, at most.
    pub const BYTES_MAX: usize = 32 << 20;

    /// The first pieces, of so many bytes of memory in all, but two of them at least: one alone would
    /// be copied again and again.
    pub(crate) fn up_to(mut self, bytes_max: u64) -> Self {
        let mut bytes = 0;
        let fits = |piece: &Piece| {
            bytes += u64::from(piece.bytes) + Piece::COST;
            bytes <= bytes_max
        };
        let count = self.pieces.iter().copied().take_while(fits).count().max(2);
        self.pieces.truncate(count);
        self
    }
}

/// Pieces of one owner that followed one another, and lie together in one object now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    pub owner: u128,
    pub position: u64,
    pub bytes: u32,
    /// How many pieces they were.
    pub pieces: u32,
    pub rested: Rested,
}

/// A committed compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compacted {
    pub objects: Vec<ObjectRef>,
    /// In order of owner and position.
    pub moved: Vec<Moved>,
}
