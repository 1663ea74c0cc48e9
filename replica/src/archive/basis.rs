//! What a state can be brought back from: a checkpoint that counts, and the last round.
//!
//! ```text
//! version u8 | has checkpoint u8 | checkpoint (as in `housekeeping.rs`) | footer 34
//! ```
//!
//! It is the data of a snapshot in Raft's sense, and the mark in the log of whoever installs one.

use super::error::Problem;
use super::fields::Fields;
use super::frame::ObjectRef;
use super::housekeeping::CommittedCheckpoint;

const VERSION: u8 = 1;

/// A checkpoint, or none where the rounds reach back to the first entry, and the round at whose end
/// the state is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Basis {
    pub(crate) checkpoint: Option<CommittedCheckpoint>,
    pub(crate) tip: ObjectRef,
}

impl Basis {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.checkpoint.is_some())];
        if let Some(checkpoint) = &self.checkpoint {
            checkpoint.put_fields(&mut out);
        }
        self.tip.put(&mut out);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::new(bytes);
        let version = fields.u8("version")?;
        if version != VERSION {
            return Err(Problem::Version(version));
        }
        let checkpoint = match fields.u8("whether there is a checkpoint")? {
            0 => None,
            1 => Some(CommittedCheckpoint::take(&mut fields)?),
            other => return Err(Problem::impossible("whether there is a checkpoint", other)),
        };
        let tip = ObjectRef::take(&mut fields, "footer")?;
        fields.end()?;
        Ok(Self { checkpoint, tip })
    }
}

#[cfg(test)]
mod tests {
    use common::{GroupId, Incarnation, LogIndex, Term};
    use lts::ObjectName;

    use super::*;

    fn object(sequence: u64) -> ObjectRef {
        let (incarnation, group, term) = (Incarnation(1), GroupId(2), Term(3));
        let name = ObjectName { incarnation, group, term, sequence };
        ObjectRef { name, length: 100, checksum: 7 }
    }

    fn bases() -> [Basis; 2] {
        let checkpoint = CommittedCheckpoint {
            reference: object(9),
            index: LogIndex(20),
            archived: LogIndex(10),
            chunks: vec![object(7), object(8)],
            keep_micros: 5,
        };
        let tip = object(12);
        [Basis { checkpoint: None, tip }, Basis { checkpoint: Some(checkpoint), tip }]
    }

    #[test]
    fn the_encoding_is_what_it_was_and_reads_back() {
        let [rounds_alone, with_checkpoint] = bases();
        let golden = "0100000100000000000000020000000000000003000000000000000c6400000007000000";
        let hex: String = rounds_alone.encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden);
        for basis in [rounds_alone, with_checkpoint] {
            assert_eq!(Basis::decode(&basis.encode()), Ok(basis));
        }
    }

    #[test]
    fn damage_and_unknown_versions_are_refused() {
        for basis in bases() {
            let bytes = basis.encode();
            assert!((0..bytes.len()).all(|length| Basis::decode(&bytes[..length]).is_err()));
            assert!(Basis::decode(&[&bytes[..], &[0]].concat()).is_err());
            let newer = [&[2], &bytes[1..]].concat();
            assert_eq!(Basis::decode(&newer), Err(Problem::Version(2)));
        }
    }
}
