//! What connections and requests there may be in all, and how those beyond are refused.

use std::pin::Pin;

use proto::v1::segment_store_client::SegmentStoreClient;
use proto::v1::{GetSegmentInfoRequest, ReadRequest};
use rstest::rstest;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::*;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A service that counts the requests that it leaves unanswered.
fn unanswering() -> (axum::Router, Arc<Semaphore>) {
    let begun = Arc::new(Semaphore::new(0));
    let count = begun.clone();
    let wait = async move || {
        count.add_permits(1);
        std::future::pending::<()>().await;
    };
    (axum::Router::new().fallback(wait), begun)
}

async fn store(served: &Served) -> SegmentStoreClient<Channel> {
    SegmentStoreClient::connect(format!("http://{}", served.address)).await.unwrap()
}

/// A quarter of it in steps of 8 KiB: four requests, one for each connection.
const ROOM_FOR_FOUR: ByteSize = ByteSize(4 * 4 * 8 * 1_024);

async fn read(mut store: SegmentStoreClient<Channel>) -> Result<(), Status> {
    store.read(ReadRequest::default()).await.map(drop)
}

async fn info(mut store: SegmentStoreClient<Channel>) -> Result<(), Status> {
    store.get_segment_info(GetSegmentInfoRequest::default()).await.map(drop)
}

async fn ask(store: SegmentStoreClient<Channel>) -> Status {
    let asked = tokio::time::timeout(PATIENCE, info(store)).await;
    asked.expect("it is refused at once").unwrap_err()
}

/// The request once the service has it; dropping it ends it.
async fn begin<F>(asked: F, begun: &Semaphore) -> Pin<Box<F>>
where
    F: Future<Output = Result<(), Status>>,
{
    let mut asked = Box::pin(asked);
    tokio::select! {
        answer = &mut asked => panic!("nothing answers it: {answer:?}"),
        begun = tokio::time::timeout(PATIENCE, begun.acquire()) => {
            begun.expect("it begins").unwrap().forget();
        }
    }
    asked
}

#[tokio::test]
async fn requests_beyond_what_the_server_has_memory_for_are_refused_whoever_asks() {
    let (service, begun) = unanswering();
    let limits = Limits::default();
    let shares = Shares::new(ROOM_FOR_FOUR, ByteSize::mib(30), ByteSize::mib(8), &limits);
    let requests = shares.requests().clone();
    let served = served_within(shares, limits, service).await;
    let mut under_way = Vec::new();
    for _ in 0..4 {
        let store = store(&served).await;
        under_way.push(begin(read(store), &begun).await);
    }
    let refused = ask(store(&served).await).await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("as many requests under way"), "{refused}");
    assert!(refused.message().contains("`memory.limit`"), "{refused}");
    under_way.pop();
    let free = async {
        while requests.free() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("a request that was given up is over");
    let _begun = begin(read(store(&served).await), &begun).await;
}

#[tokio::test]
async fn one_connection_full_of_reads_leaves_places_to_others_and_to_control_calls() {
    let (service, begun) = unanswering();
    let limits = Limits::default();
    // Sixteen places, two of them for control calls alone.
    let limit = ByteSize(ROOM_FOR_FOUR.0 * 4);
    let shares = Shares::new(limit, ByteSize::mib(30), ByteSize::mib(8), &limits);
    let served = served_within(shares, limits, service).await;
    let mut under_way = Vec::new();
    let greedy = store(&served).await;
    for _ in 0..4 {
        under_way.push(begin(read(greedy.clone()), &begun).await);
    }
    let refused = tokio::time::timeout(PATIENCE, read(greedy.clone())).await;
    let refused = refused.expect("it is refused at once").unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("this connection has"), "{refused}");
    for _ in 0..5 {
        let other = store(&served).await;
        for _ in 0..2 {
            under_way.push(begin(read(other.clone()), &begun).await);
        }
    }
    let refused = tokio::time::timeout(PATIENCE, read(store(&served).await)).await;
    let refused = refused.expect("it is refused at once").unwrap_err();
    assert!(refused.message().contains("this server has"), "{refused}");
    let _calls =
        [begin(info(greedy), &begun).await, begin(info(store(&served).await), &begun).await];
}

#[rstest]
#[case::a_read("/braid.v1.SegmentStore/Read")]
#[case::a_control_call("/braid.v1.SegmentStore/GetSegmentInfo")]
#[tokio::test]
async fn a_request_whose_message_does_not_come_gives_its_place_back(#[case] path: &str) {
    // As the services do: the message is waited for.
    let (over, mut ended) = tokio::sync::mpsc::channel(1);
    let take = async move |request: axum::extract::Request| {
        let taken = axum::body::to_bytes(request.into_body(), 4_096).await;
        over.send(taken.map_err(|error| error.to_string())).await.unwrap();
    };
    let service = axum::Router::new().fallback(take);
    let limits = Limits::default();
    let shares = Shares::new(ROOM_FOR_FOUR, ByteSize::mib(30), ByteSize::mib(8), &limits);
    let requests = shares.requests().clone();
    let served = served_within(shares, limits, service).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(&floods::request_without_end(path)).await.unwrap();
    let taken = tokio::time::timeout(PATIENCE * 3, ended.recv()).await;
    let error = taken.expect("its message is not waited for for ever").unwrap().unwrap_err();
    assert!(error.contains("a request stopped coming"), "{error}");
    let free = async {
        while requests.free() < 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("its place is given back");
}

/// Waits until so many connections were refused for this reason.
async fn refused(served: &Served, reason: &'static str, count: u64) {
    let labels = RefusedLabels { reason };
    let refused = served.metrics.refused.get_or_create(&labels).clone();
    let wait = async {
        while refused.get() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it is refused");
}

#[tokio::test]
async fn connections_beyond_what_the_server_has_memory_for_are_closed_and_others_go_on() {
    let limits = Limits::default();
    // Two thirds of it in steps of 8 KiB: two.
    let send = ByteSize(24 * 1_024);
    let shares = Shares::new(ByteSize::mib(256), ByteSize::mib(30), send, &limits);
    let served = served_within(shares, limits, greeting()).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        windows_of(&mut stream).await;
        open.push(stream);
    }
    let mut third = TcpStream::connect(served.address).await.unwrap();
    third.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    assert!(until_closed(&mut third).await.is_empty());
    refused(&served, "limit_memory", 1).await;
    // People and monitoring take nothing of it.
    let mut page = TcpStream::connect(served.address).await.unwrap();
    page.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(until_closed(&mut page).await.ends_with(b"hello"));
}

#[tokio::test]
async fn connections_of_http1_have_a_bound_of_their_own() {
    let served = served(Limits::default(), greeting()).await;
    let mut open = Vec::new();
    for _ in 0..HTTP1_CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        open.push(stream);
    }
    let mut next = TcpStream::connect(served.address).await.unwrap();
    next.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(until_closed(&mut next).await.is_empty());
    refused(&served, "limit_http1", 1).await;
    windows_of(&mut TcpStream::connect(served.address).await.unwrap()).await;
}
