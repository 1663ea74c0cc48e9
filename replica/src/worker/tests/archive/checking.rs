//! A bucket looked at from outside.

use std::collections::BTreeSet;

use bytes::Bytes;
use common::Term;

use super::restoring::worked;
use super::*;
use crate::archive::{CheckpointDraft, CheckpointWriter, FeatureLevel};
use crate::check::{self, CheckSettings, GroupReport};
use crate::kv::Applied;
use crate::testing::{Journal, Numbers};

fn grace() -> Duration {
    Duration::from_secs(3_600)
}

fn looked_at(machine: &Machine) -> GroupReport {
    let storage = machine.storage.as_ref().unwrap();
    let settings = CheckSettings { grace: grace(), now: machine.clock.wall() };
    let observer: check::Observer = Arc::new(|_| ());
    let empty = || Numbers::new(&Arc::new(Journal::default()));
    check::check(storage, GROUP, empty, settings, &observer).unwrap()
}

/// The names in the findings.
fn found(machine: &Machine) -> BTreeSet<String> {
    looked_at(machine).findings.into_iter().map(|finding| finding.subject).collect()
}

/// A bucket at rest: garbage is gone, and the checkpoint's entry is archived.
fn at_rest() -> (Machine, Attached) {
    let (mut machine, bucket, node) = worked(3, 30);
    drop(node);
    let mut node = serving(&mut machine);
    for number in 9_000..9_004 {
        node.store(number);
        node.wait(Duration::from_secs(60));
    }
    drop(node);
    (machine, bucket)
}

#[test]
fn a_healthy_bucket_is_found_whole_and_brought_back_as_it_is() {
    for numbers in [1, 5, 40, 120] {
        let (mut machine, _bucket, mut node) = worked(1, numbers);
        for _ in 0..5 {
            node.wait(Duration::from_secs(60));
        }
        let (stored, archived) = (node.stored(), node.handle.status().archived);
        drop(node);
        let report = looked_at(&machine);
        assert_eq!(report.findings, [], "{numbers}");
        assert_eq!(report.end, archived);
        let empty = Numbers::new(&Arc::new(Journal::default()));
        let back = check::bring_back(machine.storage.as_ref().unwrap(), GROUP, empty).unwrap();
        assert_eq!(back.machine.stored, stored);
        assert_eq!(report.payload, back.archive.objects().len());
        serving(&mut machine);
    }
}

#[test]
fn every_object_that_is_missing_cut_or_changed_is_found_by_its_name_if_it_is_needed() {
    let (machine, bucket) = at_rest();
    assert_eq!(found(&machine), BTreeSet::new());
    let storage = machine.storage.clone().unwrap();
    let empty = Numbers::new(&Arc::new(Journal::default()));
    let back = check::bring_back(&storage, GROUP, empty).unwrap();
    let names: Vec<ObjectName> = objects(&bucket.memory).into_keys().collect();
    let (first, last) = (names[0], *names.last().unwrap());
    let mut needed = back.archive.names_between(first, last);
    needed.retain(|name| !back.archive.dropped().contains_key(name));
    assert!(needed.len() > 10, "{}", needed.len());
    let other = names[0];
    let others = wait_for(bucket.memory.get(&other.into(), 0..64)).unwrap();
    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);
    let damages: [(&str, Damage<'_>); 4] = [
        ("cut", &|bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", &|bytes| bytes.clear()),
        ("bit", &|bytes| {
            let at = bytes.len() / 2;
            bytes[at] ^= 4;
        }),
        ("other", &|bytes| bytes[..30].copy_from_slice(&others[..30])),
    ];
    for name in names.into_iter().filter(|name| *name != other) {
        for (what, damage) in damages {
            let mut whole = Vec::new();
            bucket.memory.tamper(&name.into(), |bytes| {
                whole.clone_from(bytes);
                damage(bytes);
            });
            let named = found(&machine).contains(&name.to_string());
            assert_eq!(named, needed.contains(&name), "{what} {name}");
            bucket.memory.tamper(&name.into(), |bytes| *bytes = whole);
        }
    }
    let gone = *needed.first().unwrap();
    wait_for(bucket.memory.delete(&[gone.into()])).unwrap();
    let missing = looked_at(&machine).findings;
    let missing = missing.iter().find(|finding| finding.subject == gone.to_string()).unwrap();
    assert!(missing.what.contains("missing"), "{missing:?}");
}

#[test]
fn what_nobody_will_ever_refer_to_is_an_orphan_once_it_is_old() {
    let (mut machine, bucket) = at_rest();
    // Some terms later.
    for _ in 0..3 {
        let mut node = serving(&mut machine);
        node.store(20_000);
        node.wait(Duration::from_secs(60));
    }
    let report = looked_at(&machine);
    assert_eq!(report.findings, []);
    let name = |term, sequence: u64| ObjectName {
        incarnation: Incarnation(1),
        group: GROUP,
        term,
        sequence: sequence << 20,
    };
    let older = name(Term(report.term.0 - 1), 900);
    let newest = name(report.term, 900);
    for name in [older, newest] {
        let draft = CheckpointDraft {
            applied: Applied::default(),
            feature_level: FeatureLevel::FIRST,
            membership: Bytes::new(),
        };
        let writer = CheckpointWriter::new(CheckpointSettings::default(), draft).unwrap();
        let (_, upload) = writer.finish(|| name).unwrap();
        wait_for(bucket.memory.put(&name.into(), upload.payload)).unwrap();
    }
    assert_eq!(
        (looked_at(&machine).findings.len(), looked_at(&machine).open),
        (0, report.open + 1)
    );
    machine.clock.advance(grace());
    let report = looked_at(&machine);
    assert_eq!(report.orphans, [older]);
    assert_eq!(report.findings[0].subject, older.to_string());
    check::delete(machine.storage.as_ref().unwrap(), &report.orphans).unwrap();
    assert_eq!(looked_at(&machine).findings, []);
    assert!(objects(&bucket.memory).contains_key(&newest));
}

#[test]
fn a_group_that_is_asked_sweeps_at_once() {
    let (mut machine, bucket) = at_rest();
    let mut node = serving(&mut machine);
    node.wait(Duration::from_secs(60));
    let garbage = ObjectName {
        incarnation: Incarnation(1),
        group: GROUP,
        term: Term(1),
        sequence: 900 << 20,
    };
    wait_for(bucket.memory.put(&garbage.into(), lts::Payload::from(vec![1]))).unwrap();
    node.wait(Duration::from_secs(60));
    assert!(objects(&bucket.memory).contains_key(&garbage), "its time has not come");
    assert!(node.handle.look_after_storage());
    node.settle().unwrap();
    assert!(!objects(&bucket.memory).contains_key(&garbage));
}

#[test]
fn a_bucket_of_another_cluster_loses_nothing_by_a_check() {
    let (mut machine, bucket) = at_rest();
    let theirs = ClusterMarker { incarnation: Incarnation(2), marker: 9 };
    wait_for(lts::cluster::claim(&bucket.memory, theirs)).unwrap();
    let orphan = objects(&bucket.memory).into_keys().next().unwrap();
    let storage = machine.storage.clone().unwrap();
    let refused = check::delete(&storage, &[orphan]).unwrap_err().to_string();
    assert!(refused.contains("taken over by a recovery"), "{refused}");
    // Seen by the new owner: what the old one left is kept until it is adopted.
    attach_to(&mut machine, &bucket.memory, theirs);
    machine.clock.advance(grace());
    let report = looked_at(&machine);
    assert_eq!((report.orphans.len(), report.findings.len()), (0, 0));
}

#[test]
fn a_survey_counts_what_there_is() {
    let (machine, bucket) = at_rest();
    let mut listed = 0;
    let storage = machine.storage.as_ref().unwrap();
    let groups = check::survey(storage, "", |page| listed += page.len()).unwrap();
    let survey = &groups[&GROUP];
    let all = objects(&bucket.memory);
    let kinds = survey.kinds;
    let tallies = [kinds.payload, kinds.rounds, kinds.chunks, kinds.checkpoints];
    assert_eq!(tallies.map(|tally| tally.objects).iter().sum::<u64>(), all.len() as u64);
    let bytes: usize = all.values().sum();
    assert_eq!(tallies.map(|tally| tally.bytes).iter().sum::<u64>(), bytes as u64);
    assert_eq!(kinds.unreadable.objects, 0);
    assert_eq!(listed, all.len() + 1, "and the marker");
    assert_eq!(survey.tip.unwrap().end, looked_at(&machine).end);
}
