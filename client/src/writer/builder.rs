//! What can be chosen about a writer, and how it comes to be.

use std::sync::Arc;

use bytes::Bytes;
use common::limits::EVENT_BYTES_MAX;
use common::{ByteSize, EventNumber, ScopedStream, WriterEpoch, WriterName};
use proto::convert::writer_id;
use proto::v1;

use super::attend::attend;
use super::{EventWriter, Registration, Shared};
use crate::client::Client;
use crate::error::{ClientError, Result};
use crate::session::{WriterCore, WriterIdentity, WriterLimits};
use crate::streams::{self, SegmentSet, StreamSegments, stream_name};

/// Chooses what an [`EventWriter`] is like.
#[derive(Debug, Clone)]
pub struct EventWriterBuilder {
    client: Client,
    stream: ScopedStream,
    name: Option<WriterName>,
    create_name: bool,
    source_fingerprint: u64,
    first_number: EventNumber,
    memory_limit: ByteSize,
}

impl EventWriterBuilder {
    pub(crate) fn new(client: Client, stream: ScopedStream) -> Self {
        Self {
            client,
            stream,
            name: None,
            create_name: true,
            source_fingerprint: 0,
            first_number: EventNumber(1),
            memory_limit: ByteSize::mib(16),
        }
    }

    /// Keep the writer's identity across process restarts: the same events given again under the
    /// same name, in the same order, are stored only where they are not stored yet. A newer
    /// process with the name fences this one.
    pub fn named(mut self, name: WriterName) -> Self {
        self.name = Some(name);
        self
    }

    /// Whether a name that is not known is made known (the default), or refused.
    pub fn create_name(mut self, create: bool) -> Self {
        self.create_name = create;
        self
    }

    /// What identifies the source of a named writer's events, kept when the name is first
    /// registered and told to later processes; 0: none.
    pub fn source_fingerprint(mut self, fingerprint: u64) -> Self {
        self.source_fingerprint = fingerprint;
        self
    }

    /// The number of the first event appended, 1 unless told: for a source that is not read from
    /// its beginning.
    pub fn first_number(mut self, number: EventNumber) -> Self {
        self.first_number = number;
        self
    }

    /// Bytes of events that may be on their way; [`EventWriter::append`] waits when they are used
    /// up. 16 MiB unless told; at least 8 MiB.
    pub fn memory_limit(mut self, limit: ByteSize) -> Self {
        self.memory_limit = limit;
        self
    }

    /// Locates the stream and, for a named writer, finds out what is already stored.
    pub async fn open(self) -> Result<EventWriter> {
        let client = &self.client.inner;
        let mut rng = client.fork_rng("writer");
        let (identity, registration) = match &self.name {
            Some(name) => {
                let (identity, registration) = self.register(name).await?;
                (identity, Some(registration))
            }
            None => (WriterIdentity::anonymous(rng.u128()), None),
        };
        let resumes = registration.is_some_and(|registration| !registration.created);
        let segments = self.locate(&identity, resumes).await?;
        let limits = WriterLimits {
            memory_bytes: self.memory_limit.as_usize().max(EVENT_BYTES_MAX),
            backoff_max: client.config.backoff_max,
            ..WriterLimits::default()
        };
        let memory_bytes = limits.memory_bytes;
        let named = identity.named.then_some((identity.writer, identity.epoch));
        let (stream, first) = (self.stream.clone(), self.first_number);
        let core = WriterCore::new(stream, identity, limits, first, segments.segments, rng)?;
        let shared = Shared::new(core, memory_bytes, client);
        let (weak, weak_client) = (Arc::downgrade(&shared), Arc::downgrade(client));
        client.spawn("writer attendant", attend(weak, weak_client, named, client.token()));
        // From here on, dropping the writer ends the attendant.
        let writer = EventWriter { _client: self.client, shared, registration, since_yield: 0 };
        writer.shared.ready().await?;
        Ok(writer)
    }

    /// The segments to begin with: a named writer that goes on looks for what it stored from the
    /// stream's beginning, in segments that were truncated away, too.
    async fn locate(&self, identity: &WriterIdentity, resumes: bool) -> Result<StreamSegments> {
        let set = if resumes { SegmentSet::First } else { SegmentSet::Active };
        let writer = identity.named.then_some((identity.writer, identity.epoch));
        let found = streams::segments(&self.client.inner, &self.stream, set, writer).await?;
        if found.segments.is_empty() {
            return Err(ClientError::StreamSealed { stream: self.stream.clone() });
        }
        Ok(found)
    }

    async fn register(&self, name: &WriterName) -> Result<(WriterIdentity, Registration)> {
        let request = v1::RegisterWriterRequest {
            stream: Some(stream_name(&self.stream)),
            writer: name.to_string(),
            create: self.create_name,
            source_fingerprint: self.source_fingerprint,
            mode: v1::WriterMode::WriterReplay.into(),
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
            named: true,
        };
        let known = answer.source_fingerprint;
        let source_fingerprint = (known != 0).then_some(known);
        Ok((identity, Registration { created: answer.created, source_fingerprint, epoch }))
    }
}
