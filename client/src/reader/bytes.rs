//! The bytes of one segment in order, across lost connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{MonotonicTime, Offset};
use proto::error::{Reason, reason_of};
use proto::v1;
use tonic::Status;

use super::answers::{Answers, Failed};
pub(crate) use super::channels::Channels;
use super::channels::Lease;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::{ClientError, Result, start_offset_of};
use crate::raw::SegmentBytes;
use crate::streams::{self, SegmentPlace};

/// Where a reader of a segment ends, besides the end of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nowhere: it waits for more.
    Never,
    /// Before an offset.
    At(Offset),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct SegmentStream {
    client: Client,
    place: SegmentPlace,
    channels: Arc<Channels>,
    channel: Lease,
    next: Offset,
    end: End,
    /// What the last answer said.
    length: Offset,
    times: Vec<v1::TimePoint>,
    sealed_end: bool,
    answers: Option<Answers>,
    backoff: Backoff,
    patience: Patience,
}

/// An answer that lasted so long was one, even if it had nothing to say: a server that fails at
/// once again and again is given up, one that a quiet reader loses every hour is not.
const ANSWER_COUNTS: Duration = Duration::from_secs(1);

/// A store that was silent for so long may be one that does not come back.
const LOCATE_AFTER: Duration = Duration::from_secs(1);

/// Since when a server does not answer.
#[derive(Debug, Default)]
struct Patience {
    stalled_since: Option<MonotonicTime>,
    /// When the server began the answer that is under way.
    answered_since: Option<MonotonicTime>,
}

impl Patience {
    fn answer_begins(&mut self, now: MonotonicTime) {
        self.answered_since = Some(now);
    }

    fn heard(&mut self) {
        self.stalled_since = None;
    }

    /// A request failed or an answer ended: since when it has been like this. The second part says
    /// whether this is the first failure after an answer.
    fn lost(&mut self, now: MonotonicTime) -> (Duration, bool) {
        let answered = self.answered_since.take();
        let counts = answered.is_some_and(|since| now.since(since) >= ANSWER_COUNTS);
        if counts {
            self.stalled_since = None;
        }
        let first = self.stalled_since.is_none();
        (now.since(*self.stalled_since.get_or_insert(now)), first)
    }
}

impl SegmentStream {
    pub(crate) fn new(
        client: Client,
        place: SegmentPlace,
        channels: Arc<Channels>,
        next: Offset,
        end: End,
    ) -> Result<Self> {
        let backoff = client.inner.backoff("read");
        let channel = channels.lease(&client.inner, &place)?;
        Ok(Self {
            client,
            place,
            channels,
            channel,
            next,
            end,
            length: next,
            times: Vec::new(),
            sealed_end: false,
            answers: None,
            backoff,
            patience: Patience::default(),
        })
    }

    /// When the bytes from those on that [`SegmentStream::next`] gave last were stored; nothing
    /// where that was told before.
    pub(super) fn take_times(&mut self) -> Vec<v1::TimePoint> {
        std::mem::take(&mut self.times)
    }

    /// Goes on at another offset. What was on its way is given up.
    pub(super) fn go_on_at(&mut self, offset: Offset) {
        self.answers = None;
        self.next = offset;
        self.sealed_end = false;
    }

    /// Whether the segment is sealed and everything in it was given out.
    pub(crate) fn is_at_sealed_end(&self) -> bool {
        self.sealed_end
    }

    /// The next run of bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<SegmentBytes>> {
        let token = self.client.inner.token();
        let next = token.run_until_cancelled(self.next_while_open()).await;
        next.unwrap_or(Err(ClientError::Closed { what: "client" }))
    }

    async fn next_while_open(&mut self) -> Result<Option<SegmentBytes>> {
        loop {
            if self.sealed_end || self.has_reached_end() {
                self.answers = None;
                return Ok(None);
            }
            let answer = match &mut self.answers {
                Some(answers) => answers.next().await,
                None => match self.request().await {
                    Ok(answers) => {
                        self.answers = Some(answers);
                        self.patience.answer_begins(self.client.inner.now());
                        continue;
                    }
                    Err(status) => Err(Failed::Lost(status)),
                },
            };
            match answer {
                Ok(Some(answer)) => {
                    if let Some(bytes) = self.take(answer)? {
                        return Ok(Some(bytes));
                    }
                }
                // Only an answer says that this is the end: a server that goes away does not.
                Ok(None) => self.lost(&Status::unavailable("the server ended the stream")).await?,
                Err(Failed::Lost(status)) => self.lost(&status).await?,
                Err(Failed::Malformed(error)) => {
                    return Err(ClientError::protocol(format!(
                        "what the server answers to a read of segment {}: {error}",
                        self.place.segment
                    )));
                }
            }
        }
    }

    fn has_reached_end(&self) -> bool {
        matches!(self.end, End::At(end) if self.next >= end)
    }

    async fn request(&mut self) -> Result<Answers, Status> {
        let request = v1::ReadRequest {
            segment: Some(self.place.segment.into()),
            container: self.place.container.0,
            offset: self.next.0,
            end_offset: match self.end {
                End::At(end) => Some(end.0),
                End::Never => None,
            },
            follow: true,
        };
        let asked = Answers::request(self.channel.channel(), request);
        let timeout = self.client.inner.config.connect_timeout;
        tokio::time::timeout(timeout, asked)
            .await
            .unwrap_or_else(|_| Err(Status::unavailable(format!("no answer within {timeout:?}"))))
    }

    fn take(&mut self, answer: v1::ReadResponse) -> Result<Option<SegmentBytes>> {
        let offset = Offset(answer.offset);
        if offset != self.next {
            return Err(ClientError::protocol(format!(
                "asked for offset {} of segment {}, got {offset}",
                self.next, self.place.segment
            )));
        }
        self.backoff.reset();
        self.patience.heard();
        self.next = offset.plus(answer.data.len() as u64);
        self.length = Offset(answer.length);
        self.sealed_end = answer.end_of_segment;
        self.times = answer.times;
        let bytes = SegmentBytes { offset, data: answer.data, length: self.length };
        Ok((!bytes.data.is_empty()).then_some(bytes))
    }

    /// The connection failed: waits and goes on, unless the server said no, or for too long.
    async fn lost(&mut self, status: &Status) -> Result<()> {
        self.answers = None;
        let inner = &self.client.inner;
        let error = self.error_of(status);
        let (stalled, first) = self.patience.lost(inner.now());
        if first {
            self.backoff.reset();
        }
        let gives_up = inner.config.retry_deadline.is_some_and(|deadline| stalled >= deadline);
        // What the server reports as its own defect may be a part of its shutdown.
        if gives_up || !(error.is_transient() || reason_of(status) == Reason::Unspecified) {
            return Err(error);
        }
        tracing::debug!(segment = %self.place.segment, %error, "read again after a pause");
        tokio::time::sleep(self.backoff.pause()).await;
        if error.reason() == Some(Reason::NotLeader) || stalled >= LOCATE_AFTER {
            self.locate_again().await?;
        }
        Ok(())
    }

    /// The store may not lead the segment's container any more: asks once who does. Without an
    /// answer the next attempt is made where the segment was.
    async fn locate_again(&mut self) -> Result<()> {
        let segment = self.place.segment;
        match streams::locate_once(&self.client.inner, segment).await {
            Ok(Some(place)) if place.endpoint != self.place.endpoint => {
                tracing::debug!(%segment, endpoint = place.endpoint, "the segment has moved");
                self.channel = self.channels.lease(&self.client.inner, &place)?;
                self.place = place;
            }
            // It is where it was; or the stream does not have it any more, as its store will say.
            Ok(_) => {}
            Err(error) => tracing::debug!(%segment, %error, "the segment was not located again"),
        }
        Ok(())
    }

    fn error_of(&self, status: &Status) -> ClientError {
        if reason_of(status) == Reason::Truncated
            && let Some(start_offset) = start_offset_of(status)
        {
            let (segment, offset) = (self.place.segment, self.next);
            return ClientError::Truncated { segment, offset, start_offset };
        }
        ClientError::from_status(status, self.client.inner.endpoint_of(&self.place))
    }
}

/// A run of bytes with nothing in it is never given out.
impl SegmentBytes {
    pub(crate) fn into_data(self) -> (Bytes, Offset) {
        (self.data, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_reader_that_loses_its_connection_now_and_then_is_not_stalled() {
        let (hour, mut patience) = (Duration::from_hours(1), Patience::default());
        let mut now = MonotonicTime::default();
        for _ in 0..5 {
            patience.answer_begins(now);
            now = now.plus(hour);
            assert_eq!(patience.lost(now), (Duration::ZERO, true));
        }
    }

    #[test]
    fn a_server_whose_answers_fail_at_once_is_stalled_since_the_first() {
        let (pause, mut patience) = (Duration::from_millis(600), Patience::default());
        let mut now = MonotonicTime::default();
        assert_eq!(patience.lost(now), (Duration::ZERO, true));
        for failures in 1..5 {
            now = now.plus(pause);
            patience.answer_begins(now);
            assert_eq!(patience.lost(now), (failures * pause, false));
        }
        patience.heard();
        assert_eq!(patience.lost(now), (Duration::ZERO, true));
    }
}
