use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Incarnation, SystemClock};
use lts::{Bucket, Faults, Faulty, Memory, Operation, TokioTimer};

use super::*;
use crate::error::ErrorKind as Kind;
use crate::settings::LtsUrl;

/// A bucket in memory that outlives nodes, and can fail.
struct Store {
    bucket: Arc<Faulty>,
    faults: Arc<Faults>,
}

impl Store {
    fn new() -> Self {
        let memory = Arc::new(Memory::new(SystemClock::shared()));
        let bucket = Faulty::new(memory, Arc::new(TokioTimer), Rng::from_seed(3));
        let faults = bucket.faults();
        Self { bucket: Arc::new(bucket), faults }
    }

    fn opener(&self) -> OpenBucket {
        let bucket = self.bucket.clone();
        Box::new(move |_, settings, clock, rng, observer| {
            let settings = lts::Settings { attempts: 1, ..settings.clone() };
            let timer = Arc::new(TokioTimer);
            Ok(Guarded::new(bucket.clone(), &settings, clock, timer, rng, observer))
        })
    }

    async fn put(&self, path: &str) {
        self.bucket.put(&path.parse().unwrap(), lts::Payload::from(vec![1])).await.unwrap();
    }
}

fn data(dir: &Path) -> DataDir {
    DataDir::open(dir, true, &mut Rng::from_seed(1)).unwrap()
}

async fn open(data: &mut DataDir, store: &Store) -> Result<Storage, ServerError> {
    let (settings, clock, rng) = (Settings::default(), SystemClock::shared(), chance());
    let opened = Storage::open(&settings, data, clock, rng, &store.opener()).await;
    opened.map(|storage| storage.expect("the default is to have one"))
}

/// Chance of its own for every start, or two clusters would have the same marker.
fn chance() -> Rng {
    static STARTS: AtomicU64 = AtomicU64::new(0);
    Rng::from_seed(STARTS.fetch_add(1, Ordering::Relaxed))
}

/// A node that has claimed the store and stopped.
async fn claimed(data: &mut DataDir, store: &Store) {
    let storage = open(data, store).await.unwrap();
    std::fs::write(data.wal().join("000000000001.wal"), "").unwrap();
    storage.claim(data).await.unwrap();
    assert!(*storage.ready().borrow());
    storage.stop().await;
}

#[tokio::test]
async fn the_marker_is_kept_before_the_bucket_is_claimed_and_the_claim_after() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Store::new());
    let mut data = data(dir.path());
    let storage = open(&mut data, &store).await.unwrap();
    assert_eq!(data.identity().lts_marker, Some(Uuid(storage.marker().marker)));
    assert!(!data.identity().lts_claimed && !*storage.ready().borrow());
    assert_eq!(lts::cluster::newest_marker(&*store.bucket).await.unwrap(), None);
    storage.claim(&mut data).await.unwrap();
    assert!(data.identity().lts_claimed && *storage.ready().borrow());
    let found = lts::cluster::newest_marker(&*store.bucket).await.unwrap();
    assert_eq!(found, Some(storage.marker()));
    let puts = storage.counts().totals();
    assert!(puts.iter().any(|of| of.operation == Operation::Put && of.bytes > 0), "{puts:?}");
}

#[tokio::test]
async fn a_crash_between_the_claim_and_its_record_is_made_up_for() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Store::new());
    let mut data = data(dir.path());
    let storage = open(&mut data, &store).await.unwrap();
    lts::cluster::claim(&*store.bucket, storage.marker()).await.unwrap();
    drop(storage);
    let storage = open(&mut data, &store).await.unwrap();
    storage.claim(&mut data).await.unwrap();
    assert!(data.identity().lts_claimed);
}

#[tokio::test]
async fn a_bucket_that_is_not_free_is_refused_by_its_kind() {
    let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let foreign = Store::new();
    claimed(&mut data(theirs.path()), &foreign).await;
    let mut data = data(ours.path());
    let error = open(&mut data, &foreign).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.to_string().contains("belongs to another cluster"), "{error}");

    let occupied = Store::new();
    occupied.put("holiday/photo").await;
    let error = open(&mut data, &occupied).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.to_string().contains("holiday/photo"), "{error}");
    assert!(!data.identity().lts_claimed);
}

#[tokio::test]
async fn a_first_start_needs_a_bucket_that_answers() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Store::new());
    let mut data = data(dir.path());
    let cases = [
        (ErrorKind::Unavailable, Kind::Unavailable),
        (ErrorKind::Denied, Kind::Denied),
        (ErrorKind::Unsupported, Kind::Usage),
        (ErrorKind::Full, Kind::Failure),
    ];
    for (fault, kind) in cases {
        store.faults.set_outage(Some(fault));
        assert_eq!(open(&mut data, &store).await.unwrap_err().kind(), kind, "{fault:?}");
    }
    store.faults.set_outage(None);
    open(&mut data, &store).await.unwrap();
}

#[tokio::test]
async fn a_restart_does_without_and_is_ready_once_the_bucket_answers() {
    for outage in [ErrorKind::Unavailable, ErrorKind::Full] {
        let (dir, store) = (tempfile::tempdir().unwrap(), Store::new());
        let mut data = data(dir.path());
        claimed(&mut data, &store).await;
        store.faults.set_outage(Some(outage));
        let storage = open(&mut data, &store).await.unwrap();
        storage.claim(&mut data).await.unwrap();
        let mut ready = storage.ready();
        assert!(!*ready.borrow());
        let told = storage.status().not_ready.unwrap();
        assert!(told.contains("a planned fault"), "{told}");
        store.faults.set_outage(None);
        ready.wait_for(|ready| *ready).await.unwrap();
        assert_eq!(storage.status().not_ready, None);
    }
}

#[tokio::test]
async fn a_restart_that_is_denied_says_so() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Store::new());
    let mut data = data(dir.path());
    claimed(&mut data, &store).await;
    store.faults.set_outage(Some(ErrorKind::Denied));
    assert_eq!(open(&mut data, &store).await.unwrap_err().kind(), Kind::Denied);
}

#[tokio::test]
async fn a_bucket_that_turns_out_to_be_another_s_stops_the_node() {
    let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (foreign, store, empty) = (Store::new(), Store::new(), Store::new());
    claimed(&mut data(theirs.path()), &foreign).await;
    let mut data = data(ours.path());
    claimed(&mut data, &store).await;
    let error = open(&mut data, &empty).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().contains("no marker of this cluster"), "{error}");

    foreign.faults.set_outage(Some(ErrorKind::Unavailable));
    let storage = open(&mut data, &foreign).await.unwrap();
    foreign.faults.set_outage(None);
    let error = storage.failed().await;
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.to_string().contains("belongs to another cluster"), "{error}");
    assert!(!*storage.ready().borrow());
}

/// The looks of a node that serves, at a bucket that is its own.
async fn watching(store: &Store) -> Standings {
    let ours = ClusterMarker { incarnation: Incarnation(1), marker: 7 };
    lts::cluster::claim(&*store.bucket, ours).await.unwrap();
    let owner = Arc::new(Owner::new(store.bucket.clone(), SystemClock::shared(), ours));
    let (standing, ready) = (watch::Sender::new(Standing::Good), watch::Sender::new(true));
    Standings { owner, standing, ready }
}

/// Lets the node look for so many times; whether it looks on.
async fn looks(times: u32, watching: &mut (impl Future<Output = ()> + Unpin)) -> bool {
    tokio::time::timeout(OWNER_LOOK * times + OWNER_LOOK / 2, watching).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_serves_looks_whose_its_bucket_is_until_it_is_not_its_own() {
    let store = Store::new();
    let node = watching(&store).await;
    let mut watching = Box::pin(node.watch());
    assert!(looks(5, &mut watching).await);
    store.faults.set_outage(Some(ErrorKind::Unavailable));
    assert!(looks(5, &mut watching).await, "an outage says nothing of the owner");
    assert!(matches!(*node.standing.borrow(), Standing::Good));
    store.faults.set_outage(None);
    let recovered = ClusterMarker { incarnation: Incarnation(2), marker: 8 };
    lts::cluster::claim(&*store.bucket, recovered).await.unwrap();
    assert!(!looks(1, &mut watching).await);
    let standing = node.standing.borrow().clone();
    assert!(matches!(standing, Standing::Refused(Refused::Superseded { .. })), "{standing:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_put_while_the_marker_is_away_and_the_node_goes_on() {
    let store = Store::new();
    let node = watching(&store).await;
    let mut watching = Box::pin(node.watch());
    let marker = node.owner.marker();
    store.bucket.delete(&[ClusterMarker::path(marker.incarnation)]).await.unwrap();
    assert!(looks(1, &mut watching).await);
    assert!(!*node.ready.borrow());
    assert!(matches!(*node.standing.borrow(), Standing::Failing(_)));
    lts::cluster::claim(&*store.bucket, marker).await.unwrap();
    assert!(looks(1, &mut watching).await);
    assert!(*node.ready.borrow());
    assert!(matches!(*node.standing.borrow(), Standing::Good));
}

#[tokio::test]
async fn a_take_over_that_is_seen_by_whoever_puts_something_stops_the_node() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Store::new());
    let mut data = data(dir.path());
    let storage = open(&mut data, &store).await.unwrap();
    storage.claim(&mut data).await.unwrap();
    storage.owner().look_lately().await.unwrap();
    let recovered = ClusterMarker { incarnation: Incarnation(2), marker: 8 };
    lts::cluster::claim(&*store.bucket, recovered).await.unwrap();
    storage.owner().look().await.unwrap_err();
    let error = storage.failed().await;
    assert_eq!(error.kind(), Kind::Conflict);
    for part in ["taken over by a recovery", "as incarnation 2", "belongs to incarnation 1"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    storage.stop().await;
}

#[tokio::test]
async fn without_its_log_or_its_bucket_a_folder_is_not_served() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Store::new());
    let mut data = data(dir.path());
    claimed(&mut data, &store).await;
    let mut settings = Settings::default();
    settings.lts.url = LtsUrl::Nowhere;
    let (clock, rng) = (SystemClock::shared(), chance());
    let opened = Storage::open(&settings, &mut data, clock, rng, &store.opener()).await;
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().contains("`lts.url` is `none`"), "{error}");

    std::fs::remove_file(data.wal().join("000000000001.wal")).unwrap();
    let error = open(&mut data, &store).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
    for part in ["braid recover --from-lts file:///", "--data NEWDIR", "is gone"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn work_is_done_on_the_thread_of_the_loop_until_that_is_stopped() {
    let event_loop = EventLoop::start().unwrap();
    let name = || std::thread::current().name().map(str::to_owned);
    assert_eq!(event_loop.wait(async move { name() }), Ok(Some("lts".to_owned())));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        assert_eq!(event_loop.run(async move { name() }).await, Ok(Some("lts".to_owned())));
        event_loop.spawn("for ever", std::future::pending());
        event_loop.stop().await;
        event_loop.cancelled().await;
        assert_eq!(event_loop.run(async {}).await, Err(Stopped));
    });
    assert_eq!(event_loop.wait(async {}), Err(Stopped));
}
