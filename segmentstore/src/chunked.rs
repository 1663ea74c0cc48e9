//! A queue whose items are saved in chunks, so that saving costs what was added and not what is
//! there.
//!
//! Items have ordinals that count up for ever within one queue; a chunk holds the items of
//! [`CHUNK_ITEMS`] ordinals. A chunk is encoded once when it is full, and the last, partly filled
//! one at each save. Items leave at the front; a chunk is removed when its last item has left. An
//! item that left but whose chunk is still saved comes back on restore: the owner drops it again,
//! because what keeps an item is the owner's own state (the segment's start offset). Several items
//! may become one; those behind them move up and are saved again.

use std::collections::VecDeque;

use bytes::BufMut;

use crate::codec::{CodecError, Fields, PutFields};

/// Items of one saved record.
pub(crate) const CHUNK_ITEMS: u64 = 64;

/// An item of a fixed size in a chunk.
pub(crate) trait ChunkItem: Copy {
    const BYTES: usize;
    fn put(&self, out: &mut Vec<u8>);
    fn take(fields: &mut Fields<'_>) -> Result<Self, CodecError>;
}

/// The queue.
#[derive(Debug, Clone)]
pub(crate) struct Chunked<T> {
    items: VecDeque<T>,
    /// The ordinal of the first item.
    first: u64,
    /// The lowest ordinal that was added or changed since the last save.
    unsaved: u64,
}

/// What became of a chunk: its number, and its bytes or nothing where it is to be removed.
pub(crate) type ChunkChange = (u64, Option<Vec<u8>>);

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), first: 0, unsaved: 0 }
    }
}

impl<T: ChunkItem> Chunked<T> {
    pub(crate) fn items(&self) -> &VecDeque<T> {
        &self.items
    }

    pub(crate) fn last(&self) -> Option<&T> {
        self.items.back()
    }

    /// The last item, to be changed.
    pub(crate) fn last_mut(&mut self) -> Option<&mut T> {
        self.unsaved = self.unsaved.min(self.next().saturating_sub(1));
        self.items.back_mut()
    }

    fn next(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    /// Adds an item and gives back the chunk that became full before it, if one did: from now on it
    /// only loses items.
    pub(crate) fn push(&mut self, item: T) -> Option<ChunkChange> {
        let ordinal = self.next();
        let full = ordinal.is_multiple_of(CHUNK_ITEMS) && ordinal > self.unsaved;
        let change = full.then(|| self.encoded(ordinal / CHUNK_ITEMS - 1));
        if full {
            self.unsaved = ordinal;
        }
        self.items.push_back(item);
        change
    }

    /// Takes the first item; a chunk that has none left is given to `removed`.
    pub(crate) fn pop_front(&mut self, mut removed: impl FnMut(ChunkChange)) -> Option<T> {
        let item = self.items.pop_front()?;
        self.first += 1;
        if self.first.is_multiple_of(CHUNK_ITEMS) {
            removed((self.first / CHUNK_ITEMS - 1, None));
        }
        self.unsaved = self.unsaved.max(self.first);
        Some(item)
    }

    /// Drops items from the front for as long as `gone` says so; chunks without items are given to
    /// `removed`. Returns how many items were dropped.
    pub(crate) fn drop_front(
        &mut self,
        mut gone: impl FnMut(&T) -> bool,
        mut removed: impl FnMut(ChunkChange),
    ) -> usize {
        let mut count = 0;
        while self.items.front().is_some_and(&mut gone) {
            self.pop_front(&mut removed);
            count += 1;
        }
        count
    }

    /// Puts `item` in the place of the `count` items from the `at`-th on, one at least. Full chunks
    /// that are other ones now, and those that are no more, are given to `changed`.
    pub(crate) fn splice(
        &mut self,
        at: usize,
        count: usize,
        item: T,
        mut changed: impl FnMut(ChunkChange),
    ) {
        assert!(
            count > 0 && count <= self.items.len() - at,
            "only items that are there are put together"
        );
        let last_before = (self.next() - 1) / CHUNK_ITEMS;
        self.items[at] = item;
        self.items.drain(at + 1..at + count);
        let last = (self.next() - 1) / CHUNK_ITEMS;
        let moved = self.unsaved.min(self.first + at as u64);
        (moved / CHUNK_ITEMS..last).for_each(|chunk| changed(self.encoded(chunk)));
        (last + 1..=last_before).for_each(|chunk| changed((chunk, None)));
        self.unsaved = moved.max(last * CHUNK_ITEMS);
    }

    /// Takes the items of the first chunk out, so that what is saved of it goes with them.
    pub(crate) fn take_first_chunk(&mut self, removed: impl FnMut(ChunkChange)) -> Vec<T> {
        let mut left = CHUNK_ITEMS - self.first % CHUNK_ITEMS;
        let mut taken = Vec::with_capacity(left as usize);
        let take = |item: &T| {
            let takes = left > 0;
            if takes {
                left -= 1;
                taken.push(*item);
            }
            takes
        };
        self.drop_front(take, removed);
        taken
    }

    /// Drops everything; the numbers of all chunks that may be saved are given to `removed`.
    pub(crate) fn clear(&mut self, mut removed: impl FnMut(ChunkChange)) {
        let next = self.next();
        for chunk in self.first / CHUNK_ITEMS..next.div_ceil(CHUNK_ITEMS) {
            removed((chunk, None));
        }
        self.items.clear();
        (self.first, self.unsaved) = (next, next);
    }

    /// The last chunk, where it changed since the last save.
    pub(crate) fn save(&mut self) -> Option<ChunkChange> {
        let next = self.next();
        if self.unsaved >= next {
            return None;
        }
        self.unsaved = next;
        Some(self.encoded((next - 1) / CHUNK_ITEMS))
    }

    /// ordinal of the first item u64 | count u32 | items
    fn encoded(&self, chunk: u64) -> ChunkChange {
        let start = self.first.max(chunk * CHUNK_ITEMS);
        let end = self.next().min((chunk + 1) * CHUNK_ITEMS);
        let mut out = Vec::with_capacity(1 + 12 + (end - start) as usize * T::BYTES);
        out.put_u8(VERSION);
        out.put_u64_le(start);
        out.put_count((end - start) as usize);
        for item in self.items.range((start - self.first) as usize..(end - self.first) as usize) {
            item.put(&mut out);
        }
        (chunk, Some(out))
    }

    /// Takes over the next saved chunk; chunks come in order.
    pub(crate) fn restore(&mut self, value: &[u8]) -> Result<(), CodecError> {
        let mut fields = Fields::new(value);
        let version = fields.u8("version")?;
        if version != VERSION {
            return Err(CodecError::Version(version));
        }
        let start = fields.u64("first ordinal")?;
        let count = fields.count(CHUNK_ITEMS as usize, T::BYTES, "items")?;
        if self.items.is_empty() {
            self.first = start;
        } else if start != self.next() {
            return Err(CodecError::Impossible { field: "first ordinal", value: start });
        }
        for _ in 0..count {
            self.items.push_back(T::take(&mut fields)?);
        }
        self.unsaved = self.next();
        fields.end()
    }
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl ChunkItem for u64 {
        const BYTES: usize = 8;

        fn put(&self, out: &mut Vec<u8>) {
            out.put_u64_le(*self);
        }

        fn take(fields: &mut Fields<'_>) -> Result<Self, CodecError> {
            fields.u64("item")
        }
    }

    fn store(saved: &mut BTreeMap<u64, Vec<u8>>, (chunk, value): ChunkChange) {
        match value {
            Some(value) => saved.insert(chunk, value),
            None => saved.remove(&chunk),
        };
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Change,
        Drop(u8),
        /// From where on, of 255 parts, and how many.
        Splice(u8, u8),
        Clear,
        Save,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => any::<u8>().prop_map(Step::Push),
            2 => Just(Step::Change),
            3 => any::<u8>().prop_map(Step::Drop),
            3 => (any::<u8>(), 1_u8..=255).prop_map(|(at, count)| Step::Splice(at, count)),
            1 => Just(Step::Clear),
            3 => Just(Step::Save),
        ]
    }

    proptest! {
        #[test]
        fn what_was_saved_restores_to_the_items_that_are_left(
            steps in proptest::collection::vec(step(), 1..60),
        ) {
            let (mut chunked, mut saved, mut value) = (Chunked::default(), BTreeMap::new(), 0_u64);
            let (mut lowest, mut model) = (0, Vec::new());
            for step in steps.into_iter().chain([Step::Save]) {
                match step {
                    Step::Push(count) => for _ in 0..count {
                        value += 2;
                        model.push(value);
                        if let Some(change) = chunked.push(value) {
                            store(&mut saved, change);
                        }
                    },
                    Step::Change => if let Some(last) = chunked.last_mut() {
                        *last |= 1;
                        *model.last_mut().unwrap() |= 1;
                    },
                    Step::Splice(part, count) => {
                        let items = chunked.items().len();
                        if items == 0 {
                            continue;
                        }
                        let at = (items - 1) * usize::from(part) / 255;
                        let count = usize::from(count).min(items - at);
                        let item = chunked.items()[at + count - 1];
                        chunked.splice(at, count, item, |c| store(&mut saved, c));
                        model.splice(at..at + count, [item]);
                    }
                    Step::Drop(count) => {
                        let back = chunked.last().copied().unwrap_or(0);
                        let front = chunked.items().front().copied().unwrap_or(0);
                        lowest = lowest.max((front + u64::from(count) * 2).min(back + 1));
                        chunked.drop_front(|item| *item < lowest, |c| store(&mut saved, c));
                        model.retain(|item| *item >= lowest);
                    }
                    Step::Clear => {
                        lowest = value + 2;
                        chunked.clear(|change| store(&mut saved, change));
                        model.clear();
                    }
                    Step::Save => {
                        if let Some(change) = chunked.save() {
                            store(&mut saved, change);
                        }
                        let mut restored = Chunked::<u64>::default();
                        for value in saved.values() {
                            restored.restore(value).unwrap();
                        }
                        restored.drop_front(|item| *item < lowest, |_| {});
                        prop_assert_eq!(restored.items(), chunked.items());
                        // Going on from the restored queue must be possible at any time.
                        if !restored.items().is_empty() {
                            chunked = restored;
                        }
                    }
                }
                prop_assert!(chunked.items().iter().eq(&model));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Chunked::<u64>::default().restore(&bytes);
        }
    }
}
