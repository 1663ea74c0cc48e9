//! Protocol simulation of the one-node server: one process, one seed, one event queue.
//!
//! Log, replicas, containers and controller are the shipped code on a simulated disk and clock;
//! clients are the library's writer state machine and a writer of the simulation's own. No tokio,
//! no threads, no sockets. Between any two events the server may crash and lose what it had not
//! made durable, a connection may break, a write may stall, the disk may fill up, the bucket may be
//! away; the saved state may be lost, and at the end of some runs the whole machine. At the end
//! everything heals, settles and is read, and the history is checked.

mod bucket;
mod clients;
mod core_writer;
mod faults;
mod finale;
mod invariants;
mod network;
mod node;
mod plan;
mod process;
mod raw_writer;
mod reads;
mod recovery;
mod scaling;
mod schedule;
mod storage;
mod streams;
mod tasks;
mod trace;
mod world;
mod writers;

pub use plan::{BucketPlan, DiskPlan, FaultPlan, Plan};

use crate::checker::{Summary, Violation};
use crate::history::Line;
use world::World;

/// How to run one seed.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub seed: u64,
    /// Print the trace to standard error.
    pub print: bool,
}

/// What one seed came to.
#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    /// Equal for equal runs.
    pub trace: u64,
    pub trace_lines: u64,
    pub summary: Summary,
    pub coverage: Coverage,
    pub violations: Vec<Violation>,
    /// Why the run itself did not come to an end as it should: a group out of order, a server that
    /// does not start, work that never settles.
    pub problems: Vec<String>,
    pub history: Vec<Line>,
}

/// How often the things happened that a run is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    pub crashes: u64,
    pub crashes_in_operation: u64,
    pub clean_stops: u64,
    pub disconnects: u64,
    pub late_messages: u64,
    pub stalls: u64,
    pub full_disks: u64,
    pub full_starts: u64,
    pub checkpoints: u64,
    pub blocks: u64,
    pub fenced: u64,
    pub sealed: u64,
    pub scales: u64,
    /// Sessions that their writers closed, and what of them came once more behind that.
    pub closes: u64,
    pub echoes: u64,
    /// Processes that had another source than their writer, and were refused.
    pub other_sources: u64,
    pub offset_mismatches: u64,
    pub truncations: u64,
    pub deletions: u64,
    pub refused_full: u64,
    pub outages: u64,
    pub rounds: u64,
    /// Copies of the state in the bucket.
    pub copies: u64,
    pub compactions: u64,
    pub collections: u64,
    pub sweeps: u64,
    pub failed_jobs: u64,
    /// Under way with the bucket when their process ended.
    pub lost_jobs: u64,
    pub late_requests: u64,
    pub lost_states: u64,
    pub recoveries: u64,
}

impl Coverage {
    pub fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.crashes_in_operation += other.crashes_in_operation;
        self.clean_stops += other.clean_stops;
        self.disconnects += other.disconnects;
        self.late_messages += other.late_messages;
        self.stalls += other.stalls;
        self.full_disks += other.full_disks;
        self.full_starts += other.full_starts;
        self.checkpoints += other.checkpoints;
        self.blocks += other.blocks;
        self.fenced += other.fenced;
        self.sealed += other.sealed;
        self.scales += other.scales;
        self.closes += other.closes;
        self.echoes += other.echoes;
        self.other_sources += other.other_sources;
        self.offset_mismatches += other.offset_mismatches;
        self.truncations += other.truncations;
        self.deletions += other.deletions;
        self.refused_full += other.refused_full;
        self.outages += other.outages;
        self.rounds += other.rounds;
        self.copies += other.copies;
        self.compactions += other.compactions;
        self.collections += other.collections;
        self.sweeps += other.sweeps;
        self.failed_jobs += other.failed_jobs;
        self.lost_jobs += other.lost_jobs;
        self.late_requests += other.late_requests;
        self.lost_states += other.lost_states;
        self.recoveries += other.recoveries;
    }
}

impl Report {
    pub fn is_good(&self) -> bool {
        self.violations.is_empty() && self.problems.is_empty()
    }

    /// One line that says everything and can be pasted into a shell.
    pub fn line(&self) -> String {
        format!(
            "cargo run -p tests --bin simulate -- --from {} --seeds 1 --print # trace {:016x}",
            self.seed, self.trace
        )
    }
}

/// Runs one seed, the same way each time.
pub fn run(options: &Options) -> Report {
    World::new(options).run()
}

/// Runs one seed under a plan that `change` has had its way with: for tests of one thing.
pub fn run_with(options: &Options, change: impl FnOnce(&mut Plan)) -> Report {
    World::with_plan(options, change).run()
}
