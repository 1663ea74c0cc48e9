//! Long-term storage as the groups of this node use it, and as its readers do.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::ByteSize;
use futures::future::BoxFuture;
use lts::{
    Bucket, Error, ErrorKind, Leftover, Listed, ObjectPath, Operation, Page, Payload, StoreUrl,
};
use replica::archive::{CheckpointSettings, RoundSettings};
use replica::{TieringSettings, Waiter};

use crate::memory::MemoryPlan;
use crate::settings::Settings;
use crate::storage::{EventLoop, Storage};

/// What the groups archive to.
pub(crate) fn of_groups(
    storage: &Storage,
    settings: &Settings,
    plan: &MemoryPlan,
) -> replica::Storage {
    replica::Storage {
        bucket: storage.bucket().clone(),
        waiter: storage.event_loop().clone(),
        settings: tiering_settings(storage.url(), settings, plan),
        owner: Some(storage.owner().clone()),
        ready: storage.ready(),
        held: storage.held(),
    }
}

pub(crate) fn tiering_settings(
    url: &StoreUrl,
    settings: &Settings,
    plan: &MemoryPlan,
) -> TieringSettings {
    let tiering = &settings.tiering;
    let in_memory = plan.round();
    let own = RoundSettings::default().own_object_bytes;
    let groups = u64::from(settings.containers.count) + 1;
    TieringSettings {
        round_bytes: tiering.round_bytes.min(in_memory),
        round_age: tiering.age_for(url).0,
        round_bytes_max: in_memory.min(ByteSize(2 * tiering.object_bytes.bytes())),
        jobs: plan.rounds(),
        kept_bytes: ByteSize(plan.kept_for_rounds().bytes() / groups),
        round: RoundSettings {
            object_bytes: tiering.object_bytes,
            own_object_bytes: own.min(tiering.object_bytes),
        },
        checkpoint_bytes: tiering.checkpoint_bytes,
        checkpoint_interval: tiering.checkpoint_interval.0,
        checkpoint_keep: tiering.checkpoint_keep.0,
        checkpoint: CheckpointSettings {
            chunk_bytes: CheckpointSettings::default().chunk_bytes.min(in_memory),
        },
        // What it reads and what it writes are there at the same time.
        compaction_bytes_max: ByteSize(in_memory.bytes() / 2),
        grace: tiering.grace.0,
        ..TieringSettings::default()
    }
}

impl Waiter for EventLoop {
    fn wait(&self, future: BoxFuture<'static, ()>) {
        // What is stopped has no outcome, which the future's owner sees.
        let _ = Self::wait(self, future);
    }

    fn stop(&self) {
        self.cancel();
    }
}

/// The bucket for readers, whose tasks run on loops of their own: every request is made on the
/// bucket's loop.
pub(crate) struct OnLoop(pub(crate) Storage);

impl fmt::Debug for OnLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnLoop").field(self.0.bucket()).finish()
    }
}

impl OnLoop {
    /// Asks on the loop; `subject` is what a stopped loop is told about.
    fn ask<'a, T: Send + 'static>(
        &'a self,
        operation: Operation,
        subject: impl fmt::Display,
        ask: impl FnOnce(Arc<lts::Guarded>) -> BoxFuture<'static, Result<T, Error>>,
    ) -> BoxFuture<'a, Result<T, Error>> {
        let asked = self.0.run(ask(self.0.bucket().clone()));
        let subject = subject.to_string();
        Box::pin(async move {
            asked.await.unwrap_or_else(|stopped| {
                let kind = ErrorKind::Unavailable;
                Err(Error::new(kind, operation, subject, self.url(), stopped))
            })
        })
    }
}

impl Bucket for OnLoop {
    fn url(&self) -> String {
        self.0.bucket().url()
    }

    fn put<'a>(
        &'a self,
        path: &'a ObjectPath,
        payload: Payload,
    ) -> BoxFuture<'a, Result<(), Error>> {
        let of = path.clone();
        self.ask(Operation::Put, path, |bucket| {
            Box::pin(async move { bucket.put(&of, payload).await })
        })
    }

    fn get<'a>(
        &'a self,
        path: &'a ObjectPath,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>> {
        let of = path.clone();
        self.ask(Operation::Get, path, |bucket| {
            Box::pin(async move { bucket.get(&of, range).await })
        })
    }

    fn head<'a>(&'a self, path: &'a ObjectPath) -> BoxFuture<'a, Result<Listed, Error>> {
        let of = path.clone();
        self.ask(Operation::Head, path, |bucket| Box::pin(async move { bucket.head(&of).await }))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectPath>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        let (of, after) = (prefix.to_owned(), after.cloned());
        self.ask(Operation::List, prefix, |bucket| {
            Box::pin(async move { bucket.list(&of, after.as_ref(), limit).await })
        })
    }

    fn delete<'a>(&'a self, paths: &'a [ObjectPath]) -> BoxFuture<'a, Result<(), Error>> {
        let of = paths.to_vec();
        let first = paths.first().map_or("", ObjectPath::as_str);
        self.ask(Operation::Delete, first, |bucket| {
            Box::pin(async move { bucket.delete(&of).await })
        })
    }

    fn leftovers(&self, age: Duration) -> BoxFuture<'_, Result<Vec<Leftover>, Error>> {
        self.ask(Operation::Maintain, "leftovers", |bucket| {
            Box::pin(async move { bucket.leftovers(age).await })
        })
    }

    fn remove_leftovers<'a>(
        &'a self,
        leftovers: &'a [Leftover],
    ) -> BoxFuture<'a, Result<(), Error>> {
        let of = leftovers.to_vec();
        self.ask(Operation::Maintain, "leftovers", |bucket| {
            Box::pin(async move { bucket.remove_leftovers(&of).await })
        })
    }
}
