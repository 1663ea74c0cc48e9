//! The whole client against a server in this process, over gRPC on loopback.

mod ending;
mod fake;
mod managing;
mod naming;
mod reader_edges;
mod reading;
mod runtimes;
mod sharing;
mod writing;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Rng, ScopedStream};

use self::fake::Fake;
use crate::{
    Client, ClientConfig, ClientError, ErrorKind, Event, EventWriter, ReadFrom, ReadUntil,
    ReplayWriter,
};

const STREAM: &str = "demo/stream";

fn stream() -> ScopedStream {
    STREAM.parse().unwrap()
}

fn config(fake: &Fake) -> ClientConfig {
    ClientConfig {
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(20),
        ..ClientConfig::new(fake.addr.to_string())
    }
}

/// A server with one stream, and a client of it.
async fn start(segments: u32) -> (Fake, Client) {
    let fake = Fake::start().await;
    fake.create(STREAM, segments);
    let client = Client::connect_with(config(&fake), Rng::from_seed(1)).await.unwrap();
    (fake, client)
}

fn key_of(i: u64) -> String {
    format!("key-{}", i * 7 % 13)
}

/// Appends events numbered by their payload, `from` to `to`, `to` not included.
async fn append(writer: &EventWriter, from: u64, to: u64) {
    for i in from..to {
        let (key, payload) = (key_of(i), i.to_string());
        let event = Event::new(&payload).key(&key);
        writer.append(event).await.unwrap();
    }
}

/// As [`append`], by a writer that replays.
async fn replay(writer: &mut ReplayWriter, from: u64, to: u64) {
    for i in from..to {
        let (key, payload) = (key_of(i), i.to_string());
        let event = Event::new(&payload).key(&key);
        writer.append(event).await.unwrap();
    }
}

/// Events as read: each number once, from `from` to `to`, in order per key.
fn check(events: &[(String, u64)], from: u64, to: u64) {
    let mut numbers: Vec<_> = events.iter().map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (from..to).collect::<Vec<_>>());
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, number) in events {
        assert_eq!(*key, key_of(*number));
        if let Some(before) = last.insert(key, *number) {
            assert!(before < *number, "{key}: {number} behind {before}");
        }
    }
}

/// Fails where something waits that should not; only a test that fails waits for long.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it does not wait")
}

/// Everything that is stored, as a reader sees it.
async fn read_all(client: &Client) -> Vec<(String, u64)> {
    let reader = client.event_reader(&stream()).from(ReadFrom::Head).until(ReadUntil::Tail);
    let mut reader = reader.open().await.unwrap();
    let mut events = Vec::new();
    while let Some(batch) = reader.next_batch().await {
        events.extend(batch.unwrap().iter().map(parsed));
    }
    events
}

fn parsed(event: &crate::ReadEvent) -> (String, u64) {
    let number = std::str::from_utf8(&event.payload).unwrap().parse().unwrap();
    (event.key_text().unwrap().to_owned(), number)
}

#[tokio::test]
async fn who_does_not_wait_for_a_server_is_told_at_once_with_what_to_do() {
    let config =
        ClientConfig { connect_deadline: Duration::ZERO, ..ClientConfig::new("127.0.0.1:1") };
    let error = Client::connect(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1") && text.contains("braid dev"), "{text}");
}

#[tokio::test]
async fn a_client_waits_for_a_server_that_is_on_its_way() {
    let fake = Fake::start().await;
    fake.set_down(true);
    let (connected, ()) = tokio::join!(Client::connect(config(&fake)), async {
        fake.refused(3).await;
        fake.set_down(false);
    });
    assert_eq!(connected.unwrap().server_info().await.unwrap().version, "fake");
}

#[tokio::test]
async fn listings_go_over_all_pages() {
    use futures::TryStreamExt;

    let (_fake, client) = start(5).await;
    for scope in ["a", "b", "c", "d", "e"] {
        assert!(client.streams().create_scope(&scope.parse().unwrap()).await.unwrap());
    }
    assert!(!client.streams().create_scope(&"a".parse().unwrap()).await.unwrap());
    let scopes: Vec<_> = client.streams().list_scopes().try_collect().await.unwrap();
    assert_eq!(scopes.iter().map(|s| s.as_str()).collect::<String>(), "abcde");
    let found = client.streams().segments(&stream(), crate::SegmentSet::Active).await.unwrap();
    assert_eq!(found.segments.len(), 5);
}

#[tokio::test]
async fn a_refusal_by_the_controller_keeps_its_reason() {
    let (_fake, client) = start(1).await;
    let missing: ScopedStream = "demo/missing".parse().unwrap();
    let error = client.streams().describe(&missing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("demo/missing"), "{error}");
    let error = client.event_writer(&missing).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = client.streams().delete_scope(&"demo".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_closed_client_fails_its_writers() {
    let (fake, client) = start(1).await;
    let writer = client.event_writer(&stream()).open().await.unwrap();
    fake.set_down(true);
    let event = Event::new("one").key("k");
    let acknowledged = writer.append_tracked(event).await.unwrap();
    client.close().await;
    let closed = Err(ClientError::Closed { what: "client" });
    assert_eq!(acknowledged.await, closed);
    assert_eq!(writer.flush().await.map(drop), closed);
}
