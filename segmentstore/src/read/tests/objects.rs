//! Reading what rests in objects, and across the borders to the log and to memory.

use common::limits::MIB;
use common::{ByteSize, Rng, SystemClock, Tasks, ThreadPool};
use lts::{Bucket, ErrorKind, Faulty, ObjectName, ObjectPath, TokioTimer};

use super::*;
use crate::shared::SegmentShared;
use crate::testing::packed::{Watched, joined, put_round};

mod damage;
mod window;

/// Segment 1, whose bytes move into objects as a test says.
struct Shelf {
    container: Arc<FakeContainer>,
    log: Arc<FakeLog>,
    memory: lts::Memory,
    faulty: Arc<Faulty>,
    bucket: Arc<Watched>,
    sources: Sources,
    shared: Arc<SegmentShared>,
    number: u64,
    sequence: u64,
    all: Vec<u8>,
}

impl Shelf {
    fn new(tail: u64) -> Self {
        Self::with(tail, 64 * MIB, Some(Tasks::new()))
    }

    /// With a budget for reading ahead. Without tasks readers read by themselves.
    fn with(tail: u64, ahead: usize, tasks: Option<Tasks>) -> Self {
        let settings = Settings { tail_cache: ByteSize(tail), ..Settings::default() };
        let container = FakeContainer::new(&settings);
        let shared = {
            let mut driver = container.driver();
            let create = Command::Create(Box::new(identity(1)));
            driver.give(command(1, 1, 1), create).unwrap();
            driver.open(open(1, 1, session(1, 1), false)).unwrap();
            driver.machine.view(segment(1)).unwrap().shared
        };
        let memory = lts::Memory::new(SystemClock::shared());
        let inner = Arc::new(memory.clone());
        let faulty = Arc::new(Faulty::new(inner, Arc::new(TokioTimer), Rng::from_seed(1)));
        let bucket = Watched::new(faulty.clone());
        let metrics = Arc::new(Metrics::default());
        let log = FakeLog::new(&container);
        let pool = ThreadPool::inline();
        let cache = LogCache::new(log.clone(), 64 << 20, pool, metrics.clone());
        let objects = ObjectCache::new(bucket.clone(), 64 * MIB, ahead, metrics.clone(), tasks);
        let sources = Sources { log: Arc::new(cache), objects: Some(objects), metrics };
        let (number, sequence, all) = (0, 1, Vec::new());
        Self { container, log, memory, faulty, bucket, sources, shared, number, sequence, all }
    }

    fn append(&mut self, data: &[u8]) {
        let numbers = (self.number, self.number + 1);
        self.number += 1;
        self.container.driver().append(append(1, 1, session(1, 1), numbers), data);
        self.all.extend_from_slice(data);
    }

    fn append_pattern(&mut self, bytes: usize) {
        let seed = self.all.len();
        let data: Vec<u8> = (0..bytes).map(|at| ((at + seed) / 253 + at * 7) as u8).collect();
        self.append(&data);
    }

    /// Moves the next `count` extents of the log into objects of so many bytes, together with
    /// bytes of another segment, and joins neighbours if told to.
    fn rest(&mut self, count: usize, object_bytes: u64, join: bool) -> Vec<ObjectName> {
        let extents: Vec<Extent> =
            self.shared.lock().extents.items().iter().take(count).copied().collect();
        let mut runs = vec![(0, vec![9; 5_000])];
        for extent in &extents {
            let entry = self.container.driver().log[&extent.index].clone();
            let end = (extent.start + extent.bytes) as usize;
            runs.push((1, entry[extent.start as usize..end].to_vec()));
        }
        let first = extents[0].offset.0;
        let mut rested = put_round(&self.memory, self.sequence, first, object_bytes, &runs);
        self.sequence += 1_000;
        let mut objects: Vec<_> = rested.iter().map(|extent| extent.rested.object).collect();
        objects.dedup();
        if join {
            let of = |a: &ObjectExtent, b: &ObjectExtent| a.rested.object == b.rested.object;
            rested = rested.chunk_by(of).map(joined).collect();
        }
        let end = rested.last().unwrap().end();
        let mut state = self.shared.lock();
        rested.into_iter().for_each(|extent| drop(state.objects.push(extent)));
        state.extents.drop_front(|extent| extent.end() <= end, |_| {});
        objects
    }

    fn reader(&self, offset: u64, end: Option<u64>) -> SegmentReader {
        let range = ReadRange { offset: Offset(offset), end: end.map(Offset), follow: false };
        SegmentReader::new(self.shared.clone(), self.sources.clone(), range).unwrap()
    }

    async fn read(&self, offset: u64, end: Option<u64>) -> Vec<u8> {
        read_all(&mut self.reader(offset, end)).await.unwrap()
    }

    fn metrics(&self) -> &Metrics {
        &self.sources.metrics
    }
}

async fn read_all(reader: &mut SegmentReader) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.next().await? {
        assert!(chunk.data.len() <= READ_MESSAGE_BYTES_MAX && !chunk.data.is_empty());
        bytes.extend_from_slice(&chunk.data);
        assert_eq!(chunk.offset.plus(chunk.data.len() as u64), reader.offset());
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_read_goes_from_objects_through_the_log_to_the_tail_without_a_seam() {
    for join in [false, true] {
        let mut shelf = Shelf::new(300_000);
        for bytes in [700, 90_000, 400_000, 1_300_000, 50, 60, 2_500_000, 8_000_000, 3] {
            shelf.append_pattern(bytes);
        }
        let objects = shelf.rest(5, 1_000_000, join);
        assert!(objects.len() > 1, "several objects");
        shelf.rest(3, 32 << 20, join);
        for bytes in [10, 20_000, 250_000, 100_000] {
            shelf.append_pattern(bytes);
        }
        assert_eq!(shelf.read(0, None).await, shelf.all);
        assert!(shelf.log.reads.load(Ordering::SeqCst) > 0);
        assert!(shelf.shared.lock().tail_pieces() > 0);
        let metrics = shelf.metrics();
        assert!(metrics.object_read_bytes.get() > 12_000_000);
        assert!(metrics.object_cache_bytes.get() > 12_000_000);
        for (from, to) in [(1, 2), (650, 800), (90_500, 92_000), (1_790_000, 1_791_000)] {
            assert_eq!(shelf.read(from, Some(to)).await, shelf.all[from as usize..to as usize]);
        }
    }
}

#[tokio::test]
async fn bytes_that_move_while_a_reader_is_under_way_are_found_where_they_are() {
    let mut shelf = Shelf::new(0);
    for _ in 0..40 {
        shelf.append_pattern(100_000);
    }
    let mut reader = shelf.reader(0, None);
    let first = reader.next().await.unwrap().unwrap();
    shelf.rest(15, 1 << 20, true);
    let mut bytes = first.data.to_vec();
    for _ in 0..5 {
        bytes.extend_from_slice(&reader.next().await.unwrap().unwrap().data);
    }
    shelf.rest(25, 1 << 20, false);
    bytes.extend(read_all(&mut reader).await.unwrap());
    assert_eq!(bytes, shelf.all);
}

#[test]
fn without_tasks_readers_read_by_themselves() {
    let mut shelf = Shelf::with(0, 64 * MIB, None);
    for _ in 0..30 {
        shelf.append_pattern(200_000);
    }
    shelf.rest(30, 2 << 20, true);
    let read = shelf.read(0, None).now_or_never().expect("memory is ready at once");
    assert_eq!(read, shelf.all);
}

#[tokio::test]
async fn a_server_without_long_term_storage_says_so() {
    let mut shelf = Shelf::new(0);
    shelf.append_pattern(1_000);
    shelf.rest(1, 1 << 20, false);
    shelf.sources.objects = None;
    let error = read_all(&mut shelf.reader(7, None)).await.unwrap_err();
    assert!(matches!(error, ReadError::NoStorage { offset: Offset(7), .. }), "{error}");
    assert_eq!(error.reason(), Reason::Unavailable);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_range_reads_the_stored_bytes_wherever_they_rest(
        blocks in proptest::collection::vec(1_usize..150_000, 3..30),
        tail in prop_oneof![Just(0_u64), 0_u64..400_000],
        object_bytes in 50_000_u64..2_500_000,
        rested in proptest::collection::vec((1_usize..10, any::<bool>()), 0..4),
        from in any::<proptest::sample::Index>(),
        to in any::<proptest::sample::Index>(),
    ) {
        let mut shelf = Shelf::with(tail, 20 * MIB, None);
        blocks.into_iter().for_each(|bytes| shelf.append_pattern(bytes));
        for (count, join) in rested {
            let left = shelf.shared.lock().extents.items().len();
            if left > 0 {
                shelf.rest(count.min(left), object_bytes, join);
            }
        }
        let (from, to) = (from.index(shelf.all.len() + 1), to.index(shelf.all.len() + 1));
        let (from, to) = (from.min(to), from.max(to));
        let read = shelf.read(from as u64, Some(to as u64)).now_or_never().unwrap();
        prop_assert!(read == shelf.all[from..to]);
    }
}
