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
use crate::permits::{BytePermit, BytePermits};
use crate::pressure::Pressure;
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
    let admission =
        Admission { permits: store.permits().clone(), pressure: store.pressure().clone() };
    let task = connection.clone();
    let ended = gone.clone();
    store.tasks().spawn("append-connection", async move {
        tokio::select! {
            biased;
            () = ended.cancelled() => {}
            () = stopping.cancelled() => {
                task.fail(status(Reason::Unavailable, "the server is stopping; connect again"));
            }
            () = take_in(&task, input, &admission) => {}
        }
    });
    AppendOutput { connection, _gone: gone.drop_guard() }
}

/// What a message passes before it is looked at.
struct Admission {
    permits: BytePermits,
    pressure: Pressure,
}

impl Admission {
    /// Waits for as long as the pressure says, then for the bytes' permit. Pressure comes first: a
    /// message that waits holds nothing.
    async fn admit(&self, bytes: usize) -> BytePermit {
        if let Some(wait) = self.pressure.wait(bytes) {
            tokio::time::sleep(wait).await;
        }
        self.permits.acquire(bytes).await
    }
}

/// Takes messages in until the client is done or does not speak the protocol.
async fn take_in(
    connection: &Arc<AppendConnection>,
    mut input: Streaming<AppendRequest>,
    admission: &Admission,
) {
    loop {
        let request = match input.message().await {
            Ok(Some(request)) => request,
            Ok(None) => return connection.finish(),
            Err(error) => return connection.fail(error),
        };
        let bytes = AppendConnection::bytes_of(&request);
        let permit = admission.admit(bytes).await;
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

#[cfg(test)]
mod tests {
    use common::clock::ManualClock;
    use common::limits::MIB;
    use tokio::time::{Duration, Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn under_pressure_a_message_waits_before_it_takes_a_permit() {
        let pressure = Pressure::new(Arc::new(ManualClock::default()));
        let admission = Admission { permits: BytePermits::new(MIB), pressure: pressure.clone() };
        let start = Instant::now();
        drop(admission.admit(MIB / 2).await);
        assert_eq!(start.elapsed(), Duration::ZERO);
        pressure.register("test", Box::new(|| 0.5));
        let admitted = admission.admit(MIB / 2);
        tokio::pin!(admitted);
        let early = tokio::time::timeout(Duration::from_millis(124), &mut admitted).await;
        assert!(early.is_err());
        assert_eq!(admission.permits.free_bytes(), MIB);
        let permit = admitted.await;
        assert_eq!(start.elapsed(), Duration::from_millis(125));
        assert_eq!(admission.permits.free_bytes(), MIB / 2);
        drop(permit);
    }
}
