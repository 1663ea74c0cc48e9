//! Looking at a bucket before anything relies on it: whose it is, and whether it keeps the laws
//! that it can be seen to break.

use common::Rng;

use crate::bucket::PAGE_OBJECTS_MAX;
use crate::cluster::{ClusterMarker, newest_marker};
use crate::{Bucket, Error, ErrorKind, ObjectPath, Payload};

/// Where probes write. No other object is there.
const PREFIX: &str = "probe/";

/// What an earlier probe left is removed after this many microseconds by the store's own clock.
const LEFT_AFTER_MICROS: u64 = 3_600_000_000;

/// Bytes of a probe's object.
const BYTES: usize = 64;

/// Why a bucket is not used. Nothing in it was changed, but for a probe's object.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    #[error(
        "long-term storage `{bucket}` belongs to another cluster, {found}; give this one a bucket \
         or prefix of its own, or bring that cluster back with `braid recover --from-lts`"
    )]
    Foreign { bucket: String, found: ClusterMarker },
    #[error(
        "long-term storage `{bucket}` was taken over by a recovery, as incarnation {}: this node's \
         data folder belongs to incarnation {}, which is lost, and the recovered cluster has nothing \
         of what it acknowledged since; do not start it again: run the cluster from the folder that \
         `braid recover` made, and keep this one for as long as something of it may be missed there",
        found.incarnation.0, ours.incarnation.0
    )]
    Superseded { bucket: String, found: ClusterMarker, ours: ClusterMarker },
    #[error(
        "long-term storage `{bucket}` has no marker of this cluster, {ours}; it is not the place \
         that the cluster was made with: check the path, the mount and the prefix"
    )]
    MarkerMissing { bucket: String, ours: ClusterMarker },
    #[error(
        "long-term storage `{bucket}` holds objects, such as `{object}`, but no cluster's marker; \
         give the cluster an empty bucket or prefix"
    )]
    Occupied { bucket: String, object: ObjectPath },
    #[error(
        "long-term storage `{bucket}` replaces objects: a second create-only put of `{object}` \
         succeeded, so a deposed leader could overwrite what another wrote; use a store that \
         honours `If-None-Match: *`"
    )]
    Replaces { bucket: String, object: ObjectPath },
    #[error(
        "long-term storage `{bucket}` does not answer with what was put into it: {what} of \
         `{object}`; use a store that does"
    )]
    Unfaithful { bucket: String, object: ObjectPath, what: &'static str },
    #[error("long-term storage cannot be used: {0}")]
    Failed(#[from] Error),
}

impl Refused {
    /// The kind of the failure where one kept the probe from its answer: what is `Unavailable` may
    /// be tried again.
    pub fn failed(&self) -> Option<ErrorKind> {
        match self {
            Self::Failed(error) => Some(error.kind()),
            _ => None,
        }
    }

    /// Whether the bucket was seen to be another cluster's, which it will stay.
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Superseded { .. })
    }
}

/// Looks whether the bucket is this cluster's, or free where the cluster has none yet, and whether
/// it reads, writes, lists, deletes and refuses to replace.
pub async fn probe(
    bucket: &dyn Bucket,
    ours: Option<ClusterMarker>,
    rng: &mut Rng,
) -> Result<(), Refused> {
    check_owner(bucket, ours).await?;
    let object: ObjectPath = format!("{PREFIX}{:032x}", rng.u128()).parse().expect("plain parts");
    let (mut first, mut second) = ([0; BYTES], [0; BYTES]);
    rng.fill(&mut first);
    rng.fill(&mut second);
    check_laws(bucket, &object, first, second).await
}

/// Whose bucket it is. Reads only.
pub async fn check_owner(bucket: &dyn Bucket, ours: Option<ClusterMarker>) -> Result<(), Refused> {
    let found = newest_marker(bucket).await?;
    if let (None, None) = (found, ours) {
        return match first_object(bucket).await? {
            Some(object) => Err(Refused::Occupied { bucket: bucket.url(), object }),
            None => Ok(()),
        };
    }
    judge(bucket.url(), found, ours)
}

/// What a bucket with this newest marker is for a cluster with that one.
pub(crate) fn judge(
    bucket: String,
    found: Option<ClusterMarker>,
    ours: Option<ClusterMarker>,
) -> Result<(), Refused> {
    match (found, ours) {
        (None, None) => Ok(()),
        (Some(found), Some(ours)) if found == ours => Ok(()),
        (Some(found), Some(ours)) if found.incarnation > ours.incarnation => {
            Err(Refused::Superseded { bucket, found, ours })
        }
        (Some(found), _) => Err(Refused::Foreign { bucket, found }),
        (None, Some(ours)) => Err(Refused::MarkerMissing { bucket, ours }),
    }
}

async fn first_object(bucket: &dyn Bucket) -> Result<Option<ObjectPath>, Error> {
    let mut after: Option<ObjectPath> = None;
    loop {
        let page = bucket.list("", after.as_ref(), PAGE_OBJECTS_MAX).await?;
        let mut paths = page.objects.iter().map(|listed| &listed.path);
        if let Some(found) = paths.find(|path| !path.as_str().starts_with(PREFIX)) {
            return Ok(Some(found.clone()));
        }
        after = page.objects.last().map(|listed| listed.path.clone());
        if !page.more {
            return Ok(None);
        }
    }
}

async fn check_laws(
    bucket: &dyn Bucket,
    object: &ObjectPath,
    first: [u8; BYTES],
    second: [u8; BYTES],
) -> Result<(), Refused> {
    let unfaithful = |what| {
        let (bucket, object) = (bucket.url(), object.clone());
        Err(Refused::Unfaithful { bucket, object, what })
    };
    bucket.put(object, Payload::from(first.to_vec()).that_frees_space()).await?;
    if bucket.get(object, 0..BYTES as u64).await? != first[..] {
        return unfaithful("it gave other bytes");
    }
    match bucket.put(object, Payload::from(second.to_vec()).that_frees_space()).await {
        Ok(()) => {
            return Err(Refused::Replaces { bucket: bucket.url(), object: object.clone() });
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    if bucket.get(object, 10..20).await? != first[10..20] {
        return unfaithful("it gave other bytes of a range");
    }
    let listed = bucket.list(PREFIX, None, PAGE_OBJECTS_MAX).await?.objects;
    let Some(ours) = listed.iter().find(|listed| listed.path == *object) else {
        return unfaithful("it does not list the name");
    };
    let old = |at: u64| at.saturating_add(LEFT_AFTER_MICROS) <= ours.modified.0;
    let left = listed.iter().filter(|listed| listed.path == *object || old(listed.modified.0));
    let left: Vec<ObjectPath> = left.map(|listed| listed.path.clone()).collect();
    bucket.delete(&left).await?;
    match bucket.head(object).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => unfaithful("it still has the deleted object"),
    }
}

#[cfg(test)]
mod tests;
