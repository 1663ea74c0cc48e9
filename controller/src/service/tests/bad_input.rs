//! Bad input, per verb: the error's name, a message that says what to do, and nothing changed.

use proto::error::{Reason, reason_of};
use proto::v1;
use proto::v1::controller_server::Controller;
use tonic::{Code, Request, Status};

use super::{Served, stream};

/// Bad names and what the message says about each.
fn bad_names() -> Vec<(String, &'static str)> {
    [
        ("", "empty"),
        ("a b", "contains ' '"),
        ("a/b", "contains '/'"),
        ("a\0b", "contains '\\0'"),
        ("a\nb", "contains '\\n'"),
        ("größe", "contains 'ö'"),
        ("a\u{202e}b", "contains '\\u{202e}'"),
        ("_internal", "reserved"),
        (".", "dots only"),
        ("..", "dots only"),
    ]
    .into_iter()
    .map(|(name, problem)| (name.to_owned(), problem))
    .chain([("n".repeat(256), "too long")])
    .collect()
}

fn check(status: Status, field: &str, problem: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(reason_of(&status), Reason::InvalidArgument, "{status}");
    let message = status.message();
    assert!(message.contains(&format!("`{field}`")), "names the field {field}: {message}");
    assert!(message.contains(problem), "says {problem}: {message}");
}

/// Calls each verb that takes a stream with this name of one.
async fn with_stream(served: &Served, name: Option<v1::StreamName>) -> Vec<Status> {
    let service = &served.service;
    let cut = vec![v1::SegmentOffset { segment: Some(v1::SegmentId::default()), offset: 0 }];
    let create = v1::CreateStreamRequest {
        stream: name.clone(),
        config: None,
        create_scope: true,
        token: 0,
    };
    let describe = v1::DescribeStreamRequest { stream: name.clone() };
    let seal = v1::SealStreamRequest { stream: name.clone() };
    let truncate = v1::TruncateStreamRequest { stream: name.clone(), cut, covers: None };
    let delete = v1::DeleteStreamRequest { stream: name.clone(), stream_id: 0 };
    let segments = v1::GetSegmentsRequest { stream: name.clone(), set: 1, ..Default::default() };
    let list = v1::ListWritersRequest { stream: name.clone(), page: None };
    let described =
        v1::DescribeWriterRequest { stream: name.clone(), writer: "w".into(), page: None };
    let freed = v1::DeleteWriterRequest { stream: name.clone(), writer: "w".into(), epoch: 0 };
    let register = v1::RegisterWriterRequest {
        stream: name,
        writer: "w".into(),
        create: true,
        mode: v1::WriterMode::WriterReplay.into(),
    };
    vec![
        Controller::create_stream(service, Request::new(create)).await.unwrap_err(),
        Controller::describe_stream(service, Request::new(describe)).await.unwrap_err(),
        Controller::seal_stream(service, Request::new(seal)).await.unwrap_err(),
        Controller::truncate_stream(service, Request::new(truncate)).await.unwrap_err(),
        Controller::delete_stream(service, Request::new(delete)).await.unwrap_err(),
        Controller::get_segments(service, Request::new(segments)).await.unwrap_err(),
        Controller::register_writer(service, Request::new(register)).await.unwrap_err(),
        Controller::list_writers(service, Request::new(list)).await.unwrap_err(),
        Controller::describe_writer(service, Request::new(described)).await.unwrap_err(),
        Controller::delete_writer(service, Request::new(freed)).await.unwrap_err(),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_bad_name_is_refused_by_every_verb_and_changes_nothing() {
    let served = Served::new();
    let before = served.state();
    for (name, problem) in bad_names() {
        let in_scope = v1::StreamName { scope: name.clone(), stream: "hello".into() };
        for status in with_stream(&served, Some(in_scope)).await {
            check(status, "stream.scope", problem);
        }
        let in_stream = v1::StreamName { scope: "demo".into(), stream: name.clone() };
        for status in with_stream(&served, Some(in_stream)).await {
            check(status, "stream.stream", problem);
        }
        let service = &served.service;
        let create = v1::CreateScopeRequest { scope: name.clone() };
        let delete = v1::DeleteScopeRequest { scope: name.clone() };
        let list = v1::ListStreamsRequest { scope: name.clone(), page: None };
        let register = v1::RegisterWriterRequest {
            stream: stream("demo/hello"),
            writer: name,
            create: true,
            mode: v1::WriterMode::WriterReplay.into(),
        };
        let status = Controller::create_scope(service, Request::new(create)).await.unwrap_err();
        check(status, "scope", problem);
        let status = Controller::delete_scope(service, Request::new(delete)).await.unwrap_err();
        check(status, "scope", problem);
        let status = Controller::list_streams(service, Request::new(list)).await.unwrap_err();
        check(status, "scope", problem);
        let status =
            Controller::register_writer(service, Request::new(register)).await.unwrap_err();
        check(status, "writer", problem);
    }
    for status in with_stream(&served, None).await {
        check(status, "stream", "missing");
    }
    assert_eq!(served.state(), before);
    assert!(served.group.submitted().is_empty(), "nothing of it was proposed");
    assert!(served.create("demo/hello", 1).await.created, "the next valid request works");
}

#[tokio::test(start_paused = true)]
async fn too_many_segments_are_refused_before_anything_is_proposed() {
    let served = Served::new();
    for segments in [100_001, u32::MAX] {
        let request = v1::CreateStreamRequest {
            stream: stream("demo/hello"),
            config: Some(v1::StreamConfig { segments }),
            create_scope: true,
            token: 0,
        };
        let status = Controller::create_stream(&served.service, Request::new(request)).await;
        check(status.unwrap_err(), "config.segments", "100000");
    }
    assert!(served.group.submitted().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cut_that_is_none_is_refused() {
    let served = Served::new();
    let id = served.create("demo/hello", 2).await.stream_id;
    let before = served.state();
    let place = |number, offset| v1::SegmentOffset {
        segment: Some(v1::SegmentId { stream: id, epoch: 0, number }),
        offset,
    };
    let truncate =
        |cut| v1::TruncateStreamRequest { stream: stream("demo/hello"), cut, covers: None };
    let missing = v1::SegmentOffset { segment: None, offset: 0 };
    for (cut, field, problem) in [
        (vec![], "cut", "empty"),
        (vec![place(0, 0), missing], "cut[1].segment", "missing"),
        (vec![place(0, 0); 100_001], "cut", "100001"),
    ] {
        let answer =
            Controller::truncate_stream(&served.service, Request::new(truncate(cut))).await;
        check(answer.unwrap_err(), field, problem);
    }
    for (cut, problem) in [
        (vec![place(0, 0)], "a gap"),
        (vec![place(0, 0), place(0, 0), place(1, 0)], "twice"),
        (vec![place(0, 0), place(9, 0)], "9.#0"),
        (vec![place(0, u64::MAX), place(1, 0)], "beyond"),
    ] {
        let answer =
            Controller::truncate_stream(&served.service, Request::new(truncate(cut))).await;
        let status = answer.unwrap_err();
        assert_eq!(reason_of(&status), Reason::OutOfRange, "{status}");
        let message = status.message();
        assert!(message.contains(problem) && message.contains("`demo/hello`"), "{message}");
    }
    assert_eq!(served.state(), before);
}

#[tokio::test(start_paused = true)]
async fn a_question_for_segments_that_makes_no_sense_is_refused() {
    let served = Served::new();
    served.create("demo/hello", 1).await;
    let valid = || v1::GetSegmentsRequest {
        stream: stream("demo/hello"),
        set: v1::SegmentSet::ActiveSegments.into(),
        ..Default::default()
    };
    let page = |size, token: &str| Some(v1::Page { size, token: token.into() });
    let cases = [
        (v1::GetSegmentsRequest { set: 0, ..valid() }, "set", "ACTIVE_SEGMENTS"),
        (v1::GetSegmentsRequest { set: 77, ..valid() }, "set", "77"),
        (
            v1::GetSegmentsRequest { writer: vec![1; 15].into(), writer_epoch: 1, ..valid() },
            "writer",
            "15 bytes",
        ),
        (v1::GetSegmentsRequest { writer_epoch: 1, ..valid() }, "writer", "0 bytes"),
        (v1::GetSegmentsRequest { writer: vec![1; 16].into(), ..valid() }, "writer_epoch", "0"),
        (v1::GetSegmentsRequest { page: page(1_001, ""), ..valid() }, "page.size", "1000"),
        (v1::GetSegmentsRequest { page: page(0, "nonsense"), ..valid() }, "page.token", "nonsense"),
        (v1::GetSegmentsRequest { page: page(0, "1:scopes:a"), ..valid() }, "page.token", "empty"),
    ];
    for (request, field, problem) in cases {
        check(served.get_segments(request).await.unwrap_err(), field, problem);
    }
    assert!(served.get_segments(valid()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_question_for_successors_needs_a_segment_that_exists() {
    let served = Served::new();
    let id = served.create("demo/hello", 1).await.stream_id;
    let ask = |segment| Request::new(v1::GetSuccessorsRequest { segment, page: None });
    let status = Controller::get_successors(&served.service, ask(None)).await.unwrap_err();
    check(status, "segment", "missing");
    let segment = |stream, number| Some(v1::SegmentId { stream, epoch: 0, number });
    let status = Controller::get_successors(&served.service, ask(segment(id, 5))).await;
    assert_eq!(reason_of(&status.unwrap_err()), Reason::SegmentNotFound);
    let status = Controller::get_successors(&served.service, ask(segment(4711, 0))).await;
    assert_eq!(reason_of(&status.unwrap_err()), Reason::StreamNotFound);
}
