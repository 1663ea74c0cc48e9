//! Recently read log entries, shared by all readers of all segments.
//!
//! An entry holds blocks of many segments, so that one read of it serves many readers. Whoever
//! asks first reads; others wait for the same read. Entries a reader will need next are read ahead
//! while the pool has spare room. First in, first out: a scan passes through and leaves nothing
//! that matters behind, the newest bytes are in the segments' tails.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use common::{GroupId, LogIndex, ThreadPool};
use tokio::sync::oneshot;

use crate::metrics::Metrics;

/// Bytes that one call to the log may return.
const LOG_READ_BYTES: usize = 1024 * 1024;

/// What an entry costs beside its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// Where log entries are read from.
///
/// Laws: `read` returns entries `low..high` in order, at least one and then as many as fit
/// `max_bytes`; what it returns was checked against its checksums and is never changed later.
pub trait LogSource: Send + Sync + 'static {
    fn read(
        &self,
        group: GroupId,
        low: LogIndex,
        high: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<(LogIndex, Bytes)>, wal::ReadError>;
}

/// A payload of this size may keep the rest of its disk read (about 1 MiB) in memory.
const SLICE_BYTES_MIN: usize = 512 * 1024;

impl LogSource for wal::Log {
    fn read(
        &self,
        group: GroupId,
        low: LogIndex,
        high: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<(LogIndex, Bytes)>, wal::ReadError> {
        let entries = wal::Log::read(self, group, low, high, max_bytes)?;
        // A slice keeps the buffer of a whole disk read alive; a small one gets memory of its own.
        let own = |data: Bytes| match data.len() {
            bytes if bytes < SLICE_BYTES_MIN => Bytes::copy_from_slice(&data),
            _ => data,
        };
        Ok(entries.into_iter().map(|entry| (entry.index, own(entry.data))).collect())
    }
}

/// Why an entry could not be read; shared by all who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{}", chain(.0))]
    Log(Arc<wal::ReadError>),
    #[error("the log returned nothing for index {0}")]
    Missing(LogIndex),
    #[error("reading the log was given up")]
    GivenUp,
}

fn chain(error: &wal::ReadError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

type Loaded = Result<Bytes, LoadError>;
type Key = (GroupId, LogIndex);

pub(crate) struct LogCache {
    entries: Arc<Entries>,
    pool: ThreadPool,
}

struct Entries {
    source: Arc<dyn LogSource>,
    limit: usize,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: HashMap<Key, Slot>,
    /// Keys of what is ready, from the oldest to the newest.
    order: VecDeque<Key>,
    bytes: usize,
}

enum Slot {
    Loading(Vec<oneshot::Sender<Loaded>>),
    Ready(Bytes),
}

/// What asking for an entry came to.
enum Asked {
    Ready(Bytes),
    Loading(oneshot::Receiver<Loaded>),
    Absent,
}

impl fmt::Debug for LogCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogCache").field("limit", &self.entries.limit).finish_non_exhaustive()
    }
}

impl LogCache {
    pub(crate) fn new(
        source: Arc<dyn LogSource>,
        limit: usize,
        pool: ThreadPool,
        metrics: Arc<Metrics>,
    ) -> Self {
        let entries = Entries { source, limit, metrics, state: Mutex::default() };
        Self { entries: Arc::new(entries), pool }
    }

    /// What one of `readers` readers may have read ahead without pushing others' bytes out.
    pub(crate) fn share(&self, readers: u64) -> usize {
        self.entries.limit / 2 / (readers.max(1) as usize)
    }

    /// The payload of the first of `indices`; the others are read ahead.
    pub(crate) async fn get(&self, group: GroupId, indices: &[LogIndex]) -> Loaded {
        let Some(first) = indices.first() else { return Err(LoadError::GivenUp) };
        loop {
            match self.entries.ask((group, *first)) {
                Asked::Ready(bytes) => {
                    self.read_ahead(group, &indices[1..]);
                    return Ok(bytes);
                }
                Asked::Loading(loaded) => {
                    self.read_ahead(group, &indices[1..]);
                    return loaded.await.unwrap_or(Err(LoadError::GivenUp));
                }
                Asked::Absent => {
                    let room = self.pool.room().await;
                    // Asked for before it is read: a failure reaches whoever waits then.
                    let Some((run, loaded)) = self.entries.claim_first(group, indices) else {
                        continue;
                    };
                    let load = Load::new(self.entries.clone(), group, run);
                    self.pool.submit(room, move || load.run());
                    self.read_ahead(group, &indices[1..]);
                    return loaded.await.unwrap_or(Err(LoadError::GivenUp));
                }
            }
        }
    }

    /// An entry's payload if it is in memory.
    pub(crate) fn ready(&self, group: GroupId, index: LogIndex) -> Option<Bytes> {
        match self.entries.lock().slots.get(&(group, index)) {
            Some(Slot::Ready(bytes)) => Some(bytes.clone()),
            _ => None,
        }
    }

    fn read_ahead(&self, group: GroupId, mut indices: &[LogIndex]) {
        while !indices.is_empty() {
            let Some(room) = self.pool.spare_room() else { return };
            let Some((run, taken)) = self.entries.lock().claim_run(group, indices) else { return };
            indices = &indices[taken..];
            let load = Load::new(self.entries.clone(), group, run);
            self.pool.submit(room, move || load.run());
        }
    }
}

impl Entries {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, key: Key) -> Asked {
        match self.lock().slots.get_mut(&key) {
            Some(Slot::Ready(bytes)) => Asked::Ready(bytes.clone()),
            Some(Slot::Loading(waiting)) => {
                let (reply, loaded) = oneshot::channel();
                waiting.retain(|reply| !reply.is_closed());
                waiting.push(reply);
                Asked::Loading(loaded)
            }
            None => Asked::Absent,
        }
    }

    /// Claims the run at the beginning of `indices` and waits for its first entry, unless that is
    /// there or being read by now.
    fn claim_first(
        &self,
        group: GroupId,
        indices: &[LogIndex],
    ) -> Option<(Range<u64>, oneshot::Receiver<Loaded>)> {
        let key = (group, *indices.first()?);
        let mut state = self.lock();
        if state.slots.contains_key(&key) {
            return None;
        }
        let (run, _) = state.claim_run(group, indices)?;
        let (reply, loaded) = oneshot::channel();
        state.slots.insert(key, Slot::Loading(vec![reply]));
        Some((run, loaded))
    }

    /// Makes entries ready and wakes who waits for them.
    fn complete(&self, group: GroupId, loaded: Vec<(LogIndex, Bytes)>) {
        let mut replies = Vec::new();
        {
            let mut state = self.lock();
            for (index, bytes) in loaded {
                let size = bytes.len() + ENTRY_OVERHEAD_BYTES;
                let ready = Slot::Ready(bytes.clone());
                if let Some(Slot::Loading(waiting)) = state.slots.insert((group, index), ready) {
                    replies.extend(waiting.into_iter().map(|reply| (reply, bytes.clone())));
                }
                state.order.push_back((group, index));
                state.bytes += size;
                self.metrics.read_cache_bytes.add(size as u64);
                self.metrics.log_read_bytes.add(bytes.len() as u64);
            }
            self.evict(&mut state);
        }
        for (reply, bytes) in replies {
            // Whoever waited may have gone away.
            let _ = reply.send(Ok(bytes));
        }
    }

    fn evict(&self, state: &mut State) {
        while state.bytes > self.limit
            && let Some(oldest) = state.order.pop_front()
        {
            if let Some(Slot::Ready(bytes)) = state.slots.remove(&oldest) {
                let size = bytes.len() + ENTRY_OVERHEAD_BYTES;
                state.bytes -= size;
                self.metrics.read_cache_bytes.subtract(size as u64);
            }
        }
    }

    /// Tells who waits for these entries that they were not read.
    fn fail(&self, group: GroupId, indices: Range<u64>, error: &LoadError) {
        let mut replies = Vec::new();
        {
            let mut state = self.lock();
            for index in indices {
                if let Some(Slot::Loading(waiting)) = state.slots.remove(&(group, LogIndex(index)))
                {
                    replies.extend(waiting);
                }
            }
        }
        for reply in replies {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

impl State {
    /// Marks the first run of absent consecutive entries among `indices` as being read. Returns it
    /// and how many of `indices` it and what stands before it are. Whoever claims, reads.
    fn claim_run(&mut self, group: GroupId, indices: &[LogIndex]) -> Option<(Range<u64>, usize)> {
        let skipped = indices.iter().position(|i| !self.slots.contains_key(&(group, *i)))?;
        let start = indices[skipped].0;
        let mut run = start..start;
        for index in &indices[skipped..] {
            if index.0 != run.end || self.slots.contains_key(&(group, *index)) {
                break;
            }
            self.slots.insert((group, *index), Slot::Loading(Vec::new()));
            run.end += 1;
        }
        let taken = skipped + (run.end - run.start) as usize;
        Some((run, taken))
    }
}

/// The reading of one run of entries. Whatever happens to it, nobody waits for ever.
struct Load {
    entries: Arc<Entries>,
    group: GroupId,
    left: Range<u64>,
}

impl Load {
    fn new(entries: Arc<Entries>, group: GroupId, run: Range<u64>) -> Self {
        Self { entries, group, left: run }
    }

    fn run(mut self) {
        while !self.left.is_empty() {
            if let Err(error) = self.read_some() {
                self.entries.fail(self.group, self.left.clone(), &error);
                self.left.start = self.left.end;
            }
        }
    }

    fn read_some(&mut self) -> Result<(), LoadError> {
        let (low, high) = (LogIndex(self.left.start), LogIndex(self.left.end));
        let loaded = self.entries.source.read(self.group, low, high, LOG_READ_BYTES);
        let loaded = loaded.map_err(|error| LoadError::Log(Arc::new(error)))?;
        if loaded.is_empty() {
            return Err(LoadError::Missing(low));
        }
        for (index, _) in &loaded {
            assert_eq!(index.0, self.left.start, "the log returns entries in order");
            self.left.start += 1;
        }
        self.entries.complete(self.group, loaded);
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if !self.left.is_empty() {
            self.entries.fail(self.group, self.left.clone(), &LoadError::GivenUp);
        }
    }
}
