//! Programs that append one event and end, over and over: what is kept of them must not fill up a
//! segment.
//!
//! `BRAID_SHORT_LIVED_WRITERS` makes more of them than a test run has time for.

use std::sync::atomic::{AtomicU32, Ordering};

use client::{Client, ClientConfig, Event, ReadFrom, ReadUntil, ScopedStream, StreamConfig};
use futures::future::join_all;

use crate::harness::Server;

/// More than the session numbers that a segment keeps of closed writers.
const WRITERS: u64 = 11_000;

/// As many at a time, so that they share the syncs of the log.
const AT_A_TIME: usize = 64;

async fn append_one(client: &Client, stream: &ScopedStream, number: u32) {
    let writer = client.event_writer(stream).open().await.unwrap();
    writer.append(Event::new(&number.to_le_bytes()).key("k")).await.unwrap();
    writer.flush().await.unwrap();
    writer.close().await.unwrap();
}

async fn read_all(client: &Client, stream: &ScopedStream) -> Vec<u32> {
    let reader = client.event_reader(stream).from(ReadFrom::Head).until(ReadUntil::Tail);
    let mut reader = reader.open().await.unwrap();
    let mut numbers = Vec::new();
    while let Some(event) = reader.next().await {
        numbers.push(u32::from_le_bytes(event.unwrap().payload.as_ref().try_into().unwrap()));
    }
    numbers.sort_unstable();
    numbers
}

#[test]
fn writers_that_append_one_event_and_end_leave_a_segment_that_new_ones_can_use() {
    let writers = crate::soak::from_environment("BRAID_SHORT_LIVED_WRITERS").unwrap_or(WRITERS);
    let mut server = Server::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = ScopedStream::new("demo", "short").unwrap();
    let endpoint = server.address.to_string();
    runtime.block_on(async {
        let client = Client::connect(ClientConfig::new(&*endpoint)).await.unwrap();
        let config = StreamConfig { segments: 1, create_scope: true };
        client.streams().create_stream(&stream, config).await.unwrap();
        let next = AtomicU32::new(0);
        let append = async |_| {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if u64::from(number) >= writers {
                    break;
                }
                append_one(&client, &stream, number).await;
            }
        };
        join_all((0..AT_A_TIME).map(append)).await;
    });
    // What is kept of them is kept over a restart, too.
    server.kill();
    server.restart();
    let endpoint = server.address.to_string();
    let writers = writers as u32;
    runtime.block_on(async {
        let client = Client::connect(ClientConfig::new(&*endpoint)).await.unwrap();
        append_one(&client, &stream, writers).await;
        let named = client.event_writer(&stream).named("after".parse().unwrap());
        let writer = named.continues().open().await.unwrap();
        writer.append(Event::new(&(writers + 1).to_le_bytes()).key("k")).await.unwrap();
        writer.flush().await.unwrap();
        writer.close().await.unwrap();
        assert_eq!(read_all(&client, &stream).await, (0..writers + 2).collect::<Vec<_>>());
    });
    // None of those that ended counts as a writer of the segment.
    let listed = server.line("segment describe demo/short/0.#0 -o json").run().json();
    assert_eq!(listed["writers"], 1, "{listed}");
}
