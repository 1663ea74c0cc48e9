//! A disk without space, under the log and under the saved state.

use wal::{CrashOutcome, Disk};

use super::*;
use crate::KvError;
use crate::testing::Answer;

fn saving_often() -> Machine {
    let mut machine = Machine::new(1);
    machine.settings.checkpoint_log_bytes = ByteSize::kib(100);
    machine
}

/// Proposes what a checkpoint is due after, and waits for it to be stored.
fn store_much(node: &mut Node, number: u64) {
    let mut answer = propose(&node.handle, number, 110_000).unwrap();
    node.settle().unwrap();
    answer.try_recv().unwrap().unwrap();
}

/// Steps until the node has stopped; it must do so without time passing.
fn stop(node: &mut Node) {
    node.worker.stop();
    for _ in 0..50 {
        let step = node.step().unwrap();
        let stopped = step.stopped;
        node.perform(step).unwrap();
        if stopped {
            node.worker.end();
            return;
        }
    }
    panic!("the node does not stop");
}

/// Leaves the log no space for another file, then stores until a client is refused.
fn fill_log(node: &mut Node) -> u64 {
    let space = node.machine.disk.space().unwrap();
    node.machine.disk.set_capacity(space.total - space.free);
    for number in 0..1_000 {
        let mut answer = propose(&node.handle, number, 20_000).unwrap();
        node.settle().unwrap();
        match answer.try_recv().unwrap() {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, ProposeError::LogFull);
                return number;
            }
        }
    }
    panic!("the disk never fills");
}

#[test]
fn a_checkpoint_without_space_is_tried_again_ever_more_seldom_while_the_node_goes_on() {
    let mut node = serving(&mut saving_often());
    node.machine.kv.set_full(true);
    store_much(&mut node, 1);
    let due = node.handle.status().applied;
    assert!(node.handle.status().checkpoint_waits);
    let mut tries = 0;
    for second in 0..60 {
        node.machine.clock.advance(Duration::from_secs(1));
        let step = node.step().unwrap();
        tries += u32::from(step.checkpoint.is_some());
        node.perform(step).unwrap();
        assert_eq!(node.store(100 + second).number, 100 + second);
    }
    assert!((6..12).contains(&tries), "{tries} tries in a minute");
    let status = node.handle.status();
    assert_eq!((status.checkpointed, status.first), (LogIndex(0), LogIndex(1)));

    node.machine.kv.set_full(false);
    node.wait(Duration::from_secs(8));
    let status = node.handle.status();
    assert!(!status.checkpoint_waits);
    assert!(status.checkpointed >= due && status.first > due, "{status:?}");
    // From here on everything is as before.
    store_much(&mut node, 2);
    assert_eq!(node.handle.status().checkpointed, node.handle.status().applied);
}

#[test]
fn a_stop_does_not_wait_for_space_for_a_checkpoint_and_loses_nothing() {
    let mut machine = saving_often();
    let mut node = serving(&mut machine);
    store_much(&mut node, 1);
    node.machine.kv.set_full(true);
    store_much(&mut node, 2);
    node.store(3);
    assert!(node.handle.status().checkpoint_waits);
    stop(&mut node);
    drop(node);
    machine.crash(CrashOutcome::Lost);
    let mut node = serving(&mut machine);
    assert_eq!(node.stored().len(), 3);
    // A stop that meets the full disk for the first time is no different.
    node.store(4);
    stop(&mut node);
    drop(node);
    machine.kv.close();
    machine.kv.set_full(false);
    assert_eq!(serving(&mut machine).stored().len(), 4);
}

#[test]
fn what_frees_space_goes_on_while_the_disk_is_full() {
    let mut node = serving(&mut Machine::new(1));
    hold(&mut node, Some(LogIndex(1)));
    let stored = fill_log(&mut node);
    // More than what is left of the last file that clients may use.
    for number in 2_000..2_025 {
        let mut answer = exempt(&node, number, 100);
        step_often(&mut node);
        assert!(matches!(answer.try_recv(), Ok(Ok(_))), "operation {number} waits");
    }
    // It freed the log: clients go on without more space.
    hold(&mut node, None);
    (0..10).for_each(|_| node.wait(Duration::from_secs(1)));
    let mut answer = propose(&node.handle, stored, 20_000).unwrap();
    node.settle().unwrap();
    assert!(answer.try_recv().unwrap().is_ok());
}

/// Where something may wait for ever, and be it for nothing but space.
fn step_often(node: &mut Node) {
    for _ in 0..20 {
        let step = node.step().unwrap();
        node.perform(step).unwrap();
    }
}

fn exempt(node: &Node, number: u64, bytes: usize) -> Answer {
    let (reply, answer) = tokio::sync::oneshot::channel();
    let proposal = proposal(number, bytes).exempt().reply(crate::Reply::Once(reply));
    assert!(node.handle.propose(proposal).is_ok());
    answer
}

#[test]
fn a_store_that_fails_otherwise_stops_the_node() {
    let mut node = serving(&mut saving_often());
    let _answer = propose(&node.handle, 1, 110_000).unwrap();
    let job = loop {
        let mut step = node.step().unwrap();
        if let Some(job) = step.checkpoint.take() {
            break job;
        }
        node.perform(step).unwrap();
    };
    let failed =
        node.worker.checkpointed(job, Err(KvError::new("flush", "the disk is broken").into()));
    assert!(matches!(failed, Err(HostFailure::Kv(_))), "{failed:?}");
}

#[test]
fn a_stop_does_not_wait_for_space_for_the_log() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    // Nothing can be dropped: a checkpoint at the stop would make space.
    hold(&mut node, Some(LogIndex(1)));
    let stored = fill_log(&mut node);
    let freeing = exempt_until_refused(&mut node);
    stop(&mut node);
    drop(node);
    machine.disk.set_capacity(u64::MAX);
    let numbers = serving(&mut machine).stored();
    assert!((0..stored).all(|number| numbers.contains_key(&number)));
    assert!((5_000..freeing).all(|number| numbers.contains_key(&number)));
}

/// Uses up what the log keeps for operations that free space; says which one was refused.
fn exempt_until_refused(node: &mut Node) -> u64 {
    for number in 5_000..6_000 {
        let mut answer = exempt(node, number, 20_000);
        step_often(node);
        match answer.try_recv().expect("nothing waits for space") {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, ProposeError::LogFull);
                return number;
            }
        }
    }
    panic!("nothing is refused");
}
