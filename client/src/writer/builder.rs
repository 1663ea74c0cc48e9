//! What can be chosen about a writer, and how it comes to be.

use std::sync::Arc;

use bytes::Bytes;
use common::limits::EVENT_BYTES_MAX;
use common::{ByteSize, ScopedStream, WriterEpoch, WriterName};
use proto::convert::writer_id;
use proto::v1;

use super::attend::attend;
use super::{EventWriter, Owned, Registration, ReplayWriter, Shared};
use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::session::{Mode, WriterCore, WriterIdentity, WriterLimits};
use crate::streams::{self, SegmentSet, StreamSegments, stream_name};

/// Chooses what an [`EventWriter`] is like.
#[derive(Debug, Clone)]
pub struct EventWriterBuilder {
    choices: Choices,
}

/// Asks what the numbers of a named writer's events mean: it cannot be opened before that is said.
/// A name keeps the meaning that it was first used with; the other one is refused as a conflict
/// with [`Reason::WriterMode`](crate::Reason::WriterMode).
#[derive(Debug, Clone)]
#[must_use = "say whether the writer replays its source or continues"]
pub struct NamedWriterBuilder {
    choices: Choices,
}

/// Chooses what a [`ReplayWriter`] is like.
#[derive(Debug, Clone)]
pub struct ReplayWriterBuilder {
    choices: Choices,
}

#[derive(Debug, Clone)]
struct Choices {
    client: Client,
    stream: ScopedStream,
    name: Option<WriterName>,
    mode: Mode,
    create_name: bool,
    memory_limit: ByteSize,
}

impl EventWriterBuilder {
    pub(crate) fn new(client: Client, stream: ScopedStream) -> Self {
        Self {
            choices: Choices {
                client,
                stream,
                name: None,
                mode: Mode::Anonymous,
                create_name: true,
                memory_limit: ByteSize::mib(16),
            },
        }
    }

    /// Keep the writer's identity across process restarts. A newer process with the name fences
    /// this one. What its events' numbers mean is said next.
    pub fn named(self, name: WriterName) -> NamedWriterBuilder {
        NamedWriterBuilder { choices: Choices { name: Some(name), ..self.choices } }
    }

    /// Whether a name that is not known is made known (the default), or refused.
    pub fn create_name(mut self, create: bool) -> Self {
        self.choices.create_name = create;
        self
    }

    /// Bytes of events that may be on their way; [`EventWriter::append`] waits when they are used
    /// up, or half of them by one segment of several. 16 MiB unless told; at least 8 MiB.
    pub fn memory_limit(mut self, limit: ByteSize) -> Self {
        self.choices.memory_limit = limit;
        self
    }

    /// Locates the stream and, for a named writer, finds out what is already stored.
    pub async fn open(self) -> Result<EventWriter> {
        self.choices.open().await
    }
}

impl NamedWriterBuilder {
    /// The n-th event of the source is always the same event: each process is given all of them
    /// from the first on, and sends those that are not stored.
    pub fn replays(self) -> ReplayWriterBuilder {
        ReplayWriterBuilder { choices: Choices { mode: Mode::Replay, ..self.choices } }
    }

    /// Numbers go on behind the highest stored one: each process appends new events. What was on
    /// its way when an earlier process crashed may be lost; see [`EventWriter::stored_through`].
    pub fn continues(self) -> EventWriterBuilder {
        EventWriterBuilder { choices: Choices { mode: Mode::Continue, ..self.choices } }
    }
}

impl ReplayWriterBuilder {
    /// Whether a name that is not known is made known (the default), or refused.
    pub fn create_name(mut self, create: bool) -> Self {
        self.choices.create_name = create;
        self
    }

    /// Bytes of events that may be on their way; [`ReplayWriter::append`] waits when they are used
    /// up, or half of them by one segment of several. 16 MiB unless told; at least 8 MiB, and at
    /// least what earlier processes of the name had.
    pub fn memory_limit(mut self, limit: ByteSize) -> Self {
        self.choices.memory_limit = limit;
        self
    }

    /// Locates the stream and finds out what is already stored.
    pub async fn open(self) -> Result<ReplayWriter> {
        Ok(ReplayWriter::new(self.choices.open().await?))
    }
}

impl Choices {
    async fn open(self) -> Result<EventWriter> {
        let client = &self.client.inner;
        let mut rng = client.fork_rng("writer");
        let registered = match &self.name {
            Some(name) => Some(self.register(name).await?),
            None => None,
        };
        let (identity, registration, may_be_stored) = match registered {
            Some((identity, registration, stored)) => (identity, Some(registration), stored),
            None => (WriterIdentity::anonymous(rng.u128()), None, false),
        };
        let found = self.locate(&identity, may_be_stored).await?;
        let memory_bytes = self.memory_limit.as_usize().max(EVENT_BYTES_MAX);
        let limits = WriterLimits {
            memory_bytes,
            backoff_max: client.config.backoff_max,
            ..WriterLimits::default()
        };
        let named = identity.is_named().then_some((identity.writer, identity.epoch));
        let core = WriterCore::new(self.stream, identity, limits, found.segments, rng)?;
        let shared = Shared::new(core, client);
        let (weak, inner) = (Arc::downgrade(&shared), Arc::downgrade(client));
        client.spawn("writer", attend(weak, inner, named, client.token()));
        // From here on, dropping the writer ends the attendant.
        let owned = Owned { _client: self.client, shared, registration };
        owned.shared.ready().await?;
        Ok(EventWriter::new(Arc::new(owned)))
    }

    /// The segments to begin with: a named writer of which something may be stored looks for it
    /// from the stream's beginning, in segments that were truncated away, too.
    async fn locate(
        &self,
        identity: &WriterIdentity,
        may_be_stored: bool,
    ) -> Result<StreamSegments> {
        let set = if may_be_stored { SegmentSet::First } else { SegmentSet::Active };
        let writer = identity.is_named().then_some((identity.writer, identity.epoch));
        let found = streams::segments(&self.client.inner, &self.stream, set, writer).await?;
        if found.segments.is_empty() {
            return Err(ClientError::StreamSealed { stream: self.stream.clone() });
        }
        Ok(found)
    }

    /// Registers the name; says, too, whether segments may know something of it.
    async fn register(&self, name: &WriterName) -> Result<(WriterIdentity, Registration, bool)> {
        let mode = match self.mode {
            Mode::Continue => v1::WriterMode::WriterContinue,
            Mode::Replay | Mode::Anonymous => v1::WriterMode::WriterReplay,
        };
        let request = v1::RegisterWriterRequest {
            stream: Some(stream_name(&self.stream)),
            writer: name.to_string(),
            create: self.create_name,
            mode: mode as i32,
        };
        let answer = self.client.inner.controller(|mut c| {
            let request = request.clone();
            async move { c.register_writer(request).await }
        });
        let answer = answer.await?;
        let epoch = WriterEpoch(answer.epoch);
        let identity = WriterIdentity {
            writer: writer_id(&answer.writer)?,
            epoch,
            routing: Bytes::copy_from_slice(name.as_str().as_bytes()),
            mode: self.mode,
        };
        let may_be_stored = answer.may_be_stored || !answer.created;
        Ok((identity, Registration { created: answer.created, epoch }, may_be_stored))
    }
}
