use std::pin::pin;
use std::sync::Arc;

use common::Tasks;
use common::limits::MIB;
use futures::future::join_all;
use futures::poll;

use super::*;
use crate::extent::ObjectExtent;
use crate::testing::packed::{Watched, joined, put_round};

mod blocks;
mod kept;

/// A bucket with one object of `runs` runs with so many bytes each, and a cache over it.
struct Fixture {
    bucket: Arc<Watched>,
    memory: lts::Memory,
    cache: ObjectCache,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    extents: Vec<ObjectExtent>,
}

impl Fixture {
    fn new(runs: usize, run_bytes: usize, cache_bytes: usize, ahead_bytes: usize) -> Self {
        let (memory, bucket) = Watched::memory();
        let runs: Vec<_> = (0..runs).map(|run| (1, pattern(run, run_bytes))).collect();
        let extents = put_round(&memory, 1, 0, 64 << 20, &runs);
        let (metrics, tasks) = (Arc::new(Metrics::default()), Tasks::new());
        let (shared, running) = (metrics.clone(), Some(tasks.clone()));
        let cache = ObjectCache::new(bucket.clone(), cache_bytes, ahead_bytes, shared, running);
        Self { bucket, memory, cache, metrics, tasks, extents }
    }

    fn object(&self) -> ObjectName {
        self.extents[0].rested.object
    }

    async fn index(&self) -> Arc<ObjectIndex> {
        self.cache.index(self.object()).await.unwrap()
    }

    /// Uses blocks as a reader does that passes through.
    async fn pass(&self, index: &Arc<ObjectIndex>, blocks: Range<u32>) {
        for block in blocks {
            self.cache.block(index, block).await.unwrap();
        }
    }

    fn has(&self, index: &ObjectIndex, block: u32) -> bool {
        self.cache.inner.lock().peek(&Key::block(index, block)).is_some()
    }
}

fn pattern(seed: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at / 251 + at * 7 + seed * 31) as u8).collect()
}
