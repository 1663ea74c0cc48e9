//! One segment of a reader as a stream of batches of events.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use common::{Offset, SegmentId};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tonic::transport::Channel;

use super::bytes::{End, SegmentStream};
use super::frames::Frames;
use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::event::ReadEvent;
use crate::streams::SegmentPlace;

/// What a segment of a reader comes up with.
#[derive(Debug)]
pub(super) enum Step {
    Events {
        segment: SegmentId,
        /// In order, never empty.
        events: Vec<ReadEvent>,
        /// The segment's length as the server told it.
        length: Offset,
    },
    /// Nothing more comes of the segment; `sealed`: because it ends here for good.
    End { segment: SegmentId, at: Offset, sealed: bool },
}

/// The steps of one segment; ends behind an error or [`Step::End`].
pub(super) fn steps(
    client: Client,
    place: SegmentPlace,
    channel: Channel,
    from: Offset,
    end: End,
) -> BoxStream<'static, Result<Step>> {
    let source = Source {
        frames: Frames::new(place.segment, from),
        segment: place.segment,
        bytes: SegmentStream::new(client, place, channel, from, end),
    };
    let steps = stream::unfold(Some(source), |source| async move {
        let mut source = source?;
        let step = source.next().await;
        let ends = matches!(step, Err(_) | Ok(Step::End { .. }));
        Some((step, (!ends).then_some(source)))
    });
    steps.boxed()
}

struct Source {
    segment: SegmentId,
    bytes: SegmentStream,
    frames: Frames,
}

impl Source {
    async fn next(&mut self) -> Result<Step> {
        let segment = self.segment;
        while let Some(bytes) = self.bytes.next().await? {
            let (data, length) = bytes.into_data();
            let damaged = |offset, source| ClientError::Damaged { segment, offset, source };
            let events = self.frames.push(data);
            let events = events.map_err(|source| damaged(self.frames.offset(), source))?;
            if !events.is_empty() {
                return Ok(Step::Events { segment, events, length });
            }
        }
        let at = self.frames.offset();
        if !self.frames.is_complete() {
            return Err(ClientError::invalid(format!(
                "segment {segment} is to be read up to a place inside the event at offset {at}; \
                 give a stream cut as `braid stream cut` prints it"
            )));
        }
        Ok(Step::End { segment, at, sealed: self.bytes.is_at_sealed_end() })
    }
}

/// Segments on one connection: servers limit the streams of a connection.
const SEGMENTS_PER_CONNECTION: usize = 100;

/// The connections of one reader: nobody else's flow control is held up by it.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_endpoint: Mutex<BTreeMap<String, (Channel, usize)>>,
}

impl Channels {
    pub(super) fn lease(&self, client: &Client, place: &SegmentPlace) -> Result<Channel> {
        let endpoint = client.inner.endpoint_of(place);
        let mut by_endpoint = self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((channel, used)) = by_endpoint.get_mut(endpoint)
            && *used < SEGMENTS_PER_CONNECTION
        {
            *used += 1;
            return Ok(channel.clone());
        }
        let channel = client.inner.connections.data(endpoint)?;
        by_endpoint.insert(endpoint.to_owned(), (channel.clone(), 1));
        Ok(channel)
    }
}
