//! Rounds and compactions as an archive would make them.

use bytes::Bytes;
use common::{GroupId, Incarnation, LogIndex, Term};
use lts::ObjectName;
use replica::archive::{ObjectRef, Run, Runs};
use replica::{Compacted, CompactionPlan, Moved, OwnedRun, Rested, StateMachine, Tiered};

use super::{CONTAINER, Driver};

/// Bytes in front of an object's payload.
const HEAD: usize = 32;

pub(crate) fn object(sequence: u64) -> ObjectName {
    ObjectName { incarnation: Incarnation(1), group: GroupId(CONTAINER.0), term: Term(1), sequence }
}

pub(crate) fn reference(name: ObjectName) -> ObjectRef {
    ObjectRef { name, length: 0, checksum: 0 }
}

impl Driver {
    /// Whose the payload is of what was applied behind the last round, up to `last`.
    pub(crate) fn owned(&self, last: u64) -> Vec<OwnedRun> {
        self.machine.owners().owned(LogIndex(self.archived + 1)..=LogIndex(last))
    }

    /// The round of these entries, in objects of about `object_bytes`.
    pub(crate) fn round(
        &mut self,
        last: u64,
        mut owned: Vec<OwnedRun>,
        object_bytes: usize,
    ) -> Tiered {
        assert!(owned.is_sorted(), "{owned:?}");
        owned.sort_by_key(|run| (run.owner, run.index, run.start));
        let range = LogIndex(self.archived + 1)..=LogIndex(last);
        let (mut objects, mut runs, mut content) = (Vec::new(), Vec::new(), vec![0; HEAD]);
        for OwnedRun { index, start, bytes, .. } in owned {
            if content.len() > HEAD + object_bytes {
                objects.push(self.put(std::mem::replace(&mut content, vec![0; HEAD])));
            }
            let piece = &self.log[&index][start as usize..(start + bytes) as usize];
            let (object, offset) = (objects.len() as u32, content.len() as u32);
            runs.push(Run { index, start, bytes, object, offset, crc: crc32fast::hash(piece) });
            content.extend_from_slice(piece);
        }
        if content.len() > HEAD {
            objects.push(self.put(content));
        }
        self.archived = last;
        Tiered { range, objects, runs: Runs::encode(runs) }
    }

    /// Archives all that was applied, and has it take effect.
    pub(crate) fn tier(&mut self) -> Tiered {
        let last = self.index;
        let owned = self.owned(last);
        let round = self.round(last, owned, usize::MAX - HEAD);
        self.index += 1;
        self.machine.tiered(&round).unwrap();
        round
    }

    /// Copies what a plan names.
    pub(crate) fn copied(&mut self, plan: &CompactionPlan) -> Compacted {
        let name = object(self.objects.len() as u64 + 1);
        let (mut content, mut moved) = (vec![0; HEAD], Vec::<Moved>::new());
        for piece in &plan.pieces {
            let Rested { object, offset, crc } = piece.rested;
            let from = &self.objects[&object][offset as usize..][..piece.bytes as usize];
            assert_eq!(crc32fast::hash(from), crc);
            let at = content.len();
            content.extend_from_slice(from);
            match moved.last_mut() {
                Some(last)
                    if last.owner == piece.owner
                        && last.position + u64::from(last.bytes) == piece.position =>
                {
                    (last.bytes, last.pieces) = (last.bytes + piece.bytes, last.pieces + 1);
                    last.rested.crc = crc32fast::hash(&content[last.rested.offset as usize..]);
                }
                _ => moved.push(Moved {
                    owner: piece.owner,
                    position: piece.position,
                    bytes: piece.bytes,
                    pieces: 1,
                    rested: Rested { object: name, offset: at as u32, crc },
                }),
            }
        }
        Compacted { objects: vec![self.put(content)], moved }
    }

    fn put(&mut self, content: Vec<u8>) -> ObjectRef {
        let name = object(self.objects.len() as u64 + 1);
        self.objects.insert(name, Bytes::from(content));
        reference(name)
    }
}
