//! Seal a stream: no more events, ever. A job seals its segments and records their lengths.

use common::{ScopedStream, WallTime};

use crate::machine::ControllerMachine;
use crate::machine::job::JobKind;
use crate::machine::stream::StreamState;
use crate::outcome::{Accepted, Outcome, Refusal};

impl ControllerMachine {
    pub(super) fn seal_stream(&mut self, name: &ScopedStream, now: WallTime) -> Outcome {
        let found = self.stream(name)?;
        let (stream, state, job) = (found.id, found.state, found.job);
        match (state, job) {
            (StreamState::Deleting, _) => Err(Refusal::StreamNotFound(name.clone())),
            (StreamState::Sealed, _) => Ok(Accepted::Started { stream, job: None }),
            (StreamState::Sealing, Some(_)) => Ok(Accepted::Started { stream, job }),
            (_, Some(job)) => Err(Refusal::Busy { stream: name.clone(), job }),
            (StreamState::Creating, None) => Err(Refusal::NotMade(name.clone())),
            // A seal that was given up is begun again, too.
            (StreamState::Active | StreamState::Sealing, None) => {
                self.stream_mut(stream).state = StreamState::Sealing;
                let job = self.start_job(stream, JobKind::Seal, now);
                Ok(Accepted::Started { stream, job: Some(job) })
            }
        }
    }
}
