//! Where an object is in its bucket.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::ObjectName;

/// Bytes of a path: leaves room for a prefix under the 1 024 bytes that the stores allow.
pub const PATH_BYTES_MAX: usize = 512;

/// A path of one or more parts joined by `/`, each of small letters, digits, `.`, `-` and `_`, and
/// none beginning with `.`: what every store and every file system takes literally, and what no
/// staging file is called. Ordered by bytes, as stores list them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPath(Arc<str>);

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an object's path: {reason}")]
pub struct PathError {
    text: String,
    reason: &'static str,
}

impl ObjectPath {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ObjectPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let error = |reason| Err(PathError { text: text.to_owned(), reason });
        if text.len() > PATH_BYTES_MAX {
            return error("it is longer than 512 bytes");
        }
        for part in text.split('/') {
            if part.is_empty() {
                return error("a part of it is empty");
            }
            if part.starts_with('.') {
                return error("a part of it begins with a dot");
            }
            if !part.bytes().all(allowed) {
                return error("its parts may have small letters, digits, `.`, `-` and `_`");
            }
        }
        Ok(Self(text.into()))
    }
}

fn allowed(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
}

impl From<ObjectName> for ObjectPath {
    fn from(name: ObjectName) -> Self {
        Self(name.to_string().into())
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use common::{GroupId, Incarnation, Term};

    use super::*;

    #[test]
    fn names_and_marks_are_paths_and_what_a_store_may_read_otherwise_is_not() {
        let (incarnation, group) = (Incarnation(1), GroupId(2));
        let name = ObjectName { incarnation, group, term: Term(3), sequence: 4 };
        assert_eq!(ObjectPath::from(name).as_str().parse::<ObjectPath>(), Ok(name.into()));
        for good in ["cluster-0001", "a/b.c/d_e"] {
            assert_eq!(good.parse::<ObjectPath>().unwrap().as_str(), good);
        }
        let long = "a".repeat(PATH_BYTES_MAX + 1);
        for bad in [
            "", "/a", "a/", "a//b", "..", "a/../b", ".staging", "a#1", "A", "é", "a b", "%2e",
            &long,
        ] {
            assert!(bad.parse::<ObjectPath>().is_err(), "{bad}");
        }
    }
}
