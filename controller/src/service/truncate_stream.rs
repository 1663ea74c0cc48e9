//! Truncate a stream to a cut and wait until the bytes before it are dropped.
//!
//! Whether an offset lies within an unsealed segment only its store knows. It is asked before the
//! operation is proposed; since lengths only grow, what it answered stays true. Between the look at
//! the stream and the question to the store the stream may be deleted, or truncated further: a store
//! that does not know a segment is a reason to look at the stream once more, which says what
//! happened. Only where nothing did is the segment lost.

use common::limits::PAGE_ITEMS_MAX;
use common::{ContainerId, Offset, ScopedStream, SegmentId, StreamId};
use futures::{StreamExt, TryStreamExt, stream};
use proto::v1;

use crate::jobs::runner::WaitError;
use crate::machine::{ControllerMachine, Stream};
use crate::operation::{CutOffsets, Operation};
use crate::outcome::{CutProblem, Refusal};
use crate::service::{ControllerService, ServiceError, fields};
use crate::stores::{JobId, SegmentLength, StoreError};

/// Questions for lengths that are asked at the same time.
const QUESTIONS_IN_FLIGHT: usize = 8;

/// A cut that fits as far as the controller knows, and what the stores must say about it.
struct Checked {
    stream: StreamId,
    /// What is being done with the stream.
    job: Option<JobId>,
    cut: CutOffsets,
    unsealed: Vec<(SegmentId, ContainerId)>,
}

impl ControllerService {
    pub(super) async fn truncate_stream(
        &self,
        request: v1::TruncateStreamRequest,
    ) -> Result<v1::TruncateStreamResponse, ServiceError> {
        let name = fields::stream(request.stream)?;
        let cut = fields::cut(request.cut)?;
        let Checked { stream, cut, .. } = self.checked(&name, &cut).await?;
        match self.carry_out(Operation::TruncateStream { stream, cut }).await {
            Err(ServiceError::Wait(WaitError::Failed { problem, .. })) => {
                Err(ServiceError::Truncation(problem))
            }
            answered => answered.map(|()| v1::TruncateStreamResponse {}),
        }
    }

    async fn checked(
        &self,
        name: &ScopedStream,
        cut: &[(SegmentId, Offset)],
    ) -> Result<Checked, ServiceError> {
        let deadline = self.jobs.deadline();
        let mut again = false;
        loop {
            let (asked, places) = (name.clone(), cut.to_vec());
            let checked = self.query(move |machine| check(machine, &asked, &places)).await??;
            let refused = match self.check_lengths(name, cut, &checked.unsealed).await {
                Err(error @ ServiceError::Store(StoreError::Refused(_))) => error,
                answered => return answered.map(|()| checked),
            };
            match checked.job {
                // It may be making the segment.
                Some(job) => self.ended(job, deadline).await?,
                None if again => return Err(refused),
                None => again = true,
            }
        }
    }

    async fn check_lengths(
        &self,
        name: &ScopedStream,
        cut: &[(SegmentId, Offset)],
        unsealed: &[(SegmentId, ContainerId)],
    ) -> Result<(), ServiceError> {
        let questions =
            unsealed.chunks(PAGE_ITEMS_MAX).map(|chunk| self.stores.lengths(chunk.to_vec()));
        let answers = stream::iter(questions.collect::<Vec<_>>()).buffered(QUESTIONS_IN_FLIGHT);
        let lengths: Vec<Vec<SegmentLength>> = answers.try_collect().await?;
        let lengths: std::collections::BTreeMap<_, _> =
            lengths.into_iter().flatten().map(|found| (found.segment, found.length)).collect();
        for (segment, offset) in cut {
            if let Some(length) = lengths.get(segment).filter(|length| offset > length) {
                let (segment, offset, length) = (*segment, *offset, *length);
                let problem = CutProblem::BeyondLength { segment, offset, length };
                return Err(Refusal::CutDoesNotFit { stream: name.clone(), problem }.into());
            }
        }
        Ok(())
    }
}

fn check(
    machine: &ControllerMachine,
    name: &ScopedStream,
    cut: &[(SegmentId, Offset)],
) -> Result<Checked, Refusal> {
    let stream = machine.stream(name)?;
    stream.has_bytes()?;
    let misfit = |problem| Refusal::CutDoesNotFit { stream: name.clone(), problem };
    if let Some((foreign, _)) = cut.iter().find(|(segment, _)| segment.stream != stream.id) {
        return Err(misfit(CutProblem::Unknown(*foreign)));
    }
    let offsets: CutOffsets =
        cut.iter().map(|(id, offset)| (id.epoch, id.number, *offset)).collect();
    stream.check_cut(&offsets).map_err(misfit)?;
    let unsealed = cut.iter().filter(|(_, offset)| *offset > Offset::ZERO);
    let unsealed = unsealed.filter_map(|(id, _)| {
        let segment = stream.segment(Stream::key_of(*id))?;
        segment.sealed.is_none().then_some((*id, segment.container))
    });
    let (unsealed, job) = (unsealed.collect(), stream.job);
    Ok(Checked { stream: stream.id, job, unsealed, cut: offsets })
}
