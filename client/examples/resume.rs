//! Appends the lines of standard input to `demo/lines` under a writer's name. Kill it at any
//! moment and give it the same input again: it stores what is not stored yet, and nothing twice.
//!
//! Run `braid dev`, then: `seq 1000000 | cargo run -p client --example resume`. The first argument
//! is the server's address, `127.0.0.1:7070` unless given.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use client::{Client, ClientConfig, Event, ScopedStream, StreamConfig, WriterName};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7070".to_owned());
    let client = Client::connect(ClientConfig::new(endpoint)).await?;
    let stream = ScopedStream::new("demo", "lines")?;
    let config = StreamConfig { segments: 4, create_scope: true };
    client.streams().create_stream(&stream, config).await?;

    let name = WriterName::new("lines")?;
    let mut writer = client.event_writer(&stream).named(name).replays().open().await?;
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        writer.append(Event::new(&line)).await?;
    }
    let last = writer.flush().await?;
    println!("{last} lines are durable, {} of them were before", writer.already_stored());
    writer.close().await?;
    Ok(())
}
