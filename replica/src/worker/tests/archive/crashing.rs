//! Crashes at any moment, with a bucket that lives on.

use super::*;

/// Works with faults until the machine goes down; returns what was acknowledged.
fn work_until_crash(machine: &mut Machine, first: u64, forgets: bool) -> Vec<u64> {
    let numbers = (first..first + 30).map(|number| match number % 5 {
        4 if forgets => FORGET | (number - 3),
        _ => number,
    });
    crash::store_until_crash(machine, numbers, 2_000, Duration::from_secs(7))
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash_in_any_operation_of_the_disk() {
    let outcomes = [CrashOutcome::Lost, CrashOutcome::Kept, CrashOutcome::Random];
    for (operation, outcome) in (1..300).step_by(3).map(|n| (n, outcomes[n as usize % 3])) {
        let mut machine = Machine::new(operation);
        let bucket = attach(&mut machine);
        bucket.faults.set_rates(FaultRates {
            error: 100,
            lost_answer: 100,
            ..FaultRates::default()
        });
        machine.settings.checkpoint_interval = Duration::from_secs(20);
        machine.disk.crash_at(operation, outcome);
        let acknowledged = work_until_crash(&mut machine, 0, false);
        machine.crash(outcome);
        bucket.faults.set_rates(FaultRates::default());
        let mut node = serving(&mut machine);
        for _ in 0..5 {
            node.wait(Duration::from_secs(60));
        }
        let stored = node.stored();
        for (place, number) in acknowledged.iter().enumerate() {
            let found = stored.get(number).copied();
            assert_eq!(found, Some(place as u64), "crash in {operation}: {number} is gone");
        }
        assert_eq!(node.check_payloads(&bucket.memory), stored.len());
    }
}

#[test]
fn crash_after_crash_the_state_is_what_a_log_without_a_bucket_gives() {
    for seed in 0..60 {
        let mut machine = Machine::new(seed);
        let bucket = attach(&mut machine);
        machine.settings.checkpoint_interval = Duration::from_secs(15);
        let mut rng = Rng::from_seed(seed);
        let mut acknowledged = Vec::new();
        for round in 0..4 {
            let before = machine.disk.operations();
            machine.disk.crash_at(before + rng.between(5, 150), CrashOutcome::Random);
            acknowledged.extend(work_until_crash(&mut machine, round * 100, true));
            machine.crash(CrashOutcome::Random);
            if rng.below(3) == 0 {
                machine.kv.wipe();
            }
        }
        let mut node = serving(&mut machine);
        for _ in 0..8 {
            node.wait(Duration::from_secs(30));
        }
        let journal = machine.journal.numbers();
        let stored = node.stored();
        let held = node.ask(|numbers| numbers.locations.keys().copied().collect::<Vec<_>>());
        for number in &acknowledged {
            assert!(journal.contains(number), "seed {seed}: {number} is gone");
        }
        for number in journal.iter().filter(|number| **number & FORGET == 0) {
            assert!(stored.contains_key(number), "seed {seed}: {number} is gone");
            let forgotten = journal.contains(&(FORGET | number));
            assert_eq!(held.contains(number), !forgotten, "seed {seed}: {number}");
        }
        node.check_payloads(&bucket.memory);
    }
}
