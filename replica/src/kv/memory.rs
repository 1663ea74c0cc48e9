//! The store's twin for tests and simulations: loses what was not flushed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use common::{GroupId, Rng};

use super::{Applied, Kv, KvError, Pairs};
use crate::machine::Change;

/// An in-memory [`Kv`] with the crash semantics of a store without a log of its own. Clones share
/// the content, as a reopened store would.
#[derive(Debug, Clone, Default)]
pub struct MemKv {
    content: Arc<Mutex<Content>>,
}

#[derive(Debug, Default)]
struct Content {
    flushed: BTreeMap<GroupId, GroupContent>,
    unflushed: Vec<(GroupId, Applied, Vec<Change>)>,
    /// The disk has no space for a flush.
    full: bool,
    /// A flush failed: nothing is written until one succeeds.
    stopped: bool,
}

#[derive(Debug, Clone, Default)]
struct GroupContent {
    applied: Applied,
    pairs: BTreeMap<Vec<u8>, Bytes>,
}

impl GroupContent {
    fn write(&mut self, applied: Applied, changes: &[Change]) {
        self.applied = applied;
        for change in changes {
            match &change.value {
                Some(value) => self.pairs.insert(change.key.clone(), value.clone()),
                None => self.pairs.remove(&change.key),
            };
        }
    }
}

impl Content {
    /// The group as readers see it: what was flushed and what was written since.
    fn group(&self, group: GroupId) -> Option<GroupContent> {
        let mut content = self.flushed.get(&group).cloned();
        for (_, applied, changes) in self.unflushed.iter().filter(|(of, ..)| *of == group) {
            content.get_or_insert_default().write(*applied, changes);
        }
        content
    }

    fn settle(&mut self, batches: usize) {
        for (group, applied, changes) in self.unflushed.drain(..batches) {
            self.flushed.entry(group).or_default().write(applied, &changes);
        }
    }
}

impl MemKv {
    pub fn new() -> Self {
        Self::default()
    }

    /// What a power cut leaves: everything flushed, and of the rest a prefix that chance picks,
    /// as a store that flushed by itself just before would have it.
    pub fn crash(&self, rng: &mut Rng) {
        let mut content = self.lock();
        let kept = rng.below(content.unflushed.len() as u64 + 1) as usize;
        content.settle(kept);
        content.unflushed.clear();
        content.stopped = false;
    }

    /// What a process leaves that closes the store: everything, or on a full disk what was flushed.
    pub fn close(&self) {
        let mut content = self.lock();
        if !content.full {
            let all = content.unflushed.len();
            content.settle(all);
        }
        content.unflushed.clear();
        content.stopped = false;
    }

    /// From now on the disk has no space, or has it again.
    pub fn set_full(&self, full: bool) {
        let mut content = self.lock();
        (content.full, content.stopped) = (full, full && content.stopped);
    }

    /// Throws everything away, as a person who deletes the directory does.
    pub fn wipe(&self) {
        *self.lock() = Content::default();
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_space(action: &'static str) -> KvError {
    KvError { no_space: true, ..KvError::new(action, "no space left on the simulated disk") }
}

impl Kv for MemKv {
    fn write(&self, group: GroupId, applied: Applied, changes: &[Change]) -> Result<(), KvError> {
        let mut content = self.lock();
        if content.stopped {
            return Err(no_space("write to"));
        }
        content.unflushed.push((group, applied, changes.to_vec()));
        Ok(())
    }

    fn flush(&self) -> Result<(), KvError> {
        let mut content = self.lock();
        if content.full {
            content.stopped = true;
            return Err(no_space("flush"));
        }
        let all = content.unflushed.len();
        content.settle(all);
        Ok(())
    }

    fn applied(&self, group: GroupId) -> Result<Option<Applied>, KvError> {
        Ok(self.lock().group(group).map(|content| content.applied))
    }

    fn scan(&self, group: GroupId) -> Result<Pairs<'_>, KvError> {
        let content = self.lock().group(group).unwrap_or_default();
        Ok(Box::new(content.pairs.into_iter().map(|(key, value)| Ok((Bytes::from(key), value)))))
    }
}
