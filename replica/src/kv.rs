//! The key-value store that holds the local checkpoints of all groups of a node.
//!
//! Never on the acknowledgement path: batches arrive from the checkpoint thread and count only
//! once flushed. [`RocksKv`] is the product's, [`MemKv`] its twin with crash semantics; one suite
//! runs on both.

use std::fmt;

use bytes::Bytes;
use common::{GroupId, LogIndex, Term, WallTime};

use crate::entry::Stamp;
use crate::machine::Change;

mod memory;
mod rocks;
#[cfg(test)]
mod tests;

pub use memory::MemKv;
pub use rocks::RocksKv;

/// Up to where the saved state of a group includes its log, and what goes with that place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    pub index: LogIndex,
    pub term: Term,
    /// The newest stamps up to there: the next ones must not be earlier.
    pub stamp: Stamp,
    /// The rolling hash over all outcomes up to there.
    pub digest: u64,
}

/// The pairs of one group and space in key order.
pub type Pairs<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), KvError>> + 'a>;

/// Whose pairs they are. The numbers are persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    /// The state machine's.
    Machine = 1,
    /// The archive's of the group.
    Archive = 2,
}

impl Space {
    pub(crate) const ALL: [Space; 2] = [Space::Machine, Space::Archive];

    pub(crate) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|space| *space as u8 == number)
    }
}

/// What changed in each space.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changes<'a> {
    pub machine: &'a [Change],
    pub archive: &'a [Change],
}

impl<'a> Changes<'a> {
    pub(crate) fn spaces(self) -> [(Space, &'a [Change]); 2] {
        [(Space::Machine, self.machine), (Space::Archive, self.archive)]
    }
}

/// Everything saved of a group as it was at one moment.
pub struct Whole<'a> {
    pub applied: Applied,
    /// In order of spaces and keys.
    pub pairs: Box<dyn Iterator<Item = Result<(Space, Bytes, Bytes), KvError>> + 'a>,
}

/// Saved state by group.
///
/// Laws:
/// - `write` is atomic: after a crash its changes and its `applied` are there together or not at
///   all, and a later batch never without an earlier one.
/// - What was written before a successful `flush` survives every crash. What was not may be lost.
/// - A `write` or `flush` that finds the disk full says so (`no_space`) and costs nothing that was
///   flushed before. Once there is space the same batch can be written and flushed again, soon but
///   perhaps not at once; until then every attempt may fail in the same way.
/// - Groups and spaces do not see each other's keys. `scan` gives keys in order.
/// - `whole` is of one moment, whatever is written while it is read; `None` where nothing counts.
/// - `load` adds pairs that do not count before a `write`; `clear` removes everything of a group. A
///   crash between them leaves any part, and no `applied`.
pub trait Kv: Send + Sync + fmt::Debug {
    fn write(&self, group: GroupId, applied: Applied, changes: Changes<'_>) -> Result<(), KvError>;
    fn flush(&self) -> Result<(), KvError>;
    fn applied(&self, group: GroupId) -> Result<Option<Applied>, KvError>;
    fn scan(&self, group: GroupId, space: Space) -> Result<Pairs<'_>, KvError>;
    fn whole(&self, group: GroupId) -> Result<Option<Whole<'_>>, KvError>;
    fn clear(&self, group: GroupId) -> Result<(), KvError>;
    fn load(
        &self,
        group: GroupId,
        pairs: &mut dyn Iterator<Item = (Space, Bytes, Bytes)>,
    ) -> Result<(), KvError>;
    /// Bytes of its buffers and its cache, about.
    fn memory_bytes(&self) -> u64;
}

/// The store failed. But for a full disk the node stops: it could no longer truncate its log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{action} the state store: {detail}")]
pub struct KvError {
    pub action: &'static str,
    pub detail: String,
    /// The disk has no space: the same again succeeds once it has.
    pub no_space: bool,
}

impl KvError {
    pub(crate) fn new(action: &'static str, detail: impl fmt::Display) -> Self {
        Self { action, detail: detail.to_string(), no_space: false }
    }
}

/// Bytes of an encoded [`Applied`].
pub(crate) const APPLIED_BYTES: usize = 1 + 5 * 8;

impl Applied {
    /// Persisted: version u8 | index | term | wall | up | digest, each u64 little-endian.
    pub(crate) fn encode(self) -> [u8; APPLIED_BYTES] {
        let mut bytes = [0; APPLIED_BYTES];
        bytes[0] = 1;
        let Stamp { wall, up_micros } = self.stamp;
        let words = [self.index.0, self.term.0, wall.0, up_micros, self.digest];
        for (into, word) in bytes[1..].chunks_exact_mut(8).zip(words) {
            into.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, KvError> {
        let bytes: &[u8; APPLIED_BYTES] = bytes
            .try_into()
            .map_err(|_| KvError::new("read", "applied record has a wrong length"))?;
        if bytes[0] != 1 {
            return Err(KvError::new("read", format!("applied record has version {}", bytes[0])));
        }
        let (words, _) = bytes[1..].as_chunks::<8>();
        let word = |at: usize| u64::from_le_bytes(words[at]);
        Ok(Self {
            index: LogIndex(word(0)),
            term: Term(word(1)),
            stamp: Stamp { wall: WallTime(word(2)), up_micros: word(3) },
            digest: word(4),
        })
    }
}
