use std::net::Ipv4Addr;

use common::ByteSize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// How long requests get to end on an old connection.
const DRAIN: Duration = Duration::from_millis(20);

use crate::settings::Period;

mod bounds;
mod floods;

struct Served {
    address: SocketAddr,
    metrics: AcceptMetrics,
    connections: Connections,
    stop: CancellationToken,
    accepting: Tasks,
}

async fn served(limits: Limits, service: axum::Router) -> Served {
    let (receive, send) = (ByteSize::mib(320), ByteSize::mib(128));
    let shares = Shares::new(ByteSize::gib(4), receive, send, &limits);
    served_within(shares, limits, service).await
}

async fn served_within(shares: Shares, limits: Limits, service: axum::Router) -> Served {
    let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = AcceptMetrics::default();
    let age = ConnectionAge { limit: limits.connection_age.0, drain: DRAIN };
    let (net, rng) = (vec![Handle::current()], Rng::from_seed(1));
    let acceptor = Acceptor::new(listener, limits, age, metrics.clone(), net, shares, rng);
    let (connections, stop) = (acceptor.connections(), CancellationToken::new());
    let accepting = Tasks::new();
    accepting.spawn("accept", acceptor.run(service, stop.clone()));
    Served { address, metrics, connections, stop, accepting }
}

fn hasty(deadline: Duration) -> Limits {
    Limits { first_bytes: Period(deadline), ..Limits::default() }
}

fn greeting() -> axum::Router {
    axum::Router::new().route("/", axum::routing::get(async || "hello"))
}

/// What arrives until the server closes the connection, or fails the test after ten seconds.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    // A reset is as closed as an end.
    let _ = tokio::time::timeout(Duration::from_secs(10), read).await.expect("it was closed");
    bytes
}

#[tokio::test]
async fn a_silent_connection_and_half_a_preface_are_closed_after_the_deadline() {
    let served = served(hasty(Duration::from_millis(50)), greeting()).await;
    for said in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(said).await.unwrap();
        assert!(until_closed(&mut stream).await.is_empty());
    }
    let silent = RefusedLabels { reason: "silent" };
    assert_eq!(served.metrics.refused.get_or_create(&silent).get(), 3);
}

#[tokio::test]
async fn half_a_request_is_closed_after_the_deadline() {
    let served = served(hasty(Duration::from_millis(50)), greeting()).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    until_closed(&mut stream).await;
}

#[tokio::test]
async fn http1_is_answered_on_the_port_of_http2() {
    let served = served(Limits::default(), greeting()).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(until_closed(&mut stream).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn http2_says_its_limits_first() {
    let served = served(Limits::default(), greeting()).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "a SETTINGS frame comes first");
    let mut settings = vec![0; usize::from(head[2])];
    stream.read_exact(&mut settings).await.unwrap();
    let setting = |id: u16| {
        settings
            .chunks_exact(6)
            .find(|entry| entry[..2] == id.to_be_bytes())
            .map(|entry| u32::from_be_bytes(entry[2..].try_into().unwrap()))
    };
    let (streams, window, frame, headers) = (setting(3), setting(4), setting(5), setting(6));
    assert_eq!(streams, Some(Limits::default().requests_per_connection));
    assert_eq!((window, frame, headers), (Some(8 << 20), Some(256 << 10), Some(16 << 10)));
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed_and_the_others_go_on() {
    let limits = Limits { connections_per_address: 1, ..Limits::default() };
    let served = served(limits, greeting()).await;
    let mut first = TcpStream::connect(served.address).await.unwrap();
    let mut second = TcpStream::connect(served.address).await.unwrap();
    assert!(until_closed(&mut second).await.is_empty());
    let refused = RefusedLabels { reason: "limit_address" };
    assert_eq!(served.metrics.refused.get_or_create(&refused).get(), 1);
    first.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(until_closed(&mut first).await.ends_with(b"hello"));
}

#[tokio::test]
async fn an_old_connection_ends_after_its_requests() {
    let young = Limits { connection_age: Period(Duration::from_millis(20)), ..Limits::default() };
    let served = served(young, greeting()).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(until_closed(&mut idle).await.ends_with(b"hello"));
    assert_eq!(served.metrics.aged.get(), 1);
}

#[tokio::test]
async fn a_request_that_does_not_end_does_not_keep_an_old_connection() {
    let young = Limits { connection_age: Period(Duration::from_millis(20)), ..Limits::default() };
    let endless = axum::routing::get(std::future::pending::<()>);
    let served = served(young, axum::Router::new().route("/", endless)).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(until_closed(&mut stream).await.is_empty());
}

#[test]
fn connections_that_were_made_together_do_not_end_together() {
    let age = ConnectionAge { limit: Duration::from_secs(3_600), drain: DRAIN };
    let drawn = || {
        let mut rng = Rng::from_seed(7);
        [(); 100].map(|()| age.draw(&mut rng).unwrap())
    };
    let mut ages = drawn();
    assert_eq!(ages, drawn(), "a seed draws the same");
    ages.sort();
    assert!(ages[0] >= Duration::from_secs(3_240) && ages[99] <= Duration::from_secs(3_960));
    assert!(ages[99] - ages[0] > Duration::from_secs(360));
    let never = ConnectionAge { limit: Duration::ZERO, drain: DRAIN };
    assert_eq!(never.draw(&mut Rng::from_seed(7)), None);
}

#[tokio::test]
async fn a_stop_lets_requests_under_way_end() {
    let (begun, mut wait) = tokio::sync::mpsc::channel(1);
    let finish = CancellationToken::new();
    let gate = finish.clone();
    let slow = async move || {
        begun.send(()).await.unwrap();
        gate.cancelled().await;
        "done"
    };
    let served =
        served(Limits::default(), axum::Router::new().route("/", axum::routing::get(slow))).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    wait.recv().await.unwrap();
    served.stop.cancel();
    served.accepting.stop().await;
    assert!(TcpStream::connect(served.address).await.is_err(), "the listener is closed");
    let connections = served.connections.clone();
    let (drained, answer) = tokio::join!(connections.drain(Duration::from_secs(10)), async {
        finish.cancel();
        until_closed(&mut stream).await
    });
    assert!(drained && answer.ends_with(b"done"));
}

#[tokio::test]
async fn what_does_not_end_by_the_deadline_is_cut() {
    let served = served(
        Limits::default(),
        axum::Router::new().route("/", axum::routing::get(std::future::pending::<()>)),
    )
    .await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let accepted = async {
        while served.metrics.accepted.get() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), accepted).await.unwrap();
    // Whether the request was read already or not: the connection ends.
    served.connections.drain(Duration::from_millis(20)).await;
    assert!(until_closed(&mut stream).await.is_empty());
    assert_eq!(served.metrics.open.get(), 0);
}

#[tokio::test]
async fn a_port_in_use_is_said_with_what_to_do() {
    let first = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let error = bind(first.local_addr().unwrap()).await.unwrap_err();
    assert!(matches!(error, ServerError::PortInUse { .. }));
    assert!(error.to_string().contains("--listen"), "{error}");
}

/// What a connection's first settings say: window of a stream, bytes of a frame.
async fn windows_of(stream: &mut TcpStream) -> (u32, u32) {
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    let mut settings = vec![0; usize::from(head[2])];
    stream.read_exact(&mut settings).await.unwrap();
    let setting = |id: u16| {
        let entry = settings.chunks_exact(6).find(|entry| entry[..2] == id.to_be_bytes());
        u32::from_be_bytes(entry.unwrap()[2..].try_into().unwrap())
    };
    (setting(4), setting(5))
}

#[tokio::test]
async fn later_connections_get_smaller_windows() {
    let served = served(Limits::default(), greeting()).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        open.push((windows_of(&mut stream).await, stream));
    }
    assert_eq!(open[0].0, (8 << 20, 256 << 10));
    assert!(open.is_sorted_by(|a, b| a.0 >= b.0));
    assert_eq!(open[19].0, (65_535, 16 << 10));
}
