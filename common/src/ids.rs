//! Numbers that identify things for ever, and the positions that order them.
//!
//! Every id that the controller gives out and every fence is led by the cluster's incarnation, so
//! that nothing from before a disaster recovery can be mistaken for something after it.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::Xxh3;

use crate::names::WriterName;

macro_rules! number {
    ($(#[$doc:meta])* $type:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub $inner);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $type {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number!(
    /// How many times the cluster has been through a disaster recovery, starting at 1.
    Incarnation(u16)
);
impl Incarnation {
    /// Of a cluster that was never recovered.
    pub const FIRST: Self = Self(1);
}

number!(
    /// A Raft term: fences earlier leaders of the same group.
    Term(u64)
);
number!(
    /// The place of an entry in its group's log.
    LogIndex(u64)
);
number!(
    /// A Raft group of this cluster. Group 1 is the controller; containers follow.
    GroupId(u64)
);
number!(
    /// A segment container: the Raft group whose state is a set of segments.
    ContainerId(u64)
);
number!(
    /// A byte position in a segment.
    Offset(u64)
);
number!(
    /// The version of a stream's set of segments, starting at 0.
    StreamEpoch(u32)
);
number!(
    /// The number of a segment within its stream, never reused within the stream.
    SegmentNumber(u32)
);
number!(
    /// The place of an event in its writer's sequence for one stream, starting at 1; 0 is "none".
    EventNumber(u64)
);
number!(
    /// A writer of one stream: that of a named writer follows from stream and name, anonymous ones
    /// draw 128 random bits.
    WriterId(u128)
);
number!(
    /// Raised each time a named writer is registered again; led by the incarnation (top 16 bits).
    WriterEpoch(u64)
);
number!(
    /// Raised by a writer for each `Open` under one epoch.
    Attempt(u32)
);

impl GroupId {
    /// The controller's group.
    pub const CONTROLLER: GroupId = GroupId(1);
}

impl ContainerId {
    /// Containers and groups share one numbering: a container's group has the container's number.
    pub const fn group(self) -> GroupId {
        GroupId(self.0)
    }
}

impl Offset {
    pub const ZERO: Offset = Offset(0);

    /// The offset `bytes` further on.
    pub const fn plus(self, bytes: u64) -> Offset {
        Offset(self.0 + bytes)
    }
}

impl WriterId {
    /// The id of a named writer: XXH3-128 (seed 0) of the stream's id (u64 little-endian) and the
    /// name's bytes, so that a name that the controller lost has the id under which segments
    /// know it. Fixed for ever.
    pub fn of_name(stream: StreamId, name: &WriterName) -> Self {
        let mut hash = Xxh3::new();
        hash.update(&stream.0.to_le_bytes());
        hash.update(name.as_str().as_bytes());
        Self(hash.digest128())
    }
}

impl EventNumber {
    /// Before the first event of a writer.
    pub const NONE: EventNumber = EventNumber(0);

    pub const fn next(self) -> EventNumber {
        EventNumber(self.0 + 1)
    }
}

/// A stream for ever: incarnation (16 bits) and counter (48 bits). A stream that is deleted and
/// created again under the same name is another stream.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct StreamId(pub u64);

impl StreamId {
    pub const COUNTER_MAX: u64 = (1 << 48) - 1;

    /// Panics when the counter does not fit 48 bits: 281 million million streams were created.
    pub fn new(incarnation: Incarnation, counter: u64) -> Self {
        assert!(counter <= Self::COUNTER_MAX, "stream counter {counter} exceeds 48 bits");
        Self(u64::from(incarnation.0) << 48 | counter)
    }

    pub const fn incarnation(self) -> Incarnation {
        Incarnation((self.0 >> 48) as u16)
    }

    pub const fn counter(self) -> u64 {
        self.0 & Self::COUNTER_MAX
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.incarnation(), self.counter())
    }
}

/// A segment for ever: its stream, the stream epoch that created it and its number. Shown to
/// people as `number.#epoch` behind the stream's name, for example `demo/hello/7.#2`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct SegmentId {
    pub stream: StreamId,
    pub epoch: StreamEpoch,
    pub number: SegmentNumber,
}

impl SegmentId {
    pub const ENCODED_BYTES: usize = 16;

    /// Stream, epoch and number, big-endian, so that the encoded order is the order of ids.
    pub fn encode(self) -> [u8; Self::ENCODED_BYTES] {
        let mut out = [0; Self::ENCODED_BYTES];
        out[..8].copy_from_slice(&self.stream.0.to_be_bytes());
        out[8..12].copy_from_slice(&self.epoch.0.to_be_bytes());
        out[12..].copy_from_slice(&self.number.0.to_be_bytes());
        out
    }

    pub fn decode(bytes: [u8; Self::ENCODED_BYTES]) -> Self {
        let value = u128::from_be_bytes(bytes);
        Self {
            stream: StreamId((value >> 64) as u64),
            epoch: StreamEpoch((value >> 32) as u32),
            number: SegmentNumber(value as u32),
        }
    }

    /// The segment's part of its shown name: `7.#2`.
    pub fn local_name(self) -> String {
        format!("{}.#{}", self.number, self.epoch)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.#{}", self.stream, self.number, self.epoch)
    }
}

/// The text form that [`SegmentId::local_name`] shows.
pub fn parse_local_segment_name(text: &str) -> Option<(SegmentNumber, StreamEpoch)> {
    let (number, epoch) = text.split_once(".#")?;
    Some((SegmentNumber(number.parse().ok()?), StreamEpoch(epoch.parse().ok()?)))
}

/// Which controller leader a command comes from: the higher one wins, older ones are refused.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Fence {
    pub incarnation: Incarnation,
    pub term: Term,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.term)
    }
}

/// The session under which a writer's blocks are accepted on a segment. A higher session fences a
/// lower one; every `Open` uses a new attempt.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct WriterSession {
    pub epoch: WriterEpoch,
    pub attempt: Attempt,
}

impl fmt::Display for WriterSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.attempt)
    }
}

impl WriterEpoch {
    pub fn new(incarnation: Incarnation, counter: u64) -> Self {
        assert!(counter < 1 << 48, "writer epoch counter {counter} exceeds 48 bits");
        Self(u64::from(incarnation.0) << 48 | counter)
    }

    pub const fn incarnation(self) -> Incarnation {
        Incarnation((self.0 >> 48) as u16)
    }

    pub const fn counter(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }
}

impl FromStr for Offset {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_id_survives_its_encoding_and_keeps_its_order() {
        let ids = [
            SegmentId::default(),
            SegmentId {
                stream: StreamId::new(Incarnation(1), 7),
                epoch: StreamEpoch(0),
                number: SegmentNumber(3),
            },
            SegmentId {
                stream: StreamId::new(Incarnation(2), 0),
                epoch: StreamEpoch(u32::MAX),
                number: SegmentNumber(u32::MAX),
            },
        ];
        for id in ids {
            assert_eq!(SegmentId::decode(id.encode()), id);
        }
        assert!(ids.windows(2).all(|w| w[0] < w[1] && w[0].encode() < w[1].encode()));
    }

    #[test]
    fn the_id_of_a_named_writer_keeps_its_published_vector() {
        let stream = StreamId::new(Incarnation(1), 7);
        let id = WriterId::of_name(stream, &"loader".parse().unwrap());
        let bytes = [&[7, 0, 0, 0, 0, 0, 1, 0][..], b"loader"].concat();
        assert_eq!(id.0, xxhash_rust::xxh3::xxh3_128(&bytes));
        assert_eq!(format!("{:032x}", id.0), "7069f16c13dff41928cfda6943d619e9");
        assert_ne!(
            id,
            WriterId::of_name(StreamId::new(Incarnation(2), 7), &"loader".parse().unwrap())
        );
    }

    #[test]
    fn a_stream_id_is_led_by_its_incarnation() {
        let id = StreamId::new(Incarnation(3), 41);
        assert_eq!((id.incarnation(), id.counter()), (Incarnation(3), 41));
        assert!(id > StreamId::new(Incarnation(2), StreamId::COUNTER_MAX));
    }

    #[test]
    fn a_local_segment_name_reads_back() {
        let id =
            SegmentId { number: SegmentNumber(7), epoch: StreamEpoch(2), ..Default::default() };
        assert_eq!(id.local_name(), "7.#2");
        assert_eq!(parse_local_segment_name("7.#2"), Some((SegmentNumber(7), StreamEpoch(2))));
        assert_eq!(parse_local_segment_name("7"), None);
    }
}
