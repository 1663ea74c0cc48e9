//! Entries that a repair of the log gave up before they were archived.

use bytes::Bytes;
use common::{LogIndex, Offset};
use replica::StateMachine;

use super::resting::{extents, places, segments, truncate, write};
use crate::container::ContainerMachine;
use crate::testing::segment;

#[test]
fn what_is_lost_stays_as_such_and_holds_back_neither_the_log_nor_what_comes_behind() {
    let mut driver = segments(2);
    write(&mut driver, 1, b"first");
    driver.tier();
    write(&mut driver, 1, b" lost");
    let lost = driver.index;
    write(&mut driver, 2, b"other");
    write(&mut driver, 1, b" gone");
    let last = driver.index;
    write(&mut driver, 1, b" last");
    assert_eq!(driver.machine.oldest_live_index(), Some(LogIndex(lost)));
    driver.machine.lost(LogIndex(lost)..=LogIndex(last));
    assert_eq!(driver.machine.oldest_live_index(), Some(LogIndex(last + 1)));
    driver.tier();
    assert_eq!(places(&driver, 1), (20, 0, 4), "lost ones are not joined to others");
    let entries: Vec<_> = extents(&driver, 1).iter().map(|run| run.rested.lost_entry()).collect();
    let (lost, last) = (LogIndex(lost), LogIndex(last));
    assert_eq!(entries, [None, Some(lost), Some(last), None]);
    assert_eq!(extents(&driver, 2)[0].rested.lost_entry(), Some(LogIndex(lost.0 + 1)));
    // Saved, and read again.
    let changes = driver.machine.freeze_whole();
    let mut fresh = driver.machine.fresh();
    let pairs =
        changes.into_iter().filter_map(|change| Some((Bytes::from(change.key), change.value?)));
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort();
    fresh.restore(&mut pairs.into_iter()).unwrap();
    let of = |machine: &ContainerMachine| {
        let shared = machine.view(segment(1)).unwrap().shared;
        shared.lock().objects.items().iter().copied().collect::<Vec<_>>()
    };
    assert_eq!(of(&fresh), extents(&driver, 1));
    // A truncation behind them ends the matter.
    truncate(&mut driver, 1, 15);
    assert_eq!(extents(&driver, 1).len(), 1);
    assert_eq!(extents(&driver, 1)[0].offset, Offset(15));
}

#[test]
fn what_is_lost_is_never_put_together_with_what_is_there() {
    let mut driver = segments(1);
    for round in 0..200 {
        write(&mut driver, 1, &[round; 2]);
        match round % 10 {
            5 => {
                let entry = LogIndex(driver.index);
                driver.machine.lost(entry..=entry);
            }
            _ => drop(driver.tier()),
        }
    }
    let plan = driver.machine.compaction().expect("there are many small extents");
    assert!(plan.pieces.iter().all(|piece| piece.rested.lost_entry().is_none()), "{plan:?}");
    assert!(plan.pieces.len() > 1);
}
