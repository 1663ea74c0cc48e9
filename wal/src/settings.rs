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
    /// Bytes of the largest entry: no limit of its own, but every file must hold one. Not a setting
    /// of a file, it follows from the limits of the product.
    #[serde(skip, default = "entry_max")]
    pub entry_max: ByteSize,
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
            entry_max: entry_max(),
            seal_after: Duration::from_millis(100),
            allow_volatile: false,
            damage: DamagePolicy::default(),
            store_id: None,
        }
    }
}

fn entry_max() -> ByteSize {
    ByteSize(limits::ENTRY_BYTES_MAX as u64)
}

/// Bytes of one file at most: offsets in it fit 32 bits.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Files kept for hard states, truncation and rounds when everything else is full: the last one for
/// what makes room in the log at once, the other for what archives it.
pub(crate) const RESERVED_FILES: usize = 2;

/// Files that clients leave to operations that free space, beside those: at most this many, and in
/// a small log an eighth of it.
const FILES_KEPT: usize = 4;

impl LogSettings {
    /// Bytes that one group may hold while others hold some, too; at least 1.
    pub(crate) fn group_share(&self) -> u64 {
        (self.budget.bytes() / 100 * u64::from(self.group_share_percent)).max(1)
    }

    /// Files that clients leave to everything else.
    pub fn files_kept(&self) -> usize {
        RESERVED_FILES + FILES_KEPT.min(self.files_max() / 8)
    }

    /// Files the budget pays for.
    pub fn files_max(&self) -> usize {
        (self.budget.bytes() / self.file_size.bytes().max(1)) as usize
    }

    /// The smallest file that holds the largest entry between the file's header and a sealing block,
    /// with a third of the entry's bytes for the table before it.
    fn file_size_min(&self) -> u64 {
        let sector = crate::SECTOR_BYTES as u64;
        (2 * sector + (self.entry_max.bytes() * 4).div_ceil(3).next_multiple_of(sector))
            .max(8 * sector)
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let setting = |name, value: String, expected: &str| {
            Err(OpenError::Setting { name, value, expected: expected.to_owned() })
        };
        let (file, sector) = (self.file_size.bytes(), crate::SECTOR_BYTES as u64);
        let least = self.file_size_min();
        if file % sector != 0 || !(least..=FILE_BYTES_MAX).contains(&file) {
            let least = ByteSize(least);
            return setting(
                "file_size",
                self.file_size.to_string(),
                &format!("write a multiple of 4KiB from {least} to 1GiB"),
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
