//! What one seed does: every seed switches a part of the faults and operations off and draws the
//! sizes anew, since uniform mixtures leave corners unvisited.

use std::time::Duration;

use common::{ByteSize, Rng};
use controller::WriterMode;
use lts::FaultRates;
use replica::TieringSettings;
use replica::archive::{CheckpointSettings, RoundSettings};

/// Drawn from the seed before anything else.
#[derive(Debug, Clone)]
pub struct Plan {
    pub containers: u64,
    pub streams: u32,
    pub segments_max: u64,
    /// Writers of one segment, and writers of the client library, per stream.
    pub raw_writers: u64,
    pub core_writers: u64,
    /// Appends of each writer.
    pub appends: u64,
    pub filler_max: u64,
    /// One in so many; 0: never.
    pub atomic: u64,
    pub conditional: u64,
    pub second_process: bool,
    pub seals: bool,
    pub truncates: bool,
    pub deletes: bool,
    pub reads: bool,
    pub disk: DiskPlan,
    pub faults: FaultPlan,
    /// Long-term storage; most seeds have it.
    pub bucket: Option<BucketPlan>,
    /// Segments of some streams end, and others go on with their keys.
    pub scales: bool,
    /// What the numbers of named writers mean.
    pub mode: WriterMode,
    /// Processes of writers that replay get other sources, too.
    pub other_sources: bool,
}

/// The log's and the checkpoints' sizes.
#[derive(Debug, Clone)]
pub struct DiskPlan {
    pub file_size: u64,
    pub files: u64,
    pub block_size: u64,
    pub checkpoint_log_bytes: u64,
    pub checkpoint_millis: u64,
    pub tail_cache: u64,
    /// Blocks up to this size are written by the worker itself.
    pub inline_write_max: u64,
    /// Microseconds that a block write takes at most, when nothing is wrong.
    pub write_micros: u64,
}

/// Which faults may strike, and how often.
#[derive(Debug, Clone)]
pub struct FaultPlan {
    /// Mean microseconds between faults.
    pub interval: u64,
    pub crash: bool,
    /// Crash in the middle of a disk operation, a few operations ahead.
    pub crash_in_operation: bool,
    pub disconnect: bool,
    /// Messages of a lost connection still arrive, later.
    pub late_messages: bool,
    pub stall: bool,
    pub disk_full: bool,
    pub wall_jump: bool,
    pub clean_stop: bool,
}

impl Plan {
    pub fn draw(rng: &mut Rng) -> Self {
        let small_budget = rng.chance(1, 4);
        let on = |rng: &mut Rng| rng.chance(2, 3);
        let filler_max = [0, 40, 400, 3_000][rng.below(4) as usize];
        // A file has to hold the largest entry: everything that all writers have under way.
        let file_kib =
            if filler_max > 400 { 2_048 } else { [512, 768, 1_024][rng.below(3) as usize] };
        Self {
            containers: rng.between(1, 3),
            streams: rng.between(1, 3) as u32,
            segments_max: rng.between(1, 4),
            raw_writers: rng.between(0, 3),
            core_writers: rng.between(1, 2),
            appends: rng.between(20, 300),
            filler_max,
            atomic: [0, 5, 20][rng.below(3) as usize],
            conditional: [0, 3, 10][rng.below(3) as usize],
            second_process: on(rng),
            seals: on(rng),
            truncates: on(rng),
            deletes: on(rng),
            reads: on(rng),
            disk: DiskPlan {
                file_size: file_kib * 1_024,
                files: if small_budget { rng.between(6, 8) } else { 64 },
                block_size: [16, 64, 128][rng.below(3) as usize] * 1024,
                checkpoint_log_bytes: [4, 32, 256][rng.below(3) as usize] * 1024,
                checkpoint_millis: [5, 50, 500][rng.below(3) as usize],
                tail_cache: [1, 16, 1024][rng.below(3) as usize] * 1024,
                inline_write_max: if rng.chance(1, 3) { 32 * 1024 } else { 0 },
                write_micros: [50, 500, 5_000][rng.below(3) as usize],
            },
            faults: FaultPlan {
                interval: [20_000, 100_000, 400_000][rng.below(3) as usize],
                crash: on(rng),
                crash_in_operation: on(rng),
                disconnect: on(rng),
                late_messages: on(rng),
                stall: rng.chance(1, 4),
                disk_full: rng.chance(1, 4),
                wall_jump: on(rng),
                clean_stop: on(rng),
            },
            bucket: rng.chance(4, 5).then(|| BucketPlan::draw(rng)),
            scales: on(rng),
            mode: if rng.chance(1, 3) { WriterMode::Continue } else { WriterMode::Replay },
            other_sources: rng.chance(1, 2),
        }
    }
}

/// Long-term storage: everything that takes minutes and megabytes in the product happens within
/// the seconds and kilobytes of a run.
#[derive(Debug, Clone)]
pub struct BucketPlan {
    pub round_bytes: u64,
    pub round_millis: u64,
    pub object_bytes: u64,
    pub checkpoint_bytes: u64,
    pub checkpoint_millis: u64,
    pub keep_millis: u64,
    pub chunk_bytes: u64,
    pub compaction_bytes: u64,
    pub compaction_millis: u64,
    pub grace_millis: u64,
    pub sweep_millis: u64,
    /// Microseconds that a job takes at most when nothing is wrong, on each half of its way.
    pub job_micros: u64,
    /// In a thousand: how often a request meets each kind of fault.
    pub faults: u64,
    /// The bucket is away, full or read-only for a while.
    pub outages: bool,
    /// What a process sent arrives after its end.
    pub late: bool,
    /// Saved states are lost with a process.
    pub wipes: bool,
    /// The run ends with the loss of the machine.
    pub loses_machine: bool,
}

impl BucketPlan {
    pub fn draw(rng: &mut Rng) -> Self {
        let on = |rng: &mut Rng| rng.chance(2, 3);
        let mut of = |choices: [u64; 3]| choices[rng.below(3) as usize];
        Self {
            round_bytes: of([2, 16, 64]) << 10,
            round_millis: of([100, 400, 2_000]),
            object_bytes: of([1, 8, 64]) << 10,
            checkpoint_bytes: of([4, 32, 256]) << 10,
            checkpoint_millis: of([100, 500, 2_000]),
            keep_millis: of([50, 500, 2_000]),
            chunk_bytes: of([256, 2_048, 1 << 16]),
            compaction_bytes: of([16, 64, 1_024]) << 10,
            compaction_millis: of([10, 100, 500]),
            grace_millis: of([10, 200, 1_000]),
            sweep_millis: of([100, 400, 1_000]),
            job_micros: of([1_000, 20_000, 200_000]),
            faults: of([0, 10, 80]),
            outages: on(rng),
            late: on(rng),
            wipes: on(rng),
            loses_machine: rng.chance(1, 3),
        }
    }

    pub(super) fn settings(&self) -> TieringSettings {
        let millis = Duration::from_millis;
        TieringSettings {
            round_bytes: ByteSize(self.round_bytes),
            round_age: millis(self.round_millis),
            // What a round costs in the log, two blocks, must be little against what it frees, or a
            // full log never empties.
            round_bytes_max: ByteSize(2 * self.round_bytes).max(ByteSize::kib(64)),
            jobs: 4,
            // Nothing, some of a round, or all of it.
            kept_bytes: ByteSize(self.round_bytes * (self.round_millis % 3)),
            round: RoundSettings {
                object_bytes: ByteSize(self.object_bytes),
                own_object_bytes: ByteSize(self.object_bytes / 2),
            },
            checkpoint_bytes: ByteSize(self.checkpoint_bytes),
            checkpoint_interval: millis(self.checkpoint_millis),
            checkpoint_pause: millis(self.checkpoint_millis / 4),
            checkpoint_keep: millis(self.keep_millis),
            checkpoint: CheckpointSettings { chunk_bytes: ByteSize(self.chunk_bytes) },
            compaction_bytes_max: ByteSize(self.compaction_bytes),
            grace: millis(self.grace_millis),
            sweep_interval: millis(self.sweep_millis),
            compaction_interval: millis(self.compaction_millis),
        }
    }

    /// What goes wrong with requests while there is chaos. Bits do not flip here: damage is for the
    /// tests of those who check.
    pub(super) fn rates(&self) -> FaultRates {
        FaultRates {
            delay: 2 * self.faults,
            delay_max: Duration::from_micros(self.job_micros),
            error: self.faults,
            lost_answer: self.faults,
            busy: self.faults,
            slow_body: self.faults,
            short_body: self.faults,
            flip_bit: 0,
            hang: self.faults / 4,
        }
    }

    /// Microseconds after which everything that happens by itself has happened.
    pub(super) fn rest_micros(&self) -> u64 {
        1_000 * (3 * self.sweep_millis + 2 * self.grace_millis) + 8 * self.job_micros
    }
}
