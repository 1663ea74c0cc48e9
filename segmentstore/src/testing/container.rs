//! Stand-ins for a container's group and for the log.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use common::{GroupId, LogIndex};
use futures::future::BoxFuture;
use replica::{Proposal, ProposeError, Refused, Reply};

use super::{CONTAINER, Driver};
use crate::handle::{ContainerHandle, Containers, Query};
use crate::operation::Operation;
use crate::outcome::Outcome;
use crate::read::LogSource;
use crate::settings::Settings;

/// A container whose rounds a test makes by hand.
pub(crate) struct FakeContainer {
    driver: Mutex<Driver>,
    queue: Mutex<Vec<Proposal<Outcome>>>,
    /// Set: proposals are refused with it.
    pub(crate) refuse: Mutex<Option<ProposeError>>,
}

impl FakeContainer {
    pub(crate) fn new(settings: &Settings) -> Arc<Self> {
        let driver = Mutex::new(Driver::with(settings));
        Arc::new(Self { driver, queue: Mutex::default(), refuse: Mutex::default() })
    }

    pub(crate) fn containers(self: &Arc<Self>) -> Containers {
        Containers::new([(CONTAINER, self.clone() as Arc<dyn ContainerHandle>)])
    }

    pub(crate) fn driver(&self) -> MutexGuard<'_, Driver> {
        self.driver.lock().unwrap()
    }

    pub(crate) fn queued(&self) -> MutexGuard<'_, Vec<Proposal<Outcome>>> {
        self.queue.lock().unwrap()
    }

    /// Loses the `at`-th proposal of the queue with its term.
    pub(crate) fn lose(&self, at: usize) {
        let lost = self.queued().remove(at);
        answer(lost.reply, Err(ProposeError::Unknown));
    }

    /// Applies everything queued as one entry, answers, and ends the round.
    pub(crate) fn round(&self) {
        let proposals = std::mem::take(&mut *self.queued());
        let operations: Vec<(Operation, Bytes)> = proposals
            .iter()
            .map(|p| (Operation::decode(&p.operation).unwrap(), p.payload.clone()))
            .collect();
        let entry: Vec<(Operation, &[u8])> =
            operations.iter().map(|(operation, p)| (operation.clone(), &p[..])).collect();
        let outcomes = self.driver().entry(&entry);
        let mut sinks: Vec<Arc<dyn replica::OutcomeSink<Outcome>>> = Vec::new();
        for (proposal, outcome) in proposals.into_iter().zip(outcomes) {
            if let Reply::Sink { sink, .. } = &proposal.reply
                && !sinks.iter().any(|known| Arc::ptr_eq(known, sink))
            {
                sinks.push(sink.clone());
            }
            answer(proposal.reply, Ok(outcome));
        }
        for sink in sinks {
            sink.round_done();
        }
    }
}

fn answer(reply: Reply<Outcome>, outcome: Result<Outcome, ProposeError>) {
    match reply {
        Reply::None => {}
        Reply::Once(reply) => drop(reply.send(outcome)),
        Reply::Sink { sink, tag } => sink.deliver(tag, outcome),
    }
}

impl ContainerHandle for FakeContainer {
    fn propose(&self, proposal: Proposal<Outcome>) -> Result<(), Box<Refused<Outcome>>> {
        if let Some(error) = self.refuse.lock().unwrap().clone() {
            return Err(Box::new(Refused { proposal, error }));
        }
        self.queued().push(proposal);
        Ok(())
    }

    fn query(&self, ask: Query) -> BoxFuture<'static, Result<(), ProposeError>> {
        ask(&self.driver().machine);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The log of a [`FakeContainer`].
pub(crate) struct FakeLog {
    container: Arc<FakeContainer>,
    /// Indices that cannot be read any more.
    pub(crate) gone: Mutex<BTreeSet<u64>>,
    /// Entries read so far.
    pub(crate) reads: AtomicU64,
}

impl FakeLog {
    pub(crate) fn new(container: &Arc<FakeContainer>) -> Arc<Self> {
        let container = container.clone();
        Arc::new(Self { container, gone: Mutex::default(), reads: AtomicU64::new(0) })
    }
}

impl LogSource for FakeLog {
    fn read(
        &self,
        _group: GroupId,
        low: LogIndex,
        high: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<(LogIndex, Bytes)>, wal::ReadError> {
        if self.gone.lock().unwrap().contains(&low.0) {
            return Err(wal::ReadError::Truncated { index: low, first: high });
        }
        let driver = self.container.driver();
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (index, payload) in driver.log.range(low..high) {
            if !entries.is_empty() && bytes + payload.len() > max_bytes {
                break;
            }
            bytes += payload.len();
            entries.push((*index, payload.clone()));
        }
        self.reads.fetch_add(entries.len() as u64, Ordering::SeqCst);
        Ok(entries)
    }
}
