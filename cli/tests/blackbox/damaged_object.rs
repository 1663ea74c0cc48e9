//! An object that is missing, cut short, changed by one bit, or another: whoever reads it is told its
//! name and what to do, the check finds it, other streams go on, and with the object back all is well.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::exactly_once::{STREAM, assert_stored_once};
use crate::harness::Server;
use crate::long_term::{
    QUICK, object_file, payload_objects, store_flights, wait_until_tiered, wait_until_truncated,
};
use crate::s3::{S3Server, borrowed};

/// What may befall an object, and what its file is then.
fn damages(whole: &[u8], other: Vec<u8>) -> [(&'static str, Option<Vec<u8>>); 4] {
    let mut flipped = whole.to_vec();
    flipped[whole.len() / 3] ^= 1;
    [
        ("missing", None),
        ("cut short", Some(whole[..whole.len() / 2].to_vec())),
        ("one bit", Some(flipped)),
        ("another", Some(other)),
    ]
}

fn put(file: &Path, bytes: Option<&[u8]>) {
    match bytes {
        None => std::fs::remove_file(file).unwrap(),
        Some(bytes) => std::fs::write(file, bytes).unwrap(),
    }
}

/// Each damage of an object of the flights; `file` says where an object lies.
fn is_named(settings: &[(&str, &str)], file: impl Fn(&Server, &str) -> PathBuf) {
    let mut server = Server::with(settings);
    let flights = store_flights(&server);
    wait_until_tiered(&server);
    server.line("append demo/other --key k").input("0\n").run().ok();
    wait_until_truncated(&server);
    server.stop(Signal::TERM);
    let objects = payload_objects(&server);
    let (object, other) = (&objects[0], &objects[1]);
    let (file, other) = (file(&server, object), file(&server, other));
    let whole = std::fs::read(&file).unwrap();
    for (number, (what, bytes)) in
        damages(&whole, std::fs::read(other).unwrap()).into_iter().enumerate()
    {
        put(&file, bytes.as_deref());
        let found = server.lts(["check"]).run().fails(1, &["finding"]);
        assert!(found.stdout.contains(object), "{what}: {found:?}");
        assert!(found.stdout.contains("restore it from a copy"), "{what}: {found:?}");
        server.restart();
        let read = ["read", STREAM, "--from", "head", "--until", "tail"];
        server.braid(read).run().fails(1, &[object, "restore ", "braid lts check"]);
        others_go_on(&server, number);
        server.stop(Signal::TERM);
        put(&file, Some(&whole));
        server.lts(["check"]).run().ok();
    }
    server.restart();
    assert_stored_once(&server, &flights);
}

/// Streams that have nothing to do with the object are read from theirs, appended to and tiered.
fn others_go_on(server: &Server, number: usize) {
    let line = format!("{}\n", number + 1);
    server.line("append demo/other --key k").input(line).run().ok();
    let expected: Vec<String> = (0..number + 2).map(|number| number.to_string()).collect();
    assert_eq!(server.read_all("demo/other"), expected);
    wait_until_tiered(server);
    let status = server.status();
    assert!(status["groups"].as_array().unwrap().iter().all(|group| group["serving"] == true));
}

#[test]
fn a_damaged_object_is_named_by_readers_and_by_the_check() {
    is_named(&QUICK, object_file);
}

#[test]
fn on_s3_a_damaged_object_is_named_by_readers_and_by_the_check() {
    let s3 = S3Server::start();
    is_named(&borrowed(&s3.settings()), |_, object| s3.file(object));
}
