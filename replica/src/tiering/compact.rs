//! Compaction: small pieces of many objects, copied next to their neighbours.
//!
//! Pieces of one owner that follow one another become one place in one object. What a compaction has
//! in memory is what it copies and the reads under way, and never more than twice
//! [`compaction_bytes_max`](super::TieringSettings::compaction_bytes_max): see [`gather`].

use bytes::Bytes;

use super::{NameRange, Storage, StorageFailure};
use crate::archive::{CompactedDraft, Sealed};
use crate::resting::{Compacted, CompactionPlan, Moved, Piece};

mod gather;

/// Bytes of one run: what a reader has to read for its checksum.
const RUN_BYTES: usize = 1 << 20;

/// A compaction to be made.
pub(crate) struct Compaction {
    pub(crate) names: NameRange,
    pub(crate) plan: CompactionPlan,
}

impl Compaction {
    pub(super) fn perform(self, storage: &Storage) -> Result<Compacted, StorageFailure> {
        let pieces = self.plan.pieces;
        // Counted until everything is put.
        let (mut bytes, _held) = storage.gather(&pieces)?;
        let mut draft =
            CompactedDraft::new(storage.settings.round.object_bytes, self.names.first());
        let mut rest = &pieces[..];
        while !rest.is_empty() {
            let count = rest.windows(2).take_while(|two| follows(&two[0], &two[1])).count() + 1;
            let (moved, behind) = rest.split_at(count);
            let length = moved.iter().map(|piece| piece.bytes as usize).sum();
            draft.push(&moved[0], count as u32, runs(bytes.split_to(length)));
            rest = behind;
        }
        let (objects, moved): (Vec<Sealed>, Vec<Moved>) = draft.finish();
        let references = objects.iter().map(|object| object.reference).collect();
        storage.look_lately()?;
        storage.put_all(objects)?;
        Ok(Compacted { objects: references, moved })
    }
}

fn follows(before: &Piece, next: &Piece) -> bool {
    before.owner == next.owner && before.position + u64::from(before.bytes) == next.position
}

fn runs(mut bytes: Bytes) -> Vec<Bytes> {
    let mut runs = Vec::new();
    while !bytes.is_empty() {
        runs.push(bytes.split_to(bytes.len().min(RUN_BYTES)));
    }
    runs
}
