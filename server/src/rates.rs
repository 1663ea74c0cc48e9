//! How fast the node appends and reads at the moment: totals as they were in each of the last
//! seconds, and the difference to those of now.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::MonotonicTime;

/// How often totals are kept.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Over how long rates are averages, about.
const WINDOW: Duration = Duration::from_secs(5);

/// Samples kept: those of the window, and one more.
const SAMPLES: usize = 6;

/// What was counted up to one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) at: MonotonicTime,
    pub(crate) append_events: u64,
    pub(crate) append_bytes: u64,
    pub(crate) read_bytes: u64,
}

/// Averages a second over a window.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Average {
    pub(crate) window: Duration,
    pub(crate) append_events: f64,
    pub(crate) append_bytes: f64,
    pub(crate) read_bytes: f64,
}

/// The newest samples.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<VecDeque<Totals>>);

impl Rates {
    pub(crate) fn keep(&self, totals: Totals) {
        let mut samples = self.lock();
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(totals);
    }

    /// The rates up to `now`, since the oldest sample of the window.
    pub(crate) fn up_to(&self, now: Totals) -> Average {
        let samples = self.lock();
        // A sample that is late by a little is still of the window.
        let limit = WINDOW + SAMPLE_EVERY / 2;
        let mut of_window = samples.iter().filter(|sample| now.at.since(sample.at) <= limit);
        let Some(first) = of_window.next().filter(|first| first.at < now.at) else {
            return Average::default();
        };
        let window = now.at.since(first.at);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / window.as_secs_f64();
        Average {
            window,
            append_events: rate(now.append_events, first.append_events),
            append_bytes: rate(now.append_bytes, first.append_bytes),
            read_bytes: rate(now.read_bytes, first.read_bytes),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Totals>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(seconds: u64, append_events: u64) -> Totals {
        let at = MonotonicTime(seconds * 1_000_000);
        let (append_bytes, read_bytes) = (append_events * 10, append_events * 5);
        Totals { at, append_events, append_bytes, read_bytes }
    }

    #[test]
    fn rates_are_of_the_last_seconds() {
        let rates = Rates::default();
        assert_eq!(rates.up_to(totals(1, 5)), Average::default());
        for second in 0..100 {
            rates.keep(totals(second, if second < 90 { 0 } else { (second - 90) * 20 }));
        }
        let average = rates.up_to(totals(100, 200));
        assert_eq!(average.window, WINDOW);
        assert_eq!(
            (average.append_events, average.append_bytes, average.read_bytes),
            (20.0, 200.0, 100.0)
        );
        // Nothing is known of the moment itself, nor after a long pause.
        assert_eq!(Rates::default().up_to(totals(0, 0)), Average::default());
        assert_eq!(rates.up_to(totals(200, 200)), Average::default());
        let rates = Rates::default();
        rates.keep(totals(3, 0));
        assert_eq!(rates.up_to(totals(3, 9)), Average::default());
        assert_eq!(rates.up_to(totals(5, 9)).append_events, 4.5);
    }
}
