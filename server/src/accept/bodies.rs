//! What requests and answers of one connection may have in memory.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use proto::error::{Reason, status};
use segmentstore::{BytePermit, BytePermits};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::PollSemaphore;

use super::requests::RequestPermit;

/// Bytes of a request that are taken in whoever else is there: nearly all requests have fewer.
const SMALL_REQUEST_BYTES: usize = 16 * 1024;

/// A request of which less than [`REQUEST_STEP_BYTES`] come in this time, and not the rest of it,
/// ends, and so does one for which nothing becomes free.
const REQUEST_STALL: Duration = Duration::from_secs(5);
const REQUEST_STEP_BYTES: usize = 64 * 1024;

/// An answer whose bytes are counted until they are on their way: it is asked for its next part
/// only while its connection has room for that.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    room: PollSemaphore,
    /// What one part takes at most, about.
    part: u32,
    taken: Option<OwnedSemaphorePermit>,
    /// Ends with the answer.
    _request: Option<RequestPermit>,
}

/// Bytes with what they took, given back when the last of them are written.
struct Held {
    bytes: Bytes,
    _taken: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Answer {
    pub(super) fn new(
        body: Body,
        room: PollSemaphore,
        part: u32,
        request: Option<RequestPermit>,
    ) -> Self {
        Self { body, room, part, taken: None, _request: request }
    }

    fn hold(&mut self, bytes: Bytes) -> Bytes {
        let mut taken = self.taken.take();
        let rest = (self.part as usize).saturating_sub(bytes.len());
        // What is not needed goes back at once.
        drop(taken.as_mut().and_then(|taken| taken.split(rest)));
        Bytes::from_owner(Held { bytes, _taken: taken })
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.taken.is_none() {
            let part = self.part;
            self.taken = ready!(self.room.poll_acquire_many(context, part));
        }
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            other => {
                // Whoever has something to send takes the room meanwhile.
                self.taken = None;
                return other;
            }
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => Frame::data(self.hold(data)),
            Err(frame) => frame,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body of which no more is taken in than there is room for.
pub(super) fn admitted<B>(body: B, room: BytePermits) -> Body
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let admitted = Admitted { body, room, taken: Vec::new(), bytes: 0, due: None, due_bytes: 0 };
    let frames = futures::stream::try_unfold(admitted, |mut admitted| async move {
        let next = tokio::time::timeout_at(admitted.due(), admitted.next()).await;
        let stalled = "a request stopped coming, or there is no memory for it; send it again";
        let next = next.map_err(|_| status(Reason::ResourceExhausted, stalled))?;
        Ok::<_, tonic::Status>(next?.map(|data| (data, admitted)))
    });
    Body::from_stream(frames)
}

struct Admitted<B> {
    body: B,
    room: BytePermits,
    taken: Vec<BytePermit>,
    bytes: usize,
    /// When this many bytes must have come; from when on the request is waited for.
    due: Option<Instant>,
    due_bytes: usize,
}

impl<B> Admitted<B> {
    fn due(&mut self) -> Instant {
        match self.due {
            Some(due) if self.bytes < self.due_bytes => due,
            _ => {
                self.due_bytes = self.bytes + REQUEST_STEP_BYTES;
                *self.due.insert(Instant::now() + REQUEST_STALL)
            }
        }
    }
}

impl<B> Admitted<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    async fn next(&mut self) -> Result<Option<Bytes>, tonic::Status> {
        let body = &mut self.body;
        let next = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        let Some(frame) = next else { return Ok(None) };
        let frame = frame.map_err(|error| tonic::Status::from_error(error.into()))?;
        // Trailers of a request say nothing.
        let Ok(data) = frame.into_data() else { return Ok(None) };
        self.bytes += data.len();
        if self.bytes > SMALL_REQUEST_BYTES {
            self.taken.push(self.room.acquire(data.len()).await);
        }
        Ok(Some(data))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use futures::StreamExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    fn answer(parts: usize, room: &Arc<Semaphore>) -> Answer {
        let parts = (0..parts).map(|_| Ok::<_, axum::Error>(Bytes::from(vec![7; 40])));
        let body = Body::from_stream(futures::stream::iter(parts));
        Answer::new(body, PollSemaphore::new(room.clone()), 50, None)
    }

    fn poll(answer: &mut Answer) -> Poll<Option<Bytes>> {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(answer)
            .poll_frame(&mut context)
            .map(|frame| frame.map(|frame| frame.unwrap().into_data().unwrap()))
    }

    /// A request of which each of `frames` is there at once, and nothing comes behind them.
    fn request(frames: &[usize], room: &BytePermits) -> Body {
        let frames: Vec<_> = frames.iter().map(|bytes| Ok(Bytes::from(vec![7; *bytes]))).collect();
        let frames = futures::stream::iter(frames).chain(futures::stream::pending());
        admitted(Body::from_stream(frames.map(|frame: Result<_, axum::Error>| frame)), room.clone())
    }

    async fn next(request: &mut Body) -> Result<usize, axum::Error> {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *request).poll_frame(context));
        Ok(frame.await.expect("it does not end")?.into_data().unwrap().len())
    }

    #[tokio::test(start_paused = true)]
    async fn small_requests_are_taken_in_whoever_is_there_and_large_ones_wait_for_room() {
        let room = BytePermits::new(100_000);
        let mut large = request(&[SMALL_REQUEST_BYTES, 60_000, 30_000], &room);
        assert_eq!(next(&mut large).await.unwrap(), SMALL_REQUEST_BYTES);
        assert_eq!(room.free_bytes(), 100_000, "the beginning of a request is free");
        assert_eq!(next(&mut large).await.unwrap(), 60_000);
        assert_eq!(next(&mut large).await.unwrap(), 30_000);
        assert_eq!(room.free_bytes(), 10_000);
        let mut other = request(&[SMALL_REQUEST_BYTES, 20_000, 1], &room);
        assert_eq!(next(&mut other).await.unwrap(), SMALL_REQUEST_BYTES);
        {
            let mut waiting = Box::pin(next(&mut other));
            assert!(futures::poll!(&mut waiting).is_pending());
            drop(large);
            assert_eq!(waiting.await.unwrap(), 20_000);
        }
        assert_eq!(room.free_bytes(), 80_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_request_for_which_nothing_becomes_free_or_that_stops_coming_is_refused() {
        let room = BytePermits::new(100_000);
        let all = room.acquire(100_000).await;
        let mut large = request(&[SMALL_REQUEST_BYTES, 20_000], &room);
        next(&mut large).await.unwrap();
        let start = Instant::now();
        let error = next(&mut large).await.unwrap_err();
        assert!(error.to_string().contains("no memory for it; send it again"), "{error}");
        assert_eq!(start.elapsed(), REQUEST_STALL);
        drop(all);
        let mut stopped = request(&[SMALL_REQUEST_BYTES, 20_000], &room);
        next(&mut stopped).await.unwrap();
        next(&mut stopped).await.unwrap();
        let error = next(&mut stopped).await.unwrap_err();
        assert!(error.to_string().contains("stopped coming"), "{error}");
        assert_eq!(room.free_bytes(), 100_000, "what it held is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_come_or_comes_byte_by_byte_is_refused() {
        let room = BytePermits::new(100_000);
        let error = next(&mut request(&[], &room)).await.unwrap_err();
        assert!(error.to_string().contains("stopped coming"), "{error}");
        let slow = futures::stream::repeat_with(|| Ok::<_, axum::Error>(Bytes::from_static(b"x")));
        let slow = slow.then(async |byte| {
            tokio::time::sleep(REQUEST_STALL / 4).await;
            byte
        });
        let mut slow = admitted(Body::from_stream(Box::pin(slow)), room);
        let mut taken = 0;
        let error = loop {
            match next(&mut slow).await {
                Ok(bytes) => taken += bytes,
                Err(error) => break error,
            }
            assert!(taken < 10, "it goes on for ever");
        };
        assert!(error.to_string().contains("stopped coming"), "{error}");
    }

    #[test]
    fn an_answer_is_not_asked_for_more_than_its_connection_has_room_for() {
        let room = Arc::new(Semaphore::new(100));
        let (mut one, mut other) = (answer(9, &room), answer(9, &room));
        let mut sent = Vec::new();
        for answer in [&mut one, &mut other] {
            let Poll::Ready(Some(data)) = poll(answer) else { panic!("there is room") };
            sent.push(data);
        }
        assert_eq!(room.available_permits(), 20);
        assert!(poll(&mut one).is_pending());
        drop(sent);
        assert!(poll(&mut one).is_ready());
    }

    #[test]
    fn an_answer_that_waits_leaves_the_room_to_others() {
        let room = Arc::new(Semaphore::new(50));
        let mut waits = answer(0, &room);
        let waiting = futures::stream::pending::<Result<Bytes, axum::Error>>();
        waits.body = Body::from_stream(waiting);
        assert!(poll(&mut waits).is_pending());
        assert!(poll(&mut answer(1, &room)).is_ready());
    }
}
