//! The segment store of a process: its containers, and what serves them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::limits::DATA_MESSAGE_BYTES_MAX;
use common::{
    ByteSize, Clock, ContainerId, MonotonicTime, Offset, SegmentId, Tasks, ThreadPool, WallTime,
};
use lts::Bucket;
use replica::{GroupHandle, Proposal};

use crate::append_core::{AppendConnection, SessionBudget};
use crate::commands::StoreCommands;
use crate::container::{ContainerMachine, Memory};
use crate::handle::{ContainerError, ContainerHandle, Containers};
use crate::limits::EXPIRE_SLICE_WRITERS;
use crate::metrics::Metrics;
use crate::operation::Operation;
use crate::outcome::{Expired, Outcome};
use crate::permits::BytePermits;
use crate::pressure::Pressure;
use crate::read::{LogCache, LogSource, ObjectCache, ReadError, ReadRange, SegmentReader, Sources};
use crate::settings::Settings;

/// How often each container is looked through for writers to expire.
const EXPIRE_INTERVAL: Duration = Duration::from_mins(1);

/// Appends to, reads and commands the containers of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SegmentStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    containers: Containers,
    sources: Sources,
    permits: BytePermits,
    sessions: SessionBudget,
    questions_max: usize,
    pressure: Pressure,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
}

impl SegmentStore {
    /// A store over containers that are replicated here. `memory` is the one that their machines
    /// were made with; `bucket` is where they keep what is not in the log any more. Fails where the threads that read the log cannot be started.
    pub fn new(
        containers: Vec<(ContainerId, GroupHandle<ContainerMachine>)>,
        log: wal::Log,
        bucket: Option<Arc<dyn Bucket>>,
        memory: &Memory,
        settings: &Settings,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
    ) -> std::io::Result<Self> {
        let handle = |(id, handle)| (id, Arc::new(handle) as Arc<dyn ContainerHandle>);
        let containers = Containers::new(containers.into_iter().map(handle));
        let pool = ThreadPool::start("log-read", settings.read_threads)?;
        let sources = Sources {
            log: log_cache(Arc::new(log), settings, pool, memory),
            objects: bucket.map(|bucket| object_cache(bucket, settings, memory, Some(&tasks))),
            metrics: memory.metrics(),
        };
        Ok(Self::with_sources(containers, sources, settings, clock, tasks))
    }

    /// A store without threads and tasks of its own for reading: reads from log and bucket happen
    /// where they are asked for. For tests and simulations.
    pub fn inline(
        containers: Containers,
        log: Arc<dyn LogSource>,
        bucket: Option<Arc<dyn Bucket>>,
        memory: &Memory,
        settings: &Settings,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
    ) -> Self {
        let sources = Sources {
            log: log_cache(log, settings, ThreadPool::inline(), memory),
            objects: bucket.map(|bucket| object_cache(bucket, settings, memory, None)),
            metrics: memory.metrics(),
        };
        Self::with_sources(containers, sources, settings, clock, tasks)
    }

    fn with_sources(
        containers: Containers,
        sources: Sources,
        settings: &Settings,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
    ) -> Self {
        let permits =
            BytePermits::with_reserve(settings.append_memory.as_usize(), DATA_MESSAGE_BYTES_MAX);
        let sessions =
            SessionBudget::new(settings.session_memory.bytes(), settings.connection_sessions);
        let pressure = Pressure::new(clock.clone());
        let questions_max = settings.questions;
        let inner =
            Inner { containers, sources, permits, sessions, questions_max, pressure, clock, tasks };
        Self { inner: Arc::new(inner) }
    }

    pub fn containers(&self) -> &Containers {
        &self.inner.containers
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.sources.metrics
    }

    pub fn permits(&self) -> &BytePermits {
        &self.inner.permits
    }

    /// What the slots of append connections take.
    pub fn sessions(&self) -> &SessionBudget {
        &self.inner.sessions
    }

    /// Questions to containers that may be under way at a time.
    pub(crate) fn questions_max(&self) -> usize {
        self.inner.questions_max
    }

    /// What slows appends down; others add their signals.
    pub fn pressure(&self) -> &Pressure {
        &self.inner.pressure
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    pub fn commands(&self) -> StoreCommands {
        StoreCommands::new(self.inner.containers.clone())
    }

    /// A new append connection.
    pub fn connect(&self) -> Arc<AppendConnection> {
        let Inner { containers, sources, sessions, .. } = &*self.inner;
        AppendConnection::new(containers.clone(), sources.metrics.clone(), sessions)
    }

    /// A reader over a range of a segment; linearizable where it begins and, unless it follows,
    /// where it ends.
    pub async fn read(
        &self,
        container: ContainerId,
        segment: SegmentId,
        range: ReadRange,
    ) -> Result<SegmentReader, ReadError> {
        let view = self.inner.containers.view(container, segment).await?;
        let view = view.ok_or(ReadError::SegmentNotFound { segment })?;
        SegmentReader::new(view.shared, self.inner.sources.clone(), range)
    }

    /// Where to begin reading for everything stored at or after `time`.
    pub async fn find_offset(
        &self,
        container: ContainerId,
        segment: SegmentId,
        time: WallTime,
    ) -> Result<Offset, ReadError> {
        let ask = move |machine: &ContainerMachine| machine.find_offset(segment, time);
        let found = self.inner.containers.ask(container, ask).await?;
        found.ok_or(ReadError::SegmentNotFound { segment })
    }

    /// Starts what the store does by itself: expiring writers of the containers that it leads.
    pub fn start(&self) {
        for container in self.inner.containers.ids() {
            let (store, token) = (self.clone(), self.inner.tasks.token());
            self.inner.tasks.spawn("expire-writers", async move {
                let expire = store.expire_for_ever(container);
                token.run_until_cancelled(expire).await;
            });
        }
    }

    async fn expire_for_ever(&self, container: ContainerId) {
        let mut seen = UpTime::default();
        loop {
            tokio::time::sleep(EXPIRE_INTERVAL).await;
            // Not leading, or full: the next round will do.
            if let Err(error) = self.expire_due(container, &mut seen).await {
                tracing::debug!(%container, %error, "expire writers");
            }
        }
    }

    /// Expires the writers of a container until none is due, a slice at a time; how many traces were
    /// forgotten. The first call with a new `seen` only learns the container's up-time.
    pub async fn expire_due(
        &self,
        container: ContainerId,
        seen: &mut UpTime,
    ) -> Result<usize, ContainerError> {
        let mut forgotten = 0;
        loop {
            let expired = self.expire_slice(container, seen).await?;
            let count = (expired.forgotten + expired.removed) as usize;
            forgotten += count;
            // Nothing is due, or nothing yet by the up-time that the leader stamps.
            if count == 0 {
                return Ok(forgotten);
            }
        }
    }

    /// A slice is small, and others' entries come between two of them.
    async fn expire_slice(
        &self,
        container: ContainerId,
        seen: &mut UpTime,
    ) -> Result<Expired, ContainerError> {
        let containers = &self.inner.containers;
        let up_micros = containers.ask(container, ContainerMachine::up_micros).await?;
        let up_now = seen.estimate(up_micros, self.inner.clock.monotonic());
        let due =
            move |machine: &ContainerMachine| machine.due_writers(up_now, EXPIRE_SLICE_WRITERS);
        let writers = containers.ask(container, due).await?;
        if writers.is_empty() {
            return Ok(Expired::default());
        }
        let header = Operation::Expire(writers).encode();
        match containers.submit(container, Proposal::new(header, Bytes::new())).await? {
            Outcome::Expired(expired) => Ok(expired),
            other => unreachable!("an expiry was answered with {other:?}"),
        }
    }
}

fn log_cache(
    log: Arc<dyn LogSource>,
    settings: &Settings,
    pool: ThreadPool,
    memory: &Memory,
) -> Arc<LogCache> {
    Arc::new(LogCache::new(log, settings.read_cache.as_usize(), pool, memory.metrics()))
}

fn object_cache(
    bucket: Arc<dyn Bucket>,
    settings: &Settings,
    memory: &Memory,
    tasks: Option<&Tasks>,
) -> ObjectCache {
    let [cache, ahead] =
        [settings.object_cache, settings.object_read_ahead].map(ByteSize::as_usize);
    ObjectCache::new(bucket, cache, ahead, memory.metrics(), tasks.cloned())
}

/// What the leader makes of a container's up-time, which moves on in its state only with entries.
#[derive(Debug, Clone, Copy, Default)]
pub struct UpTime {
    seen: Option<(u64, MonotonicTime)>,
}

impl UpTime {
    /// The up-time that an entry proposed at `now` would about be stamped with.
    pub(crate) fn estimate(&mut self, up_micros: u64, now: MonotonicTime) -> u64 {
        match self.seen {
            Some((seen, at)) if seen == up_micros => up_micros + now.since(at).as_micros() as u64,
            _ => {
                self.seen = Some((up_micros, now));
                up_micros
            }
        }
    }
}
