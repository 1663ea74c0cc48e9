//! Streams that are being made, and streams that never were.

use proto::error::{Reason, reason_of};
use proto::v1;
use proto::v1::SegmentSet::{ActiveSegments, FirstSegments, HeadSegments, TailSegments};
use proto::v1::controller_server::Controller;
use tonic::{Code, Request, Status};

use super::{Served, stream};
use crate::group::Group;
use crate::stores::StoreError;
use crate::testing::{containers, create};

impl Served {
    async fn describe(&self, name: &str) -> v1::StreamSummary {
        let request = Request::new(v1::DescribeStreamRequest { stream: stream(name) });
        let described = Controller::describe_stream(&self.service, request).await.unwrap();
        described.into_inner().summary.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_wide_stream_says_that_it_is_being_made_and_how_wide_it_will_be() {
    let served = Served::new();
    served.stores.inner().held = true;
    Group::submit(&*served.group, create("demo/wide", 5_000)).await.unwrap().unwrap();
    let described = served.describe("demo/wide").await;
    assert_eq!((described.state(), described.segments), (v1::StreamState::Creating, 5_000));
    for set in [ActiveSegments, HeadSegments, TailSegments, FirstSegments] {
        let late = served.segments("demo/wide", set).await.unwrap_err();
        assert_eq!(reason_of(&late), Reason::Unavailable, "no part of it is listed: {late}");
    }
    served.stores.inner().held = false;
    served.stores.gate.notify_waiters();
    let first = served.segments("demo/wide", HeadSegments).await.unwrap();
    assert_eq!((first.segments.len(), first.state()), (1_000, v1::StreamState::Active));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_never_made_says_so_and_what_to_do() {
    let served = Served::new();
    let error = StoreError::Refused("it is damaged".into());
    served.stores.inner().away.insert(containers()[0], error);
    let request = v1::CreateStreamRequest {
        stream: stream("demo/hello"),
        config: Some(v1::StreamConfig { segments: 4 }),
        create_scope: true,
        token: 0,
    };
    let given_up = Controller::create_stream(&served.service, Request::new(request)).await;
    assert!(given_up.unwrap_err().message().contains("it is damaged"));
    for set in [ActiveSegments, HeadSegments, TailSegments, FirstSegments] {
        let not_made = served.segments("demo/hello", set).await.unwrap_err();
        assert_eq!(not_made.code(), Code::FailedPrecondition);
        assert_eq!(reason_of(&not_made), Reason::StreamNotMade, "{not_made}");
        assert!(not_made.message().contains("create it again, or delete it"), "{not_made}");
    }
    assert_eq!(served.describe("demo/hello").await.state(), v1::StreamState::Creating);
    served.stores.inner().away.clear();
    served.create("demo/hello", 4).await;
    assert_eq!(served.segments("demo/hello", ActiveSegments).await.unwrap().segments.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_sent_again_is_answered_as_before() {
    let served = Served::new();
    let request = |token| v1::CreateStreamRequest {
        stream: stream("demo/hello"),
        config: Some(v1::StreamConfig { segments: 2 }),
        create_scope: true,
        token,
    };
    let create = async |token| {
        let request = Request::new(request(token));
        Controller::create_stream(&served.service, request).await.unwrap().into_inner()
    };
    let first = create(7).await;
    assert!(first.created);
    assert_eq!(create(7).await, first);
    for other in [0, 8] {
        assert!(!create(other).await.created, "another request of token {other}");
    }
    let delete = async |stream_id| {
        let request = v1::DeleteStreamRequest { stream: stream("demo/hello"), stream_id };
        Controller::delete_stream(&served.service, Request::new(request)).await
    };
    delete(first.stream_id).await.unwrap();
    delete(first.stream_id).await.unwrap();
    assert_eq!(delete(0).await.unwrap_err().code(), Code::NotFound);
    let second = create(9).await;
    delete(first.stream_id).await.unwrap();
    assert!(create(9).await == second, "the later stream of the name is left alone");
    let never = delete(second.stream_id + 1).await.unwrap_err();
    assert_eq!(reason_of(&never), Reason::StreamNotFound);
}

/// What changes something, as a client sends it.
#[derive(Debug, Clone, Copy)]
enum Verb {
    CreateScope,
    CreateStream,
    TruncateStream,
    SealStream,
    DeleteStream,
    RegisterWriter,
    DeleteWriter,
}

impl Served {
    async fn send(&self, verb: Verb, stream_id: u64) -> Result<(), Status> {
        let (service, stream, writer) = (&self.service, stream("demo/hello"), "loader".to_owned());
        match verb {
            Verb::CreateScope => {
                let request = v1::CreateScopeRequest { scope: "other".into() };
                Controller::create_scope(service, Request::new(request)).await.map(drop)
            }
            Verb::CreateStream => {
                let config = Some(v1::StreamConfig { segments: 2 });
                let stream = super::stream("demo/other");
                let request =
                    v1::CreateStreamRequest { stream, config, create_scope: true, token: 7 };
                Controller::create_stream(service, Request::new(request)).await.map(drop)
            }
            Verb::TruncateStream => self.truncate("demo/hello", 5).await,
            Verb::SealStream => {
                let request = v1::SealStreamRequest { stream };
                Controller::seal_stream(service, Request::new(request)).await.map(drop)
            }
            Verb::DeleteStream => {
                let request = v1::DeleteStreamRequest { stream, stream_id };
                Controller::delete_stream(service, Request::new(request)).await.map(drop)
            }
            Verb::RegisterWriter => {
                let mode = v1::WriterMode::WriterReplay.into();
                let request = v1::RegisterWriterRequest { stream, writer, create: true, mode };
                Controller::register_writer(service, Request::new(request)).await.map(drop)
            }
            Verb::DeleteWriter => {
                let request = v1::DeleteWriterRequest { stream, writer, epoch: 0 };
                Controller::delete_writer(service, Request::new(request)).await.map(drop)
            }
        }
    }
}

/// A stream with bytes to truncate, and a named writer.
async fn with_a_stream_and_a_writer() -> (Served, u64) {
    let served = Served::new();
    let stream_id = served.create("demo/hello", 1).await.stream_id;
    let segment = common::SegmentId { stream: common::StreamId(stream_id), ..Default::default() };
    served.stores.grow(segment, 10);
    served.send(Verb::RegisterWriter, stream_id).await.unwrap();
    (served, stream_id)
}

/// Deletions of a scope and of a writer's name say the second time that there is none: the client
/// knows whether an answer of it is missing.
#[rstest::rstest]
#[tokio::test(start_paused = true)]
async fn a_request_that_comes_again_when_it_is_done_succeeds(
    #[values(
        Verb::CreateScope,
        Verb::CreateStream,
        Verb::TruncateStream,
        Verb::SealStream,
        Verb::DeleteStream,
        Verb::RegisterWriter
    )]
    verb: Verb,
) {
    let (served, stream_id) = with_a_stream_and_a_writer().await;
    for time in 1..=3 {
        let answer = served.send(verb, stream_id).await;
        answer.unwrap_or_else(|status| panic!("time {time}: {status}"));
    }
}

#[rstest::rstest]
#[tokio::test(start_paused = true)]
async fn a_request_that_comes_again_while_it_is_carried_out_waits_for_the_same_job(
    #[values(
        Verb::CreateStream,
        Verb::TruncateStream,
        Verb::SealStream,
        Verb::DeleteStream,
        Verb::DeleteWriter
    )]
    verb: Verb,
) {
    let (served, stream_id) = with_a_stream_and_a_writer().await;
    served.stores.inner().held = true;
    let late = served.send(verb, stream_id).await.unwrap_err();
    let job = |status: &Status| proto::error::fact_of(status, "job");
    let step = |status: &Status| proto::error::fact_of(status, "step");
    let again = served.send(verb, stream_id).await.unwrap_err();
    assert!(job(&late).is_some() && job(&late) == job(&again), "{late}, {again}");
    assert!(step(&again).is_some(), "it is told how far the job is: {again}");
    served.stores.inner().held = false;
    served.stores.gate.notify_waiters();
    served.send(verb, stream_id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_before_a_client_loses_its_patience_how_far_the_job_is() {
    let served = Served::new();
    served.stores.inner().silent = Some(containers()[3]);
    let request = v1::CreateStreamRequest {
        stream: stream("demo/hello"),
        config: Some(v1::StreamConfig { segments: 4 }),
        create_scope: true,
        token: 7,
    };
    let began = tokio::time::Instant::now();
    let late = Controller::create_stream(&served.service, Request::new(request)).await;
    let late = late.unwrap_err();
    assert!(began.elapsed() <= common::limits::JOB_ANSWER_INTERVAL);
    let fact = |name| proto::error::fact_of(&late, name);
    assert_eq!((fact("step"), fact("job").is_some()), (Some("0".to_owned()), true), "{late}");
}
