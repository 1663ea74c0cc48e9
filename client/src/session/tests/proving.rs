//! The sums of writers that replay.

use super::super::proof::hash_of;
use super::*;

/// Segments keep sums of it: another hash would make every stored source another one.
#[test]
fn the_hash_of_an_event_is_what_it_always_was() {
    assert_eq!(hash_of(1, 0), 1_938_173_197_757_714_200);
    assert_eq!(hash_of(2, 0xdead_beef), 13_806_535_735_360_915_932);
    let both = hash_of(1, 7).wrapping_add(hash_of(2, 8));
    assert_ne!(both, hash_of(1, 8).wrapping_add(hash_of(2, 7)), "it depends on the number");
}

#[test]
fn a_segment_with_another_sum_than_it_was_sent_is_found_out() {
    for damage in [0, 1] {
        let store = model::ModelStore::new(1, &[""]);
        let identity = WriterIdentity { mode: Mode::Replay, ..WriterIdentity::anonymous(1) };
        let mut core = core_over(store.active(), identity);
        let mut slots = Slots::default();
        let opened = |slot, last_number, sum| v1::AppendResponse {
            opened: vec![v1::SessionOpened { slot, last_number, sum, ..Default::default() }],
            ..Default::default()
        };
        assert!(core.poll_open(LINK, &mut slots).is_some());
        core.on_response(LINK, opened(0, 0, 0), NOW);
        push(&mut core, b"one").unwrap();
        let mut blocks = Vec::new();
        core.poll_blocks(LINK, 1_000, &mut blocks);
        assert_ne!(blocks[0].sum, 0);
        core.on_disconnect(LINK, "the answer is lost");
        assert!(core.poll_open(LINK, &mut slots).is_some());
        core.on_response(LINK, opened(1, 1, blocks[0].sum + damage), NOW);
        let failed = core.failed().map(ClientError::kind);
        assert_eq!(failed, (damage > 0).then_some(ErrorKind::Bug));
    }
}

/// A replay of numbers 1 and 2, of the left of two segments, and 3, of the right one; 2 was not
/// stored, and by now both segments are merged.
pub(super) struct Replay {
    store: model::ModelStore,
    connection: model::ModelConnection,
    pub(super) core: WriterCore,
    slots: Slots,
    merged: SegmentId,
}

impl Replay {
    pub(super) fn begin() -> Self {
        let mut store = model::ModelStore::new(2, &[""]);
        let first = WriterIdentity { mode: Mode::Replay, ..WriterIdentity::anonymous(1) };
        let second = WriterIdentity { epoch: WriterEpoch(2), ..first.clone() };
        let (mut connection, mut slots) = (model::ModelConnection::default(), Slots::default());
        let mut core = core_over(store.first(), first);
        exchange(&mut store, &mut connection, &mut core, &mut slots);
        push_to(&mut core, &store, 0, b"one").unwrap();
        exchange(&mut store, &mut connection, &mut core, &mut slots);
        push_to(&mut core, &store, 0, b"two").unwrap();
        core.poll_blocks(LINK, 1_000, &mut Vec::new());
        push_to(&mut core, &store, 1, b"three").unwrap();
        assert_eq!(exchange(&mut store, &mut connection, &mut core, &mut slots), 1);

        let old = store.active();
        let merged = store.successors(&old, 1);
        old.iter().for_each(|place| store.seal(place.segment, merged.clone()));
        let core = core_over(store.first(), second);
        let merged = merged[0].segment;
        let mut replay = Self { store, connection, core, slots, merged };
        replay.exchange();
        assert_eq!(replay.core.stored_through(), EventNumber(3));
        replay
    }

    pub(super) fn push(&mut self, side: usize, payload: &[u8]) -> Result<Pushed> {
        push_to(&mut self.core, &self.store, side, payload)
    }

    fn exchange(&mut self) {
        exchange(&mut self.store, &mut self.connection, &mut self.core, &mut self.slots);
    }

    /// How many events went to the merged segment.
    fn sent(&self) -> usize {
        self.store.segments[&self.merged].events.len()
    }
}

fn push_to(
    core: &mut WriterCore,
    store: &model::ModelStore,
    side: usize,
    payload: &[u8],
) -> Result<Pushed> {
    let key = key_in(&store.first()[side]);
    core.push(&EventRef { key: Some(&key), ..EventRef::new(payload) })
}

#[test]
fn nothing_goes_to_a_merged_segment_before_all_that_its_keys_brought_is_proven() {
    for (third, is_same) in [(b"three", true), (b"other", false)] {
        let mut replay = Replay::begin();
        assert_eq!(replay.push(0, b"one").unwrap(), Pushed::Stored(EventNumber(1)));
        assert_eq!(replay.push(0, b"two").unwrap(), Pushed::Taken(EventNumber(2)));
        replay.exchange();
        assert_eq!(replay.sent(), 0);
        let pushed = replay.push(1, third);
        replay.exchange();
        assert_eq!(pushed.is_ok(), is_same, "{pushed:?}");
        assert_eq!(replay.sent(), usize::from(is_same));
        assert_eq!(replay.core.acknowledged(), EventNumber(if is_same { 3 } else { 1 }));
    }
}
