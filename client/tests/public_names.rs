//! A program that knows this crate alone can name every type that it is given or asked for.

use std::collections::BTreeMap;

use client::*;

/// Each type that the public signatures of readers, streams and events speak of, by its name here.
/// What is missing in the crate's root does not compile.
type Named = (
    (EventReaderStart, EventReaderBuilder, EventReader, ReadFrom, ReadUntil, OnTruncated, Skipped),
    (Event<'static>, ReadEvent, Header<'static>, Headers, StoredTime),
    (ClientError, ErrorKind, Refusal, Reason, EventError, FramingError, NameError),
    (StreamCut, CutCoverage, StreamCutError, KeyRange, Offset, WallTime),
    (SegmentId, SegmentNumber, StreamEpoch, StreamId, ContainerId, EventNumber, Incarnation),
    (WriterName, WriterEpoch, WriterSession, Attempt, ScopeName, StreamName, ScopedStream),
    (ClientConfig, ByteSize, Rng),
);

#[test]
fn fields_of_public_types_are_of_types_that_have_a_name_here() {
    fn parts(cut: StreamCut) -> BTreeMap<(StreamEpoch, SegmentNumber), Offset> {
        cut.offsets
    }
    fn session(error: ClientError) -> Option<(WriterEpoch, Attempt)> {
        match error {
            ClientError::Fenced { current: WriterSession { epoch, attempt } } => {
                Some((epoch, attempt))
            }
            _ => None,
        }
    }
    fn place(place: SegmentPlace) -> (SegmentId, KeyRange, ContainerId) {
        (place.segment, place.range, place.container)
    }
    let _: fn(SegmentPlace) -> _ = place;
    let _: Option<Named> = None;
    let cut: StreamCut = "1-7:0.#0=5".parse().unwrap();
    assert_eq!(parts(cut)[&(StreamEpoch(0), SegmentNumber(0))], Offset(5));
    assert_eq!(session(ClientError::Closed { what: "client" }), None);
}
