use std::sync::Arc;

use common::SystemClock;

use super::*;
use crate::RealDisk;
use crate::test_directory::test_directory;

#[test]
fn both_writers_write_their_turns_on_a_real_disk() {
    let cases = [(4, None), (64, None), (4, Some(500)), (64, Some(500))];
    for (kib, pace) in cases {
        let directory = test_directory();
        let disk = Arc::new(RealDisk::open(directory.path(), false).unwrap());
        let settings = BenchSettings {
            block: ByteSize::kib(kib),
            pace,
            duration: Duration::from_millis(120),
            turns: 2,
            file_size: ByteSize::mib(1),
        };
        let report = bench(disk, &settings, SystemClock::shared(), Rng::from_seed(1)).unwrap();
        for figures in [&report.log, &report.raw] {
            assert!(figures.writes > 2 && figures.p50 <= figures.p99, "{report:?}");
            assert_eq!(figures.bytes, figures.writes * kib * 1024);
            if pace.is_some() {
                assert!(figures.writes <= 64, "{report:?}");
            }
        }
        assert!(report.ratio > 0.0);
    }
}
