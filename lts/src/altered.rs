//! Buckets that do some things otherwise than the one behind them: what tests put in the way.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::{Bucket, Error, Leftover, Listed, ObjectPath, Page, Payload};

/// A bucket before another one. Whatever it does not do itself is asked of
/// [`inner`](Altered::inner); it is a [`Bucket`] by that.
pub trait Altered: Send + Sync + fmt::Debug {
    /// The bucket behind.
    fn inner(&self) -> &dyn Bucket;

    /// See [`Bucket::put`].
    fn put<'a>(
        &'a self,
        path: &'a ObjectPath,
        payload: Payload,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.inner().put(path, payload)
    }

    /// See [`Bucket::get`].
    fn get<'a>(
        &'a self,
        path: &'a ObjectPath,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>> {
        self.inner().get(path, range)
    }

    /// See [`Bucket::list`].
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectPath>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        self.inner().list(prefix, after, limit)
    }

    /// See [`Bucket::delete`].
    fn delete<'a>(&'a self, paths: &'a [ObjectPath]) -> BoxFuture<'a, Result<(), Error>> {
        self.inner().delete(paths)
    }
}

impl<A: Altered> Bucket for A {
    fn url(&self) -> String {
        self.inner().url()
    }

    fn put<'a>(
        &'a self,
        path: &'a ObjectPath,
        payload: Payload,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Altered::put(self, path, payload)
    }

    fn get<'a>(
        &'a self,
        path: &'a ObjectPath,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>> {
        Altered::get(self, path, range)
    }

    fn head<'a>(&'a self, path: &'a ObjectPath) -> BoxFuture<'a, Result<Listed, Error>> {
        self.inner().head(path)
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectPath>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Error>> {
        Altered::list(self, prefix, after, limit)
    }

    fn delete<'a>(&'a self, paths: &'a [ObjectPath]) -> BoxFuture<'a, Result<(), Error>> {
        Altered::delete(self, paths)
    }

    fn leftovers(&self, age: Duration) -> BoxFuture<'_, Result<Vec<Leftover>, Error>> {
        self.inner().leftovers(age)
    }

    fn remove_leftovers<'a>(
        &'a self,
        leftovers: &'a [Leftover],
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.inner().remove_leftovers(leftovers)
    }
}
