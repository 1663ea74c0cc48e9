//! One monotonic clock for everything a measurement does, in nanoseconds since it began.

use std::time::Duration;

use tokio::time::Instant;

/// Copies share the beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct BenchClock {
    start: Instant,
}

impl BenchClock {
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(super) fn nanos(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    pub(super) fn at(&self, nanos: u64) -> Instant {
        self.start + Duration::from_nanos(nanos)
    }
}

/// The part of a run that counts: what comes before it warms up, what comes after it drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: u64,
    pub(super) until: u64,
}

impl Window {
    /// Begins `warmup` after `now`.
    pub(super) fn new(now: u64, warmup: Duration, duration: Duration) -> Self {
        let from = now + warmup.as_nanos() as u64;
        Self { from, until: from + duration.as_nanos() as u64 }
    }

    pub(super) const fn contains(self, nanos: u64) -> bool {
        self.from <= nanos && nanos < self.until
    }

    pub(super) const fn seconds(self) -> f64 {
        (self.until - self.from) as f64 / 1e9
    }
}
