//! One step until it is recorded, or not this node's business any more.

use std::sync::Arc;
use std::time::Duration;

use common::{Rng, Term};
use futures::future::join_all;

use crate::group::{Group, GroupError};
use crate::jobs::Step;
use crate::operation::Operation;
use crate::outcome::Accepted;
use crate::settings::ControllerSettings;
use crate::stores::{JobId, SegmentStores, StoreError};

pub(super) struct Carry {
    pub(super) settings: ControllerSettings,
    pub(super) rng: Rng,
    pub(super) group: Arc<dyn Group>,
    pub(super) stores: Arc<dyn SegmentStores>,
    pub(super) term: Term,
    pub(super) step: Step,
}

enum Attempt {
    /// Recorded, by this attempt or another.
    Recorded,
    /// This node must not go on.
    Deposed,
    Again(String),
}

impl Carry {
    /// Returns the job when its step is recorded or the leadership is lost.
    pub(super) async fn carry_out(mut self) -> JobId {
        let job = self.step.job;
        let mut delay = self.settings.retry_delay_min;
        loop {
            let problem = match self.attempt().await {
                Attempt::Recorded => return job,
                Attempt::Deposed => {
                    // A pause, so that a leader that does not know yet that it is deposed is quiet.
                    tokio::time::sleep(self.settings.retry_delay_max).await;
                    return job;
                }
                Attempt::Again(problem) => problem,
            };
            if delay >= self.settings.retry_delay_max {
                tracing::warn!(%job, step = self.step.step, problem, "job step is not done yet");
            }
            tokio::time::sleep(self.jittered(delay)).await;
            delay = (delay * 2).min(self.settings.retry_delay_max);
            if super::leading(&*self.group) != Some(self.term) {
                return job;
            }
        }
    }

    async fn attempt(&self) -> Attempt {
        match self.command_stores().await {
            Ok(done) => self.record(done).await,
            Err(StoreError::Unavailable(problem)) => Attempt::Again(problem),
            Err(error @ StoreError::StaleFence { .. }) => {
                tracing::info!(job = %self.step.job, %error, "job step is left to the new leader");
                Attempt::Deposed
            }
            Err(StoreError::Refused(problem)) => {
                let (job, step) = (self.step.job, self.step.step);
                tracing::error!(%job, step, problem, "job step cannot be carried out");
                self.record(self.step.failed(problem)).await
            }
        }
    }

    /// All commands of the step, side by side; every one has ended when this returns.
    async fn command_stores(&self) -> Result<Operation, StoreError> {
        let commands = self.step.commands.iter().cloned();
        let answers = join_all(commands.map(|command| self.stores.perform(command))).await;
        let answers: Vec<_> = answers.into_iter().collect::<Result<_, _>>()?;
        self.step.done(&answers)
    }

    async fn record(&self, operation: Operation) -> Attempt {
        let gave_up = matches!(operation, Operation::StepFailed { .. });
        match self.group.submit(operation).await {
            Ok(Ok(Accepted::StepPassed { .. })) if gave_up => {
                Attempt::Again("the segment store refuses, and this kind of job goes on".into())
            }
            Ok(Ok(_)) => Attempt::Recorded,
            Ok(Err(refusal)) => Attempt::Again(refusal.to_string()),
            Err(GroupError::NotLeader { .. } | GroupError::Stopping) => Attempt::Deposed,
            Err(error) => Attempt::Again(error.to_string()),
        }
    }

    /// Between half and the whole of `delay`.
    fn jittered(&mut self, delay: Duration) -> Duration {
        let micros = delay.as_micros() as u64;
        Duration::from_micros(self.rng.between(micros / 2, micros))
    }
}
