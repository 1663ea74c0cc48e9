//! Writers that are shared, acknowledgements of single events, and segments that stand still.

use std::pin::pin;
use std::time::Duration;

use common::routing::position_of_key;
use common::{ByteSize, EventNumber};
use futures::future::join_all;

use super::fake::Fake;
use super::{STREAM, append, check, config, key_of, read_all, soon, start, stream};
use crate::{Client, ClientConfig, ClientError, ErrorKind, Event, EventWriter};

/// A stream of two segments of which the second is at another server, which is away.
async fn half_away(config_of: impl FnOnce(&Fake) -> ClientConfig) -> (Fake, Fake, Client) {
    let fake = Fake::start().await;
    let lost = fake.peer();
    fake.create_at(STREAM, 2, &["", &lost.addr.to_string()]);
    lost.set_down(true);
    let client = Client::connect(config_of(&fake)).await.unwrap();
    (fake, lost, client)
}

/// Keys of the segment that is there and of the one that is away.
fn keys(fake: &Fake) -> (String, String) {
    let places = fake.with(STREAM, |store| store.active());
    let key_of = |segment: usize| {
        let of = |key: &String| places[segment].range.contains(position_of_key(key));
        (0..).map(|i| format!("key-{i}")).find(of).unwrap()
    };
    (key_of(0), key_of(1))
}

fn event<'a>(key: &'a str, payload: &'a [u8]) -> Event<'a> {
    Event::new(payload).key(key)
}

#[tokio::test]
async fn tasks_share_a_writer_and_each_keeps_its_order() {
    let (_fake, client) = start(3).await;
    let writer =
        client.event_writer(&stream()).memory_limit(ByteSize::mib(8)).open().await.unwrap();
    // Numbers of one key come from one task.
    let tasks = (0..13_u64).map(|task| {
        let writer = writer.clone();
        async move {
            for i in (task..13_000).step_by(13) {
                let (key, payload) = (key_of(i), i.to_string());
                writer.append(event(&key, payload.as_bytes())).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    join_all(tasks).await;
    assert_eq!(writer.close().await.unwrap(), EventNumber(13_000));
    check(&read_all(&client).await, 0, 13_000);
}

#[tokio::test]
async fn appends_of_many_tasks_wait_for_memory_and_all_go_on() {
    let (fake, client) = start(1).await;
    let writer =
        client.event_writer(&stream()).memory_limit(ByteSize::mib(8)).open().await.unwrap();
    fake.set_down(true);
    let payload = vec![0; 1 << 20];
    let appends = (0..24).map(|_| {
        let (writer, payload) = (writer.clone(), &payload);
        async move { writer.append(event("k", payload)).await }
    });
    let mut appends = pin!(join_all(appends));
    // Once for each to let others run, once to append.
    assert!(futures::poll!(appends.as_mut()).is_pending());
    assert!(futures::poll!(appends.as_mut()).is_pending());
    assert_eq!(writer.next_number(), EventNumber(8), "as many as there is memory for");
    assert!(writer.outstanding_bytes() <= 8 << 20);
    fake.set_down(false);
    for appended in soon(appends).await {
        appended.unwrap();
    }
    assert_eq!(soon(writer.close()).await.unwrap(), EventNumber(24));
}

#[tokio::test]
async fn an_acknowledgement_waits_for_its_own_segment_only() {
    let (fake, _lost, client) = half_away(config).await;
    let (there, away) = keys(&fake);
    let writer = client.event_writer(&stream()).open().await.unwrap();
    let waits = writer.append_tracked(event(&away, b"one")).await.unwrap();
    let mut comes = writer.append_tracked(event(&there, b"two")).await.unwrap();
    assert_eq!(comes.segment(), fake.with(STREAM, |store| store.active()[0].segment));
    soon(comes).await.unwrap();
    assert_eq!((waits.number(), writer.acknowledged()), (EventNumber(1), EventNumber::NONE));
}

#[tokio::test]
async fn an_acknowledgement_follows_its_event_to_a_successor() {
    let (fake, lost, client) = half_away(config).await;
    let (_, away) = keys(&fake);
    let writer = client.event_writer(&stream()).open().await.unwrap();
    let mut waits = writer.append_tracked(event(&away, b"1")).await.unwrap();
    assert!(futures::poll!(&mut waits).is_pending());
    fake.with(STREAM, |store| {
        let old = store.active()[1].clone();
        let successors = store.successors(std::slice::from_ref(&old), 2);
        store.seal(old.segment, successors);
    });
    lost.set_down(false);
    soon(&mut waits).await.unwrap();
    let stored = fake.with(STREAM, |store| store.segments[&waits.segment()].events.len());
    assert_eq!(stored, 1, "it says where the event is");
}

#[tokio::test]
async fn a_segment_that_stands_still_holds_half_of_the_memory_and_others_go_on() {
    let (fake, lost, client) = half_away(config).await;
    let (there, away) = keys(&fake);
    let writer =
        client.event_writer(&stream()).memory_limit(ByteSize::mib(8)).open().await.unwrap();
    let payload = vec![0; 1 << 20];
    let mut held = 0;
    while writer.try_append(event(&away, &payload)).unwrap().is_some() {
        held += 1;
    }
    assert_eq!(held, 3, "four times a mebibyte and its frame are more than half of eight");
    for _ in 0..50 {
        soon(writer.append(event(&there, &payload))).await.unwrap();
    }
    let clone = writer.clone();
    let mut waits = pin!(clone.append(event(&away, &payload)));
    assert!(futures::poll!(waits.as_mut()).is_pending());
    soon(writer.append(event(&there, &payload))).await.unwrap();
    assert!(futures::poll!(waits.as_mut()).is_pending());
    lost.set_down(false);
    soon(waits).await.unwrap();
    assert_eq!(soon(writer.close()).await.unwrap(), EventNumber(55));
}

async fn impatient() -> (Fake, Fake, EventWriter) {
    let patience = Some(Duration::from_millis(100));
    let impatient = |fake: &Fake| ClientConfig { retry_deadline: patience, ..config(fake) };
    let (fake, lost, client) = half_away(impatient).await;
    let writer = client.event_writer(&stream()).open().await.unwrap();
    (fake, lost, writer)
}

#[tokio::test]
async fn a_segment_that_stands_still_for_too_long_is_given_up_alone() {
    let (fake, lost, writer) = impatient().await;
    let (there, away) = keys(&fake);
    soon(writer.append_tracked(event(&there, b"one")).await.unwrap()).await.unwrap();
    let lost_one = writer.append_tracked(event(&away, b"two")).await.unwrap();
    let error = soon(lost_one).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert!(matches!(error, ClientError::Stalled { .. }), "{error}");
    // Later ones for its keys fail alike, also when the server is there again; others go on.
    lost.set_down(false);
    assert_eq!(writer.append(event(&away, b"three")).await.unwrap_err(), error);
    soon(writer.append_tracked(event(&there, b"four")).await.unwrap()).await.unwrap();
    assert_eq!(soon(writer.flush()).await.unwrap_err(), error);
    assert_eq!(writer.acknowledged(), EventNumber(1), "never past an event that was given up");
    assert_eq!(writer.outstanding_bytes(), 0);
}

#[tokio::test]
async fn a_flush_with_a_deadline_says_what_is_missing_and_the_writer_goes_on() {
    let (fake, lost, client) = half_away(config).await;
    let (there, away) = keys(&fake);
    let writer = client.event_writer(&stream()).open().await.unwrap();
    soon(writer.append_tracked(event(&there, b"one")).await.unwrap()).await.unwrap();
    writer.append(event(&away, b"two")).await.unwrap();
    let error = soon(writer.flush_within(Duration::from_millis(20))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let ClientError::NotFlushed { acknowledged, last, .. } = error else { panic!("{error}") };
    assert_eq!((acknowledged, last), (EventNumber(1), EventNumber(2)));
    lost.set_down(false);
    let deadline = Duration::from_secs(20);
    assert_eq!(writer.flush_within(deadline).await.unwrap(), EventNumber(2));
}

#[tokio::test]
async fn writers_that_share_a_connection_get_their_own_answers_after_it_broke() {
    let (fake, client) = start(1).await;
    let first = client.event_writer(&stream()).open().await.unwrap();
    append(&first, 0, 10).await;
    first.flush().await.unwrap();
    let second = client.event_writer(&stream()).open().await.unwrap();
    append(&second, 10, 20).await;
    second.flush().await.unwrap();
    fake.break_connections();
    // On the new connection they ask for sessions in the other order.
    append(&second, 20, 30).await;
    soon(second.flush()).await.unwrap();
    append(&first, 30, 40).await;
    soon(first.flush()).await.unwrap();
    check(&read_all(&client).await, 0, 40);
}

#[tokio::test]
async fn what_a_clone_appends_while_the_writer_is_closed_is_refused_and_not_dropped() {
    let (fake, client) = start(1).await;
    let writer = client.event_writer(&stream()).open().await.unwrap();
    let clone = writer.clone();
    fake.set_down(true);
    writer.append(event(&key_of(0), b"0")).await.unwrap();
    let mut closing = pin!(writer.close());
    assert!(futures::poll!(closing.as_mut()).is_pending(), "what is there is not durable yet");
    let late = clone.append(event(&key_of(1), b"1")).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Closed);
    fake.set_down(false);
    assert_eq!(closing.await.unwrap(), EventNumber(1));
    check(&read_all(&client).await, 0, 1);
}

#[tokio::test]
async fn segments_of_a_server_that_is_away_do_not_keep_others_from_what_memory_is_left() {
    let fake = Fake::start().await;
    let lost = fake.peer();
    let away = lost.addr.to_string();
    fake.create_at(STREAM, 3, &["", &away, &away]);
    lost.set_down(true);
    let client = Client::connect(config(&fake)).await.unwrap();
    let places = fake.with(STREAM, |store| store.active());
    let key_of = |segment: usize| {
        let of = |key: &String| places[segment].range.contains(position_of_key(key));
        (0..).map(|i| format!("key-{i}")).find(of).unwrap()
    };
    let writer =
        client.event_writer(&stream()).memory_limit(ByteSize::mib(16)).open().await.unwrap();
    let payload = vec![0; 1 << 20];
    for (segment, count) in [(1, 7), (2, 6)] {
        let key = key_of(segment);
        for _ in 0..count {
            assert!(writer.try_append(event(&key, &payload)).unwrap().is_some());
        }
    }
    let there = key_of(0);
    for _ in 0..50 {
        soon(writer.append(event(&there, &payload))).await.unwrap();
    }
    lost.set_down(false);
    assert_eq!(soon(writer.close()).await.unwrap(), EventNumber(63));
}
