//! Clocks that are wrong: set forward or back by years, while a node runs or while it is off, and
//! another than the bucket's. Ages and times of grace are spent by what passes, not by what a clock
//! says.

use common::WallTime;
use common::clock::ManualClock;

use super::collecting::{forget_an_object, live};
use super::*;

const YEARS: u64 = 10 * 365 * 24 * 3_600 * 1_000_000;

/// How a clock comes to be wrong.
type Jump = fn(Node, &Attached) -> Node;

const JUMPS: [(&str, Jump); 4] = [
    ("set forward under it", |node, _| set(node, forward)),
    ("set back under it", |node, _| set(node, back)),
    ("set forward while it was off", |node, bucket| restart(node, bucket, forward)),
    ("set back while it was off", |node, bucket| restart(node, bucket, back)),
];

fn forward(wall: WallTime) -> WallTime {
    WallTime(wall.0 + YEARS)
}

fn back(wall: WallTime) -> WallTime {
    WallTime(wall.0.saturating_sub(YEARS))
}

fn set(node: Node, to: fn(WallTime) -> WallTime) -> Node {
    let clock = &node.machine.clock;
    clock.set_wall(to(clock.wall()));
    node
}

/// Another process, whose durations begin anew; the bucket keeps the clock that it had.
fn restart(node: Node, bucket: &Attached, to: fn(WallTime) -> WallTime) -> Node {
    let mut machine = node.machine.clone();
    drop(node);
    machine.clock = Arc::new(ManualClock::new(to(machine.clock.wall())));
    let marker = ClusterMarker { incarnation: Incarnation(1), marker: 7 };
    attach_to(&mut machine, &bucket.memory, marker);
    serving(&mut machine)
}

/// Everything that was stored is archived once its age has passed.
fn check_tiering(node: &mut Node, what: &str) {
    node.store(1_000_000);
    node.wait(Duration::from_secs(9));
    assert!(node.handle.status().unarchived_since.is_some(), "{what}: its age has not passed");
    node.wait(Duration::from_secs(1));
    assert_eq!(node.handle.status().unarchived_since, None, "{what}");
}

#[test]
fn a_clock_that_jumps_neither_hurries_nor_stops_what_is_done_by_age() {
    for (what, jump) in JUMPS {
        let mut machine = Machine::new(1);
        // So far from 1970 that it can be set back.
        machine.clock.set_wall(WallTime(5 * YEARS));
        let bucket = attach(&mut machine);
        let mut node = serving(&mut machine);
        node.store(0);
        live(&mut node, 20, 1);
        let object = forget_an_object(&mut node);
        let is_there = || objects(&bucket.memory).contains_key(&object);
        node = jump(node, &bucket);
        check_tiering(&mut node, what);
        live(&mut node, 8, 100);
        assert!(is_there(), "{what}: its grace is not over");
        node = jump(node, &bucket);
        live(&mut node, 30, 200);
        assert!(is_there(), "{what}: a kept checkpoint needs it");
        node = jump(node, &bucket);
        live(&mut node, 90, 300);
        assert!(!is_there(), "{what}: nobody needs it any more");
        node.check_payloads(&bucket.memory);

        let stored = node.stored();
        let archived = node.handle.status().archived;
        let machine = node.machine.clone();
        drop(node);
        let mut machine = restoring::recovered(&machine, &bucket.memory);
        let mut node = serving(&mut machine);
        assert!(node.handle.status().archived >= archived, "{what}");
        assert_eq!(node.stored(), stored, "{what}: it is brought back from what was kept");
        node.check_payloads(&bucket.memory);
    }
}
