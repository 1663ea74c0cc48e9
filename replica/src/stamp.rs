//! The leader's two clocks, as laws over the machine's.
//!
//! *Wall* never goes back along a log, follows the clock, and cannot run away from it within a
//! term by more than a second: a clock that jumps ahead moves it by at most that much.
//! *Up-time* counts only time during which the group had this leader: a leader adds what its own
//! monotonic clock measured since its last entry, and nothing for its first one.

use std::time::Duration;

use common::{Clock, MonotonicTime, WallTime};

use crate::entry::Stamp;

/// How far the wall clock may run ahead of the monotonic one within a term.
const WALL_SLACK: Duration = Duration::from_secs(1);

/// Stamps the entries of one leader.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    previous: Stamp,
    term: Option<TermStart>,
}

#[derive(Debug)]
struct TermStart {
    first: WallTime,
    began: MonotonicTime,
    last_entry: MonotonicTime,
}

impl Stamps {
    /// Takes over an applied entry's stamp.
    pub(crate) fn observe(&mut self, stamp: Stamp) {
        self.previous = self.previous.max_of(stamp);
    }

    /// The next entry is the first of a new term of this leader.
    pub(crate) fn begin_term(&mut self) {
        self.term = None;
    }

    /// The stamp of the next entry of this leader. Every entry of earlier terms was observed.
    pub(crate) fn next(&mut self, clock: &dyn Clock) -> Stamp {
        let now = clock.monotonic();
        let stamp = match &mut self.term {
            None => {
                let wall = self.previous.wall.max(clock.wall());
                self.term = Some(TermStart { first: wall, began: now, last_entry: now });
                Stamp { wall, ..self.previous }
            }
            Some(term) => {
                let limit = term.first.plus(now.since(term.began)).plus(WALL_SLACK);
                let up = now.since(term.last_entry).as_micros() as u64;
                term.last_entry = now;
                Stamp {
                    wall: self.previous.wall.max(clock.wall().min(limit)),
                    up_micros: self.previous.up_micros + up,
                }
            }
        };
        self.previous = stamp;
        stamp
    }
}

#[cfg(test)]
mod tests {
    use common::clock::ManualClock;

    use super::*;

    fn second() -> Duration {
        Duration::from_secs(1)
    }

    #[test]
    fn wall_never_goes_back_and_runs_ahead_of_the_monotonic_clock_by_a_second_at_most() {
        let clock = ManualClock::new(WallTime(100_000_000));
        let mut stamps = Stamps::default();
        assert_eq!(stamps.next(&clock).wall, WallTime(100_000_000));
        clock.set_wall(WallTime(1));
        assert_eq!(stamps.next(&clock).wall, WallTime(100_000_000));
        clock.set_wall(WallTime(900_000_000));
        clock.advance(second());
        assert_eq!(stamps.next(&clock).wall, WallTime(102_000_000));
    }

    #[test]
    fn a_new_term_starts_from_the_clock_but_never_before_what_was_applied() {
        let clock = ManualClock::new(WallTime(5_000_000));
        let mut stamps = Stamps::default();
        stamps.observe(Stamp { wall: WallTime(9_000_000), up_micros: 40 });
        assert_eq!(stamps.next(&clock), Stamp { wall: WallTime(9_000_000), up_micros: 40 });
        clock.set_wall(WallTime(900_000_000));
        stamps.begin_term();
        assert_eq!(stamps.next(&clock).wall, WallTime(900_000_000));
    }

    #[test]
    fn up_time_counts_what_this_leader_measured_and_nothing_for_its_first_entry() {
        let clock = ManualClock::new(WallTime(1));
        let mut stamps = Stamps::default();
        stamps.observe(Stamp { wall: WallTime(0), up_micros: 7 });
        clock.advance(second());
        assert_eq!(stamps.next(&clock).up_micros, 7);
        clock.advance(second());
        assert_eq!(stamps.next(&clock).up_micros, 1_000_007);
        stamps.begin_term();
        clock.advance(second());
        assert_eq!(stamps.next(&clock).up_micros, 1_000_007);
    }
}
