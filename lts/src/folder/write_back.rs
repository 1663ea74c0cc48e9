//! Writing a large file in steps whose write-back begins at once. The one unsafe corner of the
//! crate: the call has no safe wrapper.
//!
//! Measured next to a log of 64 KiB blocks on one disk, 64 MiB objects at 255 MB/s: the 99.9th
//! percentile of the log's writes is 33 ms when the object is synced at the end, 16 ms in steps; a
//! `fdatasync` in each step takes the object three times as long.
#![expect(unsafe_code, reason = "sync_file_range has no safe wrapper")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

/// Bytes of a step: at most two steps are on their way to the disk.
pub(super) const STEP_BYTES: usize = 1 << 20;

/// A file that is written from its start.
pub(super) struct Stepped<'a> {
    file: &'a File,
    written: u64,
    /// Where the step that is being written back begins, and where the next one does.
    before: u64,
    begun: u64,
}

impl<'a> Stepped<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Self { file, written: 0, before: 0, begun: 0 }
    }

    /// Begins to write this step back and waits for the one before.
    fn step(&mut self) -> io::Result<()> {
        let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        write_back(self.file, self.begun..self.written, libc::SYNC_FILE_RANGE_WRITE)?;
        write_back(self.file, self.before..self.begun, all)?;
        (self.before, self.begun) = (self.begun, self.written);
        Ok(())
    }
}

impl Write for Stepped<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.file;
        let length = file.write(&bytes[..bytes.len().min(STEP_BYTES)])?;
        self.written += length as u64;
        if self.written - self.begun >= STEP_BYTES as u64 {
            self.step()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Not a sync: it says nothing about durability. But an error of the disk that it reports is not
/// reported again by the sync, so it counts.
fn write_back(file: &File, range: std::ops::Range<u64>, flags: libc::c_uint) -> io::Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    let (start, length) =
        (range.start as libc::off64_t, (range.end - range.start) as libc::off64_t);
    // SAFETY: the descriptor is open while `file` is borrowed; the call touches no memory.
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), start, length, flags) };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // A file system that cannot: the sync at the end does it all.
        Some(libc::EINVAL | libc::ENOSYS | libc::ESPIPE | libc::EOPNOTSUPP) => Ok(()),
        _ => Err(error),
    }
}
