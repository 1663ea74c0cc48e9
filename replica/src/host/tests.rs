use std::path::Path;

use common::{ByteSize, LogIndex, SystemClock};
use wal::{DiskOperation, Fault, Faults, FaultyDisk, LogSettings, RealDisk};

use super::*;
use crate::testing::*;
use crate::{GroupHandle, ProposeError, RocksKv};

const OTHER: GroupId = GroupId(3);

struct Running {
    host: Host,
    first: GroupHandle<Numbers>,
    other: GroupHandle<Numbers>,
    faults: Arc<Faults>,
}

fn settings() -> HostSettings {
    HostSettings {
        inline_write_max: ByteSize::kib(8),
        log: LogSettings { budget: ByteSize::mib(32), ..small_settings().log },
        checkpoint_log_bytes: ByteSize::kib(256),
        ..HostSettings::default()
    }
}

fn start(dir: &Path) -> Running {
    let disk = Arc::new(RealDisk::open(&dir.join("wal"), true).unwrap());
    let disk = FaultyDisk::new(disk, |_| {});
    let faults = disk.faults();
    let kv = Arc::new(RocksKv::open(&dir.join("state"), ByteSize::mib(4)).unwrap());
    let rng = Rng::from_seed(1);
    let mut host = Host::start(settings(), Arc::new(disk), kv, SystemClock::shared(), rng).unwrap();
    let journal = Arc::<Journal>::default();
    let first = host.add_group(GROUP, Numbers::new(&journal)).unwrap();
    let other = host.add_group(OTHER, Numbers::new(&Arc::default())).unwrap();
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
    let before = running.first.status();
    assert!(before.checkpointed > LogIndex(0), "1 MB was logged: {before:?}");
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
    while running.host.log().prepare_files().unwrap() == Prepared::More {}
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
