//! The state of a checkpoint, straight into a machine: one chunk in memory at a time.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::archive::{Archive, Checkpoint};
use crate::kv::Space;
use crate::machine::{RestoreError, StateMachine};
use crate::restore::{self, Chain, RestoreFailure};
use crate::tiering::{Storage, of_led_key};

/// Restores the chain's checkpoint; without one the machine stays empty.
pub(super) fn restore<M: StateMachine>(
    storage: &Storage,
    chain: &Chain,
    machine: &mut M,
) -> Result<Archive, RestoreFailure> {
    let Some((_, checkpoint)) = &chain.checkpoint else { return Ok(Archive::default()) };
    let mut saved = Saved { storage, checkpoint, next: 0, pairs: VecDeque::new(), failure: None };
    let failed = |error: RestoreError| RestoreFailure::Broken(error.to_string());
    let restored = machine.restore(&mut std::iter::from_fn(|| saved.next_of(Space::Machine)));
    saved.check()?;
    restored.map_err(failed)?;
    let archive = Archive::restore(&mut std::iter::from_fn(|| saved.next_of(Space::Archive)));
    saved.check()?;
    archive.map_err(failed)
}

/// The pairs of a checkpoint, in order of spaces and keys.
struct Saved<'a> {
    storage: &'a Storage,
    checkpoint: &'a Checkpoint,
    /// The next chunk.
    next: usize,
    /// What is left of the chunk before.
    pairs: VecDeque<(Space, Bytes, Bytes)>,
    failure: Option<RestoreFailure>,
}

impl Saved<'_> {
    /// The next pair, while it is of this space.
    fn next_of(&mut self, space: Space) -> Option<(Bytes, Bytes)> {
        while self.pairs.is_empty() && self.next < self.checkpoint.chunks.len() {
            if let Err(failure) = self.read() {
                self.failure = Some(failure);
                return None;
            }
        }
        let (_, key, value) = self.pairs.pop_front_if(|(found, ..)| *found == space)?;
        Some((key, value))
    }

    fn read(&mut self) -> Result<(), RestoreFailure> {
        let object = self.checkpoint.chunks[self.next].object;
        let bytes = restore::read(self.storage, object.name, object.length.into())?;
        let chunk = self.checkpoint.chunk(self.next, &bytes)?;
        self.next += 1;
        let led = |(key, value)| of_led_key(&key).map(|(space, key)| (space, key, value));
        self.pairs.extend(chunk.pairs().filter_map(led));
        Ok(())
    }

    fn check(&mut self) -> Result<(), RestoreFailure> {
        self.failure.take().map_or(Ok(()), Err)
    }
}
