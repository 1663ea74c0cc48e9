//! What a node is after it lost everything that was not durable.

use wal::CrashOutcome;

use super::*;
use crate::{Applied, Changes, Kv, StartError};

/// Stores forty numbers, or fewer if the machine goes down; returns those that were acknowledged.
pub(super) fn run_until_crash(machine: &mut Machine, first: u64) -> Vec<u64> {
    store_until_crash(machine, first..first + 40, 3_000, Duration::from_secs(10))
}

/// Stores numbers of that many bytes and lets time pass after each.
pub(super) fn store_until_crash(
    machine: &mut Machine,
    numbers: impl Iterator<Item = u64>,
    bytes: usize,
    pause: Duration,
) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    let Ok(mut node) = machine.open() else { return acknowledged };
    if node.settle().is_err() {
        return acknowledged;
    }
    for number in numbers {
        let Ok(mut answer) = propose(&node.handle, number, bytes) else { break };
        node.machine.clock.advance(pause);
        let alive = node.settle().is_ok();
        if let Ok(Ok(stored)) = answer.try_recv() {
            acknowledged.push(stored.number);
        }
        if !alive {
            break;
        }
    }
    acknowledged
}

#[test]
fn what_was_acknowledged_survives_a_crash_in_any_operation_of_the_disk() {
    let outcomes = [CrashOutcome::Lost, CrashOutcome::Kept, CrashOutcome::Random];
    for (operation, outcome) in (1..220).map(|n| (n, outcomes[n as usize % 3])) {
        let mut machine = Machine::new(operation);
        machine.settings.checkpoint_log_bytes = ByteSize::kib(16);
        machine.disk.crash_at(operation, outcome);
        let acknowledged = run_until_crash(&mut machine, 0);
        machine.crash(outcome);
        let mut node = serving(&mut machine);
        let stored = node.stored();
        for (place, number) in acknowledged.iter().enumerate() {
            let found = stored.get(number).copied();
            assert_eq!(found, Some(place as u64), "crash in {operation}: {number} is gone");
        }
    }
}

#[test]
fn a_second_crash_during_the_restart_loses_nothing() {
    for operation in 1..60 {
        let mut machine = Machine::new(operation);
        let acknowledged = run_until_crash(&mut machine, 0);
        machine.crash(CrashOutcome::Random);
        let before = machine.disk.operations();
        machine.disk.crash_at(before + operation, CrashOutcome::Random);
        run_until_crash(&mut machine, 1_000);
        machine.crash(CrashOutcome::Random);
        let mut node = serving(&mut machine);
        let stored = node.stored();
        for (place, number) in acknowledged.iter().enumerate() {
            assert_eq!(stored.get(number), Some(&(place as u64)), "{number} is gone");
        }
    }
}

#[test]
fn the_saved_state_may_be_ahead_of_the_stored_commit() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    (0..5).for_each(|number| {
        node.store(number);
    });
    node.machine.clock.advance(machine.settings.checkpoint_interval);
    let mut job = node.step().unwrap().checkpoint.unwrap();
    job.run(&machine.kv).unwrap();
    let applied = job.applied.index;
    drop(node);
    machine.crash(CrashOutcome::Lost);
    // The commit of the last entry would have ridden in a block that never came.
    let node = machine.open().unwrap();
    assert!(node.log.group(GROUP).unwrap().hard_state.commit < applied);
    assert_eq!(machine.journal.numbers(), [0, 1, 2, 3, 4]);
    drop(node);
    machine.crash(CrashOutcome::Lost);
    let mut node = serving(&mut machine);
    assert!(node.handle.status().applied > applied);
    assert_eq!(node.store(4).place, 4);
}

#[test]
fn replay_up_to_the_durable_commit_is_over_before_raft_begins() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    (0..5).for_each(|number| {
        node.store(number);
    });
    let digest = node.handle.status().digest;
    let commit = node.log.group(GROUP).unwrap().hard_state.commit;
    drop(node);
    machine.crash(CrashOutcome::Lost);
    machine.journal = Arc::default();
    let mut node = machine.open().unwrap();
    let replayed = machine.journal.numbers();
    assert!(replayed.len() as u64 >= commit.0 - 1 && replayed.len() >= 3, "{replayed:?}");
    node.settle().unwrap();
    assert_eq!(machine.journal.numbers(), [0, 1, 2, 3, 4]);
    assert_eq!(node.handle.status().digest, digest);
}

#[test]
fn stamps_and_the_rolling_hash_go_on_from_the_saved_state() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    (0..5).for_each(|number| {
        node.store(number);
    });
    node.wait(machine.settings.checkpoint_interval);
    let before = node.handle.status();
    assert_eq!(before.first.0, before.applied.0 + 1, "nothing is left to replay");
    drop(node);
    machine.crash(CrashOutcome::Kept);
    let mut node = serving(&mut machine);
    assert_eq!(node.handle.status().digest, before.digest);
    assert_eq!(node.store(3).place, 3);
}

/// A node whose log begins behind its first entry, and its saved state.
fn truncated_machine() -> Machine {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    node.store(1);
    node.wait(machine.settings.checkpoint_interval);
    node.store(2);
    assert!(node.handle.status().first > LogIndex(1));
    machine
}

fn refusal(machine: &mut Machine) -> StartError {
    machine.open().map(|_| ()).unwrap_err()
}

#[test]
fn missing_state_is_refused_with_the_reason_once_the_log_depends_on_it() {
    let mut machine = truncated_machine();
    machine.kv.wipe();
    let error = refusal(&mut machine);
    assert!(matches!(error, StartError::StateMissing { .. }), "{error}");
    assert!(error.to_string().contains("put the state directory back"), "{error}");
}

#[test]
fn missing_state_is_rebuilt_while_the_log_is_whole() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    node.store(1);
    drop(node);
    machine.kv.wipe();
    assert_eq!(serving(&mut machine).store(1).place, 0);
}

#[test]
fn a_saved_state_of_another_term_than_the_log_is_refused() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    node.store(1);
    node.wait(machine.settings.checkpoint_interval);
    node.store(2);
    drop(node);
    let kv: &dyn Kv = &machine.kv;
    let applied = kv.applied(GROUP).unwrap().unwrap();
    let other = Applied { term: common::Term(applied.term.0 + 1), ..applied };
    kv.write(GROUP, other, Changes::default()).unwrap();
    kv.flush().unwrap();
    let refused = refusal(&mut machine);
    assert!(matches!(refused, StartError::Mismatch { .. }), "{refused}");
    assert!(refused.to_string().contains("do not belong together"), "{refused}");
}

#[test]
fn state_older_than_the_log_is_refused() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    node.store(1);
    node.machine.clock.advance(machine.settings.checkpoint_interval);
    let mut step = node.step().unwrap();
    let mut first = step.checkpoint.take().unwrap();
    node.perform(step).unwrap();
    node.save(first.clone()).unwrap();
    node.store(2);
    node.wait(machine.settings.checkpoint_interval);
    drop(node);
    machine.kv.wipe();
    first.run(&machine.kv).unwrap();
    let error = refusal(&mut machine);
    assert!(matches!(error, StartError::StateBehind { .. }), "{error}");
}

#[test]
fn a_log_that_ends_before_the_saved_state_is_refused() {
    let mut machine = truncated_machine();
    machine.disk = wal::SimDisk::new(Rng::from_seed(9));
    let error = refusal(&mut machine);
    assert!(matches!(error, StartError::LogBehind { .. }), "{error}");
    assert!(error.to_string().contains("acknowledged data is missing"), "{error}");
}
