//! Long-term storage at the start of a server: whose it is, and what it means when it is not there.

use rustix::process::Signal;

use crate::harness::{Finished, Running, Server, free_address};

/// Starts `server`, which must not run, with further arguments; it must refuse.
fn refused(server: &Server, arguments: &[&str]) -> Finished {
    Running::spawn(server.command().args(arguments)).finish()
}

/// A bucket at an address where nobody listens.
fn unreachable(command: &mut std::process::Command) -> &mut std::process::Command {
    let endpoint = format!("http://{}", free_address());
    command.args(["--lts", "s3://bucket/p", "--lts-endpoint", &endpoint]);
    command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
    command.env("BRAID__LTS__ATTEMPTS", "1")
}

#[test]
fn a_bucket_belongs_to_one_cluster_for_ever() {
    let (mut first, mut second) = (Server::start(), Server::with(&[("BRAID__LTS__URL", "none")]));
    let url = format!("file://{}/lts", first.data().display());
    second.stop(Signal::TERM);
    refused(&second, &["--lts", &url]).fails(4, &["belongs to another cluster", &url]);

    // The first one's data is in its bucket from now on.
    first.line("append demo/a --key k").input("one\n").run().ok();
    first.stop(Signal::TERM);
    refused(&first, &["--lts", "none"]).fails(2, &["`lts.url` is `none`"]);
    let elsewhere = format!("file://{}/elsewhere", first.dir().display());
    refused(&first, &["--lts", &elsewhere]).fails(2, &["no marker of this cluster", &elsewhere]);
    let occupied = format!("file://{}", first.dir().display());
    refused(&second, &["--lts", &occupied]).fails(4, &["no cluster's marker", &occupied]);
    first.restart();
    assert_eq!(first.read_all("demo/a"), ["one"]);
}

#[test]
fn a_first_start_needs_the_bucket_and_a_restart_does_not() {
    let mut server = Server::with(&[("BRAID__LTS__URL", "none")]);
    server.stop(Signal::TERM);
    let refused = Running::spawn(unreachable(&mut server.command())).finish();
    refused.fails(6, &["s3://bucket/p"]);

    let mut server = Server::start();
    server.line("append demo/a --key k").input("one\n").run().ok();
    server.kill();
    let running = Running::spawn(unreachable(&mut server.command()));
    assert!(running.line().unwrap().contains("is ready"));
    assert_eq!(server.read_all("demo/a"), ["one"]);
    let status = server.line("status -o json").run().json();
    assert_eq!(status["lts"]["ready"], false);
    assert_eq!(status["lts"]["url"], "s3://bucket/p");
    assert!(status["lts"]["last_error"].is_string(), "{status}");
    running.signal(Signal::TERM);
    let stopped = running.finish();
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    assert!(stopped.stderr.contains("serves without long-term storage"), "{stopped:?}");
}

#[test]
fn a_log_that_is_gone_is_refused_with_the_command_that_helps() {
    let mut server = Server::start();
    server.line("append demo/a --key k").input("one\n").run().ok();
    server.stop(Signal::TERM);
    std::fs::remove_dir_all(server.data().join("wal")).unwrap();
    let refused = refused(&server, &[]);
    refused.fails(1, &["the log of data folder", "is gone", "braid recover --from-lts file:///"]);
}
