//! Pages of lists. A token says where to go on, not how many were seen, so that pages stay right
//! while the list changes: names go on behind the last one given, segments go on at the key at
//! which the last one ended.
//!
//! Tokens are texts `1:KIND:…`; clients treat them as opaque.

use std::ops::Bound;

use common::limits::PAGE_ITEMS_MAX;
use common::{SegmentId, StreamId};
use proto::v1;

use crate::service::ServiceError;
use crate::service::fields::invalid;

/// The page that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageRequest {
    pub(super) size: usize,
    token: String,
}

/// A page's items and where the next one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) next_token: String,
}

impl PageRequest {
    pub(super) fn new(page: Option<v1::Page>, default_size: usize) -> Result<Self, ServiceError> {
        let page = page.unwrap_or_default();
        let size = match page.size as usize {
            0 => default_size,
            size if size <= PAGE_ITEMS_MAX => size,
            size => {
                return Err(invalid(format!(
                    "field `page.size` is {size}; at most {PAGE_ITEMS_MAX} items come in a page, \
                     ask for more of them"
                )));
            }
        };
        Ok(Self { size, token: page.token })
    }

    /// Where a list of names under `kind` goes on.
    pub(super) fn after_name<N: std::str::FromStr>(
        &self,
        kind: &str,
    ) -> Result<Bound<N>, ServiceError> {
        if self.token.is_empty() {
            return Ok(Bound::Unbounded);
        }
        let name = self.rest_of(kind)?.parse().map_err(|_| self.foreign())?;
        Ok(Bound::Excluded(name))
    }

    /// Where a list of segments under `kind` goes on; `None`: at its beginning.
    pub(super) fn start_key(&self, kind: &str) -> Result<Option<u64>, ServiceError> {
        if self.token.is_empty() {
            return Ok(None);
        }
        let key = u64::from_str_radix(self.rest_of(kind)?, 16).map_err(|_| self.foreign())?;
        Ok(Some(key))
    }

    fn rest_of(&self, kind: &str) -> Result<&str, ServiceError> {
        let rest = self.token.strip_prefix("1:").and_then(|rest| rest.strip_prefix(kind));
        rest.and_then(|rest| rest.strip_prefix(':')).ok_or_else(|| self.foreign())
    }

    fn foreign(&self) -> ServiceError {
        invalid(format!(
            "field `page.token` is {:?}, which is of another list, or of a stream that was deleted \
             since; begin again with an empty one",
            self.token
        ))
    }

    /// Cuts a list that was read one item further than the page is long.
    pub(super) fn cut<T>(
        &self,
        mut items: Vec<T>,
        token: impl FnOnce(&T, &T) -> String,
    ) -> Page<T> {
        let next_token = match items.get(self.size) {
            Some(next) => token(&items[self.size - 1], next),
            None => String::new(),
        };
        items.truncate(self.size);
        Page { items, next_token }
    }
}

pub(super) fn name_token(kind: &str, last: &str) -> String {
    format!("1:{kind}:{last}")
}

pub(super) fn key_token(kind: &str, next: u64) -> String {
    format!("1:{kind}:{next:016x}")
}

/// The kind of a list of a stream's segments: of that stream and set only.
pub(super) fn segments_kind(stream: StreamId, set: v1::SegmentSet) -> String {
    format!("segments:{:016x}:{}", stream.0, set as i32)
}

pub(super) fn successors_kind(segment: SegmentId) -> String {
    let (stream, epoch, number) = (segment.stream.0, segment.epoch, segment.number);
    format!("successors:{stream:016x}:{epoch}:{number}")
}
