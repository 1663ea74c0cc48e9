//! Objects into the bucket, side by side.

use futures::stream::{self, StreamExt, TryStreamExt};

use super::{Storage, StorageFailure};
use crate::archive::Sealed;

/// Objects on their way at a time: enough to hide the way to a remote store, few enough for memory,
/// since they are all there anyway.
const PUTS: usize = 4;

impl Storage {
    /// Puts all of them; in which order they arrive is open.
    pub(super) fn put_all(&self, objects: Vec<Sealed>) -> Result<(), StorageFailure> {
        let bucket = self.bucket.clone();
        let puts = async move {
            let puts = objects.into_iter().map(|object| {
                let bucket = bucket.clone();
                async move { bucket.put(&object.reference.name.into(), object.payload).await }
            });
            stream::iter(puts).buffer_unordered(PUTS).try_collect::<()>().await
        };
        Ok(self.run(puts)??)
    }

    /// Puts what counts by being there, a footer or a checkpoint, if the bucket was ours a moment
    /// ago.
    pub(super) fn put_last(&self, object: Sealed) -> Result<(), StorageFailure> {
        self.look_lately()?;
        self.put(object)
    }

    pub(super) fn look_lately(&self) -> Result<(), StorageFailure> {
        let Some(owner) = self.owner.clone() else { return Ok(()) };
        Ok(self.run(async move { owner.look_lately().await })??)
    }

    /// A footer, or a part of a checkpoint: without it no space comes back.
    pub(super) fn put(&self, object: Sealed) -> Result<(), StorageFailure> {
        let payload = object.payload.that_frees_space();
        self.put_all(vec![Sealed { payload, ..object }])
    }
}
