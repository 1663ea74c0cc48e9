//! The state is frozen at once and copied in slices.

use wal::CrashOutcome;

use super::*;
use crate::{Kv, Slice};

#[test]
fn a_large_state_is_copied_a_slice_a_step_and_the_node_goes_on_meanwhile() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    let numbers = 4 * Slice::CHANGES_MAX as u64 + 1;
    for number in 0..numbers {
        let _answer = propose(&node.handle, number, 0).unwrap();
    }
    node.settle().unwrap();
    node.machine.clock.advance(machine.settings.checkpoint_interval);
    let frozen = node.handle.status().applied;
    let (mut slices, mut answers) = (0, Vec::new());
    let mut job = loop {
        answers.push(propose(&node.handle, numbers + slices, 10).unwrap());
        let mut step = node.step().unwrap();
        slices += 1;
        match step.checkpoint.take() {
            Some(job) => break job,
            None => assert!(step.more, "slice {slices} is not the last"),
        }
        node.perform(step).unwrap();
    };
    assert_eq!(slices, 5);
    let answered = answers.iter_mut().filter_map(|answer| answer.try_recv().ok()).count();
    assert!(answered > 0, "nothing was applied while the set was copied");
    assert_eq!(job.applied.index, frozen);
    job.run(&machine.kv).unwrap();
    let saved = machine.kv.scan(GROUP, crate::kv::Space::Machine).unwrap().count();
    assert_eq!(saved as u64, numbers, "what came later is of the next set");
    drop(node);
    machine.crash(CrashOutcome::Lost);
    let mut node = serving(&mut machine);
    let stored = node.stored();
    assert!((0..numbers).all(|number| stored.contains_key(&number)));
}

#[test]
fn a_stop_waits_for_the_last_slice() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    for number in 0..3 * Slice::CHANGES_MAX as u64 {
        let _answer = propose(&node.handle, number, 0).unwrap();
    }
    node.settle().unwrap();
    node.worker.stop();
    loop {
        let step = node.step().unwrap();
        if step.stopped && !step.more {
            break;
        }
        node.perform(step).unwrap();
    }
    let status = node.handle.status();
    assert_eq!(status.checkpointed, status.applied);
}

#[test]
fn a_machine_is_told_what_was_in_the_log_before_it() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    node.store(1);
    node.store(2);
    let last = node.handle.status().last;
    drop(node);
    machine.crash(CrashOutcome::Lost);
    let _node = machine.open().unwrap();
    assert_eq!(machine.journal.begun.load(std::sync::atomic::Ordering::SeqCst), last.0);
}
