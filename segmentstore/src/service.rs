//! The gRPC service: thin shells around append connections, readers and questions to containers.

mod append;
mod connection;
mod get_writer_states;
mod read;
mod requests;
mod uncopied;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::limits::{DATA_MESSAGE_BYTES_MAX, PAGE_ITEMS_MAX};
use common::{ContainerId, SegmentId, WallTime};
use proto::convert::{FieldError, segment_id};
use proto::error::{Reason, status, status_with};
use proto::v1;
use proto::v1::segment_store_server::{SegmentStore as SegmentStoreApi, SegmentStoreServer};
use replica::ProposeError;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Request, Response, Status, Streaming};

pub use self::connection::ConnectionLimits;
pub use self::uncopied::{StoreServer, admits, moves_events};
use crate::container::SegmentView;
use crate::handle::ContainerError;
use crate::limits::RETRY_AFTER;
use crate::read::ReadError;
use crate::store::SegmentStore;

/// Serves [`SegmentStore`] over gRPC.
#[derive(Debug, Clone)]
pub struct SegmentStoreService {
    store: SegmentStore,
    /// Questions to containers that may begin.
    questions: Arc<Semaphore>,
}

impl SegmentStoreService {
    pub fn new(store: SegmentStore) -> Self {
        let questions = Arc::new(Semaphore::new(store.questions_max()));
        Self { store, questions }
    }

    /// The service with the message sizes of the data path.
    pub fn into_server(self) -> StoreServer {
        let generated = SegmentStoreServer::new(self.clone())
            .max_decoding_message_size(DATA_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(DATA_MESSAGE_BYTES_MAX);
        StoreServer::new(self, generated)
    }

    async fn open_read(
        &self,
        request: v1::ReadRequest,
        message_bytes: usize,
    ) -> Result<read::ReadOutput, Status> {
        read::open(&self.store, request, message_bytes).await.map_err(|error| match error {
            read::OpenError::Field(error) => field_status(&error),
            read::OpenError::Read(error) => self.read_error(&error),
        })
    }

    fn refuse(&self, reason: Reason, status: Status) -> Status {
        self.store.metrics().count_refused(reason);
        status
    }

    /// The right to ask containers, for as long as it is held.
    fn question(&self) -> Result<SemaphorePermit<'_>, Status> {
        self.questions.try_acquire().map_err(|_| {
            let message = format!(
                "{} questions to segments wait for their answers; ask again later, or raise \
                 `limits.queries` of the server",
                self.store.questions_max()
            );
            let reason = Reason::ResourceExhausted;
            self.refuse(reason, status_with(reason, message, [], Some(RETRY_AFTER)))
        })
    }

    fn read_error(&self, error: &ReadError) -> Status {
        self.refuse(error.reason(), read_status(error))
    }

    async fn info_of(
        &self,
        container: ContainerId,
        segments: Vec<(usize, SegmentId)>,
    ) -> Result<Vec<(usize, v1::SegmentInfo)>, Status> {
        let ask = move |machine: &crate::ContainerMachine| {
            let info = |(at, id)| (at, info(id, machine.view(id)));
            segments.into_iter().map(info).collect()
        };
        let infos = self.store.containers().ask(container, ask).await;
        infos.map_err(|error| self.refuse(error.reason(), container_status(&error)))
    }
}

#[tonic::async_trait]
impl SegmentStoreApi for SegmentStoreService {
    type AppendStream = append::AppendOutput;
    type ReadStream = read::ReadOutput;

    async fn append(
        &self,
        _: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        // The generated code would keep what comes before anybody is asked.
        Err(Status::unimplemented("appends are served by what `into_server` makes"))
    }

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let whole = ConnectionLimits::default().read_message_bytes;
        self.open_read(request.into_inner(), whole).await.map(Response::new)
    }

    async fn get_segment_info(
        &self,
        request: Request<v1::GetSegmentInfoRequest>,
    ) -> Result<Response<v1::GetSegmentInfoResponse>, Status> {
        let _question = self.question()?;
        let asked = request.into_inner().segments;
        if asked.len() > PAGE_ITEMS_MAX {
            let message = format!(
                "`segments` has {} items; ask for at most {PAGE_ITEMS_MAX} at a time",
                asked.len()
            );
            return Err(status(Reason::InvalidArgument, message));
        }
        let count = asked.len();
        let mut by_container: BTreeMap<ContainerId, Vec<(usize, SegmentId)>> = BTreeMap::new();
        for (at, asked) in asked.into_iter().enumerate() {
            let segment = segment_id(asked.segment).map_err(|error| field_status(&error))?;
            by_container.entry(ContainerId(asked.container)).or_default().push((at, segment));
        }
        let mut segments = vec![v1::SegmentInfo::default(); count];
        for (container, asked) in by_container {
            for (at, info) in self.info_of(container, asked).await? {
                segments[at] = info;
            }
        }
        Ok(Response::new(v1::GetSegmentInfoResponse { segments }))
    }

    async fn get_writer_states(
        &self,
        request: Request<v1::GetWriterStatesRequest>,
    ) -> Result<Response<v1::GetWriterStatesResponse>, Status> {
        let _question = self.question()?;
        self.writer_states(request.into_inner()).await.map(Response::new)
    }

    async fn find_offset(
        &self,
        request: Request<v1::FindOffsetRequest>,
    ) -> Result<Response<v1::FindOffsetResponse>, Status> {
        let _question = self.question()?;
        let request = request.into_inner();
        let at = request.at.ok_or_else(|| field_status(&FieldError::missing("at")))?;
        let segment = segment_id(at.segment).map_err(|error| field_status(&error))?;
        let time = WallTime(request.time_micros);
        let found = self.store.find_offset(ContainerId(at.container), segment, time).await;
        let offset = found.map_err(|error| self.read_error(&error))?.0;
        Ok(Response::new(v1::FindOffsetResponse { offset }))
    }
}

fn info(segment: SegmentId, view: Option<SegmentView>) -> v1::SegmentInfo {
    let Some(view) = view else {
        return v1::SegmentInfo { segment: Some(segment.into()), ..v1::SegmentInfo::default() };
    };
    v1::SegmentInfo {
        segment: Some(segment.into()),
        found: true,
        start_offset: view.bounds.start.0,
        length: view.bounds.length.0,
        sealed: view.bounds.sealed,
        log_bytes: view.log_bytes,
        writers: view.writers as u64,
        oldest_micros: view.oldest.map_or(0, WallTime::as_micros),
        newest_micros: view.newest.map_or(0, WallTime::as_micros),
    }
}

fn field_status(error: &FieldError) -> Status {
    status(Reason::InvalidArgument, error.to_string())
}

/// A container's refusal as a status.
pub(crate) fn container_status(error: &ContainerError) -> Status {
    let retry_after = match error {
        ContainerError::Propose(ProposeError::Full { retry_after }) => *retry_after,
        ContainerError::Propose(ProposeError::LogFull) => Duration::from_secs(1),
        _ => RETRY_AFTER,
    };
    let facts = match error {
        ContainerError::Propose(ProposeError::NotLeader { hint: Some(peer) }) => {
            [("leader", peer.to_string())]
        }
        _ => return status_with(error.reason(), error.to_string(), [], Some(retry_after)),
    };
    status_with(error.reason(), error.to_string(), facts, Some(retry_after))
}

/// A read's refusal as a status, with its facts.
pub(crate) fn read_status(error: &ReadError) -> Status {
    let fact = match error {
        ReadError::Truncated { start, .. } => ("start_offset", start.to_string()),
        ReadError::OutOfRange { length, .. } => ("length", length.to_string()),
        ReadError::Container(error) => return container_status(error),
        _ => return status(error.reason(), error.to_string()),
    };
    status_with(error.reason(), error.to_string(), [fact], None)
}

#[cfg(test)]
mod tests;
