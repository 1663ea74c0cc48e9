//! The data plane: containers of segments, their read path, and the service in front of both.
//!
//! A container is a Raft group whose state is a set of segments. What happens to a segment is an
//! [`operation`]; what apply decides about it is an [`outcome`].

pub mod append_core;
mod chunked;
mod codec;
pub mod commands;
pub mod container;
mod extent;
pub mod handle;
pub mod identity;
pub mod limits;
pub mod metrics;
pub mod operation;
pub mod outcome;
pub mod permits;
pub mod pressure;
pub mod read;
pub mod service;
pub mod settings;
mod shared;
pub mod store;
mod tail_cache;
#[cfg(test)]
mod testing;
mod time_index;

pub use append_core::{AppendConnection, SessionBudget};
pub use codec::CodecError;
pub use commands::{CommandError, Prospect, SegmentStatus, StoreCommands};
pub use container::{ContainerMachine, Memory, SegmentDescription, SegmentView, WriterStatus};
pub use extent::{Extent, ObjectExtent};
pub use handle::{ContainerError, ContainerHandle, Containers};
pub use identity::{AttributeUpdate, CommandId, Expected, SegmentIdentity, SegmentKind, Successor};
pub use metrics::{Counter, Metrics, StreamCounters};
pub use operation::{Append, Close, Command, EventSum, Open, OpenSegment, Operation};
pub use outcome::{Done, Expired, Opened, Outcome, Refusal};
pub use permits::{BytePermit, BytePermits};
pub use pressure::Pressure;
pub use read::{LogSource, ReadChunk, ReadError, ReadRange, SegmentReader};
pub use service::{ConnectionLimits, SegmentStoreService};
pub use settings::{SettingError, Settings};
pub use shared::{Bounds, SegmentShared};
pub use store::{SegmentStore, UpTime};
