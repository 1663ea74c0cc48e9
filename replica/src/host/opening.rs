//! Restores groups side by side, and replays them in one pass over the log.
//!
//! Groups share log files, so that a replay of one after the other would read each file once for
//! each. One walk deals their entries out to a few threads that apply them, over queues with a
//! limit: whoever is slow holds up the walk, not memory.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Scope;

use common::GroupId;
use wal::{Log, LogEntry, ReadError};

use crate::error::StartError;
use crate::machine::StateMachine;
use crate::worker::{OpenedGroup, Opening, RestoredGroup};

/// Groups at a time. States come back from long-term storage one by one.
const OPENING_MAX: usize = 4;

/// Parts of the log that wait for a thread which applies them. Each has about a mebibyte at most, or
/// one entry.
const DEALT_MAX: usize = 4;

type Dealt = (GroupId, Result<Vec<LogEntry>, ReadError>);

/// Opens all of them; in their order, or the error of the first that fails.
pub(super) fn open_all<M: StateMachine>(
    log: &Log,
    openings: Vec<Opening<M>>,
) -> Result<Vec<OpenedGroup<M>>, StartError> {
    let mut restored = side_by_side(openings, Opening::restore)?;
    replay(log, &mut restored);
    side_by_side(restored, RestoredGroup::finish)
}

/// What is still to be done, and what came of the rest.
struct Work<T, R> {
    left: std::iter::Enumerate<std::vec::IntoIter<T>>,
    done: Vec<(usize, Result<R, StartError>)>,
    failed: bool,
}

/// Does `each` of all that is to be done; what came of it in that order, or the first error.
fn side_by_side<T: Send, R: Send>(
    work: Vec<T>,
    each: impl Fn(T) -> Result<R, StartError> + Sync,
) -> Result<Vec<R>, StartError> {
    let threads = work.len().clamp(1, OPENING_MAX);
    let left = work.into_iter().enumerate();
    let work = Mutex::new(Work { left, done: Vec::new(), failed: false });
    std::thread::scope(|scope| {
        for number in 1..threads {
            if !spawned(scope, format!("braid-open-{number}"), || do_some(&work, &each)) {
                break;
            }
        }
        do_some(&work, &each);
    });
    let mut done = work.into_inner().unwrap_or_else(PoisonError::into_inner).done;
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Until nothing is left, or one has failed.
fn do_some<T, R>(work: &Mutex<Work<T, R>>, each: &impl Fn(T) -> Result<R, StartError>) {
    let locked = || work.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let next = {
            let mut work = locked();
            if work.failed { None } else { work.left.next() }
        };
        let Some((place, next)) = next else { return };
        let result = each(next);
        let mut work = locked();
        work.failed |= result.is_err();
        work.done.push((place, result));
    }
}

fn spawned<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: String,
    run: impl FnOnce() + Send + 'scope,
) -> bool {
    let spawned = std::thread::Builder::new().name(name).spawn_scoped(scope, run);
    if let Err(error) = &spawned {
        tracing::warn!(%error, "groups are restored with fewer threads: raise their limit");
    }
    spawned.is_ok()
}

/// Replays what is committed behind the groups' states.
fn replay<M: StateMachine>(log: &Log, restored: &mut [RestoredGroup<M>]) {
    let wanted: Vec<_> = restored.iter().filter_map(RestoredGroup::wanted).collect();
    let groups: BTreeMap<GroupId, Mutex<&mut RestoredGroup<M>>> =
        restored.iter_mut().map(|group| (group.id(), Mutex::new(group))).collect();
    let take = |(group, entries): Dealt| {
        if let Some(group) = groups.get(&group) {
            group.lock().unwrap_or_else(PoisonError::into_inner).take(entries);
        }
    };
    std::thread::scope(|scope| {
        let mut queues: Vec<SyncSender<Dealt>> = Vec::new();
        for number in 0..wanted.len().min(OPENING_MAX) {
            let (queue, dealt): (_, Receiver<Dealt>) = sync_channel(DEALT_MAX);
            let run = || dealt.into_iter().for_each(take);
            if !spawned(scope, format!("braid-replay-{number}"), run) {
                break;
            }
            queues.push(queue);
        }
        // A group is always with the same thread.
        let places: BTreeMap<GroupId, usize> = wanted.iter().map(|(g, _)| *g).zip(0..).collect();
        for (group, entries) in log.walk(wanted) {
            let place = places.get(&group).copied().unwrap_or(0) % queues.len().max(1);
            match queues.get(place) {
                // Its thread ends when there are no more.
                Some(queue) => drop(queue.send((group, entries))),
                None => take((group, entries)),
            }
        }
    });
}
