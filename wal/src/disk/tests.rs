//! The laws of the seam, on every implementation.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::Rng;
use rstest::rstest;

use super::*;
use crate::test_directory::test_directory;

enum Kind {
    Sim,
    Faulty,
    Real,
    /// Where the file system refuses direct writes.
    Buffered,
}

fn with_disk(kind: &Kind, check: impl FnOnce(Arc<dyn Disk>)) {
    let sim = SimDisk::new(Rng::from_seed(1));
    match kind {
        Kind::Sim => check(Arc::new(sim)),
        Kind::Faulty => check(Arc::new(FaultyDisk::new(Arc::new(sim), |_| ()))),
        Kind::Real => {
            let directory = test_directory();
            let disk = RealDisk::open(directory.path(), false).unwrap();
            assert!(disk.direct(), "the tests run on a disk");
            check(Arc::new(disk));
        }
        Kind::Buffered => {
            let directory = test_directory();
            let disk = RealDisk::open(directory.path(), false).unwrap();
            check(Arc::new(disk.buffered()));
        }
    }
}

fn filled(length: usize, byte: u8) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(length);
    buffer.fill(byte);
    buffer
}

#[rstest]
#[case::sim(Kind::Sim)]
#[case::faulty(Kind::Faulty)]
#[case::real(Kind::Real)]
#[case::buffered(Kind::Buffered)]
fn what_is_written_is_read_back_and_sets_the_length(#[case] kind: Kind) {
    with_disk(&kind, |disk| {
        let file = disk.create("a").unwrap();
        assert!(file.is_empty().unwrap());
        file.write_at(4096, &filled(8192, 7)).unwrap();
        file.sync().unwrap();
        assert_eq!(file.len().unwrap(), 12288);
        let mut read = filled(12288, 1);
        disk.open("a").unwrap().read_at(0, &mut read).unwrap();
        assert!(read[..4096].iter().all(|byte| *byte == 0));
        assert!(read[4096..].iter().all(|byte| *byte == 7));
        let beyond = file.read_at(8192, &mut read[..8192]).unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::UnexpectedEof);
    });
}

#[rstest]
#[case::sim(Kind::Sim)]
#[case::faulty(Kind::Faulty)]
#[case::real(Kind::Real)]
#[case::buffered(Kind::Buffered)]
fn names_are_listed_in_order_and_never_replaced(#[case] kind: Kind) {
    with_disk(&kind, |disk| {
        for name in ["b", "a", "c"] {
            disk.create(name).unwrap();
        }
        assert_eq!(disk.list().unwrap(), ["a", "b", "c"]);
        assert_eq!(disk.create("a").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(disk.rename("a", "b").unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(disk.rename("x", "y").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(disk.open("x").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(disk.remove("x").unwrap_err().kind(), ErrorKind::NotFound);
        let open = disk.open("a").unwrap();
        disk.rename("a", "d").unwrap();
        open.write_at(0, &filled(4096, 3)).unwrap();
        assert_eq!(disk.open("d").unwrap().len().unwrap(), 4096);
        disk.remove("b").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.list().unwrap(), ["c", "d"]);
    });
}

#[rstest]
#[case::sim(Kind::Sim)]
#[case::faulty(Kind::Faulty)]
#[case::real(Kind::Real)]
#[case::buffered(Kind::Buffered)]
fn a_directory_is_locked_once_and_again_after_the_holder_is_gone(#[case] kind: Kind) {
    with_disk(&kind, |disk| {
        let held = disk.lock().unwrap();
        let Err(second) = disk.lock() else { panic!("locked twice") };
        assert_eq!(second.kind(), ErrorKind::WouldBlock);
        assert!(second.to_string().contains("in use"), "{second}");
        drop(held);
        disk.lock().unwrap();
        assert!(disk.list().unwrap().is_empty(), "the lock is no log file");
    });
}

#[rstest]
#[case::sim(Kind::Sim)]
#[case::real(Kind::Real)]
#[case::buffered(Kind::Buffered)]
#[should_panic(expected = "unaligned")]
fn unaligned_access_is_a_bug(#[case] kind: Kind) {
    with_disk(&kind, |disk| {
        let file = disk.create("a").unwrap();
        let _ = file.write_at(512, &filled(4096, 1));
    });
}

#[rstest]
#[case::sim(Kind::Sim)]
#[case::faulty(Kind::Faulty)]
#[case::real(Kind::Real)]
#[case::buffered(Kind::Buffered)]
fn space_is_told(#[case] kind: Kind) {
    with_disk(&kind, |disk| {
        let space = disk.space().unwrap();
        assert!(space.free > 0 && space.free <= space.total);
    });
}

#[test]
fn a_volatile_file_system_needs_a_word_from_the_operator() {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
        panic!("this test needs /dev/shm, a tmpfs on every Linux");
    };
    let refused = RealDisk::open(directory.path(), false).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.to_string().contains("--allow-volatile"), "{refused}");
    RealDisk::open(directory.path(), true).unwrap();
}

#[test]
fn an_unsynced_name_may_be_lost_and_a_synced_one_is_kept() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..64 {
        let disk = SimDisk::new(Rng::from_seed(seed));
        disk.create("synced").unwrap().write_at(0, &filled(4096, 1)).unwrap();
        disk.sync_dir().unwrap();
        disk.create("unsynced").unwrap();
        disk.crash(CrashOutcome::Random);
        disk.restart();
        let names = disk.list().unwrap();
        assert_eq!(names[0], "synced");
        if names.len() == 1 { lost += 1 } else { kept += 1 }
    }
    assert!(lost > 0 && kept > 0);
}

#[test]
fn a_crash_within_a_write_leaves_each_sector_lost_torn_or_kept() {
    let (mut lost, mut torn, mut kept) = (0, 0, 0);
    for seed in 0..64 {
        let disk = SimDisk::new(Rng::from_seed(seed));
        let file = disk.create("a").unwrap();
        file.write_at(0, &filled(16384, 1)).unwrap();
        disk.sync_dir().unwrap();
        disk.crash_at(disk.operations() + 1, CrashOutcome::Random);
        file.write_at(4096, &filled(8192, 2)).unwrap_err();
        file.len().unwrap_err();
        disk.restart();
        file.len().unwrap_err();
        let bytes = disk.bytes("a");
        assert!(bytes[..4096].iter().all(|byte| *byte == 1), "outside the range");
        assert!(bytes[12288..].iter().all(|byte| *byte == 1), "outside the range");
        for sector in bytes[4096..12288].chunks(4096) {
            let new = sector.iter().filter(|byte| **byte == 2).count();
            match new {
                0 => lost += 1,
                4096 => kept += 1,
                _ => torn += 1,
            }
        }
    }
    assert!(lost > 0 && torn > 0 && kept > 0);
}

#[test]
fn a_lying_disk_loses_writes_until_they_are_synced() {
    let disk = SimDisk::new(Rng::from_seed(3));
    let file = disk.create("a").unwrap();
    disk.sync_dir().unwrap();
    disk.lie(true);
    file.write_at(0, &filled(4096, 1)).unwrap();
    file.sync().unwrap();
    file.write_at(4096, &filled(4096, 2)).unwrap();
    disk.crash(CrashOutcome::Lost);
    disk.restart();
    let bytes = disk.bytes("a");
    assert!(bytes[..4096].iter().all(|byte| *byte == 1));
    assert!(bytes[4096..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_full_disk_refuses_growth_and_nothing_else() {
    let disk = SimDisk::new(Rng::from_seed(3));
    disk.set_capacity(8192);
    let file = disk.create("a").unwrap();
    file.write_at(0, &filled(8192, 1)).unwrap();
    assert_eq!(file.write_at(8192, &filled(4096, 1)).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_at(0, &filled(8192, 2)).unwrap();
    assert_eq!(disk.create("b").unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.space().unwrap(), DiskSpace { total: 8192, free: 0 });
    disk.remove("a").unwrap();
    assert_eq!(disk.space().unwrap(), DiskSpace { total: 8192, free: 8192 });
}

#[test]
fn planned_faults_strike_once_where_they_were_planned() {
    let slept = Arc::new(AtomicU64::new(0));
    let counter = slept.clone();
    let sim = SimDisk::new(Rng::from_seed(3));
    let disk = FaultyDisk::new(Arc::new(sim.clone()), move |time| {
        counter.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    });
    let faults = disk.faults();
    let file = disk.create("a").unwrap();
    let block = filled(8192, 1);
    faults.plan_fault(DiskOperation::Write, "a", 1, Fault::ShortWrite(5000));
    file.write_at(0, &block).unwrap();
    file.write_at(8192, &block).unwrap_err();
    assert_eq!(sim.bytes("a").len(), 12288);
    faults.plan_fault(DiskOperation::Write, "", 0, Fault::FlipBit(8));
    file.write_at(0, &block).unwrap();
    assert_eq!(sim.bytes("a")[..3], [1, 0, 1]);
    faults.plan_fault(DiskOperation::Read, "a", 0, Fault::FlipBit(0));
    let mut read = filled(4096, 0);
    file.read_at(0, &mut read).unwrap();
    assert_eq!(read[0], 0);
    faults.plan_fault(DiskOperation::Sync, "a", 0, Fault::Error(ErrorKind::Other));
    file.sync().unwrap_err();
    faults.plan_fault(
        DiskOperation::Sync,
        "a",
        0,
        Fault::Delay(std::time::Duration::from_millis(30)),
    );
    file.sync().unwrap();
    assert_eq!((slept.load(Ordering::SeqCst), faults.struck()), (30, 5));
}

#[test]
fn a_buffer_is_aligned_and_keeps_its_content_when_it_grows() {
    let mut buffer = AlignedBuf::zeroed(1);
    assert_eq!(buffer.len(), SECTOR_BYTES);
    buffer[7] = 9;
    buffer.grow(10_000);
    assert_eq!((buffer.len(), buffer[7], buffer[9_999]), (12_288, 9, 0));
    check_aligned(0, &buffer);
}

/// The flags of every open handle of a file, as the kernel knows them.
fn flags_of(path: &std::path::Path) -> Vec<i32> {
    let handles = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = handles.filter_map(|handle| handle.unwrap().file_name().into_string().ok());
    let ours = numbers.filter(|number| {
        std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|target| target == path)
    });
    let flags = ours.map(|number| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
        let octal = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        i32::from_str_radix(octal.trim(), 8).unwrap()
    });
    flags.collect()
}

#[test]
fn every_handle_of_a_disk_that_takes_direct_writes_syncs_each_of_them() {
    let directory = test_directory();
    let disk = RealDisk::open(directory.path(), false).unwrap();
    assert!(disk.direct(), "the tests run on a disk");
    let path = directory.path().canonicalize().unwrap().join("a");
    let wanted = libc::O_DSYNC | libc::O_DIRECT;
    let created = disk.create("a").unwrap();
    let opened = disk.open("a").unwrap();
    let flags = flags_of(&path);
    assert_eq!(flags.len(), 2);
    assert!(flags.iter().all(|flags| flags & wanted == wanted), "{flags:x?}");
    drop((created, opened));
    let buffered = disk.buffered();
    let _opened = buffered.open("a").unwrap();
    assert!(flags_of(&path).iter().all(|flags| flags & wanted == 0), "it syncs by itself");
}
