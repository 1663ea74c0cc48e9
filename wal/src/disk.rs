//! The seam between the log and the machine: one directory of files with aligned, durable writes.
//!
//! Laws that every implementation keeps, and that `disk/tests.rs` checks on all of them:
//!
//! - **Alignment.** Offsets, lengths and buffer addresses of reads and writes are multiples of
//!   [`SECTOR_BYTES`]; anything else is a bug of the caller and panics.
//! - **Durability.** When [`DiskFile::write_at`] returns `Ok`, the bytes and the length of the file
//!   survive a crash. When it returns an error, or the crash comes first, each sector of the range
//!   may be old, new or a mixture; sectors outside are untouched.
//! - **Names.** `create`, `rename` and `remove` are seen at once by this process and survive a
//!   crash only after [`Disk::sync_dir`]; until then each may be kept or lost.
//! - **Atomicity.** A rename is atomic; it never replaces an existing file.
//! - **Errors are final for what they cover.** After a failed write or sync nothing may be assumed
//!   about the range; a retry that succeeds proves nothing.
//! - **Space.** Only a write beyond the end of a file, and `create`, may meet a full disk
//!   (`StorageFull`). What `space` calls free is what this process may still take; a file takes it
//!   as it is written, and gives it back when it is removed.

mod aligned;
mod faulty;
mod real;
mod sim;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;

pub use aligned::AlignedBuf;
pub use faulty::{DiskOperation, Fault, Faults, FaultyDisk};
pub use real::RealDisk;
pub use sim::{CrashOutcome, SimDisk};

/// The unit of alignment and of tearing.
pub const SECTOR_BYTES: usize = 4096;

/// Keeps the directory locked until dropped.
pub type DiskLock = Box<dyn Send + Sync>;

/// Space of the file system that holds the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskSpace {
    pub total: u64,
    pub free: u64,
}

/// A directory of log files. See the module for the laws.
pub trait Disk: Send + Sync + fmt::Debug {
    /// The names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens an existing file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes a new, empty file; `AlreadyExists` if there is one of that name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file; `AlreadyExists` if `to` exists. Open handles stay valid.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every change of names so far durable.
    fn sync_dir(&self) -> io::Result<()>;

    fn space(&self) -> io::Result<DiskSpace>;

    /// Locks the directory against other processes and other logs of this one; `WouldBlock` with a
    /// message for people if it is locked.
    fn lock(&self) -> io::Result<DiskLock>;
}

/// A file of a [`Disk`].
pub trait DiskFile: Send + Sync + fmt::Debug {
    fn len(&self) -> io::Result<u64>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `into` from `offset`; `UnexpectedEof` when the file ends before.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of `from` at `offset`, durable on return.
    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()>;

    /// Makes everything that can be read from the file durable, whoever wrote it.
    fn sync(&self) -> io::Result<()>;
}

/// The law of alignment, checked by every implementation.
pub(crate) fn check_aligned(offset: u64, bytes: &[u8]) {
    assert!(
        offset.is_multiple_of(SECTOR_BYTES as u64)
            && bytes.len().is_multiple_of(SECTOR_BYTES)
            && bytes.as_ptr().addr().is_multiple_of(SECTOR_BYTES),
        "unaligned disk access of {} bytes at {offset}",
        bytes.len()
    );
}
