//! What jobs hold in memory, counted by a bucket that knows which of its answers are still held.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use lts::{Altered, Error, Payload};

use super::*;

/// Bytes at a time, and the most there were.
#[derive(Debug, Default)]
struct Level {
    now: AtomicU64,
    most: AtomicU64,
}

impl Level {
    fn add(&self, bytes: u64) {
        let now = self.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.most.fetch_max(now, Ordering::Relaxed);
    }

    fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

/// An answer; its memory is free when the last slice of it is gone.
struct Answer {
    bytes: Bytes,
    level: Arc<Level>,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.level.now.fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Counting {
    inner: Memory,
    answers: Arc<Level>,
    /// What the jobs say they hold, whenever they ask for something.
    held: Held,
    said: Arc<Level>,
}

/// While an answer is on its way others are asked for.
async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        match std::mem::replace(&mut paused, true) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}

impl Counting {
    fn look(&self) {
        self.said.most.fetch_max(self.held.bytes(), Ordering::Relaxed);
    }
}

impl Altered for Counting {
    fn inner(&self) -> &dyn Bucket {
        &self.inner
    }

    fn put<'a>(
        &'a self,
        path: &'a ObjectPath,
        payload: Payload,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.look();
        self.inner.put(path, payload)
    }

    fn get<'a>(
        &'a self,
        path: &'a ObjectPath,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>> {
        Box::pin(async move {
            self.look();
            let bytes = self.inner.get(path, range).await?;
            self.answers.add(bytes.len() as u64);
            pause().await;
            Ok(Bytes::from_owner(Answer { bytes, level: self.answers.clone() }))
        })
    }
}

/// A bucket that counts, with the answers that are held and what is said of it.
fn counting() -> (Storage, Arc<Level>, Arc<Level>) {
    let (mut storage, inner) = storage();
    let (answers, said) = (Arc::new(Level::default()), Arc::new(Level::default()));
    storage.bucket = Arc::new(Counting {
        inner,
        answers: answers.clone(),
        held: storage.held.clone(),
        said: said.clone(),
    });
    (storage, answers, said)
}

/// The pieces of segments that are written to now and then, each in some of the objects, with far
/// more of others' bytes in between.
fn out_of_phase(storage: &Storage, objects: u64, segments: u128) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut positions = vec![0; segments as usize];
    for index in 1..=objects {
        let owners = (0..segments).flat_map(|segment| {
            let due = (segment as u64 + index).is_multiple_of(3);
            [(2 * segment, 15_000), (2 * segment + 1, if due { 100 } else { 0 })]
        });
        let owners: Vec<(u128, usize)> = owners.collect();
        let round = put_round(storage, index, &owners);
        let mut start = 0;
        for (owner, bytes) in owners {
            let bytes = bytes as u32;
            if owner % 2 == 1 && bytes > 0 {
                let rested = round.locate(LogIndex(index), start, bytes).unwrap();
                let position = &mut positions[owner as usize / 2];
                pieces.push(Piece { owner, position: *position, rested, bytes });
                *position += u64::from(bytes);
            }
            start += bytes;
        }
    }
    pieces.sort_by_key(|piece| (piece.owner, piece.position));
    pieces
}

#[test]
fn a_compaction_of_bytes_that_lie_far_apart_has_in_memory_what_it_may() {
    let (mut storage, answers, said) = counting();
    storage.settings.compaction_bytes_max = ByteSize::kib(512);
    let pieces = out_of_phase(&storage, 12, 100);
    let wanted: u64 = pieces.iter().map(|piece| u64::from(piece.bytes)).sum();
    let compacted = compact(&storage, pieces).unwrap();
    let copied: u64 = compacted.moved.iter().map(|moved| u64::from(moved.bytes)).sum();
    assert_eq!((copied, compacted.moved.len()), (wanted, 100));
    let (answers, said) = (answers.most(), said.most());
    assert!(answers > 200_000, "what lies near is read at once: {answers}");
    assert!(answers <= 512 << 10, "{answers} bytes of answers are held");
    assert!(said >= answers && said <= 1 << 20, "{said} bytes are counted");
    assert_eq!(storage.held.bytes(), 0);
}

#[test]
fn a_piece_that_is_longer_than_a_read_is_put_together_of_several() {
    let (mut storage, answers, _) = counting();
    storage.settings.compaction_bytes_max = ByteSize::kib(64);
    let pieces = pieces(&storage, 100_000);
    let compacted = compact(&storage, pieces).unwrap();
    assert!(compacted.moved.iter().all(|moved| moved.bytes == 1_000_000));
    assert!(answers.most() <= 64 << 10);
}

#[test]
fn a_compaction_that_fails_gives_back_what_it_held() {
    let (storage, _, _) = counting();
    let mut pieces = pieces(&storage, 100);
    pieces[5].rested.crc ^= 1;
    compact(&storage, pieces).unwrap_err();
    assert_eq!(storage.held.bytes(), 0);
}

#[test]
fn a_plan_is_cut_where_its_pieces_would_take_too_much_memory() {
    let (storage, _) = storage();
    let pieces = pieces(&storage, 100);
    let cut = |bytes| CompactionPlan { pieces: pieces.clone() }.up_to(bytes).pieces.len();
    let one = 100 + Piece::COST;
    assert_eq!((cut(u64::MAX), cut(5 * one), cut(5 * one - 1), cut(0)), (30, 5, 4, 2));
}
