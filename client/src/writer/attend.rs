//! The task that attends to a writer: timers, questions to the controller, the deadline.

use std::sync::{Arc, Weak};

use common::{ScopedStream, SegmentId};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::client::Inner;
use crate::error::{ClientError, Result};
use crate::streams::{self, SegmentSet};

/// Runs until the writer fails, which is also how it is closed.
pub(super) async fn attend(
    shared: Weak<Shared>,
    client: Weak<Inner>,
    stream: ScopedStream,
    token: CancellationToken,
) {
    tokio::select! {
        biased;
        () = token.cancelled() => {
            if let Some(writer) = shared.upgrade() {
                writer.fail(ClientError::Closed { what: "client" });
            }
        }
        () = attend_until_failed(&shared, &client, &stream) => {}
    }
}

async fn attend_until_failed(shared: &Weak<Shared>, client: &Weak<Inner>, stream: &ScopedStream) {
    loop {
        let (Some(writer), Some(client)) = (shared.upgrade(), client.upgrade()) else { return };
        let (lookups, relocate) = writer.take_due(client.now());
        for segment in lookups {
            if let Err(error) = find_successors(&writer, &client, segment).await {
                writer.fail(error);
            }
        }
        if relocate && let Err(error) = find_places(&writer, &client, stream).await {
            writer.fail(error);
        }
        let Some((next, stalled_since)) = writer.outlook() else { return };
        let deadline = match (stalled_since, client.config.retry_deadline) {
            (Some(since), Some(patience)) => Some(since.plus(patience)),
            _ => None,
        };
        if deadline.is_some_and(|deadline| deadline <= client.now()) {
            writer.fail(gave_up(&client));
            return;
        }
        let next = [next, deadline].into_iter().flatten().min();
        writer.set_timer(next);
        let sleep = next.map(|next| client.instant(next));
        drop(client);
        wait(&writer, sleep).await;
    }
}

async fn wait(writer: &Shared, until: Option<tokio::time::Instant>) {
    match until {
        Some(until) => tokio::select! {
            biased;
            () = writer.attention.notified() => {}
            () = tokio::time::sleep_until(until) => {}
        },
        None => writer.attention.notified().await,
    }
}

fn gave_up(client: &Inner) -> ClientError {
    ClientError::Unreachable {
        endpoint: client.config.endpoint.clone(),
        problem: format!(
            "nothing was acknowledged for {:?}, the deadline that was set",
            client.config.retry_deadline.unwrap_or_default()
        ),
    }
}

async fn find_successors(writer: &Shared, client: &Arc<Inner>, segment: SegmentId) -> Result<()> {
    loop {
        match streams::successors(client.clone(), segment).try_collect().await {
            Ok(places) => {
                let mut core = writer.core();
                core.on_successors(segment, places, client.now());
                writer.settle(core);
                return Ok(());
            }
            Err(error) if error.is_transient() && !gives_up(writer, client) => {}
            Err(error) => return Err(error),
        }
    }
}

async fn find_places(writer: &Shared, client: &Arc<Inner>, stream: &ScopedStream) -> Result<()> {
    match streams::segments(client, stream, SegmentSet::Active, None).await {
        Ok(found) => {
            let mut core = writer.core();
            core.on_places(&found.segments);
            writer.settle(core);
            Ok(())
        }
        // The refusal that asked for the places will come again.
        Err(error) if error.is_transient() => Ok(()),
        Err(error) => Err(error),
    }
}

fn gives_up(writer: &Shared, client: &Inner) -> bool {
    let core = writer.core();
    core.failed().is_some()
        || core
            .stalled_since()
            .zip(client.config.retry_deadline)
            .is_some_and(|(since, patience)| since.plus(patience) <= client.now())
}
