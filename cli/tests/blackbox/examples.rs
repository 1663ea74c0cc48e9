//! The examples of the client's documentation, run against a server as they are printed.

#[path = "../../../client/examples/snippets/append_events.rs"]
mod append_events;
#[path = "../../../client/examples/snippets/continue_feed.rs"]
mod continue_feed;
#[path = "../../../client/examples/snippets/first_steps.rs"]
mod first_steps;
#[path = "../../../client/examples/snippets/headers.rs"]
mod headers;
#[path = "../../../client/examples/snippets/read_and_go_on.rs"]
mod read_and_go_on;
#[path = "../../../client/examples/snippets/resume_import.rs"]
mod resume_import;
#[path = "../../../client/examples/snippets/shared_writer.rs"]
mod shared_writer;
#[path = "../../../client/examples/snippets/skip_truncated.rs"]
mod skip_truncated;

use client::{Client, ClientConfig, ReadFrom};

use crate::harness::Server;

#[tokio::test]
async fn the_examples_of_the_documentation_do_what_they_say() {
    let server = Server::start();
    let endpoint = server.address.to_string();
    first_steps::first_steps(&endpoint).await.unwrap();
    assert_eq!(server.read_all("demo/hello"), ["hello, world"]);

    let client = Client::connect(ClientConfig::new(&*endpoint)).await.unwrap();
    append_events::append_events(&client).await.unwrap();
    assert_eq!(server.read_all("demo/hello"), ["hello, world", "first", "second"]);

    let cut = read_and_go_on::read(&client, ReadFrom::Head).await.unwrap();
    let again = read_and_go_on::read(&client, ReadFrom::Cut(cut.clone())).await.unwrap();
    assert_eq!(again, cut, "everything was read the first time");

    server.line("stream create demo/imports").run().ok();
    let lines: Vec<String> = (0..100).map(|line| format!("line {line}")).collect();
    assert_eq!(resume_import::import(&client, &lines[..60]).await.unwrap(), 0);
    assert_eq!(resume_import::import(&client, &lines).await.unwrap(), 60);
    assert_eq!(server.read_all("demo/imports").len(), 100);
    client.close().await;
}

#[tokio::test]
async fn a_named_writer_goes_on_behind_what_it_stored_and_requests_share_a_writer() {
    let server = Server::start();
    server.line("stream create demo/feed --segments 4 --create-scope").run().ok();
    server.line("stream create demo/requests --segments 4").run().ok();
    let client = Client::connect(ClientConfig::new(server.address.to_string())).await.unwrap();
    let numbers = |from, to| (client::EventNumber(from), client::EventNumber(to));
    assert_eq!(continue_feed::feed(&client, &["a", "b"]).await.unwrap(), numbers(0, 2));
    assert_eq!(continue_feed::feed(&client, &["c"]).await.unwrap(), numbers(2, 3));
    assert_eq!(server.read_all("demo/feed"), ["a", "b", "c"]);

    shared_writer::serve_requests(&client, 100).await.unwrap();
    let mut stored = server.read_all("demo/requests");
    let mut sent: Vec<_> = (0..100).map(|number| format!("request {number}")).collect();
    stored.sort();
    sent.sort();
    assert_eq!(stored, sent);
    client.close().await;
}

#[tokio::test]
async fn a_program_goes_on_behind_a_truncation_and_finds_events_by_their_headers() {
    let server = Server::start();
    let endpoint = server.address.to_string();
    first_steps::first_steps(&endpoint).await.unwrap();
    let client = Client::connect(ClientConfig::new(&*endpoint)).await.unwrap();
    let stream = "demo/hello".parse().unwrap();
    let head = client.streams().head_cut(&stream).await.unwrap();
    let tail = client.streams().tail_cut(&stream).await.unwrap();
    let all = skip_truncated::go_on(&client, head.clone()).await.unwrap();
    assert_eq!(all, (vec!["hello, world".to_owned()], 0));

    client.streams().truncate(&stream, &tail).await.unwrap();
    assert_eq!(headers::tell_source(&client, "sensor-7").await.unwrap(), ["with headers"]);
    assert_eq!(headers::tell_source(&client, "sensor-8").await.unwrap(), ["with headers"]);
    let (events, gaps) = skip_truncated::go_on(&client, head.clone()).await.unwrap();
    assert_eq!((events.len(), gaps), (2, 1), "{events:?}");

    let shown = server.line("read demo/hello --from head --until tail --format json").run().ok();
    let source =
        r#"{"name":"source","value":"sensor-7"},{"name":"raw","value":"/wA=","encoding":"base64"}"#;
    assert!(shown.contains(source), "{shown}");
    let from = format!("read demo/hello --until tail --from {head}");
    server.line(&from).run().fails(4, &["truncated away", "--on-truncated skip"]);
    let skipped = server.line(&format!("{from} --on-truncated skip")).run().ok();
    assert_eq!(skipped.lines().count(), 2, "{skipped}");
    client.close().await;
}
