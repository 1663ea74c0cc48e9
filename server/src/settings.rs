//! What a person can set, with defaults, units and reasons.
//!
//! Settings are data: defaults, then the file, then the environment, then flags, each layer over
//! the one before it ([`layers`]). Durations and sizes are text (`"10s"`, `"64MiB"`). Libraries
//! below never read files or the environment; they get values from here.
//!
//! There are few knobs on purpose: what has one right value is a constant with its reason.

mod auto;
mod layers;
mod rules;
mod storage;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

pub use common::Period;
use common::size::ByteSize;
use serde::{Deserialize, Serialize};

pub use auto::Auto;
pub use layers::{ENVIRONMENT_PREFIX, Entry, Origin, Resolved, SettingsError, Sources, resolve};
pub(crate) use rules::{CONTAINERS_MAX, MEMORY_MIN, round_bytes_least};
pub use storage::{Lts, LtsUrl, Memory, Tiering};

/// All settings of a server process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub server: Server,
    pub data: Data,
    pub log: Log,
    pub lts: Lts,
    pub tiering: Tiering,
    pub containers: Containers,
    pub memory: Memory,
    pub cache: Cache,
    pub checkpoint: Checkpoint,
    pub limits: Limits,
    pub tracing: Tracing,
}

/// Where the process is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Address and port of the one listener for gRPC and HTTP. Port 0 takes a free one, which
    /// tests use.
    pub listen: SocketAddr,
    /// Allows listening beyond loopback without encryption and authentication. There is no TLS
    /// yet, so that whoever reaches the port reads and deletes everything.
    pub insecure: bool,
    /// Threads that serve connections, each with its own event loop; 0: one on one or two cores,
    /// else a quarter of the cores. The worker, the log and the checkpoints have their own.
    pub net_threads: u16,
    /// Time that requests under way get to end at a stop. Acknowledged events are durable
    /// whatever happens here.
    pub drain: Period,
}

/// Where durable data rests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The data folder: log and checkpointed state. One process at a time.
    pub dir: PathBuf,
    /// Allows a folder on a file system that keeps nothing across a power cut or a restart
    /// (tmpfs, overlay) or whose syncs cannot be trusted (NFS, FUSE).
    pub allow_volatile: bool,
}

/// The write-ahead log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Bytes of log files at most. From 70 % on appends are slowed down, from 90 % on refused,
    /// until long-term storage has taken over what is there; without it this is the capacity of
    /// the store, and nothing is slowed down.
    pub budget: ByteSize,
    /// Bytes of one log file, made ahead of time: larger files roll less often, smaller ones
    /// free space in smaller steps.
    pub file_size: ByteSize,
}

/// Segment containers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Containers {
    /// Containers of this node. May be raised later (segments created from then on use the new
    /// ones), never lowered: a container that holds data must be served.
    pub count: u16,
}

/// Memory for reading. `auto`: the share of `memory.limit`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Bytes of the newest events kept in memory for readers at the tail, over all segments.
    pub tail: Auto<ByteSize>,
    /// Bytes of log entries kept in memory for readers that catch up.
    pub read: Auto<ByteSize>,
    /// Bytes of blocks of objects in long-term storage kept in memory for readers that catch up.
    pub objects: Auto<ByteSize>,
    /// Bytes that all readers that catch up together are reading from long-term storage and have
    /// read ahead.
    pub objects_ahead: Auto<ByteSize>,
}

/// When a group's state goes from memory to RocksDB, which bounds the replay at a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Bytes of log after which the state is checkpointed.
    pub log_bytes: ByteSize,
    /// Time after which changed state is checkpointed although little was written.
    pub interval: Period,
}

/// What one client, and all of them together, may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Connections at a time; further ones are closed at once.
    pub connections: u32,
    /// Connections at a time from one address, so that one host cannot take them all.
    pub connections_per_address: u32,
    /// Time in which a new connection must say what it speaks; silent ones are closed.
    pub first_bytes: Period,
    /// Age at which a connection is asked to end, give or take a tenth; clients connect again and
    /// lose nothing. `0s` lets connections become as old as they want.
    pub connection_age: Period,
    /// Requests at a time on one connection. A reader has one per segment that it follows.
    pub requests_per_connection: u32,
    /// Append streams at a time on one connection. A client needs one for all its writers.
    pub append_streams_per_connection: u32,
    /// Sessions of writers on segments that one connection opens in its life: none of their numbers
    /// is used twice, so that each is remembered until the connection ends.
    pub sessions_per_connection: u32,
    /// Questions to segments (their bounds, what they know of a writer, offsets of a time) under way
    /// at a time, over all connections.
    pub queries: u32,
    /// Bytes of appends admitted and not yet durable, over all connections; beyond it the server
    /// stops reading from the connections that append. `auto`: the share of `memory.limit`.
    pub append_bytes: Auto<ByteSize>,
}

/// What the process says about itself on standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// Which messages: a level, or `target=level` pairs separated by commas.
    pub filter: String,
    /// How they look.
    pub format: TracingFormat,
}

/// How messages look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TracingFormat {
    Text,
    Json,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7070),
            insecure: false,
            net_threads: 0,
            drain: Period::seconds(5),
        }
    }
}

impl Default for Data {
    fn default() -> Self {
        Self { dir: PathBuf::from("braid-data"), allow_volatile: false }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { budget: ByteSize::gib(8), file_size: ByteSize::mib(64) }
    }
}

impl Default for Containers {
    fn default() -> Self {
        Self { count: 4 }
    }
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { log_bytes: ByteSize::mib(256), interval: Period::seconds(60) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            connections_per_address: 1_024,
            first_bytes: Period::seconds(5),
            connection_age: Period::seconds(3_600),
            requests_per_connection: 8_192,
            append_streams_per_connection: 16,
            sessions_per_connection: 262_144,
            queries: 1_024,
            append_bytes: Auto(None),
        }
    }
}

impl Default for Tracing {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: TracingFormat::Text }
    }
}

impl Settings {
    fn check(&self) -> Result<(), SettingsError> {
        rules::check(self)
    }

    /// Where long-term storage is; `None` for a node without.
    pub fn lts_url(&self) -> Option<lts::StoreUrl> {
        self.lts.url.resolve(&self.data.dir)
    }

    /// How long-term storage is spoken to. What is in the data folder is as volatile as that.
    pub fn lts_store(&self) -> lts::Settings {
        let in_data = self.lts.url == LtsUrl::InData && self.data.allow_volatile;
        let store = self.lts.store.clone();
        lts::Settings { allow_volatile: store.allow_volatile || in_data, ..store }
    }

    /// Threads that serve connections, with 0 resolved for a machine of `cores`.
    pub fn net_threads(&self, cores: usize) -> usize {
        match self.server.net_threads {
            0 => (cores / 4).max(1),
            threads => usize::from(threads),
        }
    }
}
