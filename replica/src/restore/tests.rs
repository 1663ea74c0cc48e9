use std::sync::Arc;

use common::clock::ManualClock;
use lts::{ClusterMarker, Memory, Owner, Payload};

use super::*;
use crate::tiering::{Inline, TieringSettings};

fn name(incarnation: u16, group: u64, sequence: u64) -> ObjectName {
    let (incarnation, group) = (Incarnation(incarnation), GroupId(group));
    ObjectName { incarnation, group, term: Term(1), sequence }
}

fn storage(names: &[ObjectName]) -> Storage {
    let memory = Memory::new(Arc::new(ManualClock::default()));
    let memory: Arc<dyn lts::Bucket> = Arc::new(memory);
    let marker = ClusterMarker { incarnation: Incarnation(2), marker: 1 };
    let owner = Owner::new(memory.clone(), Arc::new(ManualClock::default()), marker);
    let storage = Storage {
        bucket: memory,
        waiter: Arc::new(Inline),
        settings: TieringSettings::default(),
        owner: Some(Arc::new(owner)),
        ready: tokio::sync::watch::channel(true).1,
        held: crate::Held::default(),
    };
    for name in names.iter().copied() {
        let bucket = storage.bucket.clone();
        let put = async move { bucket.put(&name.into(), Payload::from("x")).await };
        storage.run(put).unwrap().unwrap();
    }
    storage
}

#[test]
fn groups_are_found_in_every_incarnation_and_behind_many_objects_of_one() {
    let mut names = vec![name(2, 9, 0), name(1, 3, 0), name(1, 1, 7)];
    names.extend((0..1_500).map(|sequence| name(1, 2, sequence)));
    let storage = storage(&names);
    assert_eq!(groups(&storage).unwrap(), [1, 2, 3, 9].map(GroupId));
    assert_eq!(list(&storage, GroupId(2)).unwrap().len(), 1_500);
    assert_eq!(list(&storage, GroupId(9)).unwrap(), Listing::from([(name(2, 9, 0), 1)]));
}

#[test]
fn a_bucket_without_rounds_brings_nothing_back() {
    let storage = storage(&[name(1, 2, 0)]);
    let nothing = Chain::find(&storage, GroupId(3), None).unwrap_err();
    assert!(matches!(nothing, RestoreFailure::Nothing), "{nothing}");
    let damaged = Chain::find(&storage, GroupId(2), None).unwrap_err();
    assert!(matches!(damaged, RestoreFailure::Broken(_)), "it may have been a round: {damaged}");
    assert!(damaged.to_string().contains(&name(1, 2, 0).to_string()), "{damaged}");
}
