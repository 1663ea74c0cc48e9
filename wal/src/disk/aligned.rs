//! Memory aligned to sectors, as direct I/O wants it. The one unsafe corner of the crate.
#![expect(unsafe_code, reason = "the allocator's aligned interface is unsafe")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::SECTOR_BYTES;

/// Zeroed bytes whose address and length are multiples of [`SECTOR_BYTES`].
pub struct AlignedBuf {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the buffer owns its memory, like a `Vec<u8>`.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads, like a `Vec<u8>`.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// At least `length` zero bytes, rounded up to whole sectors, one at the least.
    pub fn zeroed(length: usize) -> Self {
        let length = length.max(1).next_multiple_of(SECTOR_BYTES);
        let layout = layout(length);
        // SAFETY: the layout has a size above zero.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, length }
    }

    /// Grows to at least `length` bytes, keeping the content; the new bytes are zero.
    pub fn grow(&mut self, length: usize) {
        if length > self.length {
            let mut larger = Self::zeroed(length);
            larger[..self.length].copy_from_slice(self);
            *self = larger;
        }
    }
}

fn layout(length: usize) -> Layout {
    Layout::from_size_align(length, SECTOR_BYTES).expect("buffer lengths stay far below the limit")
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout.
        unsafe { dealloc(self.start.as_ptr(), layout(self.length)) }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `length` initialised bytes are owned by `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: `length` initialised bytes are owned by `self`, which is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.length)
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
