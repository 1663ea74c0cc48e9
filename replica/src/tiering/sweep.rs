//! The sweep: objects that nobody ever referred to, left by uploads that were interrupted or whose
//! leader was deposed.
//!
//! It looks through the group's objects page by page; the worker says which of a page are garbage,
//! by what it knows then, and those are deleted with the next step.

use common::{GroupId, Incarnation};
use lts::ObjectName;
use lts::bucket::PAGE_OBJECTS_MAX;

use super::{NameRange, Storage, StorageFailure};

/// A step of a sweep: deletes what was found before, then looks at the next page.
pub(crate) struct Sweep {
    pub(crate) incarnation: Incarnation,
    pub(crate) group: GroupId,
    pub(crate) garbage: Vec<ObjectName>,
    /// The last object that was looked at; `None` at the beginning.
    pub(crate) after: Option<ObjectName>,
    /// Whether there is a page behind it.
    pub(crate) more: bool,
}

/// A page that was looked at.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    pub(crate) names: Vec<ObjectName>,
    pub(crate) more: bool,
    pub(crate) deleted: usize,
}

impl Sweep {
    pub(super) fn perform(self, storage: &Storage) -> Result<Swept, StorageFailure> {
        let deleted = self.garbage.len();
        storage.delete_newest_first(self.garbage)?;
        if !self.more {
            return Ok(Swept { deleted, ..Swept::default() });
        }
        let prefix = ObjectName::group_prefix(self.incarnation, self.group);
        let (bucket, after) = (storage.bucket.clone(), self.after.map(Into::into));
        let page = storage
            .run(async move { bucket.list(&prefix, after.as_ref(), PAGE_OBJECTS_MAX).await })??;
        // What is not called like an object is not the group's.
        let names = page.objects.iter().filter_map(|listed| listed.path.as_str().parse().ok());
        Ok(Swept { names: names.collect(), more: page.more, deleted })
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
