//! Every crash point: the machine dies in the middle of each operation of a workload, and of each
//! operation of the recovery after it.

use common::{ByteSize, GroupId};

use super::harness::{Step, World, small};
use crate::{CrashOutcome, Disk, LogSettings};

/// Files of eight sectors: every few blocks roll.
fn tiny() -> LogSettings {
    LogSettings {
        budget: ByteSize::kib(32 * 24),
        file_size: ByteSize::kib(32),
        entry_max: ByteSize::kib(16),
        files_ahead: 1,
        block_size: ByteSize::kib(8),
        ..LogSettings::default()
    }
}

/// Creates, appends, rolls, truncates, recycles, replaces, seals and restarts.
fn workload() -> Vec<Step> {
    use Step::*;
    let append = |group, count, bytes| Append { group, back: 0, count, bytes };
    let mut steps = vec![append(1, 3, 900), Write, append(2, 2, 2_000), Conf { group: 2 }, Write];
    steps.extend([Prepare, HardState { group: 1, vote: 4 }, append(1, 1, 10), Write, Seal]);
    for _ in 0..2 {
        steps.extend([append(1, 2, 3_000), Write, append(2, 2, 1_500), append(1, 1, 5), Write]);
        steps.extend([append(1, 3, 1_800), Write, append(3, 1, 6_000), Write, Prepare]);
        steps.extend([Truncate { group: 1, keep: 2 }, Truncate { group: 3, keep: 0 }, Write]);
        steps.extend([Truncate { group: 2, keep: 1 }, HardState { group: 2, vote: 1 }, Write]);
        steps.extend([append(2, 1, 7_000), Write, Prepare, append(1, 2, 4_000), Write]);
        steps.extend([Append { group: 1, back: 2, count: 2, bytes: 2_500 }, Write, Prepare]);
    }
    steps.extend([Reset { group: 3, ahead: 5 }, append(3, 2, 100), Write]);
    steps.extend([Tombstone { group: 2 }, append(1, 1, 3_000), Write, Reopen, Prepare]);
    steps.extend([append(1, 2, 6_000), Write, append(3, 2, 6_000), Write, Seal]);
    steps
}

/// Restarts again and again behind a sealing block, in files that have room for it.
fn restarts() -> Vec<Step> {
    use Step::*;
    let append = |group, count, bytes| Append { group, back: 0, count, bytes };
    let mut steps = vec![append(1, 3, 900), Write, append(2, 2, 2_000), Conf { group: 2 }, Reopen];
    for _ in 0..2 {
        steps.extend([append(2, 1, 300), Write, append(1, 1, 9_000), Write, Reopen, Prepare]);
        steps.extend([HardState { group: 2, vote: 3 }, Reopen, append(1, 1, 200), Write]);
        steps.extend([Truncate { group: 1, keep: 2 }, Conf { group: 1 }, Write, Reopen, Reopen]);
        steps.extend([Append { group: 1, back: 1, count: 1, bytes: 7_000 }, Write, Prepare]);
        steps.extend([append(3, 3, 4_000), Write, Reset { group: 3, ahead: 2 }, Write, Seal]);
        steps.extend([
            Tombstone { group: 2 },
            Write,
            Kill,
            append(3, 1, 50),
            Write,
            Reopen,
            append(2, 3, 6_000),
            Write,
        ]);
    }
    steps.extend([Truncate { group: 1, keep: 0 }, Truncate { group: 2, keep: 0 }, Write, Prepare]);
    steps.extend([append(3, 1, 500), Write, Reopen, append(1, 1, 100), Seal]);
    steps
}

/// Every file is dropped as soon as the next one is begun, and files are prepared at each moment: before
/// the first block of a file is written, before what frees one is durable, and behind both.
fn rolls() -> Vec<Step> {
    use Step::*;
    let append = |group, count, bytes| Append { group, back: 0, count, bytes };
    let mut steps = vec![append(2, 1, 10), HardState { group: 2, vote: 2 }, Write, Prepare];
    for vote in 3..6 {
        steps.extend([append(1, 1, 7_000), Write, append(1, 1, 7_000), Write, Conf { group: 1 }]);
        steps.extend([Truncate { group: 1, keep: 0 }, HardState { group: 1, vote }, Write]);
        steps.extend([append(1, 1, 7_000), Prepare, append(1, 1, 7_000), Prepare, Write, Write]);
        steps.extend([Truncate { group: 1, keep: 1 }, Prepare, Write, Prepare]);
        steps.extend([append(2, 1, 4_000), Truncate { group: 2, keep: 1 }, Write, Prepare]);
    }
    steps.extend([Tombstone { group: 1 }, append(2, 1, 6_000), Write, Prepare, Kill, Prepare]);
    steps
}

/// Three groups that never let go of what they have, in a log that is too small for that: it is moved
/// while it is replaced and cut, and moved again.
fn moves() -> Vec<Step> {
    use Step::*;
    let append = |group, count, bytes| Append { group, back: 0, count, bytes };
    let mut steps = vec![append(2, 3, 300), append(3, 2, 500), HardState { group: 3, vote: 1 }];
    steps.extend([Write, append(4, 2, 100), Write, Prepare]);
    for round in 0..5 {
        steps.extend([append(1, 1, 7_000), Write, Prepare, append(1, 1, 7_000), Write, Prepare]);
        steps.extend([append(1, 1, 7_000), Truncate { group: 1, keep: 1 }, Write, Prepare]);
        steps.extend([Write, Prepare, Write, Prepare]);
        match round {
            1 => steps.extend([Append { group: 2, back: 1, count: 2, bytes: 200 }, Write]),
            2 => steps.extend([Truncate { group: 3, keep: 1 }, Prepare, Write, Kill]),
            3 => steps.extend([append(4, 1, 900), Reset { group: 3, ahead: 1 }, Write, Reopen]),
            _ => {}
        }
    }
    steps
}

/// What the machine dies in.
struct Scenario {
    settings: LogSettings,
    steps: Vec<Step>,
    /// Restarts in it that go on in the newest file.
    goes_on: usize,
    /// The first files are gone in the end.
    beyond: &'static str,
    /// Whether entries in it are moved.
    moves: bool,
}

fn scenarios() -> [Scenario; 4] {
    let (budget, file_size) = (ByteSize::kib(128 * 20), ByteSize::kib(128));
    let roomy = LogSettings { budget, file_size, ..small() };
    let few = LogSettings { budget: ByteSize::kib(32 * 8), ..tiny() };
    let scenario = |settings, steps, goes_on, beyond, moves| Scenario {
        settings,
        steps,
        goes_on,
        beyond,
        moves,
    };
    [
        scenario(tiny(), workload(), 0, "000000000003.wal", false),
        scenario(roomy, restarts(), 8, "000000000001.wal", false),
        scenario(tiny(), rolls(), 0, "000000000003.wal", false),
        scenario(few, moves(), 0, "000000000003.wal", true),
    ]
}

/// Runs the scenario until the crash; the log is closed and the machine up again.
fn crash_at(scenario: &Scenario, operation: u64, outcome: CrashOutcome, seed: u64) -> World {
    let mut world = World::new(scenario.settings.clone(), seed);
    world.disk.crash_at(operation, outcome);
    if world.open().is_ok() {
        let ran = world.run(&scenario.steps);
        assert!(ran.is_err(), "operation {operation} is within the workload");
    }
    assert!(world.disk.crashed(), "nothing but the crash stops the log");
    world.log = None;
    world.disk.restart();
    world
}

fn operations(scenario: &Scenario) -> u64 {
    let mut world = World::new(scenario.settings.clone(), 0);
    world.open().unwrap();
    world.run(&scenario.steps).unwrap();
    world.check_live();
    assert_eq!(world.refused, 0, "the workload is done in full");
    assert!(world.went_on >= scenario.goes_on, "{} went on", world.went_on);
    let names = world.disk.list().unwrap();
    assert!(names.len() <= 12 && names[0].as_str() > scenario.beyond, "files come round");
    // Something of these is left, and its file is not.
    let has = |group| world.model.get(&GroupId(group)).is_some_and(|group| group.entries.len() > 1);
    assert!(!scenario.moves || (has(2) && has(4)), "{names:?}");
    world.disk.operations()
}

/// The log goes on after recovery, and recovering again changes nothing.
fn goes_on(mut world: World) {
    let steps = [
        Step::Append { group: 9, back: 0, count: 2, bytes: 700 },
        Step::Append { group: 1, back: 0, count: 1, bytes: 700 },
        Step::Write,
        Step::Prepare,
        Step::Reopen,
        Step::Append { group: 1, back: 1, count: 2, bytes: 700 },
        Step::Reopen,
    ];
    world.run(&steps).unwrap();
    world.check_live();
}

#[test]
fn every_crash_point_leaves_what_was_reported_and_nothing_half() {
    for scenario in scenarios() {
        for operation in 1..=operations(&scenario) {
            let mut outcomes = vec![(CrashOutcome::Lost, 0), (CrashOutcome::Kept, 0)];
            outcomes.extend((0..4).map(|seed| (CrashOutcome::Random, seed)));
            for (outcome, seed) in outcomes {
                let mut world = crash_at(&scenario, operation, outcome, seed);
                world.recover();
                goes_on(world);
            }
        }
    }
}

#[test]
fn every_crash_point_of_every_recovery_leads_to_the_same_log() {
    for scenario in scenarios() {
        for operation in (1..=operations(&scenario)).step_by(2) {
            let world = crash_at(&scenario, operation, CrashOutcome::Random, operation);
            recoveries_crash(&world);
        }
    }
}

/// The machine dies in each operation of the recovery, too.
fn recoveries_crash(world: &World) {
    for step in 1.. {
        let mut trial = world.fork();
        trial.disk.crash_at(trial.disk.operations() + step, CrashOutcome::Random);
        match trial.open() {
            Ok(recovered) => {
                trial.settle(world.reported, &recovered);
                break;
            }
            Err(error) => assert!(trial.disk.crashed(), "{error}"),
        }
        trial.disk.restart();
        trial.recover();
        if step % 3 == 0 {
            goes_on(trial);
        }
    }
}
