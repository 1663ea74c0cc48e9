//! A state rebuilt from long-term storage alone: for whoever checks what a bucket holds.

use common::{GroupId, LogIndex, MonotonicTime};

use super::apply::Applier;
use crate::archive::{Archive, At, Housekeeping, Refused};
use crate::kv::Applied;
use crate::machine::StateMachine;
use crate::restore::{Chain, RestoreFailure};

/// A machine and what its group knows of its archive, as they are behind the last archived entry.
pub(crate) struct Rebuilt<M> {
    pub(crate) machine: M,
    pub(crate) archive: Archive,
}

/// Replays all of `chain` on top of the state that its checkpoint gave; the rounds at its end,
/// whose own entries are not archived, are taken over as a recovery does it.
pub(crate) fn replay<M: StateMachine>(
    group: GroupId,
    machine: M,
    archive: Archive,
    applied: Applied,
    chain: &Chain,
) -> Result<Rebuilt<M>, RestoreFailure> {
    let mut applier = Applier::new(group, machine, archive, applied);
    let (end, now) = (chain.end().0, MonotonicTime::default());
    applier.machine.begin(end);
    for header in chain.headers(applier.applied.index, end) {
        applier.replay(&header, now).map_err(RestoreFailure::Replay)?;
    }
    for said in chain.said_behind(applier.archive.end()) {
        take_over(&mut applier, said, end)?;
    }
    applier.machine.round_done();
    Ok(Rebuilt { machine: applier.machine, archive: applier.archive })
}

/// As an entry behind the `end` of the chain would.
fn take_over<M: StateMachine>(
    applier: &mut Applier<M>,
    mut said: Housekeeping,
    end: LogIndex,
) -> Result<(), RestoreFailure> {
    let now = applier.archive.incarnation();
    let name = match &mut said {
        Housekeeping::Round(round) => {
            round.recovered = round.footer.name.incarnation < now;
            round.footer.name
        }
        Housekeeping::Skipped(skip) => {
            skip.recovered = skip.checkpoint.reference.name.incarnation < now;
            skip.checkpoint.reference.name
        }
        _ => return Ok(()),
    };
    let at = At { index: LogIndex(end.0 + 1), term: name.term, stamp: applier.applied.stamp };
    applier.take_over(said, at).map_err(|refused| {
        RestoreFailure::Broken(format!("what is taken over with `{name}` is refused: {refused}"))
    })
}

impl<M: StateMachine> Applier<M> {
    fn take_over(&mut self, said: Housekeeping, at: At) -> Result<(), Refused> {
        match said {
            Housekeeping::Round(round) => {
                self.archive.round(&round, at)?;
                self.machine.taken_over(&round.tiered);
            }
            Housekeeping::Skipped(skip) => {
                self.archive.skip(&skip, at)?;
                self.machine.lost(skip.lost);
            }
            _ => {}
        }
        let dead = self.machine.take_dead_objects();
        self.archive.dead(dead, at);
        Ok(())
    }
}
