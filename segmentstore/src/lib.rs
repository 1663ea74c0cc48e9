//! The data plane: containers of segments, their read path, and the service in front of both.
//!
//! A container is a Raft group whose state is a set of segments. What happens to a segment is an
//! [`operation`]; what apply decides about it is an [`outcome`].

mod codec;
pub mod identity;
pub mod limits;
pub mod operation;
pub mod outcome;
pub mod settings;

pub use codec::CodecError;
pub use identity::{AttributeUpdate, CommandId, Expected, SegmentIdentity, SegmentKind, Successor};
pub use operation::{Append, Command, Open, OpenSegment, Operation};
pub use outcome::{Done, Expired, Opened, Outcome, Refusal};
pub use settings::{SettingError, Settings};
