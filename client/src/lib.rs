//! The Rust client of Braid, an elastic event stream store.
//!
//! A [`Client`] is a handle to a cluster. It gives out
//!
//! - an [`EventWriter`], which appends events to a stream: events with the same routing key keep
//!   their order, every event is stored exactly once, and lost connections are ridden out; and a
//!   [`ReplayWriter`], which is given the events of one source again after a crash;
//! - an [`EventReader`], which reads them back from any place of the stream, and follows it;
//! - a [`StreamManager`], which creates, lists, seals, truncates and deletes scopes and streams;
//! - a [`SegmentWriter`] and a [`SegmentReader`] for the raw bytes of one segment.
//!
//! Nothing here reads files or the environment, and no call blocks a thread. Every error is a
//! [`ClientError`] that says what to do, with an [`ErrorKind`] to decide on.
//!
#![doc = concat!("```no_run\n", include_str!("../examples/snippets/first_steps.rs"), "```")]

mod append_link;
mod backoff;
mod client;
mod config;
mod connection;
mod error;
mod event;
mod patient;
mod raw;
mod reader;
#[cfg(not(feature = "simulation"))]
#[expect(unreachable_pub, reason = "the simulation drives it from outside")]
mod session;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod session;
mod status;
mod streams;
mod succession;
mod waiters;
mod writer;

pub use client::{Client, ServerInfo};
#[doc(inline)]
pub use common::{
    Attempt, ByteSize, ContainerId, CutCoverage, EventNumber, Incarnation, KeyRange, NameError,
    Offset, Rng, ScopeName, ScopedStream, SegmentId, SegmentNumber, StreamCut, StreamEpoch,
    StreamId, StreamName, WallTime, WriterEpoch, WriterId, WriterName, WriterSession,
    cut::StreamCutError,
};
pub use config::ClientConfig;
pub use error::{ClientError, ErrorKind, Refusal, Result};
pub use event::{Event, Header, Headers, ReadEvent, StoredTime};
#[doc(inline)]
pub use proto::error::Reason;
#[doc(inline)]
pub use proto::framing::{EventError, FramingError};
pub use raw::{SegmentBytes, SegmentReader, SegmentWriter};
pub use reader::{
    EventReader, EventReaderBuilder, EventReaderStart, OnTruncated, ReadFrom, ReadUntil, Skipped,
};
pub use status::{
    GroupStatus, LtsStatus, MemoryStatus, Rates, ServerStatus, look_after_storage, server_status,
};
pub use streams::{
    SegmentInfo, SegmentPlace, SegmentSet, StoredOfWriter, StreamConfig, StreamCreated,
    StreamDescription, StreamManager, StreamSegments, StreamState, StreamSummary,
    WriterDescription, WriterMode, WriterSummary,
};
pub use writer::{
    Acknowledged, EventWriter, EventWriterBuilder, NamedWriterBuilder, Registration, ReplayWriter,
    ReplayWriterBuilder,
};

#[cfg(test)]
mod tests;
