use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BufMut;
use common::clock::ManualClock;
use common::limits::MIB;
use http_body::Frame;
use proto::error::reason_of;
use proto::v1::append_request::Message;
use proto::v1::{AppendBlock, AppendBlocks, CloseSessions, Hello, OpenSegment, OpenSessions};
use tokio::sync::mpsc;
use tokio::time::Duration;

use super::*;

/// A body whose frames a test sends.
struct Frames(mpsc::UnboundedReceiver<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|frame| frame.map(|data| Ok(Frame::data(data))))
    }
}

#[expect(clippy::disallowed_methods, reason = "a test sends a few frames")]
fn stream(admission: &Admission) -> (mpsc::UnboundedSender<Bytes>, Requests<Frames>) {
    let (frames, receiver) = mpsc::unbounded_channel();
    (frames, Requests::new(Frames(receiver), admission.clone()))
}

fn admission(bytes: usize, reserve: usize) -> Admission {
    Admission {
        permits: BytePermits::with_reserve(bytes, reserve),
        pressure: Pressure::new(Arc::new(ManualClock::default())),
    }
}

fn blocks(sizes: &[usize]) -> AppendRequest {
    let block = |(slot, size): (usize, &usize)| AppendBlock {
        slot: slot as u32,
        data: vec![slot as u8; *size].into(),
        ..AppendBlock::default()
    };
    let blocks = sizes.iter().enumerate().map(block).collect();
    AppendRequest { message: Some(Message::Blocks(AppendBlocks { blocks })) }
}

fn encoded(request: &AppendRequest) -> Bytes {
    use proto::append_stream::encode;
    framed(&encode(request))
}

fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(message.len() as u32);
    out.put_slice(message);
    out.freeze()
}

#[tokio::test]
async fn messages_come_out_as_they_went_in_however_they_are_cut_into_frames() {
    let admission = admission(MIB, 0);
    let hello = AppendRequest { message: Some(Message::Hello(Hello::default())) };
    let sent = [hello, blocks(&[0, 1, 70_000]), blocks(&[]), blocks(&[20_000; 9]), blocks(&[3])];
    let bytes: Vec<u8> = sent.iter().flat_map(|request| encoded(request).to_vec()).collect();
    for cut in [1, 4, 5, 6, 1_000, 16_384, 65_536, usize::MAX] {
        let (frames, mut requests) = stream(&admission);
        for frame in bytes.chunks(cut.min(bytes.len())) {
            frames.send(Bytes::copy_from_slice(frame)).unwrap();
        }
        drop(frames);
        for expected in &sent {
            let (request, permit) = requests.next().await.unwrap().unwrap();
            assert_eq!(request, *expected);
            let cost = crate::append_core::AppendConnection::bytes_of(&request);
            assert!(MIB - admission.permits.free_bytes() >= cost, "{cost}");
            drop(permit);
        }
        assert!(requests.next().await.unwrap().is_none());
        assert_eq!(admission.permits.free_bytes(), MIB);
    }
}

#[tokio::test(start_paused = true)]
async fn lengths_that_are_promised_and_do_not_come_hold_up_nobody() {
    let admission = admission(12 * MIB, 10 * MIB);
    let mut promised = Vec::new();
    for _ in 0..4 {
        let (frames, mut requests) = stream(&admission);
        frames.send(Bytes::from_static(&[0, 0, 0x9f, 0, 0])).unwrap();
        let next = async move { requests.next().await };
        promised.push((frames, Box::pin(next)));
    }
    for (_, next) in &mut promised {
        assert!(futures::poll!(next).is_pending());
    }
    let start = Instant::now();
    let (frames, mut requests) = stream(&admission);
    for _ in 0..50 {
        frames.send(encoded(&blocks(&[MIB; 8]))).unwrap();
        let next = tokio::time::timeout(MESSAGE_STALL / 2, requests.next()).await;
        let (request, _permit) = next.expect("nobody holds it up").unwrap().unwrap();
        assert!(
            matches!(request.message, Some(Message::Blocks(blocks)) if blocks.blocks.len() == 8)
        );
    }
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody waited");
    for (_frames, next) in promised {
        let error = next.await.unwrap_err();
        assert_eq!(reason_of(&error), Reason::Unavailable);
        assert!(error.message().contains("0 of its 10420224 bytes"), "{error}");
    }
    assert_eq!(start.elapsed(), MESSAGE_STALL);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_trickles_in_ends_its_stream_and_gives_its_permit_back() {
    let admission = admission(MIB, 0);
    let (frames, mut requests) = stream(&admission);
    let message = encoded(&blocks(&[200_000]));
    frames.send(message.slice(..100_000)).unwrap();
    let next = tokio::task::LocalSet::new();
    let ended = next.run_until(async {
        let trickle = async {
            for byte in 100_000..200_000 {
                sleep(Duration::from_millis(100)).await;
                if frames.send(message.slice(byte..=byte)).is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            ended = requests.next() => ended,
            () = trickle => panic!("it goes on for ever"),
        }
    });
    assert!(ended.await.unwrap_err().message().contains("stopped"));
    assert_eq!(admission.permits.free_bytes(), MIB);
}

#[tokio::test]
async fn without_a_permit_nothing_more_is_taken_off_the_stream() {
    let admission = admission(MIB, 0);
    let (frames, mut requests) = stream(&admission);
    let all = admission.permits.acquire(MIB).await;
    let message = encoded(&blocks(&[300_000]));
    for frame in message.chunks(100_000) {
        frames.send(Bytes::copy_from_slice(frame)).unwrap();
    }
    {
        let mut next = Box::pin(requests.next());
        assert!(futures::poll!(&mut next).is_pending());
    }
    assert_eq!(requests.body.0.len(), 3, "one of four frames is in hand");
    drop(all);
}

#[tokio::test]
async fn more_items_than_a_message_may_have_are_refused_undecoded() {
    let admission = admission(16 * MIB, 10 * MIB);
    let refused = async |message: &[u8]| {
        let (frames, mut requests) = stream(&admission);
        frames.send(framed(message)).unwrap();
        requests.next().await.unwrap_err()
    };
    // Five million empty blocks: two bytes each.
    let bomb = [&[0x1a, 0x80, 0xad, 0xe2, 0x04][..], &[0x0a, 0].repeat(5_000_000)].concat();
    let error = refused(&bomb).await;
    assert!(error.message().contains("5000000 blocks"), "{error}");
    let open = OpenSessions { segments: vec![OpenSegment::default(); 4_097], ..Default::default() };
    let open = AppendRequest { message: Some(Message::Open(open)) };
    let error = refused(&proto::append_stream::encode(&open)).await;
    assert!(error.message().contains("4097 segments"), "{error}");
    let close = CloseSessions { slots: vec![1; OPEN_SEGMENTS_MAX + 1] };
    let close = AppendRequest { message: Some(Message::Close(close)) };
    let error = refused(&proto::append_stream::encode(&close)).await;
    assert!(error.message().contains("4097 sessions"), "{error}");
    assert_eq!(admission.permits.free_bytes(), 16 * MIB);
}

#[tokio::test]
async fn compressed_too_large_malformed_and_cut_messages_are_refused() {
    let admission = admission(MIB, 0);
    for (bytes, word) in [
        (&[1, 0, 0, 0, 1, 0][..], "compressed"),
        (&[0, 0x7f, 0, 0, 0], "too large"),
        (&[0, 0, 0, 0, 1, 0x1a], "decoded"),
        (&[0, 0, 0, 0, 2, 0x1a], "ended"),
        (&[0, 0], "ended"),
    ] {
        let (frames, mut requests) = stream(&admission);
        frames.send(Bytes::copy_from_slice(bytes)).unwrap();
        drop(frames);
        let error = requests.next().await.unwrap_err();
        assert!(error.message().contains(word), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn under_pressure_a_message_waits_before_it_takes_a_permit() {
    let admission = admission(2 * MIB, 0);
    let (frames, mut requests) = stream(&admission);
    let start = Instant::now();
    frames.send(encoded(&blocks(&[MIB / 2]))).unwrap();
    requests.next().await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    admission.pressure.register("test", Box::new(|| 0.5));
    frames.send(encoded(&blocks(&[MIB / 2]))).unwrap();
    let next = requests.next();
    tokio::pin!(next);
    let early = tokio::time::timeout(Duration::from_millis(124), &mut next).await;
    assert!(early.is_err());
    assert_eq!(admission.permits.free_bytes(), 2 * MIB);
    let (_, permit) = next.await.unwrap().unwrap();
    assert!((125..130).contains(&start.elapsed().as_millis()));
    assert!(admission.permits.free_bytes() < 2 * MIB - MIB / 2);
    drop(permit);
}
