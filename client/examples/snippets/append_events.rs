use client::{Client, Event, ScopedStream};

pub async fn append_events(client: &Client) -> client::Result<()> {
    let stream = ScopedStream::new("demo", "hello").expect("a good name");
    let writer = client.event_writer(&stream).open().await?;
    for line in ["first", "second"] {
        let event = Event::new(line).key("greetings");
        writer.append(event).await?;
    }
    // Both are durable when this returns.
    let last = writer.flush().await?;
    println!("{last} events stored");
    writer.close().await?;
    Ok(())
}
