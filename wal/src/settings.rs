//! Settings of the log.

use std::time::Duration;

use common::{ByteSize, limits};

use crate::OpenError;

/// What to do about damaged acknowledged data at open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DamagePolicy {
    /// Do not open, name what is damaged: the only copy is here.
    #[default]
    Refuse,
    /// Open; the groups hit are marked, their peers must be replaced.
    Quarantine,
    /// Open; the groups hit lose everything from the hole on, for good.
    AcceptLoss,
}

/// Settings of one log directory.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Bytes that all files of the directory may take together, those made ahead included.
    pub budget: ByteSize,
    /// Bytes of one file. Larger files are recycled less often and hold more hostage.
    pub file_size: ByteSize,
    /// Files made ahead of their use, apart from the two that are reserved.
    pub files_ahead: usize,
    /// Bytes at which a block is closed while another is being written; one entry may exceed it.
    pub block_size: ByteSize,
    /// Percent of the budget beyond which a single group is refused; 100 turns the rule off. It
    /// holds only while the log has more than one group.
    pub group_share_percent: u8,
    /// An idle log writes its sealing block this long after the last block.
    #[serde(with = "duration_text")]
    pub seal_after: Duration,
    /// Allows a file system that keeps nothing through a power cut (tmpfs, overlay, NFS, FUSE).
    pub allow_volatile: bool,
    /// What to do about damage; not a setting of a file, the role of the node decides.
    #[serde(skip)]
    pub damage: DamagePolicy,
    /// The store the directory must belong to, when the caller knows it.
    #[serde(skip)]
    pub store_id: Option<u128>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            budget: ByteSize::gib(16),
            file_size: ByteSize::mib(64),
            files_ahead: 4,
            block_size: ByteSize(limits::LOG_BLOCK_BYTES_MAX as u64),
            group_share_percent: 25,
            seal_after: Duration::from_millis(100),
            allow_volatile: false,
            damage: DamagePolicy::default(),
            store_id: None,
        }
    }
}

/// Files kept for hard states, truncation and checkpoints when everything else is full.
pub(crate) const RESERVED_FILES: usize = 2;

impl LogSettings {
    /// Files the budget pays for.
    pub fn files_max(&self) -> usize {
        (self.budget.bytes() / self.file_size.bytes().max(1)) as usize
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let setting = |name, value: String, expected: &str| {
            Err(OpenError::Setting { name, value, expected: expected.to_owned() })
        };
        let (file, sector) = (self.file_size.bytes(), crate::SECTOR_BYTES as u64);
        if file % sector != 0 || !(8 * sector..=1 << 30).contains(&file) {
            return setting(
                "file_size",
                self.file_size.to_string(),
                "write a multiple of 4KiB from 32KiB to 1GiB",
            );
        }
        if self.block_size.bytes() < sector || self.block_size.bytes() > file {
            return setting(
                "block_size",
                self.block_size.to_string(),
                "write a size from 4KiB to `log.file_size`",
            );
        }
        if self.files_max() < RESERVED_FILES + 2 {
            return setting(
                "budget",
                self.budget.to_string(),
                "write at least four times `log.file_size`",
            );
        }
        if !(1..=100).contains(&self.group_share_percent) {
            return setting(
                "group_share_percent",
                self.group_share_percent.to_string(),
                "write a whole number from 1 to 100",
            );
        }
        Ok(())
    }
}

/// Durations as whole milliseconds with their unit: `"100ms"`.
mod duration_text {
    use std::time::Duration;

    use serde::Deserialize;

    pub(super) fn serialize<S: serde::Serializer>(
        value: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}ms", value.as_millis()))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (number, unit) = match text.strip_suffix("ms") {
            Some(number) => (number, 1),
            None => (text.strip_suffix('s').unwrap_or(""), 1_000),
        };
        let number: u64 = number.trim().parse().map_err(|_| {
            serde::de::Error::custom(format!(
                "`{text}` is not a duration; write for example `100ms` or `2s`"
            ))
        })?;
        Ok(Duration::from_millis(number * unit))
    }
}
