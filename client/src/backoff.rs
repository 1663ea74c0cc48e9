//! Pauses between attempts: doubling, bounded, jittered so that clients do not come in step.

use std::time::Duration;

use common::Rng;

#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    rng: Rng,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration, rng: Rng) -> Self {
        let min = min.max(Duration::from_millis(1));
        Self { min, max: max.max(min), next: min, rng }
    }

    /// Between half the pause and the whole; the one after is twice as long.
    pub(crate) fn pause(&mut self) -> Duration {
        let whole = self.next.as_micros() as u64;
        self.next = (self.next * 2).min(self.max);
        Duration::from_micros(self.rng.between(whole / 2, whole))
    }

    /// Something went well: the next pause is the shortest again.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_start_over() {
        let (min, max) = (Duration::from_millis(10), Duration::from_millis(100));
        let mut backoff = Backoff::new(min, max, Rng::from_seed(1));
        let pauses: Vec<_> = (0..6).map(|_| backoff.pause()).collect();
        assert!(pauses[0] >= min / 2 && pauses[0] <= min, "{pauses:?}");
        assert!(pauses[5] >= max / 2 && pauses[5] <= max, "{pauses:?}");
        backoff.reset();
        assert!(backoff.pause() <= min);
    }
}
