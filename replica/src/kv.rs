//! The key-value store that holds the local checkpoints of all groups of a node.
//!
//! Never on the acknowledgement path: batches arrive from the checkpoint thread and count only
//! once flushed. [`RocksKv`] is the product's, [`MemKv`] its twin with crash semantics; one suite
//! runs on both.

use std::fmt;

use bytes::Bytes;
use common::{GroupId, LogIndex, Term};

use crate::machine::Change;

mod memory;
mod rocks;
#[cfg(test)]
mod tests;

pub use memory::MemKv;
pub use rocks::RocksKv;

/// Up to where the saved state of a group includes its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    pub index: LogIndex,
    pub term: Term,
}

/// The pairs of one group in key order.
pub type Pairs<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes), KvError>> + 'a>;

/// Saved state by group.
///
/// Laws:
/// - `write` is atomic: after a crash its changes and its `applied` are there together or not at
///   all, and a later batch never without an earlier one.
/// - What was written before a successful `flush` survives every crash. What was not may be lost.
/// - Groups do not see each other's keys. `scan` gives keys in order.
pub trait Kv: Send + Sync + fmt::Debug {
    fn write(&self, group: GroupId, applied: Applied, changes: &[Change]) -> Result<(), KvError>;
    fn flush(&self) -> Result<(), KvError>;
    fn applied(&self, group: GroupId) -> Result<Option<Applied>, KvError>;
    fn scan(&self, group: GroupId) -> Result<Pairs<'_>, KvError>;
}

/// The store failed; the node stops, because it could no longer truncate its log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{action} the state store: {detail}")]
pub struct KvError {
    pub action: &'static str,
    pub detail: String,
}

impl KvError {
    pub(crate) fn new(action: &'static str, detail: impl fmt::Display) -> Self {
        Self { action, detail: detail.to_string() }
    }
}

impl Applied {
    /// Persisted: version u8 | index u64 | term u64, little-endian.
    fn encode(self) -> [u8; 17] {
        let mut bytes = [0; 17];
        bytes[0] = 1;
        bytes[1..9].copy_from_slice(&self.index.0.to_le_bytes());
        bytes[9..].copy_from_slice(&self.term.0.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, KvError> {
        let bytes: &[u8; 17] = bytes
            .try_into()
            .map_err(|_| KvError::new("read", "applied record has a wrong length"))?;
        if bytes[0] != 1 {
            return Err(KvError::new("read", format!("applied record has version {}", bytes[0])));
        }
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        Ok(Self { index: LogIndex(word(1)), term: Term(word(9)) })
    }
}
