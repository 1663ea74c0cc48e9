//! The control plane: what exists, where it is, and who writes. No event ever passes through it.
//!
//! [`ControllerMachine`] is the replicated state. Workflows that need segment stores are jobs in
//! it; [`jobs`] derives their steps, and [`Runner`] carries them out on the leader through the
//! [`SegmentStores`] seam, going on after a crash with the step that is recorded as next.
//! [`ControllerService`] answers clients: bad input is refused before it is proposed, reads are
//! linearizable, waiting requests are answered when their job is done.

mod codec;
pub mod group;
pub mod jobs;
pub mod machine;
pub mod operation;
pub mod outcome;
pub mod service;
pub mod settings;
pub mod stores;
#[cfg(test)]
mod testing;

pub use group::{ControllerGroup, Group, GroupError};
pub use jobs::runner::{Bootstrap, Jobs, Runner};
pub use jobs::{Step, pending_steps};
pub use machine::{ControllerMachine, WriterMode};
pub use operation::{AdoptedSegment, FoundSegment, Operation, StoreId};
pub use outcome::{Accepted, Outcome, Refusal};
pub use service::{ControllerService, ServerInfo, ServerStatus};
pub use settings::ControllerSettings;
pub use stores::{
    JobId, NewSegment, SegmentLength, SegmentSeal, SegmentStores, StoreAction, StoreAnswer,
    StoreCommand, StoreError,
};
