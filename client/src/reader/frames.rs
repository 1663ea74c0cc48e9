//! From runs of bytes to events. Events share the memory of the message they came in; only one
//! that lies across two messages is copied.

use bytes::{Buf, Bytes, BytesMut};
use common::{Offset, SegmentId, WallTime};
use proto::framing::{self, FramedEvent, FramingError};
use proto::v1;

use crate::event::{ReadEvent, StoredTime};

/// The events of one segment.
#[derive(Debug)]
pub(super) struct Frames {
    segment: SegmentId,
    /// Where the next event begins.
    offset: Offset,
    /// The beginning of it, where the rest has not come yet.
    carry: BytesMut,
    /// When the bytes before the next event were stored, and what begins behind them.
    stored: Option<StoredTime>,
    times: std::vec::IntoIter<v1::TimePoint>,
    /// Events in the last message, for the size of the next batch.
    likely_events: usize,
}

impl Frames {
    pub(super) fn new(segment: SegmentId, offset: Offset) -> Self {
        let (stored, times) = (None, Vec::new().into_iter());
        Self { segment, offset, carry: BytesMut::new(), stored, times, likely_events: 0 }
    }

    /// Where the next event begins.
    pub(super) fn offset(&self) -> Offset {
        self.offset
    }

    /// Whether the bytes so far end between two events.
    pub(super) fn is_complete(&self) -> bool {
        self.carry.is_empty()
    }

    /// Bytes that the event whose beginning is here will have; `None` where that is not known yet.
    pub(super) fn partial_bytes(&self) -> Option<usize> {
        framing::frame_length(&self.carry).ok().flatten()
    }

    /// Goes on where an event begins, without what has come.
    pub(super) fn go_on_at(&mut self, offset: Offset) {
        self.offset = offset;
        self.carry = BytesMut::new();
        (self.stored, self.times) = (None, Vec::new().into_iter());
    }

    /// Takes what the server tells about when the bytes to come were stored: all that there is from
    /// them on.
    pub(super) fn learn(&mut self, times: Vec<v1::TimePoint>) {
        if times.is_empty() {
            return;
        }
        // An event that has begun was stored as what was known then says.
        self.stored = self.stored_at_offset();
        self.times = times.into_iter();
    }

    /// When what begins at the present offset was stored.
    fn stored_at_offset(&mut self) -> Option<StoredTime> {
        while let Some(point) = self.times.as_slice().first()
            && point.offset <= self.offset.0
        {
            let (first, last) = (WallTime(point.first_micros), WallTime(point.last_micros));
            self.stored = Some(StoredTime::new(first, last));
            self.times.next();
        }
        self.stored
    }

    /// The events that are complete now. An error is about the event at [`Frames::offset`].
    pub(super) fn push(&mut self, mut data: Bytes) -> Result<Vec<ReadEvent>, FramingError> {
        let mut events = Vec::with_capacity(self.likely_events);
        while !self.carry.is_empty() {
            let known = framing::frame_length(&self.carry)?;
            let wanted = known.unwrap_or(size_of::<u32>()) - self.carry.len();
            let taken = wanted.min(data.len());
            self.carry.reserve(wanted);
            self.carry.extend_from_slice(&data[..taken]);
            data.advance(taken);
            if taken < wanted {
                return Ok(events);
            }
            if known.is_some() {
                let event = framing::take_event(&mut self.carry.split().freeze())?;
                events.extend(event.map(|event| self.place(event)));
            }
        }
        while let Some(event) = framing::take_event(&mut data)? {
            events.push(self.place(event));
        }
        self.carry.extend_from_slice(&data);
        self.likely_events = events.len();
        Ok(events)
    }

    fn place(&mut self, event: FramedEvent) -> ReadEvent {
        let mut event = ReadEvent::placed(event, self.segment, self.offset);
        event.stored = self.stored_at_offset();
        self.offset = event.next_offset;
        event
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::framing::EventRef;

    use super::*;

    fn framed(payloads: &[Vec<u8>]) -> Bytes {
        let mut out = BytesMut::new();
        for payload in payloads {
            let event = EventRef { key: Some("k"), ..EventRef::new(payload) };
            event.frame_into(&mut out).unwrap();
        }
        out.freeze()
    }

    proptest! {
        #[test]
        fn events_come_out_whole_however_the_bytes_are_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            cuts in prop::collection::vec(1_usize..30, 0..100),
        ) {
            let mut bytes = framed(&payloads);
            let mut frames = Frames::new(SegmentId::default(), Offset(100));
            let (total, mut events) = (bytes.len() as u64, Vec::new());
            for cut in cuts {
                let run = bytes.split_to(cut.min(bytes.len()));
                events.extend(frames.push(run).unwrap());
            }
            events.extend(frames.push(bytes).unwrap());
            prop_assert!(frames.is_complete());
            prop_assert_eq!(frames.offset(), Offset(100 + total));
            let read: Vec<_> = events.iter().map(|event| event.payload.to_vec()).collect();
            prop_assert_eq!(read, payloads);
            prop_assert!(events.windows(2).all(|w| w[0].next_offset == w[1].offset));
        }
    }

    #[test]
    fn an_event_was_stored_when_the_point_that_its_first_byte_lies_in_says() {
        let mut rest = framed(&vec![vec![7; 12]; 6]);
        let each = rest.len() as u64 / 6;
        let point = |event: u64, first_micros, last_micros| v1::TimePoint {
            offset: event * each,
            first_micros,
            last_micros,
        };
        let mut frames = Frames::new(SegmentId::default(), Offset::ZERO);
        // Two events and the beginning of a third, at which a point begins.
        frames.learn(vec![point(0, 1, 2), point(2, 5, 5)]);
        let mut events = frames.push(rest.split_to(2 * each as usize + 5)).unwrap();
        // The third goes on in another message, whose points do not reach back to its first byte.
        frames
            .learn(vec![v1::TimePoint { offset: 2 * each + 1, ..point(0, 7, 8) }, point(4, 9, 9)]);
        // A piece of it without points.
        events.extend(frames.push(rest.split_to(each as usize)).unwrap());
        frames.learn(Vec::new());
        events.extend(frames.push(rest).unwrap());
        let stored: Vec<_> = events.iter().map(|event| event.stored.unwrap()).collect();
        let time = |first, last| StoredTime::new(WallTime(first), WallTime(last));
        let expected = [(1, 2), (1, 2), (5, 5), (7, 8), (9, 9), (9, 9)];
        assert_eq!(stored, expected.map(|(first, last)| time(first, last)));
        frames.go_on_at(Offset(1_000));
        assert_eq!(frames.stored_at_offset(), None, "what was known is of other bytes");
    }

    #[test]
    fn damage_is_told_with_the_event_that_has_it() {
        let mut bytes = framed(&[vec![1; 10], vec![2; 10]]).to_vec();
        let second = bytes.len() / 2;
        *bytes.last_mut().unwrap() ^= 1;
        let mut frames = Frames::new(SegmentId::default(), Offset::ZERO);
        let error = frames.push(bytes.into()).unwrap_err();
        assert!(matches!(error, FramingError::BadChecksum { .. }), "{error}");
        assert_eq!(frames.offset(), Offset(second as u64));
    }
}
