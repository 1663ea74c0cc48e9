//! A group that does not start, and what people see of it: the node starts all the same, and says it.

use client::SegmentSet;
use common::GroupId;
use replica::{Change, Changes, Kv, RocksKv};

use super::*;

/// Spoils what is saved of a group: it is whole for the store, and nothing that the group wrote.
fn spoil(dir: &Path, group: GroupId) {
    let kv = RocksKv::open(&dir.join("state"), ByteSize::mib(4)).unwrap();
    let applied = kv.applied(group).unwrap().expect("a stop saves every group");
    let nonsense = [Change { key: vec![0xee; 3], value: Some(vec![0xee; 3].into()) }];
    kv.write(group, applied, Changes { machine: &nonsense, archive: &[] }).unwrap();
    kv.flush().unwrap();
}

#[test]
fn a_controller_that_does_not_start_is_told_by_readiness_and_to_whoever_asks_it() {
    let dir = tempfile::tempdir().unwrap();
    Served::start(settings(dir.path())).stop();
    spoil(dir.path(), GroupId::CONTROLLER);
    let served = Served::start(settings(dir.path()));
    let ready = served.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(ready.contains("group 1 is quarantined: restore the state of group 1"), "{ready}");
    assert!(!ready.contains("group 2"), "the containers serve: {ready}");
    assert!(served.get("/livez").starts_with("HTTP/1.1 200"));
    assert!(served.get("/metrics").contains("braid_group_quarantined{group=\"1\"} 1"));
    with_client(async {
        // A client asks the controller first: it is told at once, and why.
        let config = ClientConfig {
            connect_deadline: Duration::ZERO,
            ..ClientConfig::new(served.ready.address.to_string())
        };
        let refused = Client::connect(config).await.unwrap_err().to_string();
        assert!(refused.contains("out of order") && refused.contains("group 1"), "{refused}");
    });
    served.stop();
}

#[test]
fn a_container_that_does_not_start_leaves_the_controller_and_the_others_at_work() {
    let dir = tempfile::tempdir().unwrap();
    let stream: ScopedStream = "demo/hello".parse().unwrap();
    let served = Served::start(settings(dir.path()));
    with_client(async {
        let client = served.client().await;
        let config = StreamConfig { segments: 4, create_scope: true };
        client.streams().create_stream(&stream, config).await.unwrap();
        append(&client, &stream, 0..10).await;
    });
    served.stop();
    spoil(dir.path(), GroupId(2));
    let served = Served::start(settings(dir.path()));
    let ready = served.get("/readyz");
    assert!(ready.contains("group 2 is quarantined") && !ready.contains("group 3"), "{ready}");
    with_client(async {
        let client = served.client().await;
        // Whatever needs no segment of the container goes on.
        client.streams().describe(&stream).await.unwrap();
    });
    with_client(async {
        // Appends are told why, and what to do; keys of other containers do not wait for it.
        let config = ClientConfig {
            retry_deadline: Some(Duration::from_secs(1)),
            ..ClientConfig::new(served.ready.address.to_string())
        };
        let client = Client::connect(config).await.unwrap();
        let places = client.streams().segments(&stream, SegmentSet::Active).await.unwrap().segments;
        let (away, others): (Vec<_>, Vec<_>) =
            places.into_iter().partition(|place| place.container.0 == 2);
        assert!(!away.is_empty() && !others.is_empty(), "{away:?} {others:?}");
        let stored = async || -> u64 {
            let infos = client.streams().segment_infos(&others).await.unwrap();
            infos.iter().map(|info| info.length.0).sum()
        };
        let before = stored().await;
        let writer = client.event_writer(&stream).open().await.unwrap();
        for number in 0..40 {
            let key = format!("key-{number}");
            writer.append(Event::new("x").key(&key)).await.unwrap();
        }
        let told = writer.flush().await.unwrap_err().to_string();
        for part in ["quarantined until the server is restarted", "restore the state of group 2"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(stored().await > before, "the others took what is theirs");
    });
    served.stop();
}
