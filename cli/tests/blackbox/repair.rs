//! A log with damaged blocks: refused, shown, repaired only on request, and nobody is left in the
//! dark about what is gone.

use client::{Client, ClientConfig, ErrorKind, Event, ScopedStream};
use rustix::process::Signal;

use crate::harness::{Braid, Server, wait_until};
use crate::long_term::wait_until_tiered;

/// Damages whatever block of the log holds `text`: blocks behind it vouch for it.
fn spoil(server: &Server, text: &str) {
    let files = std::fs::read_dir(server.data().join("wal")).unwrap();
    let mut spoiled = 0;
    for file in files.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        let mut bytes = std::fs::read(&file).unwrap();
        if let Some(at) = memchr::memmem::find(&bytes, text.as_bytes()) {
            bytes[at] ^= 1;
            std::fs::write(&file, bytes).unwrap();
            spoiled += 1;
        }
    }
    assert_eq!(spoiled, 1, "`{text}` is in one place");
}

/// A server refuses the folder, and so does a repair that nobody asked for.
fn is_refused(server: &Server) {
    let (data, listen) = (server.data(), server.address.to_string());
    let data = data.to_str().unwrap();
    let dev = ["dev", "--data", data, "--listen", &listen];
    Braid::new(dev).run().fails(1, &["damaged", "braid wal"]);
    Braid::new(["wal", "inspect", data]).run().fails(1, &["--accept-loss"]);
    Braid::new(["wal", "repair", data]).run().fails(1, &["nothing was changed", "loses"]);
    Braid::new(dev).run().fails(1, &["damaged"]);
}

fn repair(server: &Server) -> String {
    let data = server.data();
    let repaired = Braid::new(["wal", "repair", data.to_str().unwrap(), "--accept-loss"]).run();
    assert!(repaired.stdout.contains("repaired"), "{repaired:?}");
    repaired.stderr
}

#[test]
fn a_log_damaged_in_the_middle_is_refused_and_repaired_only_on_request() {
    let mut server = Server::start();
    server.line("append demo/a --key k").input("sunrise\n").run().ok();
    server.line("append demo/a --key k").input("sunset\n").run().ok();
    // Not a clean stop, which would save the state that the log is about to lose.
    server.kill();
    spoil(&server, "sunrise");
    is_refused(&server);
    assert!(repair(&server).contains("whatever came behind"));
    server.restart();
    server.line("scope list").run().ok();
}

#[test]
fn damage_below_the_saved_state_costs_only_the_events_in_it() {
    let mut server = Server::start();
    server.line("append demo/a --key k --writer w").input("sunrise\n").run().ok();
    let second = server.line("append demo/a --key k --writer w").input("sunrise\nnoon\n").run();
    second.ok();
    let behind = server.line("stream cut demo/a").run().ok();
    server.line("append demo/a --key k").input("sunset\n").run().ok();
    // A clean stop saves the state of everything, and the log is truncated as far as it may be.
    server.stop(Signal::TERM);
    spoil(&server, "noon");
    is_refused(&server);
    assert!(repair(&server).contains("what came before and behind stays"));
    server.restart();
    let read = ["read", "demo/a", "--from", "head", "--until", "tail"];
    let damaged = server.braid(read).run().fails(1, &["cannot be read", "repair"]);
    assert_eq!(damaged.stdout, "sunrise\n", "what came before the hole is read");
    let behind = ["read", "demo/a", "--until", "tail", "--from", behind.trim()];
    assert_eq!(server.braid(behind).run().ok(), "sunset\n");
    // The state knows what was stored: nothing comes twice.
    let input = "sunrise\nnoon\nnight\n";
    server.line("append demo/a --key k --writer w").input(input).run().ok();
    server.kill();
    server.restart();
    assert_eq!(server.braid(behind).run().ok(), "sunset\nnight\n");
    server.braid(["stream", "truncate", "demo/a", "--at", behind[5]]).run().ok();
    assert_eq!(server.read_all("demo/a"), ["sunset", "night"]);
    server.stop(Signal::TERM);
    let data = server.data();
    Braid::new(["wal", "inspect", data.to_str().unwrap()]).run().ok();
}

#[test]
fn a_writer_that_was_told_more_than_a_repair_left_is_told_of_the_loss() {
    let mut server = Server::start();
    server.line("append demo/a --key k").input("dawn\n").run().ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let event = |payload| Event::new(payload).key("k");
    let stream = ScopedStream::new("demo", "a").unwrap();
    let config = ClientConfig::new(server.address.to_string());
    let writer = runtime.block_on(async {
        let client = Client::connect(config).await.unwrap();
        let writer = client.event_writer(&stream).open().await.unwrap();
        for payload in [b"sunrise".as_slice(), b"noon", b"sunset"] {
            writer.append(event(payload)).await.unwrap();
            writer.flush().await.unwrap();
        }
        writer
    });
    server.kill();
    spoil(&server, "noon");
    is_refused(&server);
    repair(&server);
    server.restart();
    let error = runtime.block_on(async {
        // Which of the two meets the loss depends on when the connection is back.
        match writer.append(event(b"night")).await {
            Ok(_) => writer.flush().await.unwrap_err(),
            Err(error) => error,
        }
    });
    assert_eq!(error.kind(), ErrorKind::DataDamaged, "{error}");
    assert!(error.to_string().contains("lost acknowledged data"), "{error}");
    assert_eq!(server.read_all("demo/a"), ["dawn", "sunrise"]);
}

#[test]
fn damage_that_long_term_storage_covers_costs_nothing() {
    // The state is never saved by itself.
    let mut server =
        Server::with(&[("BRAID__TIERING__AGE", "200ms"), ("BRAID__CHECKPOINT__INTERVAL", "1h")]);
    for text in ["sunrise\n", "noon\n", "sunset\n"] {
        server.line("append demo/a --key k").input(text).run().ok();
    }
    wait_until_tiered(&server);
    server.kill();
    spoil(&server, "noon");
    let (data, bucket) = (server.data(), server.data().join("lts"));
    let data = data.to_str().unwrap();
    let repair = ["wal", "repair", data];
    let told = "which long-term storage has: nothing of them is lost";
    Braid::new(repair).run().fails(1, &["nothing was changed", told]);
    // Without a bucket nobody knows, and that is for a person to say.
    let away = server.data().join("away");
    std::fs::rename(&bucket, &away).unwrap();
    let refused = ["nothing was changed", "long-term storage", "--without-lts"];
    Braid::new(["wal", "repair", data, "--accept-loss"]).run().fails(1, &refused);
    Braid::new(["wal", "repair", data, "--without-lts"]).run().fails(1, &["whatever came behind"]);
    std::fs::rename(&away, &bucket).unwrap();
    let repaired = Braid::new(["wal", "repair", data, "--accept-loss"]).run();
    assert!(repaired.stdout.contains("nothing is lost"), "{repaired:?}");
    server.restart();
    assert_eq!(server.read_all("demo/a"), ["sunrise", "noon", "sunset"]);
    server.line("append demo/a --key k").input("night\n").run().ok();
    wait_until_tiered(&server);
    server.lts(["check", "--grace", "0s"]).run().ok();
}

#[test]
fn a_group_that_was_repaired_is_tiered_again_and_what_it_lost_is_told() {
    // Nothing is old enough to be tiered before the damage.
    let mut server =
        Server::with(&[("BRAID__TIERING__AGE", "1h"), ("BRAID__CHECKPOINT__INTERVAL", "1s")]);
    for text in ["sunrise\n", "noon\n", "sunset\n"] {
        server.line("append demo/a --key k").input(text).run().ok();
    }
    server.stop(Signal::TERM);
    spoil(&server, "noon");
    is_refused(&server);
    assert!(repair(&server).contains("what came before and behind stays"));
    server.restart();
    // It does not wait for an hour to mend its archive.
    wait_until("the end of the log in long-term storage", || {
        let listed = server.lts(["ls", "-o", "json"]).run().json();
        let mut groups = listed.as_array().unwrap().iter();
        groups.any(|group| group["group"] != 1 && group["checkpoints"]["objects"] == 1)
            && server.status()["groups"].as_array().unwrap()[1..]
                .iter()
                .any(|group| group["lost_entries"] == 1 && group["untiered_bytes"] == 0)
    });
    let read = ["read", "demo/a", "--from", "head", "--until", "tail"];
    let damaged = server.braid(read).run().fails(1, &["cannot be read", "repair", "is there"]);
    assert_eq!(damaged.stdout, "sunrise\n");
    let found = server.lts(["check", "--grace", "0s"]).run().fails(1, &[]);
    assert!(found.stdout.contains("of it are lost"), "{found:?}");
}
