//! The sweep: objects that nobody ever referred to, left by uploads that were interrupted or whose
//! leader was deposed.
//!
//! It looks through the group's objects page by page; the worker says which of a page are garbage,
//! by what it knows then, and those are deleted with the next step. Every step asks anew whether
//! what earlier incarnations put may be deleted.

use common::{GroupId, Incarnation};
use lts::ObjectName;
use lts::bucket::PAGE_OBJECTS_MAX;

use super::{NameRange, Storage, StorageFailure};

/// A step of a sweep: deletes what was found before, then looks at the next page.
pub(crate) struct Sweep {
    pub(crate) group: GroupId,
    /// That of the cluster now.
    pub(crate) own: Incarnation,
    pub(crate) garbage: Vec<ObjectName>,
    /// `None`: there is nothing left to look at.
    pub(crate) page: Option<SweepPage>,
}

/// Some of the group's objects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SweepPage {
    pub(crate) incarnation: Incarnation,
    /// The last object that was looked at; `None` at the beginning.
    pub(crate) after: Option<ObjectName>,
}

/// A step that was done.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    pub(crate) page: Option<SweepPage>,
    /// What is on the page.
    pub(crate) names: Vec<ObjectName>,
    /// Whether there is a page of the same incarnation behind it.
    pub(crate) more: bool,
    pub(crate) deleted: usize,
    /// Whether what earlier incarnations put may be deleted.
    pub(crate) adopted: bool,
}

impl Sweep {
    pub(super) fn perform(self, storage: &Storage) -> Result<Swept, StorageFailure> {
        let Self { group, own, mut garbage, page } = self;
        let early = common::planted::active("sweeps-earlier-incarnations-before-their-adoption");
        let adopted = own > Incarnation::FIRST && (early || storage.adopted(own)?);
        garbage.retain(|name| name.incarnation == own || adopted);
        let deleted = garbage.len();
        storage.delete_newest_first(garbage)?;
        let mut swept = Swept { page, deleted, adopted, ..Swept::default() };
        if let Some(SweepPage { incarnation, after }) = page {
            let prefix = ObjectName::group_prefix(incarnation, group);
            let (bucket, after) = (storage.bucket.clone(), after.map(Into::into));
            let listing = storage.run(async move {
                bucket.list(&prefix, after.as_ref(), PAGE_OBJECTS_MAX).await
            })??;
            // What is not called like an object is not the group's.
            let names = listing.objects.iter().filter_map(|of| of.path.as_str().parse().ok());
            (swept.names, swept.more) = (names.collect(), listing.more);
        }
        Ok(swept)
    }
}

impl Storage {
    /// A footer or a checkpoint is the last of its job's names: it goes before what it names.
    fn delete_newest_first(&self, garbage: Vec<ObjectName>) -> Result<(), StorageFailure> {
        let mut last = Vec::new();
        let mut others: Vec<ObjectName> = Vec::new();
        for name in garbage {
            let same_job = |other: &ObjectName| {
                (other.term, NameRange::of(*other)) == (name.term, NameRange::of(name))
            };
            if let Some(before) = last.last().copied().filter(same_job) {
                last.pop();
                others.push(before);
            }
            last.push(name);
        }
        self.delete(&last)?;
        self.delete(&others)
    }
}
