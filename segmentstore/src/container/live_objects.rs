//! Which objects the container's segments refer to, and which not any more.
//!
//! Derived from the extents alone: it is counted anew when a saved state is restored, and no part
//! of it. Whoever archives asks for the dead objects after each entry and keeps what it is told.

use std::collections::{BTreeMap, BTreeSet};

use lts::ObjectName;
use replica::archive::ObjectRef;

#[derive(Debug, Default)]
pub(super) struct LiveObjects {
    /// Bytes of each that extents refer to; never 0.
    live: BTreeMap<ObjectName, u64>,
    /// To be reported.
    dead: BTreeSet<ObjectName>,
}

impl LiveObjects {
    /// An extent refers to so many bytes of an object.
    pub(super) fn take(&mut self, object: ObjectName, bytes: u32) {
        let live = self.live.entry(object).or_insert_with(|| {
            // Of one round, one segment may have dropped all that was taken for it.
            self.dead.remove(&object);
            0
        });
        *live += u64::from(bytes);
    }

    /// An extent refers to them no more.
    pub(super) fn release(&mut self, object: ObjectName, bytes: u32) {
        let live = self.live.get_mut(&object).expect("what is released was taken");
        *live -= u64::from(bytes);
        if *live == 0 {
            self.live.remove(&object);
            self.dead.insert(object);
        }
    }

    /// All that is wanted of these was taken: those of which nothing was are dead from the start.
    pub(super) fn all_taken(&mut self, objects: &[ObjectRef]) {
        let unwanted = objects.iter().filter(|object| !self.live.contains_key(&object.name));
        self.dead.extend(unwanted.map(|object| object.name));
    }

    pub(super) fn take_dead(&mut self) -> Vec<ObjectName> {
        std::mem::take(&mut self.dead).into_iter().collect()
    }

    #[cfg(test)]
    pub(super) fn live(&self) -> &BTreeMap<ObjectName, u64> {
        &self.live
    }
}
