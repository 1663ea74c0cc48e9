//! Collection: deletes objects that nobody refers to any more.
//!
//! Every batch looks whose bucket it is when its names are chosen: a recovery elsewhere may have taken
//! it over, and from then on refers to what this node thinks is garbage. What was put before this cluster's own
//! recovery stays until a person says that nobody needs the old cluster (`braid lts adopt`).

use common::Incarnation;
use lts::{ErrorKind, ObjectName, ObjectPath};

use super::{Storage, StorageFailure};

/// Objects to be deleted; what names others is not mixed with what it names.
pub(crate) struct Collection {
    /// That of the cluster now.
    pub(crate) incarnation: Incarnation,
    pub(crate) names: Vec<ObjectName>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) gone: Vec<ObjectName>,
    /// Something of an earlier incarnation was left, since nobody allowed its deletion.
    pub(crate) kept_back: bool,
}

impl Collection {
    pub(super) fn perform(self, storage: &Storage) -> Result<Collected, StorageFailure> {
        let Self { incarnation, names: mut gone } = self;
        let earlier = gone.iter().any(|name| name.incarnation < incarnation);
        let kept_back = earlier && !storage.adopted(incarnation)?;
        if kept_back {
            gone.retain(|name| name.incarnation == incarnation);
        }
        storage.delete(&gone)?;
        Ok(Collected { gone, kept_back })
    }
}

/// Where the mark is that allows an incarnation to delete what earlier ones put.
pub fn adopted_path(incarnation: Incarnation) -> ObjectPath {
    format!("adopted-{:04x}", incarnation.0).parse().expect("a mark's path has plain parts")
}

impl Storage {
    pub(crate) fn adopted(&self, incarnation: Incarnation) -> Result<bool, StorageFailure> {
        let bucket = self.bucket.clone();
        let found = self.run(async move { bucket.head(&adopted_path(incarnation)).await })?;
        match found {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes objects, if the bucket is still this cluster's.
    pub(crate) fn delete(&self, names: &[ObjectName]) -> Result<(), StorageFailure> {
        if names.is_empty() {
            return Ok(());
        }
        self.check_owner()?;
        let paths: Vec<ObjectPath> = names.iter().map(|name| (*name).into()).collect();
        let bucket = self.bucket.clone();
        Ok(self.run(async move { bucket.delete(&paths).await })??)
    }

    /// Asks now, with the names chosen: see [`lts::owner`].
    fn check_owner(&self) -> Result<(), StorageFailure> {
        let Some(owner) = self.owner.clone() else { return Ok(()) };
        if common::planted::active("deletes-in-a-bucket-taken-over") {
            return Ok(());
        }
        Ok(self.run(async move { owner.look().await })??)
    }
}
