//! Counters of the data plane: plain atomics that the server exports.
//!
//! What was appended is counted where it is applied, and only what came into the log since the
//! process began: every counter starts at zero with it, and what a start replays is not counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use common::ScopedStream;
use proto::v1::Reason;

/// A number that only grows, or a level, shared by threads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn subtract(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

const REASONS: usize = Reason::LimitReached as usize + 1;

/// Everything the segment store counts.
#[derive(Debug, Default)]
pub struct Metrics {
    pub appended_bytes: Counter,
    pub appended_events: Counter,
    pub appended_blocks: Counter,
    /// Blocks that were stored before and acknowledged again.
    pub duplicate_blocks: Counter,
    /// Extents that a round of long-term storage did not hold, because their bytes had been truncated
    /// before it was made, and the bytes by which segments were cut for that. Only where a group is
    /// rebuilt from long-term storage there are any.
    pub unarchived_extents: Counter,
    pub unarchived_bytes: Counter,
    pub read_bytes: Counter,
    /// Bytes that reads had to take from the log's files.
    pub log_read_bytes: Counter,
    /// Level: bytes of the tail cache.
    pub tail_cache_bytes: Counter,
    /// Level: bytes of the cache of recently read log entries.
    pub read_cache_bytes: Counter,
    /// Bytes that came from long-term storage for reads, indices included.
    pub object_read_bytes: Counter,
    /// Level: bytes of the cache of blocks of objects.
    pub object_cache_bytes: Counter,
    /// Level: bytes of blocks that were read ahead and wait for their reader.
    pub object_ahead_bytes: Counter,
    /// Blocks and indices of objects that were there, or on their way, when a reader came.
    pub object_cache_hits: Counter,
    /// Blocks and indices of objects that a reader had to ask long-term storage for.
    pub object_cache_misses: Counter,
    /// Level: bytes of the tables of writers, session numbers of former writers included.
    pub writer_table_bytes: Counter,
    /// Level: append connections.
    pub append_connections: Counter,
    /// Level: reads under way.
    pub readers: Counter,
    refused: [Counter; REASONS],
    streams: Arc<Streams>,
}

/// The counters of streams for as long as somebody holds them.
type Streams = Mutex<BTreeMap<ScopedStream, Weak<StreamCounters>>>;

/// What is counted per stream. It goes with the last who holds it, which is the last of the stream's
/// segments here, or of its readers: nobody looks through the streams for those without segments.
#[derive(Debug)]
pub struct StreamCounters {
    pub appended_bytes: Counter,
    pub appended_events: Counter,
    pub read_bytes: Counter,
    stream: ScopedStream,
    listed_in: Weak<Streams>,
}

impl Drop for StreamCounters {
    fn drop(&mut self) {
        let Some(streams) = self.listed_in.upgrade() else { return };
        let mut streams = streams.lock().unwrap_or_else(PoisonError::into_inner);
        // Others may have been listed under the name meanwhile.
        if streams.get(&self.stream).is_some_and(|listed| listed.strong_count() == 0) {
            streams.remove(&self.stream);
        }
    }
}

impl Metrics {
    pub(crate) fn count_append(&self, stream: &StreamCounters, bytes: u64, events: u32) {
        self.appended_blocks.add(1);
        for (all, of_stream, count) in [
            (&self.appended_bytes, &stream.appended_bytes, bytes),
            (&self.appended_events, &stream.appended_events, events.into()),
        ] {
            all.add(count);
            of_stream.add(count);
        }
    }

    pub fn count_refused(&self, reason: Reason) {
        if let Some(counter) = self.refused.get(reason as usize) {
            counter.add(1);
        }
    }

    /// Refusals so far, for every reason that occurred.
    pub fn refused(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        let reason = |(i, counter): (usize, &Counter)| {
            Some((Reason::try_from(i as i32).ok()?, counter.get()))
        };
        self.refused.iter().enumerate().filter_map(reason).filter(|(_, count)| *count > 0)
    }

    /// The counters of every stream that has segments here, by name.
    pub fn streams(&self) -> Vec<(ScopedStream, Arc<StreamCounters>)> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = streams.iter();
        listed.filter_map(|(name, counters)| Some((name.clone(), counters.upgrade()?))).collect()
    }

    /// The counters of one stream, made on first use.
    pub(crate) fn stream(&self, stream: &ScopedStream) -> Arc<StreamCounters> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counters) = streams.get(stream).and_then(Weak::upgrade) {
            return counters;
        }
        let counters = Arc::new(StreamCounters {
            appended_bytes: Counter::default(),
            appended_events: Counter::default(),
            read_bytes: Counter::default(),
            stream: stream.clone(),
            listed_in: Arc::downgrade(&self.streams),
        });
        streams.insert(stream.clone(), Arc::downgrade(&counters));
        counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_reason() {
        let metrics = Metrics::default();
        metrics.count_refused(Reason::OutOfRange);
        metrics.count_refused(Reason::OutOfRange);
        metrics.count_refused(Reason::SegmentSealed);
        let counted: Vec<_> = metrics.refused().collect();
        assert_eq!(counted, [(Reason::SegmentSealed, 1), (Reason::OutOfRange, 2)]);
    }

    #[test]
    fn a_stream_is_listed_for_as_long_as_someone_holds_its_counters() {
        let metrics = Metrics::default();
        let name = ScopedStream::new("demo", "hello").unwrap();
        let counters = metrics.stream(&name);
        counters.appended_bytes.add(7);
        assert_eq!(metrics.stream(&name).appended_bytes.get(), 7);
        let listed = metrics.streams();
        drop(counters);
        assert_eq!(metrics.streams().len(), 1, "whoever lists them holds them, too");
        drop(listed);
        assert!(metrics.streams.lock().unwrap().is_empty());
    }

    #[test]
    fn counters_of_a_stream_that_is_made_again_are_not_dropped_with_those_before() {
        let metrics = Metrics::default();
        let name = ScopedStream::new("demo", "hello").unwrap();
        let before = metrics.stream(&name);
        // Nobody holds the earlier ones any more, and they are about to be dropped.
        metrics.streams.lock().unwrap().insert(name.clone(), Weak::new());
        let after = metrics.stream(&name);
        drop(before);
        assert_eq!(metrics.streams().len(), 1);
        drop(after);
        assert!(metrics.streams.lock().unwrap().is_empty());
    }
}
