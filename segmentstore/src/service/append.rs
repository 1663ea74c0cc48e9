//! The shell around an append connection: one task takes the client's messages in, the answers are
//! pulled by the response stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use http_body::Body;
use proto::error::{Reason, status};
use proto::v1::AppendResponse;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use super::connection::AppendPermit;
use super::requests::{Admission, Requests};
use crate::append_core::AppendConnection;
use crate::store::SegmentStore;

/// The answers of one connection.
#[derive(Debug)]
pub struct AppendOutput {
    connection: Arc<AppendConnection>,
    /// Ends the task that takes messages in, once the client has gone.
    _gone: DropGuard,
}

/// Serves the messages in `body` for as long as `permit` is held.
pub(super) fn serve<B>(store: &SegmentStore, body: B, permit: AppendPermit) -> AppendOutput
where
    B: Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connection = store.connect();
    let (gone, stopping) = (CancellationToken::new(), store.tasks().token());
    let admission =
        Admission { permits: store.permits().clone(), pressure: store.pressure().clone() };
    let task = connection.clone();
    let ended = gone.clone();
    store.tasks().spawn("append-connection", async move {
        // Until nothing of the request is held any more.
        let _permit = permit;
        tokio::select! {
            biased;
            () = ended.cancelled() => {}
            () = stopping.cancelled() => {
                task.fail(status(Reason::Unavailable, "the server is stopping; connect again"));
            }
            () = take_in(&task, Requests::new(body, admission)) => {}
        }
    });
    AppendOutput { connection, _gone: gone.drop_guard() }
}

/// Takes messages in until the client is done or does not speak the protocol.
async fn take_in<B>(connection: &Arc<AppendConnection>, mut requests: Requests<B>)
where
    B: Body<Data = bytes::Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    loop {
        // A client that does not take its answers gives us nothing more to answer.
        connection.room().await;
        let (request, permit) = match requests.next().await {
            Ok(Some(next)) => next,
            Ok(None) => return connection.finish(),
            Err(error) => return connection.fail(error),
        };
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
