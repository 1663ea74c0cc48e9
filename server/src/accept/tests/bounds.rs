//! What connections and requests there may be in all, and how those beyond are refused.

use proto::v1::segment_store_client::SegmentStoreClient;
use proto::v1::{GetSegmentInfoRequest, ReadRequest};
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

async fn ask(mut store: SegmentStoreClient<Channel>) -> Status {
    let asked = store.get_segment_info(GetSegmentInfoRequest::default());
    tokio::time::timeout(PATIENCE, asked).await.expect("it is refused at once").unwrap_err()
}

#[tokio::test]
async fn requests_beyond_what_the_server_has_memory_for_are_refused_whoever_asks() {
    let (service, begun) = unanswering();
    // A quarter of it in steps of 8 KiB: three.
    let limit = ByteSize(3 * 4 * 8 * 1_024);
    let limits = Limits::default();
    let shares = Shares::new(limit, ByteSize::mib(30), ByteSize::mib(8), &limits);
    let requests = shares.requests().clone();
    let served = served_within(shares, limits, service).await;
    let mut under_way = Vec::new();
    for _ in 0..3 {
        let mut store = store(&served).await;
        let read = async move { store.read(ReadRequest::default()).await };
        let mut read = Box::pin(read);
        tokio::select! {
            answer = &mut read => panic!("nothing answers it: {answer:?}"),
            begun = tokio::time::timeout(PATIENCE, begun.acquire()) => {
                begun.expect("it begins").unwrap().forget();
            }
        }
        under_way.push(read);
    }
    let refused = ask(store(&served).await).await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("as many requests under way"), "{refused}");
    assert!(refused.message().contains("`memory.limit`"), "{refused}");
    under_way.pop();
    let free = tokio::time::timeout(PATIENCE, requests.acquire()).await;
    drop(free.expect("a request that its client gave up is over").unwrap());
    let mut store = store(&served).await;
    tokio::select! {
        answer = store.read(ReadRequest::default()) => panic!("nothing answers it: {answer:?}"),
        begun = tokio::time::timeout(PATIENCE, begun.acquire()) => drop(begun.expect("it begins")),
    }
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
