//! `braid status`: how a server is doing, on one screen.

mod screen;

use std::time::Duration;

use client::{ClientConfig, GroupStatus, ServerStatus};
use serde::Serialize;

use crate::connect::ConnectArgs;
use crate::failure::Result;
use crate::output::{self, OutputArgs};

/// Show how a server is doing: rates, log, long-term storage, memory
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  braid status
  braid status --endpoint 127.0.0.1:7071 -o json

Rates are averages over the last few seconds. What is not tiered yet is only in the log: it is
what a lost disk would cost. A `-` stands for what is not known.")]
pub(crate) struct Args {
    #[command(flatten)]
    connect: ConnectArgs,

    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let status = client::server_status(ClientConfig::new(&*args.connect.endpoint)).await?;
    let report = Report::new(status);
    output::print_done(args.output.output, screen::text(&report).trim_end(), &report)
}

/// What JSON and YAML show. Times are in seconds.
#[derive(Debug, Serialize)]
struct Report {
    version: String,
    dev: bool,
    uptime_seconds: f64,
    scopes: Option<u64>,
    streams: Option<u64>,
    rates: Rates,
    log: Log,
    untiered: Untiered,
    lts: Option<Lts>,
    memory: Memory,
    pressure: Vec<Pressure>,
    groups: Vec<Group>,
}

#[derive(Debug, Serialize)]
struct Rates {
    window_seconds: f64,
    append_events_per_second: f64,
    append_bytes_per_second: f64,
    read_bytes_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Log {
    used_bytes: u64,
    budget_bytes: u64,
}

/// What is only in the log: of all groups the sum, and the oldest.
#[derive(Debug, Serialize)]
struct Untiered {
    bytes: Option<u64>,
    age_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Lts {
    url: String,
    ready: bool,
    breaker: String,
    down_seconds: f64,
    last_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Memory {
    limit_bytes: u64,
    resident_bytes: u64,
    classes: Vec<Class>,
}

#[derive(Debug, Serialize)]
struct Class {
    class: String,
    used_bytes: Option<u64>,
    limit_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Pressure {
    signal: String,
    level: f64,
}

#[derive(Debug, Serialize)]
struct Group {
    group: u64,
    serving: bool,
    log_bytes: u64,
    untiered_bytes: Option<u64>,
    untiered_age_seconds: Option<f64>,
    quarantined: Option<String>,
    checkpoint_waits: bool,
    tiering_failure: Option<String>,
    lost_entries: u64,
}

impl Report {
    fn new(status: ServerStatus) -> Self {
        let bytes = status.groups.iter().map(|group| group.untiered_bytes);
        let age = status.groups.iter().filter_map(|group| group.untiered_age).max();
        let class = |of: client::MemoryStatus| Class {
            class: of.class,
            used_bytes: of.used_bytes,
            limit_bytes: of.limit_bytes,
        };
        Self {
            uptime_seconds: status.uptime.as_secs_f64(),
            rates: Rates {
                window_seconds: status.rates.window.as_secs_f64(),
                append_events_per_second: status.rates.append_events_per_second,
                append_bytes_per_second: status.rates.append_bytes_per_second,
                read_bytes_per_second: status.rates.read_bytes_per_second,
            },
            log: Log { used_bytes: status.log_used_bytes, budget_bytes: status.log_budget_bytes },
            untiered: Untiered {
                // One group that does not know makes the sum unknown.
                bytes: bytes.sum(),
                age_seconds: age.as_ref().map(Duration::as_secs_f64),
            },
            lts: status.lts.map(Lts::from),
            memory: Memory {
                limit_bytes: status.memory_limit_bytes,
                resident_bytes: status.resident_bytes,
                classes: status.memory.into_iter().map(class).collect(),
            },
            pressure: status
                .pressure
                .into_iter()
                .map(|(signal, level)| Pressure { signal, level })
                .collect(),
            groups: status.groups.into_iter().map(Group::from).collect(),
            version: status.version,
            dev: status.dev,
            scopes: status.scopes,
            streams: status.streams,
        }
    }
}

impl From<client::LtsStatus> for Lts {
    fn from(lts: client::LtsStatus) -> Self {
        Self {
            url: lts.url,
            ready: lts.ready,
            breaker: lts.breaker,
            down_seconds: lts.down_for.as_secs_f64(),
            last_error: lts.last_error,
        }
    }
}

impl From<GroupStatus> for Group {
    fn from(group: GroupStatus) -> Self {
        Self {
            group: group.group,
            serving: group.serving,
            log_bytes: group.log_bytes,
            untiered_bytes: group.untiered_bytes,
            untiered_age_seconds: group.untiered_age.as_ref().map(Duration::as_secs_f64),
            quarantined: group.quarantined,
            checkpoint_waits: group.checkpoint_waits,
            tiering_failure: group.tiering_failure,
            lost_entries: group.lost_entries,
        }
    }
}
