use super::*;

#[tokio::test]
async fn a_reader_that_passes_through_once_does_not_push_out_what_is_used_again() {
    let fixture = Fixture::new(60, MIB, 20 * MIB, 64 * MIB);
    let index = fixture.index().await;
    for _ in 0..3 {
        fixture.pass(&index, 0..8).await;
    }
    // With read-ahead, whose coming and whose use are together one use.
    for block in 8..60 {
        let end = 60.min(block + 4);
        fixture.cache.read_ahead(&[(index.clone(), block..end)], 0);
        fixture.pass(&index, block..block + 1).await;
        assert!(fixture.metrics.object_cache_bytes.get() <= 20 * MIB as u64);
    }
    let left = (0..8).filter(|block| fixture.has(&index, *block)).count();
    assert_eq!(left, 8, "the hot blocks are all there");
    fixture.bucket.take_gets();
    fixture.pass(&index, 0..8).await;
    assert_eq!(fixture.bucket.take_gets(), []);
}

#[tokio::test]
async fn a_block_that_is_used_again_leaves_the_memory_of_its_neighbours() {
    let fixture = Fixture::new(4, MIB, 64 * MIB, 64 * MIB);
    let index = fixture.index().await;
    fixture.cache.read_ahead(&[(index.clone(), 0..4)], 0);
    let place = async |block| fixture.cache.block(&index, block).await.unwrap().bytes.as_ptr();
    let (first, second) = (place(0).await, place(1).await);
    assert_eq!(first as usize + MIB, second as usize, "shared at first");
    let own = place(0).await;
    assert_ne!(own, first);
    assert_eq!(place(0).await, own, "and copied once only");
}

#[tokio::test]
async fn what_is_read_and_was_read_ahead_stays_within_the_budget_and_is_admitted_first() {
    let fixture = Fixture::new(30, MIB, 64 * MIB, 10 * MIB);
    let index = fixture.index().await;
    fixture.bucket.take_gets();
    fixture.bucket.hold(true);
    fixture.cache.read_ahead(&[(index.clone(), 0..30)], 0);
    tokio::task::yield_now().await;
    let gets = fixture.bucket.take_gets();
    let asked: u64 = gets.iter().map(|range| range.end - range.start).sum();
    assert!(asked <= 10 * MIB as u64 && asked >= 8 * MIB as u64, "{asked}");
    // A reader that needs a block waits for the budget, not for ever, though nobody comes for what
    // was read ahead.
    let mut wanted = pin!(fixture.cache.block(&index, 20));
    assert!(poll!(&mut wanted).is_pending());
    let mut also = pin!(fixture.cache.block(&index, 22));
    assert!(poll!(&mut also).is_pending());
    let mut last = pin!(fixture.cache.block(&index, 24));
    assert!(poll!(&mut last).is_pending());
    fixture.bucket.hold(false);
    assert_eq!(wanted.await.unwrap().bytes[..], pattern(20, MIB));
    assert_eq!(also.await.unwrap().bytes[..], pattern(22, MIB));
    assert_eq!(last.await.unwrap().bytes[..], pattern(24, MIB));
}

#[tokio::test]
async fn what_was_read_ahead_for_nobody_gives_way_to_what_is_wanted() {
    let fixture = Fixture::new(30, MIB, 64 * MIB, 4 * MIB);
    let index = fixture.index().await;
    fixture.cache.read_ahead(&[(index.clone(), 0..4)], 0);
    while fixture.metrics.object_ahead_bytes.get() < 4 * MIB as u64 {
        tokio::task::yield_now().await;
    }
    fixture.pass(&index, 10..14).await;
    assert!(fixture.metrics.object_ahead_bytes.get() < 4 * MIB as u64);
    // And what is read ahead later pushes out what was read ahead before.
    fixture.cache.read_ahead(&[(index.clone(), 20..24)], 0);
    while !fixture.has(&index, 23) {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.metrics.object_ahead_bytes.get(), 4 * MIB as u64);
    fixture.pass(&index, 20..24).await;
    assert_eq!(fixture.metrics.object_ahead_bytes.get(), 0);
    assert_eq!(fixture.cache.inner.permits.free_bytes(), 4 * MIB);
}

#[tokio::test]
async fn readers_of_objects_share_half_of_the_budget() {
    let fixture = Fixture::new(1, 10, 64 * MIB, 64 * MIB);
    assert_eq!(fixture.cache.share(), 16 * MIB);
    let seats: Vec<_> = (0..8).map(|_| fixture.cache.join()).collect();
    assert_eq!(fixture.cache.share(), 4 * MIB);
    drop(seats);
    assert_eq!(fixture.cache.share(), 16 * MIB);
}
