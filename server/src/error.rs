//! Why a server does not start or go on, in words for the person who runs it.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::settings::SettingsError;

/// What the person who runs the server should do about an error. The command line maps each to
/// an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Change a setting or a flag.
    Usage,
    /// What was named is not there.
    NotFound,
    /// Something else holds what is needed: end it, or use another port or folder.
    Conflict,
    /// The operating system does not allow it.
    Denied,
    /// Stored data is damaged, missing or of another version; nothing was changed.
    Data,
    /// Something that is needed does not answer: try again.
    Unavailable,
    /// Anything else: the message says what failed.
    Failure,
}

/// Why a server does not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(
        "port {} of {} is in use by another process; stop that one, or choose another with `--listen`",
        address.port(), address.ip()
    )]
    PortInUse { address: SocketAddr },
    #[error("listen on `{address}`: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(
        "data folder `{}` is in use by another process{}; stop that one, or choose another folder with `--data`",
        dir.display(), holder.map(|pid| format!(" ({pid})")).unwrap_or_default()
    )]
    DataInUse { dir: PathBuf, holder: Option<u32> },
    #[error(
        "data folder `{}` has format version {found}, and this build reads version {known}; use the build that wrote it{}",
        dir.display(), created_by.as_ref().map(|by| format!(" ({by})")).unwrap_or_default()
    )]
    DataVersion { dir: PathBuf, found: u32, known: u32, created_by: Option<String> },
    #[error(
        "data folder `{}` has a file `STORE` that does not read as one ({reason}); it was not written by braid or is damaged, restore it from a copy",
        dir.display()
    )]
    DataIdentity { dir: PathBuf, reason: String },
    #[error(
        "folder `{}` is not empty and has no `STORE` file, so it is no data folder of braid; choose another with `--data`",
        dir.display()
    )]
    DataForeign { dir: PathBuf },
    #[error(
        "folder `{}` holds data, and a recovery writes to an empty one only; name another with `--data`",
        dir.display()
    )]
    DataHolds { dir: PathBuf },
    #[error(
        "a recovery into folder `{}` did not end; run `braid recover` again with the same folder, it begins anew",
        dir.display()
    )]
    RecoveryUnfinished { dir: PathBuf },
    #[error("bring the cluster back from `{url}`: {message}")]
    Recovery { url: lts::StoreUrl, message: String },
    #[error(
        "the cluster at `{url}` cannot be brought back as far as it was archived, and nothing was changed:\n{}\nrestore these objects from a copy of the bucket, or give up what is lost with `--accept-loss`",
        crate::recover::told(losses)
    )]
    RecoveryLoses { url: lts::StoreUrl, losses: Vec<crate::recover::GroupLoss> },
    #[error(
        "data folder `{}` is on `{file_system}`, which does not keep data across a power cut; choose another folder, or accept the loss with `--allow-volatile`",
        dir.display()
    )]
    DataVolatile { dir: PathBuf, file_system: &'static str },
    #[error(
        "`containers.count` is {count}, but the data folder has {needed} containers, and each that holds data must be served; set it to {needed} or more"
    )]
    ContainersLowered { count: u16, needed: u64 },
    #[error("data folder `{}`: {action}: {source}", dir.display())]
    DataAccess { dir: PathBuf, action: &'static str, source: std::io::Error },
    #[error(
        "the disk of data folder `{}` is full ({message}); nothing acknowledged is lost: make space and start again",
        dir.display()
    )]
    DiskFull { dir: PathBuf, message: String },
    #[error(
        "data folder `{}` has a part of its data in long-term storage, and `lts.url` is `none`; name the storage that it was made with",
        dir.display()
    )]
    StorageNeeded { dir: PathBuf },
    #[error(
        "the log of data folder `{}` is gone: `{}` has no log files. What was not tiered is lost; the state beside it is of no use without it and was not touched. Bring back what long-term storage has with `braid recover --from-lts {url} --data NEWDIR`",
        dir.display(), dir.join("wal").display()
    )]
    LogGone { dir: PathBuf, url: lts::StoreUrl },
    #[error("there is no long-term storage to look at: `lts.url` is `none`")]
    NoStorage,
    #[error(
        "there is no cluster's bucket at `{url}`; check the URL, or name the data folder with `--data`"
    )]
    NoBucket { url: lts::StoreUrl },
    #[error(
        "the bucket `{url}` is of its cluster's first life: there is nothing of an earlier one to adopt"
    )]
    NothingToAdopt { url: lts::StoreUrl },
    #[error(
        "what is younger than {} minutes may belong to a put that is under way: to remove anything, `--grace` has to be that or more",
        least.as_secs() / 60
    )]
    GraceShort { least: std::time::Duration },
    #[error(transparent)]
    Look(replica::StorageFailure),
    #[error(transparent)]
    StorageOpen(#[from] lts::OpenError),
    #[error(transparent)]
    StorageRefused(#[from] lts::Refused),
    #[error(transparent)]
    Storage(#[from] lts::Error),
    #[error("start the `{component}`: {message}")]
    Start { component: &'static str, message: String, data_damaged: bool },
    #[error("the node stopped by itself: {message}")]
    Fatal { message: String },
    #[error(
        "stopped before the state was saved, as was asked for; nothing acknowledged is lost, the next start replays more of the log"
    )]
    Interrupted,
}

impl From<replica::StorageFailure> for ServerError {
    fn from(failure: replica::StorageFailure) -> Self {
        match failure {
            replica::StorageFailure::Bucket(error) => Self::Storage(error),
            replica::StorageFailure::NotOurs(refused) => Self::StorageRefused(refused),
            other => Self::Look(other),
        }
    }
}

impl ServerError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Settings(_)
            | Self::DataVolatile { .. }
            | Self::ContainersLowered { .. }
            | Self::StorageNeeded { .. }
            | Self::NoStorage
            | Self::GraceShort { .. }
            | Self::StorageOpen(lts::OpenError::Setting(_)) => ErrorKind::Usage,
            Self::StorageOpen(lts::OpenError::Bucket(error)) | Self::Storage(error) => {
                of_storage(error.kind())
            }
            Self::StorageRefused(refused) => of_refusal(refused),
            Self::NoBucket { .. } => ErrorKind::NotFound,
            Self::NothingToAdopt { .. }
            | Self::PortInUse { .. }
            | Self::DataInUse { .. }
            | Self::DataHolds { .. }
            | Self::RecoveryUnfinished { .. }
            | Self::DataForeign { .. } => ErrorKind::Conflict,
            Self::Look(_) => ErrorKind::Failure,
            Self::DataVersion { .. } | Self::DataIdentity { .. } | Self::LogGone { .. } => {
                ErrorKind::Data
            }
            Self::Listen { source, .. } | Self::DataAccess { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                std::io::ErrorKind::AddrNotAvailable => ErrorKind::Usage,
                _ => ErrorKind::Failure,
            },
            Self::Start { data_damaged: true, .. }
            | Self::Recovery { .. }
            | Self::RecoveryLoses { .. } => ErrorKind::Data,
            Self::Start { .. } | Self::DiskFull { .. } | Self::Fatal { .. } | Self::Interrupted => {
                ErrorKind::Failure
            }
        }
    }
}

fn of_storage(kind: lts::ErrorKind) -> ErrorKind {
    match kind {
        lts::ErrorKind::AlreadyExists => ErrorKind::Conflict,
        lts::ErrorKind::Denied => ErrorKind::Denied,
        lts::ErrorKind::Unavailable => ErrorKind::Unavailable,
        lts::ErrorKind::Unsupported => ErrorKind::Usage,
        lts::ErrorKind::NotFound | lts::ErrorKind::Full | lts::ErrorKind::Damaged => {
            ErrorKind::Failure
        }
    }
}

fn of_refusal(refused: &lts::Refused) -> ErrorKind {
    match refused {
        lts::Refused::Foreign { .. }
        | lts::Refused::Superseded { .. }
        | lts::Refused::Occupied { .. } => ErrorKind::Conflict,
        // The path, the mount or the prefix is not the one that it was.
        lts::Refused::MarkerMissing { .. } => ErrorKind::Usage,
        lts::Refused::Replaces { .. } | lts::Refused::Unfaithful { .. } => ErrorKind::Failure,
        lts::Refused::Failed(error) => of_storage(error.kind()),
    }
}
