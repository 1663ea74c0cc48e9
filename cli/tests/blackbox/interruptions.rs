//! Signals, closed pipes, and servers that go away while a command runs.

use std::process::Command;

use rustix::process::Signal;

use crate::harness::{Running, Server, binary, wait_until};

#[test]
fn an_interrupted_read_ends_cleanly_with_what_it_has() {
    let server = Server::start();
    server.line("append demo/a").input("one\n").run().ok();
    for signal in [Signal::INT, Signal::TERM] {
        let read = server.line("read demo/a --from head").start();
        assert_eq!(read.line().as_deref(), Some("one"));
        read.signal(signal);
        assert_eq!(read.finish().ok(), "one\n");
    }
}

#[test]
fn a_follower_sees_events_as_they_come() {
    let server = Server::start();
    server.line("append demo/a --key k").input("one\n").run().ok();
    let read = server.line("read demo/a --from head --limit 3").start();
    assert_eq!(read.line().as_deref(), Some("one"));
    for word in ["two", "three"] {
        server.line("append demo/a --key k").input(word).run().ok();
        assert_eq!(read.line().as_deref(), Some(word));
    }
    assert_eq!(read.finish().code, Some(0));
}

#[test]
fn an_interrupted_append_stores_what_it_took_and_says_so() {
    let server = Server::start();
    let mut append = server.line("append demo/a").start();
    assert!(append.feed(b"one\ntwo\nunfinished"));
    wait_until("both lines stored", || server.read_all_or_none("demo/a").len() == 2);
    append.signal(Signal::INT);
    let said = append.finish_with_open_input().ok();
    assert!(said.contains("stored 2 events") && said.contains("interrupted"), "{said}");
    assert_eq!(server.read_all("demo/a").len(), 2);
}

#[test]
fn a_closed_pipe_ends_every_command_silently() {
    let server = Server::start();
    // More than a pipe holds.
    let input: String = (0..50_000).map(|i| format!("line {i}\n")).collect();
    server.line("append demo/a").input(&input).run().ok();
    server.line("stream create demo/wide --segments 3000").run().ok();
    for line in [
        "read demo/a --from head --until tail",
        "read demo/a --from head --until tail -o json",
        "read demo/a --from head --until tail -o yaml",
        "segment list demo/wide",
        "segment list demo/wide -o json",
        "segment list demo/wide -o yaml",
        "segment read demo/a/0.#0 --events",
        "stream cut demo/wide",
        "completion bash",
        "config default",
        "--help",
    ] {
        let mut shell = Command::new("bash");
        let piped = format!("{} {line} | head -c 1", binary());
        shell.args(["-o", "pipefail", "-c", &piped]);
        shell.env("BRAID_ENDPOINT", server.address.to_string());
        let finished = Running::spawn(&mut shell).finish();
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{line}");
    }
}

#[test]
fn a_read_rides_out_a_restart_of_the_server() {
    let mut server = Server::start();
    server.line("append demo/a --key k").input("one\n").run().ok();
    let read = server.line("read demo/a --from head --limit 2").start();
    assert_eq!(read.line().as_deref(), Some("one"));
    server.kill();
    server.restart();
    server.line("append demo/a --key k").input("two\n").run().ok();
    assert_eq!(read.finish().ok(), "one\ntwo\n");
}

#[test]
fn a_server_that_stays_away_ends_append_and_read_as_unavailable() {
    let mut server = Server::start();
    server.line("append demo/a --key k").input("one\n").run().ok();
    let mut append = server.line("append demo/a --key k --timeout 1s").start();
    assert!(append.feed(b"two\n"));
    wait_until("the line stored", || server.read_all_or_none("demo/a").len() == 2);
    let read = server.line("read demo/a --from head --timeout 1s").start();
    assert_eq!(read.line().as_deref(), Some("one"));
    server.kill();
    assert!(append.feed(b"three\n"));
    append.finish().fails(6, &["lines up to 1 are stored"]);
    read.finish().fails(6, &["braid dev"]);
    server.restart();
    let stored = server.read_all("demo/a");
    assert!(stored.len() >= 2, "{stored:?}");
}

#[test]
fn a_second_process_of_a_writer_fences_the_first() {
    let server = Server::start();
    let mut first = server.line("append demo/a --key k --writer w").start();
    assert!(first.feed(b"one\n"));
    wait_until("the line stored", || server.read_all_or_none("demo/a").len() == 1);
    let second = server.line("append demo/a --key k --writer w").input("one\ntwo\n").run().ok();
    assert!(second.contains("stored 1 event") && second.contains("1 was already"), "{second}");
    assert!(first.feed(b"other\n"));
    first.finish().fails(4, &["fenced", "lines up to 1 are stored"]);
    assert_eq!(server.read_all("demo/a"), ["one", "two"]);
}
