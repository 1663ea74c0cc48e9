//! What `braid stream` prints.

use client::{SegmentInfo, ServerInfo, StreamDescription, StreamState, StreamSummary};
use common::{ScopedStream, StreamCut};
use serde::Serialize;

use crate::moment::show_micros;
use crate::output::{Row, bytes_text};

const fn state_name(state: StreamState) -> &'static str {
    match state {
        StreamState::Creating => "creating",
        StreamState::Active => "active",
        StreamState::Sealing => "sealing",
        StreamState::Sealed => "sealed",
        StreamState::Deleting => "deleting",
        _ => "unknown",
    }
}

fn time_text(micros: u64) -> String {
    show_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// A stream in a list.
#[derive(Debug, Serialize)]
pub(super) struct StreamRow {
    stream: String,
    id: String,
    state: &'static str,
    segments: u32,
    created: String,
}

impl StreamRow {
    pub(super) fn new(summary: &StreamSummary) -> Self {
        Self {
            stream: summary.stream.to_string(),
            id: summary.id.to_string(),
            state: state_name(summary.state),
            segments: summary.segments,
            created: time_text(summary.created_micros),
        }
    }
}

impl Row for StreamRow {
    const COLUMNS: &'static [&'static str] = &["stream", "id", "state", "segments", "created"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.stream.clone(),
            self.id.clone(),
            self.state.to_owned(),
            self.segments.to_string(),
            self.created.clone(),
        ]
    }
}

/// A stream in detail. Bytes and times are of its newest segments.
#[derive(Debug, Serialize)]
pub(super) struct DescriptionRow {
    #[serde(flatten)]
    stream: StreamRow,
    epoch: u32,
    named_writers: u64,
    bytes: u64,
    bytes_in_log: u64,
    oldest: Option<String>,
    newest: Option<String>,
    /// Of the whole server: what all streams together may use.
    log_used_bytes: u64,
    log_budget_bytes: u64,
}

impl DescriptionRow {
    pub(super) fn new(
        description: &StreamDescription,
        infos: &[SegmentInfo],
        server: &ServerInfo,
    ) -> Self {
        let oldest = infos.iter().map(|info| info.oldest_micros).filter(|time| *time > 0).min();
        let newest = infos.iter().map(|info| info.newest_micros).filter(|time| *time > 0).max();
        Self {
            stream: StreamRow::new(&description.summary),
            epoch: description.epoch.0,
            named_writers: description.writers,
            bytes: infos.iter().map(|info| info.length.0 - info.start_offset.0).sum(),
            bytes_in_log: infos.iter().map(|info| info.log_bytes).sum(),
            oldest: oldest.map(time_text),
            newest: newest.map(time_text),
            log_used_bytes: server.log_used_bytes,
            log_budget_bytes: server.log_budget_bytes,
        }
    }

    fn log_text(&self) -> String {
        let percent = 100.0 * self.log_used_bytes as f64 / self.log_budget_bytes.max(1) as f64;
        let (used, budget) = (bytes_text(self.log_used_bytes), bytes_text(self.log_budget_bytes));
        let full = if percent >= 90.0 {
            "; full: appends are refused until `braid stream truncate` or `braid stream delete` \
             frees space"
        } else {
            ""
        };
        format!("{used} of {budget} ({percent:.0} %), all streams together{full}")
    }
}

impl Row for DescriptionRow {
    const COLUMNS: &'static [&'static str] = &[
        "stream",
        "id",
        "state",
        "segments",
        "created",
        "epoch",
        "named_writers",
        "bytes",
        "bytes_in_log",
        "oldest",
        "newest",
        "server_log",
    ];

    fn cells(&self) -> Vec<String> {
        let or_none = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
        let mut cells = self.stream.cells();
        cells.extend([
            self.epoch.to_string(),
            self.named_writers.to_string(),
            bytes_text(self.bytes),
            bytes_text(self.bytes_in_log),
            or_none(&self.oldest),
            or_none(&self.newest),
            self.log_text(),
        ]);
        cells
    }
}

/// A stream that something was done to.
#[derive(Debug, Serialize)]
pub(super) struct NameRow {
    stream: String,
}

impl NameRow {
    pub(super) fn new(stream: &ScopedStream) -> Self {
        Self { stream: stream.to_string() }
    }
}

/// A place of a stream.
#[derive(Debug, Serialize)]
pub(super) struct CutRow {
    stream: String,
    cut: String,
}

impl CutRow {
    pub(super) fn new(stream: &ScopedStream, cut: &StreamCut) -> Self {
        Self { stream: stream.to_string(), cut: cut.to_string() }
    }
}
