use std::path::Path;

use common::clock::ManualClock;
use common::{ByteSize, LogIndex, SystemClock, WallTime};
use wal::{DiskOperation, Fault, Faults, FaultyDisk, LogSettings, RealDisk};

use super::*;
use crate::kv::KvError;
use crate::kv::{Changes, Pairs, Space, Whole};
use crate::testing::*;
use crate::{Applied, GroupHandle, GroupStatus, MemKv, ProposeError, RocksKv};

const OTHER: GroupId = GroupId(3);

struct Running {
    host: Host,
    first: GroupHandle<Numbers>,
    other: GroupHandle<Numbers>,
    faults: Arc<Faults>,
}

/// A store whose flush waits until the sender has gone.
#[derive(Debug)]
struct HangingKv {
    inner: MemKv,
    hung: Mutex<Receiver<()>>,
}

impl Kv for HangingKv {
    fn write(&self, group: GroupId, applied: Applied, changes: Changes<'_>) -> Result<(), KvError> {
        self.inner.write(group, applied, changes)
    }

    fn flush(&self) -> Result<(), KvError> {
        let gone = self.hung.lock().unwrap().recv();
        assert!(gone.is_err(), "nothing is sent");
        self.inner.flush()
    }

    fn applied(&self, group: GroupId) -> Result<Option<Applied>, KvError> {
        self.inner.applied(group)
    }

    fn scan(&self, group: GroupId, space: Space) -> Result<Pairs<'_>, KvError> {
        self.inner.scan(group, space)
    }

    fn whole(&self, group: GroupId) -> Result<Option<Whole<'_>>, KvError> {
        self.inner.whole(group)
    }

    fn clear(&self, group: GroupId) -> Result<(), KvError> {
        self.inner.clear(group)
    }

    fn load(
        &self,
        group: GroupId,
        pairs: &mut dyn Iterator<Item = (Space, bytes::Bytes, bytes::Bytes)>,
    ) -> Result<(), KvError> {
        self.inner.load(group, pairs)
    }

    fn memory_bytes(&self) -> u64 {
        self.inner.memory_bytes()
    }
}

fn settings() -> HostSettings {
    HostSettings {
        inline_write_max: ByteSize::kib(8),
        log: LogSettings { budget: ByteSize::mib(32), ..small_settings().log },
        checkpoint_log_bytes: ByteSize::kib(256),
        patience: Patience { look: Duration::from_millis(1), ..Patience::default() },
        ..HostSettings::default()
    }
}

fn start(dir: &Path) -> Running {
    start_at(dir, SystemClock::shared(), settings())
}

fn start_at(dir: &Path, clock: Arc<dyn Clock>, settings: HostSettings) -> Running {
    let disk = Arc::new(RealDisk::open(&dir.join("wal"), true).unwrap());
    let disk = FaultyDisk::new(disk, |_| {});
    let faults = disk.faults();
    let kv = Arc::new(RocksKv::open(&dir.join("state"), ByteSize::mib(4)).unwrap());
    let rng = Rng::from_seed(1);
    let mut host = Host::start(settings, Arc::new(disk), kv, clock, rng).unwrap();
    let journal = Arc::<Journal>::default();
    let groups = [(GROUP, Numbers::new(&journal)), (OTHER, Numbers::new(&Arc::default()))];
    let [first, other] = <[_; 2]>::try_from(host.add_groups(groups).unwrap()).unwrap();
    host.run().unwrap();
    Running { host, first, other, faults }
}

fn number(number: u64) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

fn payload(number: u64, size: usize) -> Vec<u8> {
    vec![number as u8; size]
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_stop_and_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = start(dir.path());
    running.first.serving().await.unwrap();
    running.other.serving().await.unwrap();
    for n in 0..100 {
        // Small blocks go inline, large ones through the log thread.
        let size = if n % 3 == 0 { 30_000 } else { 100 };
        let stored = running.first.submit(number(n), payload(n, size)).await.unwrap();
        assert_eq!(stored.place, n);
        running.other.submit(number(n), payload(n, 10)).await.unwrap();
    }
    // 1 MB was logged: a checkpoint is under way, on a disk that others use as well.
    while running.first.status().checkpointed == LogIndex(0) {
        tokio::task::yield_now().await;
    }
    let before = running.first.status();
    running.host.stop();
    let stopped = running.first.submit(number(1), payload(1, 1)).await;
    assert_eq!(stopped, Err(ProposeError::Stopping));
    assert_eq!(running.first.status().checkpointed, running.first.status().applied);
    drop(running);

    let running = start(dir.path());
    running.first.serving().await.unwrap();
    let places = running.first.query(|numbers| numbers.stored.clone()).await.unwrap();
    assert!(places.iter().all(|(number, place)| number == place) && places.len() == 100);
    assert_eq!(running.first.status().digest, before.digest);
    assert_eq!(running.other.query(|numbers| numbers.stored.len()).await, Ok(100));
}

#[test]
fn of_many_groups_the_first_that_cannot_be_restored_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(&dir.path().join("wal"), true).unwrap());
    let kv = Arc::new(MemKv::new());
    // Of these the log has lost what the state tells of.
    for group in [7, 9, 15].map(GroupId) {
        let applied = Applied { index: LogIndex(100), ..Applied::default() };
        kv.write(group, applied, Changes { machine: &[], archive: &[] }).unwrap();
    }
    let (clock, rng) = (SystemClock::shared(), Rng::from_seed(1));
    let mut host = Host::start(settings(), disk, kv, clock, rng).unwrap();
    let machine = |group| (GroupId(group), Numbers::new(&Arc::default()));
    let failed = host.add_groups((2..20).map(machine)).unwrap_err().to_string();
    assert!(failed.contains("group 7"), "{failed}");
}

#[test]
fn groups_that_share_a_log_are_replayed_in_one_pass_over_it() {
    let mut machine = Machine::new(1);
    machine.settings.checkpoint_log_bytes = ByteSize::mib(100);
    let groups = || (0..6).map(|at| GroupId(GROUP.0 + at));
    let journals: Vec<Arc<Journal>> = groups().map(|_| Arc::default()).collect();
    let machines =
        || groups().zip(&journals).map(|(group, journal)| (group, Numbers::new(journal)));
    let mut node = machine.open().unwrap();
    let mut handles = vec![node.handle.clone()];
    for (group, numbers) in machines().skip(1) {
        handles.push(node.worker.add_group(GroupSpec::alone(group), numbers).unwrap());
    }
    node.settle().unwrap();
    for n in 0..200 {
        for handle in &handles {
            drop(propose(handle, n, 500).unwrap());
        }
        node.settle().unwrap();
    }
    let before: Vec<GroupStatus> = handles.iter().map(GroupHandle::status).collect();
    let bytes: u64 = node.log.usage().groups.iter().map(|group| group.bytes).sum();
    drop((node, handles));

    let disk = Arc::new(machine.disk.clone());
    let (kv, clock) = (Arc::new(machine.kv.clone()), machine.clock.clone());
    let rng = Rng::from_seed(2);
    let mut host = Host::start(machine.settings.clone(), disk, kv, clock, rng).unwrap();
    let scanned = machine.disk.bytes_read();
    let again = host.add_groups(machines()).unwrap();
    let read = machine.disk.bytes_read() - scanned;
    // Blocks are padded to whole sectors.
    assert!((bytes..bytes * 3 / 2).contains(&read), "{read} bytes were read for {bytes}");
    host.run().unwrap();
    for (handle, before) in again.iter().zip(before) {
        assert!(before.applied.0 > 200);
        while !handle.status().serving {
            std::thread::yield_now();
        }
        assert!(handle.status().applied > before.applied);
    }
    host.stop();
    for (journal, numbers) in journals.iter().map(|journal| (journal, (0..200).collect::<Vec<_>>()))
    {
        assert_eq!(journal.numbers(), numbers);
    }
}

#[tokio::test]
async fn many_proposers_at_once_are_all_answered_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path());
    running.first.serving().await.unwrap();
    let mut answers = Vec::new();
    for n in 0..2_000 {
        loop {
            match propose(&running.first, n, 1_000) {
                Ok(answer) => break answers.push(answer),
                Err(ProposeError::Full { .. } | ProposeError::LogFull) => {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    for (place, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap().unwrap().place, place as u64);
    }
}

#[tokio::test]
async fn a_failed_write_ends_everything_and_nothing_is_acknowledged_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = start(dir.path());
    running.first.serving().await.unwrap();
    running.first.submit(number(0), payload(0, 10)).await.unwrap();
    // No file is being made, so the next write is one of the log.
    while running.host.log().prepare_files().unwrap() != Prepared::Idle {}
    let error = Fault::Error(std::io::ErrorKind::Other);
    running.faults.plan_fault(DiskOperation::Write, "", 0, error);
    let mut failed = running.host.failed();
    let lost = running.first.submit(number(1), payload(1, 10)).await.unwrap_err();
    assert!(matches!(lost, ProposeError::Unknown | ProposeError::Stopping), "{lost}");
    let why = failed.wait_for(Option::is_some).await.unwrap().clone();
    assert!(matches!(why, Some(HostFailure::Log(_))), "{why:?}");
    let after = running.first.submit(number(200), payload(200, 10)).await.unwrap_err();
    assert_eq!(after, ProposeError::Stopping);
    running.host.stop();
    drop(running);
    let running = start(dir.path());
    running.first.serving().await.unwrap();
    assert_eq!(running.first.query(|numbers| numbers.stored.get(&0).copied()).await, Ok(Some(0)));
}

/// Yields until `done`; the limit only ends a test that would go on for ever.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    waited.unwrap_or_else(|_| panic!("waited for {what} in vain"));
}

/// A node whose next write hangs, with a proposal of `bytes` that waits for it.
async fn hang(running: &Running, bytes: usize) -> Answer {
    running.first.serving().await.unwrap();
    running.first.submit(number(0), payload(0, 10)).await.unwrap();
    // No file is being made, so the next write is one of the log.
    while running.host.log().prepare_files().unwrap() != Prepared::Idle {}
    running.faults.plan_fault(DiskOperation::Write, "", 0, Fault::Stall);
    let hung = propose(&running.first, 1, bytes).unwrap();
    until("a write that hangs", || running.faults.struck() == 1).await;
    hung
}

#[tokio::test]
async fn a_write_that_hangs_sheds_load_whoever_performs_it_and_goes_on_when_it_comes_back() {
    // Small blocks go inline, large ones through the log thread.
    for bytes in [10, 30_000] {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::new(WallTime(1))));
        let running = start_at(dir.path(), clock.clone(), settings());
        let hung = hang(&running, bytes).await;
        clock.advance(Duration::from_secs(3));
        let shed = || matches!(propose(&running.other, 1, 10), Err(ProposeError::Full { .. }));
        until("load that is shed", shed).await;
        running.faults.release();
        assert_eq!(hung.await.unwrap().unwrap().place, 1);
        until("load that is taken", || !shed()).await;
        assert!(running.host.failed().borrow().is_none(), "a stall is not a failure");
    }
}

#[tokio::test]
async fn a_write_that_hangs_for_too_long_ends_the_node_and_is_left_behind() {
    for bytes in [10, 30_000] {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::new(WallTime(1))));
        let mut settings = settings();
        settings.patience.failed = Duration::from_millis(1);
        let mut running = start_at(dir.path(), clock.clone(), settings);
        let _hung = hang(&running, bytes).await;
        clock.advance(Duration::from_secs(60));
        let mut failed = running.host.failed();
        let why = tokio::time::timeout(Duration::from_secs(60), failed.wait_for(Option::is_some));
        let why = why.await.expect("the node fails").unwrap().clone().unwrap();
        assert!(why.to_string().contains("60 s"), "{why}");
        running.host.stop();
        assert_eq!(propose(&running.first, 2, 10).unwrap_err(), ProposeError::Stopping);
        let asked = running.first.query(|numbers| numbers.stored.len()).await;
        assert_eq!(asked, Err(ProposeError::Stopping));
        // What hangs goes with the process.
    }
}

#[tokio::test]
async fn a_stop_gives_up_a_checkpoint_that_hangs_and_the_log_has_it_all() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(&dir.path().join("wal"), true).unwrap());
    let (release, hung) = std::sync::mpsc::channel();
    let kv = Arc::new(HangingKv { inner: MemKv::default(), hung: Mutex::new(hung) });
    let mut settings = settings();
    settings.patience.stop = Duration::from_millis(1);
    let (clock, rng) = (SystemClock::shared(), Rng::from_seed(1));
    let mut host = Host::start(settings, disk, kv, clock, rng).unwrap();
    let numbers = host.add_group(GROUP, Numbers::new(&Arc::default())).unwrap();
    host.run().unwrap();
    numbers.serving().await.unwrap();
    numbers.submit(number(0), payload(0, 10)).await.unwrap();
    let store = host.state_store();
    host.stop();
    assert!(host.failed().borrow().is_none(), "the log is whole");
    drop(host);
    drop(release);
    assert!(store.upgrade().is_some(), "nobody closes it under the thread that was left behind");
}

/// A process that ends closes RocksDB on no thread but its own, and before its exit.
#[tokio::test]
async fn a_stop_closes_the_state_store_whoever_still_holds_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(&dir.path().join("wal"), true).unwrap());
    let kv = Arc::new(MemKv::default());
    let store = Arc::downgrade(&kv);
    let (clock, rng) = (SystemClock::shared(), Rng::from_seed(1));
    let mut host = Host::start(settings(), disk, kv, clock, rng).unwrap();
    let numbers = host.add_group(GROUP, Numbers::new(&Arc::default())).unwrap();
    host.run().unwrap();
    numbers.serving().await.unwrap();
    numbers.submit(number(0), payload(0, 10)).await.unwrap();
    assert!(store.upgrade().is_some());
    host.stop();
    assert!(store.upgrade().is_none(), "the handles and the host are still there");
    drop((host, numbers));
}

#[tokio::test]
async fn a_group_that_breaks_tells_those_who_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path());
    running.first.serving().await.unwrap();
    let broken = running.first.submit(number(PANIC), Vec::new()).await;
    assert_eq!(broken, Err(ProposeError::Unknown));
    assert_eq!(running.first.serving().await, None);
    running.other.submit(number(1), payload(1, 1)).await.unwrap();
    let idle = running.host.failed();
    assert!(idle.borrow().is_none(), "one group is not the node");
}

#[tokio::test]
async fn a_log_that_the_files_thread_stops_ends_the_node_without_waiting_for_an_append() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::new(WallTime(1))));
    let settings = HostSettings { checkpoint_log_bytes: ByteSize::mib(100), ..settings() };
    let running = start_at(dir.path(), clock.clone(), settings.clone());
    running.first.serving().await.unwrap();
    for n in 0..10 {
        running.first.submit(number(n), payload(n, 30_000)).await.unwrap();
        running.other.submit(number(n), payload(n, 10)).await.unwrap();
    }
    while running.host.log().prepare_files().unwrap() != Prepared::Idle {}
    let error = Fault::Error(std::io::ErrorKind::Other);
    running.faults.plan_fault(DiskOperation::Rename, "0", 0, error);
    // The state is saved, the log dropped, and its files are to become spares.
    clock.advance(settings.checkpoint_interval);
    let failed = running.host.failed();
    until("a node that has failed", || {
        running.host.center.bell.ring();
        failed.borrow().is_some()
    })
    .await;
    let why = failed.borrow().clone().unwrap().to_string();
    assert!(why.contains("recycle a log file"), "{why}");
}
