//! Creating and deleting while answers are lost, and while the server works for long.

use proto::error::{Reason, status_with};
use tonic::Status;

use super::*;
use crate::StreamConfig;

const ONE: StreamConfig = StreamConfig { segments: 1, create_scope: true };

/// How a connection that broke looks like: it says nothing of what was done.
fn lost() -> Status {
    Status::unavailable("the connection broke")
}

/// The server is at work on a job, which is at this step.
fn at_work(step: u32) -> Status {
    let facts = [("job", "1-7".to_owned()), ("step", step.to_string())];
    let again = Some(Duration::from_millis(60));
    status_with(Reason::Unavailable, "job 1-7 is not done yet and goes on", facts, again)
}

fn instead(fake: &Fake, answers: impl IntoIterator<Item = Status>) {
    fake.state().managed.instead.extend(answers);
}

#[tokio::test]
async fn a_creation_whose_answers_were_lost_says_that_it_created_the_stream() {
    let (fake, client) = start(1).await;
    let made: ScopedStream = "demo/made".parse().unwrap();
    instead(&fake, [lost(), lost()]);
    let first = client.streams().create_stream(&made, ONE).await.unwrap();
    assert!(first.created);
    let second = client.streams().create_stream(&made, ONE).await.unwrap();
    assert_eq!((second.id, second.created), (first.id, false), "that was another request");
    assert_eq!(fake.state().managed.made, 1);
}

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_succeeds_and_leaves_a_later_stream_alone() {
    let (fake, client) = start(1).await;
    let made: ScopedStream = "demo/made".parse().unwrap();
    client.streams().create_stream(&made, ONE).await.unwrap();
    instead(&fake, [lost(), lost()]);
    client.streams().delete(&made).await.unwrap();
    assert!(fake.state().managed.streams.is_empty());
    let gone = client.streams().delete(&made).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "there was none from the beginning");
    // Somebody makes a stream of the name between two attempts.
    client.streams().create_stream(&made, ONE).await.unwrap();
    let id = client.streams().describe(&made).await.unwrap().summary.id;
    fake.state().managed.streams.insert("demo/made".into(), (id.0 + 1, 0));
    let request = proto::v1::DeleteStreamRequest {
        stream: Some(proto::v1::StreamName { scope: "demo".into(), stream: "made".into() }),
        stream_id: id.0,
    };
    let again = client.inner.controller_job(|mut c| {
        let request = request.clone();
        async move { c.delete_stream(request).await }
    });
    again.await.0.unwrap();
    assert_eq!(fake.state().managed.streams.len(), 1, "it is another stream");
}

#[tokio::test]
async fn a_scope_is_created_and_deleted_once_although_answers_were_lost() {
    let (fake, client) = start(1).await;
    let streams = client.streams();
    let scope = "other".parse().unwrap();
    instead(&fake, [lost()]);
    assert!(streams.create_scope(&scope).await.unwrap());
    assert!(!streams.create_scope(&scope).await.unwrap(), "that was another request");
    instead(&fake, [lost()]);
    streams.delete_scope(&scope).await.unwrap();
    let gone = streams.delete_scope(&scope).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "there was none from the beginning");
}

#[rstest::rstest]
#[case::the_connection_broke(lost())]
#[case::the_server_was_still_at_work(at_work(0))]
#[tokio::test]
async fn a_writers_deletion_that_is_sent_again_succeeds(#[case] instead_of_it: Status) {
    let (fake, client) = start(1).await;
    let name: common::WriterName = "loader".parse().unwrap();
    let writer = client.event_writer(&stream()).named(name.clone()).continues();
    writer.open().await.unwrap().close().await.unwrap();
    instead(&fake, [instead_of_it]);
    client.streams().delete_writer(&stream(), &name).await.unwrap();
    let gone = client.streams().delete_writer(&stream(), &name).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "there was none from the beginning");
}

#[tokio::test]
async fn what_the_server_works_on_is_waited_for_as_long_as_it_gets_on() {
    let fake = Fake::start().await;
    let config = ClientConfig { request_timeout: Duration::from_millis(200), ..config(&fake) };
    let client = Client::connect_with(config, Rng::from_seed(1)).await.unwrap();
    let made: ScopedStream = "demo/made".parse().unwrap();
    // Together they take more than the request timeout, and each is a step further.
    instead(&fake, (0..10).map(at_work));
    let created = client.streams().create_stream(&made, ONE).await.unwrap();
    assert!(created.created);
    // A job that stands still is given up, with what the server says of it.
    instead(&fake, (0..100).map(|_| at_work(3)));
    let given_up = client.streams().create_stream(&made, ONE).await.unwrap_err();
    assert_eq!(given_up.kind(), ErrorKind::Unavailable);
    assert!(given_up.to_string().contains("goes on"), "{given_up}");
}
