//! The examples of the client's documentation, run against a server as they are printed.

#[path = "../../../client/examples/snippets/append_events.rs"]
mod append_events;
#[path = "../../../client/examples/snippets/first_steps.rs"]
mod first_steps;
#[path = "../../../client/examples/snippets/read_and_go_on.rs"]
mod read_and_go_on;
#[path = "../../../client/examples/snippets/resume_import.rs"]
mod resume_import;

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
