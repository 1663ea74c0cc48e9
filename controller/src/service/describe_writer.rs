//! Describe a named writer, with the segments that may know what it stored, in pages. What they know
//! their stores tell: the controller has no part in it.

use std::ops::Bound;

use common::{ScopedStream, SegmentNumber, StreamEpoch, WriterName};
use proto::convert::writer_bytes;
use proto::v1;

use crate::machine::{ControllerMachine, SegmentKey, both};
use crate::outcome::Refusal;
use crate::service::get_segments::place;
use crate::service::list_writers::{living, summary};
use crate::service::page::{PageRequest, key_token};
use crate::service::{ControllerService, ServiceError, fields};
use crate::settings::PAGE_ITEMS_DEFAULT;

impl ControllerService {
    pub(super) async fn describe_writer(
        &self,
        request: v1::DescribeWriterRequest,
    ) -> Result<v1::DescribeWriterResponse, ServiceError> {
        let stream = fields::stream(request.stream)?;
        let writer: WriterName = fields::name("writer", &request.writer)?;
        let page = PageRequest::new(request.page, PAGE_ITEMS_DEFAULT)?;
        let kind = format!("writer:{stream}:{writer}");
        let from = page.start_key(&kind)?.map(segment_key);
        let most = page.size + 1;
        let found = self.query(move |machine| describe(machine, &stream, &writer, from, most));
        let mut described = found.await??;
        let places = std::mem::take(&mut described.segments);
        let page = page.cut(places, |_, next| {
            let id = next.segment.unwrap_or_default();
            key_token(&kind, u64::from(id.epoch) << 32 | u64::from(id.number))
        });
        Ok(v1::DescribeWriterResponse {
            segments: page.items,
            next_token: page.next_token,
            ..described
        })
    }
}

fn segment_key(token: u64) -> SegmentKey {
    (StreamEpoch((token >> 32) as u32), SegmentNumber(token as u32))
}

fn describe(
    machine: &ControllerMachine,
    stream: &ScopedStream,
    writer: &WriterName,
    from: Option<SegmentKey>,
    most: usize,
) -> Result<v1::DescribeWriterResponse, Refusal> {
    let found = living(machine.stream(stream)?)?;
    let Some(known) = found.writers.get(writer) else {
        let (stream, writer) = (stream.clone(), writer.to_string());
        return Err(Refusal::WriterNotFound { stream, writer });
    };
    let range = (from.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded);
    let keys = both(&found.removed, &found.segments, range).take(most);
    let places = keys.filter_map(|key| place(machine, found, key));
    Ok(v1::DescribeWriterResponse {
        summary: Some(summary(writer, known)),
        writer: writer_bytes(known.id),
        stream_id: found.id.0,
        segments: places.map(Into::into).collect(),
        next_token: String::new(),
    })
}
