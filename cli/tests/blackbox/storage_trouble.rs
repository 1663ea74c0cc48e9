//! Long-term storage that turns full, read-only, or to strangers while a server runs: appends go on
//! while the log has room, the status says why, reads of what the node has go on, and when the log's
//! share is used up appends are refused with what to do. When the trouble is over everything goes on
//! by itself, and nothing that was acknowledged is lost.

use rustix::process::Signal;

use crate::harness::{Server, wait_until};
use crate::long_term::{QUICK, wait_until_tiered};
use crate::s3::{S3Server, borrowed};
use crate::small_disk::SmallDisk;

/// So small that a container's share, a quarter, is soon used up.
const SMALL_LOG: [(&str, &str); 2] =
    [("BRAID__LOG__BUDGET", "128MiB"), ("BRAID__LOG__FILE_SIZE", "16MiB")];

/// More than a container's share of the log, in lines of a mebibyte.
const LINES: usize = 48;

/// What a container's share of the log holds at least.
const LINES_TAKEN_MIN: usize = 16;

/// Enough for everything that is tiered in the end.
const DISK_MIB: u64 = 128;

fn line(number: usize) -> String {
    format!("{number} {}", "x".repeat(1 << 20))
}

/// A bucket that is well or in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    Troubled,
}

/// One kind of trouble.
struct Trouble {
    /// What the status says of it: what is wrong, and what to do.
    words: &'static [&'static str],
    /// Whether objects are read all the same.
    is_readable: bool,
}

/// One story for every kind of trouble.
fn is_ridden_out(mut server: Server, trouble: &Trouble, mut turn: impl FnMut(&Server, Health)) {
    server.line("append demo/a --key k").input("first\n").run().ok();
    wait_until_tiered(&server);
    let tail = server.line("stream cut demo/a").run().ok();
    // From now on it is in the bucket alone, and in no memory.
    server.stop(Signal::TERM);
    server.restart();
    turn(&server, Health::Troubled);
    server.line("append demo/a --key k").input("second\n").run().ok();
    is_told(&server, trouble.words);
    let is_read = || {
        let read = |from| server.braid(["read", "demo/a", "--until", "tail", "--from", from]);
        assert_eq!(read(tail.trim()).run().ok(), "second\n");
        match trouble.is_readable {
            true => assert_eq!(read("head").run().ok(), "first\nsecond\n"),
            false => drop(read("head").args(["--timeout", "1s"]).run().fails(6, trouble.words)),
        }
    };
    is_read();

    let acknowledged = fill(&server, "demo/big");
    assert!(acknowledged >= LINES_TAKEN_MIN, "{acknowledged} lines were taken");
    holds_the_first_lines(&server, "demo/big", acknowledged);
    // The other containers have shares of their own.
    server.line("append demo/b --key k --timeout 60s").input("third\n").run().ok();
    is_read();

    turn(&server, Health::Well);
    server.line("append demo/big --key k --timeout 60s").input("last\n").run().ok();
    wait_until_tiered(&server);
    wait_until("a status without trouble", || server.status()["lts"]["last_error"].is_null());
    server.lts(["check"]).run().ok();
    server.kill();
    server.restart();
    let stored = server.read_all("demo/big");
    assert_eq!(stored.last().map(String::as_str), Some("last"));
    assert!(stored.len() > acknowledged);
    assert!((0..acknowledged).all(|number| stored[number] == line(number)));
    assert_eq!(server.read_all("demo/a"), ["first", "second"]);
    assert_eq!(server.read_all("demo/b"), ["third"]);
}

/// The status, for programs and for people, says why nothing is tiered, and how much waits.
fn is_told(server: &Server, words: &[&str]) {
    let told = || {
        let status = server.status();
        let error = status["lts"]["last_error"].as_str().unwrap_or_default().to_owned();
        words.iter().all(|word| error.contains(word))
            && status["untiered"]["bytes"].as_u64() > Some(0)
    };
    wait_until("a status that tells why", told);
    let screen = server.line("status").run().ok();
    assert!(words.iter().all(|word| screen.contains(word)), "{screen}");
    assert!(!screen.contains(", ready"), "{screen}");
}

/// Appends numbered lines until the server refuses them; how many were acknowledged.
fn fill(server: &Server, stream: &str) -> usize {
    let input: String = (0..LINES).map(|number| line(number) + "\n").collect();
    let append = ["append", stream, "--key", "k", "--timeout", "3s"];
    let refused = server.braid(append).input(&input).run();
    let refused = refused.fails(6, &["braid status", "braid stream truncate", "`log.budget`"]);
    let stored = refused.stderr.split("lines up to ").nth(1).and_then(|s| s.split(' ').next());
    stored.and_then(|number| number.parse().ok()).unwrap()
}

fn holds_the_first_lines(server: &Server, stream: &str, acknowledged: usize) {
    let stored = server.read_all(stream);
    assert!(stored.len() >= acknowledged, "{} of {acknowledged} are there", stored.len());
    let same = stored.iter().enumerate().all(|(number, stored)| *stored == line(number));
    assert!(same, "a line is another");
}

/// Settings of a server with a small log, whose bucket is elsewhere.
fn settings() -> Vec<(&'static str, &'static str)> {
    QUICK.into_iter().chain(SMALL_LOG).collect()
}

#[test]
fn a_bucket_that_turns_full_is_ridden_out() {
    let Some(disk) = SmallDisk::new(DISK_MIB) else { return };
    let server = Server::with_bucket_on(disk, &settings());
    let words = &["o space left", "free space or raise the quota"];
    is_ridden_out(server, &Trouble { words, is_readable: true }, |server, health| {
        let disk = server.disk.as_ref().unwrap();
        match health {
            Health::Troubled => drop(disk.fill()),
            Health::Well => disk.empty(),
        }
    });
}

#[test]
fn a_bucket_that_turns_read_only_is_ridden_out() {
    let Some(disk) = SmallDisk::new(DISK_MIB) else { return };
    let server = Server::with_bucket_on(disk, &settings());
    let words = &["ead-only", "check the credentials and their rights"];
    is_ridden_out(server, &Trouble { words, is_readable: true }, |server, health| {
        let disk = server.disk.as_ref().unwrap();
        // Not while an object is being written.
        wait_until("the other mode", || disk.remount(health == Health::Troubled));
    });
}

#[test]
fn a_bucket_that_turns_to_strangers_is_ridden_out() {
    let mut s3 = S3Server::start();
    let of_bucket = s3.settings();
    let server = Server::with(&[&borrowed(&of_bucket)[..], &SMALL_LOG].concat());
    let words = &["s3://bucket/prefix", "check the credentials"];
    is_ridden_out(server, &Trouble { words, is_readable: false }, |_, health| {
        s3.stop();
        match health {
            Health::Troubled => s3.serve_whoever_knows("another one"),
            Health::Well => s3.serve(),
        }
    });
}
