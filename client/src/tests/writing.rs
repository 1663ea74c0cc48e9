//! Writers: bad luck on the way, resumes, fences, limits.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use common::{ByteSize, EventNumber, Offset, WriterName};
use futures::poll;

use super::fake::Fake;
use super::naming::replays;
use super::{STREAM, append, check, config, parsed, read_all, replay, soon, start, stream};
use crate::{Client, ClientConfig, ClientError, ErrorKind, Event, ReadFrom, Reason};

#[tokio::test]
async fn events_survive_connections_that_break_at_any_moment() {
    let (fake, client) = start(3).await;
    let writer = client.event_writer(&stream()).open().await.unwrap();
    for part in 0..20 {
        append(&writer, part * 500, (part + 1) * 500).await;
        if part % 3 == 0 {
            tokio::task::yield_now().await;
        }
        fake.break_connections();
    }
    let last = writer.close().await.unwrap();
    assert_eq!(last, EventNumber(10_000));
    check(&read_all(&client).await, 0, 10_000);
}

#[tokio::test]
async fn a_server_that_is_gone_for_a_while_loses_nothing() {
    let (fake, client) = start(2).await;
    let writer = client.event_writer(&stream()).open().await.unwrap();
    append(&writer, 0, 100).await;
    writer.flush().await.unwrap();
    fake.set_down(true);
    append(&writer, 100, 200).await;
    while writer.trouble().is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(writer.acknowledged(), EventNumber(100));
    fake.set_down(false);
    assert_eq!(writer.flush().await.unwrap(), EventNumber(200));
    assert_eq!(writer.trouble(), None);
    check(&read_all(&client).await, 0, 200);
}

#[tokio::test]
async fn a_segment_whose_store_is_gone_is_found_at_the_one_that_took_it_over() {
    let (fake, client) = start(1).await;
    let lost = fake.peer();
    fake.create_at(STREAM, 1, &[&lost.addr.to_string(), ""]);
    let writer = client.event_writer(&stream()).open().await.unwrap();
    append(&writer, 0, 100).await;
    writer.flush().await.unwrap();
    lost.set_down(true);
    fake.with(STREAM, |store| {
        let segment = store.active()[0].segment;
        store.relocate(segment);
    });
    append(&writer, 100, 200).await;
    assert_eq!(soon(writer.close()).await.unwrap(), EventNumber(200));
    check(&read_all(&client).await, 0, 200);
}

#[tokio::test]
async fn a_named_writer_finds_what_it_stored_in_segments_that_were_truncated_away() {
    let (fake, client) = start(2).await;
    let mut writer = replays(&client).await.unwrap();
    replay(&mut writer, 0, 100).await;
    writer.close().await.unwrap();
    fake.with(STREAM, |store| {
        for old in store.active() {
            let successors = store.successors(std::slice::from_ref(&old), 3);
            store.seal(old.segment, successors);
        }
        store.truncate_to_active();
    });
    let mut writer = replays(&client).await.unwrap();
    replay(&mut writer, 0, 150).await;
    writer.flush().await.unwrap();
    assert_eq!(writer.already_stored(), 100);
    check(&read_all(&client).await, 100, 150);
}

#[tokio::test]
async fn a_writer_that_was_idle_while_its_segment_was_replaced_and_truncated_away_goes_on() {
    let (fake, client) = start(1).await;
    let idle = client.event_writer(&stream()).open().await.unwrap();
    let open = client.event_writer(&stream()).open().await.unwrap();
    append(&open, 0, 10).await;
    open.flush().await.unwrap();
    fake.with(STREAM, |store| {
        let old = store.active().remove(0);
        let successors = store.successors(std::slice::from_ref(&old), 2);
        store.seal(old.segment, successors);
        store.truncate_to_active();
    });
    append(&idle, 10, 20).await;
    idle.close().await.unwrap();
    append(&open, 20, 30).await;
    open.close().await.unwrap();
    check(&read_all(&client).await, 10, 30);
}

#[tokio::test]
async fn a_full_store_is_tried_again_until_it_has_room() {
    let (fake, client) = start(1).await;
    fake.state().refusals = 5;
    let writer = client.event_writer(&stream()).open().await.unwrap();
    append(&writer, 0, 1_000).await;
    writer.close().await.unwrap();
    assert_eq!(fake.state().refusals, 0);
    check(&read_all(&client).await, 0, 1_000);
}

#[tokio::test]
async fn a_deadline_ends_a_writer_that_gets_nowhere() {
    let fake = Fake::start().await;
    fake.create(STREAM, 1);
    let config = ClientConfig { retry_deadline: Some(Duration::from_millis(100)), ..config(&fake) };
    let client = Client::connect(config).await.unwrap();
    let writer = client.event_writer(&stream()).open().await.unwrap();
    fake.set_down(true);
    append(&writer, 0, 1).await;
    let error = writer.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
}

#[tokio::test]
async fn a_refusal_that_no_new_connection_can_cure_ends_the_writer() {
    let (fake, client) = start(1).await;
    let writer = client.event_writer(&stream()).open().await.unwrap();
    append(&writer, 0, 1).await;
    writer.flush().await.unwrap();
    fake.state().refuses_appends = Some(Reason::Unavailable);
    fake.break_connections();
    append(&writer, 1, 2).await;
    let told = async {
        while !writer.trouble().is_some_and(|trouble| trouble.contains("not on this server")) {
            tokio::task::yield_now().await;
        }
    };
    soon(told).await;
    fake.state().refuses_appends = None;
    assert_eq!(soon(writer.flush()).await.unwrap(), EventNumber(2));

    fake.state().refuses_appends = Some(Reason::ProtocolUnsupported);
    fake.break_connections();
    append(&writer, 2, 3).await;
    let error = soon(writer.flush()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
}

#[tokio::test]
async fn segments_may_split_and_merge_under_a_writer_and_a_reader() {
    let (fake, client) = start(2).await;
    let mut reader = client.event_reader(&stream()).from(ReadFrom::Head).open().await.unwrap();
    let writer = client.event_writer(&stream()).open().await.unwrap();
    append(&writer, 0, 500).await;
    fake.with(STREAM, |store| {
        let old = store.active()[0].clone();
        let successors = store.successors(std::slice::from_ref(&old), 3);
        store.seal(old.segment, successors);
    });
    append(&writer, 500, 1_000).await;
    writer.flush().await.unwrap();
    fake.with(STREAM, |store| {
        let old = store.active()[1..4].to_vec();
        let successors = store.successors(&old, 1);
        old.iter().for_each(|place| store.seal(place.segment, successors.clone()));
    });
    append(&writer, 1_000, 1_500).await;
    writer.close().await.unwrap();
    let mut events = Vec::new();
    while events.len() < 1_500 {
        events.push(parsed(&reader.next().await.unwrap().unwrap()));
    }
    check(&events, 0, 1_500);
    assert_eq!(reader.position().segments().count(), 2);
}

#[tokio::test]
async fn a_named_writer_sends_only_what_is_not_stored_and_fences_its_predecessor() {
    let (fake, client) = start(3).await;
    let mut first = replays(&client).await.unwrap();
    assert!(first.registered().created);
    replay(&mut first, 0, 300).await;
    first.flush().await.unwrap();
    fake.with(STREAM, |store| {
        let old = store.active()[1].clone();
        let successors = store.successors(std::slice::from_ref(&old), 2);
        store.seal(old.segment, successors);
    });
    let mut second = replays(&client).await.unwrap();
    assert!(!second.registered().created);
    replay(&mut second, 0, 500).await;
    assert_eq!(second.flush().await.unwrap(), EventNumber(500));
    assert_eq!(second.already_stored(), 300);
    check(&read_all(&client).await, 0, 500);

    replay(&mut first, 300, 301).await;
    assert_eq!(first.flush().await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn an_unknown_name_is_refused_unless_it_may_be_created() {
    let (_fake, client) = start(1).await;
    let name = WriterName::new("loader").unwrap();
    let builder = client.event_writer(&stream()).named(name).replays().create_name(false);
    assert_eq!(builder.open().await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn appending_waits_for_memory_and_only_for_that() {
    let (fake, client) = start(1).await;
    let builder = client.event_writer(&stream()).memory_limit(ByteSize::mib(8));
    let writer = builder.open().await.unwrap();
    fake.set_down(true);
    let payload = vec![0; 1 << 20];
    let event = Event::new(&payload);
    for _ in 0..7 {
        writer.append(event).await.unwrap();
    }
    assert_eq!(writer.try_append(event).unwrap(), None);
    assert!(writer.outstanding_bytes() <= 8 << 20);
    fake.set_down(false);
    for _ in 0..20 {
        writer.append(event).await.unwrap();
    }
    assert_eq!(writer.close().await.unwrap(), EventNumber(27));
}

#[tokio::test]
async fn a_tracked_event_and_a_batch_are_acknowledged() {
    let (_fake, client) = start(2).await;
    let writer = client.event_writer(&stream()).open().await.unwrap();
    let event = |payload: &'static [u8]| Event::new(payload).time_micros(5);
    let acknowledged = writer.append_tracked(event(b"one")).await.unwrap();
    let number = acknowledged.number();
    acknowledged.await.unwrap();
    assert_eq!((number, writer.acknowledged()), (EventNumber(1), EventNumber(1)));
    let last = writer.append_batch("k", &[event(b"two"), event(b"three")]).await.unwrap();
    assert_eq!(last, EventNumber(3));
    writer.wait_acknowledged(last).await.unwrap();
}

#[tokio::test]
async fn events_beyond_the_limits_are_refused_and_cost_nothing() {
    let (_fake, client) = start(1).await;
    let writer = client.event_writer(&stream()).open().await.unwrap();
    let large = vec![0; 9 << 20];
    let event = Event::new(&large);
    let error = writer.append(event).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    let long = "k".repeat(9_000);
    let event = Event::new("").key(&long);
    assert_eq!(writer.append(event).await.unwrap_err().kind(), ErrorKind::InvalidRequest);
    append(&writer, 0, 1).await;
    assert_eq!(writer.close().await.unwrap(), EventNumber(1));
}

#[tokio::test]
async fn many_writers_share_a_connection() {
    let (_fake, client) = start(4).await;
    let mut writers = Vec::new();
    for _ in 0..20 {
        writers.push(client.event_writer(&stream()).open().await.unwrap());
    }
    for i in 0..100 {
        for (w, writer) in writers.iter().enumerate() {
            append(writer, i * 20 + w as u64, i * 20 + w as u64 + 1).await;
        }
    }
    for writer in writers {
        assert_eq!(writer.close().await.unwrap(), EventNumber(100));
    }
    let mut numbers: Vec<_> = read_all(&client).await.into_iter().map(|(_, n)| n).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..2_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn raw_appends_are_conditional_and_survive_broken_connections() {
    let (fake, client) = start(1).await;
    let place = fake.with(STREAM, |store| store.active()[0].clone());
    let mut writer = client.segment_writer(&place);
    let data = Bytes::from_static(b"twelve bytes");
    assert_eq!(writer.append(data.clone(), Some(Offset(0))).await.unwrap(), Offset(12));
    let error = writer.append(data.clone(), Some(Offset(0))).await.unwrap_err();
    let segment = place.segment;
    let mismatch = ClientError::OffsetMismatch { segment, expected: Offset(0), length: Offset(12) };
    assert_eq!(error, mismatch);
    fake.break_connections();
    assert_eq!(writer.append(data.clone(), Some(Offset(12))).await.unwrap(), Offset(24));

    let mut reader = client.segment_reader(&place, Offset(6)).until(None);
    let bytes = reader.next().await.unwrap().unwrap();
    assert_eq!((bytes.offset, &bytes.data[..]), (Offset(6), &b" bytestwelve bytes"[..]));
    assert_eq!(reader.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_raw_append_that_was_given_up_takes_no_answer_of_the_next_one() {
    let (fake, client) = start(1).await;
    let place = client.streams().segments(&stream(), crate::SegmentSet::Active).await.unwrap();
    let place = &place.segments[0];
    let stored = || fake.with(STREAM, |store| store.segments[&place.segment].bytes.clone());
    let mut writer = client.segment_writer(place);
    writer.append(Bytes::from_static(b"one"), None).await.unwrap();
    {
        // It is stored, but given up before its answer is looked at.
        let mut given_up = pin!(writer.append(Bytes::from_static(b" two"), None));
        while stored().len() == 3 {
            assert!(poll!(given_up.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
    }
    writer.append(Bytes::from_static(b" three"), None).await.unwrap();
    assert_eq!(stored(), b"one two three");
}

#[tokio::test]
async fn a_raw_append_whose_answer_was_lost_is_found_to_be_stored_in_a_sealed_segment_too() {
    for seals in [false, true] {
        let (fake, client) = start(1).await;
        let place = fake.with(STREAM, |store| store.active()[0].clone());
        let stored = || fake.with(STREAM, |store| store.segments[&place.segment].bytes.clone());
        let mut writer = client.segment_writer(&place);
        writer.append(Bytes::from_static(b"one"), None).await.unwrap();
        fake.state().goes_down_unanswered = true;
        let (appended, ()) =
            tokio::join!(writer.append(Bytes::from_static(b" two"), None), async {
                fake.refused(1).await;
                if seals {
                    fake.with(STREAM, |store| store.seal(place.segment, Vec::new()));
                }
                fake.set_down(false);
            });
        assert_eq!(appended.unwrap(), Offset(7), "sealed: {seals}");
        assert_eq!(stored(), b"one two");
        let more = writer.append(Bytes::from_static(b" three"), Some(Offset(7))).await;
        assert_eq!(more.map_err(|error| error.kind()).err(), seals.then_some(ErrorKind::Conflict));
    }
}

#[tokio::test]
async fn a_writer_outlives_a_controller_that_is_away_when_a_segment_is_replaced() {
    let controller = Fake::start().await;
    let store = controller.peer();
    controller.create_at(STREAM, 1, &[&store.addr.to_string()]);
    let request_timeout = Duration::from_millis(300);
    let config = ClientConfig { request_timeout, ..config(&controller) };
    let client = Client::connect(config).await.unwrap();
    let writer = client.event_writer(&stream()).open().await.unwrap();
    append(&writer, 0, 100).await;
    writer.flush().await.unwrap();
    controller.set_down(true);
    // More than an answer to an `Open` tells.
    controller.with(STREAM, |store| {
        let old = store.active().remove(0);
        let successors = store.successors(std::slice::from_ref(&old), 3);
        store.seal(old.segment, successors);
    });
    append(&writer, 100, 200).await;
    // One look-up is given up after a third of these calls at the latest.
    soon(controller.refused(100)).await;
    assert_eq!(writer.acknowledged(), EventNumber(100));
    controller.set_down(false);
    assert_eq!(soon(writer.close()).await.unwrap(), EventNumber(200));
    check(&read_all(&client).await, 0, 200);
}
