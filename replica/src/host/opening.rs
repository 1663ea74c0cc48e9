//! Restores groups side by side: each waits for the disk more than it works.

use std::sync::{Mutex, PoisonError};

use crate::error::StartError;
use crate::machine::StateMachine;
use crate::worker::{OpenedGroup, Opening};

/// Groups at a time. Each has a slice of the log in memory; states come back from long-term storage
/// one by one.
const OPENING_MAX: usize = 4;

/// What is still to be opened, and what was.
struct Work<M: StateMachine> {
    left: std::iter::Enumerate<std::vec::IntoIter<Opening<M>>>,
    opened: Vec<(usize, Result<OpenedGroup<M>, StartError>)>,
    failed: bool,
}

/// Opens all of them; in their order, or the error of the first that fails.
pub(super) fn open_all<M: StateMachine>(
    openings: Vec<Opening<M>>,
) -> Result<Vec<OpenedGroup<M>>, StartError> {
    let threads = openings.len().clamp(1, OPENING_MAX);
    let left = openings.into_iter().enumerate();
    let work = Mutex::new(Work { left, opened: Vec::new(), failed: false });
    std::thread::scope(|scope| {
        for number in 1..threads {
            let thread = std::thread::Builder::new().name(format!("braid-open-{number}"));
            if let Err(error) = thread.spawn_scoped(scope, || open_some(&work)) {
                tracing::warn!(%error, "groups are restored with fewer threads: raise their limit");
                break;
            }
        }
        open_some(&work);
    });
    let mut opened = work.into_inner().unwrap_or_else(PoisonError::into_inner).opened;
    opened.sort_by_key(|(place, _)| *place);
    opened.into_iter().map(|(_, result)| result).collect()
}

/// Until nothing is left, or one has failed.
fn open_some<M: StateMachine>(work: &Mutex<Work<M>>) {
    let locked = || work.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let next = {
            let mut work = locked();
            if work.failed { None } else { work.left.next() }
        };
        let Some((place, opening)) = next else { return };
        let result = opening.open();
        let mut work = locked();
        work.failed |= result.is_err();
        work.opened.push((place, result));
    }
}
