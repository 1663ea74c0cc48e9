//! Blocks of objects in long-term storage, shared by all readers of all segments.
//!
//! Guarantees: every byte that is handed out was checked against the index of its object, and the
//! index against the object's own checksum and name; a block that several ask for is read once; a
//! reader that goes away takes nothing from others; a failed read is told to all who wait for it
//! and is not remembered. What is kept has a limit, and so has, apart from it, what is being read
//! and what was read ahead: a read is admitted to that budget before it begins. Bytes are not
//! copied: not before a block is used a second time.

mod crc;
mod index;
mod load;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use common::Tasks;
use futures::FutureExt;
use lts::{Bucket, ErrorKind, ObjectName, ObjectPath, Operation};
use replica::archive::ObjectError;

pub(crate) use self::index::{Mismatch, ObjectIndex};
use self::load::{BlockLoad, IndexLoad, Load};
pub(crate) use self::state::Block;
use self::state::{Asked, Item, Key, Loaded, State, Use};
use crate::limits::{OBJECT_FETCH_BYTES_MAX, OBJECT_INDEX_HINT_BYTES, OBJECT_WINDOW_BYTES_MAX};
use crate::metrics::Metrics;
use crate::permits::{BytePermit, BytePermits};

/// How often a reader asks anew where the one that read for it was dropped.
const GIVEN_UP_MAX: u32 = 3;

/// Why something could not be read from an object; shared by all who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Storage(#[from] lts::Error),
    #[error("{0}; restore the object from a copy and run `braid lts check`")]
    Object(#[from] ObjectError),
    #[error(
        "object `{object}` is not the one that was stored, or the segment's state is wrong: \
         {mismatch}; restore the object from a copy and run `braid lts check`"
    )]
    Mismatch { object: ObjectName, mismatch: Mismatch },
    #[error("reading from long-term storage was given up")]
    GivenUp,
}

impl LoadError {
    /// Whether the bytes are there as far as anyone knows, and only the store cannot give them now.
    pub(crate) fn is_unavailable(&self) -> bool {
        let LoadError::Storage(error) = self else { return false };
        !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged)
    }
}

/// Cheap to clone; clones share everything.
#[derive(Clone)]
pub(crate) struct ObjectCache {
    inner: Arc<Inner>,
}

struct Inner {
    bucket: Arc<dyn Bucket>,
    state: Mutex<State>,
    /// For what is being read and what was read ahead.
    permits: BytePermits,
    budget: usize,
    /// Readers that read from objects.
    readers: AtomicUsize,
    metrics: Arc<Metrics>,
    /// Reads run in these; without them, where they are asked for.
    tasks: Option<Tasks>,
}

impl fmt::Debug for ObjectCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectCache").field("bucket", &self.inner.bucket).finish_non_exhaustive()
    }
}

impl ObjectCache {
    /// A cache of `cache_bytes`, and a budget of `ahead_bytes` for reading. Without tasks a reader
    /// reads by itself, and ahead only what is there at once: for simulations.
    pub(crate) fn new(
        bucket: Arc<dyn Bucket>,
        cache_bytes: usize,
        ahead_bytes: usize,
        metrics: Arc<Metrics>,
        tasks: Option<Tasks>,
    ) -> Self {
        let state = Mutex::new(State::new(cache_bytes, metrics.clone()));
        let (permits, readers) = (BytePermits::new(ahead_bytes), AtomicUsize::new(0));
        let budget = ahead_bytes;
        Self { inner: Arc::new(Inner { bucket, state, permits, budget, readers, metrics, tasks }) }
    }

    /// A place among the readers of objects.
    pub(crate) fn join(&self) -> Seat {
        self.inner.readers.fetch_add(1, Ordering::Relaxed);
        Seat { inner: self.inner.clone() }
    }

    /// What one reader may have read ahead: together they leave half of the budget to those who
    /// wait for what they read.
    pub(crate) fn share(&self) -> usize {
        let readers = self.inner.readers.load(Ordering::Relaxed);
        (self.inner.budget / 2 / readers.max(1)).min(OBJECT_WINDOW_BYTES_MAX)
    }

    /// The index of an object.
    pub(crate) async fn index(&self, object: ObjectName) -> Result<Arc<ObjectIndex>, LoadError> {
        let load = || Load::Index(IndexLoad::new(self.inner.clone(), object, None));
        match self.get(Key::Index(object), load).await? {
            Item::Index(index) => Ok(index),
            Item::Block(_) => unreachable!("an index is kept under its key"),
        }
    }

    /// A block of an object.
    pub(crate) async fn block(
        &self,
        index: &Arc<ObjectIndex>,
        block: u32,
    ) -> Result<Block, LoadError> {
        let load = || {
            let blocks = block..block + 1;
            Load::Blocks(BlockLoad::new(self.inner.clone(), index.clone(), blocks, None))
        };
        match self.get(Key::block(index, block), load).await? {
            Item::Block(block) => Ok(block),
            Item::Index(_) => unreachable!("a block is kept under its key"),
        }
    }

    /// An index that is there, without using it.
    pub(crate) fn ready_index(&self, object: ObjectName) -> Option<Arc<ObjectIndex>> {
        match self.inner.lock().peek(&Key::Index(object)) {
            Some(Item::Index(index)) => Some(index),
            _ => None,
        }
    }

    /// A block if it is there.
    pub(crate) fn ready_block(&self, index: &ObjectIndex, block: u32) -> Option<Block> {
        match self.inner.lock().take(&Key::block(index, block)) {
            Some((Item::Block(block), _)) => Some(block),
            _ => None,
        }
    }

    /// Begins to read an index that is not there, if the budget has room.
    pub(crate) fn index_ahead(&self, object: ObjectName) {
        let Some(permit) = self.inner.permits.try_acquire(OBJECT_INDEX_HINT_BYTES as usize) else {
            return;
        };
        if self.inner.lock().claim_ahead(Key::Index(object)) {
            self.start_ahead(Load::Index(IndexLoad::new(self.inner.clone(), object, Some(permit))));
        }
    }

    /// Begins to read those of `plan` that are not there, as far as the budget has room; unless the
    /// next one is there and less than `at_least` bytes are not.
    pub(crate) fn read_ahead(&self, plan: &[(Arc<ObjectIndex>, Range<u32>)], at_least: usize) {
        let enough = {
            let state = self.inner.lock();
            let absent =
                plan.iter().map(|(index, blocks)| state.absent_bytes(index, blocks.clone()));
            let next = plan.iter().find(|(_, blocks)| !blocks.is_empty());
            let next = next.map_or(0, |(index, blocks)| {
                state.absent_bytes(index, blocks.start..blocks.start + 1)
            });
            next == 0 && absent.sum::<usize>() < at_least
        };
        if enough {
            return;
        }
        for (index, blocks) in plan {
            let mut blocks = blocks.clone();
            while let Some((load, end)) = self.claim_ahead(index, blocks.clone()) {
                self.start_ahead(load);
                blocks.start = end;
            }
        }
    }

    /// Claims the first absent blocks that follow one another; says where they end.
    fn claim_ahead(&self, index: &Arc<ObjectIndex>, blocks: Range<u32>) -> Option<(Load, u32)> {
        let mut state = self.inner.lock();
        let run = state.absent_run(index, blocks, OBJECT_FETCH_BYTES_MAX as usize)?;
        let bytes = index.bytes(run.clone());
        let permit = self.inner.try_admit(&mut state, bytes)?;
        state.claim_blocks(index, run.clone());
        let end = run.end;
        let load = BlockLoad::new(self.inner.clone(), index.clone(), run, Some(permit));
        Some((Load::Blocks(load), end))
    }

    /// Drops what is known of an object whose bytes were not what they should be.
    pub(crate) fn forget(&self, object: ObjectName) {
        self.inner.lock().forget(object);
    }

    async fn get(&self, key: Key, load: impl Fn() -> Load) -> Loaded {
        let metrics = &self.inner.metrics;
        for _ in 0..GIVEN_UP_MAX {
            let asked = self.inner.lock().ask(key);
            let loaded = match asked {
                Asked::Ready(item, which) => {
                    metrics.object_cache_hits.add(1);
                    return Ok(if which == Use::First { item } else { self.settle(key, item) });
                }
                Asked::Loading(loaded) => {
                    metrics.object_cache_hits.add(1);
                    loaded
                }
                Asked::Claimed(loaded) => {
                    metrics.object_cache_misses.add(1);
                    self.start(load()).await;
                    loaded
                }
            };
            match loaded.await {
                Ok(Err(LoadError::GivenUp)) | Err(_) => {}
                Ok(loaded) => return loaded,
            }
        }
        Err(LoadError::GivenUp)
    }

    /// A block that was used before gets memory of its own.
    fn settle(&self, key: Key, item: Item) -> Item {
        let Item::Block(block) = &item else { return item };
        let Some(own) = block.on_its_own() else { return item };
        self.inner.lock().settle(key, &own);
        Item::Block(own)
    }

    /// Lets a read run by itself, or to its end.
    async fn start(&self, load: Load) {
        match &self.inner.tasks {
            Some(tasks) => spawn(tasks, load),
            None => load.run().await,
        }
    }

    fn start_ahead(&self, load: Load) {
        match &self.inner.tasks {
            Some(tasks) => spawn(tasks, load),
            // What cannot be had at once is given up, and read when it is needed.
            None => drop(load.run().now_or_never()),
        }
    }
}

fn spawn(tasks: &Tasks, load: Load) {
    let token = tasks.token();
    tasks.spawn("object-read", async move {
        token.run_until_cancelled(load.run()).await;
    });
}

impl Inner {
    /// Nothing under this lock calls out or can fail half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn get(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, LoadError> {
        let asked = range.end - range.start;
        let bytes = self.bucket.get(path, range).await?;
        self.metrics.object_read_bytes.add(bytes.len() as u64);
        if bytes.len() as u64 != asked {
            let why = format!("it answered with {} bytes, not {asked}", bytes.len());
            let (kind, url) = (ErrorKind::Damaged, self.bucket.url());
            return Err(lts::Error::new(kind, Operation::Get, path, url, why).into());
        }
        Ok(bytes)
    }

    /// Takes of the budget, and waits for it where reads under way have it: they end. What was read
    /// ahead may lie for as long as it takes, so it gives way.
    async fn admit(&self, bytes: usize) -> BytePermit {
        let _short = Short::new(self, bytes);
        self.permits.acquire(bytes).await
    }

    /// Takes of the budget what reads under way leave. The oldest of what was read ahead gives way:
    /// its reader has gone, or is so slow that it can wait.
    fn try_admit(&self, state: &mut State, bytes: usize) -> Option<BytePermit> {
        self.make_room(state, bytes);
        self.permits.try_acquire(bytes)
    }

    fn make_room(&self, state: &mut State, bytes: usize) {
        while self.permits.free_bytes() < bytes.min(self.budget) && state.reclaim() {}
    }

    fn complete(&self, key: Key, item: &Item, permit: BytePermit) {
        let waiting = self.lock().complete(key, item, permit);
        for reply in waiting {
            // Whoever waited may have gone away.
            let _ = reply.send(Ok(item.clone()));
        }
    }

    fn fail(&self, key: &Key, error: &LoadError) {
        let waiting = self.lock().fail(key);
        for reply in waiting {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

/// Someone waits for the budget.
struct Short<'a> {
    inner: &'a Inner,
}

impl<'a> Short<'a> {
    fn new(inner: &'a Inner, bytes: usize) -> Self {
        let mut state = inner.lock();
        state.short += 1;
        inner.make_room(&mut state, bytes);
        Self { inner }
    }
}

impl Drop for Short<'_> {
    fn drop(&mut self) {
        self.inner.lock().short -= 1;
    }
}

/// See [`ObjectCache::join`].
pub(crate) struct Seat {
    inner: Arc<Inner>,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seat")
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.inner.readers.fetch_sub(1, Ordering::Relaxed);
    }
}
