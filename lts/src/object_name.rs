//! The name of an object, unique over the life of a cluster and its recoveries.
//!
//! A name is led by the incarnation and carries the Raft term under which it was chosen, so that a
//! leader that lost its term can never create or reference what a later leader's collector already
//! counted as garbage. Within a term the leader counts a sequence up. Names are never reused.
//!
//! Text form, which is the path in the store (every part in lower-case hexadecimal, zero-padded, so
//! that the order of the texts is the order of the names, and a listing by group or by term is a
//! listing by prefix):
//!
//! ```text
//! INCARNATION(4)/GROUP(16)/TERM(16)/SEQUENCE(16)
//! 0001/0000000000000002/0000000000000007/000000000000002a
//! ```

use std::fmt;
use std::str::FromStr;

use common::{GroupId, Incarnation, Term};

/// Names one immutable object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub incarnation: Incarnation,
    pub group: GroupId,
    /// The Raft term of the leader that chose the name. An entry may reference the object only if
    /// the entry's own term is this one.
    pub term: Term,
    pub sequence: u64,
}

/// Why a text or bytes are not an object's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not an object name ({reason}); it looks like \
     `0001/0000000000000002/0000000000000007/000000000000002a`"
)]
pub struct ObjectNameError {
    text: String,
    reason: &'static str,
}

impl ObjectName {
    pub const ENCODED_BYTES: usize = 26;

    /// The fixed binary form, big-endian, so that the order of the bytes is the order of the names.
    pub fn encode(self) -> [u8; Self::ENCODED_BYTES] {
        let mut out = [0; Self::ENCODED_BYTES];
        out[..2].copy_from_slice(&self.incarnation.0.to_be_bytes());
        out[2..10].copy_from_slice(&self.group.0.to_be_bytes());
        out[10..18].copy_from_slice(&self.term.0.to_be_bytes());
        out[18..].copy_from_slice(&self.sequence.to_be_bytes());
        out
    }

    pub fn decode(bytes: [u8; Self::ENCODED_BYTES]) -> Self {
        let u64_at = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(word)
        };
        Self {
            incarnation: Incarnation(u16::from_be_bytes([bytes[0], bytes[1]])),
            group: GroupId(u64_at(2)),
            term: Term(u64_at(10)),
            sequence: u64_at(18),
        }
    }

    /// The prefix under which every object of a group of an incarnation is listed.
    pub fn group_prefix(incarnation: Incarnation, group: GroupId) -> String {
        format!("{:04x}/{:016x}/", incarnation.0, group.0)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (incarnation, group) = (self.incarnation.0, self.group.0);
        write!(f, "{incarnation:04x}/{group:016x}/{:016x}/{:016x}", self.term.0, self.sequence)
    }
}

impl FromStr for ObjectName {
    type Err = ObjectNameError;

    /// Takes exactly what `Display` gives: one object has one name.
    fn from_str(text: &str) -> Result<Self, ObjectNameError> {
        let error = |reason| ObjectNameError { text: text.to_owned(), reason };
        let mut parts = text.split('/');
        let mut part = |digits| {
            let part = parts.next().ok_or_else(|| error("a part is missing"))?;
            hexadecimal(part, digits).ok_or_else(|| error("a part has other digits"))
        };
        let incarnation = part(4)?;
        let name = Self {
            incarnation: Incarnation(incarnation as u16),
            group: GroupId(part(16)?),
            term: Term(part(16)?),
            sequence: part(16)?,
        };
        match parts.next() {
            Some(_) => Err(error("there are more than four parts")),
            None => Ok(name),
        }
    }
}

fn hexadecimal(text: &str, digits: usize) -> Option<u64> {
    let lower_case = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits || !text.bytes().all(lower_case) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(incarnation: u16, group: u64, term: u64, sequence: u64) -> ObjectName {
        ObjectName {
            incarnation: Incarnation(incarnation),
            group: GroupId(group),
            term: Term(term),
            sequence,
        }
    }

    #[test]
    fn the_golden_name_keeps_its_text_and_bytes() {
        let name = name(1, 2, 7, 42);
        assert_eq!(name.to_string(), "0001/0000000000000002/0000000000000007/000000000000002a");
        let mut bytes = [0; ObjectName::ENCODED_BYTES];
        (bytes[1], bytes[9], bytes[17], bytes[25]) = (1, 2, 7, 42);
        assert_eq!(name.encode(), bytes);
        assert!(
            name.to_string().starts_with(&ObjectName::group_prefix(name.incarnation, name.group))
        );
    }

    #[test]
    fn a_text_that_is_not_exactly_a_name_is_refused_with_the_form_it_should_have() {
        let good = name(1, 2, 7, 42).to_string();
        let cases = [
            String::new(),
            good.to_uppercase(),
            good.replace("0001", "1"),
            good.replace("0001", "+001"),
            format!("{good}/"),
            format!("/{good}"),
            good[..good.len() - 1].to_owned(),
            good.replace('/', "-"),
        ];
        for text in cases {
            let message = text.parse::<ObjectName>().unwrap_err().to_string();
            assert!(message.contains("0001/0000000000000002/"), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn every_name_reads_back_from_its_text_and_its_bytes(
            incarnation: u16, group: u64, term: u64, sequence: u64,
        ) {
            let name = name(incarnation, group, term, sequence);
            prop_assert_eq!(name.to_string().parse::<ObjectName>(), Ok(name));
            prop_assert_eq!(ObjectName::decode(name.encode()), name);
        }

        #[test]
        fn texts_and_bytes_sort_as_the_names_do(a: (u16, u64, u64, u64), b: (u16, u64, u64, u64)) {
            let (a, b) = (name(a.0, a.1, a.2, a.3), name(b.0, b.1, b.2, b.3));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            prop_assert_eq!(a.cmp(&b), a.encode().cmp(&b.encode()));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,80}") {
            let _ = text.parse::<ObjectName>();
        }
    }
}
