//! Payload that a group's state refers to, and that its bucket has not: told by a listing, so that
//! it costs no reads.

use std::collections::{BTreeMap, BTreeSet};

use common::GroupId;
use lts::ObjectName;

use super::BroughtBack;
use crate::machine::StateMachine;
use crate::restore::{self, RestoreFailure};
use crate::tiering::Storage;

/// An object that is missing or has another length; reads of what it held fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    pub object: ObjectName,
    /// Whose bytes it held.
    pub owners: BTreeSet<u128>,
    pub bytes: u64,
}

/// Goes through everything that the state refers to.
pub fn absent<M: StateMachine>(
    storage: &Storage,
    group: GroupId,
    back: &BroughtBack<M>,
) -> Result<Vec<Absent>, RestoreFailure> {
    let listing = restore::list(storage, group)?;
    let mut found = BTreeMap::<ObjectName, Absent>::new();
    back.machine.resting(&mut |piece| {
        if piece.rested.lost_entry().is_some() {
            // Lost before there was a bucket to miss it.
            return;
        }
        let object = piece.rested.object;
        let stored = back.archive.objects().get(&object);
        let is_there = listing
            .get(&object)
            .is_some_and(|length| stored.is_none_or(|stored| u64::from(stored.length) == *length));
        if !is_there {
            let absent = found.entry(object).or_insert_with(|| Absent {
                object,
                owners: BTreeSet::new(),
                bytes: 0,
            });
            absent.owners.insert(piece.owner);
            absent.bytes += u64::from(piece.bytes);
        }
    });
    Ok(found.into_values().collect())
}
