use lts::{Fault, Operation};
use replica::StateMachine;

use super::*;

/// A segment of ten runs of 300 000 bytes in one object, and a reader's error where one byte of the
/// object was changed; the bytes that were read before.
async fn read_tampered(change: impl FnOnce(&mut Vec<u8>)) -> (Result<Vec<u8>, ReadError>, String) {
    let mut shelf = Shelf::new(0);
    for _ in 0..10 {
        shelf.append_pattern(300_000);
    }
    let object = shelf.rest(10, 32 << 20, true)[0];
    assert!(shelf.memory.tamper(&object.into(), change));
    let read = read_all(&mut shelf.reader(0, None)).await;
    assert!(read.as_ref().is_err() || read.as_ref().is_ok_and(|bytes| *bytes == shelf.all));
    (read, object.to_string())
}

fn assert_damaged(error: &ReadError, object: &str, offset: u64) {
    let damaged = matches!(error, ReadError::Damaged { offset: Offset(at), .. } if *at == offset);
    assert!(damaged, "{error}");
    assert_eq!(error.reason(), Reason::DataLost);
    let text = error.to_string();
    let parts = [object, "restore", "braid lts check", &segment(1).to_string()];
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
}

#[tokio::test]
async fn one_changed_bit_anywhere_is_damage_where_it_lies_and_never_handed_out() {
    // The second block, the index, the index's length.
    let in_payload = |bytes: &mut Vec<u8>| bytes[1_500_000] ^= 1;
    let (read, object) = read_tampered(in_payload).await;
    assert_damaged(&read.unwrap_err(), &object, 1_200_000);
    for behind in [9, 10, 13, 40, 200] {
        let in_index = |bytes: &mut Vec<u8>| {
            let at = bytes.len() - behind;
            bytes[at] ^= 0x10;
        };
        let (read, object) = read_tampered(in_index).await;
        assert_damaged(&read.unwrap_err(), &object, 0);
    }
    // Bytes of others in the same block are checked with it.
    let (read, object) = read_tampered(|bytes| bytes[100] ^= 1).await;
    assert_damaged(&read.unwrap_err(), &object, 0);
}

#[tokio::test]
async fn an_object_that_was_cut_short_or_emptied_is_damage() {
    for length in [0, 5, 50, 1_000_000, 3_000_000] {
        let (read, object) = read_tampered(|bytes| bytes.truncate(length)).await;
        assert_damaged(&read.unwrap_err(), &object, 0);
    }
}

#[tokio::test]
async fn an_object_cut_short_while_it_is_read_is_damage_and_not_an_early_end() {
    let mut shelf = Shelf::new(0);
    for _ in 0..10 {
        shelf.append_pattern(1 << 20);
    }
    let object = shelf.rest(10, 32 << 20, true)[0];
    shelf.read(0, Some(1)).await;
    shelf.memory.tamper(&object.into(), |bytes| bytes.truncate(5 << 20));
    let mut reader = shelf.reader(0, None);
    let mut bytes = Vec::new();
    let error = loop {
        match reader.next().await {
            Ok(chunk) => bytes.extend_from_slice(&chunk.unwrap().data),
            Err(error) => break error,
        }
    };
    assert!(bytes.len() >= 1 << 20 && bytes == shelf.all[..bytes.len()], "{}", bytes.len());
    assert_damaged(&error, &object.to_string(), bytes.len() as u64);
}

#[tokio::test]
async fn another_object_in_the_place_of_one_is_damage() {
    let mut shelf = Shelf::new(0);
    for _ in 0..4 {
        shelf.append_pattern(300_000);
    }
    let (one, other) = (shelf.rest(2, 32 << 20, true)[0], shelf.rest(2, 32 << 20, true)[0]);
    let path = ObjectPath::from(other);
    let length = shelf.memory.head(&path).await.unwrap().length;
    let bytes = shelf.memory.get(&path, 0..length).await.unwrap();
    shelf.memory.tamper(&one.into(), |old| *old = bytes.to_vec());
    let error = read_all(&mut shelf.reader(0, None)).await.unwrap_err();
    assert_damaged(&error, &one.to_string(), 0);
    // One that is sound and has the right name, but other bytes.
    let elsewhere = lts::Memory::new(SystemClock::shared());
    put_round(&elsewhere, one.sequence, 0, 32 << 20, &[(1, vec![1; 600_000])]);
    let length = elsewhere.head(&one.into()).await.unwrap().length;
    let bytes = elsewhere.get(&one.into(), 0..length).await.unwrap();
    shelf.memory.tamper(&one.into(), |old| *old = bytes.to_vec());
    let error = read_all(&mut shelf.reader(0, None)).await.unwrap_err();
    assert_damaged(&error, &one.to_string(), 0);
}

#[tokio::test]
async fn an_object_that_was_put_back_is_read_again() {
    let mut shelf = Shelf::new(0);
    for _ in 0..10 {
        shelf.append_pattern(300_000);
    }
    let object = ObjectPath::from(shelf.rest(10, 32 << 20, true)[0]);
    let mut sound = Vec::new();
    let swap = |bytes: &mut Vec<u8>| {
        sound = bytes.clone();
        bytes.truncate(2_000_000);
    };
    shelf.memory.tamper(&object, swap);
    assert!(read_all(&mut shelf.reader(0, None)).await.is_err());
    shelf.memory.tamper(&object, |bytes| *bytes = sound);
    assert_eq!(shelf.read(0, None).await, shelf.all);
}

#[tokio::test]
async fn bytes_that_were_read_wrong_once_are_read_again_before_they_count_as_damaged() {
    let mut shelf = Shelf::new(0);
    for _ in 0..10 {
        shelf.append_pattern(300_000);
    }
    shelf.rest(10, 32 << 20, true);
    let faults = shelf.faulty.faults();
    for (skip, fault) in [(1, Fault::FlipBit(1_000)), (2, Fault::ShortBody(99))] {
        faults.plan_fault(Operation::Get, "", skip, fault);
    }
    assert_eq!(shelf.read(0, None).await, shelf.all);
    assert_eq!(faults.struck(), 2);
}

#[tokio::test]
async fn a_missing_object_is_looked_for_anew_where_the_bytes_have_gone_meanwhile() {
    let mut shelf = Shelf::new(0);
    shelf.append_pattern(500_000);
    shelf.append_pattern(500_000);
    let object = ObjectPath::from(shelf.rest(2, 32 << 20, true)[0]);
    // A compaction has moved the bytes and deleted the object after the reader learned of it.
    let moved = put_round(&shelf.memory, 7_777, 0, 32 << 20, &[(1, shelf.all.clone())])[0];
    shelf.memory.delete(&[object]).await.unwrap();
    shelf.bucket.hold(true);
    let mut reader = shelf.reader(0, None);
    {
        let mut next = pin!(reader.next());
        assert!(poll!(&mut next).is_pending());
        shelf.shared.lock().objects.splice(0, 1, moved, |_| {});
        shelf.bucket.hold(false);
        assert!(next.await.unwrap().is_some());
    }
    let rest = read_all(&mut reader).await.unwrap();
    assert_eq!(rest[..], shelf.all[shelf.all.len() - rest.len()..]);
}

#[tokio::test]
async fn a_missing_object_is_damage_unless_its_bytes_were_truncated() {
    let mut shelf = Shelf::new(0);
    shelf.append_pattern(500_000);
    shelf.append_pattern(1_000);
    let object = shelf.rest(1, 32 << 20, true)[0];
    shelf.memory.delete(&[object.into()]).await.unwrap();
    let mut reader = shelf.reader(100, None);
    let error = reader.next().await.unwrap_err();
    assert_damaged(&error, &object.to_string(), 100);
    shelf.shared.lock().truncate(Offset(500_000), |_| {});
    let error = reader.next().await.unwrap_err();
    assert!(matches!(error, ReadError::Truncated { start: Offset(500_000), .. }), "{error}");
}

#[tokio::test]
async fn a_store_that_is_away_is_not_damage_and_the_reader_goes_on_when_it_is_back() {
    let mut shelf = Shelf::new(0);
    for _ in 0..10 {
        shelf.append_pattern(500_000);
    }
    shelf.rest(10, 32 << 20, true);
    let mut reader = shelf.reader(0, None);
    let mut bytes = reader.next().await.unwrap().unwrap().data.to_vec();
    for kind in [ErrorKind::Unavailable, ErrorKind::Denied] {
        let mut other = shelf.reader(4_000_000, None);
        // Of objects and blocks that nobody has read.
        shelf
            .sources
            .objects
            .as_ref()
            .unwrap()
            .forget(shelf.shared.lock().objects.items()[0].rested.object);
        shelf.faulty.faults().set_outage(Some(kind));
        if kind == ErrorKind::Unavailable {
            let error = other.next().await.unwrap_err();
            let unavailable =
                matches!(error, ReadError::StorageUnavailable { offset: Offset(4_000_000), .. });
            assert!(unavailable, "{error}");
            assert_eq!(error.reason(), Reason::Unavailable);
        }
        shelf.faulty.faults().set_outage(None);
        assert_eq!(read_all(&mut other).await.unwrap(), shelf.all[4_000_000..]);
    }
    bytes.extend(read_all(&mut reader).await.unwrap());
    assert_eq!(bytes, shelf.all);
}

#[tokio::test]
async fn bytes_that_were_lost_with_the_log_are_told_and_those_around_them_are_read() {
    let mut shelf = Shelf::new(0);
    shelf.append_pattern(1_000);
    shelf.rest(1, 32 << 20, false);
    shelf.append_pattern(500);
    let entry = shelf.container.driver().index;
    shelf.append_pattern(2_000);
    shelf.container.driver().machine.lost(LogIndex(entry)..=LogIndex(entry));
    shelf.rest(1, 32 << 20, false);
    let before = read_all(&mut shelf.reader(0, Some(1_000))).await.unwrap();
    assert_eq!(before, shelf.all[..1_000]);
    let mut reader = shelf.reader(0, None);
    let mut read = Vec::new();
    let lost = loop {
        match reader.next().await {
            Ok(Some(chunk)) => read.extend_from_slice(&chunk.data),
            other => break other.unwrap_err(),
        }
    };
    assert_eq!(read, shelf.all[..1_000], "all that comes before is handed out");
    assert!(matches!(lost, ReadError::Damaged { offset: Offset(1_000), .. }), "{lost}");
    assert_eq!(lost.reason(), Reason::DataLost);
    let text = lost.to_string();
    let parts = [&format!("entry {entry}"), "repair", "cannot be read", "behind offset 1500"];
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    assert_eq!(read_all(&mut shelf.reader(1_500, None)).await.unwrap(), shelf.all[1_500..]);
}
