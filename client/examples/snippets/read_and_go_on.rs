use client::{Client, ReadFrom, ReadUntil, ScopedStream, StreamCut};

pub async fn read(client: &Client, from: ReadFrom) -> client::Result<StreamCut> {
    let stream = ScopedStream::new("demo", "hello").expect("a good name");
    let reader = client.event_reader(&stream).from(from).until(ReadUntil::Tail);
    let mut reader = reader.open().await?;
    while let Some(event) = reader.next().await {
        println!("{}", String::from_utf8_lossy(&event?.payload));
    }
    // To go on from here another time: read from `ReadFrom::Cut` of this.
    Ok(reader.position())
}
