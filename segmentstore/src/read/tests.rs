use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::{ByteSize, LogIndex, MonotonicTime, Offset, SystemClock, Tasks, ThreadPool};
use futures::{FutureExt, poll};
use proptest::prelude::*;

use super::*;
use crate::container::{ContainerMachine, Memory};
use crate::limits::EXPIRE_SLICE_WRITERS;
use crate::operation::{Command, Operation};
use crate::settings::Settings;
use crate::store::{SegmentStore, UpTime};
use crate::testing::{
    CONTAINER, FakeContainer, FakeLog, HOUR, append, command, identity, open, segment, session,
};

mod objects;

struct Fixture {
    container: Arc<FakeContainer>,
    log: Arc<FakeLog>,
    store: SegmentStore,
    number: u64,
}

impl Fixture {
    /// Segment 1, with a tail cache of `tail` bytes.
    fn new(tail: u64) -> Self {
        Self::with(Settings { tail_cache: ByteSize(tail), ..Settings::default() })
    }

    fn with(settings: Settings) -> Self {
        let container = FakeContainer::new(&settings);
        {
            let mut driver = container.driver();
            let create = Command::Create(Box::new(identity(1)));
            driver.give(command(1, 1, 1), create).unwrap();
            driver.open(open(1, 1, session(1, 1), false)).unwrap();
        }
        let (log, memory) = (FakeLog::new(&container), Memory::new(&settings));
        let store = SegmentStore::inline(
            container.containers(),
            log.clone(),
            None,
            &memory,
            &settings,
            SystemClock::shared(),
            Tasks::new(),
        );
        Self { container, log, store, number: 0 }
    }

    fn append(&mut self, data: &[u8]) {
        let numbers = (self.number, self.number + 1);
        self.number += 1;
        self.container.driver().append(append(1, 1, session(1, 1), numbers), data);
    }

    fn give(&self, step: u32, order: Command) {
        self.container.driver().give(command(1, 2, step), order).unwrap();
    }

    fn truncate(&self, step: u32, offset: u64) {
        self.give(step, Command::Truncate { segment: segment(1), offset: Offset(offset) });
    }

    fn seal(&self) {
        self.give(90, Command::Seal { segment: segment(1), successors: vec![] });
    }

    fn try_read(&self, range: ReadRange) -> Result<SegmentReader, ReadError> {
        self.store.read(CONTAINER, segment(1), range).now_or_never().unwrap()
    }

    fn read(&self, offset: u64, end: Option<u64>, follow: bool) -> SegmentReader {
        let range = ReadRange { offset: Offset(offset), end: end.map(Offset), follow };
        self.try_read(range).unwrap()
    }
}

fn next(reader: &mut SegmentReader) -> Option<ReadChunk> {
    reader.next().now_or_never().expect("nothing to wait for").unwrap()
}

/// Everything up to the end, in order.
fn drain(reader: &mut SegmentReader) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = next(reader) {
        assert_eq!(chunk.offset.0 as usize + chunk.data.len(), reader.offset().0 as usize);
        assert!(chunk.data.len() <= READ_MESSAGE_BYTES_MAX);
        bytes.extend_from_slice(&chunk.data);
    }
    bytes
}

#[test]
fn a_read_without_follow_ends_at_the_length_of_its_beginning() {
    let mut fixture = Fixture::new(1 << 20);
    fixture.append(b"hello");
    let mut reader = fixture.read(1, None, false);
    fixture.append(b"world");
    assert_eq!(drain(&mut reader), b"ello");
    assert_eq!(drain(&mut fixture.read(2, Some(7), false)), b"llowo");
    assert_eq!(drain(&mut fixture.read(10, None, false)), b"");
}

#[test]
fn places_that_are_not_there_are_refused_with_the_fact_that_helps() {
    let mut fixture = Fixture::new(1 << 20);
    fixture.append(b"0123456789");
    fixture.truncate(1, 4);
    let at = |offset| ReadRange { offset: Offset(offset), ..ReadRange::default() };
    let truncated = fixture.try_read(at(3)).unwrap_err();
    assert!(matches!(truncated, ReadError::Truncated { start: Offset(4), .. }), "{truncated}");
    let beyond = fixture.try_read(at(11)).unwrap_err();
    assert!(matches!(beyond, ReadError::OutOfRange { length: Offset(10), .. }), "{beyond}");
    fixture.give(2, Command::Delete { segment: segment(1) });
    let deleted = fixture.try_read(at(5)).unwrap_err();
    assert!(matches!(deleted, ReadError::SegmentNotFound { .. }), "{deleted}");
    assert_eq!(fixture.store.metrics().readers.get(), 0);
}

#[tokio::test]
async fn a_following_reader_wakes_for_bytes_and_ends_with_the_segment() {
    let mut fixture = Fixture::new(1 << 20);
    let mut reader = fixture.read(0, None, true);
    {
        let mut waiting = pin!(reader.next());
        assert!(poll!(&mut waiting).is_pending());
        fixture.append(b"one");
        let chunk = waiting.await.unwrap().unwrap();
        assert_eq!((&chunk.data[..], chunk.end_of_segment), (&b"one"[..], false));
    }
    // A future that is dropped while it waits loses nothing.
    assert!(reader.next().now_or_never().is_none());
    fixture.append(b"two");
    assert_eq!(&next(&mut reader).unwrap().data[..], b"two");
    let chunk = {
        let mut waiting = pin!(reader.next());
        assert!(poll!(&mut waiting).is_pending());
        fixture.seal();
        waiting.await.unwrap().unwrap()
    };
    assert!(chunk.end_of_segment && chunk.data.is_empty() && chunk.length == Offset(6));
    assert_eq!(next(&mut reader), None);
}

#[test]
fn bytes_come_with_the_times_at_which_they_were_stored() {
    let mut fixture = Fixture::new(1 << 20);
    let mut stamps = Vec::new();
    for data in [b"first".as_slice(), b"then", b"last"] {
        let mut driver = fixture.container.driver();
        driver.wall += 10_000_000;
        stamps.push(driver.wall);
        drop(driver);
        fixture.append(data);
    }
    let times = |from: u64| {
        let chunk = next(&mut fixture.read(from, None, false)).unwrap();
        chunk.times.iter().map(|at| (at.offset.0, at.first.0, at.last.0)).collect::<Vec<_>>()
    };
    let [first, then, last] = stamps[..] else { panic!("three appends") };
    assert_eq!(times(0), [(0, first, first), (5, then, then), (9, last, last)]);
    assert_eq!(times(6), [(5, then, then), (9, last, last)]);
    assert_eq!(times(9), [(9, last, last)]);
}

#[test]
fn the_last_bytes_of_a_sealed_segment_say_that_they_are_the_last() {
    let mut fixture = Fixture::new(1 << 20);
    fixture.append(b"bytes");
    fixture.seal();
    let mut reader = fixture.read(0, None, true);
    assert!(next(&mut reader).unwrap().end_of_segment);
    assert_eq!(next(&mut reader), None);
    assert!(next(&mut fixture.read(5, None, false)).unwrap().end_of_segment);
}

#[tokio::test]
async fn a_waiting_reader_learns_of_truncation_and_deletion() {
    let mut fixture = Fixture::new(1 << 20);
    fixture.append(b"0123");
    let mut reader = fixture.read(4, None, true);
    let mut waiting = pin!(reader.next());
    assert!(poll!(&mut waiting).is_pending());
    fixture.append(b"4567");
    fixture.truncate(1, 6);
    let error = waiting.await.unwrap_err();
    assert!(matches!(error, ReadError::Truncated { start: Offset(6), .. }), "{error}");
    let mut reader = fixture.read(8, None, true);
    let mut waiting = pin!(reader.next());
    assert!(poll!(&mut waiting).is_pending());
    fixture.give(2, Command::Delete { segment: segment(1) });
    assert!(matches!(waiting.await, Err(ReadError::SegmentNotFound { .. })));
}

#[test]
fn evicted_bytes_come_from_the_log_and_each_entry_is_read_once() {
    let mut fixture = Fixture::new(0);
    let mut all = Vec::new();
    for i in 0..200_u8 {
        let data = vec![i; 1_000 + usize::from(i)];
        fixture.append(&data);
        all.extend(data);
    }
    assert_eq!(drain(&mut fixture.read(0, None, false)), all);
    assert_eq!(fixture.log.reads.load(Ordering::SeqCst), 200);
    assert_eq!(drain(&mut fixture.read(77_777, None, false)), all[77_777..]);
    assert_eq!(fixture.log.reads.load(Ordering::SeqCst), 200, "the second reader finds them");
}

#[test]
fn small_entries_of_the_log_are_sent_together() {
    let mut fixture = Fixture::new(0);
    for i in 0..100 {
        fixture.append(&[i; 100]);
    }
    let mut reader = fixture.read(0, None, false);
    assert!(next(&mut reader).unwrap().data.len() >= 100);
    let messages = std::iter::from_fn(|| next(&mut reader)).count();
    assert!(messages <= 2, "{messages} messages");
}

#[test]
fn bytes_that_the_log_lost_are_damage_unless_they_were_truncated() {
    let mut fixture = Fixture::new(0);
    fixture.append(b"first");
    fixture.append(b"second");
    let first = fixture.container.driver().index - 1;
    fixture.log.gone.lock().unwrap().insert(first);
    let mut reader = fixture.read(0, None, false);
    let damaged = reader.next().now_or_never().unwrap().unwrap_err();
    assert!(matches!(damaged, ReadError::Damaged { .. }), "{damaged}");
    assert_eq!(damaged.reason(), Reason::DataLost);
    fixture.truncate(1, 5);
    let truncated = reader.next().now_or_never().unwrap().unwrap_err();
    assert!(matches!(truncated, ReadError::Truncated { start: Offset(5), .. }), "{truncated}");
}

#[tokio::test]
async fn many_readers_share_one_read_and_threads_end_with_the_pool() {
    let mut fixture = Fixture::new(0);
    let mut all = Vec::new();
    for i in 0..50_u8 {
        fixture.append(&vec![i; 100_000]);
        all.extend(vec![i; 100_000]);
    }
    let metrics = Arc::new(Metrics::default());
    let pool = ThreadPool::start("log-read", 2).unwrap();
    let cache = LogCache::new(fixture.log.clone(), 64 << 20, pool, metrics.clone());
    let cache = Arc::new(cache);
    let shared = fixture.container.driver().machine.view(segment(1)).unwrap().shared;
    let readers = (0..8).map(|_| {
        let sources = Sources { log: cache.clone(), objects: None, metrics: metrics.clone() };
        SegmentReader::new(shared.clone(), sources, ReadRange::default()).unwrap()
    });
    let read = readers.map(|mut reader| async move {
        let mut bytes = Vec::new();
        while let Some(chunk) = reader.next().await.unwrap() {
            bytes.extend_from_slice(&chunk.data);
        }
        bytes
    });
    for bytes in futures::future::join_all(read).await {
        assert_eq!(bytes, all);
    }
    assert_eq!(fixture.log.reads.load(Ordering::SeqCst), 50);
    assert!(metrics.read_cache_bytes.get() >= 5_000_000);
    drop(cache);
}

#[tokio::test]
async fn the_cache_of_log_entries_keeps_its_limit() {
    let mut fixture = Fixture::new(0);
    for i in 0..50_u8 {
        fixture.append(&vec![i; 100_000]);
    }
    let metrics = Arc::new(Metrics::default());
    let cache = LogCache::new(fixture.log.clone(), 1 << 20, ThreadPool::inline(), metrics.clone());
    let first = fixture.container.driver().index - 49;
    for index in 0..50 {
        let group = CONTAINER.group();
        let entry = cache.get(group, &[LogIndex(first + index)]).await.unwrap();
        assert_eq!(entry[0], index as u8);
        assert!(metrics.read_cache_bytes.get() <= 1 << 20);
    }
    assert!(cache.ready(CONTAINER.group(), LogIndex(first)).is_none());
}

#[test]
fn readers_read_no_further_ahead_than_the_cache_keeps() {
    for (cache_bytes, block) in [(0, 1_000), (500, 1_000), (300_000, 1_000), (300_000, 90_000)] {
        let read_cache = ByteSize(cache_bytes);
        let mut fixture =
            Fixture::with(Settings { tail_cache: ByteSize(0), read_cache, ..Settings::default() });
        let mut all = Vec::new();
        for i in 0..60_u8 {
            fixture.append(&vec![i; block]);
            all.extend(vec![i; block]);
        }
        assert_eq!(drain(&mut fixture.read(0, None, false)), all);
        assert_eq!(fixture.log.reads.load(Ordering::SeqCst), 60, "each entry once");
    }
}

#[tokio::test]
async fn idle_writers_are_expired_by_up_time_that_no_entry_has_told_yet() {
    let fixture = Fixture::new(0);
    let mut seen = UpTime::default();
    let clock = |micros| MonotonicTime(micros);
    assert_eq!(seen.estimate(5, clock(100)), 5);
    assert_eq!(seen.estimate(5, clock(100 + HOUR)), 5 + HOUR);
    assert_eq!(seen.estimate(9, clock(200 + HOUR)), 9);
    fixture.container.driver().up = 2 * HOUR;
    fixture.container.driver().one(Operation::Expire(vec![]), b"");
    let mut seen = UpTime::default();
    let mut expire = pin!(fixture.store.expire_due(CONTAINER, &mut seen));
    assert!(poll!(&mut expire).is_pending());
    fixture.container.round();
    assert_eq!(expire.await.unwrap(), 1);
    let due = fixture.container.driver().machine.due_writers(2 * HOUR, 9);
    assert!(due.is_empty());
}

#[tokio::test]
async fn writers_are_expired_in_slices_until_none_is_due() {
    let fixture = Fixture::new(0);
    let count = 2 * EXPIRE_SLICE_WRITERS + 10;
    for who in 0..count as u128 {
        fixture.container.driver().one(open(1, 1_000 + who, session(1, 1), false), b"");
    }
    fixture.container.driver().up = HOUR;
    fixture.container.driver().one(Operation::Expire(vec![]), b"");
    let mut seen = UpTime::default();
    let mut expire = pin!(fixture.store.expire_due(CONTAINER, &mut seen));
    let mut slices = 0;
    let expired = loop {
        match poll!(&mut expire) {
            std::task::Poll::Ready(expired) => break expired.unwrap(),
            std::task::Poll::Pending => fixture.container.round(),
        }
        slices += 1;
    };
    // The fixture's own writer is one more.
    assert_eq!((expired, slices), (count + 1, 3));
    assert!(fixture.container.driver().machine.due_writers(HOUR, 9).is_empty());
}

#[tokio::test]
async fn a_reader_at_the_tail_learns_that_its_container_has_stopped() {
    let mut fixture = Fixture::new(1 << 20);
    fixture.append(b"hello");
    let mut reader = fixture.read(0, None, true);
    assert_eq!(&reader.next().await.unwrap().unwrap().data[..], b"hello");
    let mut late = fixture.read(0, None, true);
    {
        let mut next = pin!(reader.next());
        assert!(poll!(next.as_mut()).is_pending());
        // What a quarantine and the end of a node do to the machine.
        let memory = Memory::new(&Settings::default());
        fixture.container.driver().machine = ContainerMachine::new(CONTAINER, memory);
        let gone = next.now_or_never().expect("it does not wait any more").unwrap_err();
        assert_eq!(gone.reason(), Reason::Unavailable);
        assert!(gone.to_string().contains("/readyz"), "{gone}");
    }
    // What is stored is read all the same.
    assert_eq!(&late.next().await.unwrap().unwrap().data[..], b"hello");
    let gone = late.next().now_or_never().expect("it does not wait");
    assert!(matches!(gone, Err(ReadError::ContainerGone { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_range_reads_the_stored_bytes_wherever_they_are(
        blocks in proptest::collection::vec(1_usize..90_000, 1..30),
        tail in prop_oneof![Just(0_u64), 0_u64..400_000, Just(1 << 30)],
        from in any::<proptest::sample::Index>(),
        to in any::<proptest::sample::Index>(),
    ) {
        let mut fixture = Fixture::new(tail);
        let mut all = Vec::new();
        for (i, bytes) in blocks.into_iter().enumerate() {
            let data: Vec<u8> = (0..bytes).map(|at| (at * 7 + i * 31) as u8).collect();
            fixture.append(&data);
            all.extend(data);
        }
        let (from, to) = (from.index(all.len() + 1), to.index(all.len() + 1));
        let (from, to) = (from.min(to), from.max(to));
        let read = drain(&mut fixture.read(from as u64, Some(to as u64), false));
        prop_assert!(read == all[from..to]);
    }
}
