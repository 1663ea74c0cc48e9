//! Random workloads with crashes, against the model.

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
            file_size: common::ByteSize::kib(32),
            block_size: common::ByteSize::kib(8),
            budget: common::ByteSize::kib(32 * 12),
            ..small()
        };
        play(settings, seed, &rounds);
    }
}
