use client::{Client, ClientConfig, Event, ReadFrom, ReadUntil, ScopedStream, StreamConfig};

pub async fn first_steps(endpoint: &str) -> client::Result<()> {
    let client = Client::connect(ClientConfig::new(endpoint)).await?;

    // A stream of four segments: four parts that are written and read side by side.
    let stream = ScopedStream::new("demo", "hello").expect("a good name");
    let config = StreamConfig { segments: 4, create_scope: true };
    client.streams().create_stream(&stream, config).await?;

    let writer = client.event_writer(&stream).open().await?;
    let event = Event::new("hello, world").key("greetings");
    writer.append(event).await?;
    writer.flush().await?; // durable from here on

    let reader = client.event_reader(&stream).from(ReadFrom::Head).until(ReadUntil::Tail);
    let mut reader = reader.open().await?;
    while let Some(event) = reader.next().await {
        let event = event?;
        println!("{}: {}", event.offset, String::from_utf8_lossy(&event.payload));
    }
    Ok(())
}
