//! Names that people choose: scopes, streams and writers.
//!
//! One rule for all of them: letters, digits, `.`, `-` and `_` (ASCII), 1 to 255 bytes, and a
//! leading `_` is reserved for Braid itself. `.` and `..` alone are refused because names become
//! parts of paths.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::NAME_BYTES_MAX;

/// Why a text is not a name. The message names the kind, the value, the rule and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{kind} name is empty; give it 1 to {NAME_BYTES_MAX} characters")]
    Empty { kind: &'static str },
    #[error(
        "{kind} name of {length_bytes} bytes is too long; at most {NAME_BYTES_MAX} are allowed"
    )]
    TooLong { kind: &'static str, length_bytes: usize },
    #[error("{kind} name `{name}` contains {found:?}; use letters, digits, `.`, `-` and `_` only")]
    BadCharacter { kind: &'static str, name: String, found: char },
    #[error("{kind} name `{name}` starts with `_`, which is reserved; choose another first letter")]
    Reserved { kind: &'static str, name: String },
    #[error("{kind} name `{name}` consists of dots only; add a letter or a digit")]
    OnlyDots { kind: &'static str, name: String },
    #[error("`{text}` is not of the form SCOPE/STREAM; write for example `demo/hello`")]
    NotScoped { text: String },
}

fn check(kind: &'static str, name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { kind, length_bytes: name.len() });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if let Some(found) = name.chars().find(|c| !allowed(*c)) {
        return Err(NameError::BadCharacter { kind, name: name.to_owned(), found });
    }
    if name.starts_with('_') {
        return Err(NameError::Reserved { kind, name: name.to_owned() });
    }
    if name.chars().all(|c| c == '.') {
        return Err(NameError::OnlyDots { kind, name: name.to_owned() });
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks `name` against the rule of this module.
            pub fn new(name: &str) -> Result<Self, NameError> {
                check($kind, name)?;
                Ok(Self(name.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name_type!(
    /// The name of a scope: a namespace of streams.
    ScopeName,
    "scope"
);
name_type!(
    /// The name of a stream inside its scope.
    StreamName,
    "stream"
);
name_type!(
    /// The name of a writer that keeps its identity across process restarts, per stream.
    WriterName,
    "writer"
);

/// A stream's full name, written `scope/stream`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopedStream {
    pub scope: ScopeName,
    pub stream: StreamName,
}

impl ScopedStream {
    pub fn new(scope: &str, stream: &str) -> Result<Self, NameError> {
        Ok(Self { scope: ScopeName::new(scope)?, stream: StreamName::new(stream)? })
    }
}

impl FromStr for ScopedStream {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((scope, stream)) if !stream.contains('/') => Self::new(scope, stream),
            _ => Err(NameError::NotScoped { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for ScopedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.scope, self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_accepted_and_shown_as_written() {
        for name in ["a", "demo", "A-1_b.c", &"x".repeat(NAME_BYTES_MAX)] {
            assert_eq!(StreamName::new(name).unwrap().to_string(), name);
        }
        assert_eq!("demo/hello".parse::<ScopedStream>().unwrap().to_string(), "demo/hello");
    }

    #[test]
    fn each_bad_name_is_refused_with_what_is_wrong() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let cases: [(&str, &str); 9] = [
            ("", "empty"),
            (&long, "too long"),
            ("a b", "contains ' '"),
            ("a\0", "contains '\\0'"),
            ("größe", "contains 'ö'"),
            ("a\u{202e}b", "contains '\\u{202e}'"),
            ("_internal", "reserved"),
            (".", "dots only"),
            ("..", "dots only"),
        ];
        for (name, expected) in cases {
            let message = ScopeName::new(name).unwrap_err().to_string();
            assert!(message.contains(expected), "{name:?}: {message}");
            assert!(message.starts_with("scope name"), "{message}");
        }
    }

    #[test]
    fn a_scoped_name_needs_exactly_one_slash() {
        for text in ["demo", "a/b/c", "", "/"] {
            assert!(text.parse::<ScopedStream>().is_err(), "{text:?}");
        }
    }
}
