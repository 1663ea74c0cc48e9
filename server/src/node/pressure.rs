//! How much the log and the writer tables press on appends.
//!
//! Of the log, what counts is what long-term storage does not have yet: the rest goes as soon as the state is
//! saved, within a second, and whoever waits for that would wait for nothing. But a log that is
//! nearly full refuses whatever it is full of, and before that everybody slows down.

use common::{ByteSize, GroupId};
use replica::GroupStatus;
use segmentstore::Metrics;
use segmentstore::pressure::ramp;
use wal::Log;

use super::Groups;

/// The share of the log's budget from which on what is not archived slows appends down, and from
/// which on they are refused.
const PRESSES_FROM: f64 = 0.7;
const REFUSES_FROM: f64 = 0.9;
/// The same of all that is in use.
const FILLS_FROM: f64 = 0.8;

/// The part of their class that writer tables take from which on appends are slowed down, and at
/// which they are as slow as they get: tables have no bound of their own but that of each segment.
const TABLES_PRESS_FROM: f64 = 0.8;
const TABLES_PRESS_FULLY: f64 = 1.6;

/// The pressure now, from 0 to 1. The groups are asked only where it matters.
pub(super) fn of_log(log: &Log, groups: &Groups) -> f64 {
    let space = log.space();
    let share = |bytes: u64| bytes as f64 / space.budget.max(1) as f64;
    let used = share(space.used);
    if used <= PRESSES_FROM {
        return 0.0;
    }
    let of_group = |(group, status): &(u64, GroupStatus)| {
        leaving(log.group_usage(GroupId(*group)).bytes, status)
    };
    level(used, share(groups.statuses().iter().map(of_group).sum()))
}

/// The pressure of writer tables whose class has `share`.
pub(super) fn of_writer_tables(metrics: &Metrics, share: ByteSize) -> f64 {
    let taken = metrics.writer_table_bytes.get() as f64 / share.bytes().max(1) as f64;
    ramp(taken, TABLES_PRESS_FROM, TABLES_PRESS_FULLY)
}

fn level(used: f64, leaving: f64) -> f64 {
    let pressing = ramp(used - leaving, PRESSES_FROM, REFUSES_FROM);
    pressing.max(ramp(used, FILLS_FROM, REFUSES_FROM))
}

/// Bytes of a group's log that are archived and go without anybody's doing.
fn leaving(bytes: u64, status: &GroupStatus) -> u64 {
    let needed = status.oldest_live.is_some_and(|live| live <= status.archived);
    let stays = !status.serving || status.quarantined.is_some() || status.checkpoint_waits;
    if needed || stays { 0 } else { bytes.saturating_sub(status.unarchived_bytes) }
}

#[cfg(test)]
mod tests {
    use common::LogIndex;

    use super::*;

    #[test]
    fn what_is_archived_and_soon_dropped_does_not_slow_appends_down() {
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found}");
        near(level(0.7, 0.0), 0.0);
        near(level(0.75, 0.0), 0.25);
        near(level(0.78, 0.3), 0.0);
        near(level(0.78, 0.04), 0.2);
    }

    #[test]
    fn a_log_that_is_nearly_full_slows_appends_down_whatever_it_is_full_of() {
        for leaving in [0.0, 0.1, 0.5, 0.9] {
            assert!(level(0.9, leaving) >= 1.0 - 1e-9);
            assert!(level(0.85, leaving) >= 0.5 - 1e-9);
        }
    }

    #[test]
    fn only_what_nobody_holds_back_is_about_to_go() {
        let archived = LogIndex(50);
        let status =
            GroupStatus { serving: true, archived, unarchived_bytes: 30, ..GroupStatus::default() };
        assert_eq!(leaving(100, &status), 70);
        assert_eq!(leaving(20, &status), 0);
        let waits = GroupStatus { checkpoint_waits: true, ..status.clone() };
        let away = GroupStatus { serving: false, ..status.clone() };
        let stopped = GroupStatus { quarantined: Some(String::new()), ..status.clone() };
        let read = GroupStatus { oldest_live: Some(archived), ..status.clone() };
        for held in [waits, away, stopped, read] {
            assert_eq!(leaving(100, &held), 0, "{held:?}");
        }
        let behind = GroupStatus { oldest_live: Some(LogIndex(51)), ..status };
        assert_eq!(leaving(100, &behind), 70);
    }

    #[test]
    fn writer_tables_press_once_they_outgrow_their_class() {
        let (metrics, share) = (Metrics::default(), ByteSize::mib(16));
        metrics.writer_table_bytes.add(12 << 20);
        assert_eq!(of_writer_tables(&metrics, share), 0.0);
        metrics.writer_table_bytes.add(8 << 20);
        let some = of_writer_tables(&metrics, share);
        assert!(some > 0.4 && some < 0.7, "{some}");
        metrics.writer_table_bytes.add(8 << 20);
        assert_eq!(of_writer_tables(&metrics, share), 1.0);
    }
}
