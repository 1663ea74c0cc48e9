use common::{ByteSize, LogIndex};

use super::*;
use crate::testing::*;
use crate::{HostFailure, ProposeError};

mod archive;
mod cluster;
mod crash;
mod freezing;
mod full;
mod planted;
mod quarantine;
mod raft_behaviour;

fn serving(machine: &mut Machine) -> Node {
    let mut node = machine.open().unwrap();
    node.settle().unwrap();
    assert!(node.handle.status().serving);
    node
}

#[test]
fn an_outcome_comes_only_after_its_block_is_durable() {
    let mut node = serving(&mut Machine::new(1));
    let mut answer = propose(&node.handle, 7, 100).unwrap();
    let step = node.step().unwrap();
    assert!(step.write.is_some() && answer.try_recv().is_err());
    let idle = node.step().unwrap();
    assert!(idle.write.is_none() && answer.try_recv().is_err(), "one write is outstanding");
    node.perform(step).unwrap();
    assert!(answer.try_recv().is_err(), "durable but not applied");
    node.step().unwrap();
    assert_eq!(answer.try_recv().unwrap(), Ok(Stored { number: 7, place: 0 }));
}

#[test]
fn a_small_block_is_written_inline_and_answered_in_the_same_step() {
    let mut machine = Machine::new(1);
    machine.settings.inline_write_max = ByteSize::kib(32);
    let mut node = serving(&mut machine);
    let mut answer = propose(&node.handle, 7, 100).unwrap();
    let step = node.step().unwrap();
    assert!(step.more && step.write.is_none());
    assert!(answer.try_recv().unwrap().is_ok());
}

#[test]
fn a_large_payload_reaches_the_state_machine_whole() {
    let mut node = serving(&mut Machine::new(1));
    let mut answers: Vec<_> =
        (0..9).map(|n| propose(&node.handle, n, 70_000 * (n as usize % 2)).unwrap()).collect();
    node.settle().unwrap();
    for answer in &mut answers {
        assert!(answer.try_recv().unwrap().is_ok());
    }
    assert_eq!(node.machine.journal.numbers(), (0..9).collect::<Vec<_>>());
}

#[test]
fn proposals_and_queries_are_refused_until_the_group_serves() {
    let mut machine = Machine::new(1);
    let mut node = machine.open().unwrap();
    let refused = propose(&node.handle, 1, 0).unwrap_err();
    assert_eq!(refused, ProposeError::NotLeader { hint: None });
    node.settle().unwrap();
    assert_eq!(node.store(1).place, 0);
}

#[test]
fn a_query_sees_everything_acknowledged_before_it() {
    let mut node = serving(&mut Machine::new(1));
    node.store(5);
    assert_eq!(node.stored().len(), 1);
}

#[test]
fn a_full_queue_and_a_full_log_refuse_clients_but_not_what_frees_space() {
    let mut machine = Machine::new(1);
    machine.settings.queue_bytes_max = ByteSize(1_000);
    let node = serving(&mut machine);
    let _taken = propose(&node.handle, 1, 900).unwrap();
    let full = propose(&node.handle, 2, 900).unwrap_err();
    assert_eq!(full, ProposeError::Full { retry_after: machine.settings.retry_after });
    assert!(node.handle.propose(proposal(3, 900).exempt()).is_ok());
    let large = propose(&node.handle, 4, 10 << 20).unwrap_err();
    assert!(matches!(large, ProposeError::TooLarge { .. }), "{large}");
}

#[test]
fn a_log_at_its_budget_refuses_clients_until_space_is_freed() {
    let mut machine = Machine::new(1);
    machine.settings.log.budget = ByteSize::kib(128 * 8);
    let mut node = serving(&mut machine);
    let mut stored = 0;
    let refused = loop {
        node.machine.clock.advance(LOOK_INTERVAL);
        match propose(&node.handle, stored, 20_000) {
            Ok(mut answer) => {
                node.settle().unwrap();
                match answer.try_recv().unwrap() {
                    Ok(_) => stored += 1,
                    Err(error) => break error,
                }
            }
            Err(error) => break error,
        }
        assert!(stored < 1_000, "the log never fills");
        if stored == 10 {
            // From here on something needs the log: nothing can be dropped.
            hold(&mut node, Some(LogIndex(1)));
        }
    };
    assert_eq!(refused, ProposeError::LogFull);
    assert!(node.handle.propose(proposal(7, 10).exempt()).is_ok());
    hold(&mut node, None);
    (0..40).for_each(|_| node.wait(Duration::from_secs(1)));
    let mut answer = propose(&node.handle, stored, 20_000).unwrap();
    node.settle().unwrap();
    assert!(answer.try_recv().unwrap().is_ok());
}

fn hold(node: &mut Node, live: Option<LogIndex>) {
    node.machine.journal.hold(live);
    node.settle().unwrap();
}

#[test]
fn a_stalled_write_sheds_load_and_at_last_stops_the_node() {
    let mut node = serving(&mut Machine::new(1));
    let _answer = propose(&node.handle, 1, 10).unwrap();
    let step = node.step().unwrap();
    assert!(step.write.is_some());
    node.machine.clock.advance(Duration::from_secs(3));
    node.step().unwrap();
    assert!(matches!(propose(&node.handle, 2, 10), Err(ProposeError::Full { .. })));
    node.machine.clock.advance(Duration::from_secs(60));
    assert!(matches!(node.step(), Err(HostFailure::Log(_))));
}

#[test]
fn a_panic_quarantines_its_group_and_the_others_go_on() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    let other =
        node.worker.add_group(GroupSpec::alone(GroupId(3)), Numbers::new(&Arc::default())).unwrap();
    node.settle().unwrap();
    let mut broken = propose(&node.handle, PANIC, 0).unwrap();
    let mut fine = propose(&other, 1, 0).unwrap();
    node.settle().unwrap();
    assert_eq!(broken.try_recv().unwrap(), Err(ProposeError::Unknown));
    assert!(fine.try_recv().unwrap().is_ok());
    let refused = propose(&node.handle, 1, 0).unwrap_err();
    assert!(matches!(&refused, ProposeError::Quarantined(why) if why.contains("planned")));
    assert!(node.handle.status().quarantined.is_some());
    let mut fine = propose(&other, 2, 0).unwrap();
    node.settle().unwrap();
    assert!(fine.try_recv().unwrap().is_ok());
}

#[test]
fn an_unknown_operation_stops_its_group_now_and_at_every_restart() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    let mut answer = propose(&node.handle, UNKNOWN, 0).unwrap();
    node.settle().unwrap();
    assert_eq!(answer.try_recv().unwrap(), Err(ProposeError::Unknown));
    drop(node);
    let mut node = machine.open().unwrap();
    node.settle().unwrap();
    let why = node.handle.status().quarantined.unwrap();
    assert!(why.contains("not known to this build"), "{why}");
}

#[test]
fn state_is_saved_after_bytes_or_time_and_the_log_before_it_is_dropped() {
    let mut machine = Machine::new(1);
    machine.settings.checkpoint_log_bytes = ByteSize::kib(100);
    let mut node = serving(&mut machine);
    (0..30).for_each(|number| {
        node.store(number);
    });
    assert_eq!(node.handle.status().checkpointed, LogIndex(0));
    let mut answer = propose(&node.handle, 77, 110_000).unwrap();
    node.settle().unwrap();
    answer.try_recv().unwrap().unwrap();
    let status = node.handle.status();
    assert_eq!(status.checkpointed, status.applied);
    assert_eq!(status.first.0, status.applied.0 + 1);
    node.store(78);
    node.wait(machine.settings.checkpoint_interval);
    let status = node.handle.status();
    assert_eq!(status.checkpointed, status.applied);
}

#[test]
fn a_group_that_has_used_half_of_its_share_is_saved_before_its_time() {
    let mut machine = Machine::new(1);
    machine.settings.checkpoint_log_bytes = ByteSize::mib(100);
    machine.settings.log.group_share_percent = 10;
    let mut node = serving(&mut machine);
    // Only beside others it has a share.
    let other = GroupSpec::alone(GroupId(3));
    node.worker.add_group(other, Numbers::new(&Arc::default())).unwrap();
    node.settle().unwrap();
    let share = |node: &Node| node.log.usage().groups[0].share_permille;
    let mut number = 0;
    while share(&node) < 400 {
        number += 1;
        drop(propose(&node.handle, number, 20_000).unwrap());
        node.wait(Duration::from_secs(1));
    }
    assert_eq!(node.handle.status().checkpointed, LogIndex(0));
    for _ in 0..10 {
        number += 1;
        drop(propose(&node.handle, number, 20_000).unwrap());
        node.wait(Duration::from_secs(1));
    }
    assert!(node.handle.status().checkpointed > LogIndex(0));
    assert!(share(&node) < 600, "{}", share(&node));
}

#[test]
fn the_log_is_kept_for_what_the_machine_still_reads() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    (0..10).for_each(|number| {
        node.store(number);
    });
    hold(&mut node, Some(LogIndex(5)));
    node.wait(machine.settings.checkpoint_interval);
    let status = node.handle.status();
    assert_eq!((status.first, status.checkpointed), (LogIndex(5), status.applied));
}

#[test]
fn an_idle_node_asks_for_no_wake_up() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    node.store(1);
    (0..10).for_each(|_| node.wait(machine.settings.checkpoint_interval));
    let step = node.step().unwrap();
    assert_eq!(step.wake_at, None);
    assert!(!step.more && step.write.is_none() && step.checkpoint.is_none());
}

#[test]
fn a_stop_finishes_what_was_taken_and_saves_the_state() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    let mut answer = propose(&node.handle, 1, 10).unwrap();
    node.worker.stop();
    assert_eq!(propose(&node.handle, 2, 10).unwrap_err(), ProposeError::Stopping);
    let mut steps = 0;
    loop {
        let step = node.step().unwrap();
        let stopped = step.stopped;
        node.perform(step).unwrap();
        if stopped {
            break;
        }
        steps += 1;
        assert!(steps < 20);
    }
    assert!(answer.try_recv().unwrap().is_ok());
    let status = node.handle.status();
    assert_eq!((status.checkpointed, status.applied.0 > 0), (status.applied, true));
}

#[test]
fn more_questions_than_may_wait_are_refused_until_some_are_answered() {
    use std::task::{Context, Poll, Waker};

    let mut machine = Machine::new(1);
    machine.settings.queries_max = 3;
    let mut node = serving(&mut machine);
    let mut context = Context::from_waker(Waker::noop());
    let mut ask = |node: &Node| {
        let handle = node.handle.clone();
        let mut question = Box::pin(async move { handle.query(|_| ()).await });
        let answer = question.as_mut().poll(&mut context);
        (question, answer)
    };
    let asked: Vec<_> = (0..3).map(|_| ask(&node)).collect();
    assert!(asked.iter().all(|(_, answer)| answer.is_pending()));
    let full = ProposeError::Full { retry_after: machine.settings.retry_after };
    assert_eq!(ask(&node).1, Poll::Ready(Err(full.clone())));
    node.settle().unwrap();
    // Answered, whether or not anybody looks at the answers.
    let again: Vec<_> = (0..3).map(|_| ask(&node)).collect();
    assert!(again.iter().all(|(_, answer)| answer.is_pending()));
    assert_eq!(ask(&node).1, Poll::Ready(Err(full)));
}

#[test]
fn what_is_in_no_log_is_given_up_when_the_log_takes_nothing_for_long() {
    let mut machine = Machine::new(1);
    let mut node = serving(&mut machine);
    let _first = propose(&node.handle, 1, 100).unwrap();
    // A write that does not come back: what fits into the next block waits in the log.
    let write = node.step().unwrap();
    assert!(write.write.is_some());
    let mut answers: Vec<_> =
        (2..40).map(|number| propose(&node.handle, number, 300_000).unwrap()).collect();
    node.step().unwrap();
    let wait_max = node.machine.settings.wait_max;
    node.machine.clock.advance(wait_max - Duration::from_millis(1));
    let waiting = node.step().unwrap();
    assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()), "nothing is decided");
    let soon = node.machine.clock.monotonic().plus(Duration::from_secs(1));
    assert!(waiting.wake_at.is_some_and(|time| time <= soon), "nobody would notice");
    node.machine.clock.advance(Duration::from_millis(1));
    node.step().unwrap();
    let given_up: Vec<_> = answers.iter_mut().filter_map(|a| a.try_recv().ok()).collect();
    assert!(!given_up.is_empty(), "all went into the log");
    let late = ProposeError::TimedOut { waited: wait_max };
    assert!(given_up.iter().all(|answer| *answer == Err(late.clone())), "{given_up:?}");
    // The group goes on when the write is done; what was given up is not stored, ever.
    node.perform(write).unwrap();
    node.settle().unwrap();
    node.store(50);
    assert_eq!(node.stored().len(), 1 + 38 - given_up.len() + 1);
}
