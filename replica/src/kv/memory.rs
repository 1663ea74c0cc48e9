//! The store's twin for tests and simulations: loses what was not flushed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use common::{GroupId, Rng};

use super::{Applied, Changes, Kv, KvError, Pairs, Space, Whole};
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
    unflushed: Vec<(GroupId, Write)>,
    /// The disk has no space for a flush.
    full: bool,
    /// A flush failed: nothing is written until one succeeds.
    stopped: bool,
}

/// What a process handed over.
#[derive(Debug, Clone)]
enum Write {
    Changes(Applied, Vec<(Space, Change)>),
    Clear,
    Load(Vec<(Space, Bytes, Bytes)>),
}

#[derive(Debug, Clone, Default)]
struct GroupContent {
    applied: Option<Applied>,
    pairs: BTreeMap<(Space, Vec<u8>), Bytes>,
}

impl Write {
    fn bytes(&self) -> u64 {
        let of_value = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        let bytes: usize = match self {
            Write::Changes(_, changes) => {
                changes.iter().map(|(_, change)| change.key.len() + of_value(&change.value)).sum()
            }
            Write::Clear => 0,
            Write::Load(pairs) => pairs.iter().map(|(_, key, value)| key.len() + value.len()).sum(),
        };
        bytes as u64
    }
}

impl GroupContent {
    fn bytes(&self) -> u64 {
        self.pairs.iter().map(|((_, key), value)| (key.len() + value.len()) as u64).sum()
    }

    fn write(&mut self, write: &Write) {
        match write {
            Write::Changes(applied, changes) => {
                self.applied = Some(*applied);
                for (space, Change { key, value }) in changes {
                    match value {
                        Some(value) => self.pairs.insert((*space, key.clone()), value.clone()),
                        None => self.pairs.remove(&(*space, key.clone())),
                    };
                }
            }
            Write::Clear => *self = Self::default(),
            Write::Load(pairs) => {
                let pairs = pairs.iter().cloned();
                self.pairs.extend(pairs.map(|(space, key, value)| ((space, key.into()), value)));
            }
        }
    }
}

impl Content {
    /// The group as readers see it: what was flushed and what was written since.
    fn group(&self, group: GroupId) -> Option<GroupContent> {
        let mut content = self.flushed.get(&group).cloned();
        for (_, write) in self.unflushed.iter().filter(|(of, _)| *of == group) {
            content.get_or_insert_default().write(write);
        }
        content
    }

    fn settle(&mut self, batches: usize) {
        for (group, write) in self.unflushed.drain(..batches) {
            self.flushed.entry(group).or_default().write(&write);
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

    /// Another store with the same content, as a copy of the directory is.
    pub fn copy(&self) -> Self {
        let content = self.lock();
        let flushed = content.flushed.clone();
        Self { content: Arc::new(Mutex::new(Content { flushed, ..Content::default() })) }
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

impl MemKv {
    fn push(&self, group: GroupId, write: Write) -> Result<(), KvError> {
        let mut content = self.lock();
        if content.stopped {
            return Err(no_space("write to"));
        }
        content.unflushed.push((group, write));
        Ok(())
    }
}

impl Kv for MemKv {
    fn write(&self, group: GroupId, applied: Applied, changes: Changes<'_>) -> Result<(), KvError> {
        let of = |(space, changes): (Space, &[Change])| {
            changes.iter().map(|change| (space, change.clone())).collect::<Vec<_>>()
        };
        self.push(
            group,
            Write::Changes(applied, changes.spaces().into_iter().flat_map(of).collect()),
        )
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
        Ok(self.lock().group(group).and_then(|content| content.applied))
    }

    fn scan(&self, group: GroupId, space: Space) -> Result<Pairs<'_>, KvError> {
        let content = self.lock().group(group).unwrap_or_default();
        let pairs = content.pairs.into_iter().filter(move |((of, _), _)| *of == space);
        Ok(Box::new(pairs.map(|((_, key), value)| Ok((Bytes::from(key), value)))))
    }

    fn whole(&self, group: GroupId) -> Result<Option<Whole<'_>>, KvError> {
        let Some(content) = self.lock().group(group) else { return Ok(None) };
        let Some(applied) = content.applied else { return Ok(None) };
        let pairs = content.pairs.into_iter();
        let pairs = pairs.map(|((space, key), value)| Ok((space, Bytes::from(key), value)));
        Ok(Some(Whole { applied, pairs: Box::new(pairs) }))
    }

    fn clear(&self, group: GroupId) -> Result<(), KvError> {
        self.push(group, Write::Clear)
    }

    fn load(
        &self,
        group: GroupId,
        pairs: &mut dyn Iterator<Item = (Space, Bytes, Bytes)>,
    ) -> Result<(), KvError> {
        self.push(group, Write::Load(pairs.collect()))
    }

    fn memory_bytes(&self) -> u64 {
        let content = self.lock();
        let written = content.unflushed.iter().map(|(_, write)| write.bytes());
        let flushed = content.flushed.values().map(GroupContent::bytes);
        written.chain(flushed).sum()
    }
}
