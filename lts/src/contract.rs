//! The laws of the seam, on every implementation.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::clock::ManualClock;
use common::{Rng, SystemClock, WallTime};
use futures::future::join_all;
use rstest::rstest;

use crate::test_s3::S3Server;
use crate::test_support::{Fixture, path, pattern, payload, test_directory};
use crate::*;

/// What the suite runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memory,
    Folder,
    S3,
    /// Memory behind a fault wrapper that has no faults to strike with.
    Faulty,
    /// The same with faults of every kind, and patience around it.
    Guarded,
}
use Kind::{
    Faulty as WithoutFaults, Folder as OnFolder, Guarded as UnderFaults, Memory as InMemory,
    S3 as OnS3,
};

async fn fixture(kind: Kind) -> Fixture {
    match kind {
        InMemory => Fixture::new(Memory::new(manual_clock())),
        OnFolder => {
            let directory = test_directory();
            let (root, clock) = (directory.path().join("lts"), SystemClock::shared());
            let folder = Folder::open(&root, false, clock, Rng::from_seed(1)).unwrap();
            Fixture::new(folder).keeping(directory)
        }
        WithoutFaults => Fixture::new(faulty().1),
        UnderFaults => {
            let (clock, faulty) = faulty();
            faulty.faults().set_rates(FAULTS);
            let timer = Arc::new(ManualTimer(clock.clone()));
            let (settings, rng, observer) =
                (Settings::default(), Rng::from_seed(2), Arc::new(|_: &Observation| ()));
            Fixture::new(Guarded::new(Arc::new(faulty), &settings, clock, timer, rng, observer))
        }
        OnS3 => {
            let server = S3Server::start().await;
            let StoreUrl::Remote(url) = "s3://bucket/a/prefix".parse().unwrap() else { panic!() };
            let bucket = Cloud::open(&url, &server.settings(), &server.environment()).unwrap();
            Fixture::new(bucket).keeping(server)
        }
    }
}

fn manual_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(WallTime(1_000_000)))
}

fn faulty() -> (Arc<ManualClock>, Faulty) {
    let clock = manual_clock();
    let memory = Arc::new(Memory::new(clock.clone()));
    let timer = Arc::new(ManualTimer(clock.clone()));
    (clock, Faulty::new(memory, timer, Rng::from_seed(1)))
}

const FAULTS: FaultRates = FaultRates {
    delay: 50,
    delay_max: Duration::from_secs(5),
    error: 50,
    lost_answer: 100,
    busy: 30,
    slow_body: 30,
    short_body: 20,
    flip_bit: 0,
    hang: 20,
};

async fn paths(bucket: &dyn Bucket, prefix: &str) -> Vec<String> {
    let page = bucket.list(prefix, None, 1_000).await.unwrap();
    assert!(!page.more);
    page.objects.into_iter().map(|listed| listed.path.to_string()).collect()
}

#[rstest]
#[tokio::test]
async fn what_is_put_is_read_looked_up_and_listed(
    #[values(InMemory, OnFolder, OnS3, WithoutFaults, UnderFaults)] kind: Kind,
) {
    let bucket = fixture(kind).await;
    let whole = pattern(5 << 20);
    // Many small pieces, and one that is larger than a step of the writer.
    let small = whole.slice(..1000);
    let pieces = small.chunks(7).map(Bytes::copy_from_slice).chain([whole.slice(1000..)]);
    let name = path("0001/0000000000000002/large");
    bucket.put(&name, pieces.collect()).await.unwrap();

    let length = whole.len() as u64;
    assert_eq!(bucket.get(&name, 0..length).await.unwrap(), whole);
    for range in [0..1, 999..1002, length - 1..length, 1 << 20..(1 << 20) + 1] {
        let expected = whole.slice(range.start as usize..range.end as usize);
        assert_eq!(bucket.get(&name, range).await.unwrap(), expected);
    }
    let found = bucket.head(&name).await.unwrap();
    assert_eq!((&found.path, found.length), (&name, length));
    assert!(found.modified > WallTime(0));
    let objects = bucket.list("", None, 10).await.unwrap().objects;
    assert_eq!((objects.len(), &objects[0].path, objects[0].length), (1, &name, length));
    let (listed, looked_up) = (objects[0].modified.0, found.modified.0);
    assert_eq!(listed / 1_000_000, looked_up / 1_000_000);
}

#[rstest]
#[tokio::test]
async fn an_object_is_created_once_and_never_replaced(
    #[values(InMemory, OnFolder, OnS3, WithoutFaults, UnderFaults)] kind: Kind,
) {
    let bucket = fixture(kind).await;
    let name = path("a/b");
    bucket.put(&name, payload("first")).await.unwrap();
    for second in ["other", "firsT", ""] {
        let refused = bucket.put(&name, payload(second)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused}");
        assert!(refused.to_string().contains("`a/b`"), "{refused}");
    }
    assert_eq!(bucket.get(&name, 0..5).await.unwrap(), "first");
    bucket.delete(std::slice::from_ref(&name)).await.unwrap();
    bucket.put(&name, payload("after a delete")).await.unwrap();
}

#[rstest]
#[tokio::test]
async fn of_many_puts_at_once_one_wins_with_all_its_bytes(
    #[values(InMemory, OnFolder, WithoutFaults)] kind: Kind,
) {
    let bucket = fixture(kind).await;
    let name = path("a/b/c");
    for round in 0..20 {
        let texts: Vec<String> = (0..6).map(|i| format!("{round}-{i}")).collect();
        let puts = texts.iter().map(|text| bucket.put(&name, payload(text)));
        let outcomes = join_all(puts).await;
        let won: Vec<usize> = (0..6).filter(|i| outcomes[*i].is_ok()).collect();
        assert_eq!(won.len(), 1, "{outcomes:?}");
        let kinds = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        assert!(kinds.into_iter().all(|error| error.kind() == ErrorKind::AlreadyExists));
        let expected = &texts[won[0]];
        let stored = bucket.get(&name, 0..expected.len() as u64).await.unwrap();
        assert_eq!(stored, expected.as_bytes());
        bucket.delete(std::slice::from_ref(&name)).await.unwrap();
    }
}

#[rstest]
#[tokio::test]
async fn what_is_not_there_is_not_found_and_what_is_short_is_damaged(
    #[values(InMemory, OnFolder, OnS3, WithoutFaults, UnderFaults)] kind: Kind,
) {
    let bucket = fixture(kind).await;
    bucket.put(&path("a/b"), payload("12345")).await.unwrap();
    for missing in ["x", "x/y", "a/c"] {
        let name = path(missing);
        let errors = [
            bucket.get(&name, 0..1).await.map(drop).unwrap_err(),
            bucket.head(&name).await.map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{missing}: {error}");
            assert!(error.to_string().contains(&format!("`{missing}`")), "{error}");
        }
    }
    for range in [3..6, 5..6, 100..200] {
        let short = bucket.get(&path("a/b"), range).await.unwrap_err();
        assert_eq!(short.kind(), ErrorKind::Damaged, "{short}");
    }
}

#[rstest]
#[tokio::test]
async fn an_empty_object_is_an_object(
    #[values(InMemory, OnFolder, OnS3, WithoutFaults, UnderFaults)] kind: Kind,
) {
    let bucket = fixture(kind).await;
    bucket.put(&path("empty"), Payload::default()).await.unwrap();
    assert_eq!(bucket.head(&path("empty")).await.unwrap().length, 0);
    let again = bucket.put(&path("empty"), payload("x")).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert_eq!(paths(&**bucket, "").await, ["empty"]);
}

/// The order of whole paths is not that of folders: `-` and `.` come before `/`.
const LISTED: [&str; 9] =
    ["a-b", "a.b/x", "a/1/x", "a/1/y", "a/2", "a_b", "cluster-0001", "cluster-0002", "d/e/f/g"];

#[rstest]
#[tokio::test]
async fn listings_are_in_order_by_prefix_and_go_on_behind_any_path(
    #[values(InMemory, OnFolder, OnS3, WithoutFaults, UnderFaults)] kind: Kind,
) {
    let bucket = fixture(kind).await;
    assert_eq!(bucket.list("", None, 5).await.unwrap(), Page::default());
    for name in LISTED.iter().rev() {
        bucket.put(&path(name), payload(name)).await.unwrap();
    }
    for prefix in ["", "a", "a/", "a/1", "a/1/", "cluster-", "c", "d/e/f/g", "zz", "a/1/x/"] {
        let begins = |name: &&str| name.starts_with(prefix);
        let expected: Vec<_> = LISTED.into_iter().filter(begins).collect();
        assert_eq!(paths(&**bucket, prefix).await, expected, "{prefix}");
        for limit in 1..4 {
            assert_eq!(by_pages(&**bucket, prefix, limit).await, expected, "{prefix} by {limit}");
        }
    }
    for after in ["0", "a", "a/1", "a/1/x", "a/1/xx", "cluster-0001", "z"] {
        let expected: Vec<_> = LISTED.into_iter().filter(|name| *name > after).collect();
        let page = bucket.list("", Some(&path(after)), 100).await.unwrap();
        let found: Vec<_> = page.objects.iter().map(|listed| listed.path.as_str()).collect();
        assert_eq!(found, expected, "{after}");
    }
}

async fn by_pages(bucket: &dyn Bucket, prefix: &str, limit: usize) -> Vec<String> {
    let mut all: Vec<ObjectPath> = Vec::new();
    loop {
        let page = bucket.list(prefix, all.last(), limit).await.unwrap();
        assert!(page.objects.len() <= limit);
        all.extend(page.objects.into_iter().map(|listed| listed.path));
        if !page.more {
            return all.iter().map(ToString::to_string).collect();
        }
    }
}

#[rstest]
#[tokio::test]
async fn deletes_take_many_and_do_not_mind_what_is_gone(
    #[values(InMemory, OnFolder, OnS3, WithoutFaults, UnderFaults)] kind: Kind,
) {
    let bucket = fixture(kind).await;
    for name in LISTED {
        bucket.put(&path(name), payload(name)).await.unwrap();
    }
    bucket.delete(&[]).await.unwrap();
    let gone = ["a/1/x", "never/was", "a/1/y", "cluster-0001"].map(path);
    bucket.delete(&gone).await.unwrap();
    bucket.delete(&gone).await.unwrap();
    let left = ["a-b", "a.b/x", "a/2", "a_b", "cluster-0002", "d/e/f/g"];
    assert_eq!(paths(&**bucket, "").await, left);
    let missing = bucket.get(&path("a/1/x"), 0..1).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    bucket.put(&path("a/1/z"), payload("again")).await.unwrap();
    assert_eq!(paths(&**bucket, "a/").await, ["a/1/z", "a/2"]);
}

#[rstest]
#[tokio::test]
async fn an_object_beyond_the_limit_is_refused_and_the_largest_is_not(
    #[values(InMemory, OnFolder, OnS3, WithoutFaults, UnderFaults)] kind: Kind,
) {
    let bucket = fixture(kind).await;
    let piece = pattern(1 << 20);
    let largest: Payload = (0..64).map(|_| piece.clone()).collect();
    let mut larger = largest.clone();
    larger.push(Bytes::from_static(b"1"));
    let refused = bucket.put(&path("larger"), larger).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    bucket.put(&path("largest"), largest).await.unwrap();
    assert_eq!(bucket.head(&path("largest")).await.unwrap().length, OBJECT_BYTES_MAX);
    let end = OBJECT_BYTES_MAX - 10..OBJECT_BYTES_MAX;
    assert_eq!(bucket.get(&path("largest"), end).await.unwrap(), piece[piece.len() - 10..]);
    assert_eq!(paths(&**bucket, "").await, ["largest"]);
}

#[rstest]
#[tokio::test]
async fn nothing_is_left_behind_by_what_went_well(
    #[values(InMemory, OnFolder, OnS3, WithoutFaults, UnderFaults)] kind: Kind,
) {
    let bucket = fixture(kind).await;
    bucket.put(&path("a"), payload("a")).await.unwrap();
    bucket.put(&path("a"), payload("b")).await.unwrap_err();
    assert_eq!(bucket.leftovers(Duration::ZERO).await.unwrap(), []);
    bucket.remove_leftovers(&[]).await.unwrap();
}
