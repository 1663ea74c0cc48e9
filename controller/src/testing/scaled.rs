//! A scale as the state will record it, put in by hand: shows that epochs are a list and
//! successors a graph.

use common::{KeyRange, SegmentNumber, StreamEpoch, StreamId};

use crate::machine::{ControllerMachine, Epoch, Segment, SegmentKey};
use crate::testing::{FakeStores, NOW};

/// Replaces the current segments `sealed` by new ones over `ranges`, numbered from
/// `first_number`, and gives the new segments' keys. Without stores it is done again in a replay,
/// of segments that were empty.
pub(crate) fn scale(
    machine: &mut ControllerMachine,
    stores: Option<&FakeStores>,
    stream: StreamId,
    sealed: &[SegmentKey],
    ranges: &[KeyRange],
    first_number: u32,
) -> Vec<SegmentKey> {
    let container = *machine.containers().first_key_value().unwrap().0;
    machine.edit_stream(stream, |stream| {
        let epoch = StreamEpoch(stream.epoch().0 + 1);
        for key in sealed {
            let length = stores.map(|stores| stores.seal(stream.segment_id(*key)));
            stream.segments.get_mut(key).unwrap().sealed = Some(length.unwrap_or_default());
        }
        let mut keys = Vec::new();
        for (range, number) in ranges.iter().zip(first_number..) {
            let predecessors = sealed.iter().filter(|k| stream.segments[k].range.overlaps(*range));
            let segment = Segment {
                range: *range,
                container,
                predecessors: predecessors.copied().collect(),
                sealed: None,
                successors: Vec::new(),
            };
            let key = (epoch, SegmentNumber(number));
            stream.segments.insert(key, segment);
            if let Some(stores) = stores {
                stores.make(stream.segment_id(key), container);
            }
            keys.push(key);
        }
        stream.epochs.push(Epoch { number: epoch, created: NOW, sealed: sealed.to_vec() });
        keys
    })
}
