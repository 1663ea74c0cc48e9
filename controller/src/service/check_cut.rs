//! Whether a cut is a place in a stream: the one look at cuts, wherever one comes in.
//!
//! Whether an offset lies within an unsealed segment only its store knows, which is asked; since
//! lengths only grow, what it answered stays true. Between the look at the stream and the question
//! to the store the stream may be deleted, or truncated further: a store that does not know a
//! segment is a reason to look at the stream once more, which says what happened. Only where nothing
//! did is the segment lost.

use common::limits::PAGE_ITEMS_MAX;
use common::{ContainerId, CutCoverage, Offset, ScopedStream, SegmentId, StreamId};
use futures::{StreamExt, TryStreamExt, stream};
use proto::v1;

use crate::machine::{ControllerMachine, Stream};
use crate::operation::CutOffsets;
use crate::outcome::{CutProblem, Refusal};
use crate::service::{ControllerService, ServiceError, fields};
use crate::stores::{JobId, SegmentLength, StoreError};

/// Questions for lengths that are asked at the same time.
const QUESTIONS_IN_FLIGHT: usize = 8;

/// A cut that fits as far as the controller knows, and what the stores must say about it.
pub(super) struct Checked {
    pub(super) stream: StreamId,
    /// What is being done with the stream.
    job: Option<JobId>,
    pub(super) cut: CutOffsets,
    unsealed: Vec<(SegmentId, ContainerId)>,
}

/// A cut as it came in, and what it is for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) stream: ScopedStream,
    pub(super) cut: Vec<(SegmentId, Offset)>,
    pub(super) covers: CutCoverage,
    /// Whether the stream is to be truncated to it.
    pub(super) truncates: bool,
}

impl ControllerService {
    pub(super) async fn check_cut(
        &self,
        request: v1::CheckCutRequest,
    ) -> Result<v1::CheckCutResponse, ServiceError> {
        let asked = Asked {
            stream: fields::stream(request.stream)?,
            cut: fields::cut(request.cut)?,
            covers: fields::coverage(request.covers)?,
            truncates: false,
        };
        self.checked(&asked).await.map(|_| v1::CheckCutResponse {})
    }

    pub(super) async fn checked(&self, asked: &Asked) -> Result<Checked, ServiceError> {
        let deadline = self.jobs.deadline();
        let mut again = false;
        loop {
            let question = asked.clone();
            let checked = self.query(move |machine| check(machine, &question)).await??;
            let lengths = self.check_lengths(&asked.stream, &asked.cut, &checked.unsealed);
            let refused = match lengths.await {
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

fn check(machine: &ControllerMachine, asked: &Asked) -> Result<Checked, Refusal> {
    let Asked { stream: name, cut, covers, truncates } = asked;
    let stream = machine.stream(name)?;
    stream.has_bytes()?;
    let misfit = |problem| Refusal::CutDoesNotFit { stream: name.clone(), problem };
    if let Some((foreign, _)) = cut.iter().find(|(segment, _)| segment.stream != stream.id) {
        return Err(misfit(CutProblem::Unknown(*foreign)));
    }
    let offsets: CutOffsets =
        cut.iter().map(|(id, offset)| (id.epoch, id.number, *offset)).collect();
    let fits = match truncates {
        true => stream.check_truncation(&offsets, *covers),
        false => stream.check_cut(&offsets, *covers),
    };
    fits.map_err(misfit)?;
    let unsealed = cut.iter().filter(|(_, offset)| *offset > Offset::ZERO);
    let unsealed = unsealed.filter_map(|(id, _)| {
        let segment = stream.segment(Stream::key_of(*id))?;
        segment.sealed.is_none().then_some((*id, segment.container))
    });
    let (unsealed, job) = (unsealed.collect(), stream.job);
    Ok(Checked { stream: stream.id, job, unsealed, cut: offsets })
}
