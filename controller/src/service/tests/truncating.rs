//! Truncations that something else overtakes.

use std::time::Duration;

use common::{KeyRange, SegmentId};
use proto::error::{Reason, reason_of};
use proto::v1;
use proto::v1::controller_server::Controller;
use tonic::{Code, Request, Status};

use super::{Served, stream};
use crate::testing::{create, name, pass, scale};

async fn truncate(served: &Served, request: v1::TruncateStreamRequest) -> Result<(), Status> {
    Controller::truncate_stream(&served.service, Request::new(request)).await.map(drop)
}

/// Asks for a truncation, and has something else happen before the store tells the lengths.
async fn truncated_while(
    served: &Served,
    offset: u64,
    meanwhile: impl Future<Output = ()>,
) -> Result<(), Status> {
    served.stores.inner().questions_held = true;
    let other = async {
        served.stores.until_waiting(1).await;
        meanwhile.await;
        served.stores.inner().questions_held = false;
        served.stores.gate.notify_waiters();
    };
    let (truncated, ()) = tokio::join!(served.truncate("demo/hello", offset), other);
    truncated
}

#[tokio::test(start_paused = true)]
async fn a_truncation_that_a_deletion_overtakes_is_told_that_the_stream_is_gone() {
    let served = Served::new();
    let id = common::StreamId(served.create("demo/hello", 1).await.stream_id);
    served.stores.grow(SegmentId { stream: id, ..Default::default() }, 10);
    let status = truncated_while(&served, 5, served.delete("demo/hello")).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::NotFound, Reason::StreamNotFound));
    assert!(status.message().contains("`demo/hello` does not exist"), "{status}");
    // One that was made again is another one.
    let id = common::StreamId(served.create("demo/hello", 1).await.stream_id);
    served.stores.grow(SegmentId { stream: id, ..Default::default() }, 10);
    let again = async {
        served.delete("demo/hello").await;
        served.create("demo/hello", 1).await;
    };
    let status = truncated_while(&served, 5, again).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::OutOfRange, Reason::OutOfRange));
    assert!(status.message().contains("not of this stream"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_truncation_that_a_further_one_overtakes_has_nothing_left_to_do() {
    let served = Served::new();
    let id = common::StreamId(served.create("demo/hello", 1).await.stream_id);
    let old = SegmentId { stream: id, ..Default::default() };
    served.stores.grow(old, 10);
    let further = async {
        let (epoch, number) = {
            let mut machine = served.group.machine();
            let keys = machine.stream_by_id(id).unwrap().current.clone();
            scale(&mut machine, Some(&served.stores), id, &keys, &[KeyRange::ALL], 2)[0]
        };
        let segment = Some(SegmentId { stream: id, epoch, number }.into());
        let cut = vec![v1::SegmentOffset { segment, offset: 0 }];
        let request = v1::TruncateStreamRequest { stream: stream("demo/hello"), cut, covers: None };
        // Its cut needs no length.
        truncate(&served, request).await.unwrap();
    };
    truncated_while(&served, 5, further).await.unwrap();
    assert!(served.stores.segment(old).unwrap().deleted);
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_its_store_has_lost_is_told_as_lost_data() {
    let served = Served::new();
    let id = common::StreamId(served.create("demo/hello", 1).await.stream_id);
    let segment = SegmentId { stream: id, ..Default::default() };
    served.stores.inner().segments.remove(&segment);
    let status = served.truncate("demo/hello", 5).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::DataLoss, Reason::DataLost));
    assert!(status.message().contains("does not exist"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_truncation_of_a_stream_that_is_being_made_waits_for_it() {
    let served = Served::new();
    served.stores.inner().held = true;
    crate::group::Group::submit(&*served.group, create("demo/hello", 1)).await.unwrap().unwrap();
    let id = served.group.machine().stream(&name("demo/hello")).unwrap().id;
    let segment = Some(SegmentId { stream: id, ..Default::default() }.into());
    let cut = vec![v1::SegmentOffset { segment, offset: 1 }];
    let request = v1::TruncateStreamRequest { stream: stream("demo/hello"), cut, covers: None };
    let (answered, ()) = tokio::join!(truncate(&served, request), async {
        served.stores.until_waiting(1).await;
        pass(Duration::from_secs(1)).await;
        served.stores.inner().held = false;
        served.stores.gate.notify_waiters();
    });
    let status = answered.unwrap_err();
    assert!(status.message().contains("beyond its length 0"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_checked_without_a_truncation_and_one_of_a_part_truncates_nothing() {
    let served = Served::new();
    let id = common::StreamId(served.create("demo/hello", 2).await.stream_id);
    let segment =
        |number: u32| SegmentId { stream: id, number: number.into(), ..Default::default() };
    served.stores.grow(segment(0), 10);
    let place =
        |number, offset| v1::SegmentOffset { segment: Some(segment(number).into()), offset };
    let check = |cut: &[v1::SegmentOffset], covers: Option<v1::CutCoverage>| {
        let stream = stream("demo/hello");
        let request = v1::CheckCutRequest { stream, cut: cut.to_vec(), covers };
        Controller::check_cut(&served.service, Request::new(request))
    };
    let some = Some(v1::CutCoverage { keys: None, segments: true });
    check(&[place(0, 10), place(1, 0)], None).await.unwrap();
    check(&[place(0, 10)], some).await.unwrap();
    let refusals = [
        (check(&[place(0, 10)], None).await, "a gap"),
        (check(&[place(0, 11), place(1, 0)], None).await, "beyond its length 10"),
        (check(&[place(0, 11)], some).await, "beyond its length 10"),
        (check(&[place(7, 0)], some).await, "not of this stream"),
    ];
    for (refused, word) in refusals {
        let status = refused.unwrap_err();
        assert_eq!(reason_of(&status), Reason::OutOfRange);
        assert!(status.message().contains(word), "{status}");
    }
    let both = v1::CutCoverage { keys: Some(KeyRange::ALL.into()), segments: true };
    let status = check(&[place(0, 10)], Some(both)).await.unwrap_err();
    assert_eq!(reason_of(&status), Reason::InvalidArgument);

    let cut = vec![place(0, 5), place(1, 0)];
    let request = v1::TruncateStreamRequest { stream: stream("demo/hello"), cut, covers: some };
    let status = truncate(&served, request).await.unwrap_err();
    assert!(status.message().contains("only a part"), "{status}");
    assert_eq!(served.stores.segment(segment(0)).unwrap().start, common::Offset(0));
}
