use super::*;

#[tokio::test]
async fn blocks_are_whole_runs_of_a_mebibyte_or_more_and_share_what_was_read() {
    let fixture = Fixture::new(10, 300_000, 64 * MIB, 64 * MIB);
    let index = fixture.index().await;
    let sizes: Vec<_> = (0..index.blocks()).map(|b| index.bytes(b..b + 1)).collect();
    assert_eq!(sizes, [1_200_000, 1_200_000, 600_000]);
    fixture.cache.read_ahead(&[(index.clone(), 0..3)], 0);
    let block = fixture.cache.block(&index, 1).await.unwrap();
    assert_eq!(block.bytes[..300_000], pattern(4, 300_000));
    let first = fixture.cache.block(&index, 0).await.unwrap();
    let behind = first.bytes.as_ptr() as usize + first.bytes.len();
    assert_eq!(block.bytes.as_ptr() as usize, behind, "slices of one read");
    assert_eq!(fixture.bucket.take_gets().len(), 1, "neighbours are read at once");
    assert_eq!(index.block_at(0), None, "what is before the payload is in no block");
    assert_eq!(index.block_at(index.range(2..3).end), None);
}

#[tokio::test]
async fn an_extent_must_be_whole_runs_with_the_checksum_that_was_recorded() {
    let fixture = Fixture::new(10, 1_000, 64 * MIB, 64 * MIB);
    let index = fixture.index().await;
    for extent in &fixture.extents {
        assert_eq!(index.check(extent), Ok(()));
    }
    let all = joined(&fixture.extents[2..9]);
    assert_eq!(index.check(&all), Ok(()));
    let mut other = all;
    other.rested.crc ^= 1;
    assert!(matches!(index.check(&other), Err(Mismatch::Checksum { .. })));
    for (begin, bytes) in [(1, 0), (0, 1), (0, u32::MAX - 5_000)] {
        let mut other = all;
        other.rested.offset += begin;
        other.bytes = other.bytes.saturating_add(bytes);
        assert!(matches!(index.check(&other), Err(Mismatch::Tiling { .. })), "{begin} {bytes}");
    }
}

#[tokio::test]
async fn an_index_larger_than_the_hint_is_read_whole() {
    let fixture = Fixture::new(5_000, 3, 64 * MIB, 64 * MIB);
    let index = fixture.index().await;
    assert_eq!(fixture.bucket.count(), 2);
    assert_eq!(index.check(&joined(&fixture.extents)), Ok(()));
    fixture.index().await;
    assert_eq!(fixture.bucket.count(), 2, "it is kept");
    assert!(fixture.metrics.object_cache_bytes.get() > 5_000 * 8);
}

#[tokio::test]
async fn those_who_ask_for_one_block_share_one_read_and_one_who_leaves_takes_nothing_away() {
    let fixture = Fixture::new(2, MIB, 64 * MIB, 64 * MIB);
    let index = fixture.index().await;
    fixture.bucket.take_gets();
    fixture.bucket.hold(true);
    {
        let mut gone = pin!(fixture.cache.block(&index, 0));
        assert!(poll!(&mut gone).is_pending());
    }
    let mut others = Vec::new();
    for _ in 0..20 {
        let mut other = Box::pin(fixture.cache.block(&index, 0));
        assert!(poll!(&mut other).is_pending());
        others.push(other);
    }
    fixture.bucket.hold(false);
    for block in join_all(others).await {
        assert_eq!(block.unwrap().bytes[..], pattern(0, MIB));
    }
    assert_eq!(fixture.bucket.take_gets().len(), 1);
}

#[tokio::test]
async fn a_failure_reaches_all_who_wait_and_is_not_remembered() {
    let fixture = Fixture::new(2, MIB, 64 * MIB, 64 * MIB);
    let index = fixture.index().await;
    let rotten = ObjectPath::from(fixture.object());
    let flip = || assert!(fixture.memory.tamper(&rotten, |bytes| bytes[MIB / 2] ^= 4));
    flip();
    let asked = (0..5).map(|_| fixture.cache.block(&index, 0));
    for block in join_all(asked).await {
        let error = block.unwrap_err();
        assert!(error.to_string().contains(&fixture.object().to_string()), "{error}");
        assert!(!error.is_unavailable());
    }
    // A neighbour that was read with it is not lost with it.
    fixture.cache.read_ahead(&[(index.clone(), 0..2)], 0);
    assert_eq!(fixture.cache.block(&index, 1).await.unwrap().bytes[..], pattern(1, MIB));
    flip();
    assert_eq!(fixture.cache.block(&index, 0).await.unwrap().bytes[..], pattern(0, MIB));
}

#[tokio::test]
async fn reads_that_were_given_up_are_said_to_be_when_the_process_stops() {
    let fixture = Fixture::new(2, MIB, 64 * MIB, 64 * MIB);
    let index = fixture.index().await;
    fixture.bucket.hold(true);
    let mut waiting = pin!(fixture.cache.block(&index, 0));
    assert!(poll!(&mut waiting).is_pending());
    fixture.tasks.stop().await;
    assert!(matches!(waiting.await, Err(LoadError::GivenUp)));
}
