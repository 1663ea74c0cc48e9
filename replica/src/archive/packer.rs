//! Puts slices into as few objects as their target size allows.

use super::packed::{Draft, Slice};

#[derive(Debug)]
pub(super) struct Packer {
    target: usize,
    open: Draft,
    closed: Vec<Draft>,
}

impl Packer {
    /// An object is closed when the next slice would make it larger than `target` bytes; one slice
    /// that is larger by itself is an object of its own.
    pub(super) fn new(target: usize) -> Self {
        Self { target, open: Draft::default(), closed: Vec::new() }
    }

    pub(super) fn push(&mut self, owner: u128, slice: Slice) {
        if self.open.bytes_with(owner, &slice) > self.target {
            self.close();
        }
        self.open.push(owner, slice);
    }

    /// What comes next goes into another object.
    pub(super) fn close(&mut self) {
        if !self.open.is_empty() {
            self.closed.push(std::mem::take(&mut self.open));
        }
    }

    pub(super) fn finish(mut self) -> Vec<Draft> {
        self.close();
        self.closed
    }
}
