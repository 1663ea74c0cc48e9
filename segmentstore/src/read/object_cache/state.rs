//! What the cache holds and what is on its way, under one lock.
//!
//! What was used lies in `kept`, whose policy (`quick_cache`: CLOCK-Pro and S3-FIFO) lets go first
//! of what was used once. What was read ahead lies in `staged` until its reader comes, and takes of
//! the budget for reading meanwhile: its coming is the *first* use, so that a reader that passes
//! through once leaves nothing that looks used again.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lts::ObjectName;
use quick_cache::unsync::Cache;
use quick_cache::{OptionsBuilder, Weighter};
use tokio::sync::oneshot;

use super::{LoadError, ObjectIndex};
use crate::metrics::Metrics;
use crate::permits::BytePermit;

/// What an item costs beside its bytes.
const ITEM_OVERHEAD_BYTES: usize = 256;

/// Bytes of most items: a block.
const ITEM_BYTES: u64 = crate::limits::OBJECT_BLOCK_BYTES as u64;

/// The share of the cache for what is used again and again.
const HOT_SHARE: f64 = 0.8;

/// Names what is cached. A block belongs to one index: an object that was put back with other bytes
/// has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Index(ObjectName),
    Block { object: ObjectName, index: u32, block: u32 },
}

impl Key {
    pub(super) fn block(index: &ObjectIndex, block: u32) -> Self {
        Self::Block { object: index.object(), index: index.fingerprint(), block }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Item {
    Index(Arc<ObjectIndex>),
    Block(Block),
}

/// A block whose every byte was checked.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// Where it begins in the object.
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
    /// Whether the bytes are a part of what was read together, and keep all of that in memory.
    pub(super) shared: bool,
}

impl Block {
    /// The same bytes in memory of their own, if they share it.
    pub(super) fn on_its_own(&self) -> Option<Self> {
        let own = || Self {
            bytes: Bytes::copy_from_slice(&self.bytes),
            shared: false,
            offset: self.offset,
        };
        self.shared.then(own)
    }
}

#[derive(Debug)]
struct ByBytes;

impl Weighter<Key, Item> for ByBytes {
    fn weight(&self, _key: &Key, item: &Item) -> u64 {
        let bytes = match item {
            Item::Index(index) => index.memory_bytes(),
            Item::Block(block) => block.bytes.len(),
        };
        (bytes + ITEM_OVERHEAD_BYTES) as u64
    }
}

pub(super) type Loaded = Result<Item, LoadError>;

/// What asking for an item came to.
pub(super) enum Asked {
    /// It is there; was it used before?
    Ready(Item, Use),
    /// Someone is loading it.
    Loading(oneshot::Receiver<Loaded>),
    /// It is not there, and the one who asked has to load it.
    Claimed(oneshot::Receiver<Loaded>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    First,
    Further,
}

pub(super) struct State {
    kept: Cache<Key, Item, ByBytes>,
    staged: Staged,
    loading: HashMap<Key, Vec<oneshot::Sender<Loaded>>>,
    /// Readers that wait for the budget: nothing may be staged at their cost.
    pub(super) short: usize,
    metrics: Arc<Metrics>,
    counted: u64,
}

impl State {
    pub(super) fn new(cache_bytes: usize, metrics: Arc<Metrics>) -> Self {
        let options = OptionsBuilder::new()
            .weight_capacity(cache_bytes as u64)
            .estimated_items_capacity((cache_bytes as u64 / ITEM_BYTES).max(16) as usize)
            .hot_allocation(HOT_SHARE)
            .build()
            .expect("both capacities are set");
        let kept = Cache::with_options(options, ByBytes, Default::default(), Default::default());
        let (staged, loading) = (Staged::default(), HashMap::new());
        Self { kept, staged, loading, short: 0, metrics, counted: 0 }
    }

    /// Asks for an item to use it; waits with the others where it is being loaded.
    pub(super) fn ask(&mut self, key: Key) -> Asked {
        if let Some((item, which)) = self.take(&key) {
            return Asked::Ready(item, which);
        }
        let (reply, loaded) = oneshot::channel();
        match self.loading.get_mut(&key) {
            Some(waiting) => {
                waiting.retain(|reply| !reply.is_closed());
                waiting.push(reply);
                Asked::Loading(loaded)
            }
            None => {
                self.loading.insert(key, vec![reply]);
                Asked::Claimed(loaded)
            }
        }
    }

    /// An item, to use it, if it is there.
    pub(super) fn take(&mut self, key: &Key) -> Option<(Item, Use)> {
        let Some((block, _permit)) = self.unstage(key) else {
            return self.kept.get(key).map(|item| (item.clone(), Use::Further));
        };
        self.keep(*key, Item::Block(block.clone()));
        Some((Item::Block(block), Use::First))
    }

    /// An item if it is there, without using it.
    pub(super) fn peek(&self, key: &Key) -> Option<Item> {
        let staged = self.staged.by_key.get(key).map(|staged| Item::Block(staged.block.clone()));
        staged.or_else(|| self.kept.peek(key).cloned())
    }

    fn is_absent(&self, key: &Key) -> bool {
        let there = self.kept.contains_key(key) || self.staged.by_key.contains_key(key);
        !there && !self.loading.contains_key(key)
    }

    /// Marks an absent item as being loaded, though nobody waits for it yet. Whoever claims, loads.
    pub(super) fn claim_ahead(&mut self, key: Key) -> bool {
        let absent = self.is_absent(&key);
        if absent {
            self.loading.insert(key, Vec::new());
        }
        absent
    }

    /// Claims absent blocks that follow one another.
    pub(super) fn claim_blocks(&mut self, index: &ObjectIndex, blocks: Range<u32>) {
        for block in blocks {
            let claimed = self.claim_ahead(Key::block(index, block));
            debug_assert!(claimed, "the blocks were absent");
        }
    }

    /// The first absent blocks among `blocks` that follow one another, with up to `most` bytes.
    pub(super) fn absent_run(
        &self,
        index: &ObjectIndex,
        blocks: Range<u32>,
        most: usize,
    ) -> Option<Range<u32>> {
        let absent = |block: &u32| self.is_absent(&Key::block(index, *block));
        let start = blocks.clone().find(absent)?;
        let fits = |end: &u32| index.bytes(start..end + 1) <= most;
        let more = (start + 1..blocks.end).take_while(|block| absent(block) && fits(block));
        Some(start..start + 1 + more.count() as u32)
    }

    /// Bytes of absent blocks among `blocks`.
    pub(super) fn absent_bytes(&self, index: &ObjectIndex, blocks: Range<u32>) -> usize {
        let absent = blocks.filter(|block| self.is_absent(&Key::block(index, *block)));
        absent.map(|block| index.bytes(block..block + 1)).sum()
    }

    /// Takes in what was loaded and says who waits for it. What nobody waits for is staged.
    pub(super) fn complete(
        &mut self,
        key: Key,
        item: &Item,
        permit: BytePermit,
    ) -> Vec<oneshot::Sender<Loaded>> {
        let mut waiting = self.loading.remove(&key).unwrap_or_default();
        waiting.retain(|reply| !reply.is_closed());
        match item {
            Item::Block(block) if waiting.is_empty() && self.short == 0 => {
                self.metrics.object_ahead_bytes.add(block.bytes.len() as u64);
                self.staged.push(key, block.clone(), permit);
            }
            _ => self.keep(key, item.clone()),
        }
        waiting
    }

    /// Takes back a claim and says who waits for it.
    pub(super) fn fail(&mut self, key: &Key) -> Vec<oneshot::Sender<Loaded>> {
        self.loading.remove(key).unwrap_or_default()
    }

    /// Gives the budget back what the oldest staged block takes of it. The block may be lost.
    pub(super) fn reclaim(&mut self) -> bool {
        let Some(oldest) = self.staged.oldest() else { return false };
        if let Some((block, _permit)) = self.unstage(&oldest) {
            self.keep(oldest, Item::Block(block));
        }
        true
    }

    /// Drops an index that does not fit its object, or the object it; blocks go with it.
    pub(super) fn forget(&mut self, object: ObjectName) {
        self.kept.remove(&Key::Index(object));
        self.count();
    }

    /// A block that is used again gets memory of its own, or it would keep its neighbours in memory
    /// when the cache has long let go of them.
    pub(super) fn settle(&mut self, key: Key, block: &Block) {
        // Not under the policy's eyes: this is not a use.
        let _gone_meanwhile = self.kept.replace(key, Item::Block(block.clone()), true);
        self.count();
    }

    fn keep(&mut self, key: Key, item: Item) {
        self.kept.insert(key, item);
        self.count();
    }

    fn unstage(&mut self, key: &Key) -> Option<(Block, BytePermit)> {
        let (block, permit) = self.staged.remove(key)?;
        self.metrics.object_ahead_bytes.subtract(block.bytes.len() as u64);
        Some((block, permit))
    }

    fn count(&mut self) {
        let now = self.kept.weight();
        self.metrics.object_cache_bytes.add(now.saturating_sub(self.counted));
        self.metrics.object_cache_bytes.subtract(self.counted.saturating_sub(now));
        self.counted = now;
    }
}

/// Blocks that were read ahead, by age.
#[derive(Default)]
struct Staged {
    by_key: HashMap<Key, StagedBlock>,
    by_age: BTreeMap<u64, Key>,
    next: u64,
}

struct StagedBlock {
    block: Block,
    permit: BytePermit,
    age: u64,
}

impl Staged {
    fn push(&mut self, key: Key, block: Block, permit: BytePermit) {
        let age = self.next;
        self.next += 1;
        self.by_age.insert(age, key);
        self.by_key.insert(key, StagedBlock { block, permit, age });
    }

    fn remove(&mut self, key: &Key) -> Option<(Block, BytePermit)> {
        let StagedBlock { block, permit, age } = self.by_key.remove(key)?;
        self.by_age.remove(&age);
        Some((block, permit))
    }

    fn oldest(&self) -> Option<Key> {
        self.by_age.first_key_value().map(|(_, key)| *key)
    }
}
