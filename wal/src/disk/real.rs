//! A directory of a real file system.
//!
//! Files are opened `O_DIRECT | O_DSYNC` where a probe at start shows that it works; else every
//! write is followed by `fdatasync`, which is said once. Whether the file system keeps anything is
//! told by its kind, never guessed from errors: tmpfs and FUSE accept `O_DIRECT` and keep nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::file_system::volatile_kind;
use rustix::fs::{FlockOperation, flock, statvfs};

use super::{AlignedBuf, Disk, DiskFile, DiskLock, DiskSpace, SECTOR_BYTES, check_aligned};

const PROBE: &str = "probe.tmp";
const LOCK: &str = "LOCK";

/// See the module.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
    direct: bool,
}

#[derive(Debug)]
struct RealFile {
    file: File,
    direct: bool,
}

impl RealDisk {
    /// Opens `path`, making it if need be. `Unsupported` when the file system is volatile and
    /// `allow_volatile` is not set.
    pub fn open(path: &Path, allow_volatile: bool) -> io::Result<RealDisk> {
        std::fs::create_dir_all(path)?;
        if let Some(parent) = path.canonicalize()?.parent() {
            File::open(parent)?.sync_all()?;
        }
        let kind = volatile_kind(path)?;
        if let (Some(kind), false) = (kind, allow_volatile) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "the log directory `{}` is on {kind}, which does not keep data through a \
                     power cut; put it on a local disk, or accept the loss with `--allow-volatile`",
                    path.display()
                ),
            ));
        }
        let mut disk = RealDisk { path: path.to_owned(), direct: true };
        disk.direct = disk.probe_direct()?;
        if !disk.direct {
            tracing::info!(
                directory = %path.display(),
                "the file system refuses direct writes; every block is synced with fdatasync"
            );
        }
        Ok(disk)
    }

    /// The same directory with writes through the page cache, each followed by `fdatasync`: what
    /// a file system that refuses direct writes gets.
    pub fn buffered(self) -> Self {
        Self { direct: false, ..self }
    }

    /// Whether writes bypass the page cache.
    pub fn direct(&self) -> bool {
        self.direct
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn probe_direct(&self) -> io::Result<bool> {
        let path = self.path.join(PROBE);
        let block = AlignedBuf::zeroed(SECTOR_BYTES);
        let opened = self.options().create(true).truncate(true).open(&path);
        let works = match opened {
            Ok(file) => file.write_all_at(&block, 0),
            Err(error) => Err(error),
        };
        match works {
            Ok(()) => {
                std::fs::remove_file(&path)?;
                Ok(true)
            }
            Err(error) if refuses_direct(&error) => {
                let _ = std::fs::remove_file(&path);
                Ok(false)
            }
            // A full disk must not keep the log from opening: the kind of the file system
            // already said that it keeps data.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if self.direct {
            options.custom_flags(libc::O_DIRECT | libc::O_DSYNC);
        }
        options
    }

    fn wrap(&self, file: File) -> Arc<dyn DiskFile> {
        Arc::new(RealFile { file, direct: self.direct })
    }

    fn join(&self, name: &str) -> PathBuf {
        assert!(!name.contains('/') && name != "..", "`{name}` is not a file name");
        self.path.join(name)
    }
}

fn refuses_direct(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTSUP))
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if !entry.file_type()?.is_file() {
                continue;
            }
            match entry.file_name().into_string() {
                Ok(name) if name != LOCK && name != PROBE => names.push(name),
                _ => {}
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.options().open(self.join(name))?;
        if !self.direct {
            // The pages of a failed sync look clean: what counts is what the disk says, not them.
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
        Ok(self.wrap(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(self.options().create_new(true).open(self.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        // The directory is locked, so nobody makes `to` between the check and the rename.
        if self.join(to).try_exists()? {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("`{to}` exists")));
        }
        std::fs::rename(self.join(from), self.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let stat = statvfs(&self.path)?;
        Ok(DiskSpace {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn lock(&self) -> io::Result<DiskLock> {
        let path = self.path.join(LOCK);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Box::new(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!(
                    "the log directory `{}` is in use by another process; stop it first, or give \
                     this one a directory of its own",
                    self.path.display()
                ),
            )),
            Err(error) => Err(error.into()),
        }
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        check_aligned(offset, into);
        self.file.read_exact_at(into, offset)
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        check_aligned(offset, from);
        self.file.write_all_at(from, offset)?;
        if self.direct { Ok(()) } else { self.file.sync_data() }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}
