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

#[test]
fn what_a_timer_cannot_wait_for_is_added_up() {
    let mut debt = Debt::default();
    let waits: Vec<_> = (0..1_000).filter_map(|_| debt.add(0.5, MIB / 1_000)).collect();
    assert!(waits.iter().all(|wait| *wait >= WAIT_SHORTEST));
    let all: Duration = waits.iter().sum();
    let due = Duration::from_millis(250);
    assert!(all <= due && all + 2 * WAIT_SHORTEST > due, "{all:?}");
    assert_eq!(Debt::default().add(0.0, usize::MAX), None);
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
