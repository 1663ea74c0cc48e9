//! The controller's view of the data plane, in one process: its commands go straight to the
//! containers' groups.
//!
//! Keeps the laws of [`controller::SegmentStores`]: containers are idempotent and keep the fence,
//! an answer comes from an applied, durable entry, and a command whose parts partly failed is
//! repeated as a whole.

use std::future::Future;

use common::{ContainerId, Offset, SegmentId};
use controller::{
    NewSegment, SegmentLength, SegmentSeal, SegmentStores, StoreAction, StoreAnswer, StoreCommand,
    StoreError,
};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use proto::convert::SegmentPlace;
use segmentstore::{
    CommandError, CommandId, SegmentIdentity, SegmentKind, StoreCommands, Successor,
};

/// Commands to segments of one step that are under way at a time: enough that they share log
/// entries, few enough that they fit the container's queue.
const COMMANDS_IN_FLIGHT: usize = 256;

/// The containers of this process as the controller commands them.
#[derive(Debug, Clone)]
pub struct LocalStores(pub StoreCommands);

impl SegmentStores for LocalStores {
    fn perform(&self, command: StoreCommand) -> BoxFuture<'_, Result<StoreAnswer, StoreError>> {
        let container = command.container;
        let id = CommandId { fence: command.fence, job: command.job.0, step: command.step };
        let to_each = ToEach { commands: &self.0, container, id };
        Box::pin(async move {
            to_each.perform(command.action).await.map_err(|error| store_error(container, error))
        })
    }

    fn lengths(
        &self,
        segments: Vec<(SegmentId, ContainerId)>,
    ) -> BoxFuture<'_, Result<Vec<SegmentLength>, StoreError>> {
        Box::pin(async move {
            let answers = stream::iter(segments).map(|(segment, container)| async move {
                let found = self.0.info(container, vec![segment]).await;
                let found = found.map_err(|error| store_error(container, error))?;
                let status = found.first().copied().flatten().ok_or_else(|| {
                    StoreError::Refused(format!(
                        "segment `{segment}` is not in container {container}"
                    ))
                })?;
                Ok(SegmentLength { segment, length: status.length })
            });
            answers.buffered(COMMANDS_IN_FLIGHT).try_collect().await
        })
    }
}

/// One command, given to each of its segments.
#[derive(Clone, Copy)]
struct ToEach<'a> {
    commands: &'a StoreCommands,
    container: ContainerId,
    id: CommandId,
}

impl ToEach<'_> {
    async fn perform(self, action: StoreAction) -> Result<StoreAnswer, CommandError> {
        let Self { commands, container, id } = self;
        let lengths = match action {
            StoreAction::Create(segments) => {
                each(segments, |new| commands.create(container, id, identity(new))).await?;
                Vec::new()
            }
            StoreAction::Seal(segments) => each(segments, |seal| self.seal(seal)).await?,
            StoreAction::Truncate(segments) => {
                each(segments, |(segment, offset)| {
                    commands.truncate(container, id, segment, offset)
                })
                .await?;
                Vec::new()
            }
            StoreAction::Delete(segments) => {
                each(segments, |segment| commands.delete(container, id, segment)).await?;
                Vec::new()
            }
            StoreAction::Forget(segments) => {
                each(segments, |segment| commands.forget(container, id, segment)).await?;
                Vec::new()
            }
        };
        Ok(StoreAnswer { lengths })
    }

    async fn seal(self, seal: SegmentSeal) -> Result<(SegmentId, Offset), CommandError> {
        let successors = seal.successors.into_iter().map(successor).collect();
        let length = self.commands.seal(self.container, self.id, seal.segment, successors).await?;
        Ok((seal.segment, length))
    }
}

/// Answers in the order of the parts; the first error ends it.
async fn each<P, R, F>(parts: Vec<P>, give: impl FnMut(P) -> F) -> Result<Vec<R>, CommandError>
where
    F: Future<Output = Result<R, CommandError>>,
{
    stream::iter(parts).map(give).buffered(COMMANDS_IN_FLIGHT).try_collect().await
}

fn identity(new: NewSegment) -> SegmentIdentity {
    SegmentIdentity {
        segment: new.segment,
        stream: new.stream,
        range: new.range,
        kind: SegmentKind::Stream,
        predecessors: new.predecessors,
    }
}

fn successor(place: SegmentPlace) -> Successor {
    Successor {
        segment: place.segment,
        range: place.range,
        container: place.container,
        predecessors: place.predecessors,
    }
}

/// What the controller does about it: repeat, step down, or give the job up.
fn store_error(container: ContainerId, error: CommandError) -> StoreError {
    match error {
        CommandError::StaleFence { newest } => {
            StoreError::StaleFence { container, current: newest }
        }
        error if error.is_transient() => StoreError::Unavailable(error.to_string()),
        error => StoreError::Refused(error.to_string()),
    }
}
