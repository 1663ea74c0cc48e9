//! The knobs of tiering.

use std::time::Duration;

use common::ByteSize;
use wal::LogSettings;

use crate::archive::{CheckpointSettings, RoundSettings};

/// When a group's log is archived and its state copied, and how long what nobody needs is kept.
#[derive(Debug, Clone)]
pub struct TieringSettings {
    /// Bytes that are not archived that begin a round.
    pub round_bytes: ByteSize,
    /// Age of bytes that are not archived that begins a round, however few they are.
    pub round_age: Duration,
    /// Bytes of log that one round takes at most: they are in memory until they are stored.
    pub round_bytes_max: ByteSize,
    /// Jobs of a node side by side, at least one and at most four.
    pub jobs: usize,
    /// Bytes of applied entries that a group keeps in memory until a round takes them, so that they
    /// are not read back from the log.
    pub kept_bytes: ByteSize,
    pub round: RoundSettings,
    /// Bytes of log after which the state is copied.
    pub checkpoint_bytes: ByteSize,
    /// Time after which changed state is copied although little was written.
    pub checkpoint_interval: Duration,
    /// The shortest time between two copies.
    pub checkpoint_pause: Duration,
    /// How long a checkpoint is kept once a newer one counts.
    pub checkpoint_keep: Duration,
    pub checkpoint: CheckpointSettings,
    /// Bytes that one compaction copies at most; with its reads under way it has at most twice as
    /// many in memory.
    pub compaction_bytes_max: ByteSize,
    /// Time from the moment nobody refers to an object to its deletion: readers that have just been
    /// told of it get to its end.
    pub grace: Duration,
    /// How often objects are looked for that nobody ever referred to.
    pub sweep_interval: Duration,
    /// How often it is asked whether a compaction is worth it.
    pub compaction_interval: Duration,
}

/// Bytes of log that a round costs: a block for its entry, and one for what goes with it.
const ROUND_COST_BYTES: u64 = 2 * 4_096;

/// Files of log that the entries of rounds may need until the oldest one comes back.
const FILES_OF_ROUNDS: u64 = 4;

impl TieringSettings {
    /// What a round must take at least, as soon as there is so much. A full log is emptied by rounds
    /// whose own entries go into the files that are kept for what makes space, and those come back
    /// only when the oldest file goes: all that a log can hold must be archived within them. Rounds
    /// of a block or two would even cost more than they bring.
    pub fn round_bytes_least(log: &LogSettings) -> ByteSize {
        let kept = FILES_OF_ROUNDS * log.file_size.bytes().max(1);
        let parts = u128::from(log.budget.bytes()) * u128::from(ROUND_COST_BYTES);
        ByteSize(u64::try_from(parts.div_ceil(u128::from(kept))).unwrap_or(u64::MAX))
    }
}

impl Default for TieringSettings {
    fn default() -> Self {
        Self {
            round_bytes: ByteSize::mib(16),
            round_age: Duration::from_secs(10),
            round_bytes_max: ByteSize::mib(32),
            jobs: 4,
            kept_bytes: ByteSize::mib(8),
            round: RoundSettings::default(),
            checkpoint_bytes: ByteSize::gib(1),
            checkpoint_interval: Duration::from_mins(10),
            checkpoint_pause: Duration::from_mins(1),
            checkpoint_keep: Duration::from_hours(1),
            checkpoint: CheckpointSettings::default(),
            compaction_bytes_max: ByteSize::mib(32),
            grace: Duration::from_mins(10),
            sweep_interval: Duration::from_hours(1),
            compaction_interval: Duration::from_secs(10),
        }
    }
}
