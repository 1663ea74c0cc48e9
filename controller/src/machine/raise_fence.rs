//! Go above a fence that containers obey and this history of the controller never gave.
//!
//! Containers keep the highest fence they have seen, and a controller's terms only rise, so that the
//! highest is the leader's. That ends where entries of the controller's log are lost for good: its
//! terms begin lower, and every command would be refused for ever. The era leads the term in every
//! fence; raised by an entry, it is known to each later leader before it commands, and every leader
//! of the lost history stays below it, whatever term it had.
//!
//! What the lost entries gave out is unknown, so counters of ids go on far above: nothing is given
//! out twice.

use common::Fence;

use crate::machine::ControllerMachine;
use crate::machine::cluster::era_of;
use crate::outcome::{Accepted, Outcome};

/// More ids than lost entries can have given out.
const IDS_PASSED_OVER: u64 = 1 << 32;

impl ControllerMachine {
    pub(super) fn raise_fence(&mut self, above: Fence) -> Outcome {
        self.initialized()?;
        let cluster = self.state.cluster.as_ref().expect("it was looked for just now");
        let era = era_of(above) + 1;
        if above.incarnation < cluster.incarnation
            || (above.incarnation == cluster.incarnation && era <= cluster.era)
        {
            return Ok(Accepted::FenceRaised { raised: false });
        }
        let cluster = self.counters();
        cluster.incarnation = above.incarnation;
        cluster.era = era;
        let made = cluster.streams_made;
        cluster.passed_over.push((made + 1, made + IDS_PASSED_OVER));
        cluster.streams_made += IDS_PASSED_OVER;
        cluster.jobs_made += IDS_PASSED_OVER;
        cluster.writer_epochs_made += IDS_PASSED_OVER;
        Ok(Accepted::FenceRaised { raised: true })
    }
}
