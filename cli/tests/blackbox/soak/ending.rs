//! The end of a run: faults stop, everything settles and is read, and history and bucket are judged.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::atomic::Ordering;

use client::Client;
use common::Tasks;
use rustix::process::Signal;
use tests::checker::{self, Summary};
use tests::history;

use super::bucket::{Bucket, Mood};
use super::faults::Faults;
use super::{GRACE, MEMORY_LIMIT, reading, say};
use crate::harness::{Braid, Finished, LIMIT, wait_until};
use crate::recovery::wait_until_tiered;

/// Lets the load end, restarts once more, and reads what is there when everything is tiered.
pub fn settle(faults: &mut Faults<'_>, client: &Client, tasks: &Tasks) {
    faults.bucket.set(Mood::Good);
    let ended = faults.runtime.block_on(async {
        let ended = tokio::time::timeout(LIMIT, tasks.stop()).await;
        faults.bucket.settle().await;
        ended
    });
    if ended.is_err() || tasks.failed() {
        faults.load.problem("the load does not come to its end".to_owned());
    }
    // Uploads that arrived after their sender's end are found by the next one.
    faults.kill(false);
    wait_until_tiered(&faults.server);
    let (load, runtime) = (faults.load, faults.runtime);
    for stream in load.journal.live() {
        for segment in 0..stream.places.len() {
            runtime.block_on(reading::read(load, client, &stream, segment, 0, true));
        }
    }
    faults.look_at_memory();
}

/// Everything must be right, and there must have been something to be right about.
pub fn judge(mut faults: Faults<'_>, seed: u64) {
    let lines = faults.load.journal.lines();
    let (summary, violations) = checker::check(&lines);
    tell(&faults, &summary);
    for violation in violations.iter().take(20) {
        faults.load.problem(violation.to_string());
    }
    let (bucket, peak) = (faults.bucket, faults.counts.peak_bytes);
    if !faults.load.has_problems() {
        wait_until("the bucket is clean", || check(bucket).code == Some(0));
    }
    let stopped = faults.server.stop(Signal::TERM);
    faults.read_log(&stopped);
    stopped.ok();
    let checked = check(bucket);
    if checked.code != Some(0) {
        faults.load.problem(format!("lts check: {checked:?}"));
    }
    // Resident memory stays within a tenth of the limit: the allocator keeps a little.
    if peak > MEMORY_LIMIT + MEMORY_LIMIT / 10 {
        let problem = format!("a life of the server took {peak} bytes: {}", faults.memory);
        faults.load.problem(problem);
    }
    let problems = faults.load.problems.lock().unwrap().clone();
    if !problems.is_empty() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{seed}.jsonl"));
        history::write_lines(&lines, BufWriter::new(File::create(&path).unwrap())).unwrap();
        std::fs::write(path.with_extension("log"), &faults.said).unwrap();
        panic!(
            "BRAID_SOAK_SEED={seed}, history in {} and messages beside it: {problems:#?}",
            path.display()
        );
    }
    assert_it_meant_something(&faults, &summary);
}

fn check(bucket: &Bucket) -> Finished {
    let arguments = ["lts", "check", "--lts", bucket.url(), "--grace", GRACE, "-o", "json"];
    let command = Braid::new(arguments);
    bucket.environment().into_iter().fold(command, |c, (name, value)| c.env(name, value)).run()
}

fn tell(faults: &Faults<'_>, summary: &Summary) {
    let (journal, carried) = (&faults.load.journal, faults.bucket.carried());
    let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    say(&format!("{summary:?}"));
    say(&format!("{:?} {carried:?}", faults.counts));
    say(&format!(
        "{} truncations, {} seals, {} deletions",
        of(&journal.truncations),
        of(&journal.seals),
        of(&journal.deletions)
    ));
}

fn assert_it_meant_something(faults: &Faults<'_>, summary: &Summary) {
    let (counts, carried, journal) = (faults.counts, faults.bucket.carried(), &faults.load.journal);
    let amounts = [
        ("acknowledged appends", summary.acknowledged as u64),
        ("events read at the end", summary.read_at_the_end as u64),
        ("kills", counts.kills),
        ("outages", counts.outages),
        ("bytes read from objects", counts.object_read_bytes),
        ("truncations", journal.truncations.load(Ordering::Relaxed)),
        ("deletions", journal.deletions.load(Ordering::Relaxed)),
        ("objects put", carried.puts),
        ("deletions of objects", carried.deletes),
        ("objects and ranges got", carried.gets),
    ];
    for (what, amount) in amounts {
        assert!(amount > 0, "no {what}");
    }
}
