//! After a recovery the bucket still holds what the lost cluster put. Nothing of that is deleted,
//! whatever happens to the streams, until a person says that nobody needs the lost cluster; then what
//! the recovered one does not need goes by itself, and the bucket is clean.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::Signal;

use crate::harness::{Server, temp_dir, wait_until};
use crate::long_term::{QUICK, wait_until_clean};
use crate::recovery::wait_until_tiered;

/// States are copied, dropped objects collected, within seconds.
const HASTY: [(&str, &str); 4] = [
    ("BRAID__TIERING__ROUND_BYTES", "1MiB"),
    ("BRAID__TIERING__CHECKPOINT_BYTES", "1MiB"),
    ("BRAID__TIERING__CHECKPOINT_KEEP", "1s"),
    ("BRAID__TIERING__GRACE", "1s"),
];

/// Of what fills the containers: each gets more than a mebibyte.
const LINE_BYTES: usize = 128 << 10;
const LINES: usize = 64;

/// The controller's group: it hears too little to copy its state within the time of a test.
const CONTROLLER: &str = "0000000000000001";

/// Objects of an incarnation, without the controller's.
fn objects_of(server: &Server, incarnation: u16) -> BTreeSet<String> {
    let listed = server.lts(["ls", "--objects", "-o", "json"]).run().json();
    let names = listed.as_array().unwrap().iter().map(|row| row["object"].as_str().unwrap());
    let of_it = names.filter(|name| name.starts_with(&format!("{incarnation:04x}/")));
    of_it.filter(|name| !name.contains(CONTROLLER)).map(str::to_owned).collect()
}

/// The payload of an incarnation; the rest is rounds and copies of states.
fn payload_of(server: &Server, incarnation: u16) -> BTreeSet<String> {
    let listed = server.lts(["ls", "--objects", "-o", "json"]).run().json();
    let payload = listed.as_array().unwrap().iter().filter(|row| row["kind"] == "payload");
    let names = payload.map(|row| row["object"].as_str().unwrap().to_owned());
    names.filter(|name| name.starts_with(&format!("{incarnation:04x}/"))).collect()
}

/// The newest copy of each container's state.
fn newest_checkpoints(server: &Server) -> BTreeMap<String, String> {
    let listed = server.lts(["ls", "--objects", "-o", "json"]).run().json();
    let copies = listed.as_array().unwrap().iter().filter(|row| row["kind"] == "checkpoint");
    let names = copies.map(|row| row["object"].as_str().unwrap());
    let mut newest = BTreeMap::new();
    for name in names.filter(|name| !name.contains(CONTROLLER)) {
        let group = name.split('/').nth(1).unwrap().to_owned();
        let known: &mut String = newest.entry(group).or_default();
        *known = name.to_owned().max(std::mem::take(known));
    }
    newest
}

/// A stream in every container, with more than makes a copy of the state due, and tiered. The name
/// of the writer decides where each line goes.
fn fill(server: &Server, stream: &str) {
    server.braid(["stream", "create", stream, "--segments", "4", "--create-scope"]).run().ok();
    let line = "x".repeat(LINE_BYTES) + "\n";
    let append = ["append", stream, "--writer", "filler"];
    server.braid(append).input(line.repeat(LINES)).run().ok();
    wait_until_tiered(server);
}

/// Every container copies its state, which knows all that was dropped before. A process does it once
/// a minute at most, a new one at once.
fn copy_states(server: &mut Server, stream: &str) {
    let before = newest_checkpoints(server);
    server.stop(Signal::TERM);
    server.restart();
    fill(server, stream);
    wait_until("copies of all states", || {
        let now = newest_checkpoints(server);
        now.len() == 4 && now.iter().all(|(group, copy)| before.get(group) < Some(copy))
    });
}

#[test]
fn what_the_lost_cluster_left_goes_once_the_recovered_one_adopts_it() {
    let folder = temp_dir();
    let url = format!("file://{}", folder.path().display());
    let settings = [&QUICK[..], &HASTY, &[("BRAID__LTS__URL", &*url)]].concat();
    let mut server = Server::with(&settings);
    fill(&server, "demo/old");
    server.line("append demo/kept --key k").input("kept\n").run().ok();
    wait_until_tiered(&server);
    lose_and_recover(&mut server, &url);
    let left = objects_of(&server, 1);
    assert!(!payload_of(&server, 1).is_empty(), "{left:?}");

    // Whatever becomes of the streams: the new cluster's garbage goes, the old one's stays.
    fill(&server, "demo/passing");
    let passing = payload_of(&server, 2);
    assert!(!passing.is_empty());
    for stream in ["demo/old", "demo/passing"] {
        server.braid(["stream", "delete", stream]).run().ok();
    }
    copy_states(&mut server, "demo/second");
    let own_is_gone = || payload_of(&server, 2).is_disjoint(&passing);
    wait_until("collection of the new cluster's own", own_is_gone);
    assert_eq!(objects_of(&server, 1), left, "nobody has adopted it");
    server.lts(["check", "--grace", "0s"]).run().ok();

    server.lts(["adopt"]).run().fails(2, &["--yes"]);
    let adopted = server.lts(["adopt", "--yes"]).run().ok();
    assert!(adopted.contains("incarnation 2 may delete"), "{adopted}");
    server.line("lts compact").run().ok();
    // What is still read may be among other things, or copied next to them.
    wait_until("deletion of the old payload", || payload_of(&server, 1).len() <= 1);
    copy_states(&mut server, "demo/third");
    wait_until("deletion of all that nobody needs", || objects_of(&server, 1).len() <= 1);
    wait_until_clean(&server);
    assert_eq!(server.read_all("demo/kept"), ["kept"]);
    // As good as ever: it can be recovered from.
    lose_and_recover(&mut server, &url);
    assert_eq!(server.read_all("demo/kept"), ["kept"]);
    assert_eq!(server.read_all("demo/third").len(), LINES);
}

fn lose_and_recover(server: &mut Server, url: &str) {
    server.lose_machine();
    server.recover(url).run().ok();
    server.restart();
}
