//! What is counted of what is applied.

use common::LogIndex;
use replica::StateMachine;

use crate::operation::Command;
use crate::testing::{Driver, append, command, identity, open, session};

/// Creates a segment, opens it, and appends the first block: three entries.
fn begin(driver: &mut Driver) {
    driver.give(command(1, 1, 1), Command::Create(Box::new(identity(1)))).unwrap();
    driver.open(open(1, 1, session(1, 1), false)).unwrap();
    driver.append(append(1, 1, session(1, 1), (0, 2)), b"counted");
}

/// Events, bytes and duplicates.
fn counts(driver: &Driver) -> (u64, u64, u64) {
    let metrics = &driver.machine.memory.metrics;
    let stream = metrics.streams().remove(0).1;
    let (events, bytes) = (metrics.appended_events.get(), metrics.appended_bytes.get());
    assert_eq!((stream.appended_events.get(), stream.appended_bytes.get()), (events, bytes));
    (events, bytes, metrics.duplicate_blocks.get())
}

#[test]
fn only_what_came_into_the_log_since_the_process_began_is_counted() {
    let mut driver = Driver::new();
    begin(&mut driver);
    assert_eq!(counts(&driver), (2, 7, 0));
    let mut restarted = Driver::new();
    restarted.machine.begin(LogIndex(driver.index));
    begin(&mut restarted);
    assert_eq!(counts(&restarted), (0, 0, 0), "replayed");
    restarted.append(append(1, 1, session(1, 1), (0, 2)), b"counted");
    restarted.append(append(1, 1, session(1, 1), (2, 3)), b"and this");
    assert_eq!(counts(&restarted), (1, 8, 1));
}
