use client::{Client, OnTruncated, ReadFrom, ReadUntil, ScopedStream, StreamCut};

/// Goes on where an earlier run ended, also where that was truncated away meanwhile; gives the
/// events, and in how many places some were left out.
pub async fn go_on(client: &Client, from: StreamCut) -> client::Result<(Vec<String>, usize)> {
    let stream = ScopedStream::new("demo", "hello").expect("a good name");
    let reader = client.event_reader(&stream).from(ReadFrom::Cut(from)).until(ReadUntil::Tail);
    let mut reader = reader.on_truncated(OnTruncated::Skip).open().await?;
    let (mut events, mut gaps) = (Vec::new(), 0);
    while let Some(event) = reader.next().await {
        events.push(String::from_utf8_lossy(&event?.payload).into_owned());
        for skipped in reader.take_skipped() {
            println!("{} was truncated from {} on", skipped.segment, skipped.from);
            gaps += 1;
        }
    }
    Ok((events, gaps))
}
