use client::{Client, Event, ScopedStream, WriterName};

/// How many of the lines an earlier run has stored.
pub async fn import(client: &Client, lines: &[String]) -> client::Result<u64> {
    let stream = ScopedStream::new("demo", "imports").expect("a good name");
    let name = WriterName::new("loader").expect("a good name");
    let mut writer = client.event_writer(&stream).named(name).replays().open().await?;
    for line in lines {
        writer.append(Event::new(line)).await?;
    }
    writer.flush().await?;
    let stored_before = writer.already_stored();
    writer.close().await?;
    Ok(stored_before)
}
