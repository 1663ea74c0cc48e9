//! The protocol simulation: determinism first, then many seeds, then the bugs it must catch.

use std::process::Command;

use common::{Rng, planted};
use rstest::rstest;
use tests::sim::{BucketPlan, Coverage, Options, Plan, Report, run, run_with};

/// Seeds of every run of the tests; thousands are run by the `simulate` command.
const SEEDS: u64 = 300;

fn trace_in_a_process_of_its_own(seed: u64) -> String {
    let simulate = env!("CARGO_BIN_EXE_simulate");
    let output = Command::new(simulate)
        .args(["--from", &seed.to_string(), "--seeds", "1"])
        .output()
        .expect("the simulate command runs");
    String::from_utf8(output.stdout).expect("its output is text")
}

#[test]
fn a_seed_gives_the_same_trace_in_two_processes() {
    for seed in 0..10 {
        let (first, second) =
            (trace_in_a_process_of_its_own(seed), trace_in_a_process_of_its_own(seed));
        assert!(first.contains("# trace "), "{first}");
        assert_eq!(first, second);
        assert!(first.contains(&run(&Options { seed, print: false }).line()), "{first}");
    }
}

#[rstest]
fn every_seed_keeps_every_promise(#[values(0, 1)] half: u64) {
    let mut total = Coverage::default();
    let mut moved = 0;
    for seed in (0..SEEDS).filter(|seed| seed % 2 == half) {
        let report = run(&Options { seed, print: false });
        assert!(report.is_good(), "{}", tell(&report));
        total.add(&report.coverage);
        moved += report.summary.moved as u64;
    }
    let reached = [
        ("event that a successor has", moved),
        ("crash", total.crashes),
        ("crash in a disk operation", total.crashes_in_operation),
        ("clean stop", total.clean_stops),
        ("lost connection", total.disconnects),
        ("late message", total.late_messages),
        ("stalled write", total.stalls),
        ("full disk", total.full_disks),
        ("start on a full disk", total.full_starts),
        ("checkpoint", total.checkpoints),
        ("fenced process", total.fenced),
        ("sealed segment", total.sealed),
        ("segment that another follows", total.scales),
        ("closed session", total.closes),
        ("message of a closed session that comes once more", total.echoes),
        ("source that is not the writer's", total.other_sources),
        ("refused offset", total.offset_mismatches),
        ("truncation", total.truncations),
        ("deletion", total.deletions),
        ("refusal for a full log", total.refused_full),
        ("outage of the bucket", total.outages),
        ("round", total.rounds),
        ("copy of a state", total.copies),
        ("compaction", total.compactions),
        ("collection", total.collections),
        ("sweep", total.sweeps),
        ("failed job", total.failed_jobs),
        ("job that lost its process", total.lost_jobs),
        ("late request to the bucket", total.late_requests),
        ("lost state", total.lost_states),
        ("recovery", total.recoveries),
    ];
    for (what, count) in reached {
        assert!(count > 0, "no seed reached a {what}: {total:?}");
    }
}

fn tell(report: &Report) -> String {
    let violations: Vec<String> = report.violations.iter().map(ToString::to_string).collect();
    format!("{}\n{:?}\n{violations:#?}", report.line(), report.problems)
}

/// Runs seeds with the bug switched on until one shows it, which must be good without the bug.
fn is_caught(bug: &str, seeds: u64, change: fn(&mut Plan)) {
    let good = |seed| {
        let options = Options { seed, print: false };
        // A broken promise may show as a panic of our own assertions, too.
        std::panic::catch_unwind(|| run_with(&options, change).is_good()).unwrap_or(false)
    };
    let caught = {
        let _planted = planted::plant(bug);
        (0..seeds).find(|seed| !good(*seed))
    };
    let seed = caught.unwrap_or_else(|| panic!("{seeds} seeds did not catch `{bug}`"));
    let report = run_with(&Options { seed, print: false }, change);
    assert!(report.is_good(), "seed {seed} fails without `{bug}`: {}", tell(&report));
}

/// The bucket of a plan whose test cannot do without.
fn bucket(plan: &mut Plan) -> &mut BucketPlan {
    let draw = || BucketPlan::draw(&mut Rng::from_seed(plan.appends));
    plan.bucket.get_or_insert_with(draw)
}

/// Many crashes while writes are slow: what is acknowledged early is lost.
fn crashing(plan: &mut Plan) {
    plan.faults.crash = true;
    plan.faults.interval = 20_000;
    plan.disk.inline_write_max = 0;
    plan.disk.write_micros = 5_000;
    plan.appends = 200;
}

#[test]
fn an_acknowledgement_before_the_sync_is_caught() {
    is_caught("acknowledge-before-sync", 60, crashing);
}

/// Pipelined blocks on connections that break and deliver late.
fn unreliable(plan: &mut Plan) {
    plan.faults.disconnect = true;
    plan.faults.late_messages = true;
    plan.faults.interval = 5_000;
    plan.raw_writers = 3;
    plan.conditional = 3;
    plan.appends = 300;
}

#[test]
fn deduplication_by_comparison_is_caught() {
    is_caught("dedup-by-comparison", 100, unreliable);
}

/// Small checkpoints, far apart, and a log that is truncated.
fn truncating(plan: &mut Plan) {
    plan.truncates = true;
    plan.deletes = true;
    plan.reads = true;
    plan.faults.crash = true;
    plan.faults.interval = 100_000;
    plan.disk.checkpoint_millis = 500;
    plan.disk.checkpoint_log_bytes = 256 * 1024;
    plan.appends = 300;
}

#[test]
fn a_log_truncated_past_the_checkpoint_is_caught() {
    is_caught("log-truncated-past-checkpoint", 60, truncating);
}

/// Streams are sealed under their writers.
fn sealing(plan: &mut Plan) {
    plan.seals = true;
    plan.appends = 300;
    plan.raw_writers = 3;
}

#[test]
fn a_sealed_segment_that_accepts_is_caught() {
    is_caught("sealed-segment-accepts", 60, sealing);
}

/// Everything is moved to the bucket as soon as can be, and moved about in it.
fn tiering(plan: &mut Plan) {
    plan.truncates = true;
    plan.appends = 300;
    plan.disk.checkpoint_millis = 50;
    plan.faults.crash = true;
    plan.faults.interval = 100_000;
    let bucket = bucket(plan);
    bucket.round_bytes = 2 << 10;
    bucket.round_millis = 100;
    bucket.checkpoint_bytes = 4 << 10;
    bucket.checkpoint_millis = 100;
    bucket.keep_millis = 500;
    bucket.grace_millis = 10;
    bucket.sweep_millis = 100;
    bucket.compaction_millis = 10;
    bucket.chunk_bytes = 256;
    bucket.job_micros = 20_000;
    bucket.wipes = true;
    bucket.loses_machine = false;
}

/// The same, with the loss of everything but the bucket at its end.
fn losing(plan: &mut Plan) {
    tiering(plan);
    bucket(plan).loses_machine = true;
}

/// The same, with what was on its way to the bucket arriving when another machine has it.
fn taken_over(plan: &mut Plan) {
    losing(plan);
    plan.faults.interval = 30_000;
    let bucket = bucket(plan);
    bucket.job_micros = 200_000;
    bucket.late = true;
}

#[rstest]
#[case("log-truncated-before-it-is-archived", tiering)]
#[case("collected-while-a-checkpoint-needs-it", losing)]
#[case("extent-in-the-wrong-place", tiering)]
#[case("sweep-takes-what-is-under-way", tiering)]
#[case("moved-extents-are-not-saved", tiering)]
#[case("restore-leaves-a-chunk-out", losing)]
#[case("recovery-forgets-the-last-rounds", losing)]
#[case("sweep-takes-what-a-recovery-may-end-with", taken_over)]
fn a_bug_on_the_way_through_the_bucket_is_caught(#[case] bug: &str, #[case] plan: fn(&mut Plan)) {
    is_caught(bug, 60, plan);
}
