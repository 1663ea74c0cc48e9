use client::{Client, Event, EventNumber, ScopedStream, WriterName};

/// Appends what a live source has to say now. A later process of the name goes on behind it; the
/// numbers before and behind are told.
pub async fn feed(client: &Client, lines: &[&str]) -> client::Result<(EventNumber, EventNumber)> {
    let stream = ScopedStream::new("demo", "feed").expect("a good name");
    let name = WriterName::new("sensor-7").expect("a good name");
    let writer = client.event_writer(&stream).named(name).continues().open().await?;
    let before = writer.stored_through();
    for line in lines {
        writer.append(Event::new(line).key("sensor-7")).await?;
    }
    let last = writer.flush().await?;
    writer.close().await?;
    Ok((before, last))
}
