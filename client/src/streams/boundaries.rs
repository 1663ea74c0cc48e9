//! Whether a truncation cuts an event in two. The store does not know where events begin; the
//! client can see it, with one look at each segment.

use std::sync::Arc;

use bytes::BytesMut;
use common::{Offset, ScopedStream, SegmentId, StreamCut};
use futures::{TryStreamExt, stream};
use proto::error::Reason;
use proto::framing::{self, FramingError};

use super::{SegmentInfo, SegmentPlace};
use crate::client::{Client, Inner};
use crate::error::{ClientError, Result};
use crate::reader::bytes::{Channels, End, SegmentStream};

/// Segments that are looked at side by side.
const LOOKS_IN_FLIGHT: usize = 16;

/// What begins at an offset.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Event,
    /// Bytes that are no event.
    Else,
    /// Nothing yet, or nothing any more: no event is cut there.
    Nothing,
}

/// Refuses a cut that lies inside an event. Segments whose bytes are not framed as events at all
/// are nobody's business but their owner's.
pub(super) async fn check(
    client: &Arc<Inner>,
    stream: &ScopedStream,
    cut: &StreamCut,
) -> Result<()> {
    let inside: Vec<SegmentId> =
        cut.segments().filter(|(_, offset)| *offset > Offset::ZERO).map(|(id, _)| id).collect();
    let (places, infos) = super::cuts::located(client, &inside).await?;
    let client = Client { inner: client.clone() };
    let channels = Arc::new(Channels::default());
    let checks = places.into_iter().zip(infos).filter_map(|(place, info)| {
        let offset = cut.get(place.segment)?;
        let looker = Looker { client: client.clone(), channels: channels.clone(), place };
        Some(Ok(async move { looker.check(stream, offset, info).await }))
    });
    stream::iter(checks).try_buffer_unordered(LOOKS_IN_FLIGHT).try_collect().await
}

struct Looker {
    client: Client,
    channels: Arc<Channels>,
    place: SegmentPlace,
}

impl Looker {
    async fn check(&self, stream: &ScopedStream, offset: Offset, info: SegmentInfo) -> Result<()> {
        // Beyond its length is for the server to refuse; blocks end where events end.
        if offset <= info.start_offset || offset >= info.length {
            return Ok(());
        }
        if self.look(offset, info.length).await? != Found::Else
            || self.look(info.start_offset, info.length).await? != Found::Event
        {
            return Ok(());
        }
        Err(ClientError::invalid(format!(
            "no event begins at offset {offset} of segment {} of stream `{stream}`: everybody who \
             reads from the head would find a damaged event there; truncate to a cut as `braid \
             stream cut` prints it",
            self.place.segment
        )))
    }

    /// What begins at `offset`, which lies before `length`.
    async fn look(&self, offset: Offset, length: Offset) -> Result<Found> {
        let (client, place) = (self.client.clone(), self.place.clone());
        let channels = self.channels.clone();
        let mut bytes = SegmentStream::new(client, place, channels, offset, End::At(length))?;
        let mut gathered = BytesMut::new();
        loop {
            match framing::frame_length(&gathered) {
                Err(_) => return Ok(Found::Else),
                Ok(Some(frame)) if gathered.len() >= frame => {
                    return Ok(match framing::take_event(&mut gathered.freeze()) {
                        // One of a newer client is an event, too: its checksum is right.
                        Ok(_) | Err(FramingError::UnknownFlags(_)) => Found::Event,
                        Err(_) => Found::Else,
                    });
                }
                // A length that reaches beyond the end is none.
                Ok(Some(frame)) if offset.plus(frame as u64) > length => return Ok(Found::Else),
                Ok(_) => {}
            }
            match bytes.next().await {
                Ok(Some(run)) => gathered.extend_from_slice(&run.data),
                Ok(None) => return Ok(Found::Else),
                Err(ClientError::Truncated { .. }) => return Ok(Found::Nothing),
                Err(error) if error.reason() == Some(Reason::SegmentNotFound) => {
                    return Ok(Found::Nothing);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
