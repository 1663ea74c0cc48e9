//! What was acknowledged flows on into objects, the log is cut behind it, and readers do not notice.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use crate::exactly_once::{STREAM, append_under_kills, assert_stored_once, wait_for_more_than};
use crate::flights::{flights, flights_file};
use crate::harness::{Server, wait_until};

/// Tiers what is older than a moment, and saves the state soon, so that the log can be cut.
pub const QUICK: [(&str, &str); 2] =
    [("BRAID__TIERING__AGE", "200ms"), ("BRAID__CHECKPOINT__INTERVAL", "1s")];

/// More than what a group says to itself, less than any part of the flights.
const LOG_BYTES_MAX: u64 = 64 << 10;

/// Appends the flights to a new stream.
pub fn store_flights(server: &Server) -> Vec<String> {
    server.line("stream create demo/flights --segments 4 --create-scope").run().ok();
    let file = flights_file();
    let append = ["append", STREAM, "--key-field", "origin", "--file", file.to_str().unwrap()];
    server.braid(append).run().ok();
    flights().1
}

/// Waits until nothing is only in the log.
pub fn wait_until_tiered(server: &Server) {
    wait_until("tiering", || server.status()["untiered"]["bytes"].as_u64() == Some(0));
}

/// Waits until the bucket has everything that it must have and nothing else, but for staging files of
/// killed processes, which are looked after.
pub fn wait_until_clean(server: &Server) {
    wait_until("a clean bucket", || {
        let found = server.lts(["check", "--grace", "0s", "-o", "json"]).run();
        let found: Value = serde_json::from_str(&found.stdout).unwrap();
        let mut findings = found["findings"].as_array().unwrap().iter();
        findings.all(|finding| finding["subject"].as_str().unwrap().starts_with("staging file"))
    });
}

/// Waits until the log has nothing of the events any more.
pub fn wait_until_truncated(server: &Server) {
    wait_until_tiered(server);
    wait_until("truncation", || {
        let status = server.status();
        let groups = status["groups"].as_array().unwrap().clone();
        groups.iter().all(|group| group["log_bytes"].as_u64().unwrap() < LOG_BYTES_MAX)
    });
}

/// The payload objects in a server's bucket, largest first.
pub fn payload_objects(server: &Server) -> Vec<String> {
    let listed = server.lts(["ls", "--objects", "-o", "json"]).run().json();
    let mut found: Vec<(u64, String)> = listed
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["kind"] == "payload")
        .map(|row| (row["bytes"].as_u64().unwrap(), row["object"].as_str().unwrap().to_owned()))
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, object)| object).collect()
}

/// Where an object is a file.
pub fn object_file(server: &Server, object: &str) -> PathBuf {
    server.data().join("lts").join(object)
}

/// Lets a file look as if nobody had written to it for years.
fn make_old(file: &Path) {
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    std::fs::File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
}

/// Flights, tiered, log cut; read back after a restart, and after the state was deleted.
pub fn tiers_and_reads_back(settings: &[(&str, &str)]) {
    let mut server = Server::with(settings);
    let flights = store_flights(&server);
    let bytes: usize = flights.iter().map(String::len).sum();
    wait_until_truncated(&server);
    for without_state in [false, true] {
        server.stop(Signal::TERM);
        if without_state {
            std::fs::remove_dir_all(server.data().join("state")).unwrap();
        }
        server.restart();
        assert_stored_once(&server, &flights);
        let read = server.metric("braid_object_read_bytes_total");
        assert!(read > bytes as u64, "{read} of {bytes} bytes came from objects");
        assert_eq!(server.metric("braid_log_read_bytes_total"), 0, "and nothing from the log");
    }
    server.lts(["check", "--grace", "0s"]).run().ok();
    let listed = server.lts(["ls", "-o", "json"]).run().json();
    let containers: Vec<_> = listed.as_array().unwrap()[1..].to_vec();
    assert_eq!(containers.len(), 4, "a segment in each container: {listed}");
    for group in containers {
        assert!(group["payload"]["bytes"].as_u64().unwrap() > 0, "{group}");
        assert!(group["archived_index"].as_u64().unwrap() > 0, "{group}");
    }
    // And it goes on.
    server.line("append demo/flights --key-field origin").input(&*flights[0]).run().ok();
    assert_eq!(server.read_all(STREAM).len(), flights.len() + 1);
}

#[test]
fn the_flights_are_read_back_from_objects_with_and_without_the_state() {
    tiers_and_reads_back(&QUICK);
}

#[test]
fn twenty_kills_while_everything_is_tiered_lose_and_double_nothing() {
    let mut server = Server::with(&QUICK);
    server.line("stream create demo/flights --segments 4 --create-scope").run().ok();
    let (append, flights) = append_under_kills(&mut server, 20, |server, kill, before| {
        wait_for_more_than(server, before);
        // Some hit before a round begins, some in one, some behind it.
        if kill % 3 == 0 {
            wait_until_tiered(server);
        }
    });
    let summary = append.finish().json();
    assert_eq!(summary["stored"], 20_000);
    wait_until_truncated(&server);
    assert_stored_once(&server, &flights);
    // Objects that the killed ones left unfinished are swept; their staging files are looked after.
    wait_until_clean(&server);
    server.kill();
    for left in std::fs::read_dir(server.data().join("lts/.staging")).unwrap() {
        make_old(&left.unwrap().path());
    }
    server.lts(["check", "--repair"]).run().ok();
    server.lts(["check", "--grace", "0s"]).run().ok();
    server.restart();
    assert_stored_once(&server, &flights);
}

#[test]
fn a_server_is_asked_to_look_after_its_objects() {
    let server = Server::with(&QUICK);
    server.line("append demo/a --key k").input("x\n").run().ok();
    let asked = server.line("lts compact -o json").run().json();
    assert_eq!(asked["groups"], 5, "the controller and four containers");
    let without = Server::with(&[("BRAID__LTS__URL", "none")]);
    assert!(without.line("lts compact").run().ok().contains("no long-term storage"));
    without.lts(["check"]).run().fails(2, &["`lts.url` is `none`"]);
}

#[test]
fn leftovers_of_interrupted_puts_are_told_and_removed_once_they_are_old() {
    let server = Server::with(&QUICK);
    server.line("append demo/a --key k").input("x\n").run().ok();
    wait_until_tiered(&server);
    let left = server.data().join("lts/.staging/00ff");
    std::fs::write(&left, "half an object").unwrap();
    server.lts(["check"]).run().ok();
    make_old(&left);
    let found = server.lts(["check"]).run().fails(1, &["1 finding"]);
    assert!(found.stdout.contains("00ff") && found.stdout.contains("--repair"), "{found:?}");
    server.lts(["check", "--repair", "--grace", "1m"]).run().fails(2, &["--grace"]);
    let repaired = server.lts(["check", "--repair"]).run().ok();
    assert!(repaired.contains("1 leftover gone") && repaired.contains("clean"), "{repaired}");
    assert!(!left.try_exists().unwrap());
}

#[test]
fn a_bucket_in_its_first_life_has_nothing_to_adopt() {
    let server = Server::with(&QUICK);
    server.lts(["adopt"]).run().fails(2, &["nothing was changed", "--yes"]);
    server.lts(["adopt", "--yes"]).run().fails(4, &["first life"]);
}
