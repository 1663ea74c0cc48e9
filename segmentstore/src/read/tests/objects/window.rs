use super::*;

/// A segment of `runs` runs of a mebibyte in one object.
fn shelf_of(runs: usize, ahead: usize) -> Shelf {
    let mut shelf = Shelf::with(0, ahead, Some(Tasks::new()));
    for _ in 0..runs {
        shelf.append_pattern(MIB);
    }
    shelf.rest(runs, 60 << 20, true);
    shelf
}

/// Bytes that the bucket was asked for, of payload, since the last time.
fn asked(shelf: &Shelf) -> usize {
    shelf.bucket.take_gets().iter().map(|range| (range.end - range.start) as usize).sum()
}

#[tokio::test]
async fn the_window_of_a_sequential_reader_doubles_up_to_16_mebibytes_and_is_read_in_large_pieces()
{
    let shelf = shelf_of(50, 64 * MIB);
    let mut reader = shelf.reader(0, None);
    let (mut windows, mut fetched) = (Vec::new(), Vec::new());
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.next().await.unwrap() {
        bytes.extend_from_slice(&chunk.data);
        windows.push(reader.objects.as_ref().unwrap().window().unwrap() / MIB);
        tokio::task::yield_now().await;
        fetched.extend(shelf.bucket.take_gets());
    }
    windows.dedup();
    assert_eq!(windows, [1, 2, 4, 8, 16]);
    assert_eq!(bytes, shelf.all);
    let total: u64 = fetched.iter().map(|range| range.end - range.start).sum();
    assert_eq!(total as usize, shelf.all.len() + 5_000, "each block once");
    assert!(fetched.len() <= 22, "{} gets: {fetched:?}", fetched.len());
    assert!(fetched.iter().all(|range| range.end - range.start <= 5 << 20));
    assert_eq!(shelf.metrics().object_ahead_bytes.get(), 0);
}

#[tokio::test]
async fn a_read_of_one_event_reads_one_block() {
    let shelf = shelf_of(20, 64 * MIB);
    shelf.read(5_000_000, Some(5_001_000)).await;
    assert!(asked(&shelf) <= MIB + 5_000);
}

#[tokio::test]
async fn many_readers_of_one_object_read_each_block_once() {
    let shelf = shelf_of(30, 64 * MIB);
    let readers = (0..8).map(|_| async { shelf.read(0, None).await });
    for bytes in futures::future::join_all(readers).await {
        assert_eq!(bytes, shelf.all);
    }
    assert_eq!(asked(&shelf), shelf.all.len() + 5_000);
    assert!(shelf.metrics().object_cache_hits.get() > 0);
}

#[tokio::test]
async fn many_readers_far_apart_stay_within_a_small_budget() {
    let shelf = shelf_of(40, 20 * MIB);
    let readers = (0..20).map(|reader| {
        let from = reader * 2 * MIB as u64;
        let shelf = &shelf;
        async move { (from, shelf.read(from, Some(from + 3_000_000)).await) }
    });
    for (from, bytes) in futures::future::join_all(readers).await {
        let end = shelf.all.len().min(from as usize + 3_000_000);
        assert_eq!(bytes, shelf.all[from as usize..end]);
    }
}

#[tokio::test]
async fn a_reader_dropped_in_the_middle_leaves_the_others_what_they_wait_for() {
    let shelf = shelf_of(20, 64 * MIB);
    let mut gone = shelf.reader(0, None);
    for _ in 0..6 {
        gone.next().await.unwrap();
    }
    shelf.bucket.hold(true);
    let mut other = shelf.reader(3 << 20, None);
    {
        let mut dropped = shelf.reader(3 << 20, None);
        let mut waiting = pin!(dropped.next());
        let _perhaps = poll!(&mut waiting);
    }
    drop(gone);
    let mut next = Box::pin(read_all(&mut other));
    let _perhaps = poll!(&mut next);
    shelf.bucket.hold(false);
    assert_eq!(next.await.unwrap(), shelf.all[3 << 20..]);
    assert_eq!(asked(&shelf), shelf.all.len() + 5_000, "nothing was read twice");
}

#[tokio::test]
async fn small_extents_of_many_objects_are_sent_together_once_they_are_there() {
    let mut shelf = Shelf::new(0);
    for _ in 0..50 {
        shelf.append_pattern(500);
        shelf.rest(1, 1 << 20, false);
    }
    assert_eq!(shelf.read(0, None).await, shelf.all);
    let mut reader = shelf.reader(0, None);
    let chunk = reader.next().await.unwrap().unwrap();
    assert_eq!(chunk.data.len(), 25_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_on_several_threads_read_what_was_stored_in_little_memory() {
    let mut shelf = Shelf::with(0, 20 * MIB, Some(Tasks::new()));
    for i in 0..120 {
        shelf.append_pattern(1 + (i * 7_919) % 400_000);
    }
    for _ in 0..4 {
        shelf.rest(30, 3 << 20, true);
    }
    let (all, mut rng) = (Arc::new(shelf.all.clone()), Rng::from_seed(7));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let from = rng.below(all.len() as u64);
        let mut reader = shelf.reader(from, None);
        // Some go away under way.
        let (messages, all) = (1 + rng.below(40), all.clone());
        readers.spawn(async move {
            let mut at = from as usize;
            for _ in 0..messages {
                let Some(chunk) = reader.next().await.unwrap() else { break };
                assert!(chunk.data[..] == all[at..at + chunk.data.len()]);
                at += chunk.data.len();
            }
        });
    }
    while let Some(read) = readers.join_next().await {
        read.unwrap();
    }
    assert!(shelf.metrics().object_ahead_bytes.get() <= 20 * MIB as u64);
}
