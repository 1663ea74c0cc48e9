//! A recovery from a bucket of which something is missing or damaged.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{Braid, Finished, Server};
use crate::recovery::{Bucket, server, tiered, wait_until_tiered};

/// The names of a group's footers, oldest first.
fn footers(bucket: &Bucket, group: u64) -> Vec<String> {
    let listed = Braid::new(["lts", "ls", "--objects", "-o", "json", "--lts", &bucket.url()]);
    let listed = listed.run().json();
    let of_group = format!("/{group:016x}/");
    let is_footer = |row: &&Value| {
        row["kind"] == "round" && row["object"].as_str().unwrap().contains(&of_group)
    };
    let footers = listed.as_array().unwrap().iter().filter(is_footer);
    let mut names: Vec<String> =
        footers.map(|row| row["object"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn recover(server: &Server, bucket: &Bucket, arguments: &[&str]) -> Finished {
    let data = server.data().display().to_string();
    let url = bucket.url();
    let fixed = ["recover", "--from-lts", &url, "--data", &data];
    Braid::new(fixed.iter().chain(arguments).copied()).run()
}

/// A stream of one segment that was tiered event by event, and the group that holds it; the machine
/// is gone.
fn tiered_in_rounds(server: &mut Server, bucket: &Bucket) -> (Vec<String>, u64) {
    server.line("stream create demo/a --segments 1 --create-scope").run().ok();
    server.line("stream create demo/b --segments 4").run().ok();
    let events: Vec<String> = (0..6).map(|number| format!("event {number}")).collect();
    for event in &events {
        server.line("append demo/a --key k").input(format!("{event}\n")).run().ok();
        wait_until_tiered(server);
    }
    server.lose_machine();
    let group = (2..=5).max_by_key(|group| footers(bucket, *group).len()).unwrap();
    (events, group)
}

#[test]
fn a_round_that_is_missing_in_the_middle_is_refused_until_its_loss_is_accepted() {
    let (mut server, bucket) = server();
    let (events, group) = tiered_in_rounds(&mut server, &bucket);
    let names = footers(&bucket, group);
    let middle = &names[names.len() / 2];
    let (path, aside) = (bucket.0.join(middle), server.dir().join("aside"));
    std::fs::rename(&path, &aside).unwrap();

    let check = Braid::new(["lts", "check", "--lts", &bucket.url()]).run();
    let found = &check.fails(1, &[]).stdout;
    assert!(
        [middle, "is missing", "--accept-loss"].iter().all(|word| found.contains(word)),
        "{found}"
    );
    let ends = format!("group {group} ends at entry ");
    let told = ["nothing was changed", &ends, middle, "cannot be read without it", "--accept-loss"];
    recover(&server, &bucket, &[]).fails(1, &told);
    assert!(!bucket.0.join("cluster-0002").try_exists().unwrap(), "nothing is claimed");

    let report = recover(&server, &bucket, &["--accept-loss", "-o", "json"]).json();
    let groups = report["groups"].as_array().unwrap();
    let of = |wanted: u64| groups.iter().find(|found| found["group"] == wanted).unwrap();
    let loss = &of(group)["loss"];
    assert!(loss["damage"][0]["what"].as_str().unwrap().contains(middle.as_str()), "{loss}");
    let number = |value: &Value| value.as_u64().unwrap();
    let [first, last] = [0, 1].map(|at| number(&loss["damage"][0]["entries"][at]));
    assert!(number(&loss["end"]) + 1 == first && first <= last, "{loss}");
    assert!(last < number(&loss["archived_to"]), "{loss}");
    assert!(of(1)["loss"].is_null(), "the others come back whole");

    server.restart();
    let stored = server.read_all("demo/a");
    assert!(!stored.is_empty() && stored.len() < events.len(), "{stored:?}");
    assert_eq!(stored, events[..stored.len()]);
    server.line("append demo/a --key k").input("more\n").run().ok();
    wait_until_tiered(&server);
    let checked = Braid::new(["lts", "check", "--lts", &bucket.url()]).run();
    assert!(checked.ok().contains("clean"));
}

#[test]
fn a_loss_that_a_killed_recovery_had_accepted_is_told_again() {
    let (mut server, bucket) = server();
    let (events, group) = tiered_in_rounds(&mut server, &bucket);
    // What is due at once is put at once.
    server.set("BRAID__TIERING__AGE", "100ms");
    let newest = footers(&bucket, group).pop().unwrap();
    let (path, aside) = (bucket.0.join(&newest), server.dir().join("aside"));
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&aside, &whole).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let recovery = server.recover(&bucket.url()).args(["--accept-loss"]).start_on_terminal();
    let id: i32 = recovery.line().unwrap().parse().unwrap();
    let said = std::iter::from_fn(|| recovery.line()).find(|line| line.contains("saving"));
    assert!(said.is_some(), "{:?}", recovery.finish());
    // It may have ended meanwhile.
    let _ = kill_process(Pid::from_raw(id).unwrap(), Signal::KILL);
    recovery.finish();
    // Be it that it ended: then the machine is lost once more.
    let _ = std::fs::remove_dir_all(server.data());
    recover(&server, &bucket, &[]).fails(1, &[&newest, "--accept-loss"]);
    std::fs::rename(&aside, &path).unwrap();
    recover(&server, &bucket, &[]).ok();
    server.restart();
    assert_eq!(server.read_all("demo/a"), events);
}

#[test]
fn a_round_that_is_put_back_makes_a_refused_recovery_whole() {
    let (mut server, bucket) = server();
    let (events, group) = tiered_in_rounds(&mut server, &bucket);
    let newest = footers(&bucket, group).pop().unwrap();
    let path = bucket.0.join(&newest);
    let whole = std::fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[60] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    recover(&server, &bucket, &[]).fails(1, &[&newest, "is damaged", "nothing says how far"]);
    std::fs::write(&path, whole).unwrap();
    recover(&server, &bucket, &[]).ok();
    server.restart();
    assert_eq!(server.read_all("demo/a"), events);
}

#[test]
fn objects_of_a_group_that_no_cluster_has_are_refused_by_their_number() {
    let (mut server, bucket) = tiered();
    server.lose_machine();
    let stray = bucket.0.join("0001/ffffffffffffffff/0000000000000001");
    std::fs::create_dir_all(&stray).unwrap();
    std::fs::write(stray.join("0000000000000001"), "stray").unwrap();
    let refused = recover(&server, &bucket, &["--accept-loss"]);
    refused.fails(1, &["ffffffffffffffff", "1 to 1025", "move them away"]);
    assert!(!bucket.0.join("cluster-0002").try_exists().unwrap(), "nothing is claimed");
    std::fs::remove_dir_all(bucket.0.join("0001/ffffffffffffffff")).unwrap();
    recover(&server, &bucket, &[]).ok();
}
