//! The task that attends to a writer: timers, questions to the controller, the deadline.
//!
//! Questions are asked beside everything else: while the controller cannot be reached, timers go
//! on, and the deadline counts.

use std::sync::{Arc, Weak};

use common::{MonotonicTime, SegmentId, WriterEpoch, WriterId};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::client::Inner;
use crate::error::{ClientError, ErrorKind, Result};
use crate::streams::{self, Located, SegmentPlace};

/// A named writer's identity, with which it may ask for places.
type Named = Option<(WriterId, WriterEpoch)>;

/// How often within the time that a segment may stand still it is looked at.
const LOOKS_PER_DEADLINE: u32 = 4;

/// What the controller said.
enum Answer {
    Successors(SegmentId, Result<Vec<SegmentPlace>>),
    Places(Result<Located>),
}

/// A writer that nobody attends to has ended, also where the task's runtime was dropped.
struct EndsWriter(Weak<Shared>);

impl Drop for EndsWriter {
    fn drop(&mut self) {
        if let Some(writer) = self.0.upgrade() {
            writer.fail(ClientError::Closed { what: "client" });
        }
    }
}

/// Runs until the writer fails, which is also how it is closed.
pub(super) async fn attend(
    shared: Weak<Shared>,
    client: Weak<Inner>,
    named: Named,
    token: CancellationToken,
) {
    let _end = EndsWriter(shared.clone());
    let attendant = Attendant {
        named,
        questions: FuturesUnordered::new(),
        locating: false,
        next_look: MonotonicTime::default(),
    };
    token.run_until_cancelled(attendant.run(&shared, &client)).await;
}

struct Attendant {
    named: Named,
    questions: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Places have been asked for; what moves meanwhile is asked for after that.
    locating: bool,
    /// When deadlines are looked at again.
    next_look: MonotonicTime,
}

impl Attendant {
    async fn run(mut self, shared: &Weak<Shared>, weak: &Weak<Inner>) {
        loop {
            let (Some(writer), Some(client)) = (shared.upgrade(), weak.upgrade()) else { return };
            self.ask_what_is_due(&writer, &client);
            let deadline = self.look_at_deadlines(&writer, &client);
            let Some(next) = writer.outlook() else { return };
            let next = [next, deadline].into_iter().flatten().min();
            writer.set_timer(next);
            let until = next.map(|next| client.instant(next));
            drop(client);
            let answer = tokio::select! {
                biased;
                Some(answer) = self.questions.next() => Some(answer),
                () = writer.attention.notified() => None,
                () = sleep(until) => None,
            };
            if let Some(answer) = answer {
                let Some(client) = weak.upgrade() else { return };
                if let Err(error) = self.take(answer, &writer, &client) {
                    writer.fail(error);
                }
            }
        }
    }

    /// Gives up what has stood still for too long; gives when to look again.
    fn look_at_deadlines(&mut self, writer: &Shared, client: &Inner) -> Option<MonotonicTime> {
        let patience = client.config.retry_deadline?;
        let now = client.now();
        if now >= self.next_look {
            self.next_look = now.plus(patience / LOOKS_PER_DEADLINE);
            if !writer.check_deadline(now, patience) {
                writer.fail(gave_up(client));
            }
        }
        Some(self.next_look)
    }

    fn ask_what_is_due(&mut self, writer: &Shared, client: &Arc<Inner>) {
        let (lookups, relocate) = writer.take_due(client.now(), !self.locating);
        for segment in lookups {
            self.questions.push(find_successors(client.clone(), segment));
        }
        if relocate {
            self.locating = true;
            let segments = writer.core().unsettled();
            self.questions.push(find_places(client.clone(), segments, self.named));
        }
    }

    fn take(&mut self, answer: Answer, writer: &Shared, client: &Arc<Inner>) -> Result<()> {
        match answer {
            Answer::Successors(segment, Ok(places)) => {
                let mut core = writer.core();
                core.on_successors(segment, places, client.now());
                writer.settle(core);
                Ok(())
            }
            Answer::Successors(segment, Err(error)) if error.is_transient() => {
                self.questions.push(find_successors(client.clone(), segment));
                Ok(())
            }
            Answer::Successors(_, Err(error)) => Err(error),
            Answer::Places(places) => {
                self.locating = false;
                match places {
                    Ok(found) => {
                        let mut core = writer.core();
                        core.on_places(&found.segments);
                        core.on_places(&found.truncated);
                        writer.settle(core);
                        Ok(())
                    }
                    // The stream or the name is gone for good, or the name is another process's.
                    Err(error) if ends_the_writer(&error) => Err(error),
                    // Anything else may be a part of what is wrong with the connection, and the
                    // refusal that asked for the places will come again.
                    Err(error) => {
                        tracing::debug!(%error, "segments are located again later");
                        Ok(())
                    }
                }
            }
        }
    }
}

fn ends_the_writer(error: &ClientError) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Fenced | ErrorKind::Denied)
}

async fn sleep(until: Option<tokio::time::Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
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

fn find_successors(client: Arc<Inner>, segment: SegmentId) -> BoxFuture<'static, Answer> {
    let asked = async move {
        let found = streams::successors(&client, segment).await;
        Answer::Successors(segment, found)
    };
    asked.boxed()
}

fn find_places(
    client: Arc<Inner>,
    segments: Vec<SegmentId>,
    named: Named,
) -> BoxFuture<'static, Answer> {
    async move { Answer::Places(streams::locate(&client, &segments, named).await) }.boxed()
}
