//! What one seed does: every seed switches a part of the faults and operations off and draws the
//! sizes anew, since uniform mixtures leave corners unvisited.

use common::Rng;

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
        }
    }
}
