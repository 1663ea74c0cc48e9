//! Buckets that are not there, not ours, not writable, or not what they were: said in words that
//! name the object or the place and what to do, with an exit code, and nothing is lost.

use std::path::Path;

use rustix::process::Signal;

use crate::harness::{Braid, Finished, Server, free_address, wait_until};
use crate::long_term::{QUICK, wait_until_tiered};
use crate::s3::{S3Server, borrowed, settings};
use crate::small_disk::SmallDisk;

/// A start that does not come to pass, in a folder of its own.
fn start(dir: &Path, settings: &[(&str, &str)]) -> Finished {
    let data = dir.join("data");
    let mut dev = Braid::new(["dev", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]);
    for (name, value) in settings {
        dev = dev.env(name, value);
    }
    dev.run()
}

#[test]
fn a_bucket_that_cannot_be_reached_is_needed_at_the_first_start_only() {
    let dir = crate::harness::temp_dir();
    let mut nowhere = settings(free_address(), "s3://bucket/prefix", "secret");
    nowhere.push(("BRAID__LTS__ATTEMPTS".into(), "2".into()));
    start(dir.path(), &borrowed(&nowhere)).fails(6, &["s3://bucket/prefix", "the way to it"]);

    let mut s3 = S3Server::start();
    let mut server = Server::with(&borrowed(&s3.settings()));
    server.line("append demo/a --key k").input("first\n").run().ok();
    wait_until_tiered(&server);
    server.stop(Signal::TERM);
    s3.stop();
    server.restart();
    server.line("append demo/a --key k").input("second\n").run().ok();
    wait_until("a status that tells", || !server.status()["lts"]["ready"].as_bool().unwrap());
    let told = |status: serde_json::Value| {
        status["lts"]["last_error"].as_str().is_some_and(|told| told.contains("Connection refused"))
    };
    wait_until("a status that tells why", || told(server.status()));
    s3.serve();
    wait_until_tiered(&server);
    assert_eq!(server.read_all("demo/a"), ["first", "second"]);
    assert_eq!(server.status()["lts"]["ready"], true);
    server.lts(["check"]).run().ok();
}

#[test]
fn wrong_credentials_are_refused_at_every_start() {
    let s3 = S3Server::start();
    let dir = crate::harness::temp_dir();
    let wrong = settings(s3.address, "s3://bucket/prefix", "guessed");
    start(dir.path(), &borrowed(&wrong)).fails(5, &["s3://bucket/prefix", "check the credentials"]);
    start(dir.path(), &borrowed(&s3.settings()[..3])).fails(5, &["credentials"]);
    let mut check = Braid::new(["lts", "check"]);
    for (name, value) in &wrong {
        check = check.env(name, value);
    }
    check.run().fails(5, &["check the credentials"]);
}

#[test]
fn the_bucket_of_another_cluster_is_left_alone() {
    let owner = Server::with(&QUICK);
    owner.line("append demo/a --key k").input("x\n").run().ok();
    wait_until_tiered(&owner);
    let dir = crate::harness::temp_dir();
    let url = format!("file://{}", owner.data().join("lts").display());
    start(dir.path(), &[("BRAID__LTS__URL", &url)])
        .fails(4, &["belongs to another cluster", "a bucket or prefix of its own"]);
    owner.lts(["check"]).run().ok();
    // And one whose marker is gone is not the one that it was.
    let mut owner = owner;
    owner.stop(Signal::TERM);
    let marker = owner.data().join("lts/cluster-0001");
    let aside = owner.dir().join("marker");
    std::fs::rename(&marker, &aside).unwrap();
    let refused = crate::harness::Running::spawn(&mut owner.command()).finish();
    refused.fails(2, &["has no marker of this cluster"]);
    let found = owner.lts(["check"]).run().fails(1, &["1 finding"]);
    assert!(found.stdout.contains("marker: it is missing"), "{found:?}");
    std::fs::write(&marker, "hello").unwrap();
    let found = owner.lts(["check"]).run().fails(1, &["1 finding"]);
    assert!(found.stdout.contains("`cluster-0001`"), "{found:?}");
    std::fs::rename(&aside, &marker).unwrap();
    owner.lts(["check"]).run().ok();
    owner.restart();
    assert_eq!(owner.read_all("demo/a"), ["x"]);
}

#[test]
fn a_folder_where_nothing_lasts_or_nothing_is_is_refused() {
    let dir = crate::harness::temp_dir();
    let volatile = Path::new("/dev/shm");
    if common::file_system::volatile_kind(volatile).unwrap().is_some() {
        let url = format!("file:///dev/shm/braid-test-{}", std::process::id());
        let refused = start(dir.path(), &[("BRAID__LTS__URL", &url)]);
        std::fs::remove_dir_all(url.strip_prefix("file://").unwrap()).unwrap();
        refused.fails(2, &["/dev/shm/braid-test", "--allow-volatile"]);
    }
    let missing = dir.path().join("nothing");
    let url = format!("file://{}", missing.display());
    for verb in ["ls", "check", "adopt"] {
        Braid::new(["lts", verb, "--lts", &url]).run().fails(3, &["no cluster's bucket"]);
    }
    assert!(!missing.try_exists().unwrap(), "a look makes no folder");
}

/// A server whose bucket is on a small disk, and its data elsewhere.
fn on_small_disk() -> Option<(SmallDisk, std::process::Command, tempfile::TempDir)> {
    let disk = SmallDisk::new(24)?;
    let dir = crate::harness::temp_dir();
    let mut dev = disk.enter(crate::harness::binary());
    dev.args(["dev", "--listen", "127.0.0.1:0", "--data"]).arg(dir.path().join("data"));
    dev.arg("--lts").arg(format!("file://{}/lts", disk.path().display()));
    if disk.is_volatile() {
        dev.arg("--allow-volatile");
    }
    Some((disk, dev, dir))
}

#[test]
fn a_bucket_that_is_read_only_or_full_is_refused_at_the_first_start() {
    let Some((disk, mut dev, _dir)) = on_small_disk() else { return };
    assert!(disk.remount(true));
    let refused = crate::harness::Running::spawn(&mut dev).finish();
    refused.fails(5, &["read-only"]);
    assert!(disk.remount(false));
    disk.fill();
    let refused = crate::harness::Running::spawn(&mut dev).finish();
    refused.fails(1, &["/lts", "space"]);
    disk.empty();
    let served = crate::harness::Running::spawn(&mut dev);
    assert!(served.line().unwrap().contains("is ready"));
    served.signal(Signal::TERM);
    assert_eq!(served.finish().code, Some(0));
}

#[test]
fn a_log_that_is_gone_is_not_replaced_by_an_empty_one() {
    let mut server = Server::with(&QUICK);
    server.line("append demo/a --key k").input("x\n").run().ok();
    wait_until_tiered(&server);
    server.stop(Signal::TERM);
    for folder in ["wal", "state"] {
        std::fs::remove_dir_all(server.data().join(folder)).unwrap();
        let refused = crate::harness::Running::spawn(&mut server.command()).finish();
        refused.fails(1, &["log", "is gone", "braid recover --from-lts"]);
    }
    server.lts(["check"]).run().ok();
}
