//! What a recovery found, and what it changed: all of it, for the person who has to know what is
//! missing.

use std::path::PathBuf;

use serde::Serialize;

use super::loss::GroupLoss;

/// The outcome of a recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveryReport {
    pub url: String,
    pub data: PathBuf,
    pub incarnation_before: u16,
    pub incarnation: u16,
    pub containers: u16,
    /// Extents whose bytes had been truncated before they were archived: their segments begin
    /// behind them.
    pub unarchived_extents: u64,
    pub groups: Vec<RecoveredGroup>,
    pub streams: Vec<StreamReport>,
    pub changes: Vec<StreamChange>,
}

/// How far a group came back. What its log held behind `end` is not in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveredGroup {
    pub group: u64,
    /// The last archived entry.
    pub end: u64,
    pub term: u64,
    /// The checkpoint that it began with.
    pub checkpoint: Option<u64>,
    /// Rounds that were replayed or taken over behind it.
    pub rounds: usize,
    /// Objects that are damaged or missing, and could be done without.
    pub problems: Vec<String>,
    /// Entries, from the first to the last, that a repair of the lost node's log had given up before
    /// they were archived: events in them cannot be read.
    pub lost: Vec<(u64, u64)>,
    /// What was given up of it.
    pub loss: Option<GroupLoss>,
}

impl RecoveredGroup {
    pub(super) fn new(found: replica::recover::Found, losses: &[GroupLoss]) -> Self {
        let loss = losses.iter().find(|loss| loss.group == found.group.0);
        Self {
            group: found.group.0,
            end: found.end.0,
            term: found.term.0,
            checkpoint: found.checkpoint.map(|index| index.0),
            rounds: found.rounds,
            problems: found.problems,
            lost: Vec::new(),
            loss: loss.cloned(),
        }
    }
}

/// A stream that is there, with where its segments end: whatever was acknowledged behind that was
/// not tiered, and is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamReport {
    pub stream: String,
    pub state: &'static str,
    pub segments: Vec<SegmentReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentReport {
    pub segment: String,
    pub start: u64,
    pub length: u64,
    /// When its newest bytes were stored, microseconds since 1970; `None` where it has none.
    pub newest_micros: Option<u64>,
}

/// Something that did not fit between controller and containers, and what was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamChange {
    pub stream: String,
    pub what: String,
}
