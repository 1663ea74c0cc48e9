//! How long the worker's steps take: what appends wait for while others are served.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the classes, inclusive; what takes longer is counted in a last one.
const BOUNDS: [Duration; 8] = [
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(20),
];

/// Counts of the worker's steps by what they took, writes to the disk not counted. A histogram of
/// fixed classes: noting one costs two additions.
#[derive(Debug, Default)]
pub struct StepTimes {
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// A look at [`StepTimes`].
#[derive(Debug, Clone, PartialEq)]
pub struct StepCounts {
    /// What all took.
    pub total: Duration,
    /// The upper bound of each class, `None` for the last one, with the number of steps in it.
    pub classes: Vec<(Option<Duration>, u64)>,
}

impl StepTimes {
    /// Only the worker's thread notes.
    pub(super) fn note(&self, took: Duration) {
        let class = BOUNDS.partition_point(|bound| *bound < took);
        self.counts[class].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The classes are read one after another: steps in between are in it or not.
    #[must_use]
    pub fn counts(&self) -> StepCounts {
        let counts: [u64; BOUNDS.len() + 1] =
            array::from_fn(|class| self.counts[class].load(Ordering::Relaxed));
        let bounds = BOUNDS.into_iter().map(Some).chain([None]);
        StepCounts {
            total: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
            classes: bounds.zip(counts).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_counted_in_the_first_class_that_holds_it() {
        let times = StepTimes::default();
        times.note(Duration::from_micros(50));
        times.note(Duration::from_micros(51));
        times.note(Duration::from_millis(1));
        times.note(Duration::from_secs(1));
        let counts = times.counts();
        assert_eq!(counts.total, Duration::from_micros(1_001_101));
        let of: Vec<u64> = counts.classes.iter().map(|(_, count)| *count).collect();
        assert_eq!(of, [1, 1, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(counts.classes[4].0, Some(Duration::from_millis(1)));
        assert_eq!(counts.classes[8].0, None);
    }
}
