//! From a sealed segment to its successors.
//!
//! The `Open` that told of the seal also told what is stored: everything else is not, and never
//! will be, so it goes to the successors by key. A successor is held back while anything that is
//! not known to be sealed shares keys with it; what waits there is kept in order of numbers.

use std::collections::BTreeMap;

use common::{KeyRange, MonotonicTime, Offset, SegmentId};
use proto::convert::SegmentPlace;
use proto::v1;

use super::WriterCore;
use super::block::Piece;
use super::route::intersection;
use super::segment::State;
use crate::error::{ClientError, Result};

impl WriterCore {
    pub(super) fn on_sealed(
        &mut self,
        index: usize,
        successors: Vec<v1::SegmentPlace>,
        more: bool,
        now: MonotonicTime,
    ) {
        self.leave_session(index);
        self.segments[index].state = State::AwaitingSuccessors;
        let segment = self.segments[index].place.segment;
        if more {
            self.lookups.push(segment);
            return;
        }
        let places: Result<Vec<_>, _> =
            successors.into_iter().map(SegmentPlace::try_from).collect();
        match places {
            Ok(places) => self.on_successors(segment, places, now),
            Err(error) => self.fail(error.into()),
        }
    }

    /// All successors of a sealed segment; none: the stream is sealed.
    pub fn on_successors(
        &mut self,
        segment: SegmentId,
        successors: Vec<SegmentPlace>,
        now: MonotonicTime,
    ) {
        let Some(&index) = self.by_id.get(&segment) else { return };
        if self.segments[index].state != State::AwaitingSuccessors {
            return;
        }
        self.segments[index].state = State::Sealed;
        let result = if successors.is_empty() {
            self.end_stream(index)
        } else {
            self.succeed(index, successors, now)
        };
        if let Err(error) = result {
            self.fail(error);
        }
        self.check_resumed();
    }

    /// The stream is sealed: that is an error only for events that are not stored.
    fn end_stream(&mut self, index: usize) -> Result<()> {
        if self.segments[index].has_data() {
            return Err(ClientError::StreamSealed { stream: self.stream.clone() });
        }
        Ok(())
    }

    fn succeed(
        &mut self,
        index: usize,
        successors: Vec<SegmentPlace>,
        now: MonotonicTime,
    ) -> Result<()> {
        let range = self.segments[index].place.range;
        let inside: Vec<_> =
            successors.iter().filter_map(|place| intersection(place.range, range)).collect();
        if !KeyRange::tiles(range, &inside) {
            return Err(ClientError::protocol("successors do not tile their predecessor's keys"));
        }
        for place in &successors {
            let successor = match self.by_id.get(&place.segment) {
                Some(&known) => known,
                None => self.add_segment(place.clone(), true),
            };
            self.segments[index].successors.push(successor);
        }
        let mut owners = Vec::new();
        self.current_owners(index, range, &mut owners);
        self.router.replace(index, &owners);

        let id = self.segments[index].place.segment;
        let started = self.succession.finish(id, Offset::ZERO, successors);
        let leftover = self.take_pieces(index)?;
        // Whoever waits for one of them looks for it in the successors.
        self.woken.extend(self.segments[index].waiters.take_all());
        self.reroute(leftover);
        for place in started {
            let successor = self.by_id[&place.segment];
            self.segments[successor].held = false;
            self.reopen_if_needed(successor);
            self.offer(successor);
        }
        let blocking: Vec<_> = self.succession.blocking().collect();
        for id in blocking {
            let blocking = self.by_id[&id];
            self.probe(blocking, now);
        }
        Ok(())
    }

    /// Who owns `range`, which belonged to the sealed segment `index`: its successors, or theirs
    /// where they are sealed, too.
    fn current_owners(&self, index: usize, range: KeyRange, out: &mut Vec<(KeyRange, usize)>) {
        for &successor in &self.segments[index].successors {
            let Some(part) = intersection(self.segments[successor].place.range, range) else {
                continue;
            };
            if self.segments[successor].successors.is_empty() {
                out.push((part, successor));
            } else {
                self.current_owners(successor, part, out);
            }
        }
    }

    /// Everything that waited for the segment, which is sealed: none of it is stored there.
    fn take_pieces(&mut self, index: usize) -> Result<Vec<Piece>> {
        let segment = &mut self.segments[index];
        segment.close_block(false);
        let blocks = std::mem::take(&mut segment.queue);
        let mut pieces = Vec::new();
        for block in blocks {
            pieces.extend(block.into_pieces(&self.identity.routing)?);
        }
        segment.bytes = 0;
        self.note_front(index);
        Ok(pieces)
    }

    fn reroute(&mut self, pieces: Vec<Piece>) {
        let mut by_owner: BTreeMap<usize, Vec<Piece>> = BTreeMap::new();
        for piece in pieces {
            by_owner.entry(self.router.find(piece.position)).or_default().push(piece);
        }
        for (owner, pieces) in by_owner {
            if self.segments[owner].state == State::Sealed {
                self.fail(ClientError::StreamSealed { stream: self.stream.clone() });
                return;
            }
            if let Err(error) = self.absorb(owner, pieces) {
                self.fail(error);
                return;
            }
        }
    }

    /// Adds pieces to a segment that nothing was sent to, in order of numbers.
    fn absorb(&mut self, index: usize, mut pieces: Vec<Piece>) -> Result<()> {
        assert!(!self.segments[index].is_uncertain(), "a successor is held until its turn");
        pieces.extend(self.take_pieces(index)?);
        pieces.sort_by_key(|piece| piece.numbers.first());
        let target = self.limits.block_bytes;
        let segment = &mut self.segments[index];
        for piece in pieces {
            let bytes = segment.open.bytes() + piece.data.len();
            if piece.atomic || bytes > target {
                segment.close_block(false);
            }
            segment.bytes += piece.data.len();
            segment.open.push_piece(&piece);
            if piece.atomic {
                segment.close_block(true);
            }
        }
        self.note_front(index);
        Ok(())
    }
}
