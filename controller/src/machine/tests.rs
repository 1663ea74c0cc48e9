mod creating;
mod cuts;
mod ending;
mod limits;
mod recovering;
mod restoring;
mod slices;
mod writers;

use crate::machine::ControllerMachine;
use crate::operation::Operation;
use crate::outcome::Refusal;
use crate::testing::apply;

/// Applies an operation that must be refused and must change nothing.
fn refused(machine: &mut ControllerMachine, operation: &Operation) -> Refusal {
    machine.unsaved.clear();
    let before = machine.state.clone();
    let refusal = apply(machine, operation).unwrap_err();
    assert_eq!(machine.state, before, "{operation:?} changed the state");
    assert!(machine.is_clean(), "{operation:?} marked something as changed");
    refusal
}
