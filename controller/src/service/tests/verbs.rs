//! What each verb does when all is well, and what it answers when it cannot.

use std::time::Duration;

use common::{KeyRange, Offset, SegmentId};
use proto::error::{Reason, fact_of, reason_of};
use proto::v1;
use proto::v1::controller_server::Controller;
use tonic::{Code, Request};

use super::{Served, stream};
use crate::machine::ControllerMachine;
use crate::operation::Operation;
use crate::testing::{create, name, scale};

use v1::SegmentSet::{ActiveSegments, FirstSegments, HeadSegments, TailSegments};

macro_rules! call {
    ($served:expr, $rpc:ident, $request:expr) => {
        Controller::$rpc(&$served.service, Request::new($request)).await.map(|r| r.into_inner())
    };
}

#[tokio::test(start_paused = true)]
async fn server_info_joins_what_the_cluster_and_the_process_know() {
    let served = Served::new();
    let info = call!(served, get_server_info, v1::GetServerInfoRequest {}).unwrap();
    assert_eq!(info.cluster, format!("{:032x}", crate::testing::CLUSTER));
    assert_eq!((info.version.as_str(), info.dev, info.incarnation), ("1.2.3", true, 1));
    assert_eq!((info.log_used_bytes, info.log_budget_bytes), (10, 100));
    assert!(info.protocol_min <= info.protocol_max);
}

#[tokio::test(start_paused = true)]
async fn the_status_counts_streams_and_is_told_also_while_nobody_leads() {
    let served = Served::new();
    served.create("demo/a", 1).await;
    served.create("demo/b", 1).await;
    let status = call!(served, get_status, v1::GetStatusRequest {}).unwrap();
    assert_eq!((status.uptime_micros, status.scopes, status.streams), (7, Some(1), Some(2)));
    served.group.lead(None);
    let status = call!(served, get_status, v1::GetStatusRequest {}).unwrap();
    assert_eq!((status.uptime_micros, status.scopes, status.streams), (7, None, None));
    let looking = call!(served, look_after_storage, v1::LookAfterStorageRequest {}).unwrap();
    assert_eq!(looking.groups, 3, "the process answers for its groups");
}

#[tokio::test(start_paused = true)]
async fn before_it_has_its_identity_the_cluster_says_that_it_is_starting() {
    let served = Served::over(ControllerMachine::new());
    let status = call!(served, get_server_info, v1::GetServerInfoRequest {}).unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::Unavailable, Reason::Unavailable));
    assert!(status.message().contains("starting"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_scope_is_created_once_and_deleted_when_it_is_empty() {
    let served = Served::new();
    let make = || v1::CreateScopeRequest { scope: "demo".into() };
    let delete = || v1::DeleteScopeRequest { scope: "demo".into() };
    let missing = call!(served, delete_scope, delete()).unwrap_err();
    assert_eq!(reason_of(&missing), Reason::ScopeNotFound);
    assert!(call!(served, create_scope, make()).unwrap().created);
    assert!(!call!(served, create_scope, make()).unwrap().created);
    served.create("demo/hello", 1).await;
    let full = call!(served, delete_scope, delete()).unwrap_err();
    assert_eq!((full.code(), reason_of(&full)), (Code::FailedPrecondition, Reason::ScopeNotEmpty));
    assert!(full.message().contains("`demo`") && full.message().contains("`hello`"), "{full}");
    served.delete("demo/hello").await;
    call!(served, delete_scope, delete()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_created_stream_takes_events_when_the_answer_comes_and_is_described() {
    let served = Served::new();
    let made = served.create("demo/hello", 3).await;
    assert!(made.created);
    assert_eq!(served.stores.inner().segments.len(), 3);
    let entries = served.group.submitted().len();
    let again = served.create("demo/hello", 7).await;
    assert_eq!((again.created, again.stream_id), (false, made.stream_id));
    assert_eq!(served.group.submitted().len(), entries, "asking again costs no entry");

    let request = v1::DescribeStreamRequest { stream: stream("demo/hello") };
    let described = call!(served, describe_stream, request).unwrap();
    let summary = described.summary.unwrap();
    assert_eq!(summary.stream, stream("demo/hello"));
    assert_eq!((summary.segments, summary.stream_id), (3, made.stream_id));
    assert_eq!(summary.state, i32::from(v1::StreamState::Active));
    assert!(summary.created_micros > 0);
    assert_eq!((described.epoch, described.writers, described.config.unwrap().segments), (0, 0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_number_of_segments_gets_the_default() {
    let served = Served::new();
    served.create("demo/hello", 0).await;
    assert_eq!(served.stores.inner().segments.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_exist_is_not_found_by_any_verb() {
    let served = Served::new();
    for (name, reason) in
        [("none/hello", Reason::ScopeNotFound), ("demo/none", Reason::StreamNotFound)]
    {
        served.create("demo/hello", 1).await;
        let before = served.state();
        let named = || stream(name);
        let cut = vec![v1::SegmentOffset { segment: Some(v1::SegmentId::default()), offset: 0 }];
        let statuses = [
            call!(served, describe_stream, v1::DescribeStreamRequest { stream: named() }).map(drop),
            call!(served, seal_stream, v1::SealStreamRequest { stream: named() }).map(drop),
            call!(
                served,
                truncate_stream,
                v1::TruncateStreamRequest { stream: named(), cut, covers: None }
            )
            .map(drop),
            call!(served, delete_stream, v1::DeleteStreamRequest { stream: named(), stream_id: 0 })
                .map(drop),
            served.segments(name, ActiveSegments).await.map(drop),
            call!(
                served,
                register_writer,
                v1::RegisterWriterRequest {
                    stream: named(),
                    writer: "w".into(),
                    create: true,
                    mode: v1::WriterMode::WriterReplay.into(),
                }
            )
            .map(drop),
        ];
        for status in statuses {
            let status = status.unwrap_err();
            assert_eq!((status.code(), reason_of(&status)), (Code::NotFound, reason), "{status}");
        }
        assert_eq!(served.state(), before);
    }
    let request = v1::ListStreamsRequest { scope: "none".into(), page: None };
    let status = call!(served, list_streams, request).unwrap_err();
    assert_eq!(reason_of(&status), Reason::ScopeNotFound);
    let request = v1::CreateStreamRequest {
        stream: stream("none/hello"),
        config: None,
        create_scope: false,
        token: 0,
    };
    let status = call!(served, create_stream, request).unwrap_err();
    assert_eq!(reason_of(&status), Reason::ScopeNotFound);
}

#[tokio::test(start_paused = true)]
async fn active_head_and_tail_follow_the_life_of_a_stream() {
    let served = Served::new();
    served.create("demo/hello", 2).await;
    let active = served.segments("demo/hello", ActiveSegments).await.unwrap();
    assert_eq!(active.segments.len(), 2);
    let ranges: Vec<_> = active.segments.iter().map(|place| place.range.unwrap()).collect();
    let tiles: Vec<_> = KeyRange::tile(2).into_iter().map(v1::KeyRange::from).collect();
    assert_eq!(ranges, tiles);
    assert!(active.segments.iter().all(|place| place.endpoint.is_empty() && place.container >= 2));
    for set in [HeadSegments, TailSegments] {
        assert_eq!(served.segments("demo/hello", set).await.unwrap().segments, active.segments);
    }
    let request = v1::SealStreamRequest { stream: stream("demo/hello") };
    call!(served, seal_stream, request.clone()).unwrap();
    call!(served, seal_stream, request).unwrap();
    let sealed = served.segments("demo/hello", ActiveSegments).await.unwrap();
    assert!(sealed.segments.is_empty());
    assert_eq!(sealed.state, i32::from(v1::StreamState::Sealed));
    for set in [HeadSegments, TailSegments] {
        assert_eq!(served.segments("demo/hello", set).await.unwrap().segments, active.segments);
    }
}

#[tokio::test(start_paused = true)]
async fn the_head_of_a_truncated_stream_and_successors_are_right_across_a_scale() {
    let served = Served::new();
    let id = common::StreamId(served.create("demo/hello", 2).await.stream_id);
    let old = served.group.machine().stream_by_id(id).unwrap().current.clone();
    let new = {
        let mut machine = served.group.machine();
        scale(&mut machine, Some(&served.stores), id, &old, &[KeyRange::ALL], 2)
    };
    let segment = |key: (common::StreamEpoch, common::SegmentNumber)| SegmentId {
        stream: id,
        epoch: key.0,
        number: key.1,
    };
    let successors =
        |of| v1::GetSuccessorsRequest { segment: Some(segment(of).into()), page: None };
    let found = call!(served, get_successors, successors(old[0])).unwrap();
    assert_eq!(found.successors.len(), 1);
    assert_eq!(found.successors[0].segment, Some(segment(new[0]).into()));
    let predecessors: Vec<v1::SegmentId> = old.iter().map(|key| segment(*key).into()).collect();
    assert_eq!(found.successors[0].predecessors, predecessors);
    let last = call!(served, get_successors, successors(new[0])).unwrap();
    assert!(last.successors.is_empty());

    let head = served.segments("demo/hello", HeadSegments).await.unwrap();
    assert_eq!((head.segments.len(), head.epoch), (2, 1));
    served.truncate("demo/hello", 0).await.unwrap();
    let head = served.segments("demo/hello", HeadSegments).await.unwrap();
    assert_eq!(head.segments.len(), 1);
    assert_eq!(head.segments[0].segment, Some(segment(new[0]).into()));
    let never = (common::StreamEpoch(9), common::SegmentNumber(9));
    let unknown = call!(served, get_successors, successors(never)).unwrap_err();
    assert_eq!((unknown.code(), reason_of(&unknown)), (Code::NotFound, Reason::SegmentNotFound));
}

#[tokio::test(start_paused = true)]
async fn what_was_truncated_away_is_still_located_and_succeeded_for_writers_of_old() {
    let served = Served::new();
    let id = common::StreamId(served.create("demo/hello", 2).await.stream_id);
    let old = served.group.machine().stream_by_id(id).unwrap().current.clone();
    let tiles = KeyRange::tile(3);
    let new = {
        let mut machine = served.group.machine();
        let middle = scale(&mut machine, Some(&served.stores), id, &old, &[KeyRange::ALL], 2);
        scale(&mut machine, Some(&served.stores), id, &middle, &tiles, 3)
    };
    served.truncate("demo/hello", 0).await.unwrap();
    let segment = |(epoch, number)| Some(SegmentId { stream: id, epoch, number }.into());
    let of = |places: &[v1::SegmentPlace]| {
        places.iter().map(|place| place.segment).collect::<Vec<Option<v1::SegmentId>>>()
    };

    let first = served.segments("demo/hello", FirstSegments).await.unwrap();
    assert_eq!(of(&first.segments), [segment(old[0]), segment(old[1])]);
    let ask = |segments| v1::LocateSegmentsRequest { segments, ..Default::default() };
    let never = v1::SegmentId { stream: id.0, epoch: 9, number: 9 };
    let asked = vec![segment(new[1]).unwrap(), segment(old[1]).unwrap(), never];
    let located = call!(served, locate_segments, ask(asked)).unwrap();
    assert_eq!(of(&located.segments), [segment(new[1])]);
    assert_eq!(of(&located.truncated), [segment(old[1])]);

    let successors = v1::GetSuccessorsRequest { segment: segment(old[0]), page: None };
    let found = call!(served, get_successors, successors).unwrap();
    let successors = v1::GetSuccessorsRequest { segment: found.successors[0].segment, page: None };
    let found = call!(served, get_successors, successors).unwrap();
    assert_eq!(of(&found.successors), new.iter().map(|key| segment(*key)).collect::<Vec<_>>());

    let two_streams = vec![segment(new[0]).unwrap(), v1::SegmentId { stream: 1, ..never }];
    for (asked, problem) in [(vec![], "is empty"), (two_streams, "two streams")] {
        let status = call!(served, locate_segments, ask(asked)).unwrap_err();
        assert_eq!(reason_of(&status), Reason::InvalidArgument, "{status}");
        assert!(status.message().contains(problem), "{status}");
    }
    let many = vec![never; common::limits::PAGE_ITEMS_MAX + 1];
    let status = call!(served, locate_segments, ask(many)).unwrap_err();
    assert!(status.message().contains("at most 1000"), "{status}");
    served.delete("demo/hello").await;
    let status = call!(served, locate_segments, ask(vec![never])).unwrap_err();
    assert_eq!(reason_of(&status), Reason::StreamNotFound);
}

#[tokio::test(start_paused = true)]
async fn a_cut_beyond_the_length_of_an_open_segment_is_refused_before_anything_changes() {
    let served = Served::new();
    let id = common::StreamId(served.create("demo/hello", 1).await.stream_id);
    served.stores.grow(SegmentId { stream: id, ..Default::default() }, 10);
    let before = served.state();
    let status = served.truncate("demo/hello", 11).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::OutOfRange, Reason::OutOfRange));
    assert_eq!(fact_of(&status, "length").as_deref(), Some("10"));
    assert!(status.message().contains("offset 11"), "{status}");
    assert_eq!(served.state(), before);
    served.truncate("demo/hello", 10).await.unwrap();
    served.truncate("demo/hello", 4).await.unwrap();
    let start =
        served.stores.segment(SegmentId { stream: id, ..Default::default() }).unwrap().start;
    assert_eq!(start, Offset(10), "a cut below the head changes nothing");
}

#[tokio::test(start_paused = true)]
async fn a_cut_of_an_earlier_stream_of_the_name_is_refused() {
    let served = Served::new();
    let old = served.create("demo/hello", 1).await.stream_id;
    served.delete("demo/hello").await;
    served.create("demo/hello", 1).await;
    let segment = Some(v1::SegmentId { stream: old, epoch: 0, number: 0 });
    let cut = vec![v1::SegmentOffset { segment, offset: 0 }];
    let request = v1::TruncateStreamRequest { stream: stream("demo/hello"), cut, covers: None };
    let status = call!(served, truncate_stream, request).unwrap_err();
    assert_eq!(reason_of(&status), Reason::OutOfRange);
    assert!(status.message().contains("not of this stream"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_made_again_is_another_one_and_waits_for_the_old_one_to_go() {
    let served = Served::new();
    let first = served.create("demo/hello", 2).await;
    served.stores.inner().held = true;
    let delete = served.delete("demo/hello");
    let recreate = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let (waiting, ()) = tokio::join!(served.create("demo/hello", 2), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            served.stores.inner().held = false;
            served.stores.gate.notify_waiters();
        });
        waiting
    };
    let ((), second) = tokio::join!(delete, recreate);
    assert!(second.created && second.stream_id > first.stream_id);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_segments_of_a_stream_being_made_waits_and_is_told_when_it_takes_long() {
    let served = Served::new();
    served.stores.inner().held = true;
    crate::group::Group::submit(&*served.group, create("demo/hello", 2)).await.unwrap().unwrap();
    let late = served.segments("demo/hello", ActiveSegments).await.unwrap_err();
    assert_eq!((late.code(), reason_of(&late)), (Code::Unavailable, Reason::Unavailable));
    assert!(late.message().contains("goes on") && fact_of(&late, "job").is_some(), "{late}");
    served.stores.inner().held = false;
    served.stores.gate.notify_waiters();
    let active = served.segments("demo/hello", ActiveSegments).await.unwrap();
    assert_eq!(active.segments.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_named_writer_is_registered_and_its_older_process_finds_no_segments_any_more() {
    let served = Served::new();
    let stream_id = served.create("demo/hello", 2).await.stream_id;
    let register = |create| v1::RegisterWriterRequest {
        stream: stream("demo/hello"),
        writer: "loader".into(),
        create,
        mode: v1::WriterMode::WriterReplay.into(),
    };
    let unknown = call!(served, register_writer, register(false)).unwrap_err();
    assert_eq!((unknown.code(), reason_of(&unknown)), (Code::NotFound, Reason::WriterNotFound));
    let first = call!(served, register_writer, register(true)).unwrap();
    assert!(first.created && first.stream_id == stream_id && first.writer.len() == 16);
    let ask = |answer: &v1::RegisterWriterResponse| v1::GetSegmentsRequest {
        stream: stream("demo/hello"),
        set: ActiveSegments.into(),
        writer: answer.writer.clone(),
        writer_epoch: answer.epoch,
        ..Default::default()
    };
    assert_eq!(served.get_segments(ask(&first)).await.unwrap().segments.len(), 2);
    let second = call!(served, register_writer, register(false)).unwrap();
    assert!(!second.created && second.epoch > first.epoch && second.writer == first.writer);
    assert!(second.may_be_stored && !first.may_be_stored);
    let fenced = served.get_segments(ask(&first)).await.unwrap_err();
    assert_eq!((fenced.code(), reason_of(&fenced)), (Code::Aborted, Reason::WriterFenced));
    assert_eq!(fact_of(&fenced, "current_epoch"), Some(second.epoch.to_string()));
    let locate = |answer: &v1::RegisterWriterResponse| v1::LocateSegmentsRequest {
        segments: vec![v1::SegmentId { stream: stream_id, epoch: 0, number: 0 }],
        writer: answer.writer.clone(),
        writer_epoch: answer.epoch,
    };
    let fenced = call!(served, locate_segments, locate(&first)).unwrap_err();
    assert_eq!(reason_of(&fenced), Reason::WriterFenced);
    assert!(served.get_segments(ask(&second)).await.is_ok());
    assert_eq!(call!(served, locate_segments, locate(&second)).unwrap().segments.len(), 1);
    let mut stranger = ask(&second);
    stranger.writer = vec![7; 16].into();
    let unknown = served.get_segments(stranger).await.unwrap_err();
    assert_eq!(reason_of(&unknown), Reason::WriterNotFound);
}

fn registration(writer: &str, mode: v1::WriterMode) -> v1::RegisterWriterRequest {
    v1::RegisterWriterRequest {
        stream: stream("demo/hello"),
        writer: writer.into(),
        create: true,
        mode: mode.into(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_keeps_its_mode_and_another_one_is_a_conflict() {
    use v1::WriterMode::{Unspecified, WriterContinue, WriterReplay};
    let served = Served::new();
    served.create("demo/hello", 1).await;
    let unsaid = call!(served, register_writer, registration("w", Unspecified)).unwrap_err();
    assert_eq!(reason_of(&unsaid), Reason::InvalidArgument);
    assert!(unsaid.message().contains("`mode`"), "{unsaid}");
    call!(served, register_writer, registration("w", WriterContinue)).unwrap();
    let other = call!(served, register_writer, registration("w", WriterReplay)).unwrap_err();
    assert_eq!((other.code(), reason_of(&other)), (Code::FailedPrecondition, Reason::WriterMode));
    assert!(other.message().contains("`continue`, not `replay`"), "{other}");
    call!(served, register_writer, registration("w", WriterContinue)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn writers_are_listed_in_pages_described_with_their_segments_and_deleted() {
    let served = Served::new();
    let stream_id = served.create("demo/hello", 5).await.stream_id;
    for name in ["c", "a", "b"] {
        let request = registration(name, v1::WriterMode::WriterReplay);
        call!(served, register_writer, request).unwrap();
    }
    let list = |token: &str| v1::ListWritersRequest {
        stream: stream("demo/hello"),
        page: Some(v1::Page { size: 2, token: token.into() }),
    };
    let first = call!(served, list_writers, list("")).unwrap();
    let names = |page: &v1::ListWritersResponse| -> Vec<String> {
        page.writers.iter().map(|writer| writer.writer.clone()).collect()
    };
    assert_eq!(names(&first), ["a", "b"]);
    let second = call!(served, list_writers, list(&first.next_token)).unwrap();
    assert_eq!((names(&second), second.next_token.as_str()), (vec!["c".to_owned()], ""));
    assert!(second.writers[0].registered_micros > 0 && !second.writers[0].deleting);

    let describe = |writer: &str, token: &str| v1::DescribeWriterRequest {
        stream: stream("demo/hello"),
        writer: writer.into(),
        page: Some(v1::Page { size: 3, token: token.into() }),
    };
    let first = call!(served, describe_writer, describe("c", "")).unwrap();
    let second = call!(served, describe_writer, describe("c", &first.next_token)).unwrap();
    assert_eq!((first.segments.len(), second.segments.len()), (3, 2));
    assert_eq!((first.stream_id, first.writer.len(), &second.next_token[..]), (stream_id, 16, ""));
    let summary = first.summary.unwrap();
    assert_eq!(summary.mode(), v1::WriterMode::WriterReplay);

    let delete =
        || v1::DeleteWriterRequest { stream: stream("demo/hello"), writer: "c".into(), epoch: 0 };
    call!(served, delete_writer, delete()).unwrap();
    let told = served.stores.inner().segments.values().map(|s| s.writers.len()).sum::<usize>();
    assert_eq!(told, 5, "each segment was told");
    let gone = call!(served, delete_writer, delete()).unwrap_err();
    assert_eq!((gone.code(), reason_of(&gone)), (Code::NotFound, Reason::WriterNotFound));
    let gone = call!(served, describe_writer, describe("c", "")).unwrap_err();
    assert_eq!(reason_of(&gone), Reason::WriterNotFound);
    let anew = registration("c", v1::WriterMode::WriterContinue);
    let anew = call!(served, register_writer, anew).unwrap();
    assert!(anew.created && anew.epoch > summary.epoch + 1, "{} {}", anew.epoch, summary.epoch);
    assert_eq!(anew.writer, first.writer, "the id follows from stream and name");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_being_deleted_is_fenced_at_once_and_cannot_be_registered() {
    let served = Served::new();
    let stream_id = served.create("demo/hello", 2).await.stream_id;
    let request = || registration("w", v1::WriterMode::WriterReplay);
    let process = call!(served, register_writer, request()).unwrap();
    served.stores.inner().held = true;
    let delete =
        v1::DeleteWriterRequest { stream: stream("demo/hello"), writer: "w".into(), epoch: 0 };
    let late = call!(served, delete_writer, delete.clone()).unwrap_err();
    assert_eq!(reason_of(&late), Reason::Unavailable, "{late}");
    let refused = call!(served, register_writer, request()).unwrap_err();
    assert_eq!(reason_of(&refused), Reason::Unavailable);
    assert!(refused.message().contains("is being deleted"), "{refused}");
    let locate = v1::LocateSegmentsRequest {
        segments: vec![v1::SegmentId { stream: stream_id, epoch: 0, number: 0 }],
        writer: process.writer.clone(),
        writer_epoch: process.epoch,
    };
    let fenced = call!(served, locate_segments, locate).unwrap_err();
    assert_eq!(reason_of(&fenced), Reason::WriterFenced);
    served.stores.inner().held = false;
    served.stores.gate.notify_waiters();
    // Asked again, it waits for the job that runs, or finds the name gone already.
    let again = call!(served, delete_writer, delete);
    assert!(again.is_ok() || again.is_err_and(|e| reason_of(&e) == Reason::WriterNotFound));
    assert!(call!(served, register_writer, request()).unwrap().created);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_lead_says_so_to_every_question() {
    let served = Served::new();
    served.create("demo/hello", 1).await;
    served.group.lead(None);
    let questions = [
        call!(served, get_server_info, v1::GetServerInfoRequest {}).map(drop),
        call!(served, list_scopes, v1::ListScopesRequest { page: None }).map(drop),
        served.segments("demo/hello", ActiveSegments).await.map(drop),
        call!(served, delete_scope, v1::DeleteScopeRequest { scope: "demo".into() }).map(drop),
    ];
    for answer in questions {
        let status = answer.unwrap_err();
        assert_eq!((status.code(), reason_of(&status)), (Code::Unavailable, Reason::NotLeader));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_being_deleted_is_listed_but_not_found_by_writers_and_readers() {
    let served = Served::new();
    served.create("demo/hello", 1).await;
    served.stores.inner().held = true;
    let delete = Operation::DeleteStream { stream: name("demo/hello") };
    crate::group::Group::submit(&*served.group, delete).await.unwrap().unwrap();
    let gone = served.segments("demo/hello", HeadSegments).await.unwrap_err();
    assert_eq!(reason_of(&gone), Reason::StreamNotFound);
    let request = v1::ListStreamsRequest { scope: "demo".into(), page: None };
    let listed = call!(served, list_streams, request).unwrap();
    assert_eq!(listed.streams[0].state, i32::from(v1::StreamState::Deleting));
}
