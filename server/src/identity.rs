//! The data folder: its lock, and the file that says whose it is and in which version.
//!
//! `DIR/LOCK` is held (flock) for the life of the process and names it; `DIR/STORE` is written
//! once, completely or not at all, and read at every start before anything else of the folder
//! is touched. A folder without it must be empty: nothing foreign is ever written over.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use common::ids::Incarnation;
use common::rng::Rng;
use lts::ClusterMarker;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::error::ServerError;

/// The version of the data folder as a whole that this build writes and reads. Log, state and
/// identity also carry versions of their own.
pub const FORMAT: u32 = 1;

const STORE_FILE: &str = "STORE";
/// What it is called until it is complete.
const STORE_ASIDE_FILE: &str = "STORE.new";
const LOCK_FILE: &str = "LOCK";

/// How names of files end that hold the log; those of spare ones do not.
const LOG_FILE_ENDING: &str = "wal";

/// Who this store is, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub format: u32,
    /// Random, given when the cluster was made.
    pub cluster: Uuid,
    /// Random, given when this folder was made; the log's files carry it, too.
    pub store: Uuid,
    pub incarnation: Incarnation,
    /// The version of braid that made the folder.
    pub created_by: String,
    /// What the cluster's marker in long-term storage says; random, and here before it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lts_marker: Option<Uuid>,
    /// Whether the bucket has the marker and the folder has a log: from then on one of them alone
    /// is not the whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lts_claimed: bool,
}

/// A random number that names something for ever, as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uuid(pub u128);

impl Serialize for Uuid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:032x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Uuid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16)
            .map(Self)
            .map_err(|_| serde::de::Error::custom(format!("`{text}` is not 32 hexadecimal digits")))
    }
}

/// A data folder that this process holds.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    /// Whether this start made the folder.
    created: bool,
    // Held until the process ends.
    _lock: File,
}

impl DataDir {
    /// Takes the folder for this process, making it where it does not exist.
    /// `allow_volatile`: also on a file system that keeps nothing.
    pub fn open(path: &Path, allow_volatile: bool, rng: &mut Rng) -> Result<Self, ServerError> {
        let access =
            |action| move |source| ServerError::DataAccess { dir: path.to_owned(), action, source };
        make_folders(path, &mut sync_dir).map_err(access("create it"))?;
        let volatile =
            common::file_system::volatile_kind(path).map_err(access("look at its file system"))?;
        if let (Some(file_system), false) = (volatile, allow_volatile) {
            return Err(ServerError::DataVolatile { dir: path.to_owned(), file_system });
        }
        if !has_store(path)? {
            refuse_foreign(path)?;
        }
        let lock = lock(path)?;
        // Only now: another first start may have had the lock meanwhile.
        let known = has_store(path)?;
        let identity = if known {
            read_identity(path)?
        } else {
            let identity = Identity::new(rng);
            write_identity(path, &identity).map_err(access("write `STORE`"))?;
            identity
        };
        for folder in [wal_dir(path), state_dir(path)] {
            make_folders(&folder, &mut sync_dir).map_err(access("create its folders"))?;
        }
        Ok(Self { path: path.to_owned(), identity, created: !known, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn created(&self) -> bool {
        self.created
    }

    /// Changes who the store is, on the disk first: completely or not at all.
    pub(crate) fn change_identity(
        &mut self,
        change: impl FnOnce(&mut Identity),
    ) -> Result<(), ServerError> {
        let mut identity = self.identity.clone();
        change(&mut identity);
        write_identity(&self.path, &identity).map_err(|source| ServerError::DataAccess {
            dir: self.path.clone(),
            action: "write `STORE`",
            source,
        })?;
        self.identity = identity;
        Ok(())
    }

    /// Whether the log has files: not yet in a new folder, and no more in one that lost them.
    pub(crate) fn has_log(&self) -> Result<bool, ServerError> {
        let access = |source| ServerError::DataAccess {
            dir: self.path.clone(),
            action: "list its log",
            source,
        };
        for entry in std::fs::read_dir(self.wal()).map_err(access)? {
            let name = entry.map_err(access)?.file_name();
            if Path::new(&name).extension().is_some_and(|ending| ending == LOG_FILE_ENDING) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where the log lives.
    pub fn wal(&self) -> PathBuf {
        wal_dir(&self.path)
    }

    /// Where the checkpointed state lives.
    pub fn state(&self) -> PathBuf {
        state_dir(&self.path)
    }
}

/// Says that a recovery has begun and not ended: what is beside it was written by that.
const RECOVERING_FILE: &str = "RECOVERING";

/// A data folder that a recovery makes. It has no `STORE` before it is whole.
#[derive(Debug)]
pub(crate) struct Unfinished {
    path: PathBuf,
    lock: File,
}

impl Unfinished {
    /// Takes a folder that is not there yet, or is empty, or was left by a recovery that did not
    /// end, and is made anew.
    pub(crate) fn begin(path: &Path, allow_volatile: bool) -> Result<Self, ServerError> {
        let access =
            |action| move |source| ServerError::DataAccess { dir: path.to_owned(), action, source };
        make_folders(path, &mut sync_dir).map_err(access("create it"))?;
        let volatile =
            common::file_system::volatile_kind(path).map_err(access("look at its file system"))?;
        if let (Some(file_system), false) = (volatile, allow_volatile) {
            return Err(ServerError::DataVolatile { dir: path.to_owned(), file_system });
        }
        let began = path.join(RECOVERING_FILE).try_exists().map_err(access("list it"))?;
        for entry in std::fs::read_dir(path).map_err(access("list it"))? {
            let name = entry.map_err(access("list it"))?.file_name();
            let of_recovery = ["wal", "state", RECOVERING_FILE, STORE_ASIDE_FILE];
            let ours = began && of_recovery.iter().any(|known| name == *known);
            if !ours && name != LOCK_FILE && name != "lost+found" {
                return Err(ServerError::DataHolds { dir: path.to_owned() });
            }
        }
        let lock = lock(path)?;
        File::create(path.join(RECOVERING_FILE))
            .and_then(|file| file.sync_all())
            .and_then(|()| sync_dir(path))
            .map_err(access("write `RECOVERING`"))?;
        for folder in [wal_dir(path), state_dir(path)] {
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(access("clear what an earlier recovery left")(error));
                }
                _ => {}
            }
            make_folders(&folder, &mut sync_dir).map_err(access("create its folders"))?;
        }
        Ok(Self { path: path.to_owned(), lock })
    }

    pub(crate) fn wal(&self) -> PathBuf {
        wal_dir(&self.path)
    }

    pub(crate) fn state(&self) -> PathBuf {
        state_dir(&self.path)
    }

    /// Everything is there: from now on it is a data folder like any other.
    pub(crate) fn finish(self, identity: Identity) -> Result<DataDir, ServerError> {
        let access = |action| {
            let dir = self.path.clone();
            move |source| ServerError::DataAccess { dir, action, source }
        };
        write_identity(&self.path, &identity).map_err(access("write `STORE`"))?;
        std::fs::remove_file(self.path.join(RECOVERING_FILE))
            .and_then(|()| sync_dir(&self.path))
            .map_err(access("remove `RECOVERING`"))?;
        let Self { path, lock } = self;
        Ok(DataDir { path, identity, created: false, _lock: lock })
    }
}

fn wal_dir(data: &Path) -> PathBuf {
    data.join("wal")
}

pub(crate) fn state_dir(data: &Path) -> PathBuf {
    data.join("state")
}

impl Identity {
    /// That of a store which was made from its cluster's bucket.
    pub(crate) fn recovered(cluster: Uuid, marker: ClusterMarker, rng: &mut Rng) -> Self {
        Self {
            cluster,
            incarnation: marker.incarnation,
            lts_marker: Some(Uuid(marker.marker)),
            lts_claimed: true,
            ..Self::new(rng)
        }
    }

    fn new(rng: &mut Rng) -> Self {
        Self {
            format: FORMAT,
            cluster: Uuid(rng.u128()),
            store: Uuid(rng.u128()),
            incarnation: Incarnation::FIRST,
            created_by: format!("braid {}", env!("CARGO_PKG_VERSION")),
            lts_marker: None,
            lts_claimed: false,
        }
    }
}

fn has_store(path: &Path) -> Result<bool, ServerError> {
    path.join(STORE_FILE).try_exists().map_err(|source| ServerError::DataAccess {
        dir: path.to_owned(),
        action: "look for `STORE`",
        source,
    })
}

/// Makes a folder and those above it, as far as they are missing. The name of each is durable
/// before anything is put into it: what is durable in a folder is of no use if the folder is gone.
fn make_folders(path: &Path, sync: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let parent = match path.parent() {
        None => return Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    match std::fs::create_dir(path) {
        Ok(()) => {}
        Err(_) if path.is_dir() => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && parent != path => {
            make_folders(parent, sync)?;
            std::fs::create_dir(path)?;
        }
        Err(error) => return Err(error),
    }
    sync(parent)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A folder without identity may hold only what a crash during its making can have left.
fn refuse_foreign(path: &Path) -> Result<(), ServerError> {
    let access =
        |source| ServerError::DataAccess { dir: path.to_owned(), action: "list it", source };
    if path.join(RECOVERING_FILE).try_exists().map_err(access)? {
        return Err(ServerError::RecoveryUnfinished { dir: path.to_owned() });
    }
    for entry in std::fs::read_dir(path).map_err(access)? {
        let name = entry.map_err(access)?.file_name();
        let ours = name == LOCK_FILE || name == STORE_ASIDE_FILE || name == "lost+found";
        // Another first start may be ahead of this one: the lock decides.
        if !ours && !has_store(path)? {
            return Err(ServerError::DataForeign { dir: path.to_owned() });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, ServerError> {
    let access =
        |source| ServerError::DataAccess { dir: path.to_owned(), action: "lock it", source };
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path.join(LOCK_FILE))
        .map_err(access)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let holder = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(ServerError::DataInUse { dir: path.to_owned(), holder });
        }
        Err(error) => return Err(access(error.into())),
    }
    name_holder(&mut file).map_err(access)?;
    Ok(file)
}

/// Writes the holder's id into the lock: a help for people, the lock itself is the kernel's. On a
/// full disk it has to do without.
fn name_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    match writeln!(file, "{}", std::process::id()) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        written => written,
    }
}

fn read_identity(dir: &Path) -> Result<Identity, ServerError> {
    let damaged = |reason: String| ServerError::DataIdentity { dir: dir.to_owned(), reason };
    let text =
        std::fs::read_to_string(dir.join(STORE_FILE)).map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => damaged("it is not text".to_owned()),
            _ => ServerError::DataAccess { dir: dir.to_owned(), action: "read `STORE`", source },
        })?;
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| damaged(error.message().to_owned()))?;
    // The version first: the rest of another version's file may look different.
    let format = table.get("format").and_then(toml::Value::as_integer);
    let found = format
        .and_then(|format| u32::try_from(format).ok())
        .ok_or_else(|| damaged("it has no `format`".to_owned()))?;
    if found != FORMAT {
        let created_by = table.get("created_by").and_then(|by| by.as_str()).map(str::to_owned);
        return Err(ServerError::DataVersion {
            dir: dir.to_owned(),
            found,
            known: FORMAT,
            created_by,
        });
    }
    table.try_into().map_err(|error: toml::de::Error| damaged(error.message().to_owned()))
}

/// Complete or not at all: written aside, synced, renamed, and the folder synced.
fn write_identity(dir: &Path, identity: &Identity) -> io::Result<()> {
    let text = toml::to_string(identity).map_err(io::Error::other)?;
    let aside = dir.join(STORE_ASIDE_FILE);
    let mut file = File::create(&aside)?;
    file.write_all(b"# Written by braid. Belongs to the data next to it: never copy it alone.\n")?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, dir.join(STORE_FILE))?;
    sync_dir(dir)?;
    // The folder's own name must survive, too, whoever made it.
    match dir.canonicalize()?.parent() {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
