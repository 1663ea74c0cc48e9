use client::{Client, Event, ScopedStream};

/// Many requests share one writer; each waits for its own event alone.
pub async fn serve_requests(client: &Client, requests: u32) -> client::Result<()> {
    let stream = ScopedStream::new("demo", "requests").expect("a good name");
    let writer = client.event_writer(&stream).open().await?;
    let requests = (0..requests).map(|number| {
        let writer = writer.clone();
        async move {
            let (user, text) = (format!("user-{}", number % 7), format!("request {number}"));
            let acknowledged = writer.append_tracked(Event::new(&text).key(&user)).await?;
            acknowledged.await
        }
    });
    futures::future::try_join_all(requests).await?;
    writer.close().await?;
    Ok(())
}
