//! Errors: each says what the caller may assume and do.

use std::fmt;
use std::io;

use common::{GroupId, LogIndex, Term};

/// Acknowledged data that cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub file: String,
    pub offset: u64,
    /// The first byte behind the damaged region, or the end of the file.
    pub end: u64,
    pub reason: String,
    /// The groups whose records are missing or cannot be proven complete.
    pub groups: Vec<GroupId>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<String> = self.groups.iter().map(ToString::to_string).collect();
        let groups = if groups.is_empty() { "none".to_owned() } else { groups.join(", ") };
        write!(
            f,
            "`{}` at offset {}..{}: {}; groups hit: {groups}",
            self.file, self.offset, self.end, self.reason
        )
    }
}

fn list(damage: &[Damage]) -> String {
    damage.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Why the log did not open. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{operation} in the log directory")]
    Io {
        operation: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("setting `log.{name}` is `{value}`: {expected}")]
    Setting { name: &'static str, value: String, expected: String },
    #[error(
        "log file `{file}` has format version {found}, this program reads {supported}; start the \
         version that wrote it, or a newer one"
    )]
    Version { file: String, found: u32, supported: u32 },
    #[error(
        "log file `{file}` has {what} at offset {offset} that is whole and that this program does not \
         know; start the version that wrote it, or a newer one"
    )]
    Unknown { file: String, offset: u64, what: &'static str },
    #[error(
        "log file `{file}` belongs to store `{found:032x}`, not to `{expected:032x}`; put the \
         right disk back, or start with an empty directory as a new store"
    )]
    ForeignStore { file: String, found: u128, expected: u128 },
    #[error(
        "the directory belongs to store `{store_id:032x}` but its log files are gone; put them \
         back, or start with an empty directory as a new store"
    )]
    Missing { store_id: u128 },
    #[error(
        "acknowledged data is damaged: {}; restore the file, or inspect it with `braid wal \
         inspect` and give up what is lost with `braid wal repair --accept-loss`",
        list(.damage)
    )]
    Damaged { damage: Vec<Damage> },
    #[error(
        "the saved state of group {group} at entry {index} is of term {saved}, its log has term \
         {logged} there: they do not belong together, and nothing was repaired; restore both from \
         one backup"
    )]
    Unrelated { group: GroupId, index: LogIndex, saved: Term, logged: Term },
}

/// Why the log is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullReason {
    /// All of `log.budget` is in use.
    Budget,
    /// This group alone holds more than its share of the budget.
    GroupShare,
    /// The disk has no space for another file.
    Disk,
    /// The next file is still being made: try again within milliseconds.
    Preparing,
}

impl fmt::Display for FullReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Budget => "`log.budget` is in use",
            Self::GroupShare => "the group holds its whole share of `log.budget`",
            Self::Disk => "the disk has no space for another file",
            Self::Preparing => "the next file is still being made",
        })
    }
}

/// Why a batch was not appended. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("the log is full: {0}; try again after truncation")]
    Full(FullReason),
    #[error("a record of {bytes} bytes exceeds the log's limit of {limit}; make it smaller")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the group {group} is quarantined: {reason}; replace its peer")]
    Quarantined { group: GroupId, reason: String },
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The log has stopped for ever; only a restart of the process recovers what is durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the log has stopped: {reason}; restart the process to recover")]
pub struct Stopped {
    pub reason: String,
}

/// Why entries were not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("index {index} is truncated; the log begins at {first}")]
    Truncated { index: LogIndex, first: LogIndex },
    #[error("index {index} is beyond the last one, {last}")]
    BeyondEnd { index: LogIndex, last: LogIndex },
    #[error("log entry {index} of group {group} was lost: a repair of the log gave it up")]
    Lost { group: GroupId, index: LogIndex },
    #[error("the log knows no group {0}")]
    UnknownGroup(GroupId),
    #[error("log entry {index} of group {group} is damaged: {damage}; replace the peer")]
    Damaged { group: GroupId, index: LogIndex, damage: Damage },
    #[error("read log file `{file}`")]
    Io {
        file: String,
        #[source]
        source: io::Error,
    },
}

impl ReadError {
    /// Whether the medium does not give back what was acknowledged: trying again helps nobody. What a
    /// repair gave up is none, for somebody knows of it.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Io { source, .. } => is_unreadable(source),
            Self::Truncated { .. }
            | Self::BeyondEnd { .. }
            | Self::Lost { .. }
            | Self::UnknownGroup(_) => false,
        }
    }
}

/// Whether the medium, not the machine, is at fault.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO) || error.kind() == io::ErrorKind::InvalidData
}
