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
    /// Something else holds what is needed: end it, or use another port or folder.
    Conflict,
    /// The operating system does not allow it.
    Denied,
    /// Stored data is damaged, missing or of another version; nothing was changed.
    Data,
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
    #[error("start the `{component}`: {message}")]
    Start { component: &'static str, message: String, data_damaged: bool },
    #[error("the node stopped by itself: {message}")]
    Fatal { message: String },
    #[error(
        "stopped before the state was saved, as was asked for; nothing acknowledged is lost, the next start replays more of the log"
    )]
    Interrupted,
}

impl ServerError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Settings(_) | Self::DataVolatile { .. } | Self::ContainersLowered { .. } => {
                ErrorKind::Usage
            }
            Self::PortInUse { .. } | Self::DataInUse { .. } | Self::DataForeign { .. } => {
                ErrorKind::Conflict
            }
            Self::DataVersion { .. } | Self::DataIdentity { .. } => ErrorKind::Data,
            Self::Listen { source, .. } | Self::DataAccess { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                std::io::ErrorKind::AddrNotAvailable => ErrorKind::Usage,
                _ => ErrorKind::Failure,
            },
            Self::Start { data_damaged: true, .. } => ErrorKind::Data,
            Self::Start { .. } | Self::DiskFull { .. } | Self::Fatal { .. } | Self::Interrupted => {
                ErrorKind::Failure
            }
        }
    }
}
