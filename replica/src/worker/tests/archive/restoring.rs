//! A group brought back from its bucket: its state alone, or all of it.

use super::*;
use crate::restore::{Chain, Loss};
use crate::{GroupSpec, StartError, recover};

/// Works for some minutes, with everything that an archive has: rounds, checkpoints, garbage.
pub(super) fn worked(seed: u64, numbers: u64) -> (Machine, Attached, Node) {
    let mut machine = Machine::new(seed);
    let bucket = attach(&mut machine);
    let mut node = serving(&mut machine);
    for number in 0..numbers {
        node.store(number);
        if number % 7 == 3 {
            let mut answer = propose(&node.handle, FORGET | (number - 1), 0).unwrap();
            node.settle().unwrap();
            answer.try_recv().unwrap().unwrap();
        }
        node.wait(Duration::from_secs(20));
    }
    (machine, bucket, node)
}

#[test]
fn a_state_that_was_deleted_is_brought_back_without_asking() {
    for numbers in [1, 5, 40, 120] {
        let (mut machine, bucket, mut node) = worked(1, numbers);
        for _ in 0..5 {
            node.wait(Duration::from_secs(60));
        }
        let (stored, locations) = (node.stored(), node.ask(|n| n.locations.clone()));
        let digest = node.handle.status().digest;
        assert!(node.handle.status().first > LogIndex(1), "the log alone is not enough");
        drop(node);
        machine.kv.wipe();
        let mut node = serving(&mut machine);
        assert_eq!(node.stored(), stored, "{numbers}");
        assert_eq!(node.ask(|n| n.locations.clone()), locations);
        assert_eq!(node.handle.status().digest, digest);
        node.check_payloads(&bucket.memory);
        // And it goes on: rounds, a saved state, and once more.
        node.store(1_000_000);
        for _ in 0..5 {
            node.wait(Duration::from_secs(60));
        }
        drop(node);
        let mut node = serving(&mut machine);
        assert!(node.stored().contains_key(&1_000_000));
    }
}

#[test]
fn a_state_that_is_older_than_the_log_is_brought_forward() {
    let (mut machine, bucket, mut node) = worked(1, 60);
    let older = machine.kv.copy();
    for number in 1_000..1_040 {
        node.store(number);
        node.wait(Duration::from_secs(20));
    }
    let stored = node.stored();
    drop(node);
    machine.kv = older;
    let mut node = serving(&mut machine);
    assert_eq!(node.stored(), stored);
    node.check_payloads(&bucket.memory);
}

#[test]
fn without_the_bucket_a_missing_state_is_refused() {
    let (mut machine, bucket, node) = worked(1, 40);
    drop(node);
    machine.kv.wipe();
    bucket.faults.set_outage(Some(lts::ErrorKind::Unavailable));
    let refused = machine.open().err().unwrap();
    assert!(matches!(refused, StartError::Archive { .. }), "{refused}");
    bucket.faults.set_outage(None);
    machine.clock.advance(Duration::from_secs(60));
    serving(&mut machine);
}

/// The machine is gone; another one is made from the bucket.
pub(in crate::worker::tests) fn recovered(lost: &Machine, memory: &Memory) -> Machine {
    prepared(lost, memory, false).unwrap().0
}

fn prepared(
    lost: &Machine,
    memory: &Memory,
    accept_loss: bool,
) -> Result<(Machine, recover::Found), String> {
    let (mut machine, found) = laid_out(lost, memory, accept_loss, || ())?;
    let incarnation = machine.storage.as_ref().unwrap().marker().unwrap().incarnation;
    let spec = GroupSpec { recover: Some(incarnation), ..GroupSpec::alone(GROUP) };
    let mut node = machine.open_as(spec).unwrap();
    node.settle().unwrap();
    assert!(node.handle.status().archived >= found.end);
    node.wait(Duration::from_secs(10));
    drop(node);
    Ok((machine, found))
}

/// What the next recovery would be told.
fn losses(machine: &Machine) -> Vec<Loss> {
    Chain::salvage(machine.storage.as_ref().unwrap(), GROUP).unwrap().losses
}

/// A machine on which the group was prepared, and what was found of it; `then` comes before anything
/// is opened.
pub(super) fn recovered_from(
    lost: &Machine,
    memory: &Memory,
    then: impl FnOnce(),
) -> (Machine, recover::Found) {
    laid_out(lost, memory, false, then).unwrap()
}

fn laid_out(
    lost: &Machine,
    memory: &Memory,
    accept_loss: bool,
    then: impl FnOnce(),
) -> Result<(Machine, recover::Found), String> {
    let mut machine = Machine::new(99);
    machine.clock = lost.clock.clone();
    let newest = wait_for(lts::cluster::newest_marker(memory)).unwrap().unwrap();
    let incarnation = Incarnation(newest.incarnation.0 + 1);
    attach_to(&mut machine, memory, ClusterMarker { incarnation, marker: 100 });
    let storage = machine.storage.clone().unwrap();
    let (log, _) = Log::open(
        Arc::new(machine.disk.clone()),
        machine.settings.log.clone(),
        machine.clock.clone(),
        machine.rng.fork("recovery"),
    )
    .unwrap();
    let found = recover::prepare(&storage, GROUP, accept_loss, &log, &machine.kv);
    let found = found.map_err(|failure| failure.to_string())?;
    then();
    Ok((machine, found))
}

#[test]
fn a_group_whose_log_is_gone_comes_back_with_exactly_what_was_archived() {
    for seed in 0..30 {
        let (machine, bucket, mut node) = worked(seed, 10 + 3 * seed);
        // Some more that is not archived when the machine goes down.
        for number in 5_000..5_000 + seed {
            node.store(number);
        }
        let archived = node.handle.status().archived;
        drop(node);
        let chain = Chain::find(machine.storage.as_ref().unwrap(), GROUP, None).unwrap();
        assert!(chain.end().0 >= archived);
        let end = chain.end().0;
        let mut expected: BTreeMap<u64, u64> = BTreeMap::new();
        let headers = machine.journal.entries_up_to(end);
        for number in headers.into_iter().filter(|number| number & FORGET == 0) {
            let place = expected.len() as u64;
            expected.entry(number).or_insert(place);
        }
        let mut machine = recovered(&machine, &bucket.memory);
        let mut node = serving(&mut machine);
        assert_eq!(node.stored(), expected, "seed {seed}");
        node.check_payloads(&bucket.memory);
        assert_eq!(node.handle.status().unarchived_since, None);
        node.store(1_000_000);
        for _ in 0..5 {
            node.wait(Duration::from_secs(60));
        }
        node.check_payloads(&bucket.memory);
        // Twice: the recovered cluster's bucket is as good.
        drop(node);
        let mut machine = recovered(&machine, &bucket.memory);
        let mut node = serving(&mut machine);
        assert!(node.stored().contains_key(&1_000_000));
        node.check_payloads(&bucket.memory);
    }
}

#[test]
fn a_group_of_which_nothing_was_archived_begins_anew_under_the_new_incarnation() {
    let mut machine = Machine::new(1);
    let bucket = attach(&mut machine);
    attach_to(
        &mut machine,
        &bucket.memory,
        ClusterMarker { incarnation: Incarnation(2), marker: 8 },
    );
    let spec = GroupSpec { recover: Some(Incarnation(2)), ..GroupSpec::alone(GROUP) };
    let mut node = machine.open_as(spec).unwrap();
    node.settle().unwrap();
    node.store(1);
    node.wait(Duration::from_secs(10));
    let name = *objects(&bucket.memory).keys().next().unwrap();
    assert_eq!(name.incarnation, Incarnation(2));
    assert_eq!(node.check_payloads(&bucket.memory), 1);
}

#[test]
fn a_checkpoint_that_is_damaged_is_gone_around_by_an_older_one() {
    let (machine, bucket, mut node) = worked(3, 120);
    let stored = node.stored();
    let storage = machine.storage.clone().unwrap();
    drop(node);
    let chain = Chain::find(&storage, GROUP, None).unwrap();
    let (newest, _) = chain.checkpoint.unwrap();
    bucket.memory.tamper(&newest.reference.name.into(), |bytes| bytes[40] ^= 1);
    let chain = Chain::find(&storage, GROUP, None).unwrap();
    assert!(chain.problems[0].contains(&newest.reference.name.to_string()));
    let (before, _) = chain.checkpoint.unwrap();
    bucket.memory.tamper(&before.chunks[0].name.into(), |bytes| bytes[40] ^= 1);
    let chain = Chain::find(&storage, GROUP, None).unwrap();
    assert!(chain.problems[1].contains(&before.chunks[0].name.to_string()), "one bit of a chunk");
    let mut machine = recovered(&machine, &bucket.memory);
    let mut node = serving(&mut machine);
    let found = node.stored();
    assert!(stored.iter().take(100).all(|(number, place)| found.get(number) == Some(place)));
}

#[test]
fn a_group_whose_rounds_are_all_damaged_is_not_taken_for_one_without_any() {
    let (machine, bucket, node) = worked(3, 1);
    drop(node);
    let storage = machine.storage.unwrap();
    let footers = Chain::find(&storage, GROUP, None).unwrap().footers;
    let names: Vec<ObjectName> = footers.iter().map(|footer| footer.reference.name).collect();
    for name in &names {
        assert!(bucket.memory.tamper(&(*name).into(), |bytes| bytes[60] ^= 1));
    }
    let broken = Chain::find(&storage, GROUP, None).unwrap_err().to_string();
    assert!(broken.contains(&names[0].to_string()), "{broken}");
    let paths: Vec<_> = names.into_iter().map(Into::into).collect();
    wait_for(bucket.memory.delete(&paths)).unwrap();
    let nothing = Chain::find(&storage, GROUP, None).unwrap_err();
    assert!(matches!(nothing, crate::restore::RestoreFailure::Nothing), "{nothing}");
}

#[test]
fn a_state_older_than_the_rounds_that_are_kept_is_as_good_as_none() {
    let (mut machine, _bucket, mut node) = worked(1, 30);
    let older = machine.kv.copy();
    for number in 1_000..1_300 {
        node.store(number);
        node.wait(Duration::from_secs(60));
    }
    let stored = node.stored();
    drop(node);
    machine.kv = older;
    let from = machine.kv.applied(GROUP).unwrap().map(|applied| applied.index);
    let storage = machine.storage.clone().unwrap();
    assert!(Chain::find(&storage, GROUP, from).is_err(), "the rounds in between are collected");
    let mut node = serving(&mut machine);
    assert_eq!(node.stored(), stored);
}

#[test]
fn a_round_that_is_missing_from_the_middle_is_told_by_name() {
    let (machine, bucket, node) = worked(3, 20);
    drop(node);
    let storage = machine.storage.unwrap();
    let chain = Chain::find(&storage, GROUP, None).unwrap();
    let middle = chain.footers[chain.footers.len() / 2].reference.name;
    wait_for(bucket.memory.delete(&[middle.into()])).unwrap();
    let broken = Chain::find(&storage, GROUP, None).unwrap_err().to_string();
    assert!(broken.contains(&middle.to_string()) && broken.contains("missing"), "{broken}");
}

/// A bucket with a chain of at least so many rounds that are all needed.
fn chained(rounds: usize) -> (Machine, Attached, Chain) {
    let (machine, bucket, node) = worked(3, 20);
    drop(node);
    let chain = Chain::find(machine.storage.as_ref().unwrap(), GROUP, None).unwrap();
    assert!(chain.footers.len() >= rounds, "{}", chain.footers.len());
    (machine, bucket, chain)
}

#[test]
fn a_group_is_salvaged_up_to_its_broken_link_and_what_is_given_up_is_told() {
    let (machine, bucket, chain) = chained(3);
    let storage = machine.storage.clone().unwrap();
    let whole = Chain::salvage(&storage, GROUP).unwrap();
    assert_eq!((whole.chain.unwrap().end(), &whole.losses[..]), (chain.end(), &[][..]));
    let at = chain.footers.len() / 2;
    let [before, middle, behind] = [at - 1, at, at + 1].map(|at| &chain.footers[at]);
    let name = middle.reference.name;
    let damages: [&dyn Fn(); 2] =
        [&|| assert!(bucket.memory.tamper(&name.into(), |bytes| bytes[60] ^= 1)), &|| {
            wait_for(bucket.memory.delete(&[name.into()])).unwrap()
        }];
    for damage in damages {
        damage();
        let salvaged = Chain::salvage(&storage, GROUP).unwrap();
        assert_eq!(salvaged.chain.unwrap().end().0, before.last_index());
        let [loss] = &salvaged.losses[..] else { panic!("{:?}", salvaged.losses) };
        assert!(loss.what.contains(&name.to_string()), "{loss:?}");
        assert_eq!(loss.unreadable_to, Some(LogIndex(behind.range().start().0 - 1)));
        assert_eq!(loss.archived_to, Some(chain.end().0));
    }
    let refused = prepared(&machine, &bucket.memory, false).err().unwrap();
    assert!(refused.contains(&name.to_string()), "{refused}");
    let (mut machine, found) = prepared(&machine, &bucket.memory, true).unwrap();
    assert_eq!((found.end, found.losses.len()), (before.last_index(), 1));
    assert_eq!(losses(&machine), [], "what was given up is not met again");
    // It works on, loses its state, and is recovered once more.
    let mut node = serving(&mut machine);
    let stored = node.stored();
    assert!(!stored.is_empty() && stored.len() < 20);
    node.check_payloads(&bucket.memory);
    drop(node);
    machine.kv.wipe();
    let mut node = serving(&mut machine);
    assert_eq!(node.stored(), stored);
    node.store(1_000_000);
    for _ in 0..5 {
        node.wait(Duration::from_secs(60));
    }
    drop(node);
    assert_eq!(losses(&machine), []);
    let mut machine = recovered(&machine, &bucket.memory);
    assert!(serving(&mut machine).stored().contains_key(&1_000_000));
}

#[test]
fn a_newest_round_that_is_not_whole_is_a_loss_and_not_gone_around_in_silence() {
    let (machine, bucket, chain) = chained(3);
    let storage = machine.storage.clone().unwrap();
    let tip = chain.footers.last().unwrap();
    let before = &chain.footers[chain.footers.len() - 2];
    let payload = tip.objects[0].name;
    wait_for(bucket.memory.delete(&[payload.into()])).unwrap();
    let salvaged = Chain::salvage(&storage, GROUP).unwrap();
    assert_eq!(salvaged.chain.unwrap().end().0, before.last_index());
    assert!(salvaged.losses[0].what.contains(&payload.to_string()));
    assert_eq!(salvaged.losses[0].archived_to, Some(tip.last_index()), "its footer says so");
    bucket.memory.tamper(&tip.reference.name.into(), |bytes| bytes.truncate(10));
    let salvaged = Chain::salvage(&storage, GROUP).unwrap();
    assert_eq!(salvaged.losses[0].archived_to, None, "nothing says how far it went");
    assert!(prepared(&machine, &bucket.memory, false).is_err());
}

#[test]
fn a_group_of_which_nothing_is_left_begins_anew_where_that_is_accepted() {
    let (machine, bucket, chain) = chained(3);
    for footer in &chain.footers {
        bucket.memory.tamper(&footer.reference.name.into(), |bytes| bytes[60] ^= 1);
    }
    assert!(prepared(&machine, &bucket.memory, false).is_err());
    let (mut machine, found) = prepared(&machine, &bucket.memory, true).unwrap();
    assert_eq!((found.end, found.losses.len()), (LogIndex(0), chain.footers.len()));
    assert_eq!(losses(&machine), [], "what was given up is not met again");
    let mut node = serving(&mut machine);
    assert!(node.stored().is_empty());
    node.store(7);
}

#[test]
fn a_bucket_that_does_not_answer_is_no_loss() {
    let (machine, bucket, _chain) = chained(3);
    bucket.faults.set_outage(Some(lts::ErrorKind::Unavailable));
    let failure = Chain::salvage(machine.storage.as_ref().unwrap(), GROUP).unwrap_err();
    assert!(matches!(failure, crate::restore::RestoreFailure::Storage(_)), "{failure}");
}

/// A round below the newest checkpoint that only says where payload is, which its own entry says,
/// too.
#[test]
fn a_link_that_a_newer_checkpoint_makes_unnecessary_is_done_without() {
    let mut tried = 0;
    for (seed, numbers) in (0..12).flat_map(|seed| [(seed, 60), (seed, 90), (seed, 120)]) {
        let (machine, bucket, mut node) = worked(seed, numbers);
        let stored = node.stored();
        drop(node);
        let storage = machine.storage.clone().unwrap();
        let chain = Chain::find(&storage, GROUP, None).unwrap();
        let (committed, _) = chain.checkpoint.as_ref().unwrap();
        let [oldest, next, ..] = &chain.footers[..] else { continue };
        if next.range().start().0 > committed.index.0 + 1 {
            continue;
        }
        let name = oldest.reference.name;
        wait_for(bucket.memory.delete(&[name.into()])).unwrap();
        let salvaged = Chain::salvage(&storage, GROUP).unwrap();
        if !salvaged.losses.is_empty() {
            // Its entry is not archived yet: only its footer says where its payload is.
            continue;
        }
        tried += 1;
        let found = salvaged.chain.unwrap();
        assert_eq!(found.end(), chain.end());
        assert!(found.problems.iter().any(|problem| problem.contains(&name.to_string())));
        let mut machine = recovered(&machine, &bucket.memory);
        let mut node = serving(&mut machine);
        assert!(node.stored().len() + 10 > stored.len());
        node.check_payloads(&bucket.memory);
    }
    assert!(tried > 0, "no bucket was of that kind");
}
