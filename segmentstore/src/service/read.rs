//! The shell around a reader.

use common::{ContainerId, Offset};
use futures::stream::{BoxStream, StreamExt, try_unfold};
use proto::convert::{FieldError, segment_id};
use proto::v1::{self, ReadRequest, ReadResponse};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::read_status;
use crate::read::{ReadChunk, ReadError, ReadRange, SegmentReader, TimePoint};
use crate::store::SegmentStore;

/// The messages of one read.
pub(super) type ReadOutput = BoxStream<'static, Result<ReadResponse, Status>>;

/// Why a read cannot begin.
pub(super) enum OpenError {
    Field(FieldError),
    Read(ReadError),
}

pub(super) async fn open(
    store: &SegmentStore,
    request: ReadRequest,
    message_bytes: usize,
) -> Result<ReadOutput, OpenError> {
    let segment = segment_id(request.segment).map_err(OpenError::Field)?;
    let range = ReadRange {
        offset: Offset(request.offset),
        end: request.end_offset.map(Offset),
        follow: request.follow,
    };
    let reader = store.read(ContainerId(request.container), segment, range).await;
    let reader = reader.map_err(OpenError::Read)?.with_messages_of(message_bytes);
    let state = (reader, store.tasks().token());
    Ok(try_unfold(state, |(mut reader, stopping)| async move {
        let chunk = next(&mut reader, &stopping).await.map_err(|error| read_status(&error))?;
        Ok(chunk.map(|chunk| (response(chunk), (reader, stopping))))
    })
    .boxed())
}

/// The next chunk, or an error when the server stops while the reader waits.
async fn next(
    reader: &mut SegmentReader,
    stopping: &CancellationToken,
) -> Result<Option<ReadChunk>, ReadError> {
    stopping.run_until_cancelled(reader.next()).await.unwrap_or(Err(ReadError::Stopping))
}

fn response(chunk: ReadChunk) -> ReadResponse {
    ReadResponse {
        offset: chunk.offset.0,
        data: chunk.data,
        length: chunk.length.0,
        end_of_segment: chunk.end_of_segment,
        times: chunk.times.into_iter().map(time_point).collect(),
    }
}

fn time_point(point: TimePoint) -> v1::TimePoint {
    v1::TimePoint {
        offset: point.offset.0,
        first_micros: point.first.as_micros(),
        last_micros: point.last.as_micros(),
    }
}
