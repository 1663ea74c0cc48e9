//! What was asked of long-term storage and how it went, counted as it happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lts::{ErrorKind, Observation, Observer, Operation};

const OPERATIONS: usize = Operation::ALL.len();

/// Success, and every kind of failure.
const OUTCOMES: usize = 1 + ErrorKind::ALL.len();

/// Totals since the process began.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    operations: [OfOperation; OPERATIONS],
}

#[derive(Debug, Default)]
struct OfOperation {
    outcomes: [AtomicU64; OUTCOMES],
    bytes: AtomicU64,
    retries: AtomicU64,
    micros: AtomicU64,
}

/// The totals of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OperationCounts {
    pub(crate) operation: Operation,
    /// Requests by their outcome, those that occurred.
    pub(crate) outcomes: Vec<(&'static str, u64)>,
    /// Bytes that requests carried which succeeded.
    pub(crate) bytes: u64,
    pub(crate) retries: u64,
    /// Time of all requests together.
    pub(crate) took: Duration,
}

impl Counts {
    /// Counts what it is told.
    pub(crate) fn observer(counts: &Arc<Self>) -> Observer {
        let counts = counts.clone();
        Arc::new(move |observation| counts.count(observation))
    }

    fn count(&self, observation: &Observation) {
        match observation {
            Observation::Attempt { operation, outcome, bytes, took } => {
                let of = self.of(*operation);
                let outcome = outcome.as_ref().map_or_else(|kind| 1 + place(*kind), |()| 0);
                of.outcomes[outcome].fetch_add(1, Ordering::Relaxed);
                of.bytes.fetch_add(*bytes, Ordering::Relaxed);
                of.micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
            }
            Observation::Retry { operation } => {
                self.of(*operation).retries.fetch_add(1, Ordering::Relaxed);
            }
            // Its level is read where it is.
            Observation::Breaker { .. } => {}
        }
    }

    fn of(&self, operation: Operation) -> &OfOperation {
        let at = Operation::ALL.iter().position(|of| *of == operation);
        &self.operations[at.expect("all operations are listed")]
    }

    /// The totals of every operation that was asked for.
    pub(crate) fn totals(&self) -> Vec<OperationCounts> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let words = std::iter::once("ok").chain(ErrorKind::ALL.iter().map(|kind| kind.as_str()));
        let totals = Operation::ALL.iter().zip(&self.operations).map(|(operation, of)| {
            let outcomes = words.clone().zip(of.outcomes.iter().map(load));
            OperationCounts {
                operation: *operation,
                outcomes: outcomes.filter(|(_, count)| *count > 0).collect(),
                bytes: load(&of.bytes),
                retries: load(&of.retries),
                took: Duration::from_micros(load(&of.micros)),
            }
        });
        totals.filter(|of| !of.outcomes.is_empty() || of.retries > 0).collect()
    }
}

fn place(kind: ErrorKind) -> usize {
    let at = ErrorKind::ALL.iter().position(|of| *of == kind);
    at.expect("all kinds are listed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_operation_and_outcome() {
        let counts = Arc::new(Counts::default());
        let observer = Counts::observer(&counts);
        let attempt = |operation, outcome, bytes| Observation::Attempt {
            operation,
            outcome,
            bytes,
            took: Duration::from_millis(5),
        };
        observer(&attempt(Operation::Put, Ok(()), 10));
        observer(&attempt(Operation::Put, Err(ErrorKind::Unavailable), 0));
        observer(&Observation::Retry { operation: Operation::Put });
        observer(&attempt(Operation::Put, Ok(()), 7));
        observer(&attempt(Operation::Delete, Err(ErrorKind::Unsupported), 0));
        let of = |operation, outcomes: &[(&'static str, u64)], bytes, retries, millis| {
            let (outcomes, took) = (outcomes.to_vec(), Duration::from_millis(millis));
            OperationCounts { operation, outcomes, bytes, retries, took }
        };
        assert_eq!(
            counts.totals(),
            [
                of(Operation::Put, &[("ok", 2), ("unavailable", 1)], 17, 1, 15),
                of(Operation::Delete, &[("unsupported", 1)], 0, 0, 5),
            ]
        );
    }
}
