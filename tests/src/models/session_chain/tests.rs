use rstest::rstest;
use stateright::{Checker, HasDiscoveries, Model};

use super::{Bounds, Layout, Rule, SessionChain};

fn single() -> SessionChain {
    SessionChain {
        removed: None,
        layout: Layout::Single,
        events: 3,
        conditional: None,
        reconnects: 2,
        second_process: false,
        bounds: Bounds { losses: 1, leader_changes: 1, ..Bounds::default() },
    }
}

fn conditional(expected: u8) -> SessionChain {
    SessionChain {
        conditional: Some((1, expected)),
        bounds: Bounds { losses: 1, foreign_appends: 1, ..Bounds::default() },
        ..single()
    }
}

fn expiry() -> SessionChain {
    SessionChain { bounds: Bounds { expiries: 1, losses: 1, ..Bounds::default() }, ..single() }
}

fn scale(layout: Layout) -> SessionChain {
    SessionChain {
        layout,
        reconnects: 1,
        bounds: Bounds { losses: 1, leader_changes: 1, ..Bounds::default() },
        ..single()
    }
}

fn two_processes(layout: Layout) -> SessionChain {
    SessionChain {
        second_process: true,
        reconnects: 1,
        bounds: Bounds::default(),
        layout,
        ..single()
    }
}

#[rstest]
#[case::one_segment(single())]
#[case::conditional_append_at_the_start(conditional(0))]
#[case::conditional_append_behind_another_writer(conditional(1))]
#[case::expiry(expiry())]
#[case::split(scale(Layout::Split))]
#[case::merge(scale(Layout::Merge))]
#[case::two_processes(two_processes(Layout::Single))]
#[case::two_processes_and_a_split(SessionChain { reconnects: 0, ..two_processes(Layout::Split) })]
#[case::two_processes_and_a_merge(two_processes(Layout::Merge))]
fn with_all_rules_every_event_is_stored_once_and_in_order(#[case] model: SessionChain) {
    let checker = model.checker().spawn_bfs().join();
    println!("{} states, {} unique", checker.state_count(), checker.unique_state_count());
    checker.assert_properties();
}

const LOST: &str = "no acknowledged event is lost";
const TWICE: &str = "no event is stored twice";
const ORDER: &str = "events of a key are in order";
const REFUSED: &str = "no refused event is stored";
const FENCED: &str = "a fenced process stores nothing";

#[rstest]
#[case(Rule::PreviousIsLast, single(), &[LOST])]
#[case(Rule::PreviousIsLast, expiry(), &[LOST])]
#[case(Rule::NewAttemptEachOpen, conditional(1), &[REFUSED])]
#[case(Rule::StaleSessionRefused, two_processes(Layout::Single), &[FENCED])]
#[case(Rule::StaleSessionRefused, conditional(1), &[REFUSED])]
#[case(Rule::FenceBeforeSealed, two_processes(Layout::Split), &[FENCED])]
#[case(Rule::MismatchKeepsNumber, conditional(1), &[LOST])]
#[case(Rule::SealedSettles, scale(Layout::Split), &[TWICE])]
#[case(Rule::SealedSettles, scale(Layout::Merge), &[TWICE])]
#[case(Rule::HoldSuccessorBack, scale(Layout::Merge), &[LOST])]
#[case(Rule::SuccessorInNumberOrder, scale(Layout::Merge), &[LOST])]
#[case(Rule::SuccessorInNumberOrder, scale(Layout::Split), &[LOST])]
#[case(Rule::ResumeOpensAll, two_processes(Layout::Merge), &[FENCED])]
#[case(Rule::ResumeAsksSealed, two_processes(Layout::Split), &[TWICE])]
#[case(Rule::ResumeFollowsSuccessors, two_processes(Layout::Split), &[FENCED])]
#[case(Rule::ExpiredIsTold, expiry(), &[TWICE])]
#[case(Rule::SessionOutlivesData, two_processes(Layout::Merge), &[TWICE, FENCED])]
#[case(Rule::SealBeforePublish, two_processes(Layout::Split), &[TWICE, ORDER, FENCED])]
fn without_any_one_rule_an_event_is_lost_doubled_reordered_or_let_past_the_fence(
    #[case] removed: Rule,
    #[case] model: SessionChain,
    #[case] expected: &[&str],
) {
    let model = SessionChain { removed: Some(removed), ..model };
    let broken = [LOST, TWICE, ORDER, REFUSED, FENCED];
    let any = HasDiscoveries::AnyOf(broken.into_iter().collect());
    let checker = model.checker().finish_when(any).spawn_bfs().join();
    let found = checker.discoveries();
    let found: Vec<_> = found.iter().filter(|(name, _)| broken.contains(name)).collect();
    assert!(!found.is_empty(), "{removed:?} is not needed");
    for (name, path) in found {
        println!("{removed:?} out: `{name}` fails after {:?}", path.clone().into_actions());
        assert!(expected.contains(name), "{name}");
    }
}
