//! Controller and containers brought back from different moments.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::Server;
use crate::recovery::{Bucket, lose_and_recover, server, wait_until_tiered};

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let into = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &into),
            false => drop(std::fs::copy(entry.path(), into).unwrap()),
        }
    }
}

/// The controller's objects.
fn controller(bucket: &Bucket) -> PathBuf {
    bucket.0.join("0001").join(format!("{:016x}", 1))
}

/// Loses the machine after `last`, of which the controller's last round says nothing.
fn recovered_without(
    server: &mut Server,
    bucket: &Bucket,
    last: impl FnOnce(&Server),
) -> (Value, Value) {
    wait_until_tiered(server);
    let copy = server.dir().join("controller");
    copy_folder(&controller(bucket), &copy);
    last(server);
    wait_until_tiered(server);
    server.kill();
    std::fs::remove_dir_all(controller(bucket)).unwrap();
    copy_folder(&copy, &controller(bucket));
    let report = lose_and_recover(server, bucket);
    server.restart();
    let streams = report["streams"].as_array().unwrap();
    let stream = streams.iter().find(|stream| stream["stream"] == "demo/a").unwrap();
    (stream.clone(), report["changes"].clone())
}

#[test]
fn a_stream_whose_seal_only_the_containers_know_is_sealed() {
    let (mut server, bucket) = server();
    server.line("stream create demo/a --segments 3 --create-scope").run().ok();
    server.line("append demo/a").input("1\n2\n3\n4\n5\n6\n").run().ok();
    let seal = |server: &Server| drop(server.line("stream seal demo/a").run().ok());
    let (stream, changes) = recovered_without(&mut server, &bucket, seal);
    assert_eq!(stream["state"], "sealed");
    assert!(changes.to_string().contains("it is sealed"), "{changes}");
    server.line("append demo/a --key k").input("more\n").run().fails(4, &["sealed"]);
    let mut stored = server.read_all("demo/a");
    stored.sort();
    assert_eq!(stored, ["1", "2", "3", "4", "5", "6"]);
    server.line("stream delete demo/a").run().ok();
}

#[test]
fn a_stream_whose_truncation_only_the_containers_know_begins_where_its_bytes_do() {
    let (mut server, bucket) = server();
    server.line("stream create demo/a --segments 1 --create-scope").run().ok();
    server.line("append demo/a --key k").input("old\n").run().ok();
    let end = server.line("stream cut demo/a").run().ok();
    server.line("append demo/a --key k").input("new\n").run().ok();
    let truncate = |server: &Server| {
        server.braid(["stream", "truncate", "demo/a", "--at", end.trim()]).run().ok();
    };
    let (stream, changes) = recovered_without(&mut server, &bucket, truncate);
    assert_eq!(stream["state"], "active");
    assert!(stream["segments"][0]["start"].as_u64().unwrap() > 0, "{stream}");
    assert!(changes.to_string().contains("set to what is there"), "{changes}");
    assert_eq!(server.read_all("demo/a"), ["new"]);
    server.line("append demo/a --key k").input("newer\n").run().ok();
    assert_eq!(server.read_all("demo/a"), ["new", "newer"]);
}
