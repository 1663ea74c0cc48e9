//! Every command does what its help says, in each form of output.

use crate::harness::{Braid, Server};

#[test]
fn scopes_are_created_listed_and_deleted() {
    let server = Server::start();
    assert_eq!(server.line("scope create demo").run().ok(), "created scope demo\n");
    server.line("scope create demo").run().fails(4, &["exists already"]);
    server.line("scope create demo --if-not-exists").run().ok();
    server.line("scope create other -o json").run().json();
    assert_eq!(server.line("scope list").run().ok(), "demo\nother\n");
    assert_eq!(server.line("scope list -o json").run().json()[1]["scope"], "other");
    assert_eq!(server.line("scope list -o yaml").run().ok(), "- scope: demo\n- scope: other\n");
    server.line("stream create demo/a --segments 1").run().ok();
    server.line("scope delete demo").run().fails(4, &["demo"]);
    server.line("scope delete other").run().ok();
    server.line("scope delete other").run().fails(3, &["other"]);
}

#[test]
fn a_stream_goes_from_creation_to_deletion() {
    let server = Server::start();
    server.line("stream create demo/a").run().fails(3, &["demo"]);
    server.line("stream create demo/a --segments 3 --create-scope").run().ok();
    server.line("stream create demo/a").run().fails(4, &["exists already"]);
    server.line("stream create demo/a --if-not-exists").run().ok();
    let list = server.line("stream list -o json").run().json();
    assert_eq!((&list[0]["stream"], &list[0]["segments"]), (&"demo/a".into(), &3.into()));
    assert!(server.line("stream list demo").run().ok().contains("demo/a"));
    server.line("append demo/a").input("one\ntwo\n").run().ok();
    let described = server.line("stream describe demo/a -o json").run().json();
    assert_eq!(described["state"], "active");
    assert!(described["bytes"].as_u64() > Some(0), "{described}");
    assert!(described["log_budget_bytes"].as_u64() > Some(0), "{described}");
    assert!(server.line("stream describe demo/a").run().ok().contains("all streams together"));
    server.line("stream seal demo/a").run().ok();
    assert_eq!(server.line("stream describe demo/a -o json").run().json()["state"], "sealed");
    assert_eq!(server.read_all("demo/a").len(), 2, "a sealed stream is still read");
    server.line("append demo/a").input("three\n").run().fails(4, &["sealed"]);
    server.line("stream delete demo/a").run().ok();
    server.line("stream describe demo/a").run().fails(3, &["demo/a"]);
}

#[test]
fn a_recreated_stream_is_another_stream() {
    let server = Server::start();
    server.line("append demo/a").input("old\n").run().ok();
    let cut = server.line("stream cut demo/a").run().ok();
    server.line("stream seal demo/a").run().ok();
    server.line("stream delete demo/a").run().ok();
    server.line("append demo/a").input("new\n").run().ok();
    assert_eq!(server.read_all("demo/a"), ["new"]);
    let stale = server.braid(["read", "demo/a", "--until", "tail", "--from", cut.trim()]).run();
    assert!(matches!(stale.code, Some(2..=4)), "{stale:?}");
}

#[test]
fn segments_are_listed_described_and_read() {
    let server = Server::start();
    server.line("stream create demo/a --segments 2 --create-scope").run().ok();
    server.line("append demo/a --key k").input("one\ntwo\n").run().ok();
    let list = server.line("segment list demo/a -o json").run().json();
    let used = list.as_array().unwrap().iter().find(|s| s["length"].as_u64() > Some(0)).unwrap();
    let name = used["segment"].as_str().unwrap();
    assert!(server.braid(["segment", "describe", name]).run().ok().contains(name));
    let bytes = server.braid(["segment", "read", name]).run().stdout_bytes;
    assert_eq!(Some(bytes.len() as u64), used["length"].as_u64());
    let events = server.braid(["segment", "read", name, "--events"]).run().ok();
    assert_eq!(events.lines().count(), 2);
    assert!(events.contains("\"event\":\"two\"") && events.contains("\"key\":\"k\""), "{events}");
    server.line("segment describe demo/a/9.#0").run().fails(3, &["segment list"]);
    server.braid(["segment", "read", name, "--offset", "999999"]).run().fails(2, &["not in"]);
}

#[test]
fn reading_begins_and_ends_where_it_is_told() {
    let server = Server::start();
    let append = |input: &str| server.line("append demo/a --key k").input(input).run().ok();
    append("one\ntwo\n");
    let cut = server.line("stream cut demo/a").run().ok();
    append("three\nfour\n");
    let read = |args: &str| {
        let line = format!("read demo/a {args}");
        server.line(&line).run().ok().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let cut = cut.trim();
    assert_eq!(read("--from head --until tail"), ["one", "two", "three", "four"]);
    assert_eq!(read(&format!("--from {cut} --until tail")), ["three", "four"]);
    assert_eq!(read(&format!("--from head --until {cut}")), ["one", "two"]);
    assert_eq!(read("--from head --limit 3"), ["one", "two", "three"]);
    assert_eq!(read("--from -5m --until tail --limit 1"), ["one"]);
    assert_eq!(read("--from 2001-01-01T00:00:00Z --limit 1"), ["one"]);
    assert!(read("--from tail --until tail").is_empty());
    assert!(read("--from head --limit 0").is_empty());
    let tail = server.line("read demo/a --until tail").run();
    assert!(tail.stderr.contains("reading from the tail"), "{tail:?}");
    let json = read("--from head --limit 1 --format json");
    let event: serde_json::Value = serde_json::from_str(&json[0]).unwrap();
    assert_eq!((&event["key"], &event["event"]), (&"k".into(), &"one".into()));
    assert_eq!((&event["time"], &event["offset"]), (&serde_json::Value::Null, &0.into()));
    // When it was stored is between two moments, and reading from the first of them finds it.
    let stored = |edge: &str| event["stored"][edge].as_str().unwrap().to_owned();
    assert!(stored("earliest") <= stored("latest"), "{event}");
    assert_eq!(read(&format!("--from {} --until tail --limit 1", stored("earliest"))), ["one"]);
}

#[test]
fn a_truncated_stream_begins_at_the_cut() {
    let server = Server::start();
    server.line("append demo/a --key k").input("one\n").run().ok();
    let head = server.line("stream cut demo/a --at head").run().ok();
    server.line("stream truncate demo/a --at tail").run().ok();
    server.line("append demo/a --key k").input("two\n").run().ok();
    assert_eq!(server.read_all("demo/a"), ["two"]);
    let gone = ["read", "demo/a", "--until", "tail", "--from", head.trim()];
    server.braid(gone).run().fails(4, &["truncated", "head"]);
}

#[test]
fn keys_times_and_delimiters_are_taken_as_told() {
    let server = Server::start();
    let input = r#"{"at":"2001/01/01 00:47","id":"a\"b","n":1}|{"at":"2001/01/01 01:10","id":"c"}"#;
    let append = [
        "append",
        "demo/a",
        "--key-field",
        "id",
        "--time-field",
        "at",
        "--time-format",
        "%Y/%m/%d %H:%M",
        "--delimiter",
        "|",
        "-o",
        "json",
    ];
    let summary = server.braid(append).input(input).run().json();
    assert_eq!((&summary["stored"], &summary["interrupted"]), (&2.into(), &false.into()));
    let read = server.line("read demo/a --from head --until tail --format json").run().ok();
    assert!(read.contains(r#""key":"a\"b","time":"2001-01-01T00:47:00Z""#), "{read}");
    assert!(read.contains(r#""key":"c","time":"2001-01-01T01:10:00Z""#), "{read}");
}

#[test]
fn a_paced_append_stores_the_same_events() {
    let server = Server::start();
    let lines: Vec<String> = (0..200).map(|line| line.to_string()).collect();
    let input = lines.join("\n");
    server.line("append demo/paced --key k --rate 2000").input(&input).run().ok();
    assert_eq!(server.read_all("demo/paced"), lines);
}

#[test]
fn bytes_that_are_no_text_survive() {
    let server = Server::start();
    server.line("append demo/a --key k --delimiter \\0").input(b"\xff\xfe\n\0x").run().ok();
    let read = server.line("read demo/a --from head --until tail -o json").run().ok();
    assert!(read.contains("\"event\":\"//4K\",\"encoding\":\"base64\""), "{read}");
    assert!(read.contains("\"event\":\"x\"}"), "{read}");
}

#[test]
fn settings_are_shown_with_their_origin() {
    let show = Braid::new(["config", "show", "--origin", "--data", "elsewhere"])
        .env("BRAID__LOG__BUDGET", "4GiB")
        .run()
        .ok();
    let line = |key: &str| show.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("data.dir").ends_with("flag --data"), "{show}");
    assert!(line("log.budget").contains("environment BRAID__LOG__BUDGET"), "{show}");
    assert!(line("cache.tail").ends_with("default"), "{show}");
    let dir = crate::harness::temp_dir();
    let file = dir.path().join("braid.toml");
    std::fs::write(&file, Braid::new(["config", "default"]).run().ok()).unwrap();
    Braid::new(["config", "check", file.to_str().unwrap()]).run().ok();
}

#[test]
fn the_status_of_a_server_is_one_screen_and_a_document() {
    let server = Server::start();
    server.line("append demo/a --key k").input("one\ntwo\n").run().ok();
    let screen = server.line("status").run().ok();
    for part in ["up ", "1 stream in 1 scope", "file:///", "/lts, ready", "tail", "5 of 5 serve"] {
        assert!(screen.contains(part), "{part} is not in\n{screen}");
    }
    assert!(screen.lines().count() <= 24, "{screen}");
    let status = server.line("status -o json").run().json();
    assert_eq!((&status["streams"], &status["scopes"]), (&1.into(), &1.into()));
    assert_eq!(status["lts"]["breaker"], "closed");
    assert_eq!(status["groups"].as_array().unwrap().len(), 5);
    let limit = status["memory"]["limit_bytes"].as_u64().unwrap();
    let classes = status["memory"]["classes"].as_array().unwrap();
    let used = |class: &serde_json::Value| class["used_bytes"].as_u64();
    assert!(classes.iter().all(|class| used(class).is_some()), "each is counted: {status}");
    let state = classes.iter().find(|class| class["class"] == "state").unwrap();
    assert!(used(state) > Some(0), "RocksDB has buffers: {status}");
    let shares = classes.iter();
    let shares: u64 = shares.map(|class| class["limit_bytes"].as_u64().unwrap()).sum();
    assert!(shares <= limit / 10 * 9, "{status}");
    server.line("status -o yaml").run().ok();
    let nobody = crate::harness::free_address().to_string();
    Braid::new(["status", "--endpoint", &nobody]).run().fails(6, &[&nobody]);
}

#[test]
fn every_command_explains_itself() {
    for noun in [
        "",
        "dev",
        "server",
        "scope",
        "stream",
        "append",
        "read",
        "segment",
        "writer",
        "writer delete",
        "status",
        "wal",
        "config",
        "bench",
        "completion",
        "bench append",
        "stream create",
    ] {
        let args = noun.split(' ').filter(|word| !word.is_empty()).chain(["--help"]);
        let help = Braid::new(args).run().ok();
        assert!(help.contains("Usage:"), "{noun}: {help}");
    }
    assert!(Braid::new(["completion", "bash"]).run().ok().contains("braid"));
    assert!(Braid::new(["--version"]).run().ok().starts_with("braid "));
}

#[test]
fn the_allocator_is_set_to_huge_pages() {
    // Asked by the environment, it says what is set, also by the program.
    let said = Braid::new(["--version"]).env("MALLOC_CONF", "confirm_conf:true").run();
    assert!(said.stderr.contains("global variable malloc_conf): \"thp:always\""), "{said:?}");
}

#[test]
fn the_log_of_a_stopped_server_is_inspected() {
    let mut server = Server::start();
    server.line("append demo/a").input("one\n").run().ok();
    server.stop(rustix::process::Signal::TERM);
    let data = server.data();
    let found = Braid::new(["wal", "inspect", data.to_str().unwrap(), "-o", "json"]).run().json();
    assert!(found["damage"].as_array().unwrap().is_empty(), "{found}");
    assert!(found["groups"].as_array().unwrap().len() >= 2, "{found}");
    assert!(Braid::new(["wal", "inspect", data.to_str().unwrap()]).run().ok().contains("whole"));
    let repair = Braid::new(["wal", "repair", data.to_str().unwrap(), "--accept-loss"]).run().ok();
    assert!(repair.contains("nothing is lost"), "{repair}");
    server.restart();
    assert_eq!(server.read_all("demo/a"), ["one"]);
}
