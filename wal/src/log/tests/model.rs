//! Random workloads with crashes, against the model.

use common::{ByteSize, Rng};
use proptest::prelude::*;

use super::harness::{Step, World, small};
use crate::{CrashOutcome, LogSettings};

fn step() -> impl Strategy<Value = Step> {
    let group = 1..5u64;
    prop_oneof![
        8 => (group.clone(), prop_oneof![4 => Just(0u64), 1 => 1..6u64], 1..5usize, 0..4_000usize)
            .prop_map(|(group, back, count, bytes)| Step::Append { group, back, count, bytes }),
        2 => (group.clone(), 0..9u64).prop_map(|(group, vote)| Step::HardState { group, vote }),
        1 => group.clone().prop_map(|group| Step::Conf { group }),
        2 => (group.clone(), 0..6u64).prop_map(|(group, keep)| Step::Truncate { group, keep }),
        1 => (group.clone(), 0..4u64).prop_map(|(group, ahead)| Step::Reset { group, ahead }),
        1 => group.prop_map(|group| Step::Tombstone { group }),
        8 => Just(Step::Write),
        1 => Just(Step::Seal),
        3 => Just(Step::Prepare),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
    ]
}

/// Some steps, and a crash after this many more disk operations, or none.
fn rounds() -> impl Strategy<Value = Vec<(Vec<Step>, Option<u64>)>> {
    let round = (prop::collection::vec(step(), 1..40), prop::option::of(1..30u64));
    prop::collection::vec(round, 1..5)
}

fn play(settings: LogSettings, seed: u64, rounds: &[(Vec<Step>, Option<u64>)]) {
    let mut world = World::new(settings, seed);
    world.open().unwrap();
    for (steps, crash) in rounds {
        if let Some(after) = crash {
            let operation = world.disk.operations() + after;
            world.disk.crash_at(operation, CrashOutcome::Random);
        }
        if world.run(steps).is_ok() && !world.disk.crashed() {
            world.check_live();
        }
        if crash.is_some() {
            world.log = None;
            world.disk.restart();
            world.recover();
        }
    }
    world.check_live();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_log_is_its_model_through_any_steps_and_crashes(seed: u64, rounds in rounds()) {
        play(small(), seed, &rounds);
    }

    #[test]
    fn the_log_is_its_model_in_the_smallest_files(seed: u64, rounds in rounds()) {
        let settings = LogSettings {
            file_size: ByteSize::kib(32),
            block_size: ByteSize::kib(8),
            budget: ByteSize::kib(32 * 12),
            ..small()
        };
        play(settings, seed, &rounds);
    }
}

/// What happened in a run, and is to happen often.
#[derive(Debug, Default)]
struct Happened {
    rolled: u64,
    moved: u64,
    recycled: u64,
    crashes: u64,
}

/// A busy log of few files: two groups come and go, two others seldom let go of what they have.
fn busy_step(rng: &mut Rng) -> Step {
    let group = if rng.chance(3, 4) { rng.between(1, 2) } else { rng.between(3, 4) };
    let sizes = if group < 3 { 3_000..7_000 } else { 10..900 };
    let bytes = rng.between(sizes.start, sizes.end) as usize;
    match rng.below(40) {
        0..12 => Step::Append { group, back: 0, count: 1, bytes },
        12 => Step::Append { group, back: rng.between(1, 3), count: 2, bytes },
        13..18 => Step::Truncate { group: rng.between(1, 2), keep: rng.below(2) },
        18 if rng.chance(1, 3) => Step::Truncate { group, keep: rng.below(6) },
        19 => Step::HardState { group, vote: rng.below(9) },
        20 if rng.chance(1, 4) => Step::Reset { group, ahead: rng.below(3) },
        21 if rng.chance(1, 8) => Step::Tombstone { group },
        22 if rng.chance(1, 3) => Step::Reopen,
        23 if rng.chance(1, 3) => Step::Kill,
        24 => Step::Seal,
        25..33 => Step::Write,
        _ => Step::Prepare,
    }
}

fn busy_run(seed: u64, happened: &mut Happened) {
    let settings = LogSettings {
        file_size: ByteSize::kib(32),
        block_size: ByteSize::kib(8),
        budget: ByteSize::kib(32 * 10),
        ..small()
    };
    let mut rng = Rng::from_seed(seed);
    let mut world = World::new(settings, seed);
    world.open().unwrap();
    for _ in 0..6 {
        if rng.chance(1, 2) {
            let outcomes = [CrashOutcome::Lost, CrashOutcome::Kept, CrashOutcome::Random];
            let outcome = outcomes[rng.below(3) as usize];
            world.disk.crash_at(world.disk.operations() + rng.between(1, 80), outcome);
        }
        for _ in 0..80 {
            if world.step(&busy_step(&mut rng)).is_err() {
                break;
            }
            let state = world.log().state();
            happened.moved = happened.moved.max(state.moving.entries);
        }
        if world.disk.crashed() {
            happened.crashes += 1;
            world.log = None;
            world.disk.restart();
            world.recover();
        }
        world.check_live();
    }
    let state = world.log().state();
    happened.rolled += state.files.back().unwrap().sequence;
    happened.recycled += state.files.front().unwrap().sequence - 1;
}

#[test]
fn the_log_is_its_model_where_files_roll_are_released_and_come_round() {
    let mut all = Happened::default();
    for seed in 0..80 {
        let mut run = Happened::default();
        busy_run(seed, &mut run);
        all.rolled += run.rolled;
        all.recycled += run.recycled;
        all.crashes += run.crashes;
        all.moved += run.moved;
        // Whoever has it has only little of it, and nobody loses it.
        assert!(run.rolled > 5, "{seed}: {run:?}");
    }
    assert!(all.rolled > 2_000 && all.recycled > 1_500 && all.crashes > 100, "{all:?}");
    assert!(all.moved > 500, "{all:?}");
}
