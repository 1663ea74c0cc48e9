//! Workflows that were under way, carried to their ends as the controller's leader does it.

use controller::group::query;
use controller::{Accepted, Operation, SegmentStores, Step, StoreError, pending_steps};
use futures::future::join_all;

use super::reconcile::Reconciler;
use crate::node::LocalStores;

/// Steps that are looked up at a time.
const STEPS: usize = 64;

impl Reconciler<'_> {
    /// Whether there were any.
    pub(super) async fn run_jobs(&mut self) -> Result<bool, String> {
        let (group, term) = (self.node.group(), self.id.fence.term);
        let stores = LocalStores(self.commands.clone());
        let mut ran = false;
        loop {
            let steps = query(&group, move |machine| pending_steps(machine, term, STEPS, |_| true));
            let steps = steps.await.map_err(|error| error.to_string())?;
            if steps.is_empty() {
                return Ok(ran);
            }
            ran = true;
            for step in steps {
                self.carry_out(&stores, &step).await?;
            }
        }
    }

    async fn carry_out(&mut self, stores: &LocalStores, step: &Step) -> Result<(), String> {
        match command(stores, step).await {
            Ok(done) => {
                self.submit(done).await?.map_err(|refusal| refusal.to_string())?;
            }
            Err(StoreError::Refused(problem)) => {
                let given_up = self.submit(step.failed(&problem)).await?;
                match given_up.map_err(|refusal| refusal.to_string())? {
                    Accepted::StepPassed { .. } => return Err(problem),
                    Accepted::StepRecorded { finished: false, .. } => {}
                    _ => self.note("-", format!("job {} was given up: {problem}", step.job)),
                }
            }
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }
}

async fn command(stores: &LocalStores, step: &Step) -> Result<Operation, StoreError> {
    let answers = step.commands.iter().map(|command| stores.perform(command.clone()));
    // All of them have ended before anything is said of the step.
    let answers: Vec<_> = join_all(answers).await.into_iter().collect::<Result<_, _>>()?;
    step.done(&answers)
}
