//! The shell around an append connection: one task takes the client's messages in, the answers are
//! pulled by the response stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use proto::error::{Reason, status};
use proto::v1::{AppendRequest, AppendResponse};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

use crate::append_core::AppendConnection;
use crate::permits::BytePermits;
use crate::store::SegmentStore;

/// The answers of one connection.
#[derive(Debug)]
pub struct AppendOutput {
    connection: Arc<AppendConnection>,
    /// Ends the task that takes messages in, once the client has gone.
    _gone: DropGuard,
}

pub(super) fn serve(store: &SegmentStore, input: Streaming<AppendRequest>) -> AppendOutput {
    let connection = store.connect();
    let (gone, stopping) = (CancellationToken::new(), store.tasks().token());
    let (permits, task) = (store.permits().clone(), connection.clone());
    let ended = gone.clone();
    store.tasks().spawn("append-connection", async move {
        tokio::select! {
            biased;
            () = ended.cancelled() => {}
            () = stopping.cancelled() => {
                task.fail(status(Reason::Unavailable, "the server is stopping; connect again"));
            }
            () = take_in(&task, input, &permits) => {}
        }
    });
    AppendOutput { connection, _gone: gone.drop_guard() }
}

/// Takes messages in until the client is done or does not speak the protocol.
async fn take_in(
    connection: &Arc<AppendConnection>,
    mut input: Streaming<AppendRequest>,
    permits: &BytePermits,
) {
    loop {
        let request = match input.message().await {
            Ok(Some(request)) => request,
            Ok(None) => return connection.finish(),
            Err(error) => return connection.fail(error),
        };
        let permit = permits.acquire(AppendConnection::bytes_of(&request)).await;
        if let Err(error) = connection.on_request(request, permit) {
            return connection.fail(error);
        }
    }
}

impl Stream for AppendOutput {
    type Item = Result<AppendResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connection.poll_response(context)
    }
}
