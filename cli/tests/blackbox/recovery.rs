//! A node whose log is gone, brought back from its bucket.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;

use crate::exactly_once::assert_stored_once;
use crate::flights::flights;
use crate::harness::{Braid, Finished, Server, wait_until};

/// Bytes go into the bucket at once.
const EAGER: (&str, &str) = ("BRAID__TIERING__AGE", "200ms");

/// A server whose bucket is apart from its data.
pub fn server() -> (Server, Bucket) {
    let bucket = Bucket(crate::harness::temp_dir().keep());
    (Server::with(&[("BRAID__LTS__URL", &bucket.url()), EAGER]), bucket)
}

/// One with an event in its bucket.
pub fn tiered() -> (Server, Bucket) {
    let (server, bucket) = server();
    server.line("append demo/a --key k").input("one\n").run().ok();
    wait_until_tiered(&server);
    (server, bucket)
}

/// Removes the bucket's folder when the test is over.
pub struct Bucket(pub PathBuf);

impl Drop for Bucket {
    fn drop(&mut self) {
        // What is left is in the build's own folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Bucket {
    pub fn url(&self) -> String {
        format!("file://{}", self.0.display())
    }

    /// The folders of a group, in every incarnation.
    fn remove_group(&self, group: u64) {
        for incarnation in std::fs::read_dir(&self.0).unwrap() {
            let folder = incarnation.unwrap().path().join(format!("{group:016x}"));
            if folder.is_dir() {
                std::fs::remove_dir_all(folder).unwrap();
            }
        }
    }
}

pub fn wait_until_tiered(server: &Server) {
    wait_until("everything is tiered", || {
        let status = server.line("status -o json").run().json();
        status["untiered"]["age_seconds"].is_null() && status["untiered"]["bytes"].is_number()
    });
}

/// The machine is gone, but for the bucket. Returns what the recovery reports.
pub fn lose_and_recover(server: &mut Server, bucket: &Bucket) -> Value {
    std::fs::remove_dir_all(server.data()).unwrap();
    let data = server.data().display().to_string();
    let recovered =
        Braid::new(["recover", "--from-lts", &bucket.url(), "--data", &data, "-o", "json"]);
    recovered.run().json()
}

fn lengths(report: &Value) -> BTreeMap<String, u64> {
    let streams = report["streams"].as_array().unwrap().iter();
    let segments = streams.flat_map(|stream| stream["segments"].as_array().unwrap());
    let length = |segment: &Value| {
        (segment["segment"].as_str().unwrap().to_owned(), segment["length"].as_u64().unwrap())
    };
    segments.map(length).collect()
}

#[test]
fn every_tiered_flight_comes_back_identical_and_in_order_and_once_more_after_the_next_loss() {
    let (mut server, bucket) = server();
    let (file, flights) = flights();
    server.line("stream create demo/flights --segments 4 --create-scope").run().ok();
    let append = "append demo/flights --key-field origin --file -";
    server.line(append).input(file).run().ok();
    wait_until_tiered(&server);
    server.kill();
    for incarnation in [2, 3] {
        let report = lose_and_recover(&mut server, &bucket);
        assert_eq!(report["incarnation"], incarnation);
        assert_eq!(report["changes"], Value::Array(Vec::new()), "{report}");
        server.restart();
        assert_stored_once(&server, &flights);
        let stored: u64 = lengths(&report).values().sum();
        assert_eq!(stored, server.stored_bytes("demo/flights"));
        wait_until_tiered(&server);
        server.kill();
    }
    // It goes on like any other.
    lose_and_recover(&mut server, &bucket);
    server.restart();
    server.line("append demo/flights --key k").input("one more\n").run().ok();
    assert_eq!(server.read_all("demo/flights").len(), 20_001);
    let stopped = server.stop(Signal::TERM);
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
}

#[test]
fn what_was_not_tiered_is_told_by_where_segments_end_and_writers_learn_of_it() {
    let (mut server, bucket) = server();
    server.line("stream create demo/a --segments 1 --create-scope").run().ok();
    let mut writer = server.line("append demo/a --writer w --rate 1000").start();
    assert!(writer.feed(b"tiered\n"));
    wait_until("it is stored", || !server.read_all("demo/a").is_empty());
    wait_until_tiered(&server);
    let tiered = server.stored_bytes("demo/a");
    // From now on the bucket takes nothing.
    let staging = bucket.0.join(".staging");
    std::fs::remove_dir_all(&staging).unwrap();
    std::fs::write(&staging, "in the way").unwrap();
    assert!(writer.feed(b"acknowledged\n"));
    wait_until("both are stored", || server.read_all("demo/a").len() == 2);
    server.kill();
    std::fs::remove_file(&staging).unwrap();
    let report = lose_and_recover(&mut server, &bucket);
    assert_eq!(lengths(&report).into_values().collect::<Vec<_>>(), [tiered]);
    server.restart();
    assert_eq!(server.read_all("demo/a"), ["tiered"]);
    assert!(writer.feed(b"third\n"));
    let lost = writer.finish();
    lost.fails(1, &["lost"]);
    assert_eq!(server.read_all("demo/a"), ["tiered"], "nothing is stored behind a hole");
}

#[test]
fn streams_that_the_controller_lost_are_made_again_from_their_segments() {
    let (mut server, bucket) = server();
    server.line("stream create demo/a --segments 3 --create-scope").run().ok();
    server.line("append demo/a").input("1\n2\n3\n4\n5\n6\n7\n8\n").run().ok();
    server.line("stream create demo/sealed --segments 1").run().ok();
    server.line("append demo/sealed --key k").input("one\n").run().ok();
    server.line("stream seal demo/sealed").run().ok();
    let mut before = server.read_all("demo/a");
    wait_until_tiered(&server);
    server.kill();
    bucket.remove_group(1);
    let report = lose_and_recover(&mut server, &bucket);
    let text = report["changes"].to_string();
    assert!(text.contains("begins anew") && text.contains("made again"), "{report}");
    server.restart();
    let mut after = server.read_all("demo/a");
    before.sort();
    after.sort();
    assert_eq!(after, before);
    let refused = server.line("append demo/sealed --key k").input("two\n").run();
    refused.fails(4, &["sealed"]);
    assert_eq!(server.read_all("demo/sealed"), ["one"]);
    server.line("append demo/a --key k").input("nine\n").run().ok();
    assert_eq!(server.read_all("demo/a").len(), 9);
    // Ids are never given twice.
    server.line("stream create demo/new --segments 1").run().ok();
    server.line("append demo/new --key k").input("new\n").run().ok();
    assert_eq!(server.read_all("demo/new"), ["new"]);
}

#[test]
fn segments_that_a_container_lost_are_there_again_empty_and_it_is_said() {
    let (mut server, bucket) = server();
    server.line("stream create demo/a --segments 4 --create-scope").run().ok();
    // Keys of every segment, whatever is drawn.
    let input: String = (0..40).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    server.line("append demo/a --key-field id").input(&input).run().ok();
    wait_until_tiered(&server);
    let before = server.read_all("demo/a").len();
    server.kill();
    bucket.remove_group(3);
    let report = lose_and_recover(&mut server, &bucket);
    assert!(report["changes"].to_string().contains("it is empty"), "{report}");
    server.restart();
    assert!(server.read_all("demo/a").len() < before);
    server.line("append demo/a").input("1\n2\n3\n4\n5\n6\n7\n8\n").run().ok();
}

#[test]
fn a_recovery_says_what_keeps_it_from_its_work_and_changes_nothing() {
    let (mut server, bucket) = tiered();
    server.stop(Signal::TERM);
    let data = server.data().display().to_string();
    let recover = |from: &str, into: &str| -> Finished {
        Braid::new(["recover", "--from-lts", from, "--data", into]).run()
    };
    recover(&bucket.url(), &data).fails(4, &["holds data", "--data"]);
    let new = server.dir().join("new").display().to_string();
    let empty = format!("file://{}/empty", server.dir().display());
    recover(&empty, &new).fails(1, &["no such folder", "no cluster's marker", "check the URL"]);
    let made = ["empty", "new"].map(|name| server.dir().join(name).try_exists().unwrap());
    assert_eq!(made, [false, false], "nothing is made for a mistyped folder");
    recover("nonsense", &new).fails(2, &["nonsense"]);
    // The first folder is whole, and its bucket is still its own.
    server.restart();
    assert_eq!(server.read_all("demo/a"), ["one"]);
    server.stop(Signal::TERM);
    // A recovery takes the bucket over; the node before it is not let in again.
    recover(&bucket.url(), &new).ok();
    let command = &mut server.command();
    let refused = crate::harness::Running::spawn(command).finish();
    refused.fails(4, &["taken over by a recovery"]);
}

#[test]
fn a_node_that_was_not_lost_stops_when_its_bucket_is_taken_over() {
    let (mut server, bucket) = tiered();
    let new = server.dir().join("new").display().to_string();
    Braid::new(["recover", "--from-lts", &bucket.url(), "--data", &new]).run().ok();
    let parts = ["taken over by a recovery", "as incarnation 2", "belongs to incarnation 1"];
    server.end().fails(4, &parts);
    let refused = crate::harness::Running::spawn(&mut server.command()).finish();
    refused.fails(4, &parts);
    std::fs::remove_dir_all(server.data()).unwrap();
    std::fs::rename(&new, server.data()).unwrap();
    server.restart();
    assert_eq!(server.read_all("demo/a"), ["one"]);
}

#[test]
fn a_recovery_that_was_interrupted_begins_anew_in_its_folder() {
    let (mut server, bucket) = tiered();
    server.lose_machine();
    // As a kill leaves it: some files, and the mark that says whose they are.
    std::fs::create_dir_all(server.data().join("wal")).unwrap();
    std::fs::write(server.data().join("RECOVERING"), "").unwrap();
    std::fs::write(server.data().join("wal/junk"), "half").unwrap();
    std::fs::write(server.data().join("STORE.new"), "half").unwrap();
    let refused = crate::harness::Running::spawn(&mut server.command()).finish();
    refused.fails(4, &["did not end", "braid recover"]);
    let data = server.data().display().to_string();
    Braid::new(["recover", "--from-lts", &bucket.url(), "--data", &data]).run().ok();
    server.restart();
    assert_eq!(server.read_all("demo/a"), ["one"]);
}
