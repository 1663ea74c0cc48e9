//! From sealed segments to their successors.

use super::*;

/// A writer over two segments that are merged; the left one is sealed, the right one not yet.
struct Merge {
    store: model::ModelStore,
    connection: model::ModelConnection,
    core: WriterCore,
    slots: Slots,
    right: SegmentPlace,
    merged: SegmentPlace,
}

impl Merge {
    /// With event 1, of the left one's keys, which is not stored there.
    fn half_done() -> Self {
        let mut store = model::ModelStore::new(2, &[""]);
        let core = core_over(store.active(), WriterIdentity::anonymous(1));
        let old = store.active();
        let merged = store.successors(&old, 1);
        store.seal(old[0].segment, merged.clone());
        let mut merge = Self {
            store,
            connection: model::ModelConnection::default(),
            core,
            slots: Slots::default(),
            right: old[1].clone(),
            merged: merged[0].clone(),
        };
        merge.push(0);
        assert!(merge.exchange() > 0);
        merge
    }

    /// Appends an event of the left segment's keys, 0, or of the right one's, 1.
    fn push(&mut self, side: usize) {
        let key = key_in(&self.store.first()[side]);
        let number = self.core.next_number().0.to_le_bytes();
        self.core.push(&EventRef { key: Some(&key), ..EventRef::new(&number) }).unwrap();
    }

    /// Sends everything there is and answers it; gives the number of segments opened.
    fn exchange(&mut self) -> usize {
        let mut opened = 0;
        while let Some(request) = self.core.poll_send(LINK, &mut self.slots) {
            if let Some(v1::append_request::Message::Open(open)) = &request.message {
                opened += open.segments.len();
            }
            let response = self.store.handle(&mut self.connection, request, None);
            self.core.on_response(LINK, response, NOW);
        }
        opened
    }

    /// The numbers that the merged segment stored.
    fn stored(&self) -> Vec<u64> {
        let events = self.store.segments[&self.merged.segment].events.iter();
        events.map(|e| u64::from_le_bytes(e.payload[..].try_into().unwrap())).collect()
    }

    fn finish(&mut self) {
        self.store.seal(self.right.segment, vec![self.merged.clone()]);
    }
}

#[test]
fn a_predecessor_that_is_not_sealed_yet_is_asked_again_until_it_is() {
    let mut merge = Merge::half_done();
    for _ in 0..3 {
        let time = merge.core.next_time().expect("it is going to be asked");
        merge.core.on_time(time);
        assert_eq!(merge.exchange(), 1);
        assert!(!merge.core.is_settled());
    }
    merge.finish();
    let time = merge.core.next_time().expect("it is going to be asked");
    merge.core.on_time(time);
    merge.exchange();
    assert!(merge.core.is_settled());
    assert_eq!(merge.stored(), [1]);
}

#[test]
fn nothing_is_sent_to_a_successor_before_its_last_predecessor_is_sealed() {
    let mut merge = Merge::half_done();
    for _ in 0..10 {
        merge.push(0);
        merge.exchange();
        assert_eq!(merge.stored(), []);
    }
    merge.push(1);
    merge.exchange();
    assert_eq!(merge.stored(), [], "it is in the segment that takes its key");
    let right = &merge.store.segments[&merge.right.segment];
    assert_eq!(right.events.len(), 1);
    merge.finish();
    merge.push(1);
    merge.exchange();
    let all_but_one: Vec<u64> = (1..=11).chain([13]).collect();
    assert_eq!(merge.stored(), all_but_one);
    assert!(merge.core.is_settled());
}

#[test]
fn what_a_predecessor_did_not_store_goes_before_what_waits_behind_it() {
    let mut merge = Merge::half_done();
    merge.finish();
    merge.push(1);
    merge.push(0);
    merge.push(1);
    merge.exchange();
    assert_eq!(merge.stored(), [1, 2, 3, 4]);
    assert!(merge.core.is_settled());
}

#[test]
fn a_block_that_a_sealed_segment_stored_does_not_go_to_its_successors() {
    let (mut store, mut core) = small_core();
    let (mut connection, mut slots) = (model::ModelConnection::default(), Slots::default());
    push(&mut core, &1_u64.to_le_bytes()).unwrap();
    let open = core.poll_send(LINK, &mut slots).unwrap();
    core.on_response(LINK, store.handle(&mut connection, open, None), NOW);
    let block = core.poll_send(LINK, &mut slots).unwrap();
    store.handle(&mut connection, block, None);
    push(&mut core, &2_u64.to_le_bytes()).unwrap();
    let old = store.active();
    let successors = store.successors(&old, 1);
    store.seal(old[0].segment, successors);
    core.on_disconnect(LINK, "the answer is lost");
    let mut connection = model::ModelConnection::default();
    exchange(&mut store, &mut connection, &mut core, &mut slots);
    assert!(core.is_settled());
    let stored = store.segments.values().map(|segment| segment.events.len());
    assert_eq!(stored.collect::<Vec<_>>(), [1, 1]);
}
