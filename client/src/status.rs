//! How a server is doing, for people who run it.

use std::time::Duration;

use common::{Rng, SystemClock};
use proto::v1;

use crate::client::Client;
use crate::config::ClientConfig;
use crate::error::Result;

/// How a server is doing. Of the whole process unless said otherwise.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ServerStatus {
    /// The version of the server's build.
    pub version: String,
    /// Whether it was started by `braid dev`.
    pub dev: bool,
    /// Since the process began.
    pub uptime: Duration,
    /// `None` while the cluster's metadata is not served.
    pub scopes: Option<u64>,
    /// As `scopes`.
    pub streams: Option<u64>,
    /// Averages over the last few seconds.
    pub rates: Rates,
    /// Bytes of the write-ahead log in use.
    pub log_used_bytes: u64,
    /// Bytes that the write-ahead log may use.
    pub log_budget_bytes: u64,
    /// `None` on a server without long-term storage.
    pub lts: Option<LtsStatus>,
    /// Every Raft group of the server; 1 is the controller's.
    pub groups: Vec<GroupStatus>,
    /// What the classes of memory are shares of.
    pub memory_limit_bytes: u64,
    /// Memory by who uses it.
    pub memory: Vec<MemoryStatus>,
    /// Resident memory of the process.
    pub resident_bytes: u64,
    /// What slows appends down, and how much, from 0 to 1; the largest counts.
    pub pressure: Vec<(String, f64)>,
}

/// How fast a server appends and reads.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Over how long they are averages; zero: nothing is known yet.
    pub window: Duration,
    pub append_events_per_second: f64,
    pub append_bytes_per_second: f64,
    /// The server does not look into what it sends, so that there is no rate of events.
    pub read_bytes_per_second: f64,
}

/// Long-term storage of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LtsStatus {
    pub url: String,
    /// Known to be the cluster's since the process began; nothing is put there before.
    pub ready: bool,
    /// Of the circuit breaker: `closed` while it answers, else `open` or `half_open`.
    pub breaker: String,
    /// How long it has not answered.
    pub down_for: Duration,
    /// What the last failure said, while there are any.
    pub last_error: Option<String>,
}

/// A Raft group of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    pub group: u64,
    pub serving: bool,
    /// Bytes of its entries in the log.
    pub log_bytes: u64,
    /// What is only in the log; `None` where it is not known.
    pub untiered_bytes: Option<u64>,
    /// Of the oldest byte that is only in the log.
    pub untiered_age: Option<Duration>,
    /// Why it stopped, where it did.
    pub quarantined: Option<String>,
    /// Whether a checkpoint waits for space on the disk.
    pub checkpoint_waits: bool,
    /// Why tiering could not go on last, while it cannot.
    pub tiering_failure: Option<String>,
    /// Entries of the log that a repair gave up before they were archived: reads of the events in
    /// them fail.
    pub lost_entries: u64,
}

/// A class of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryStatus {
    pub class: String,
    pub limit_bytes: u64,
    /// `None` where it is not counted.
    pub used_bytes: Option<u64>,
}

/// Asks the server at the configured endpoint how it is doing. It also answers while the cluster is
/// not served, when a [`Client`] does not connect.
pub async fn server_status(config: ClientConfig) -> Result<ServerStatus> {
    let client = Client::unconnected(config, Rng::from_entropy(), SystemClock::shared());
    let status = client.inner.server_status().await;
    client.close().await;
    status.map(ServerStatus::from)
}

/// Asks the server at the configured endpoint to look at once for compactions, and for objects that
/// can be deleted, in long-term storage. How many of its groups do; 0 where there is no such storage.
pub async fn look_after_storage(config: ClientConfig) -> Result<u32> {
    let client = Client::unconnected(config, Rng::from_entropy(), SystemClock::shared());
    let answer = client.inner.look_after_storage().await;
    client.close().await;
    answer.map(|answer| answer.groups)
}

fn text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl From<v1::GetStatusResponse> for ServerStatus {
    fn from(status: v1::GetStatusResponse) -> Self {
        Self {
            version: status.version,
            dev: status.dev,
            uptime: Duration::from_micros(status.uptime_micros),
            scopes: status.scopes,
            streams: status.streams,
            rates: status.rates.map(Rates::from).unwrap_or_default(),
            log_used_bytes: status.log_used_bytes,
            log_budget_bytes: status.log_budget_bytes,
            lts: status.lts.map(LtsStatus::from),
            groups: status.groups.into_iter().map(GroupStatus::from).collect(),
            memory_limit_bytes: status.memory_limit_bytes,
            memory: status.memory.into_iter().map(MemoryStatus::from).collect(),
            resident_bytes: status.resident_bytes,
            pressure: status.pressure.into_iter().map(|of| (of.signal, of.level)).collect(),
        }
    }
}

impl From<v1::RateStatus> for Rates {
    fn from(rates: v1::RateStatus) -> Self {
        Self {
            window: Duration::from_micros(rates.window_micros),
            append_events_per_second: rates.append_events_per_second,
            append_bytes_per_second: rates.append_bytes_per_second,
            read_bytes_per_second: rates.read_bytes_per_second,
        }
    }
}

impl From<v1::LtsStatus> for LtsStatus {
    fn from(lts: v1::LtsStatus) -> Self {
        Self {
            url: lts.url,
            ready: lts.ready,
            breaker: lts.breaker,
            down_for: Duration::from_micros(lts.down_micros),
            last_error: text(lts.last_error),
        }
    }
}

impl From<v1::GroupStatus> for GroupStatus {
    fn from(group: v1::GroupStatus) -> Self {
        Self {
            group: group.group,
            serving: group.serving,
            log_bytes: group.log_bytes,
            untiered_bytes: group.untiered_bytes,
            untiered_age: group.untiered_age_micros.map(Duration::from_micros),
            quarantined: text(group.quarantined),
            checkpoint_waits: group.checkpoint_waits,
            tiering_failure: text(group.tiering_failure),
            lost_entries: group.lost_entries,
        }
    }
}

impl From<v1::MemoryStatus> for MemoryStatus {
    fn from(memory: v1::MemoryStatus) -> Self {
        Self { class: memory.class, limit_bytes: memory.limit_bytes, used_bytes: memory.used_bytes }
    }
}
