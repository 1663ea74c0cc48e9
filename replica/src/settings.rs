//! The knobs of a [`crate::Host`].

use std::time::Duration;

use common::ByteSize;
use wal::LogSettings;

use crate::host::Patience;

/// How a node runs its groups.
#[derive(Debug, Clone)]
pub struct HostSettings {
    /// Bytes of proposals per group that were taken but not yet applied. Beyond them proposals
    /// are refused: it bounds both memory and the time a refused client waits.
    pub queue_bytes_max: ByteSize,
    /// Questions per group that were taken and are not answered. Beyond them more are refused.
    pub queries_max: usize,
    /// How long proposals that are in no log yet, and questions, wait while their group does not
    /// move on, until they are refused.
    pub wait_max: Duration,
    /// What a refused proposer is told to wait.
    pub retry_after: Duration,
    /// Bytes of a group's log after which its state is saved locally: bounds replay at start.
    pub checkpoint_log_bytes: ByteSize,
    /// The longest time a change stays unsaved while the group goes on working.
    pub checkpoint_interval: Duration,
    /// One beat of Raft's logical clock. Groups with one voter need none.
    pub tick: Duration,
    /// Beats without a leader before a replica campaigns; drawn between this and twice this.
    pub election_ticks: usize,
    pub heartbeat_ticks: usize,
    /// Blocks up to this size are written by the worker itself: saves two thread switches.
    pub inline_write_max: ByteSize,
    /// Parts of a thousand of the log's budget at which proposals of clients are refused.
    pub log_full_permille: u64,
    /// Bytes of applied or not yet applied entries a group keeps in memory for followers.
    pub recent_bytes_max: ByteSize,
    /// How long to wait for what may never come.
    pub patience: Patience,
    /// The write-ahead log that all groups share.
    pub log: LogSettings,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self {
            queue_bytes_max: ByteSize::mib(32),
            queries_max: 10_000,
            wait_max: Duration::from_secs(10),
            retry_after: Duration::from_millis(20),
            checkpoint_log_bytes: ByteSize::mib(256),
            checkpoint_interval: Duration::from_secs(60),
            tick: Duration::from_millis(100),
            election_ticks: 10,
            heartbeat_ticks: 3,
            inline_write_max: ByteSize::kib(32),
            log_full_permille: 900,
            recent_bytes_max: ByteSize::mib(8),
            patience: Patience::default(),
            log: LogSettings::default(),
        }
    }
}
