//! Compacted objects: packed objects of which a run's index slot holds its position in what it is a
//! part of, and not a log index.

use bytes::Bytes;
use common::{ByteSize, LogIndex};
use lts::{OBJECT_BYTES_MAX, ObjectName};

use super::fields::word;
use super::frame::Sealed;
use super::packed::{Draft, Slice};
use crate::resting::{Moved, Piece, Rested};

/// Objects of one compaction in the making.
#[derive(Debug)]
pub(crate) struct CompactedDraft {
    target: usize,
    name: ObjectName,
    open: Draft,
    sealed: Vec<Sealed>,
    moved: Vec<Moved>,
}

impl CompactedDraft {
    /// The first object is called `name`, the others follow in sequence; one is closed when the next
    /// owner's runs would make it larger than `object_bytes`.
    pub(crate) fn new(object_bytes: ByteSize, name: ObjectName) -> Self {
        let target = object_bytes.bytes().min(OBJECT_BYTES_MAX) as usize;
        let (open, sealed, moved) = (Draft::default(), Vec::new(), Vec::new());
        Self { target, name, open, sealed, moved }
    }

    /// Takes `pieces` pieces that follow one another, of which `first` is the first, as runs.
    pub(crate) fn push(&mut self, first: &Piece, pieces: u32, runs: Vec<Bytes>) {
        let bytes: usize = runs.iter().map(Bytes::len).sum();
        if !self.open.is_empty() && self.open.bytes_with_all(runs.len(), bytes) > self.target {
            self.close();
        }
        let offset = self.open.next_offset();
        let mut crc = crc32fast::Hasher::new();
        let mut position = first.position;
        for run in runs {
            crc.update(&run);
            let slice = Slice {
                index: LogIndex(position),
                start: 0,
                crc: crc32fast::hash(&run),
                bytes: run.clone(),
            };
            position += run.len() as u64;
            self.open.push(first.owner, slice);
        }
        let rested = Rested { object: self.name, offset, crc: crc.finalize() };
        let Piece { owner, position, .. } = *first;
        self.moved.push(Moved { owner, position, bytes: word(bytes), pieces, rested });
    }

    pub(crate) fn finish(mut self) -> (Vec<Sealed>, Vec<Moved>) {
        self.close();
        (self.sealed, self.moved)
    }

    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let draft = std::mem::take(&mut self.open);
        self.sealed.push(draft.seal(self.name, 0, &mut Vec::new()));
        self.name.sequence += 1;
    }
}
