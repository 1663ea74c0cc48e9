//! Readers: where they begin and end, what they ride out, what they report.

use common::{KeyRange, Offset, StreamCut, WallTime};
use futures::StreamExt;

use super::{STREAM, append, check, parsed, start, stream};
use crate::{Client, ClientError, ErrorKind, EventReader, ReadFrom, ReadUntil};

async fn open(client: &Client, from: ReadFrom, until: ReadUntil) -> EventReader {
    client.event_reader(&stream()).from(from).until(until).open().await.unwrap()
}

async fn write(client: &Client, from: u64, to: u64) {
    let writer = client.event_writer(&stream()).open().await.unwrap();
    append(&writer, from, to).await;
    writer.close().await.unwrap();
}

#[tokio::test]
async fn reading_goes_on_from_any_position() {
    let (_fake, client) = start(3).await;
    write(&client, 0, 1_000).await;
    let mut events = Vec::new();
    let mut from = ReadFrom::Head;
    loop {
        let mut reader = open(&client, from, ReadUntil::Tail).await;
        let before = events.len();
        for _ in 0..101 {
            let Some(event) = reader.next().await else { break };
            events.push(parsed(&event.unwrap()));
        }
        if events.len() == before {
            break;
        }
        let text = reader.position().to_string();
        from = ReadFrom::Cut(text.parse::<StreamCut>().unwrap());
    }
    check(&events, 0, 1_000);
}

#[tokio::test]
async fn the_tail_is_fixed_when_the_reader_opens() {
    let (_fake, client) = start(2).await;
    write(&client, 0, 100).await;
    let reader = open(&client, ReadFrom::Head, ReadUntil::Tail).await;
    let mut from_tail = open(&client, ReadFrom::Tail, ReadUntil::Never).await;
    write(&client, 100, 200).await;
    let events: Vec<_> = reader.map(|event| parsed(&event.unwrap())).collect().await;
    check(&events, 0, 100);
    let mut events = Vec::new();
    while events.len() < 100 {
        events.push(parsed(&from_tail.next().await.unwrap().unwrap()));
    }
    check(&events, 100, 200);
    assert_eq!(from_tail.lag_bytes(), 0);
}

#[tokio::test]
async fn a_cut_across_a_scale_ends_and_begins_where_it_says() {
    let (fake, client) = start(2).await;
    write(&client, 0, 300).await;
    fake.with(STREAM, |store| {
        let old = store.active()[0].clone();
        let successors = store.successors(std::slice::from_ref(&old), 2);
        store.seal(old.segment, successors);
    });
    write(&client, 300, 600).await;
    let cut = client.streams().tail_cut(&stream()).await.unwrap();
    write(&client, 600, 900).await;
    let mut reader = open(&client, ReadFrom::Head, ReadUntil::Cut(cut.clone())).await;
    let mut events = Vec::new();
    while let Some(event) = reader.next().await {
        events.push(parsed(&event.unwrap()));
    }
    check(&events, 0, 600);
    assert_eq!(reader.position(), cut);
    let reader = open(&client, ReadFrom::Cut(cut), ReadUntil::Tail).await;
    let events: Vec<_> = reader.map(|event| parsed(&event.unwrap())).collect().await;
    check(&events, 600, 900);
}

#[tokio::test]
async fn a_time_passes_over_segments_that_are_older() {
    let (fake, client) = start(1).await;
    write(&client, 0, 100).await;
    fake.with(STREAM, |store| {
        let old = store.active()[0].clone();
        let successors = store.successors(std::slice::from_ref(&old), 2);
        store.segments.values_mut().for_each(|segment| segment.newest = WallTime(2_000));
        store.segments.get_mut(&old.segment).unwrap().newest = WallTime(1_000);
        store.seal(old.segment, successors);
    });
    write(&client, 100, 200).await;
    let cut = client.streams().cut_at_time(&stream(), WallTime(1_500)).await.unwrap();
    assert_eq!(cut.segments().map(|(_, offset)| offset).collect::<Vec<_>>(), [Offset(0); 2]);
    let reader = open(&client, ReadFrom::Time(WallTime(1_500)), ReadUntil::Tail).await;
    let events: Vec<_> = reader.map(|event| parsed(&event.unwrap())).collect().await;
    check(&events, 100, 200);
    let until = ReadUntil::Time(WallTime(1_500));
    let reader = open(&client, ReadFrom::Head, until).await;
    let events: Vec<_> = reader.map(|event| parsed(&event.unwrap())).collect().await;
    check(&events, 0, 100);
}

#[tokio::test]
async fn broken_connections_are_ridden_out_without_a_gap_or_a_double() {
    let (fake, client) = start(2).await;
    write(&client, 0, 2_000).await;
    let mut reader = open(&client, ReadFrom::Head, ReadUntil::Tail).await;
    let mut events = Vec::new();
    while let Some(batch) = reader.next_batch().await {
        events.extend(batch.unwrap().iter().map(parsed));
        if events.len() % 3 == 0 {
            fake.break_connections();
        }
    }
    check(&events, 0, 2_000);
}

#[tokio::test]
async fn a_sealed_stream_comes_to_its_end() {
    let (fake, client) = start(2).await;
    write(&client, 0, 50).await;
    fake.with(STREAM, |store| {
        let active = store.active();
        active.iter().for_each(|place| store.seal(place.segment, Vec::new()));
    });
    let reader = open(&client, ReadFrom::Head, ReadUntil::Never).await;
    let events: Vec<_> = reader.map(|event| parsed(&event.unwrap())).collect().await;
    check(&events, 0, 50);
    let error = client.event_writer(&stream()).open().await.unwrap_err();
    assert!(matches!(error, ClientError::StreamSealed { .. }), "{error}");
}

#[tokio::test]
async fn damage_names_the_segment_and_the_event_and_ends_the_reader() {
    let (fake, client) = start(1).await;
    write(&client, 0, 3).await;
    let (segment, damaged_at) = fake.with(STREAM, |store| {
        let segment = store.segments.values_mut().next().unwrap();
        *segment.bytes.last_mut().unwrap() ^= 1;
        (segment.place.segment, segment.bytes.len() as u64 / 3 * 2)
    });
    let mut reader = open(&client, ReadFrom::Head, ReadUntil::Tail).await;
    let error = reader.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataDamaged);
    let text = error.to_string();
    let place = format!("segment {segment} is damaged at offset {damaged_at}");
    assert!(text.contains(&place), "{text}");
    assert!(reader.next().await.is_none());
}

#[tokio::test]
async fn a_position_that_was_truncated_away_says_where_the_segment_starts() {
    let (fake, client) = start(1).await;
    write(&client, 0, 10).await;
    let head = client.streams().head_cut(&stream()).await.unwrap();
    fake.with(STREAM, |store| store.segments.values_mut().next().unwrap().start = 36);
    let mut reader = open(&client, ReadFrom::Cut(head), ReadUntil::Tail).await;
    let error = reader.next().await.unwrap().unwrap_err();
    let start = matches!(error, ClientError::Truncated { start_offset: Offset(36), .. });
    assert!(start && error.kind() == ErrorKind::Conflict, "{error}");
}

#[tokio::test]
async fn a_cut_beyond_the_tail_is_refused_wherever_reading_would_end() {
    let (fake, client) = start(1).await;
    write(&client, 0, 10).await;
    let tail = client.streams().tail_cut(&stream()).await.unwrap();
    let length = fake.with(STREAM, |store| store.segments.values().next().unwrap().bytes.len());
    let mut beyond = StreamCut::new(tail.stream);
    tail.segments().for_each(|(segment, offset)| beyond.set(segment, offset.plus(1)));
    for until in [ReadUntil::Tail, ReadUntil::Never, ReadUntil::Cut(tail.clone())] {
        let reader = client.event_reader(&stream()).from(ReadFrom::Cut(beyond.clone()));
        let error = reader.until(until).open().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        let text = error.to_string();
        assert!(text.contains(&format!("beyond its length {length}")), "{text}");
    }
    let reader = open(&client, ReadFrom::Cut(tail), ReadUntil::Tail).await;
    assert_eq!(reader.count().await, 0);
}

#[tokio::test]
async fn a_raw_reader_ends_where_the_segment_ended_when_it_began() {
    let (fake, client) = start(1).await;
    let place = client.streams().segments(&stream(), crate::SegmentSet::Active).await.unwrap();
    let place = &place.segments[0];
    fake.with(STREAM, |store| {
        store.segments.get_mut(&place.segment).unwrap().bytes = vec![7; 2_500];
    });
    let mut reader = client.segment_reader(place, Offset::ZERO).until(None);
    let mut bytes = 0;
    while let Some(run) = reader.next().await.unwrap() {
        bytes += run.data.len();
        // Somebody appends faster than this reads.
        fake.with(STREAM, |store| {
            store.segments.get_mut(&place.segment).unwrap().bytes.extend([8; 3_000]);
        });
        assert!(bytes <= 2_500, "it follows the end");
    }
    assert_eq!(bytes, 2_500);
    let mut behind = client.segment_reader(place, Offset(1_000_000)).until(None);
    assert_eq!(behind.next().await.unwrap_err().kind(), ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn a_cut_of_another_stream_is_refused() {
    let (_fake, client) = start(1).await;
    let cut: StreamCut = "1-99:0.#0=0".parse().unwrap();
    let reader = client.event_reader(&stream()).from(ReadFrom::Cut(cut)).open().await;
    assert_eq!(reader.unwrap_err().kind(), ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn a_part_of_the_key_space_reads_only_its_segments() {
    let (_fake, client) = start(4).await;
    write(&client, 0, 400).await;
    let all = client.streams().segments(&stream(), crate::SegmentSet::Head).await.unwrap();
    let mut events = Vec::new();
    for place in &all.segments[..2] {
        let reader = client.event_reader(&stream()).from(ReadFrom::Head);
        let reader =
            reader.segments(vec![place.segment]).until(ReadUntil::Tail).open().await.unwrap();
        events.extend(reader.map(|event| parsed(&event.unwrap())).collect::<Vec<_>>().await);
    }
    let low = KeyRange::new(0, all.segments[1].range.high()).unwrap();
    let reader = client.event_reader(&stream()).from(ReadFrom::Head).key_range(low);
    let reader = reader.until(ReadUntil::Tail).open().await.unwrap();
    let mut half: Vec<_> = reader.map(|event| parsed(&event.unwrap())).collect().await;
    assert!(!half.is_empty() && half.len() < 400);
    half.sort();
    events.sort();
    assert_eq!(events, half);
}
