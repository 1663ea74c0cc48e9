//! The 20 000 flights through every misfortune: each stored once, in file order per origin.

use std::collections::BTreeMap;

use crate::flights::{flights, flights_file};
use crate::harness::{Running, Server};

pub const STREAM: &str = "demo/flights";

fn by_origin(events: &[String]) -> BTreeMap<String, Vec<&str>> {
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for event in events {
        let flight: serde_json::Value = serde_json::from_str(event).unwrap();
        found.entry(flight["origin"].as_str().unwrap().to_owned()).or_default().push(event);
    }
    found
}

pub fn assert_stored_once(server: &Server, flights: &[String]) {
    let read = server.read_all(STREAM);
    assert_eq!(read.len(), flights.len(), "events stored");
    assert!(by_origin(&read) == by_origin(flights), "an origin's flights are not in file order");
}

fn server_with_stream() -> Server {
    let server = Server::start();
    server.line("stream create demo/flights --segments 4 --create-scope").run().ok();
    server
}

#[test]
fn a_file_comes_back_identical_and_in_order_per_key() {
    let server = server_with_stream();
    let (_, flights) = flights();
    let file = flights_file();
    let said = server
        .braid(["append", STREAM, "--key-field", "origin", "--file", file.to_str().unwrap()])
        .run()
        .ok();
    assert!(said.contains("stored 20000 events in demo/flights"), "{said}");
    assert_stored_once(&server, &flights);
    let segments = server.line("segment list demo/flights -o json").run().json();
    let used = segments.as_array().unwrap().iter().filter(|s| s["length"].as_u64() > Some(0));
    assert_eq!(used.count(), 4, "all segments are used");
}

/// Feeds the flights to one append and kills the server as often behind an even part of them, when
/// `wait` is over, which is told the number of the kill and the bytes stored before the part.
pub fn append_under_kills(
    server: &mut Server,
    kills: usize,
    wait: impl Fn(&Server, usize, u64),
) -> (Running, Vec<String>) {
    let (file, flights) = flights();
    let mut append = server.line("append demo/flights --key-field origin -o json").start();
    let portion = file.len().div_ceil(kills + 1);
    for (kill, bytes) in file.chunks(portion).enumerate() {
        let before = server.stored_bytes(STREAM);
        if !append.feed(bytes) {
            panic!("the append ended: {:?}", append.finish());
        }
        if kill < kills {
            wait(server, kill, before);
            server.kill();
            server.restart();
        }
    }
    (append, flights)
}

#[test]
fn twenty_kills_of_the_server_lose_and_double_nothing() {
    let mut server = server_with_stream();
    // Every other kill hits at once, the others when something of the portion is stored; the first
    // is one of these, or it would hit before the client has found its server.
    let (append, flights) = append_under_kills(&mut server, 20, |server, kill, before| {
        if kill % 2 == 0 {
            wait_for_more_than(server, before);
        }
    });
    let summary = append.finish().json();
    assert_eq!(summary["stored"], 20_000);
    assert_stored_once(&server, &flights);
}

#[test]
fn kills_of_the_client_are_mended_by_its_name() {
    let server = server_with_stream();
    let (file, flights) = flights();
    for part in 1..=4 {
        let before = server.stored_bytes(STREAM);
        let mut append = loader(&server);
        assert!(append.feed(&file[..file.len() * part / 5]));
        wait_for_more_than(&server, before);
        append.kill();
    }
    let mut append = loader(&server);
    assert!(append.feed(&file));
    let summary = append.finish().json();
    assert_eq!(summary["events"], 20_000);
    let count = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(count("stored") + count("already_stored"), 20_000);
    assert!(count("already_stored") > 0, "{summary}");
    assert_stored_once(&server, &flights);
    let again = server
        .braid(["append", STREAM, "--key-field", "origin", "--writer", "loader"])
        .input(&file)
        .run()
        .ok();
    assert!(again.contains("stored 0 events") && again.contains("20000 were already"), "{again}");
    assert_stored_once(&server, &flights);
}

fn loader(server: &Server) -> Running {
    server.line("append demo/flights --key-field origin --writer loader -o json").start()
}

pub fn wait_for_more_than(server: &Server, bytes: u64) {
    crate::harness::wait_until("progress of the append", || server.stored_bytes(STREAM) > bytes);
}

#[test]
fn another_input_under_a_used_name_is_refused() {
    let server = server_with_stream();
    let append = ["append", STREAM, "--writer", "loader"];
    server.braid(append).input("a\nb\nc\n").run().ok();
    for other in ["x\nb\nc\nd\n", "a\nb\nx\n", "a\nb\n", ""] {
        let refused = server.braid(append).input(other).run();
        refused.fails(4, &["segment", "number", "another writer name"]);
    }
    assert_eq!(server.read_all(STREAM).len(), 3);
    server.braid(append).input("a\nb\nc\nd\n").run().ok();
    assert_eq!(server.read_all(STREAM).len(), 4);
}

#[test]
fn an_input_that_continues_is_numbered_on_and_its_name_keeps_that() {
    let server = server_with_stream();
    let append = ["append", STREAM, "--writer", "tailer", "--continue"];
    for _ in 0..2 {
        let said = server.braid(append).input("a\nb\n").run().ok();
        assert!(said.contains("stored 2 events"), "{said}");
    }
    assert_eq!(server.read_all(STREAM).len(), 4);
    let replay = ["append", STREAM, "--writer", "tailer"];
    server.braid(replay).input("a\nb\n").run().fails(4, &["tailer"]);
    assert_eq!(server.read_all(STREAM).len(), 4);
}
