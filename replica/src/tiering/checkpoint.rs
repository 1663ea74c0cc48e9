//! A checkpoint: the saved state of a group, into objects.
//!
//! It is read from the state store, as it was flushed at one moment, a chunk at a time, while the
//! group goes on. Keys in it are led by the number of their space.

use bytes::{BufMut, Bytes, BytesMut};

use super::{NameRange, StorageFailure, Workshop};
use crate::archive::{
    Archive, CheckpointDraft, CheckpointWriter, CommittedCheckpoint, FeatureLevel, Sealed,
};
use crate::kv::Space;

/// A checkpoint to be made.
pub(crate) struct CheckpointUpload {
    pub(crate) names: NameRange,
    pub(crate) membership: Vec<u8>,
    pub(crate) keep_micros: u64,
}

impl CheckpointUpload {
    pub(super) fn perform(
        self,
        workshop: &Workshop,
    ) -> Result<CommittedCheckpoint, StorageFailure> {
        let Workshop { storage, kv, .. } = workshop;
        let whole = kv.whole(self.names.group)?;
        let whole = whole.ok_or_else(|| {
            StorageFailure::Damaged("the state that was saved is not there".to_owned())
        })?;
        let mut names = self.names.first();
        let mut next = || {
            let name = names;
            names.sequence += 1;
            name
        };
        let draft = CheckpointDraft {
            applied: whole.applied,
            feature_level: FeatureLevel::FIRST,
            membership: self.membership.into(),
        };
        // A chunk is gathered while none is put; what the archive says stays until the end.
        let mut held = storage.held.hold(storage.settings.checkpoint.chunk_bytes.bytes());
        let mut writer = CheckpointWriter::new(storage.settings.checkpoint, draft)?;
        let (mut chunks, mut archive) = (Vec::new(), Vec::new());
        let mut put = |chunk: Sealed| {
            chunks.push(chunk.reference);
            storage.put(chunk)
        };
        for pair in whole.pairs {
            let (space, key, value) = pair?;
            if let Some(chunk) = writer.push(&led_key(space, &key), &value, &mut next)? {
                put(chunk)?;
            }
            if space == Space::Archive {
                held.grow((key.len() + value.len()) as u64);
                archive.push((key, value));
            }
        }
        let (last, checkpoint) = writer.finish(&mut next)?;
        last.map_or(Ok(()), put)?;
        let archived = Archive::restore(&mut archive.into_iter())
            .map_err(|error| StorageFailure::Damaged(error.to_string()))?
            .end();
        let (reference, index) = (checkpoint.reference, whole.applied.index);
        storage.put_last(checkpoint)?;
        let keep_micros = self.keep_micros;
        Ok(CommittedCheckpoint { reference, index, archived, chunks, keep_micros })
    }
}

fn led_key(space: Space, key: &[u8]) -> Bytes {
    let mut led = BytesMut::with_capacity(1 + key.len());
    led.put_u8(space as u8);
    led.put_slice(key);
    led.freeze()
}

/// The space and the key of a pair in a checkpoint.
pub(crate) fn of_led_key(led: &Bytes) -> Option<(Space, Bytes)> {
    Some((Space::of_number(*led.first()?)?, led.slice(1..)))
}
