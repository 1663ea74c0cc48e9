//! Metrics of long-term storage and of memory.

use lts::BreakerState;

use super::{Family, Kind, Labels};
use crate::memory::ClassUse;
use crate::storage::{OperationCounts, StorageStatus};

pub(super) fn of_storage(status: &StorageStatus, counts: &[OperationCounts]) -> Vec<Family> {
    let gauge = |name, help, value: f64| Family::single(name, help, Kind::Gauge, value);
    let states = [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen];
    let in_state = states.iter().map(|state| {
        let labels = vec![("state", state.as_str().to_owned())];
        (labels, f64::from(u8::from(*state == status.breaker.state)))
    });
    let breaker = Family {
        name: "braid_lts_breaker",
        help: "1 for the state of the circuit breaker: open while long-term storage does not answer",
        kind: Kind::Gauge,
        points: in_state.collect(),
    };
    let mut families = vec![
        gauge(
            "braid_lts_ready",
            "1: long-term storage is known to be this cluster's",
            f64::from(u8::from(status.ready)),
        ),
        gauge(
            "braid_lts_down_seconds",
            "Time for which long-term storage has not answered",
            status.breaker.down_for.as_secs_f64(),
        ),
        breaker,
    ];
    families.extend(of_requests(counts));
    families
}

fn of_requests(counts: &[OperationCounts]) -> [Family; 4] {
    let family = |name, help, points| Family { name, help, kind: Kind::Counter, points };
    let of_operation = |of: &OperationCounts| vec![("operation", of.operation.as_str().to_owned())];
    let by_operation = |value: fn(&OperationCounts) -> f64| -> Vec<(Labels, f64)> {
        counts.iter().map(|of| (of_operation(of), value(of))).collect()
    };
    let by_outcome = counts.iter().flat_map(|of| {
        of.outcomes.iter().map(move |(outcome, count)| {
            let mut labels = of_operation(of);
            labels.push(("outcome", (*outcome).to_owned()));
            (labels, *count as f64)
        })
    });
    [
        family(
            "braid_lts_requests",
            "Requests to long-term storage, by operation and outcome",
            by_outcome.collect(),
        ),
        family(
            "braid_lts_request_seconds",
            "Time of all requests to long-term storage together; divide by their number",
            by_operation(|of| of.took.as_secs_f64()),
        ),
        family(
            "braid_lts_request_bytes",
            "Bytes that requests to long-term storage carried",
            by_operation(|of| of.bytes as f64),
        ),
        family(
            "braid_lts_retries",
            "Requests to long-term storage that were made once more",
            by_operation(|of| of.retries as f64),
        ),
    ]
}

pub(super) fn of_memory(classes: &[ClassUse]) -> [Family; 2] {
    let family = |name, help, points| Family { name, help, kind: Kind::Gauge, points };
    let labels = |of: &ClassUse| vec![("class", of.class.as_str().to_owned())];
    let used = classes.iter().map(|of| (labels(of), of.used as f64));
    let limits = classes.iter().map(|of| (labels(of), of.limit.bytes() as f64));
    [
        family("braid_memory_limit_bytes", "Share of `memory.limit`, by class", limits.collect()),
        family("braid_memory_used_bytes", "Memory in use, by class", used.collect()),
    ]
}
