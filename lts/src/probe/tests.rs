//! Every bucket that must not be used is refused, with the reason and what to do.

use std::sync::Arc;
use std::time::Duration;

use common::clock::ManualClock;
use common::{Incarnation, WallTime};
use futures::future::BoxFuture;

use super::*;
use crate::cluster::claim;
use crate::test_s3::{S3Server, credentials};
use crate::test_support::{path, payload};
use crate::{Altered, Cloud, Fault, Faulty, Memory, Operation, Page, StoreUrl, TokioTimer};

fn memory() -> (Arc<ManualClock>, Memory) {
    let clock = Arc::new(ManualClock::new(WallTime(1_000_000)));
    (clock.clone(), Memory::new(clock))
}

fn marker(incarnation: u16, marker: u128) -> ClusterMarker {
    ClusterMarker { incarnation: Incarnation(incarnation), marker }
}

async fn probed(bucket: &dyn Bucket, ours: Option<ClusterMarker>) -> Result<(), Refused> {
    probe(bucket, ours, &mut Rng::from_seed(1)).await
}

async fn objects(bucket: &dyn Bucket) -> Vec<ObjectPath> {
    let page = bucket.list("", None, 10).await.unwrap();
    page.objects.into_iter().map(|listed| listed.path).collect()
}

async fn refused(bucket: &dyn Bucket, ours: Option<ClusterMarker>) -> String {
    let text = probed(bucket, ours).await.unwrap_err().to_string();
    assert!(text.contains(&format!("`{}`", bucket.url())), "{text}");
    text
}

#[tokio::test]
async fn an_empty_bucket_is_free_and_a_claimed_one_is_its_owners() {
    let (_, bucket) = memory();
    probed(&bucket, None).await.unwrap();
    assert_eq!(bucket.bytes(), 0, "a probe leaves nothing");
    let ours = marker(1, 7);
    claim(&bucket, ours).await.unwrap();
    probed(&bucket, Some(ours)).await.unwrap();
}

#[tokio::test]
async fn another_clusters_bucket_is_refused() {
    let (_, bucket) = memory();
    claim(&bucket, marker(1, 7)).await.unwrap();
    for ours in [None, Some(marker(1, 8)), Some(marker(2, 7))] {
        let text = refused(&bucket, ours).await;
        assert!(text.contains("another cluster") && text.contains("prefix of its own"), "{text}");
    }
    claim(&bucket, marker(2, 9)).await.unwrap();
    let text = refused(&bucket, Some(marker(1, 7))).await;
    assert!(text.contains("taken over by a recovery"), "{text}");
}

#[tokio::test]
async fn a_bucket_without_its_marker_is_refused_and_so_is_one_that_is_not_empty() {
    let (_, bucket) = memory();
    let text = refused(&bucket, Some(marker(1, 7))).await;
    assert!(text.contains("no marker of this cluster") && text.contains("mount"), "{text}");
    bucket.put(&path("probe/00"), payload("left by a crash")).await.unwrap();
    probed(&bucket, None).await.unwrap();
    bucket.put(&path("somebody"), payload("x")).await.unwrap();
    let text = refused(&bucket, None).await;
    assert!(text.contains("`somebody`") && text.contains("empty bucket"), "{text}");
}

#[tokio::test]
async fn what_an_earlier_probe_left_is_removed_after_a_while() {
    let (clock, bucket) = memory();
    bucket.put(&path("probe/old"), payload("x")).await.unwrap();
    clock.advance(Duration::from_secs(3000));
    bucket.put(&path("probe/young"), payload("x")).await.unwrap();
    clock.advance(Duration::from_secs(600));
    probed(&bucket, None).await.unwrap();
    assert_eq!(objects(&bucket).await, [path("probe/young")]);
}

#[tokio::test]
async fn a_read_only_full_or_unreachable_store_is_refused_with_what_to_do() {
    let (_, memory) = memory();
    let faulty = Faulty::new(Arc::new(memory.clone()), Arc::new(TokioTimer), Rng::from_seed(1));
    let cases = [
        (ErrorKind::Denied, "read-only"),
        (ErrorKind::Full, "free space"),
        (ErrorKind::Unavailable, "check the store and the way to it"),
    ];
    for (kind, expected) in cases {
        faulty.faults().set_outage(Some(kind));
        let error = probed(&faulty, None).await.unwrap_err();
        assert_eq!(error.failed(), Some(kind));
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains("`memory:`"), "{text}");
    }
    faulty.faults().set_outage(None);
    faulty.faults().plan_fault(Operation::Get, "probe/", 0, Fault::FlipBit(5));
    assert!(refused(&faulty, None).await.contains("other bytes"));
    memory.delete(&objects(&memory).await).await.unwrap();
    faulty.faults().plan_fault(Operation::Get, "probe/", 1, Fault::FlipBit(5));
    assert!(refused(&faulty, None).await.contains("of a range"));
}

/// A store as some are: it takes conditions and ignores them, or forgets.
#[derive(Debug)]
struct Careless {
    memory: Memory,
    replaces: bool,
    lists: bool,
    deletes: bool,
}

impl Careless {
    fn new() -> Self {
        Self { memory: memory().1, replaces: false, lists: true, deletes: true }
    }
}

impl Altered for Careless {
    fn inner(&self) -> &dyn Bucket {
        &self.memory
    }

    fn put<'a>(
        &'a self,
        path: &'a ObjectPath,
        payload: Payload,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            if self.replaces {
                self.memory.delete(std::slice::from_ref(path)).await?;
            }
            self.memory.put(path, payload).await
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectPath>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        Box::pin(async move {
            if self.lists {
                self.memory.list(prefix, after, limit).await
            } else {
                Ok(Page::default())
            }
        })
    }

    fn delete<'a>(&'a self, paths: &'a [ObjectPath]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { if self.deletes { self.memory.delete(paths).await } else { Ok(()) } })
    }
}

#[tokio::test]
async fn a_store_that_replaces_forgets_or_does_not_list_is_refused() {
    probed(&Careless::new(), None).await.unwrap();
    let replaces = Careless { replaces: true, ..Careless::new() };
    let text = refused(&replaces, None).await;
    assert!(text.contains("second create-only put") && text.contains("If-None-Match"), "{text}");
    let hides = Careless { lists: false, ..Careless::new() };
    assert!(refused(&hides, None).await.contains("does not list"));
    let keeps = Careless { deletes: false, ..Careless::new() };
    assert!(refused(&keeps, None).await.contains("still has"));
}

#[tokio::test]
async fn a_real_s3_server_is_probed_claimed_and_refused_with_wrong_credentials() {
    let server = S3Server::start().await;
    let StoreUrl::Remote(url) = "s3://bucket/p".parse().unwrap() else { panic!() };
    let open = |secret| Cloud::open(&url, &server.settings(), &credentials(secret)).unwrap();
    let bucket = open(crate::test_s3::SECRET);
    probed(&bucket, None).await.unwrap();
    claim(&bucket, marker(1, 7)).await.unwrap();
    probed(&bucket, Some(marker(1, 7))).await.unwrap();
    assert!(refused(&bucket, Some(marker(1, 8))).await.contains("another cluster"));
    let denied = probed(&open("wrong"), None).await.unwrap_err();
    assert_eq!(denied.failed(), Some(ErrorKind::Denied));
    assert!(denied.to_string().contains("credentials"), "{denied}");
    server.stop().await;
    let gone = probed(&bucket, Some(marker(1, 7))).await.unwrap_err();
    assert_eq!(gone.failed(), Some(ErrorKind::Unavailable));
}
