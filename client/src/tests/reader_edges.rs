//! Readers at the edges of what they read: segments that end, move or are truncated, cuts of parts,
//! lists that change under them.

use std::collections::BTreeSet;
use std::time::Duration;

use common::{ByteSize, CutCoverage, KeyRange, Offset, Rng, SegmentId, StreamCut, WallTime};
use futures::{FutureExt, StreamExt};
use rstest::rstest;

use super::fake::Fake;
use super::{STREAM, append, check, config, parsed, start, stream};
use crate::streams::SegmentPlace;
use crate::{
    Client, ClientConfig, ErrorKind, Event, EventReader, EventReaderBuilder, OnTruncated,
    ReadEvent, ReadFrom, ReadUntil, SegmentSet, Skipped,
};

fn reader(client: &Client, from: ReadFrom) -> EventReaderBuilder {
    client.event_reader(&stream()).from(from)
}

async fn write(client: &Client, from: u64, to: u64) {
    let writer = client.event_writer(&stream()).open().await.unwrap();
    append(&writer, from, to).await;
    writer.close().await.unwrap();
}

async fn rest(reader: EventReader) -> Vec<(String, u64)> {
    reader.map(|event| parsed(&event.unwrap())).collect().await
}

/// Reads so many events.
async fn take(reader: &mut EventReader, count: usize) -> Vec<ReadEvent> {
    let mut events = Vec::new();
    while events.len() < count {
        events.push(reader.next().await.unwrap().unwrap());
    }
    events
}

/// Replaces `old` segments by `count` new ones.
fn scale(fake: &Fake, old: &[SegmentPlace], count: u32) -> Vec<SegmentPlace> {
    fake.with(STREAM, |store| {
        let successors = store.successors(old, count);
        for place in old {
            let overlapping = successors.iter().filter(|s| s.range.overlaps(place.range));
            store.seal(place.segment, overlapping.cloned().collect());
        }
        successors
    })
}

fn active(fake: &Fake) -> Vec<SegmentPlace> {
    fake.with(STREAM, |store| store.active())
}

fn length(fake: &Fake, segment: SegmentId) -> Offset {
    Offset(fake.with(STREAM, |store| store.segments[&segment].bytes.len() as u64))
}

#[tokio::test]
async fn a_reader_outlives_a_controller_that_is_away_when_a_segment_ends() {
    let (fake, _) = start(1).await;
    let data = fake.peer();
    fake.create_at(STREAM, 1, &[&data.addr.to_string()]);
    let config = ClientConfig { request_timeout: Duration::from_millis(300), ..config(&fake) };
    assert_eq!(config.retry_deadline, None, "it is to try for ever");
    let client = Client::connect_with(config, Rng::from_seed(1)).await.unwrap();
    write(&client, 0, 50).await;
    let mut reader = reader(&client, ReadFrom::Head).open().await.unwrap();
    let mut events: Vec<_> = take(&mut reader, 50).await.iter().map(parsed).collect();
    fake.set_down(true);
    scale(&fake, &active(&fake), 2);
    // Pauses are at most 20 ms: this is longer than one call is tried.
    tokio::select! {
        event = reader.next() => panic!("the reader ended: {event:?}"),
        () = fake.refused(60) => {}
    }
    fake.set_down(false);
    let ((), more) = tokio::join!(write(&client, 50, 100), take(&mut reader, 50));
    events.extend(more.iter().map(parsed));
    check(&events, 0, 100);
}

#[tokio::test]
async fn a_look_up_at_a_segments_end_is_given_up_at_the_deadline() {
    let (fake, _) = start(1).await;
    let data = fake.peer();
    fake.create_at(STREAM, 1, &[&data.addr.to_string()]);
    let config = ClientConfig {
        request_timeout: Duration::from_millis(300),
        retry_deadline: Some(Duration::from_millis(1)),
        ..config(&fake)
    };
    let client = Client::connect_with(config, Rng::from_seed(1)).await.unwrap();
    let mut reader = reader(&client, ReadFrom::Head).open().await.unwrap();
    fake.set_down(true);
    scale(&fake, &active(&fake), 2);
    let error = reader.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_cut_that_covers_a_part_of_the_keys_without_a_word_is_refused() {
    let (_fake, client) = start(2).await;
    write(&client, 0, 100).await;
    let head = client.streams().head_cut(&stream()).await.unwrap();
    let mut part = StreamCut::new(head.stream);
    let (segment, offset) = head.segments().next().unwrap();
    part.set(segment, offset);
    let refused = |reader: EventReaderBuilder| async {
        assert_eq!(reader.open().await.unwrap_err().kind(), ErrorKind::InvalidRequest);
    };
    refused(reader(&client, ReadFrom::Cut(part.clone()))).await;
    refused(reader(&client, ReadFrom::Head).until(ReadUntil::Cut(part.clone()))).await;
    // One that says that it covers no more is no end for a reader of all.
    part.covers = CutCoverage::Segments;
    refused(reader(&client, ReadFrom::Head).until(ReadUntil::Cut(part))).await;
}

#[tokio::test]
async fn the_position_of_a_reader_of_a_part_says_so_and_goes_on_with_that_part() {
    let (fake, client) = start(4).await;
    write(&client, 0, 400).await;
    let places = active(&fake);
    let low = KeyRange::new(0, places[1].range.high()).unwrap();
    let of_low: BTreeSet<_> = places[..2].iter().map(|place| place.segment).collect();
    let all: Vec<_> = rest(
        reader(&client, ReadFrom::Head).key_range(low).until(ReadUntil::Tail).open().await.unwrap(),
    )
    .await;
    let parts = [
        reader(&client, ReadFrom::Head).key_range(low),
        reader(&client, ReadFrom::Head).segments(of_low.iter().copied().collect()),
    ];
    for part in parts {
        let mut part = part.until(ReadUntil::Tail).open().await.unwrap();
        let mut events: Vec<_> = take(&mut part, 10).await.iter().map(parsed).collect();
        let cut: StreamCut = part.position().to_string().parse().unwrap();
        assert!(cut.covers != CutCoverage::Everything && cut.segments().count() == 2, "{cut}");
        // Nothing is said of the other keys here: the cut limits the reader.
        let on = reader(&client, ReadFrom::Cut(cut.clone())).until(ReadUntil::Tail);
        events.extend(rest(on.open().await.unwrap()).await);
        events.sort();
        let mut expected = all.clone();
        expected.sort();
        assert_eq!(events, expected);
        let more = reader(&client, ReadFrom::Cut(cut))
            .key_range(KeyRange::new(0, places[2].range.high()).unwrap());
        assert_eq!(more.open().await.unwrap_err().kind(), ErrorKind::InvalidRequest);
    }
}

#[tokio::test]
async fn successors_outside_the_key_range_are_not_read() {
    let (fake, client) = start(1).await;
    write(&client, 0, 100).await;
    let halves = scale(&fake, &active(&fake), 2);
    write(&client, 100, 200).await;
    let part = reader(&client, ReadFrom::Head).key_range(halves[0].range).until(ReadUntil::Tail);
    let mut part = part.open().await.unwrap();
    let mut behind = 0;
    while let Some(event) = part.next().await {
        let event = event.unwrap();
        assert_ne!(event.segment, halves[1].segment, "its keys were not asked for");
        behind += u64::from(event.segment == halves[0].segment);
    }
    assert!(behind > 0, "its successor in the range is read");
}

#[tokio::test]
async fn a_list_that_changes_between_two_pages_starts_over() {
    let (fake, client) = start(5).await;
    fake.state().behind_page = Some(|store| {
        let active = store.active();
        active.iter().for_each(|place| store.seal(place.segment, Vec::new()));
    });
    let found = client.streams().segments(&stream(), SegmentSet::Active).await.unwrap();
    assert!(found.segments.is_empty(), "it was sealed: {found:?}");
    assert_eq!(found.state, crate::StreamState::Sealed);
    // Pages that are there, but of another state, are not put together, either.
    let (fake, client) = start(5).await;
    fake.state().behind_page = Some(|store| {
        let active = store.active();
        active.iter().for_each(|place| store.seal(place.segment, Vec::new()));
    });
    let found = client.streams().segments(&stream(), SegmentSet::Tail).await.unwrap();
    assert_eq!(found.segments.len(), 5);
    assert_eq!(found.state, crate::StreamState::Sealed);
}

#[tokio::test]
async fn a_truncation_inside_an_event_is_refused_and_at_one_it_is_not() {
    let (fake, client) = start(1).await;
    write(&client, 0, 3).await;
    let segment = active(&fake)[0].segment;
    let events = take(&mut reader(&client, ReadFrom::Head).open().await.unwrap(), 3).await;
    let cut = |offset: Offset| {
        let mut cut = StreamCut::new(segment.stream);
        cut.set(segment, offset);
        cut
    };
    for inside in [events[0].offset.plus(1), events[1].next_offset.plus(8)] {
        let error = client.streams().truncate(&stream(), &cut(inside)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains(&format!("at offset {inside}")), "{error}");
    }
    for at in [Offset::ZERO, events[1].offset, events[2].next_offset] {
        client.streams().truncate(&stream(), &cut(at)).await.unwrap();
    }
    // Bytes that are framed otherwise are their owner's business.
    fake.with(STREAM, |store| {
        let segment = store.segments.get_mut(&segment).unwrap();
        (segment.start, segment.bytes) = (0, vec![7; 2_500]);
    });
    client.streams().truncate(&stream(), &cut(Offset(1_234))).await.unwrap();
}

#[rstest]
#[case::while_it_reads(false)]
#[case::before_it_is_opened_at_a_cut(true)]
#[tokio::test]
async fn a_reader_goes_on_at_the_segments_start_and_tells_what_was_skipped(#[case] reopen: bool) {
    let (fake, client) = start(1).await;
    write(&client, 0, 1_000).await;
    let segment = active(&fake)[0].segment;
    let skipping =
        |from| reader(&client, from).on_truncated(OnTruncated::Skip).until(ReadUntil::Tail);
    let all = take(&mut skipping(ReadFrom::Head).open().await.unwrap(), 1_000).await;
    fake.state().read_messages = Some(1);
    let mut reader = skipping(ReadFrom::Head).open().await.unwrap();
    let mut events: Vec<_> =
        reader.next_batch().await.unwrap().unwrap().iter().map(parsed).collect();
    let at = all[events.len()].offset;
    fake.with(STREAM, |store| store.segments.get_mut(&segment).unwrap().start = all[700].offset.0);
    if reopen {
        reader = skipping(ReadFrom::Cut(reader.position())).open().await.unwrap();
    }
    while let Some(event) = reader.next().await {
        events.push(parsed(&event.unwrap()));
    }
    let first = events.iter().position(|(_, number)| *number >= 700).unwrap();
    check(&events[first..], 700, 1_000);
    let skipped = reader.take_skipped();
    let expected = Skipped { segment, from: at, to: Some(all[700].offset) };
    assert_eq!(
        (skipped, first),
        (vec![expected], all.iter().position(|e| e.offset == at).unwrap())
    );
    assert!(reader.take_skipped().is_empty(), "it is told once");
    assert_eq!(reader.position(), client.streams().tail_cut(&stream()).await.unwrap());
}

#[tokio::test]
async fn segments_that_were_truncated_away_are_skipped_up_to_what_is_kept() {
    let (fake, client) = start(1).await;
    write(&client, 0, 100).await;
    let old = active(&fake)[0].segment;
    let mut reading = reader(&client, ReadFrom::Head).open().await.unwrap();
    take(&mut reading, 40).await;
    let cut = reading.position();
    drop(reading);
    let halves = scale(&fake, &active(&fake), 2);
    write(&client, 100, 200).await;
    scale(&fake, &halves, 1);
    write(&client, 200, 300).await;
    fake.with(STREAM, |store| store.truncate_to_active());

    let failing = reader(&client, ReadFrom::Cut(cut.clone())).open().await.unwrap_err();
    assert_eq!(failing.kind(), ErrorKind::Conflict);
    assert!(failing.to_string().contains("truncated away"), "{failing}");

    let skipping = reader(&client, ReadFrom::Cut(cut.clone())).on_truncated(OnTruncated::Skip);
    let mut skipping = skipping.until(ReadUntil::Tail).open().await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = skipping.next().await {
        events.push(parsed(&event.unwrap()));
    }
    check(&events, 200, 300);
    let mut skipped = skipping.take_skipped();
    skipped.sort_by_key(|skipped| skipped.segment);
    let gone = |segment, from| Skipped { segment, from, to: None };
    let mut expected = vec![gone(old, cut.get(old).unwrap())];
    expected.extend(halves.iter().map(|half| gone(half.segment, Offset::ZERO)));
    assert_eq!(skipped, expected);
}

#[tokio::test]
async fn a_segment_that_is_truncated_away_while_it_is_read_ends_a_reader_that_is_to_fail() {
    let (fake, client) = start(1).await;
    write(&client, 0, 1_000).await;
    fake.state().read_messages = Some(1);
    let mut reader = reader(&client, ReadFrom::Head).open().await.unwrap();
    reader.next_batch().await.unwrap().unwrap();
    scale(&fake, &active(&fake), 1);
    fake.with(STREAM, |store| store.truncate_to_active());
    let error = reader.next_batch().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(reader.next_batch().await.is_none());
}

#[tokio::test]
async fn a_reader_goes_on_at_the_next_byte_wherever_its_connection_breaks() {
    let (fake, client) = start(2).await;
    write(&client, 0, 500).await;
    fake.state().read_messages = Some(1);
    let all = reader(&client, ReadFrom::Head).until(ReadUntil::Tail).open().await.unwrap();
    check(&rest(all).await, 0, 500);
}

#[tokio::test]
async fn a_reader_follows_a_segment_to_the_store_that_leads_it_now() {
    let (fake, _) = start(1).await;
    let peer = fake.peer();
    fake.create_at(STREAM, 1, &[&fake.addr.to_string(), &peer.addr.to_string()]);
    // One that does not find it is to fail, not to wait for ever.
    let patience = Some(Duration::from_secs(10));
    let config = ClientConfig { retry_deadline: patience, ..config(&fake) };
    let client = Client::connect_with(config, Rng::from_seed(2)).await.unwrap();
    write(&client, 0, 100).await;
    let mut reader = reader(&client, ReadFrom::Head).open().await.unwrap();
    let mut events: Vec<_> = take(&mut reader, 100).await.iter().map(parsed).collect();
    let segment = active(&fake)[0].segment;
    fake.with(STREAM, |store| store.relocate(segment));
    fake.break_connections();
    let ((), more) = tokio::join!(write(&client, 100, 200), take(&mut reader, 100));
    events.extend(more.iter().map(parsed));
    check(&events, 0, 200);
}

#[tokio::test]
async fn a_position_keeps_a_finished_segment_whose_successor_waits() {
    let (fake, client) = start(2).await;
    write(&client, 0, 100).await;
    let old = active(&fake);
    let merged = fake.with(STREAM, |store| {
        let merged = store.successors(&old, 1);
        // A scale is under way: the other segment is not sealed yet.
        store.seal(old[0].segment, merged.clone());
        merged
    });
    let mut reading = reader(&client, ReadFrom::Head).open().await.unwrap();
    let mut events: Vec<_> = take(&mut reading, 100).await.iter().map(parsed).collect();
    while !format!("{reading:?}").contains("waiting: 1") {
        assert!(reading.next().now_or_never().is_none(), "there are no more");
        tokio::task::yield_now().await;
    }
    let cut = reading.position();
    for place in &old {
        assert_eq!(cut.get(place.segment), Some(length(&fake, place.segment)), "{cut}");
    }
    fake.with(STREAM, |store| store.seal(old[1].segment, merged.clone()));
    write(&client, 100, 200).await;
    let on = reader(&client, ReadFrom::Cut(cut)).until(ReadUntil::Tail).open().await.unwrap();
    events.extend(rest(on).await);
    check(&events, 0, 200);
}

#[tokio::test]
async fn a_time_keeps_an_older_segment_whose_successor_cannot_be_entered_yet() {
    let (fake, client) = start(2).await;
    write(&client, 0, 100).await;
    let old = active(&fake);
    fake.with(STREAM, |store| {
        let merged = store.successors(&old, 1);
        store.seal(old[0].segment, merged);
        store.segments.get_mut(&old[0].segment).unwrap().newest = WallTime(1_000);
        store.segments.get_mut(&old[1].segment).unwrap().newest = WallTime(2_000);
    });
    let cut = client.streams().cut_at_time(&stream(), WallTime(1_500)).await.unwrap();
    assert_eq!(cut.get(old[0].segment), Some(length(&fake, old[0].segment)));
    assert_eq!(cut.get(old[1].segment), Some(Offset::ZERO));
    assert_eq!(cut.segments().count(), 2);
}

#[tokio::test]
async fn a_segment_whose_newest_event_was_stored_at_the_time_is_not_older() {
    let (fake, client) = start(1).await;
    write(&client, 0, 100).await;
    let old = active(&fake)[0].segment;
    scale(&fake, &active(&fake), 1);
    fake.with(STREAM, |store| store.segments.get_mut(&old).unwrap().newest = WallTime(1_500));
    let at = |time| {
        let streams = client.streams();
        async move { streams.cut_at_time(&stream(), WallTime(time)).await.unwrap() }
    };
    assert_eq!(at(1_500).await.get(old), Some(Offset::ZERO), "its events are not before the time");
    assert_eq!(at(1_501).await.get(old), None);
}

#[tokio::test]
async fn a_reader_is_sent_to_another_place_and_back_from_its_end() {
    let (_fake, client) = start(2).await;
    write(&client, 0, 100).await;
    let mut reader = reader(&client, ReadFrom::Tail).until(ReadUntil::Tail).open().await.unwrap();
    write(&client, 100, 200).await;
    assert!(reader.next().await.is_none(), "it begins where it ends");
    reader.seek(ReadFrom::Head).await.unwrap();
    let events = take(&mut reader, 30).await;
    let cut = reader.position();
    reader.seek(ReadFrom::Tail).await.unwrap();
    assert!(reader.next().await.is_none());
    let foreign: StreamCut = "1-99:0.#0=0".parse().unwrap();
    let error = reader.seek(ReadFrom::Cut(foreign)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    reader.seek(ReadFrom::Cut(cut)).await.unwrap();
    let mut all: Vec<_> = events.iter().map(parsed).collect();
    all.extend(rest(reader).await);
    // Its end is the tail as it was when it was opened.
    check(&all, 0, 100);
}

#[tokio::test]
async fn an_event_of_a_batch_tells_its_place_when_asked() {
    let (_fake, client) = start(2).await;
    write(&client, 0, 300).await;
    let mut reading = reader(&client, ReadFrom::Head).until(ReadUntil::Tail).open().await.unwrap();
    let mut events = Vec::new();
    let cut = loop {
        let batch = reading.next_batch().await.unwrap().unwrap();
        let done = &batch[..batch.len() / 2];
        if events.len() > 100 && !done.is_empty() {
            events.extend(done.iter().map(parsed));
            break reading.position_behind(&done[done.len() - 1]).unwrap();
        }
        events.extend(batch.iter().map(parsed));
    };
    let on = reader(&client, ReadFrom::Cut(cut)).until(ReadUntil::Tail).open().await.unwrap();
    events.extend(rest(on).await);
    check(&events, 0, 300);
    let foreign = ReadEvent::new("x", SegmentId::default(), Offset::ZERO);
    assert_eq!(reading.position_behind(&foreign), None);
}

#[tokio::test]
async fn large_events_of_many_segments_are_read_with_memory_for_one() {
    let (_fake, client) = start(6).await;
    let writer = client.event_writer(&stream()).open().await.unwrap();
    for i in 0..60_u64 {
        let payload = vec![i as u8; 20_000];
        writer.append(Event::new(&payload).key(&format!("key-{i}"))).await.unwrap();
    }
    writer.close().await.unwrap();
    let reader = reader(&client, ReadFrom::Head).memory_limit(ByteSize::kib(60));
    let reader = reader.until(ReadUntil::Tail).open().await.unwrap();
    let mut firsts: Vec<_> = reader.map(|event| event.unwrap().payload[0]).collect().await;
    firsts.sort_unstable();
    assert_eq!(firsts, (0..60).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_seek_that_fails_half_way_leaves_the_reader_where_it_was() {
    let (fake, client) = start(2).await;
    write(&client, 0, 100).await;
    let mut reader = reader(&client, ReadFrom::Head).until(ReadUntil::Tail).open().await.unwrap();
    let mut events: Vec<_> = take(&mut reader, 30).await.iter().map(parsed).collect();
    let (position, last) = (reader.position(), active(&fake)[1].segment);
    fake.with(STREAM, |store| {
        store.segments.get_mut(&last).unwrap().place.endpoint = "not an address".into();
    });
    let error = reader.seek(ReadFrom::Cut(position.clone())).await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Bug, "{error}");
    assert_eq!(reader.position(), position);
    fake.with(STREAM, |store| {
        store.segments.get_mut(&last).unwrap().place.endpoint = String::new();
    });
    events.extend(rest(reader).await);
    check(&events, 0, 100);
}

#[rstest]
#[case::within_the_segment(false)]
#[case::behind_the_segment(true)]
#[tokio::test]
async fn a_reader_from_the_head_begins_where_the_head_is_when_it_comes_there(#[case] gone: bool) {
    let (fake, client) = start(1).await;
    write(&client, 0, 100).await;
    let segment = active(&fake)[0].segment;
    let all = take(&mut reader(&client, ReadFrom::Head).open().await.unwrap(), 100).await;
    scale(&fake, &active(&fake), 2);
    write(&client, 100, 200).await;
    let mut reader = reader(&client, ReadFrom::Head).until(ReadUntil::Tail).open().await.unwrap();
    fake.with(STREAM, |store| match gone {
        true => store.truncate_to_active(),
        false => store.segments.get_mut(&segment).unwrap().start = all[70].offset.0,
    });
    let mut events = Vec::new();
    while let Some(event) = reader.next().await {
        events.push(parsed(&event.unwrap()));
    }
    check(&events, if gone { 100 } else { 70 }, 200);
    assert!(reader.take_skipped().is_empty(), "the head is the oldest that is kept");
    assert_eq!(reader.position(), client.streams().tail_cut(&stream()).await.unwrap());
}

#[tokio::test]
async fn a_reader_of_a_part_stays_with_it_wherever_it_is_sent() {
    let (fake, client) = start(2).await;
    write(&client, 0, 100).await;
    let half = active(&fake)[0].range;
    let part = reader(&client, ReadFrom::Head).key_range(half).open().await.unwrap().position();
    // The cut says what is read from it, and nothing else does.
    let from = ReadFrom::Cut(part.clone());
    let mut reader = reader(&client, from).until(ReadUntil::Tail).open().await.unwrap();
    reader.seek(ReadFrom::Head).await.unwrap();
    assert_eq!(reader.position(), part);
    let read = rest(reader).await;
    assert!(!read.is_empty() && read.len() < 100, "{}", read.len());
}
