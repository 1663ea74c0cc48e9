//! The seam between Braid and the stores that keep its objects.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use common::WallTime;
use common::limits::MIB;
use futures::future::BoxFuture;

use crate::{Error, ObjectPath, Payload};

/// Bytes of one object: what every store takes in a single create-only request. Larger things are
/// several objects, so that no upload has parts that a crash can leave behind.
pub const OBJECT_BYTES_MAX: u64 = 64 * MIB as u64;

/// Items of one page of a listing, and of one batch of deletions.
pub const PAGE_OBJECTS_MAX: usize = 1_000;

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub path: ObjectPath,
    pub length: u64,
    /// When the store says that it was made, by the store's clock; some round it to a second.
    pub modified: WallTime,
}

/// A part of a listing, in order of paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    pub objects: Vec<Listed>,
    /// Whether there may be objects behind the last one: list on after its path.
    pub more: bool,
}

/// What an interrupted put left behind: no object, and no object will come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    pub name: String,
    pub length: u64,
    pub modified: WallTime,
}

/// A place for immutable objects. Laws that every implementation keeps, and that `contract.rs`
/// checks on all of them:
///
/// - **Created once.** [`put`](Bucket::put) never replaces an object: of several puts of one path,
///   also at the same time and from several machines, at most one stores its bytes. Nothing is ever
///   seen of an object before it is there as a whole.
/// - **Names.** No object's path is the folder of another's: a file system could not hold both.
/// - **Durable.** After a put has returned `Ok` the object is there until it is deleted, whatever
///   crashes. After a delete has returned `Ok` it does not come back.
/// - **Seen at once.** What a finished put or delete did is seen by every later get, head and list,
///   from every machine.
/// - **Errors.** Only `Unavailable` leaves open whether a put or delete happened; it is settled by
///   reading. `AlreadyExists` may also come of a put that competed with another one, or of one's
///   own put whose answer was lost: whose bytes there are, if any, is settled by reading too. After
///   all other errors nothing happened.
/// - **Ranges.** [`get`](Bucket::get) answers with exactly the range asked for, or fails: `Damaged`
///   when the object ends before.
/// - **Cancellation.** Dropping a future leaves a put or delete undecided, as `Unavailable` does.
///
/// No store's implementation retries, limits time or hides an outage: [`Guarded`](crate::Guarded)
/// does, around any of them.
pub trait Bucket: Send + Sync + fmt::Debug {
    /// What people call it: its URL.
    fn url(&self) -> String;

    /// Creates the object; at most [`OBJECT_BYTES_MAX`] bytes.
    fn put<'a>(
        &'a self,
        path: &'a ObjectPath,
        payload: Payload,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// The bytes of `range`, which is not empty.
    fn get<'a>(
        &'a self,
        path: &'a ObjectPath,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>>;

    /// The object's length and age.
    fn head<'a>(&'a self, path: &'a ObjectPath) -> BoxFuture<'a, Result<Listed, Error>>;

    /// At most `limit` objects whose paths begin with `prefix` and come after `after`, in order of
    /// paths. The prefix ends anywhere, also within a part.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectPath>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Error>>;

    /// Deletes up to [`PAGE_OBJECTS_MAX`] objects. One that is not there is no error. On an error
    /// any of them may be gone; ask again.
    fn delete<'a>(&'a self, paths: &'a [ObjectPath]) -> BoxFuture<'a, Result<(), Error>>;

    /// What puts that were interrupted at least `age` ago left behind.
    fn leftovers(&self, age: Duration) -> BoxFuture<'_, Result<Vec<Leftover>, Error>>;

    /// Removes leftovers; one that is gone is no error.
    fn remove_leftovers<'a>(
        &'a self,
        leftovers: &'a [Leftover],
    ) -> BoxFuture<'a, Result<(), Error>>;
}
