//! How a server starts, is refused, and stops.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::Signal;

use crate::harness::{Braid, Running, Server, binary, free_address, temp_dir, wait_until};

#[test]
fn it_says_where_it_is_and_stops_cleanly_on_both_signals() {
    let mut server = Server::start();
    for signal in [Signal::INT, Signal::TERM] {
        server.line("append demo/a").input("x\n").run().ok();
        let stopped = server.stop(signal);
        assert_eq!(stopped.code, Some(0), "{stopped:?}");
        assert!(stopped.stdout.contains("braid append demo/hello"), "{stopped:?}");
        assert!(stopped.stdout.contains("braid read demo/hello"), "{stopped:?}");
        assert_eq!(stopped.stderr, "", "quiet by default");
        server.restart();
    }
    assert_eq!(server.read_all("demo/a").len(), 2);
}

#[test]
fn a_second_signal_does_not_wait_for_clients_and_the_state_is_saved_all_the_same() {
    let dir = temp_dir();
    let (data, address) = (dir.path().join("data"), free_address().to_string());
    let mut dev = std::process::Command::new(binary());
    dev.args(["dev", "--listen", &address, "--data", data.to_str().unwrap()]);
    dev.env("BRAID__SERVER__DRAIN", "1h");
    let running = Running::spawn(&mut dev);
    assert!(running.line().unwrap().contains("ready"));
    // A request whose body does not come.
    let mut request = TcpStream::connect(&address).unwrap();
    let head = "POST /braid.v1.Controller/ListScopes HTTP/1.1\r\nhost: x\r\n\
                content-type: application/grpc\r\ncontent-length: 100\r\n\
                expect: 100-continue\r\n\r\n";
    request.write_all(head.as_bytes()).unwrap();
    let mut goes_on = [0; 12];
    request.read_exact(&mut goes_on).unwrap();
    assert_eq!(&goes_on, b"HTTP/1.1 100", "the service waits for the body");
    running.signal(Signal::INT);
    wait_until("the listener's end", || TcpStream::connect(&address).is_err());
    running.signal(Signal::INT);
    let stopped = running.finish();
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    assert!(stopped.stderr.contains("told to stop again"), "{stopped:?}");
}

#[test]
fn acknowledged_events_survive_a_kill() {
    let mut server = Server::start();
    for round in 1..=3 {
        server.line("append demo/a --key k").input("x\n").run().ok();
        server.kill();
        server.restart();
        assert_eq!(server.read_all("demo/a").len(), round);
    }
}

#[test]
fn a_port_or_folder_in_use_is_refused() {
    let server = Server::start();
    let (dir, address) = (temp_dir(), server.address.to_string());
    let data = dir.path().join("data");
    let taken = ["dev", "--listen", &address, "--data", data.to_str().unwrap()];
    Braid::new(taken).run().fails(4, &["in use", "--listen"]);
    let (free, data) = (free_address().to_string(), server.data());
    let taken = ["dev", "--listen", &free, "--data", data.to_str().unwrap()];
    Braid::new(taken).run().fails(4, &["in use", "--data"]);
    server.line("scope list").run().ok();
}

#[test]
fn a_foreign_folder_and_another_version_are_refused_untouched() {
    let mut server = Server::start();
    server.stop(Signal::TERM);
    let store = server.data().join("STORE");
    let written = std::fs::read_to_string(&store).unwrap();
    std::fs::write(&store, written.replace("format = 1", "format = 99")).unwrap();
    let free = free_address().to_string();
    let data = server.data();
    let dev = ["dev", "--listen", &free, "--data", data.to_str().unwrap()];
    Braid::new(dev).run().fails(1, &["version 99"]);
    std::fs::write(&store, written).unwrap();
    server.restart();
    let dir = temp_dir();
    std::fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    let foreign = ["dev", "--listen", &free, "--data", dir.path().to_str().unwrap()];
    Braid::new(foreign).run().fails(4, &["not empty"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was added");
}

#[test]
fn listening_beyond_loopback_must_be_asked_for() {
    let dir = temp_dir();
    let data = dir.path().join("data");
    let dev = ["dev", "--listen", "0.0.0.0:0", "--data", data.to_str().unwrap()];
    Braid::new(dev).run().fails(2, &["--insecure"]);
    Braid::new(["dev", "--listen", "nonsense"]).run().fails(2, &["--listen"]);
    let mut insecure = std::process::Command::new(binary());
    insecure.args(dev).arg("--insecure");
    let running = Running::spawn(&mut insecure);
    assert!(running.line().unwrap().contains("ready"));
    running.signal(Signal::TERM);
    assert_eq!(running.finish().code, Some(0));
}

#[test]
fn a_volatile_file_system_must_be_asked_for() {
    // /dev/shm is a tmpfs on every Linux that has it.
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    let data = dir.path().join("data");
    let free = free_address().to_string();
    let dev = ["dev", "--listen", &free, "--data", data.to_str().unwrap()];
    Braid::new(dev).run().fails(2, &["tmpfs", "--allow-volatile"]);
}

#[test]
fn a_server_runs_from_a_settings_file() {
    let dir = temp_dir();
    let file = dir.path().join("braid.toml");
    let data = dir.path().join("data");
    let address = free_address();
    let settings =
        format!("[server]\nlisten = \"{address}\"\n[data]\ndir = \"{}\"\n", data.display());
    std::fs::write(&file, settings).unwrap();
    let server = Braid::new(["server", "--config", file.to_str().unwrap()]).start();
    wait_until("the server's readiness", || {
        let list = Braid::new(["scope", "list"]).env("BRAID_ENDPOINT", address.to_string()).run();
        list.code == Some(0)
    });
    // Only a server of `braid dev` creates what is missing.
    let append = Braid::new(["append", "demo/a"]).env("BRAID_ENDPOINT", address.to_string());
    append.input("x\n").run().fails(3, &["demo"]);
    server.signal(Signal::TERM);
    assert_eq!(server.finish().code, Some(0));
}

#[test]
fn a_full_log_refuses_appends_with_the_way_out() {
    // With long-term storage the log is emptied as fast as it fills.
    let alone = ("BRAID__LTS__URL", "none");
    let small = [("BRAID__LOG__BUDGET", "128MiB"), ("BRAID__LOG__FILE_SIZE", "16MiB"), alone];
    let server = Server::with(&small);
    let line = vec![b'x'; 1 << 20];
    let mut input = Vec::new();
    for _ in 0..160 {
        input.extend_from_slice(&line);
        input.push(b'\n');
    }
    let full = server.line("append demo/a --key k --timeout 3s").input(&input).run();
    let full = full.fails(6, &["stored", "braid stream truncate"]);
    let stored = full.stderr.split("lines up to ").nth(1).and_then(|s| s.split(' ').next());
    let stored: usize = stored.and_then(|number| number.parse().ok()).unwrap();
    assert!(stored > 0, "{full:?}");
    assert!(server.read_all("demo/a").len() >= stored, "nothing acknowledged is lost");
    server.line("stream truncate demo/a --at tail").run().ok();
    server.line("append demo/a --key k --timeout 60s").input("again\n").run().ok();
    assert_eq!(server.read_all("demo/a"), ["again"]);
}
