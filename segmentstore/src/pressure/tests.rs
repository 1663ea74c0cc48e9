use common::clock::ManualClock;
use proptest::prelude::*;

use super::*;

#[test]
fn a_level_presses_from_where_it_is_said_to() {
    let cases = [(0.0, 0.0), (0.7, 0.0), (0.75, 0.25), (0.8, 0.5), (0.9, 1.0), (2.0, 1.0)];
    for (level, pressure) in cases {
        assert!((ramp(level, 0.7, 0.9) - pressure).abs() < 1e-9, "{level}");
    }
}

#[test]
fn the_wait_grows_with_the_square_of_the_pressure_and_with_the_bytes() {
    assert_eq!(wait_for(0.0, 100 * MIB), Duration::ZERO);
    assert_eq!(wait_for(1.0, MIB / 2), Duration::from_millis(500));
    assert_eq!(wait_for(0.5, MIB / 2), Duration::from_millis(125));
    assert_eq!(wait_for(0.5, MIB / 4), Duration::from_micros(62_500));
    assert_eq!(wait_for(1.0, 100 * MIB), WAIT_LONGEST);
}

fn under(level: f64) -> (Arc<ManualClock>, Pressure) {
    let clock = Arc::new(ManualClock::default());
    clock.advance(Duration::from_secs(1));
    let pressure = Pressure::new(clock.clone());
    pressure.register("test", Box::new(move || level));
    (clock, pressure)
}

#[test]
fn what_a_timer_cannot_wait_for_is_added_up() {
    let (clock, pressure) = under(0.5);
    let mut all = Duration::ZERO;
    for _ in 0..1_000 {
        if let Some(wait) = pressure.wait(MIB / 1_000) {
            assert!(wait >= WAIT_SHORTEST);
            clock.advance(wait);
            all += wait;
        }
    }
    let due = Duration::from_millis(250);
    assert!(all <= due && all + 2 * WAIT_SHORTEST > due, "{all:?}");
    assert_eq!(under(0.0).1.wait(usize::MAX), None);
}

/// What so many connections get through in a minute, each with one message of 16 KiB after the other.
fn appended_in_a_minute(connections: usize) -> usize {
    let (clock, pressure) = under(1.0);
    let mut ready_at = vec![clock.monotonic(); connections];
    let (end, mut bytes) = (clock.monotonic().plus(Duration::from_mins(1)), 0);
    loop {
        let next = *ready_at.iter().min().unwrap();
        if next >= end {
            return bytes;
        }
        clock.advance(next.since(clock.monotonic()));
        let connection = ready_at.iter_mut().find(|at| **at == next).unwrap();
        *connection = next.plus(pressure.wait(16 << 10).unwrap_or_default());
        bytes += 16 << 10;
    }
}

#[test]
fn more_connections_get_no_more_through_under_full_pressure() {
    let one = appended_in_a_minute(1);
    assert!((55 * MIB..=62 * MIB).contains(&one), "{one}");
    for connections in [2, 16, 200] {
        let all = appended_in_a_minute(connections);
        assert!(all <= one + connections * (16 << 10), "{connections}: {all} against {one}");
        assert!(all >= one * 9 / 10, "{connections}: {all} against {one}");
    }
}

#[test]
fn nobody_waits_longer_than_the_longest() {
    let (_, pressure) = under(1.0);
    let waits: Vec<_> = (0..100).map(|_| pressure.wait(MIB).unwrap()).collect();
    assert_eq!(waits[1], Duration::from_secs(2));
    assert!(waits[4..].iter().all(|wait| *wait == WAIT_LONGEST));
}

#[test]
fn the_largest_signal_counts_and_is_looked_at_now_and_then() {
    let clock = Arc::new(ManualClock::default());
    let pressure = Pressure::new(clock.clone());
    assert_eq!(pressure.level(), 0.0);
    let asked = Arc::new(AtomicU64::new(0));
    let looks = asked.clone();
    pressure.register("small", Box::new(|| 0.25));
    pressure.register(
        "large",
        Box::new(move || if looks.fetch_add(1, Ordering::Relaxed) < 1 { 0.5 } else { 7.0 }),
    );
    for _ in 0..100 {
        assert_eq!(pressure.level(), 0.5);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    clock.advance(LOOK_AGAIN);
    assert_eq!(pressure.level(), 1.0);
    assert_eq!(pressure.signals(), [("small", 0.25), ("large", 1.0)]);
}

proptest! {
    #[test]
    fn more_pressure_and_more_bytes_never_wait_less(
        low in 0.0..1.0f64,
        more in 0.0..1.0f64,
        bytes in 0..16 * MIB,
        further in 0..16 * MIB,
    ) {
        prop_assert!(wait_for(low, bytes) <= wait_for((low + more).min(1.0), bytes + further));
        prop_assert!(wait_for(low, bytes) <= WAIT_LONGEST);
    }
}
