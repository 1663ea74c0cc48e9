//! Settings of what leaves the log: where long-term storage is, when bytes go there, and the
//! memory that all of it shares.

use std::path::{Path, PathBuf};

use common::{ByteSize, Period};
use lts::StoreUrl;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Auto;

/// The folder of the data folder that long-term storage is in unless told otherwise.
const FOLDER: &str = "lts";

/// Age at which bytes are tiered to a folder, where a round costs little.
const AGE_OF_FOLDER: Period = Period::seconds(10);

/// Age at which bytes are tiered to a remote store, where each request is paid for.
const AGE_OF_REMOTE: Period = Period::seconds(300);

/// Long-term storage: where it is, and how it is spoken to. The names of the latter are those of
/// [`lts::Settings`]. Unknown keys are refused where layers are read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lts {
    /// Where it is. A cluster has one for ever; another one's is refused.
    pub url: LtsUrl,
    #[serde(flatten)]
    pub store: lts::Settings,
}

/// Where long-term storage is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LtsUrl {
    /// In the data folder. Empty text.
    #[default]
    InData,
    /// Nowhere: the log is the capacity. `none`.
    Nowhere,
    /// There.
    At(StoreUrl),
}

impl LtsUrl {
    /// The bucket's URL for a node with its data in `data`.
    pub(crate) fn resolve(&self, data: &Path) -> Option<StoreUrl> {
        match self {
            Self::InData => Some(StoreUrl::Folder(absolute(&data.join(FOLDER)))),
            Self::Nowhere => None,
            Self::At(url) => Some(url.clone()),
        }
    }
}

/// Without the working folder there is nothing better than the path as it was given.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl Serialize for LtsUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::InData => serializer.serialize_str(""),
            Self::Nowhere => serializer.serialize_str("none"),
            Self::At(url) => url.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for LtsUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "" => Ok(Self::InData),
            "none" => Ok(Self::Nowhere),
            url => url.parse().map(Self::At).map_err(|error| {
                let without = "or `none` for a node without it";
                serde::de::Error::custom(format!("{error}; {without}"))
            }),
        }
    }
}

/// When bytes of the log go to long-term storage, and what is kept there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tiering {
    /// Bytes of a group that are not tiered and start a round.
    pub round_bytes: ByteSize,
    /// Age of the oldest byte not tiered that starts a round, however few there are: what a lost
    /// machine costs at most while storage keeps up. `auto`: 10 s for folders, 5 min for remote
    /// stores, where requests cost money.
    pub age: Auto<Period>,
    /// Bytes of one object that a round writes.
    pub object_bytes: ByteSize,
    /// Bytes of a group's log after which its state is checkpointed to long-term storage: bounds
    /// what a recovery replays.
    pub checkpoint_bytes: ByteSize,
    /// Time after which changed state is checkpointed there although little was written.
    pub checkpoint_interval: Period,
    /// Time for which checkpoints are kept; the newest one always is.
    pub checkpoint_keep: Period,
    /// Time from dropping an object to its deletion, in which readers that know it end.
    pub grace: Period,
}

impl Default for Tiering {
    fn default() -> Self {
        Self {
            round_bytes: ByteSize::mib(16),
            age: Auto(None),
            object_bytes: ByteSize::mib(32),
            checkpoint_bytes: ByteSize::gib(1),
            checkpoint_interval: Period::seconds(600),
            checkpoint_keep: Period::seconds(3_600),
            grace: Period::seconds(600),
        }
    }
}

impl Tiering {
    /// The age that starts a round towards this store.
    pub fn age_for(&self, url: &StoreUrl) -> Period {
        self.age.0.unwrap_or(match url {
            StoreUrl::Folder(_) | StoreUrl::Memory => AGE_OF_FOLDER,
            StoreUrl::Remote(_) => AGE_OF_REMOTE,
        })
    }
}

/// Memory of the process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// What everything that is counted must fit into; it is split among its users
    /// (`MemoryPlan`). `auto`: half of what the machine or its cgroup has, from 256 MiB to 2 GiB.
    pub limit: Auto<ByteSize>,
}
