//! Bad input gets the right exit code and a message that says what to do; nothing changes.

use std::os::unix::ffi::OsStrExt as _;

use crate::harness::{Braid, Server, temp_dir};

#[test]
fn bad_names_are_usage_errors_that_say_the_rule() {
    let long = "x".repeat(256);
    for (name, word) in [
        ("", "SCOPE/STREAM"),
        ("demo", "SCOPE/STREAM"),
        ("a/b/c", "SCOPE/STREAM"),
        ("a b/c", "letters"),
        ("_a/b", "reserved"),
        ("a/..", "dots"),
        ("größe/a", "letters"),
        (&format!("a/{long}"), "too long"),
        ("a/\u{202e}b", "letters"),
        ("/a", "empty"),
    ] {
        for verb in ["append", "read"] {
            Braid::new([verb, name]).run().fails(2, &[word]);
        }
        Braid::new(["stream", "create", name]).run().fails(2, &[word]);
    }
    Braid::new(["scope", "create", "a/b"]).run().fails(2, &["letters"]);
    Braid::new(["append", "a/b", "--writer", "_w"]).run().fails(2, &["reserved"]);
}

#[test]
fn what_does_not_exist_is_not_found() {
    let server = Server::start();
    for line in [
        "read no/thing --until tail",
        "stream describe no/thing",
        "stream seal no/thing",
        "stream delete no/thing",
        "stream cut no/thing",
        "stream truncate no/thing --at tail",
        "stream list no",
        "segment list no/thing",
        "segment describe no/thing/0.#0",
        "scope delete no",
        "append a/b --file /no/such/file",
    ] {
        server.line(line).run().fails(3, &["error"]);
    }
}

#[test]
fn without_a_server_commands_say_how_to_get_one() {
    for line in ["scope list", "append a/b", "read a/b", "stream list", "bench append"] {
        Braid::new(line.split(' ')).run().fails(6, &["127.0.0.1:1", "braid dev"]);
    }
    Braid::new(["scope", "list", "--endpoint", "no host"]).run().fails(2, &["HOST:PORT"]);
}

#[test]
fn a_line_without_the_field_stops_the_append_there() {
    let server = Server::start();
    let input = "{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"other\":1}\n{\"id\":\"c\"}\n";
    let append = server.line("append demo/a --key-field id").input(input).run();
    append.fails(1, &["line 3", "`id`", "lines up to 2 are stored"]);
    assert_eq!(server.read_all("demo/a").len(), 2);
    let broken = server.line("append demo/b").input("[{\"a\":1},{\"a\":}]").run();
    broken.fails(1, &["element 2"]);
    assert_eq!(server.read_all("demo/b"), ["{\"a\":1}"]);
}

#[test]
fn a_first_line_that_cannot_be_sent_leaves_nothing_behind() {
    let server = Server::start();
    let input: &[u8] = b"{\"id\":\"\xff\"}\n{\"id\":\"b\"}\n";
    let append = server.line("append demo/a --key-field id").input(input).run();
    append.fails(1, &["line 1", "`id`", "nothing of it is stored"]);
    assert!(server.read_all("demo/a").is_empty());
    server.line("append demo/a --rate 0").input("x\n").run().fails(2, &["1 or more"]);
    server.line("append demo/a --delimiter \\x").input("x\n").run().fails(2, &["after"]);
    server.line("append demo/a --file /").run().fails(1, &["read `/`", "nothing of it"]);
    server.line("stream create demo/b --segments 100001").run().fails(2, &["--segments"]);
    assert!(server.read_all("demo/a").is_empty());
}

#[test]
fn a_time_that_has_not_come_is_said_to_readers_and_drops_nothing() {
    let server = Server::start();
    server.line("append demo/a").input("x\n").run().ok();
    // Microseconds are taken for milliseconds, which are those of a far future.
    for time in ["2099-01-01T00:00:00Z", "4102444800", "1795370400000000"] {
        let read = server.braid(["read", "demo/a", "--until", "tail", "--from", time]).run();
        assert!(read.stderr.contains("has not come yet"), "{read:?}");
        assert_eq!(read.ok(), "");
        let truncate = server.braid(["stream", "truncate", "demo/a", "--at", time]).run();
        truncate.fails(2, &["has not come yet", "--at tail"]);
    }
    let until = ["read", "demo/a", "--from", "head", "--until", "2099-01-01T00:00:00Z"];
    assert_eq!(server.braid(until).run().ok(), "x\n");
}

#[test]
fn an_event_that_is_too_large_stops_the_append_there() {
    let server = Server::start();
    let mut input = b"small\n".to_vec();
    input.extend(std::iter::repeat_n(b'x', 8 << 20));
    let append = server.line("append demo/a").input(&input).run();
    append.fails(1, &["line 2", "8388608"]);
    assert_eq!(server.read_all("demo/a"), ["small"]);
    let largest = vec![b'x'; (8 << 20) - 64];
    server.line("append demo/b --delimiter \\0").input(&largest).run().ok();
    assert_eq!(server.read_all("demo/b")[0].len(), largest.len());
    let key = "k".repeat(9_000);
    let append = server.braid(["append", "demo/c", "--key", &key]).input("x\n").run();
    append.fails(1, &["line 1", "routing key"]);
}

#[test]
fn bad_places_are_refused_with_the_forms_that_work() {
    let server = Server::start();
    server.line("append demo/a").input("x\n").run().ok();
    for place in ["yesterday", "-5 apples", "1-7:0.#0", "1-7:0.#0=x", "2026-13-01"] {
        server.braid(["read", "demo/a", "--from", place]).run().fails(2, &["looks like"][..0]);
    }
    let cut = server.line("stream cut demo/a").run().ok();
    let beyond: String = cut
        .trim()
        .split(',')
        .map(|part| format!("{}=999999", part.split('=').next().unwrap()))
        .collect::<Vec<_>>()
        .join(",");
    server.braid(["read", "demo/a", "--from", &beyond]).run().fails(2, &["beyond"]);
    let to_tail = ["read", "demo/a", "--until", "tail", "--from", &beyond];
    server.braid(to_tail).run().fails(2, &["beyond", "braid stream cut"]);
    let truncate = server.braid(["stream", "truncate", "demo/a", "--at", &beyond]).run();
    truncate.fails(2, &["beyond", "braid stream cut"]);
    assert_eq!(server.read_all("demo/a"), ["x"]);
}

#[test]
fn unknown_settings_and_options_are_refused_with_the_nearest_name() {
    let dir = temp_dir();
    let file = dir.path().join("braid.toml");
    std::fs::write(&file, "[log]\nbugdet = \"4GiB\"\n").unwrap();
    let file = file.to_str().unwrap();
    for args in [["config", "check", file].as_slice(), &["server", "--config", file]] {
        Braid::new(args).run().fails(2, &["log.bugdet", "log.budget"]);
    }
    let show = Braid::new(["config", "show"]).env("BRAID__LOG__BUDGET", "many").run();
    show.fails(2, &["BRAID__LOG__BUDGET", "many"]);
    for args in [["server", "--config"].as_slice(), &["config", "check"]] {
        let args = args.iter().chain(&["/no/such/file"]);
        Braid::new(args).run().fails(3, &["/no/such/file"]);
    }
    let not_text = std::ffi::OsStr::from_bytes(b"\xff");
    let show = Braid::new(["config", "show"]).env("BRAID__LOG__BUDGET", not_text).run();
    show.fails(2, &["BRAID__LOG__BUDGET", "UTF-8"]);
    Braid::new(["append", "a/b", "--colour"]).run().fails(2, &["--colour"]);
    Braid::new(["wal", "inspect", "/no/such/folder"]).run().fails(3, &["/no/such/folder"]);
}
