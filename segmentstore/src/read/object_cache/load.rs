//! One reading from long-term storage: of an index, or of blocks that follow one another.
//!
//! What someone waits for is admitted to the budget by the load itself: a reader that is not polled
//! must not sit on what it was given. What is read ahead was admitted before.
//!
//! A load answers for everything it claimed. Whatever ends it (success, failure, a dropped task),
//! every claim is taken back and nobody waits for ever.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lts::{ObjectName, ObjectPath};
use replica::archive::PackedIndex;

use super::state::{Block, Item, Key};
use super::{Inner, LoadError, ObjectIndex};
use crate::limits::OBJECT_INDEX_HINT_BYTES;
use crate::permits::BytePermit;

/// What is to be read.
pub(super) enum Load {
    Index(IndexLoad),
    Blocks(BlockLoad),
}

impl Load {
    pub(super) async fn run(self) {
        match self {
            Load::Index(load) => load.run().await,
            Load::Blocks(load) => load.run().await,
        }
    }
}

pub(super) struct IndexLoad {
    inner: Arc<Inner>,
    object: ObjectName,
    permit: Option<BytePermit>,
    done: bool,
}

impl IndexLoad {
    /// The caller has claimed the index.
    pub(super) fn new(inner: Arc<Inner>, object: ObjectName, permit: Option<BytePermit>) -> Self {
        Self { inner, object, permit, done: false }
    }

    async fn run(mut self) {
        let loaded = self.read().await;
        self.done = true;
        let key = Key::Index(self.object);
        match loaded {
            Ok((index, permit)) => {
                self.inner.complete(key, &Item::Index(Arc::new(index)), permit);
            }
            Err(error) => self.inner.fail(&key, &error),
        }
    }

    /// Asks for the length, then for the last bytes, and for more where the index has more.
    async fn read(&mut self) -> Result<(ObjectIndex, BytePermit), LoadError> {
        let mut permit = match self.permit.take() {
            Some(permit) => permit,
            None => self.inner.admit(OBJECT_INDEX_HINT_BYTES as usize).await,
        };
        let path = ObjectPath::from(self.object);
        let length = self.inner.bucket.head(&path).await?.length;
        let hint = length.saturating_sub(OBJECT_INDEX_HINT_BYTES)..length;
        let mut last = Bytes::new();
        if !hint.is_empty() {
            last = self.inner.get(&path, hint.clone()).await?;
        }
        let range = PackedIndex::range(self.object, length, &last)?;
        if range.start < hint.start {
            // Given back first: one who holds and waits for more could wait for his like.
            drop(permit);
            permit = self.inner.admit((range.end - range.start) as usize).await;
            last = self.inner.get(&path, range).await?;
        }
        let packed = PackedIndex::decode(self.object, length, &last)?;
        Ok((ObjectIndex::new(self.object, &packed), permit))
    }
}

impl Drop for IndexLoad {
    fn drop(&mut self) {
        if !self.done {
            self.inner.fail(&Key::Index(self.object), &LoadError::GivenUp);
        }
    }
}

pub(super) struct BlockLoad {
    inner: Arc<Inner>,
    index: Arc<ObjectIndex>,
    /// What is not done yet.
    blocks: Range<u32>,
    permit: Option<BytePermit>,
}

impl BlockLoad {
    /// The caller has claimed the blocks.
    pub(super) fn new(
        inner: Arc<Inner>,
        index: Arc<ObjectIndex>,
        blocks: Range<u32>,
        permit: Option<BytePermit>,
    ) -> Self {
        Self { inner, index, blocks, permit }
    }

    async fn run(mut self) {
        let permit = match self.permit.take() {
            Some(permit) => permit,
            None => self.inner.admit(self.index.bytes(self.blocks.clone())).await,
        };
        let range = self.index.range(self.blocks.clone());
        match self.inner.get(self.index.path(), range.clone()).await {
            Ok(bytes) => self.take(range.start, &bytes, permit),
            Err(error) => self.fail(&error),
        }
    }

    /// Cuts what was read into blocks; a damaged one does not take the others with it.
    fn take(&mut self, start: u64, all: &Bytes, mut permit: BytePermit) {
        let shared = self.blocks.len() > 1;
        while self.blocks.start < self.blocks.end {
            let block = self.blocks.start;
            let key = Key::block(&self.index, block);
            let range = self.index.range(block..block + 1);
            let bytes = all.slice((range.start - start) as usize..(range.end - start) as usize);
            match self.index.verify(block, &bytes) {
                Ok(()) => {
                    let permit = permit.split(bytes.len());
                    let item = Item::Block(Block { offset: range.start, bytes, shared });
                    self.inner.complete(key, &item, permit);
                }
                Err(error) => self.inner.fail(&key, &error.into()),
            }
            self.blocks.start += 1;
        }
    }

    fn fail(&mut self, error: &LoadError) {
        for block in std::mem::take(&mut self.blocks) {
            self.inner.fail(&Key::block(&self.index, block), error);
        }
    }
}

impl Drop for BlockLoad {
    fn drop(&mut self) {
        self.fail(&LoadError::GivenUp);
    }
}
