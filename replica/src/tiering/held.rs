//! How much memory the jobs of a node hold, for whoever splits a memory limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts bytes that jobs have in memory: what they gathered, what they are putting, and what they
/// read. Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Held(Arc<AtomicU64>);

impl Held {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts these bytes until what is returned is dropped.
    pub(crate) fn hold(&self, bytes: u64) -> Holding {
        let mut holding = Holding { held: self.clone(), bytes: 0 };
        holding.grow(bytes);
        holding
    }
}

/// Bytes that are counted for as long as this lives.
#[derive(Debug)]
pub(crate) struct Holding {
    held: Held,
    bytes: u64,
}

impl Holding {
    pub(crate) fn grow(&mut self, bytes: u64) {
        self.held.0.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }

    pub(crate) fn set(&mut self, bytes: u64) {
        self.held.0.fetch_add(bytes, Ordering::Relaxed);
        self.held.0.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
