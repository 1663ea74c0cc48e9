//! The Rust client of Braid, an elastic event stream store.
//!
//! A [`Client`] is a handle to a cluster. It gives out
//!
//! - an [`EventWriter`], which appends events to a stream: events with the same routing key keep
//!   their order, every event is stored exactly once, and lost connections are ridden out;
//! - an [`EventReader`], which reads them back from any place of the stream, and follows it;
//! - a [`StreamManager`], which creates, lists, seals, truncates and deletes scopes and streams;
//! - a [`SegmentWriter`] and a [`SegmentReader`] for the raw bytes of one segment.
//!
//! Nothing here reads files or the environment, and no call blocks a thread. Every error is a
//! [`ClientError`] that says what to do, with an [`ErrorKind`] to decide on.
//!
//! ```no_run
//! use client::{Client, ClientConfig, Event, ReadFrom, ReadUntil, ScopedStream, StreamConfig};
//!
//! # async fn example() -> client::Result<()> {
//! let client = Client::connect(ClientConfig::new("127.0.0.1:7070")).await?;
//!
//! // A stream of four segments: four parts that are written and read side by side.
//! let stream = ScopedStream::new("demo", "hello").expect("a good name");
//! let config = StreamConfig { segments: 4, create_scope: true };
//! client.streams().create_stream(&stream, config).await?;
//!
//! let mut writer = client.event_writer(&stream).open().await?;
//! let event = Event { key: Some("greetings"), time_micros: None, payload: b"hello, world" };
//! writer.append(event).await?;
//! writer.flush().await?; // durable from here on
//!
//! let reader = client.event_reader(&stream).from(ReadFrom::Head).until(ReadUntil::Tail);
//! let mut reader = reader.open().await?;
//! while let Some(event) = reader.next().await {
//!     let event = event?;
//!     println!("{}: {}", event.offset, String::from_utf8_lossy(&event.payload));
//! }
//! # Ok(())
//! # }
//! ```

mod append_link;
mod backoff;
mod client;
mod config;
mod connection;
mod error;
mod event;
mod raw;
mod reader;
pub mod session;
mod streams;
mod succession;
mod writer;

pub use client::{Client, ServerInfo};
pub use common::{
    ByteSize, EventNumber, KeyRange, Offset, Rng, ScopeName, ScopedStream, SegmentId, StreamCut,
    StreamId, WallTime, WriterName,
};
pub use config::ClientConfig;
pub use error::{ClientError, ErrorKind, Refusal, Result};
pub use event::{Event, ReadEvent};
pub use raw::{SegmentBytes, SegmentReader, SegmentWriter};
pub use reader::{EventReader, EventReaderBuilder, ReadFrom, ReadUntil};
pub use streams::{
    SegmentInfo, SegmentPlace, SegmentSet, StreamConfig, StreamCreated, StreamDescription,
    StreamManager, StreamSegments, StreamState, StreamSummary,
};
pub use writer::{Acknowledged, EventWriter, EventWriterBuilder, Registration};

#[cfg(test)]
mod tests;
