//! The proof that a replayed source is the one that was stored.
//!
//! Each segment keeps, beside the writer's last number, the sum of the hashes of what it stored of
//! the writer. Events that are stored are hashed again, and dropped; when the source has come to a
//! segment's last number, both sums must agree. Until then nothing is sent to it, nor to a segment
//! that took keys over from it, and the ordered watermark stays before what is not proven.
//!
//! What waits meanwhile is not stored although a higher number is: it was in the earlier process's
//! memory when that ended, so that it fits the memory of one that may use as much.

use std::collections::{BTreeSet, VecDeque};

use bytes::BytesMut;
use common::EventNumber;
use proto::framing::{EventRef, PREFIX_BYTES};
use xxhash_rust::xxh3::xxh3_64;

use super::{Mode, Pushed, WriterCore};
use crate::error::{ClientError, Result};

/// Segments that a message names at most.
const NAMED_IN_MESSAGE: usize = 3;

/// The hash of an event as it is added up.
#[inline]
pub(super) fn hash_of(number: u64, checksum: u32) -> u64 {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..].copy_from_slice(&checksum.to_le_bytes());
    xxh3_64(&bytes)
}

/// The checksum that the frame at the beginning of `frame` carries.
#[inline]
pub(super) fn checksum_of(frame: &[u8]) -> u32 {
    let bytes = frame[PREFIX_BYTES - 4..PREFIX_BYTES].try_into();
    u32::from_le_bytes(bytes.expect("a frame begins with its prefix"))
}

/// What is still to be proven.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// (last number stored, segment), ascending.
    points: VecDeque<(u64, usize)>,
    /// (number up to which everything must be proven, segment that may be sent to then).
    waiting: BTreeSet<(u64, usize)>,
    /// Events are framed here only for their checksums.
    scratch: BytesMut,
}

impl WriterCore {
    /// All segments have told what they stored.
    pub(super) fn begin_proof(&mut self) {
        let stored = self.segments.iter().enumerate().filter(|(_, s)| s.acknowledged > 0);
        let mut points: Vec<_> = stored.map(|(index, s)| (s.acknowledged, index)).collect();
        points.sort_unstable();
        self.proof.points = points.into();
        for index in 0..self.segments.len() {
            self.hold_back_unproven(index);
        }
    }

    /// Nothing is sent to a segment before what its keys brought to others is proven.
    pub(super) fn hold_back_unproven(&mut self, index: usize) {
        if self.proof.points.is_empty() {
            return;
        }
        let segment = &mut self.segments[index];
        let needed = self.resume.highest_in(segment.place.range);
        if needed >= self.next_number && self.proof.waiting.insert((needed, index)) {
            segment.unproven = true;
        }
    }

    /// The next event is stored in the segment `index`: adds it to what must agree there.
    pub(super) fn replay(&mut self, event: &EventRef<'_>, index: usize) -> Result<()> {
        let number = self.next_number;
        self.proof.scratch.clear();
        event.frame_into(&mut self.proof.scratch)?;
        let hash = hash_of(number, checksum_of(&self.proof.scratch));
        let segment = &mut self.segments[index];
        if number > segment.acknowledged_sum.after {
            segment.replayed_sum = segment.replayed_sum.wrapping_add(hash);
        }
        if segment.replayed_from.is_none() {
            segment.replayed_from = Some(number);
            self.note_front(index);
        }
        self.next_number += 1;
        self.already_stored += 1;
        Ok(())
    }

    /// The source has come to the last number given out: compares the sums of the segments that
    /// end there, and lets go what waited for that. The first difference ends the writer.
    pub(super) fn prove(&mut self) -> Result<()> {
        let next = self.next_number;
        while let Some((last, index)) = self.proof.points.pop_front_if(|(last, _)| *last < next) {
            let segment = &mut self.segments[index];
            if segment.replayed_sum != segment.found_sum {
                let error = ClientError::SourceDiffers {
                    segment: segment.place.segment,
                    number: EventNumber(last),
                    elsewhere: self.sent_by_this_process(),
                };
                self.fail(error.clone());
                return Err(error);
            }
            segment.replayed_from = None;
            self.note_front(index);
        }
        while let Some(&(needed, index)) = self.proof.waiting.first()
            && needed < next
        {
            self.proof.waiting.pop_first();
            self.segments[index].unproven = false;
            self.offer(index);
        }
        Ok(())
    }

    /// Errs where the source has not come to everything that is stored yet: only what is proven
    /// can be called durable.
    pub fn check_replayed(&self) -> Result<()> {
        let Some(&(last, index)) = self.proof.points.back() else { return Ok(()) };
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        Err(ClientError::SourceEnds {
            segment: self.segments[index].place.segment,
            number: EventNumber(last),
            end: EventNumber(self.next_number - 1),
            elsewhere: self.sent_by_this_process(),
        })
    }

    /// There is no memory for an event that is not stored: says so where waiting cannot help,
    /// because everything that fills it waits for the source itself.
    pub(super) fn full(&self) -> Result<Pushed> {
        let held_back = self.segments.iter().filter(|segment| segment.unproven);
        let held_back: usize = held_back.map(|segment| segment.bytes).sum();
        if held_back > 0 && held_back == self.memory_used {
            return Err(ClientError::invalid(format!(
                "the events of this source that are not stored need more than the writer's {} \
                 bytes of memory before number {}, up to which others are stored: give it the \
                 memory limit that it had before, if this is the source that it had before",
                self.limits.memory_bytes,
                self.resume.highest(),
            )));
        }
        Ok(Pushed::Full)
    }

    /// What went to segments before the source was found to be another one, for people.
    fn sent_by_this_process(&self) -> String {
        let sent = self.segments.iter().filter(|segment| segment.sent_through > 0);
        let mut told: Vec<String> = Vec::new();
        let mut more = 0;
        for segment in sent {
            if told.len() < NAMED_IN_MESSAGE {
                let (id, last) = (segment.place.segment.local_name(), segment.sent_through);
                told.push(format!("{id} (up to number {last})"));
            } else {
                more += 1;
            }
        }
        match (told.is_empty(), more) {
            (true, _) => "no event of this input was sent".to_owned(),
            (false, 0) => format!("events of this input were sent to {}", told.join(", ")),
            (false, more) => {
                format!("events of this input were sent to {} and {more} more", told.join(", "))
            }
        }
    }

    /// Whether hashes are added up.
    #[inline]
    pub(super) fn sums(&self) -> bool {
        self.identity.mode == Mode::Replay
    }

    /// Compares what a segment says about its sum with what was sent to it.
    pub(super) fn check_sum(&mut self, index: usize, sum: u64, after: u64) {
        let segment = &mut self.segments[index];
        let told = super::segment::Sum { value: sum, after };
        if !self.resume.is_done() {
            segment.acknowledged_sum = told;
            segment.found_sum = sum;
        } else if segment.acknowledged_sum != told {
            let id = segment.place.segment;
            self.fail(ClientError::protocol(format!(
                "segment {id} has another sum of this writer's events than it was sent"
            )));
        }
    }
}
