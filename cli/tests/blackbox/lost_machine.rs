//! The whole machine is lost, and only the bucket is left: every tiered event comes back, identical
//! and in order, and the report says exactly where each segment ends, whoever serves the bucket.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::exactly_once::{STREAM, assert_stored_once};
use crate::harness::Server;
use crate::long_term::{store_flights, wait_until_clean};
use crate::recovery::wait_until_tiered;

/// By stream, where each of its segments begins and ends.
type Ends = BTreeMap<String, Vec<(u64, u64)>>;

/// As the server sees it.
fn ends(server: &Server) -> Ends {
    let listed = server.line("stream list demo -o json").run().json();
    let names = listed.as_array().unwrap().iter().map(|row| row["stream"].as_str().unwrap());
    let of_stream = |name: &str| {
        let rows = server.braid(["segment", "list", name, "-o", "json"]).run().json();
        (name.to_owned(), sorted(&rows, "start_offset"))
    };
    names.map(of_stream).collect()
}

/// As the report of a recovery says it.
fn reported(report: &Value) -> Ends {
    let streams = report["streams"].as_array().unwrap().iter();
    let of_stream = |stream: &Value| {
        (stream["stream"].as_str().unwrap().to_owned(), sorted(&stream["segments"], "start"))
    };
    streams.map(of_stream).collect()
}

fn sorted(segments: &Value, start: &str) -> Vec<(u64, u64)> {
    let number = |of: &Value| of.as_u64().unwrap();
    let segments = segments.as_array().unwrap().iter();
    let mut ends: Vec<_> = segments.map(|s| (number(&s[start]), number(&s["length"]))).collect();
    ends.sort_unstable();
    ends
}

/// From now on nothing is tiered: what the log gets is lost with the machine.
fn stop_tiering(server: &mut Server) {
    server.stop(Signal::TERM);
    server.set("BRAID__TIERING__AGE", "1h");
    server.restart();
}

/// Streams that are whole, truncated, sealed and deleted; tiered, then some more that is not; then
/// all of the machine but its bucket is gone.
pub fn comes_back_from_its_bucket(settings: &[(&str, &str)], url: &str) {
    let mut server = Server::with(settings);
    let flights = store_flights(&server);
    for name in ["cut", "sealed", "gone"] {
        server.braid(["stream", "create", &format!("demo/{name}"), "--segments", "1"]).run().ok();
        server.braid(["append", &format!("demo/{name}")]).input("one\n").run().ok();
    }
    server.line("stream truncate demo/cut --at tail").run().ok();
    server.line("append demo/cut").input("two\nthree\n").run().ok();
    server.line("stream seal demo/sealed").run().ok();
    server.line("stream delete demo/gone").run().ok();
    wait_until_tiered(&server);
    let tiered = ends(&server);
    assert_eq!(tiered.len(), 3, "{tiered:?}");

    stop_tiering(&mut server);
    server.line("append demo/flights --key-field origin").input(&*flights[0]).run().ok();
    server.line("append demo/cut").input("four\n").run().ok();
    server.line("append demo/late").input("late\n").run().ok();
    assert_ne!(ends(&server), tiered);
    server.lose_machine();

    let report = server.recover(url).run().json();
    assert_eq!(reported(&report), tiered, "{report}");
    assert_eq!(report["changes"], json!([]), "{report}");
    assert_eq!((&report["incarnation_before"], &report["incarnation"]), (&json!(1), &json!(2)));
    for group in report["groups"].as_array().unwrap() {
        assert!(group["end"].as_u64() > Some(0) && group["problems"] == json!([]), "{group}");
    }
    server.set("BRAID__TIERING__AGE", "200ms");
    server.restart();
    assert_eq!(ends(&server), tiered);
    assert_stored_once(&server, &flights);
    assert_eq!(server.read_all("demo/cut"), ["two", "three"]);
    assert_eq!(server.read_all("demo/sealed"), ["one"]);
    server.line("append demo/sealed").input("two\n").run().fails(4, &["sealed"]);
    goes_on(&server, flights.len());
}

/// As any other server: what comes now is tiered, too.
fn goes_on(server: &Server, flights: usize) {
    server.line("append demo/flights --key-field origin").input(r#"{"origin":"x"}"#).run().ok();
    server.line("append demo/late").input("again\n").run().ok();
    wait_until_tiered(server);
    assert_eq!(server.read_all(STREAM).len(), flights + 1);
    assert_eq!(server.read_all("demo/late"), ["again"]);
    wait_until_clean(server);
}

#[test]
fn a_lost_machine_comes_back_from_a_folder_elsewhere() {
    let folder = crate::harness::temp_dir();
    let url = format!("file://{}", folder.path().display());
    let settings = [&crate::long_term::QUICK[..], &[("BRAID__LTS__URL", &*url)]].concat();
    comes_back_from_its_bucket(&settings, &url);
}
