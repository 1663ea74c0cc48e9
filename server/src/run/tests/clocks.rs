//! A server whose machine has the wrong time, another one at every start and while it runs: what it
//! stores is tiered and read, and nothing goes before its time.

use std::sync::atomic::{AtomicI64, Ordering};

use common::{MonotonicTime, WallTime};
use replica::check::Observer;

use super::*;
use crate::settings::Auto;
use crate::{Bucket, Checking};

const YEARS: i64 = 10 * 365 * 24 * 3_600 * 1_000_000;

/// The machine's clock, off by some microseconds.
#[derive(Debug)]
struct Wrong {
    clock: SystemClock,
    off: AtomicI64,
}

impl Clock for Wrong {
    fn wall(&self) -> WallTime {
        WallTime(self.clock.wall().0.saturating_add_signed(self.off.load(Ordering::Relaxed)))
    }

    fn monotonic(&self) -> MonotonicTime {
        self.clock.monotonic()
    }
}

/// Waits until nothing is only in the log.
async fn tiered(served: &Served) {
    loop {
        let config = ClientConfig::new(served.ready.address.to_string());
        let status = client::server_status(config).await.unwrap();
        if status.groups.iter().all(|group| group.untiered_age.is_none()) {
            return;
        }
    }
}

/// Whatever the bucket should hold is there and whole.
fn check_bucket(settings: &Settings) {
    let checking = Checking { grace: Duration::ZERO, repair: false, delete_orphans: false };
    let told: Observer = Arc::new(|_| ());
    let report = Bucket::open(settings).unwrap().check(checking, &told).unwrap();
    assert_eq!(report.findings, []);
}

#[test]
fn a_clock_that_is_years_off_or_jumps_changes_nothing_of_what_is_tiered_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.tiering.age = Auto(Some(Period::millis(100)));
    settings.checkpoint.interval = Period::seconds(1);
    let stream: ScopedStream = "demo/hello".parse().unwrap();
    let mut stored = 0;
    for (start, then) in [(0, YEARS), (-YEARS, 0), (YEARS, -YEARS), (0, 0)] {
        let clock = Arc::new(Wrong { clock: SystemClock::new(), off: start.into() });
        let surroundings = Surroundings { clock: clock.clone(), ..Surroundings::of_machine() };
        let served = Served::start_in(settings.clone(), surroundings);
        with_client(async {
            let client = served.client().await;
            if stored == 0 {
                let config = StreamConfig { segments: 1, create_scope: true };
                client.streams().create_stream(&stream, config).await.unwrap();
            }
            for off in [start, then] {
                clock.off.store(off, Ordering::Relaxed);
                append(&client, &stream, stored..stored + 10).await;
                stored += 10;
                tiered(&served).await;
            }
            assert_eq!(read_all(&client, &stream).await, (0..stored).collect::<Vec<_>>());
        });
        served.stop();
        check_bucket(&settings);
    }
}
