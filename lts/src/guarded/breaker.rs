//! The circuit breaker: a store that failed several times in a row is left alone for a while, then
//! asked once, and used again when it answers. Nothing here waits or reads a clock.

use std::time::Duration;

use common::{MonotonicTime, Rng};

use crate::Error;

/// Failures in a row that open it.
const FAILURES: u32 = 5;

/// How long it stays open at first; it doubles with every trial that fails.
const OPEN_FIRST: Duration = Duration::from_secs(1);

/// How long it stays open at most: an outage is noticed to be over at the latest so late.
const OPEN_LONGEST: Duration = Duration::from_secs(30);

/// What the breaker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Lets everything pass.
    Closed,
    /// Lets nothing pass for a while.
    Open,
    /// Lets one request pass, whose outcome decides.
    HalfOpen,
}

impl BreakerState {
    /// A stable word for metrics and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What people see of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerStatus {
    pub state: BreakerState,
    /// How long the store has not answered; zero while it does.
    pub down_for: Duration,
    /// Failures since the last answer.
    pub failures: u32,
    /// What the last failure said, while there are any.
    pub last_error: Option<String>,
}

/// The right to make one request.
#[derive(Debug)]
pub(super) struct Pass {
    trial: bool,
}

#[derive(Debug)]
pub(super) struct Breaker {
    state: BreakerState,
    failures: u32,
    /// When the failures began.
    since: MonotonicTime,
    /// When it is open: until when, and how long it was opened for.
    until: MonotonicTime,
    open_for: Duration,
    trial_under_way: bool,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: BreakerState::Closed,
            failures: 0,
            since: MonotonicTime(0),
            until: MonotonicTime(0),
            open_for: Duration::ZERO,
            trial_under_way: false,
        }
    }
}

impl Breaker {
    pub(super) fn state(&self) -> BreakerState {
        self.state
    }

    pub(super) fn status(&self, now: MonotonicTime, last: Option<&Error>) -> BreakerStatus {
        let failing = self.failures > 0;
        BreakerStatus {
            state: self.state,
            down_for: if failing { now.since(self.since) } else { Duration::ZERO },
            failures: self.failures,
            last_error: last.filter(|_| failing).map(|error| error.reason().to_owned()),
        }
    }

    /// How long it will refuse requests, if it does now.
    pub(super) fn refuses(&self, now: MonotonicTime) -> Option<Duration> {
        match self.state {
            BreakerState::Closed => None,
            BreakerState::Open if now >= self.until => None,
            BreakerState::Open => Some(self.until.since(now)),
            // Whether the trial succeeds is not known; it is soon.
            BreakerState::HalfOpen => self.trial_under_way.then_some(OPEN_FIRST),
        }
    }

    /// Lets a request pass, or says when to come back.
    pub(super) fn admit(&mut self, now: MonotonicTime) -> Result<Pass, Duration> {
        if let Some(after) = self.refuses(now) {
            return Err(after);
        }
        if self.state == BreakerState::Closed {
            return Ok(Pass { trial: false });
        }
        self.state = BreakerState::HalfOpen;
        self.trial_under_way = true;
        Ok(Pass { trial: true })
    }

    /// The store answered, whoever asked and however long ago: it is there.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub(super) fn failed(&mut self, pass: Pass, now: MonotonicTime, rng: &mut Rng) {
        if self.failures == 0 {
            self.since = now;
        }
        self.failures = self.failures.saturating_add(1);
        if pass.trial && self.state == BreakerState::HalfOpen {
            self.open(now, self.open_for.saturating_mul(2).min(OPEN_LONGEST), rng);
        } else if self.state == BreakerState::Closed && self.failures >= FAILURES {
            self.open(now, OPEN_FIRST, rng);
        }
        // Others that began before it opened say nothing new.
    }

    fn open(&mut self, now: MonotonicTime, time: Duration, rng: &mut Rng) {
        self.state = BreakerState::Open;
        self.open_for = time;
        self.trial_under_way = false;
        // Up to a quarter more, so that nodes do not come back together.
        let more = Duration::from_micros(rng.below(time.as_micros() as u64 / 4));
        self.until = now.plus(time + more);
    }

    /// A request of which nobody knows the outcome: another one may try.
    pub(super) fn abandoned(&mut self, pass: Pass) {
        if pass.trial {
            self.trial_under_way = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime(seconds * 1_000_000)
    }

    fn opened(rng: &mut Rng) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES {
            let pass = breaker.admit(at(10)).unwrap();
            breaker.failed(pass, at(10), rng);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let mut rng = Rng::from_seed(1);
        let mut breaker = Breaker::default();
        for number in 0..50 {
            let pass = breaker.admit(at(number)).unwrap();
            match number % u64::from(FAILURES) {
                0 => breaker.succeeded(),
                _ => breaker.failed(pass, at(number), &mut rng),
            }
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        let mut breaker = opened(&mut rng);
        assert_eq!(breaker.state(), BreakerState::Open);
        let after = breaker.admit(at(10)).unwrap_err();
        assert!(after >= OPEN_FIRST && after <= OPEN_FIRST * 5 / 4, "{after:?}");
    }

    #[test]
    fn after_a_while_one_request_is_let_pass_and_decides() {
        let mut rng = Rng::from_seed(1);
        let mut breaker = opened(&mut rng);
        let _trial = breaker.admit(at(12)).unwrap();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker.admit(at(12)).unwrap_err();
        breaker.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.status(at(13), None).down_for, Duration::ZERO);
    }

    #[test]
    fn every_trial_that_fails_doubles_the_wait_up_to_the_longest() {
        let mut rng = Rng::from_seed(1);
        let mut breaker = opened(&mut rng);
        let mut now = at(100);
        for number in 1..10 {
            let trial = breaker.admit(now).unwrap();
            breaker.failed(trial, now, &mut rng);
            let expected = (OPEN_FIRST * (1 << number)).min(OPEN_LONGEST);
            let after = breaker.admit(now).unwrap_err();
            assert!(after >= expected && after <= expected * 5 / 4, "{number}: {after:?}");
            now = now.plus(after);
        }
        let status = breaker.status(now, None);
        assert_eq!((status.state, status.failures), (BreakerState::Open, FAILURES + 9));
        assert_eq!(status.down_for, now.since(at(10)));
    }

    #[test]
    fn a_trial_that_is_given_up_makes_room_for_another() {
        let mut rng = Rng::from_seed(1);
        let mut breaker = opened(&mut rng);
        let trial = breaker.admit(at(20)).unwrap();
        breaker.abandoned(trial);
        breaker.admit(at(20)).unwrap();
        breaker.admit(at(20)).unwrap_err();
    }

    #[test]
    fn late_failures_of_before_do_not_prolong_it_and_a_late_success_closes_it() {
        let mut rng = Rng::from_seed(1);
        let mut breaker = Breaker::default();
        let passes: Vec<Pass> = (0..20).map(|_| breaker.admit(at(1)).unwrap()).collect();
        let mut until = None;
        for pass in passes {
            breaker.failed(pass, at(1), &mut rng);
            if breaker.state() == BreakerState::Open {
                assert_eq!(*until.get_or_insert(breaker.until), breaker.until);
            }
        }
        breaker.succeeded();
        breaker.admit(at(1)).unwrap();
    }
}
