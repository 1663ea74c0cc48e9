use client::{Client, Event, Header, ReadFrom, ReadUntil, ScopedStream};

/// Appends an event that says where it comes from, and finds the events that do.
pub async fn tell_source(client: &Client, source: &str) -> client::Result<Vec<String>> {
    let stream = ScopedStream::new("demo", "hello").expect("a good name");
    let writer = client.event_writer(&stream).open().await?;
    let headers = [Header::new("source", source), Header::new("raw", &[0xff, 0x00])];
    writer.append(Event::new("with headers").key("greetings").headers(&headers)).await?;
    writer.close().await?;

    let reader = client.event_reader(&stream).from(ReadFrom::Head).until(ReadUntil::Tail);
    let mut reader = reader.open().await?;
    let mut found = Vec::new();
    while let Some(event) = reader.next().await {
        let event = event?;
        if event.headers.get("source") == Some(source.as_bytes()) {
            found.push(String::from_utf8_lossy(&event.payload).into_owned());
        }
    }
    Ok(found)
}
