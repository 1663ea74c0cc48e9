//! Named writers: what their numbers mean, and the proof that a source is the one that was stored.

use common::{EventNumber, Rng, WriterName};

use super::fake::Fake;
use super::{STREAM, append, check, config, key_of, read_all, replay, start, stream};
use crate::{Client, ClientError, ErrorKind, Event, EventWriter, Reason, ReplayWriter, Result};

fn name() -> WriterName {
    WriterName::new("loader").unwrap()
}

pub(super) async fn replays(client: &Client) -> Result<ReplayWriter> {
    client.event_writer(&stream()).named(name()).replays().open().await
}

async fn continues(client: &Client) -> Result<EventWriter> {
    client.event_writer(&stream()).named(name()).continues().open().await
}

/// Appends events as [`replay`] does, but for one, whose payload is another.
async fn replay_with_another(
    writer: &mut ReplayWriter,
    to: u64,
    other: u64,
) -> Result<EventNumber> {
    let mut last = EventNumber::NONE;
    for i in 0..to {
        let payload = if i == other { "other".to_owned() } else { i.to_string() };
        let key = key_of(i);
        let event = Event::new(&payload).key(&key);
        last = writer.append(event).await?;
    }
    Ok(last)
}

/// The segment that holds what key number `i` has, and what is stored there of the only writer.
fn holder_of(fake: &Fake, i: u64) -> (common::SegmentId, u64) {
    let position = common::routing::position_of_key(&key_of(i));
    fake.with(STREAM, |store| {
        let owner = store.active().into_iter().find(|place| place.range.contains(position));
        let segment = &store.segments[&owner.unwrap().segment];
        (segment.place.segment, segment.writers.values().map(|entry| entry.last).max().unwrap())
    })
}

#[tokio::test]
async fn a_writer_that_continues_numbers_on_behind_the_highest_stored_number() {
    let (_fake, client) = start(3).await;
    let first = continues(&client).await.unwrap();
    assert_eq!((first.next_number(), first.stored_through()), (EventNumber(1), EventNumber::NONE));
    append(&first, 0, 10).await;
    first.close().await.unwrap();
    let second = continues(&client).await.unwrap();
    assert_eq!(second.stored_through(), EventNumber(10));
    append(&second, 10, 20).await;
    assert_eq!(second.close().await.unwrap(), EventNumber(20));
    check(&read_all(&client).await, 0, 20);
}

#[tokio::test]
async fn a_name_keeps_the_mode_that_it_was_first_used_in() {
    let (_fake, client) = start(1).await;
    replays(&client).await.unwrap().close().await.unwrap();
    let error = continues(&client).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Conflict, Some(Reason::WriterMode)));
    replays(&client).await.unwrap();
}

#[tokio::test]
async fn a_source_with_another_event_is_found_out_and_nothing_goes_where_that_event_is() {
    for other in [0, 57, 99] {
        let (fake, client) = start(3).await;
        let mut writer = replays(&client).await.unwrap();
        replay(&mut writer, 0, 100).await;
        writer.close().await.unwrap();
        let (segment, number) = holder_of(&fake, other);
        let bytes = || fake.with(STREAM, |store| store.segments[&segment].bytes.len());
        let before = bytes();

        let mut writer = replays(&client).await.unwrap();
        let error = replay_with_another(&mut writer, 300, other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OtherSource, "{error}");
        let ClientError::SourceDiffers { segment: told, number: at, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!((*told, at.0), (segment, number), "{error}");
        assert_eq!(writer.flush().await.unwrap_err(), error);
        assert_eq!(writer.close().await.unwrap_err(), error);
        assert_eq!(bytes(), before, "nothing was sent there");
    }
}

#[tokio::test]
async fn a_source_with_two_events_exchanged_is_found_out() {
    let (_fake, client) = start(1).await;
    let mut writer = replays(&client).await.unwrap();
    for payload in ["one", "two", "three"] {
        writer.append(Event::new(payload).key("k")).await.unwrap();
    }
    writer.close().await.unwrap();
    let mut writer = replays(&client).await.unwrap();
    writer.append(Event::new("two").key("k")).await.unwrap();
    writer.append(Event::new("one").key("k")).await.unwrap();
    let error = writer.append(Event::new("three").key("k")).await.unwrap_err();
    assert!(matches!(error, ClientError::SourceDiffers { .. }), "{error}");
}

#[tokio::test]
async fn a_source_that_ends_before_what_is_stored_proves_nothing() {
    let (_fake, client) = start(3).await;
    let mut writer = replays(&client).await.unwrap();
    replay(&mut writer, 0, 100).await;
    writer.close().await.unwrap();
    let mut writer = replays(&client).await.unwrap();
    replay(&mut writer, 0, 60).await;
    assert!(writer.acknowledged() < EventNumber(60), "not all of it is proven");
    let error = writer.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OtherSource, "{error}");
    let ClientError::SourceEnds { number, end, .. } = error else { panic!("{error}") };
    assert_eq!((number, end), (EventNumber(100), EventNumber(60)));
    // It may go on.
    replay(&mut writer, 60, 100).await;
    assert_eq!(writer.flush().await.unwrap(), EventNumber(100));
    assert_eq!((writer.acknowledged(), writer.already_stored()), (EventNumber(100), 100));
    let again = replays(&client).await.unwrap();
    let error = again.close().await.unwrap_err();
    assert!(matches!(error, ClientError::SourceEnds { .. }), "no input at all: {error}");
    check(&read_all(&client).await, 0, 100);
}

#[tokio::test]
async fn a_source_is_proven_over_segments_that_were_replaced_and_truncated_meanwhile() {
    let (fake, client) = start(2).await;
    let mut writer = replays(&client).await.unwrap();
    replay(&mut writer, 0, 100).await;
    writer.flush().await.unwrap();
    fake.with(STREAM, |store| {
        let old = store.active()[0].clone();
        let successors = store.successors(std::slice::from_ref(&old), 3);
        store.seal(old.segment, successors);
    });
    replay(&mut writer, 100, 200).await;
    writer.flush().await.unwrap();
    fake.with(STREAM, |store| {
        let old = store.active();
        let merged = store.successors(&old, 1);
        old.iter().for_each(|place| store.seal(place.segment, merged.clone()));
        store.truncate_to_active();
    });
    replay(&mut writer, 200, 300).await;
    drop(writer);

    let mut writer = replays(&client).await.unwrap();
    let stored = writer.stored_through().0;
    assert!((200..=300).contains(&stored), "{stored}");
    let error = replay_with_another(&mut writer, 400, 3).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OtherSource, "{error}");
    let mut writer = replays(&client).await.unwrap();
    replay(&mut writer, 0, 400).await;
    assert_eq!(writer.close().await.unwrap(), EventNumber(400));
    let mut events = read_all(&client).await;
    events.retain(|(_, number)| *number >= 200);
    check(&events, 200, 400);
}

#[tokio::test]
async fn a_resumed_batch_with_other_edges_is_refused() {
    let (_fake, client) = start(2).await;
    let mut writer = replays(&client).await.unwrap();
    writer.append_batch("k", &[Event::new("1"), Event::new("2")]).await.unwrap();
    writer.close().await.unwrap();
    let mut writer = replays(&client).await.unwrap();
    let larger = [Event::new("1"), Event::new("2"), Event::new("3")];
    let error = writer.append_batch("k", &larger).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    assert!(error.to_string().contains("stored up to 2"), "{error}");
    // It took no number; the batch as it was is known.
    assert_eq!(writer.append_batch("k", &larger[..2]).await.unwrap(), EventNumber(2));
    assert_eq!(writer.append_batch("k", &larger[2..]).await.unwrap(), EventNumber(3));
    writer.close().await.unwrap();
    assert_eq!(read_all_payloads(&client).await, ["1", "2", "3"]);
}

async fn read_all_payloads(client: &Client) -> Vec<String> {
    let reader = client.event_reader(&stream());
    let reader = reader.from(crate::ReadFrom::Head).until(crate::ReadUntil::Tail);
    let mut reader = reader.open().await.unwrap();
    let mut payloads = Vec::new();
    while let Some(event) = reader.next().await {
        payloads.push(String::from_utf8(event.unwrap().payload.to_vec()).unwrap());
    }
    payloads
}

/// A name that the controller has just made, in a stream that was brought back, may be known to
/// segments that have ended.
#[tokio::test]
async fn what_a_forgotten_name_stored_is_looked_for_from_the_streams_beginning() {
    let (fake, client) = start(2).await;
    let mut writer = replays(&client).await.unwrap();
    replay(&mut writer, 0, 100).await;
    writer.close().await.unwrap();
    fake.with(STREAM, |store| {
        let old = store.active();
        let merged = store.successors(&old, 1);
        old.iter().for_each(|place| store.seal(place.segment, merged.clone()));
    });
    fake.forget_names();
    let client = Client::connect_with(config(&fake), Rng::from_seed(2)).await.unwrap();
    let mut writer = replays(&client).await.unwrap();
    assert!(writer.registered().created);
    replay(&mut writer, 0, 120).await;
    writer.flush().await.unwrap();
    assert_eq!(writer.already_stored(), 100);
    check(&read_all(&client).await, 0, 120);
}
