//! Clients that are used from other runtimes than the one they were connected on.

use common::Rng;
use tokio::runtime::{Builder, Runtime};

use super::{Fake, STREAM, append, check, config, parsed, soon, stream};
use crate::{Client, ClientError, ReadFrom, ReadUntil};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A server and a client of it, each on a runtime of its own.
fn start() -> (Runtime, Runtime, Client) {
    let (servers, home) = (runtime(), runtime());
    let fake = servers.block_on(Fake::start());
    fake.create(STREAM, 2);
    let client = home.block_on(Client::connect_with(config(&fake), Rng::from_seed(1))).unwrap();
    (servers, home, client)
}

#[test]
fn a_client_outlives_the_runtimes_that_it_is_used_from() {
    let (_servers, home, client) = start();
    for part in 0..3 {
        let visitor = runtime();
        visitor.block_on(soon(async {
            let writer = client.event_writer(&stream()).open().await.unwrap();
            append(&writer, part * 100, (part + 1) * 100).await;
            writer.close().await.unwrap();
            client.streams().tail_cut(&stream()).await.unwrap();
        }));
    }
    let events = runtime().block_on(soon(async {
        let reader = client.event_reader(&stream()).from(ReadFrom::Head).until(ReadUntil::Tail);
        let mut reader = reader.open().await.unwrap();
        let mut events = Vec::new();
        while let Some(event) = reader.next().await {
            events.push(parsed(&event.unwrap()));
        }
        events
    }));
    check(&events, 0, 300);
    home.block_on(client.close());
}

#[test]
fn a_client_whose_runtime_has_ended_says_that_it_is_closed() {
    let (_servers, home, client) = start();
    let visitor = runtime();
    let opened = visitor.block_on(async {
        let writer = client.event_writer(&stream()).open().await.unwrap();
        append(&writer, 0, 10).await;
        writer.flush().await.unwrap();
        (writer, client.event_reader(&stream()).from(ReadFrom::Tail).open().await.unwrap())
    });
    let (writer, mut reader) = opened;
    drop(home);
    visitor.block_on(soon(async {
        let closed = ClientError::Closed { what: "client" };
        assert_eq!(writer.flush().await.map(drop), Ok(()), "this was durable before");
        let event = crate::Event::new("late");
        assert_eq!(writer.append(event).await, Err(closed.clone()));
        assert_eq!(reader.next().await, Some(Err(closed.clone())));
        assert_eq!(client.streams().tail_cut(&stream()).await, Err(closed.clone()));
        assert_eq!(client.event_writer(&stream()).open().await.map(drop), Err(closed));
    }));
}
