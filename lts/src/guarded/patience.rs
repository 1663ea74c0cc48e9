//! How long to wait before another attempt, and how many there may be.

use std::time::Duration;

use common::Rng;

/// The wait before the second attempt, on average.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait between two attempts.
const LONGEST: Duration = Duration::from_secs(10);

/// What a success earns and a retry costs: in the long run one retry for ten successes, so that
/// retries do not make an overloaded store's load many times what it was.
const EARNED: u64 = 1;
const COST: u64 = 10;

/// What can be saved up: so many retries may come in a burst.
const SAVED_MAX: u64 = 100 * COST;

/// The wait after attempt `number`: it doubles, and half of it is chance, so that those that failed
/// together do not come back together.
pub(super) fn backoff(rng: &mut Rng, number: u32) -> Duration {
    let full = FIRST.saturating_mul(1 << (number - 1).min(16)).min(LONGEST).as_micros() as u64;
    Duration::from_micros(rng.between(full / 2, full + full / 2)).min(LONGEST)
}

/// Retries that may still be made.
#[derive(Debug)]
pub(super) struct RetryBudget(u64);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(SAVED_MAX)
    }
}

impl RetryBudget {
    pub(super) fn earn(&mut self) {
        self.0 = (self.0 + EARNED).min(SAVED_MAX);
    }

    /// Whether there was one left.
    pub(super) fn take(&mut self) -> bool {
        let left = self.0.checked_sub(COST);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest_and_differ() {
        let mut rng = Rng::from_seed(1);
        for number in 1..40 {
            let full = FIRST.saturating_mul(1 << (number - 1).min(16)).min(LONGEST);
            let waits: Vec<_> = (0..100).map(|_| backoff(&mut rng, number)).collect();
            assert!(waits.iter().all(|wait| *wait >= full / 2 && *wait <= LONGEST));
            assert!(waits.iter().any(|wait| *wait != waits[0]));
        }
    }

    #[test]
    fn ten_successes_pay_for_a_retry() {
        let mut budget = RetryBudget::default();
        assert_eq!((0..1_000).filter(|_| budget.take()).count(), 100);
        (0..9).for_each(|_| budget.earn());
        assert!(!budget.take());
        budget.earn();
        assert!(budget.take() && !budget.take());
        (0..100_000).for_each(|_| budget.earn());
        assert_eq!((0..1_000).filter(|_| budget.take()).count(), 100);
    }
}
