//! Taking events in. Nothing here allocates per event.

use common::limits::EVENT_BYTES_MAX;
use common::routing::{position_of_key, position_without_key};
use common::{EventNumber, KeyPosition};
use proto::framing::EventRef;

use super::segment::State;
use super::{Pushed, WriterCore};
use crate::error::{ClientError, Result};

impl WriterCore {
    /// Takes an event for sending and gives it the next number. To be called only once
    /// [`WriterCore::is_ready`].
    pub fn push(&mut self, event: &EventRef<'_>) -> Result<Pushed> {
        self.check_open()?;
        let bytes = event.frame_bytes()?;
        let number = self.next_number;
        let may_be_stored = number <= self.resume.highest();
        let index = match self.router.only() {
            Some(only) if !may_be_stored => only,
            _ => {
                let position = self.position(event.key, number);
                if may_be_stored && let Some(holder) = self.resume.holder(position, number) {
                    self.replay(event, holder)?;
                    self.prove()?;
                    return Ok(Pushed::Stored(EventNumber(number)));
                }
                self.router.find(position)
            }
        };
        self.check_takes(index)?;
        if !self.has_room(index, bytes) {
            return self.full();
        }
        let (target, sums) = (self.limits.block_bytes, self.sums());
        let segment = &mut self.segments[index];
        if !segment.open.is_empty() && segment.open.bytes() + bytes > target {
            segment.close_block(false);
        }
        segment.open.prepare(&mut self.pool, segment.likely_bytes, bytes);
        segment.open.push(event, number, sums)?;
        if segment.open.bytes() >= target {
            segment.close_block(false);
        }
        segment.bytes += bytes;
        self.next_number += 1;
        self.memory_used += bytes;
        self.taken(index);
        if may_be_stored {
            self.prove()?;
        }
        Ok(Pushed::Taken(EventNumber(number)))
    }

    /// Takes events of one routing key that are stored all or none. Each has a number of its own;
    /// the answer names the last one's.
    pub fn push_batch(&mut self, key: &str, events: &[EventRef<'_>]) -> Result<Pushed> {
        self.check_open()?;
        let (Some(count), bytes) = (events.len().checked_sub(1), batch_bytes(key, events)?) else {
            return Err(ClientError::Batch { problem: "it is empty; add an event".to_owned() });
        };
        let first = self.next_number;
        let last = first + count as u64;
        let position = position_of_key(key);
        if self.batch_is_stored(position, first, last)? {
            self.replay_batch(key, events, position)?;
            return Ok(Pushed::Stored(EventNumber(last)));
        }
        let index = self.router.find(position);
        self.check_takes(index)?;
        if !self.has_room(index, bytes) {
            return self.full();
        }
        let sums = self.sums();
        let segment = &mut self.segments[index];
        segment.close_block(false);
        segment.open.prepare(&mut self.pool, bytes, bytes);
        for (number, event) in (first..).zip(events) {
            segment.open.push(&EventRef { key: Some(key), ..*event }, number, sums)?;
        }
        segment.close_block(true);
        segment.bytes += bytes;
        self.next_number = last + 1;
        self.memory_used += bytes;
        self.taken(index);
        self.prove()?;
        Ok(Pushed::Taken(EventNumber(last)))
    }

    /// Whether a batch is stored; one of which a part is stored had other edges.
    fn batch_is_stored(&self, position: KeyPosition, first: u64, last: u64) -> Result<bool> {
        let holder = |number| self.resume.holder(position, number);
        let Some(index) = holder(first) else { return Ok(false) };
        if holder(last) == Some(index) {
            return Ok(true);
        }
        let stored = self.segments[index].durable.min(last - 1);
        Err(ClientError::Batch {
            problem: format!(
                "its events {first} to {last} are stored up to {stored}, so it had other edges \
                 when it was first appended; append it with the same edges"
            ),
        })
    }

    fn replay_batch(
        &mut self,
        key: &str,
        events: &[EventRef<'_>],
        position: KeyPosition,
    ) -> Result<()> {
        for event in events {
            let holder = self.resume.holder(position, self.next_number);
            let index = holder.expect("all events of the batch are stored in one segment");
            self.replay(&EventRef { key: Some(key), ..*event }, index)?;
        }
        self.prove()
    }

    fn check_open(&self) -> Result<()> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.ending => Err(ClientError::Closed { what: "writer" }),
            None if self.is_ready() => Ok(()),
            None => Err(ClientError::protocol("an event was pushed before the writer was ready")),
        }
    }

    /// Whether the segment may take events.
    #[inline]
    fn check_takes(&self, index: usize) -> Result<()> {
        match self.segments[index].state {
            State::Sealed => Err(ClientError::StreamSealed { stream: self.stream.clone() }),
            State::Failed => Err(self.segment_failure(index)),
            _ => Ok(()),
        }
    }

    #[inline]
    pub(super) fn position(&self, key: Option<&str>, number: u64) -> KeyPosition {
        match key {
            Some(key) => position_of_key(key),
            None => position_without_key(&self.identity.routing, EventNumber(number)),
        }
    }

    /// The segment got data.
    #[inline]
    fn taken(&mut self, index: usize) {
        if self.segments[index].front.is_none() {
            self.note_front(index);
        }
        if self.segments[index].state == State::Idle && !self.segments[index].held {
            self.want_open(index);
        }
        self.offer(index);
    }

    /// Puts the segment among those that may send, where it may.
    #[inline]
    pub(super) fn offer(&mut self, index: usize) {
        let segment = &mut self.segments[index];
        if !segment.ready && segment.can_send(&self.limits) {
            segment.ready = true;
            let link = segment.link;
            self.links[link.0].ready.push_back(index);
            self.announce(link);
        }
    }
}

fn batch_bytes(key: &str, events: &[EventRef<'_>]) -> Result<usize> {
    let mut bytes = 0;
    for event in events {
        if event.key.is_some_and(|own| own != key) {
            return Err(ClientError::Batch {
                problem: "its events have different routing keys; give them one".to_owned(),
            });
        }
        bytes += EventRef { key: Some(key), ..*event }.frame_bytes()?;
    }
    if bytes > EVENT_BYTES_MAX {
        return Err(ClientError::Batch {
            problem: format!(
                "it has {bytes} bytes, framing included; at most {EVENT_BYTES_MAX} are allowed, \
                 so append it in smaller ones"
            ),
        });
    }
    Ok(bytes)
}
