//! The sweep: objects that nobody ever referred to, left by uploads that were interrupted or whose
//! leader was deposed.
//!
//! It looks through the group's objects page by page, those of the own incarnation first; the worker
//! says which of a page are garbage, by what it knows then, and those are deleted with the next step.
//! What earlier incarnations left is looked at only once a person has said that nobody needs them
//! (`braid lts adopt`).

use common::{GroupId, Incarnation};
use lts::bucket::PAGE_OBJECTS_MAX;
use lts::{ObjectName, ObjectPath};

use super::{NameRange, Storage, StorageFailure};

/// A step of a sweep: deletes what was found before, then looks at the next page.
pub(crate) struct Sweep {
    /// That of the cluster now.
    pub(crate) incarnation: Incarnation,
    pub(crate) group: GroupId,
    pub(crate) garbage: Vec<ObjectName>,
    /// `None` where everything was looked at.
    pub(crate) next: Option<Place>,
}

/// Where a sweep has come to.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) incarnation: Incarnation,
    /// The last object that was looked at.
    pub(crate) after: Option<ObjectPath>,
}

/// A page that was looked at; all of its names are of one incarnation.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    pub(crate) names: Vec<ObjectName>,
    pub(crate) next: Option<Place>,
    pub(crate) deleted: usize,
}

impl Place {
    pub(crate) fn first(incarnation: Incarnation) -> Self {
        Self { incarnation, after: None }
    }

    /// The beginning of the incarnation before.
    fn earlier(&self) -> Option<Self> {
        let before = Incarnation(self.incarnation.0.checked_sub(1)?);
        (before.0 > 0).then_some(Self::first(before))
    }
}

impl Sweep {
    pub(super) fn perform(self, storage: &Storage) -> Result<Swept, StorageFailure> {
        let deleted = self.garbage.len();
        storage.delete_newest_first(self.garbage)?;
        let nothing = Swept { deleted, ..Swept::default() };
        let Some(place) = self.next else { return Ok(nothing) };
        if place.incarnation < self.incarnation && !storage.adopted(self.incarnation)? {
            return Ok(nothing);
        }
        let prefix = ObjectName::group_prefix(place.incarnation, self.group);
        let (bucket, after) = (storage.bucket.clone(), place.after.clone());
        let page = storage
            .run(async move { bucket.list(&prefix, after.as_ref(), PAGE_OBJECTS_MAX).await })??;
        let next = match page.objects.last() {
            Some(last) if page.more => Some(Place { after: Some(last.path.clone()), ..place }),
            _ => place.earlier(),
        };
        // What is not called like an object is not the group's.
        let names = page.objects.iter().filter_map(|listed| listed.path.as_str().parse().ok());
        Ok(Swept { names: names.collect(), next, deleted })
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
