//! One owner per bucket: the marker that says which cluster, and which life of it, a bucket belongs
//! to.
//!
//! `cluster-<incarnation>` is created, never replaced, when a cluster is made and each time it is
//! recovered from its bucket. Its marker is random, so that two clusters, or a folder of the same
//! name on another machine, are told apart. The newest incarnation owns the bucket.

use std::fmt;

use common::{Incarnation, Rng};

use crate::bucket::PAGE_OBJECTS_MAX;
use crate::{Bucket, Error, ErrorKind, Listed, ObjectPath, Operation, Payload};

/// The prefix of all markers. Hexadecimal digits follow, so that they are listed in order.
const PREFIX: &str = "cluster-";

/// More than a marker has.
const MARKER_BYTES_MAX: u64 = 1024;

/// Which cluster a bucket belongs to, and since which of its recoveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterMarker {
    pub incarnation: Incarnation,
    pub marker: u128,
}

impl ClusterMarker {
    pub fn new(incarnation: Incarnation, rng: &mut Rng) -> Self {
        Self { incarnation, marker: rng.u128() }
    }

    /// Where the marker of an incarnation is.
    pub fn path(incarnation: Incarnation) -> ObjectPath {
        let path = format!("{PREFIX}{:04x}", incarnation.0);
        path.parse().expect("a marker's path has plain parts")
    }

    /// The marker's object: lines that a person can read, and their checksum.
    pub fn encode(self) -> String {
        let Self { incarnation, marker } = self;
        let text =
            format!("braid cluster 1\nincarnation {:04x}\nmarker {marker:032x}\n", incarnation.0);
        format!("{text}crc32 {:08x}\n", crc32fast::hash(text.as_bytes()))
    }

    /// Takes exactly what [`encode`](Self::encode) gives.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines().skip(1);
        let mut value = |name| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let incarnation = u16::from_str_radix(value("incarnation")?, 16).ok()?;
        let marker = u128::from_str_radix(value("marker")?, 16).ok()?;
        let decoded = Self { incarnation: Incarnation(incarnation), marker };
        (decoded.encode().as_bytes() == bytes).then_some(decoded)
    }
}

impl fmt::Display for ClusterMarker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x} (incarnation {})", self.marker, self.incarnation.0)
    }
}

/// The marker of an incarnation; `NotFound` where there is none.
pub async fn read_marker(
    bucket: &dyn Bucket,
    incarnation: Incarnation,
) -> Result<ClusterMarker, Error> {
    let path = ClusterMarker::path(incarnation);
    let length = bucket.head(&path).await?.length;
    let damaged = |why| Error::new(ErrorKind::Damaged, Operation::Get, &path, bucket.url(), why);
    if length == 0 || length > MARKER_BYTES_MAX {
        return Err(damaged("it is no cluster's marker"));
    }
    let bytes = bucket.get(&path, 0..length).await?;
    let found = ClusterMarker::decode(&bytes);
    let found = found.filter(|found| found.incarnation == incarnation);
    found.ok_or_else(|| damaged("it is no cluster's marker, or of a newer version of braid"))
}

/// The marker that owns the bucket, if one does.
pub async fn newest_marker(bucket: &dyn Bucket) -> Result<Option<ClusterMarker>, Error> {
    match newest_listed(bucket).await? {
        Some((incarnation, _)) => read_marker(bucket, incarnation).await.map(Some),
        None => Ok(None),
    }
}

/// The newest incarnation that there is a marker of, and the marker's object.
pub(crate) async fn newest_listed(
    bucket: &dyn Bucket,
) -> Result<Option<(Incarnation, Listed)>, Error> {
    let mut newest = None;
    let mut after: Option<ObjectPath> = None;
    loop {
        let page = bucket.list(PREFIX, after.as_ref(), PAGE_OBJECTS_MAX).await?;
        after = page.objects.last().map(|listed| listed.path.clone());
        // In order of incarnations.
        let markers = page.objects.into_iter();
        let marker = |listed: Listed| Some((incarnation_of(&listed.path)?, listed));
        newest = markers.filter_map(marker).next_back().or(newest);
        if !page.more {
            return Ok(newest);
        }
    }
}

fn incarnation_of(path: &ObjectPath) -> Option<Incarnation> {
    let digits = path.as_str().strip_prefix(PREFIX)?;
    let incarnation = Incarnation(u16::from_str_radix(digits, 16).ok()?);
    (ClusterMarker::path(incarnation) == *path).then_some(incarnation)
}

/// Makes the bucket this cluster's from this incarnation on. Doing it again is no error; another
/// cluster's marker in its place is `AlreadyExists`.
pub async fn claim(bucket: &dyn Bucket, marker: ClusterMarker) -> Result<(), Error> {
    let path = ClusterMarker::path(marker.incarnation);
    match bucket.put(&path, Payload::from(marker.encode())).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            match read_marker(bucket, marker.incarnation).await? == marker {
                true => Ok(()),
                false => Err(error),
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use common::clock::ManualClock;
    use proptest::prelude::*;

    use super::*;
    use crate::Memory;
    use crate::test_support::{path, payload};

    fn memory() -> Memory {
        Memory::new(Arc::new(ManualClock::default()))
    }

    fn marker(incarnation: u16, marker: u128) -> ClusterMarker {
        ClusterMarker { incarnation: Incarnation(incarnation), marker }
    }

    #[test]
    fn the_golden_marker_keeps_its_text() {
        let golden = "braid cluster 1\nincarnation 002a\n\
                      marker 0000000000000000000000000000beef\ncrc32 cb8d76b3\n";
        assert_eq!(marker(42, 0xbeef).encode(), golden);
        assert_eq!(ClusterMarker::path(Incarnation(42)).as_str(), "cluster-002a");
    }

    proptest! {
        #[test]
        fn a_marker_reads_back_and_none_of_its_bits_may_flip(
            incarnation: u16, number: u128, bit in 0..8_usize * 70,
        ) {
            let marker = marker(incarnation, number);
            let mut bytes = marker.encode().into_bytes();
            prop_assert_eq!(ClusterMarker::decode(&bytes), Some(marker));
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(ClusterMarker::decode(&bytes), None);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = ClusterMarker::decode(&bytes);
        }
    }

    #[tokio::test]
    async fn the_newest_incarnation_owns_the_bucket() {
        let bucket = memory();
        assert_eq!(newest_marker(&bucket).await.unwrap(), None);
        for other in ["0001/x", "cluster-x", "cluster-00a", "cluster-0001.old", "d000/x"] {
            bucket.put(&path(other), payload("x")).await.unwrap();
        }
        assert_eq!(newest_marker(&bucket).await.unwrap(), None);
        for incarnation in [1, 3, 2] {
            claim(&bucket, marker(incarnation, incarnation.into())).await.unwrap();
        }
        assert_eq!(newest_marker(&bucket).await.unwrap(), Some(marker(3, 3)));
    }

    #[tokio::test]
    async fn a_bucket_is_claimed_once_by_one_cluster_and_by_the_same_again() {
        let bucket = memory();
        claim(&bucket, marker(1, 7)).await.unwrap();
        claim(&bucket, marker(1, 7)).await.unwrap();
        let taken = claim(&bucket, marker(1, 8)).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    }

    #[tokio::test]
    async fn a_marker_that_cannot_be_read_is_damage_and_not_absence() {
        let bucket = memory();
        let name = ClusterMarker::path(Incarnation(1));
        bucket.put(&name, payload("hello")).await.unwrap();
        let damaged = newest_marker(&bucket).await.unwrap_err();
        assert_eq!(damaged.kind(), ErrorKind::Damaged);
        assert!(damaged.to_string().contains("`cluster-0001`"), "{damaged}");
        bucket.delete(std::slice::from_ref(&name)).await.unwrap();
        // That of another incarnation under this one's name.
        bucket.put(&name, Payload::from(marker(2, 1).encode())).await.unwrap();
        assert_eq!(newest_marker(&bucket).await.unwrap_err().kind(), ErrorKind::Damaged);
    }
}
