//! Keeps an append at a rate.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

/// Events per second, counted from the first one. Lateness is made up for, so that the rate holds
/// on average.
pub(crate) struct Pace {
    interval_nanos: f64,
    start: Option<Instant>,
    sent: u64,
}

impl Pace {
    pub(crate) fn new(per_second: NonZeroU64) -> Self {
        Self { interval_nanos: 1e9 / per_second.get() as f64, start: None, sent: 0 }
    }

    /// When the next event is due, counted from the first one.
    fn due(&self) -> Duration {
        Duration::from_nanos((self.sent as f64 * self.interval_nanos) as u64)
    }

    /// Waits until the next event is due.
    pub(crate) async fn wait(&mut self) {
        let due = *self.start.get_or_insert_with(Instant::now) + self.due();
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
    }

    /// An event was sent.
    pub(crate) fn sent(&mut self) {
        self.sent += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_spread_over_the_second() {
        let mut pace = Pace::new(NonZeroU64::new(3).unwrap());
        let due = std::iter::repeat_with(|| {
            let due = pace.due();
            pace.sent();
            due.as_micros()
        });
        assert_eq!(due.take(5).collect::<Vec<_>>(), [0, 333_333, 666_666, 1_000_000, 1_333_333]);
    }
}
