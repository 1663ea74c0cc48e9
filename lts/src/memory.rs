//! A bucket in memory, for tests and simulations: deterministic, and ready at once.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use common::{Clock, WallTime};
use futures::future::{BoxFuture, ready};

use crate::{Bucket, Error, ErrorKind, Leftover, Listed, ObjectPath, Operation, Page, Payload};

/// See the module. Clones share the objects, as the machines of a cluster do.
#[derive(Debug, Clone)]
pub struct Memory {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    objects: BTreeMap<ObjectPath, Stored>,
    bytes: u64,
    capacity: u64,
    read_only: bool,
}

#[derive(Debug, Clone)]
struct Stored {
    bytes: Bytes,
    modified: WallTime,
}

impl Memory {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let state =
            State { objects: BTreeMap::new(), bytes: 0, capacity: u64::MAX, read_only: false };
        Self { clock, state: Arc::new(Mutex::new(state)) }
    }

    /// Puts that would take it beyond this many bytes find it full.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Refuses puts and deletes, as a store with rights to read does.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().read_only = read_only;
    }

    pub fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// Changes the bytes of an object as no client can: cut, rotten or replaced. Says whether
    /// there is such an object.
    pub fn tamper(&self, path: &ObjectPath, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.state();
        let Some(stored) = state.objects.get_mut(path) else { return false };
        let before = stored.bytes.len() as u64;
        let mut bytes = stored.bytes.to_vec();
        change(&mut bytes);
        let after = bytes.len() as u64;
        stored.bytes = bytes.into();
        state.bytes = state.bytes - before + after;
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, kind: ErrorKind, operation: Operation, path: &ObjectPath, why: &str) -> Error {
        Error::new(kind, operation, path, self.url(), why)
    }

    fn put_now(&self, path: &ObjectPath, payload: Payload) -> Result<(), Error> {
        let error = |kind, why| Err(self.error(kind, Operation::Put, path, why));
        let mut state = self.state();
        if state.read_only {
            return error(ErrorKind::Denied, "it is read-only");
        }
        if payload.len() > crate::OBJECT_BYTES_MAX {
            return error(ErrorKind::Unsupported, "it has more than 64 MiB");
        }
        if state.objects.contains_key(path) {
            return error(ErrorKind::AlreadyExists, "there is an object of that name");
        }
        let bytes = state.bytes.saturating_add(payload.len());
        if bytes > state.capacity {
            return error(ErrorKind::Full, "its capacity is used up");
        }
        state.bytes = bytes;
        let stored = Stored { bytes: payload.into_bytes(), modified: self.clock.wall() };
        state.objects.insert(path.clone(), stored);
        Ok(())
    }

    fn find(&self, operation: Operation, path: &ObjectPath) -> Result<Stored, Error> {
        let found = self.state().objects.get(path).cloned();
        found.ok_or_else(|| self.error(ErrorKind::NotFound, operation, path, "there is none"))
    }

    fn get_now(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, Error> {
        let stored = self.find(Operation::Get, path)?;
        let length = stored.bytes.len() as u64;
        if range.end > length {
            let why = format!("it has {length} bytes, not the {} it should", range.end);
            return Err(self.error(ErrorKind::Damaged, Operation::Get, path, &why));
        }
        Ok(stored.bytes.slice(range.start as usize..range.end as usize))
    }

    fn list_now(&self, prefix: &str, after: Option<&ObjectPath>, limit: usize) -> Page {
        let state = self.state();
        let from = match after {
            Some(after) => (Bound::Excluded(after), Bound::Unbounded),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let mut found = state
            .objects
            .range::<ObjectPath, _>(from)
            .skip_while(|(path, _)| path.as_str() < prefix)
            .take_while(|(path, _)| path.as_str().starts_with(prefix))
            .map(|(path, stored)| listed(path, stored));
        let objects = found.by_ref().take(limit).collect();
        Page { objects, more: found.next().is_some() }
    }

    fn delete_now(&self, paths: &[ObjectPath]) -> Result<(), Error> {
        let mut state = self.state();
        for path in paths {
            if state.read_only {
                return Err(self.error(
                    ErrorKind::Denied,
                    Operation::Delete,
                    path,
                    "it is read-only",
                ));
            }
            if let Some(stored) = state.objects.remove(path) {
                state.bytes -= stored.bytes.len() as u64;
            }
        }
        Ok(())
    }
}

fn listed(path: &ObjectPath, stored: &Stored) -> Listed {
    Listed { path: path.clone(), length: stored.bytes.len() as u64, modified: stored.modified }
}

impl Bucket for Memory {
    fn url(&self) -> String {
        "memory:".to_owned()
    }

    fn put<'a>(
        &'a self,
        path: &'a ObjectPath,
        payload: Payload,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.put_now(path, payload) })
    }

    fn get<'a>(
        &'a self,
        path: &'a ObjectPath,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>> {
        Box::pin(async move { self.get_now(path, range) })
    }

    fn head<'a>(&'a self, path: &'a ObjectPath) -> BoxFuture<'a, Result<Listed, Error>> {
        Box::pin(
            async move { self.find(Operation::Head, path).map(|stored| listed(path, &stored)) },
        )
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectPath>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        Box::pin(async move { Ok(self.list_now(prefix, after, limit)) })
    }

    fn delete<'a>(&'a self, paths: &'a [ObjectPath]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.delete_now(paths) })
    }

    fn leftovers(&self, _age: Duration) -> BoxFuture<'_, Result<Vec<Leftover>, Error>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn remove_leftovers<'a>(&'a self, _: &'a [Leftover]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(ready(Ok(())))
    }
}
