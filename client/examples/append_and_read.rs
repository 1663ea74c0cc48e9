//! Appends a few events to `demo/hello` and reads the stream from its head to its tail.
//!
//! Run `braid dev`, then: `cargo run -p client --example append_and_read`. The first argument is
//! the server's address, `127.0.0.1:7070` unless given.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use client::{Client, ClientConfig, Event, ReadFrom, ReadUntil, ScopedStream, StreamConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7070".to_owned());
    let client = Client::connect(ClientConfig::new(endpoint)).await?;
    let stream = ScopedStream::new("demo", "hello")?;
    let config = StreamConfig { segments: 4, create_scope: true };
    client.streams().create_stream(&stream, config).await?;

    let writer = client.event_writer(&stream).open().await?;
    for (key, text) in [("red", "one"), ("blue", "two"), ("red", "three")] {
        let event = Event::new(text).key(key);
        writer.append(event).await?;
    }
    println!("{} events are durable", writer.close().await?);

    let reader = client.event_reader(&stream).from(ReadFrom::Head).until(ReadUntil::Tail);
    let mut reader = reader.open().await?;
    while let Some(event) = reader.next().await {
        let event = event?;
        let key = event.key_text().unwrap_or("-");
        let text = String::from_utf8_lossy(&event.payload);
        println!("{} at {}: {key} {text}", event.segment.local_name(), event.offset);
    }
    println!("read up to {}", reader.position());
    Ok(())
}
