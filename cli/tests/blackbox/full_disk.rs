//! A real file system without space under a real server.

use rustix::process::Signal;

use crate::harness::{Running, Server, wait_until};
use crate::small_disk::SmallDisk;

/// Less than the log would be allowed, and more than the files that clients leave to what frees space.
const DISK_MIB: u64 = 256;
const SETTINGS: [(&str, &str); 3] = [
    ("BRAID__LOG__BUDGET", "1GiB"),
    ("BRAID__LOG__FILE_SIZE", "16MiB"),
    ("BRAID__CHECKPOINT__LOG_BYTES", "8MiB"),
];

fn line(number: usize) -> String {
    format!("{number} {}", "x".repeat(1 << 20))
}

/// Appends numbered lines until the server refuses them; how many were acknowledged.
fn fill(server: &Server, stream: &str) -> usize {
    let input: String = (0..DISK_MIB as usize).map(|number| line(number) + "\n").collect();
    let append = ["append", stream, "--key", "k", "--timeout", "3s"];
    let refused = server.braid(append).input(&input).run();
    let refused = refused.fails(6, &["stored", "braid stream truncate"]);
    let stored = refused.stderr.split("lines up to ").nth(1).and_then(|s| s.split(' ').next());
    stored.and_then(|number| number.parse().ok()).unwrap()
}

/// What the stream holds, which must be the first lines, all that were acknowledged among them.
fn check(server: &Server, stream: &str, acknowledged: usize) {
    let stored = server.read_all(stream);
    assert!(stored.len() >= acknowledged, "{} of {acknowledged} are there", stored.len());
    for (number, stored) in stored.iter().enumerate() {
        assert!(*stored == line(number), "line {number} is another");
    }
}

/// A kill, a start on the full disk, a clean stop and another start.
fn survives(server: &mut Server, stream: &str, acknowledged: usize) {
    server.kill();
    server.restart();
    check(server, stream, acknowledged);
    let stopped = server.stop(Signal::TERM);
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    server.restart();
    check(server, stream, acknowledged);
}

#[test]
fn a_disk_full_of_log_and_objects_costs_nothing_acknowledged_and_lets_the_server_start() {
    let Some(disk) = SmallDisk::new(DISK_MIB) else { return };
    let mut server = Server::on(disk, &SETTINGS);
    let acknowledged = fill(&server, "demo/big");
    check(&server, "demo/big", acknowledged);
    survives(&mut server, "demo/big", acknowledged);
    let lts = server.status()["lts"]["last_error"].as_str().map(str::to_owned);
    assert!(lts.is_none_or(|error| error.contains("free space")));
}

#[test]
fn a_full_disk_costs_nothing_acknowledged_and_ends_when_streams_are_cut() {
    let Some(disk) = SmallDisk::new(DISK_MIB) else { return };
    // Objects of streams that were cut are kept for a while.
    let settings = [&SETTINGS[..], &[("BRAID__LTS__URL", "none")]].concat();
    let mut server = Server::on(disk, &settings);
    let acknowledged = fill(&server, "demo/big");
    assert!(acknowledged > 30, "{acknowledged} MiB of {DISK_MIB}");
    check(&server, "demo/big", acknowledged);
    survives(&mut server, "demo/big", acknowledged);

    // Truncating a stream, and deleting one, make space for others.
    server.line("stream truncate demo/big --at tail").run().ok();
    server.line("append demo/small --key k --timeout 60s").input("first\n").run().ok();
    assert_eq!(server.read_all("demo/small"), ["first"]);
    // The log gives files back from its oldest end: one event there would hold them all.
    server.line("stream truncate demo/small --at tail").run().ok();
    let again = fill(&server, "demo/again");
    assert!(again > 30, "{again} MiB of {DISK_MIB}");
    check(&server, "demo/again", again);
    server.line("stream delete demo/again").run().ok();
    server.line("append demo/small --key k --timeout 60s").input("second\n").run().ok();
    server.kill();
    server.restart();
    assert_eq!(server.read_all("demo/small"), ["second"]);
}

#[test]
fn without_a_free_byte_a_server_goes_on_and_a_start_says_why_it_does_not() {
    let Some(disk) = SmallDisk::new(DISK_MIB) else { return };
    let mut server = Server::on(disk, &SETTINGS);
    server.line("append demo/a --key k").input("first\n").run().ok();
    server.line("append demo/c --key k").input("dropped\n").run().ok();
    let input: String = (0..10).map(|number| line(number) + "\n").collect();
    server.line("append demo/b --key k --timeout 60s").input(&input).run().ok();
    let log = server.disk.as_ref().unwrap().outside().join("data/wal");
    wait_until("files made ahead", || {
        let files = std::fs::read_dir(&log).unwrap().map(|file| file.unwrap().file_name());
        files.filter(|name| name.to_string_lossy().starts_with("spare-")).count() >= 3
    });
    let filler = server.disk.as_ref().unwrap().fill();
    // Clients are refused; files made ahead are for what frees space.
    let refused = server.line("append demo/a --key k --timeout 1s").input("second\n").run();
    refused.fails(6, &["braid stream truncate"]);
    server.line("stream truncate demo/c --at tail").run().ok();
    assert_eq!(server.read_all("demo/c"), [""; 0]);
    check(&server, "demo/b", 10);
    let stopped = server.stop(Signal::TERM);
    assert_eq!(stopped.code, Some(0), "{stopped:?}");

    // Nothing is named in the lock, and there is no space to.
    let data = server.disk.as_ref().unwrap().outside().join("data");
    std::fs::remove_file(data.join("LOCK")).unwrap();
    server.disk.as_ref().unwrap().fill();
    let refused = Running::spawn(&mut server.command()).finish();
    refused.fails(1, &["is full", "state store", "nothing acknowledged is lost"]);

    std::fs::remove_file(filler).unwrap();
    server.restart();
    check(&server, "demo/b", 10);
    assert_eq!(server.read_all("demo/a"), ["first"]);
}
