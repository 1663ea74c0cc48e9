//! The controller as clients see it: `braid.v1.Controller`.
//!
//! One verb, one file. Every verb checks its input first and names field, value, limit and what to
//! do; nothing that cannot be right reaches the log. Reads are linearizable. A verb that starts a
//! job answers when the job is done, or says after a while that it goes on.

mod check_cut;
mod create_scope;
mod create_stream;
mod delete_scope;
mod delete_stream;
mod delete_writer;
mod describe_stream;
mod describe_writer;
mod error;
mod fields;
mod get_segments;
mod get_server_info;
mod get_status;
mod get_successors;
mod list_scopes;
mod list_streams;
mod list_writers;
mod locate_segments;
mod look_after_storage;
mod page;
mod register_writer;
mod seal_stream;
mod truncate_stream;

use std::sync::Arc;

use proto::v1;
use proto::v1::controller_server::{Controller, ControllerServer};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

pub use get_server_info::{ServerInfo, ServerStatus};

use crate::group::{Group, GroupError, query};
use crate::jobs::runner::{Jobs, WaitError};
use crate::machine::ControllerMachine;
use crate::operation::Operation;
use crate::outcome::{Accepted, Refusal};
use crate::settings::ControllerSettings;
use crate::stores::{JobId, SegmentStores};
use error::ServiceError;

/// Answers the controller's clients. Cloning shares everything.
#[derive(Clone)]
pub struct ControllerService {
    settings: ControllerSettings,
    group: Arc<dyn Group>,
    jobs: Jobs,
    stores: Arc<dyn SegmentStores>,
    server: Arc<dyn ServerStatus>,
}

impl ControllerService {
    pub fn new(
        settings: ControllerSettings,
        group: Arc<dyn Group>,
        jobs: Jobs,
        stores: Arc<dyn SegmentStores>,
        server: Arc<dyn ServerStatus>,
    ) -> Self {
        Self { settings, group, jobs, stores, server }
    }

    /// The service as tonic routes to it, with the limits of the control plane on messages.
    pub fn into_server(self) -> ControllerServer<Self> {
        ControllerServer::new(self)
            .max_decoding_message_size(common::limits::CONTROL_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(common::limits::CONTROL_MESSAGE_BYTES_MAX)
    }

    async fn query<R: Send + 'static>(
        &self,
        question: impl FnOnce(&ControllerMachine) -> R + Send + 'static,
    ) -> Result<R, GroupError> {
        query(&*self.group, question).await
    }

    /// Submits an operation; where the stream is busy with a job, again when that is done.
    async fn submit(&self, operation: Operation) -> Result<Accepted, ServiceError> {
        let deadline = self.jobs.deadline();
        loop {
            match self.group.submit(operation.clone()).await? {
                Ok(accepted) => return Ok(accepted),
                Err(Refusal::Busy { job, .. }) => self.ended(job, deadline).await?,
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }

    /// Waits until a job does not keep its stream busy any more.
    async fn ended(&self, job: JobId, deadline: Instant) -> Result<(), WaitError> {
        match self.jobs.wait(job, deadline).await {
            // A job that was given up has freed the stream, too.
            Ok(()) | Err(WaitError::Failed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits for the job that an operation started, where it started one.
    async fn finished(&self, job: Option<JobId>) -> Result<(), ServiceError> {
        match job {
            Some(job) => Ok(self.jobs.wait(job, self.jobs.deadline()).await?),
            None => Ok(()),
        }
    }

    /// Submits an operation that answers with a job, and waits for that.
    async fn carry_out(&self, operation: Operation) -> Result<(), ServiceError> {
        match self.submit(operation).await? {
            Accepted::Started { job, .. } => self.finished(job).await,
            other => Err(ServiceError::bug(&other)),
        }
    }
}

macro_rules! verbs {
    ($($rpc:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl Controller for ControllerService {
            $(
                async fn $rpc(
                    &self,
                    request: Request<v1::$request>,
                ) -> Result<Response<v1::$response>, Status> {
                    let answer = ControllerService::$rpc(self, request.into_inner()).await;
                    answer.map(Response::new).map_err(Status::from)
                }
            )*
        }
    };
}

verbs! {
    get_server_info(GetServerInfoRequest) -> GetServerInfoResponse;
    get_status(GetStatusRequest) -> GetStatusResponse;
    look_after_storage(LookAfterStorageRequest) -> LookAfterStorageResponse;
    create_scope(CreateScopeRequest) -> CreateScopeResponse;
    list_scopes(ListScopesRequest) -> ListScopesResponse;
    delete_scope(DeleteScopeRequest) -> DeleteScopeResponse;
    create_stream(CreateStreamRequest) -> CreateStreamResponse;
    list_streams(ListStreamsRequest) -> ListStreamsResponse;
    describe_stream(DescribeStreamRequest) -> DescribeStreamResponse;
    seal_stream(SealStreamRequest) -> SealStreamResponse;
    truncate_stream(TruncateStreamRequest) -> TruncateStreamResponse;
    check_cut(CheckCutRequest) -> CheckCutResponse;
    delete_stream(DeleteStreamRequest) -> DeleteStreamResponse;
    get_segments(GetSegmentsRequest) -> GetSegmentsResponse;
    get_successors(GetSuccessorsRequest) -> GetSuccessorsResponse;
    locate_segments(LocateSegmentsRequest) -> LocateSegmentsResponse;
    register_writer(RegisterWriterRequest) -> RegisterWriterResponse;
    list_writers(ListWritersRequest) -> ListWritersResponse;
    describe_writer(DescribeWriterRequest) -> DescribeWriterResponse;
    delete_writer(DeleteWriterRequest) -> DeleteWriterResponse;
}

#[cfg(test)]
mod tests;
