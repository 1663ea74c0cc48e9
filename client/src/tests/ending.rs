//! How writers end, and what stores remember of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::clock::ManualClock;
use common::{EventNumber, Offset, Rng};

use super::fake::Fake;
use super::{STREAM, append, check, config, read_all, start, stream};
use crate::{Client, ClientError, ErrorKind, SegmentSet};

/// Writers that the segments of the stream remember more of than that they were there.
fn remembered(fake: &Fake) -> usize {
    fake.with(STREAM, |store| {
        let writers = store.segments.values().flat_map(|segment| segment.writers.values());
        writers.filter(|entry| !entry.forgotten).count()
    })
}

/// Waits for something that happens by itself; only a test that fails waits for long.
async fn soon(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it happens");
}

#[tokio::test]
async fn stores_forget_an_anonymous_writer_at_its_end_but_no_named_one() {
    let (fake, client) = start(3).await;
    let writer = client.event_writer(&stream()).open().await.unwrap();
    append(&writer, 0, 100).await;
    writer.flush().await.unwrap();
    assert_eq!(remembered(&fake), 3);
    writer.close().await.unwrap();
    assert_eq!(remembered(&fake), 0, "its close has waited for that");
    let mut named = super::naming::replays(&client).await.unwrap();
    super::replay(&mut named, 0, 100).await;
    named.close().await.unwrap();
    assert_eq!(remembered(&fake), 3);
}

#[tokio::test]
async fn stores_forget_a_writer_whose_last_clone_is_dropped() {
    let (fake, client) = start(2).await;
    let writer = client.event_writer(&stream()).open().await.unwrap();
    append(&writer, 0, 100).await;
    writer.flush().await.unwrap();
    let clone = writer.clone();
    drop(writer);
    append(&clone, 100, 200).await;
    clone.flush().await.unwrap();
    assert_eq!(remembered(&fake), 2);
    drop(clone);
    soon(|| remembered(&fake) == 0).await;
}

#[tokio::test]
async fn a_close_does_not_wait_for_a_store_that_is_away() {
    let (fake, client) = start(1).await;
    let writer = client.event_writer(&stream()).open().await.unwrap();
    append(&writer, 0, 10).await;
    writer.flush().await.unwrap();
    fake.set_down(true);
    let closed = tokio::time::timeout(Duration::from_secs(20), writer.close());
    assert_eq!(closed.await.unwrap().unwrap(), EventNumber(10));
}

#[tokio::test]
async fn stores_forget_a_raw_writer_at_its_end() {
    let (fake, client) = start(1).await;
    let place = client.streams().segments(&stream(), SegmentSet::Active).await.unwrap();
    for closes in [true, false] {
        let mut writer = client.segment_writer(&place.segments[0]);
        writer.append(Bytes::from_static(b"bytes"), None).await.unwrap();
        assert_eq!(remembered(&fake), 1);
        if closes {
            writer.close().await;
            assert_eq!(remembered(&fake), 0, "its close has waited for that");
        } else {
            drop(writer);
            soon(|| remembered(&fake) == 0).await;
        }
    }
}

/// A client by a clock that the test moves, with a writer of which 100 events are stored.
async fn sleeper(fake: &Fake) -> (Arc<ManualClock>, Client, crate::EventWriter) {
    let clock = Arc::new(ManualClock::default());
    let by = clock.clone();
    let client = Client::connect_by(config(fake), Rng::from_seed(1), by).await.unwrap();
    let writer = client.event_writer(&stream()).open().await.unwrap();
    append(&writer, 0, 100).await;
    writer.flush().await.unwrap();
    (clock, client, writer)
}

#[tokio::test]
async fn a_process_that_slept_for_longer_than_it_is_kept_goes_on() {
    for trace in [true, false] {
        let fake = Fake::start().await;
        fake.create(STREAM, 2);
        fake.with(STREAM, |store| store.writer_kept_micros = 60_000_000);
        let (clock, client, writer) = sleeper(&fake).await;
        clock.sleep(Duration::from_secs(61));
        fake.with(STREAM, |store| store.forget_writers(trace));
        append(&writer, 100, 200).await;
        assert_eq!(writer.close().await.unwrap(), EventNumber(200));
        check(&read_all(&client).await, 0, 200);
    }
}

#[tokio::test]
async fn a_store_that_lost_every_trace_of_a_writer_that_was_there_just_now_has_lost_data() {
    let fake = Fake::start().await;
    fake.create(STREAM, 2);
    let (_clock, _client, writer) = sleeper(&fake).await;
    fake.with(STREAM, |store| store.forget_writers(false));
    fake.break_connections();
    append(&writer, 100, 200).await;
    let error = writer.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataDamaged, "{error}");
}

#[tokio::test]
async fn a_named_writer_without_a_trace_is_told_however_late_and_however_long_the_segment_is() {
    let fake = Fake::start().await;
    fake.create(STREAM, 2);
    let clock = Arc::new(ManualClock::default());
    let by = clock.clone();
    let client = Client::connect_by(config(&fake), Rng::from_seed(1), by).await.unwrap();
    let mut writer = super::naming::replays(&client).await.unwrap();
    super::replay(&mut writer, 0, 100).await;
    writer.flush().await.unwrap();
    clock.sleep(Duration::from_secs(61));
    fake.with(STREAM, |store| store.forget_writers(false));
    fake.break_connections();
    let other = client.event_writer(&stream()).open().await.unwrap();
    append(&other, 100, 200).await;
    other.flush().await.unwrap();
    super::replay(&mut writer, 200, 300).await;
    let error = writer.flush().await.unwrap_err();
    assert!(matches!(error, ClientError::DataLost { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::DataDamaged);
}

#[tokio::test]
async fn a_raw_writer_without_a_trace_has_lost_data_unless_it_was_away_for_long() {
    for (away, goes_on) in [(9, false), (11, true)] {
        let fake = Fake::start().await;
        fake.create(STREAM, 1);
        fake.with(STREAM, |store| store.writer_kept_micros = 10_000_000);
        let clock = Arc::new(ManualClock::default());
        let by = clock.clone();
        let client = Client::connect_by(config(&fake), Rng::from_seed(1), by).await.unwrap();
        let place = fake.with(STREAM, |store| store.active()[0].clone());
        let mut writer = client.segment_writer(&place);
        writer.append(Bytes::from_static(b"one"), None).await.unwrap();
        fake.with(STREAM, |store| store.forget_writers(false));
        fake.break_connections();
        clock.sleep(Duration::from_secs(away));
        let appended = writer.append(Bytes::from_static(b" two"), None).await;
        let kind = appended.map_err(|error| error.kind());
        assert_eq!(kind, if goes_on { Ok(Offset(7)) } else { Err(ErrorKind::DataDamaged) });
    }
}
