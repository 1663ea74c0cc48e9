//! The controller's view of the data plane, in one process: its commands go straight to the
//! containers' groups.
//!
//! Keeps the laws of [`controller::SegmentStores`]: containers are idempotent and keep the fence,
//! an answer comes from an applied, durable entry, and a command whose parts partly failed is
//! repeated as a whole.

use std::collections::BTreeMap;
use std::future::Future;

use common::{ContainerId, Fence, Offset, SegmentId};
use controller::{
    NewSegment, SegmentLength, SegmentSeal, SegmentStores, StoreAction, StoreAnswer, StoreCommand,
    StoreError,
};
use futures::future::{BoxFuture, try_join_all};
use futures::stream::{self, StreamExt, TryStreamExt};
use proto::convert::SegmentPlace;
use segmentstore::{
    CommandError, CommandId, Prospect, SegmentIdentity, SegmentKind, StoreCommands, Successor,
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

    fn fence(&self, container: ContainerId) -> BoxFuture<'_, Result<Fence, StoreError>> {
        Box::pin(async move {
            let fence = self.0.fence(container).await;
            fence.map_err(|error| store_error(container, error))
        })
    }

    fn lengths(
        &self,
        segments: Vec<(SegmentId, ContainerId)>,
    ) -> BoxFuture<'_, Result<Vec<SegmentLength>, StoreError>> {
        Box::pin(async move {
            let mut by_container = BTreeMap::<ContainerId, Vec<usize>>::new();
            for (at, (_, container)) in segments.iter().enumerate() {
                by_container.entry(*container).or_default().push(at);
            }
            let asked = by_container.into_iter().map(|(container, places)| {
                let wanted = places.iter().map(|at| segments[*at].0).collect();
                async move {
                    let found = self.0.info(container, wanted).await;
                    let found = found.map_err(|error| store_error(container, error))?;
                    Ok::<_, StoreError>(places.into_iter().zip(found))
                }
            });
            let mut lengths = vec![None; segments.len()];
            for (at, status) in try_join_all(asked).await?.into_iter().flatten() {
                lengths[at] = status.map(|status| status.length);
            }
            let known = |((segment, container), length): (_, Option<Offset>)| {
                let length = length.ok_or_else(|| {
                    StoreError::Refused(format!(
                        "segment `{segment}` is not in container {container}"
                    ))
                })?;
                Ok(SegmentLength { segment, length })
            };
            segments.into_iter().zip(lengths).map(known).collect()
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
            StoreAction::DeleteWriter { writer, epoch, segments } => {
                each(segments, |segment| {
                    commands.delete_writer(container, id, segment, writer, epoch)
                })
                .await?;
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

/// What the controller does about it: repeat, wait for a person, step down, or give the job up.
fn store_error(container: ContainerId, error: CommandError) -> StoreError {
    match error {
        CommandError::StaleFence { newest } => {
            StoreError::StaleFence { container, current: newest }
        }
        error => {
            let text = error.to_string();
            match error.prospect() {
                Prospect::Soon => StoreError::Unavailable(text),
                Prospect::AfterRepair => {
                    StoreError::Stopped(format!("container {container}: {text}"))
                }
                Prospect::Never => StoreError::Refused(text),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use common::{SegmentNumber, StreamEpoch, StreamId};
    use replica::{Proposal, ProposeError, Refused};
    use segmentstore::handle::Query;
    use segmentstore::{ContainerHandle, ContainerMachine, Containers, Memory, Outcome, Settings};

    use super::*;

    /// A container without segments that counts how often it is asked.
    struct Empty {
        machine: Mutex<ContainerMachine>,
        asked: Arc<AtomicUsize>,
    }

    impl ContainerHandle for Empty {
        fn propose(&self, proposal: Proposal<Outcome>) -> Result<(), Box<Refused<Outcome>>> {
            Err(Box::new(Refused { proposal, error: ProposeError::Stopping }))
        }

        fn query(&self, ask: Query) -> BoxFuture<'static, Result<(), ProposeError>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            ask(&self.machine.lock().unwrap());
            Box::pin(std::future::ready(Ok(())))
        }
    }

    #[tokio::test]
    async fn the_lengths_of_many_segments_cost_one_question_a_container() {
        let memory = Memory::new(&Settings::default());
        let asked = Arc::new(AtomicUsize::default());
        let container = |number| {
            let id = ContainerId(number);
            let machine = Mutex::new(ContainerMachine::new(id, memory.clone()));
            let empty = Empty { machine, asked: asked.clone() };
            (id, Arc::new(empty) as Arc<dyn ContainerHandle>)
        };
        let stores = LocalStores(StoreCommands::new(Containers::new([2, 3].map(container))));
        let segment = |number| SegmentId {
            stream: StreamId(7),
            epoch: StreamEpoch(0),
            number: SegmentNumber(number),
        };
        let segments =
            (0..1_000).map(|number| (segment(number), ContainerId(2 + u64::from(number % 2))));
        let unknown = stores.lengths(segments.collect()).await.unwrap_err();
        assert!(
            matches!(&unknown, StoreError::Refused(why) if why.contains("is not in container 2")),
            "{unknown}"
        );
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }
}
