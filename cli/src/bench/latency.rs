//! Distributions of latencies.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Nanoseconds above this count as this much: a minute.
const LONGEST_NANOS: u64 = 60_000_000_000;

/// Latencies, exact to three digits.
#[derive(Debug, Clone)]
pub(super) struct Latencies(Histogram<u64>);

/// What is shown of a distribution, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_NANOS, 3).expect("the bounds are in order"))
    }

    pub(super) fn record(&mut self, nanos: u64) {
        self.record_many(nanos, 1);
    }

    pub(super) fn record_many(&mut self, nanos: u64, count: u64) {
        self.0.saturating_record_n(nanos.max(1), count);
    }

    pub(super) fn add(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// `None` where nothing was recorded.
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        if self.0.is_empty() {
            return None;
        }
        let at = |quantile| millis(self.0.value_at_quantile(quantile));
        Some(Percentiles {
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(self.0.max()),
        })
    }
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

impl Percentiles {
    pub(super) fn text(&self) -> String {
        let Self { p50, p95, p99, p999, max } = self;
        format!("p50 {p50:.3}  p95 {p95:.3}  p99 {p99:.3}  p99.9 {p999:.3}  max {max:.3} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_all_that_was_recorded() {
        let (mut low, mut high) = (Latencies::new(), Latencies::new());
        (1..=900).for_each(|_| low.record(1_000_000));
        high.record_many(5_000_000, 99);
        high.record(u64::MAX);
        low.add(&high);
        let found = low.percentiles().unwrap();
        let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 0.002;
        assert!(near(found.p50, 1.0) && near(found.p95, 5.0) && near(found.p99, 5.0), "{found:?}");
        assert!(near(found.max, 60_000.0), "{found:?}");
        assert!(found.text().starts_with("p50 1.00"), "{}", found.text());
    }

    #[test]
    fn nothing_recorded_has_no_percentiles() {
        assert_eq!(Latencies::new().percentiles(), None);
    }
}
