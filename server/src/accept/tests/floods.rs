//! HTTP/2 peers that make the server work for nothing are cut off, and only they.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rstest::rstest;

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `ENHANCE_YOUR_CALM`.
const CALM: u32 = 11;
/// `GET http://x/`, as HPACK.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'x'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn greeted() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()
}

/// The error codes of the GOAWAY frames among what the server said.
fn goodbyes(mut said: &[u8]) -> Vec<u32> {
    let mut codes = Vec::new();
    while let Some((head, rest)) = said.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        if head[3] == GOAWAY {
            codes.push(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        said = rest;
    }
    codes
}

/// A service that counts its requests.
fn counting() -> (axum::Router, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::default());
    let counted = count.clone();
    let answer = axum::routing::get(async move || {
        counted.fetch_add(1, Ordering::SeqCst);
        "hello"
    });
    (axum::Router::new().route("/", answer), count)
}

/// Sends all of it and returns what the server said until it closed the connection.
async fn flood(served: &Served, bytes: Vec<u8>) -> Vec<u8> {
    let stream = TcpStream::connect(served.address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let sending = async move {
        // The server may close at any byte.
        let _ = write.write_all(&bytes).await;
        // The connection stays open from this side.
        write
    };
    let receiving = async {
        let mut said = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(10), read.read_to_end(&mut said));
        // A reset is as closed as an end.
        let _ = closed.await.expect("the flood is cut off");
        said
    };
    tokio::join!(receiving, sending).0
}

async fn assert_serves_others(served: &Served) {
    let mut other = TcpStream::connect(served.address).await.unwrap();
    other.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(until_closed(&mut other).await.ends_with(b"hello"));
}

#[tokio::test]
async fn requests_that_are_reset_as_soon_as_they_are_made_end_the_connection() {
    let (service, count) = counting();
    let served = served(Limits::default(), service).await;
    let mut bytes = greeted();
    for stream in (1..2_000).step_by(2) {
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET));
        bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let said = flood(&served, bytes).await;
    assert_eq!(goodbyes(&said).last(), Some(&CALM), "{said:?}");
    assert!(count.load(Ordering::SeqCst) < 100, "most requests were never begun");
    assert_serves_others(&served).await;
}

const POST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 1, b'x'];
const DATA: u8 = 0;

/// A connection with a POST to `path` of which no byte comes and that does not end.
pub(super) fn request_without_end(path: &str) -> Vec<u8> {
    // Index 4 is `:path`; a literal without indexing.
    let path = [&[0x04, path.len() as u8], path.as_bytes()].concat();
    let headers = [&[0x83, 0x86, 0x41, 1, b'x'], &path[..]].concat();
    [greeted(), frame(HEADERS, END_HEADERS, 1, &headers)].concat()
}

/// A service that takes nothing of what it is sent.
fn taking_nothing() -> axum::Router {
    let wait = async |request: axum::extract::Request| {
        std::future::pending::<()>().await;
        drop(request);
    };
    let hello = axum::routing::get(async || "hello");
    axum::Router::new().route("/", hello.post(wait))
}

/// Each is some hundred bytes in memory until it is taken, whatever the window counts for it.
#[tokio::test]
async fn frames_of_one_byte_that_nobody_takes_end_the_connection_long_before_its_window_does() {
    let served = served(Limits::default(), taking_nothing()).await;
    let begin = [greeted(), frame(HEADERS, END_HEADERS, 1, POST)].concat();
    let window = 8 << 20;
    let bytes = [begin, frame(DATA, 0, 1, b"x").repeat(window / 64)].concat();
    let said = flood(&served, bytes).await;
    assert_eq!(goodbyes(&said).last(), Some(&CALM), "{said:?}");
    assert_serves_others(&served).await;
}

#[rstest]
#[case::of_empty_frames(b"")]
#[case::of_headers(&[0x00, 1, b'a', 1, b'b'])]
#[tokio::test]
async fn headers_that_never_end_end_the_connection(#[case] more: &[u8]) {
    let (service, count) = counting();
    let served = served(Limits::default(), service).await;
    let mut bytes = [greeted(), frame(HEADERS, END_STREAM, 1, GET)].concat();
    for _ in 0..100_000 {
        bytes.extend(frame(CONTINUATION, 0, 1, more));
    }
    let said = flood(&served, bytes).await;
    assert_eq!(goodbyes(&said).last(), Some(&CALM), "{said:?}");
    assert_eq!(count.load(Ordering::SeqCst), 0);
    assert_serves_others(&served).await;
}

#[rstest]
#[case::within(1, 1)]
#[case::beyond(2, 0)]
#[tokio::test]
async fn headers_are_taken_up_to_their_limit(#[case] headers: usize, #[case] begun: usize) {
    let (service, count) = counting();
    let served = served(Limits::default(), service).await;
    // HPACK literals of 12 KiB without indexing; the length is a prefixed integer of seven bits.
    let value = vec![b'v'; 12 << 10];
    let rest = value.len() - 127;
    let length = [0x7f, (rest & 0x7f) as u8 | 0x80, (rest >> 7) as u8];
    let header = [&[0x00, 1, b'a'], &length[..], &value].concat();
    let block = [GET, &header.repeat(headers)].concat();
    let (first, last) = block.split_at(block.len().min(16 << 10));
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let begin = frame(HEADERS, END_STREAM, 1, first);
    let end = frame(CONTINUATION, END_HEADERS, 1, last);
    stream.write_all(&[greeted(), begin, end].concat()).await.unwrap();
    let answered = tokio::time::timeout(Duration::from_secs(10), first_of(&mut stream, 1));
    answered.await.expect("an answer or the end");
    assert_eq!(count.load(Ordering::SeqCst), begun);
}

/// Waits for a frame of the stream, or the end of the connection.
async fn first_of(connection: &mut TcpStream, stream: u32) {
    let mut head = [0; 9];
    while connection.read_exact(&mut head).await.is_ok() {
        if head[5..] == stream.to_be_bytes() {
            return;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if connection.read_exact(&mut vec![0; length]).await.is_err() {
            return;
        }
    }
}
