//! A bucket in a folder of a file system.
//!
//! An object is a file whose path in the folder is the object's path. It is written under another
//! name in `.staging/`, synced, and renamed without replacing, then the folder it is in is synced,
//! and so is what a delete leaves. Whoever sees `AlreadyExists` sees something durable: the folder
//! is synced before that is said, too, since another put of the same path may be between its rename
//! and its sync.
//!
//! Large files are written past the page cache (`direct.rs`); where a file system does not take
//! that, and small ones, in steps whose write-back begins at once (`write_back.rs`), so that the sync
//! at the end has little to do and the log on the same disk does not stand behind it.
//!
//! A put leaves some of the file system's space free (`ROOM`), since log and state of a node often
//! share it, and a state that cannot be written does not even let the node start.
//!
//! A folder whose sync failed takes no more puts and deletes: what the page cache shows is then not
//! what the disk holds, and a second sync would say nothing about the first.

mod direct;
mod list;
#[cfg(test)]
mod tests;
mod write_back;

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use common::file_system::volatile_kind;
use common::{Clock, Rng, ThreadPool};
use futures::future::BoxFuture;
use rustix::fs::{CWD, RenameFlags, renameat_with, statvfs};
use rustix::io::Errno;
use tokio::sync::oneshot;

use self::write_back::Stepped;
use crate::{
    Bucket, Error, ErrorKind, Leftover, Listed, OBJECT_BYTES_MAX, ObjectPath, Operation, Page,
    Payload,
};

/// Where files are written before they get their names. No object's path begins with a dot.
const STAGING: &str = ".staging";

/// Threads that write and delete: enough to keep a disk busy next to a log.
const WRITE_THREADS: usize = 2;

/// Threads that read, apart so that a reader does not stand behind a large put.
const READ_THREADS: usize = 4;

/// What a put leaves free: this part of the file system, at most so many bytes.
const ROOM_PART: u64 = 16;
const ROOM_BYTES_MAX: u64 = 1 << 30;

/// What is left free even by a put without which no space would come back: this part of the room,
/// and less than a log leaves on the same disk.
const LAST_ROOM_PART: u64 = 4;
const LAST_ROOM_BYTES_MAX: u64 = 16 << 20;

/// Files from this size on are written past the page cache.
const DIRECT_BYTES: u64 = 256 << 10;

/// How often a put makes the folders of its path anew when another process removes them, empty,
/// under its hands.
const FOLDER_ATTEMPTS: u32 = 10;

/// See the module.
#[derive(Debug)]
pub struct Folder {
    shared: Arc<Shared>,
    writers: ThreadPool,
    readers: ThreadPool,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    /// Held open so that what is mounted there stays mounted.
    _pin: File,
    clock: Arc<dyn Clock>,
    rng: Mutex<Rng>,
    /// Staging files of puts of this process.
    in_flight: Mutex<HashSet<String>>,
    /// Folders that are known to be durable. Removing one, which is exclusive, takes it out.
    durable: RwLock<Mutex<HashSet<PathBuf>>>,
    sync_failed: AtomicBool,
    /// The file system takes no writes past the page cache.
    buffered: AtomicBool,
}

impl Folder {
    /// Opens the folder, making it if need be. `Unsupported` when its file system keeps nothing
    /// through a power cut and `allow_volatile` is not set.
    pub fn open(
        root: &Path,
        allow_volatile: bool,
        clock: Arc<dyn Clock>,
        rng: Rng,
    ) -> Result<Self, Error> {
        let failed = |error: io::Error| failure(Operation::Maintain, ".", root, &error);
        make_durable(root).map_err(failed)?;
        let kind = volatile_kind(root).map_err(failed)?;
        if let (Some(kind), false) = (kind, allow_volatile) {
            let why = format!(
                "it is on {kind}, which does not keep data through a power cut; put it on a \
                 disk, or accept the loss with `--allow-volatile`"
            );
            let (operation, url) = (Operation::Maintain, url(root));
            return Err(Error::new(ErrorKind::Unsupported, operation, ".", url, why));
        }
        make_durable(&root.join(STAGING)).map_err(failed)?;
        let shared = Shared {
            root: root.to_owned(),
            _pin: File::open(root).map_err(failed)?,
            clock,
            rng: Mutex::new(rng),
            in_flight: Mutex::default(),
            durable: RwLock::default(),
            sync_failed: AtomicBool::new(false),
            buffered: AtomicBool::new(false),
        };
        Ok(Self {
            shared: Arc::new(shared),
            writers: ThreadPool::start("lts-write", WRITE_THREADS).map_err(failed)?,
            readers: ThreadPool::start("lts-read", READ_THREADS).map_err(failed)?,
        })
    }

    /// Runs a job on a pool; dropping the future does not stop one that runs.
    async fn run<T: Send + 'static>(
        &self,
        pool: &ThreadPool,
        operation: Operation,
        subject: String,
        job: impl FnOnce(&Shared) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = self.shared.clone();
        let (answer, answered) = oneshot::channel();
        let room = pool.room().await;
        pool.submit(room, move || {
            // Nobody may wait any more.
            let _ = answer.send(job(&shared));
        });
        let lost = || Err(io::Error::other("the thread that did it ended"));
        let done = answered.await.unwrap_or_else(|_| lost());
        done.map_err(|error| failure(operation, &subject, &self.shared.root, &error))
    }
}

impl Shared {
    fn put(&self, path: &ObjectPath, payload: &Payload) -> io::Result<()> {
        self.check_writable()?;
        if payload.len() > OBJECT_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 64 MiB"));
        }
        let file = self.root.join(path.as_str());
        if fs::symlink_metadata(&file).is_ok() {
            return Err(self.exists(&file));
        }
        self.check_room(payload)?;
        let staged = self.stage()?;
        let placed =
            self.write(&staged.path, payload).and_then(|()| self.place(&staged.path, &file));
        if placed.is_err() {
            // What stays behind is a leftover, which is looked after.
            let _ = fs::remove_file(&staged.path);
        }
        placed
    }

    /// Whether an object leaves enough space to others.
    fn check_room(&self, payload: &Payload) -> io::Result<()> {
        let stat = statvfs(&self.root)?;
        let total = stat.f_blocks.saturating_mul(stat.f_frsize);
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let room = room(total, payload.frees_space());
        if free >= room.saturating_add(payload.len()) {
            return Ok(());
        }
        let text = format!(
            "no space left: of {free} bytes that its file system has free, {room} are for log and \
             state"
        );
        Err(io::Error::new(io::ErrorKind::StorageFull, text))
    }

    fn stage(&self) -> io::Result<Staged<'_>> {
        let name = format!("{:032x}", lock(&self.rng).u128());
        lock(&self.in_flight).insert(name.clone());
        Ok(Staged { shared: self, path: self.root.join(STAGING).join(&name), name })
    }

    fn write(&self, staged: &Path, payload: &Payload) -> io::Result<()> {
        if payload.len() >= DIRECT_BYTES && !self.buffered.load(Ordering::Relaxed) {
            if let Some(file) = direct::write(staged, payload)? {
                return file.sync_all();
            }
            tracing::info!(folder = %self.root.display(), "files are written through the page cache");
            let _ = fs::remove_file(staged);
            self.buffered.store(true, Ordering::Relaxed);
        }
        let file = File::options().write(true).create_new(true).open(staged)?;
        let mut stepped = io::BufWriter::with_capacity(write_back::STEP_BYTES, Stepped::new(&file));
        for piece in payload.pieces() {
            stepped.write_all(piece)?;
        }
        stepped.flush()?;
        file.sync_all()
    }

    /// Gives the file its name and makes the name durable.
    fn place(&self, staged: &Path, file: &Path) -> io::Result<()> {
        let folder = file.parent().expect("an object is in the bucket's folder");
        let mut attempt = 1;
        loop {
            let durable = self.durable.read().unwrap_or_else(PoisonError::into_inner);
            self.make_folders(&durable, folder)?;
            match rename_new(staged, file) {
                Ok(()) => return self.sync_folder(folder),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(self.exists(file));
                }
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && attempt < FOLDER_ATTEMPTS =>
                {
                    attempt += 1;
                    lock(&durable).clear();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes every folder from the root down to `folder`, and durable what is not known to be.
    fn make_folders(&self, durable: &Mutex<HashSet<PathBuf>>, folder: &Path) -> io::Result<()> {
        let above = |path: &&Path| path.starts_with(&self.root) && *path != self.root;
        let mut missing: Vec<&Path> = folder.ancestors().take_while(above).collect();
        missing.reverse();
        for path in missing {
            if lock(durable).contains(path) {
                continue;
            }
            match fs::create_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            self.sync_folder(path.parent().expect("it is below the root"))?;
            lock(durable).insert(path.to_owned());
        }
        Ok(())
    }

    /// The error for a name that is taken, by something that is durable.
    fn exists(&self, file: &Path) -> io::Error {
        let above = |path: &&Path| path.starts_with(&self.root);
        for folder in file.ancestors().skip(1).take_while(above) {
            if let Err(error) = self.sync_folder(folder) {
                return error;
            }
        }
        io::Error::new(io::ErrorKind::AlreadyExists, "there is an object of that name")
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let synced = File::open(folder)?.sync_all();
        if synced.is_err() {
            self.sync_failed.store(true, Ordering::Release);
        }
        synced
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.sync_failed.load(Ordering::Acquire) {
            return Err(io::Error::other(
                "an earlier sync of the folder failed, so it takes nothing more; check the disk \
                 and restart",
            ));
        }
        Ok(())
    }

    fn get(&self, path: &ObjectPath, range: &Range<u64>) -> io::Result<Bytes> {
        let file = File::open(self.root.join(path.as_str()))?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        if found.len() < range.end {
            let why = format!("it has {} bytes, not the {} it should", found.len(), range.end);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    }

    fn head(&self, path: &ObjectPath) -> io::Result<Listed> {
        let found = fs::symlink_metadata(self.root.join(path.as_str()))?;
        if !found.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Listed { path: path.clone(), length: found.len(), modified: list::modified(&found) })
    }

    fn delete(&self, paths: &[ObjectPath]) -> io::Result<()> {
        self.check_writable()?;
        let mut folders = BTreeSet::new();
        for path in paths {
            let file = self.root.join(path.as_str());
            if let Err(error) = fs::remove_file(&file)
                && !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            {
                let why = format!("`{path}`: {error}");
                return Err(io::Error::new(error.kind(), why));
            }
            folders.extend(file.parent().map(Path::to_owned));
        }
        // Deepest first, so that emptied folders go with those in them.
        for folder in folders.iter().rev() {
            self.settle_delete(folder)?;
        }
        Ok(())
    }

    /// Makes deletions in the folder durable; where it is empty now, by removing it.
    fn settle_delete(&self, folder: &Path) -> io::Result<()> {
        let durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
        let mut folder = folder;
        while folder != self.root && fs::remove_dir(folder).is_ok() {
            lock(&durable).remove(folder);
            folder = folder.parent().expect("it is below the root");
        }
        drop(durable);
        match self.sync_folder_if_there(folder) {
            // Somebody removed it with what was in it: then its parent tells.
            Ok(false) => match folder.parent() {
                Some(parent) if folder != self.root => self.settle_delete(parent),
                _ => Err(io::ErrorKind::NotFound.into()),
            },
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn sync_folder_if_there(&self, folder: &Path) -> io::Result<bool> {
        match self.sync_folder(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn leftovers(&self, age: Duration) -> io::Result<Vec<Leftover>> {
        let now = self.clock.wall();
        let mut found = Vec::new();
        for entry in fs::read_dir(self.root.join(STAGING))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if lock(&self.in_flight).contains(&name) {
                continue;
            }
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let modified = list::modified(&metadata);
            if modified.plus(age) <= now {
                found.push(Leftover { name, length: metadata.len(), modified });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn remove_leftovers(&self, leftovers: &[Leftover]) -> io::Result<()> {
        let staging = self.root.join(STAGING);
        for leftover in leftovers {
            assert!(!leftover.name.contains('/'), "`{}` is no leftover", leftover.name);
            match fs::remove_file(staging.join(&leftover.name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.sync_folder(&staging)
    }
}

/// A staging file that belongs to a put of this process while this lives.
struct Staged<'a> {
    shared: &'a Shared,
    name: String,
    path: PathBuf,
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        lock(&self.shared.in_flight).remove(&self.name);
    }
}

/// Renames without replacing, by a link where the file system cannot.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        other => Ok(other?),
    }
}

/// Makes a folder and all above it. They are synced also when they are there: whoever made them may
/// have been stopped before its sync.
fn make_durable(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for above in folder.canonicalize()?.ancestors().skip(1) {
        match File::open(above) {
            Ok(opened) => opened.sync_all()?,
            // Not ours to look into, so not ours to have made.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn url(root: &Path) -> String {
    format!("file://{}", root.display())
}

/// What a put must leave free of a file system of so many bytes.
fn room(total: u64, frees_space: bool) -> u64 {
    let room = (total / ROOM_PART).min(ROOM_BYTES_MAX);
    match frees_space {
        true => (room / LAST_ROOM_PART).min(LAST_ROOM_BYTES_MAX),
        false => room,
    }
}

fn failure(operation: Operation, subject: &str, root: &Path, error: &io::Error) -> Error {
    Error::new(kind_of(operation, error.kind()), operation, subject, url(root), error)
}

fn kind_of(operation: Operation, kind: io::ErrorKind) -> ErrorKind {
    use io::ErrorKind as Io;
    let reads = matches!(operation, Operation::Get | Operation::Head);
    match kind {
        Io::NotFound | Io::NotADirectory if reads => ErrorKind::NotFound,
        Io::AlreadyExists => ErrorKind::AlreadyExists,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
        Io::StorageFull | Io::QuotaExceeded => ErrorKind::Full,
        Io::UnexpectedEof => ErrorKind::Damaged,
        Io::FileTooLarge => ErrorKind::Unsupported,
        _ => ErrorKind::Unavailable,
    }
}

impl Bucket for Folder {
    fn url(&self) -> String {
        url(&self.shared.root)
    }

    fn put<'a>(
        &'a self,
        path: &'a ObjectPath,
        payload: Payload,
    ) -> BoxFuture<'a, Result<(), Error>> {
        let object = path.clone();
        let job = move |shared: &Shared| shared.put(&object, &payload);
        Box::pin(self.run(&self.writers, Operation::Put, path.to_string(), job))
    }

    fn get<'a>(
        &'a self,
        path: &'a ObjectPath,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>> {
        let object = path.clone();
        let job = move |shared: &Shared| shared.get(&object, &range);
        Box::pin(self.run(&self.readers, Operation::Get, path.to_string(), job))
    }

    fn head<'a>(&'a self, path: &'a ObjectPath) -> BoxFuture<'a, Result<Listed, Error>> {
        let object = path.clone();
        let job = move |shared: &Shared| shared.head(&object);
        Box::pin(self.run(&self.readers, Operation::Head, path.to_string(), job))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectPath>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        let (subject, after) = (prefix.to_owned(), after.cloned());
        let prefix = subject.clone();
        let job = move |shared: &Shared| list::page(&shared.root, &prefix, after.as_ref(), limit);
        Box::pin(self.run(&self.readers, Operation::List, subject, job))
    }

    fn delete<'a>(&'a self, paths: &'a [ObjectPath]) -> BoxFuture<'a, Result<(), Error>> {
        let subject = paths.first().map_or_else(String::new, ToString::to_string);
        let paths = paths.to_vec();
        let job = move |shared: &Shared| shared.delete(&paths);
        Box::pin(self.run(&self.writers, Operation::Delete, subject, job))
    }

    fn leftovers(&self, age: Duration) -> BoxFuture<'_, Result<Vec<Leftover>, Error>> {
        let job = move |shared: &Shared| shared.leftovers(age);
        Box::pin(self.run(&self.readers, Operation::Maintain, STAGING.to_owned(), job))
    }

    fn remove_leftovers<'a>(
        &'a self,
        leftovers: &'a [Leftover],
    ) -> BoxFuture<'a, Result<(), Error>> {
        let leftovers = leftovers.to_vec();
        let job = move |shared: &Shared| shared.remove_leftovers(&leftovers);
        Box::pin(self.run(&self.writers, Operation::Maintain, STAGING.to_owned(), job))
    }
}
