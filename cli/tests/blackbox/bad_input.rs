//! Bad input gets the right exit code and a message that says what to do; nothing changes.

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
    Braid::new(["server", "--config", "/no/such/file"]).run().fails(2, &["/no/such/file"]);
    Braid::new(["append", "a/b", "--colour"]).run().fails(2, &["--colour"]);
    Braid::new(["wal", "inspect", "/no/such/folder"]).run().fails(3, &["/no/such/folder"]);
}
