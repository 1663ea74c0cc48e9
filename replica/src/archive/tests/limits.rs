//! What a builder refuses, and where a round ends.

use rstest::rstest;

use super::*;

fn builder() -> RoundBuilder {
    let mut builder = RoundBuilder::new(small(), None, LogIndex(5));
    assert_eq!(builder.push(&empty(5, 3)), Ok(Taken::Yes));
    builder
}

#[rstest]
#[case(7)]
#[case(5)]
fn entries_that_leave_a_gap_or_come_again_are_refused(#[case] index: u64) {
    let error = builder().push(&empty(index, 3)).unwrap_err();
    assert_eq!(error, RoundError::Gap { expected: LogIndex(6), found: LogIndex(index) });
}

#[test]
fn a_refused_entry_leaves_the_round_as_it_was() {
    let mut builder = builder();
    assert!(matches!(builder.push(&empty(6, 2)), Err(RoundError::TermBack { .. })));
    let mut cut = normal(6, 3, &[(b"h", b"payload", Some(1))]);
    cut.data.truncate(3);
    cut.owned.clear();
    assert!(matches!(builder.push(&cut), Err(RoundError::Entry { .. })));
    assert_eq!((builder.next_index(), builder.payload_bytes()), (LogIndex(6), 0));
    assert_eq!(builder.push(&normal(6, 3, &[(b"h", b"payload", Some(1))])), Ok(Taken::Yes));
    let footer = footer(&builder.finish(name(1), b"").unwrap());
    assert_eq!((footer.headers().len(), footer.runs.len()), (2, 1));
}

#[rstest]
#[case(&[(1, 0..4), (2, 3..5)])]
#[case(&[(1, 4..5), (2, 0..1)])]
#[case(&[(1, 0..8)])]
fn owners_of_bytes_that_overlap_or_are_not_there_are_refused(
    #[case] owned: &[(u128, std::ops::Range<u32>)],
) {
    let entry = normal(6, 3, &[(b"h", b"payload", None)]);
    let entry = RoundEntry { owned: owned.to_vec(), ..entry };
    assert!(matches!(builder().push(&entry), Err(RoundError::Owned { .. })));
}

#[test]
fn a_membership_change_has_no_payload() {
    let entry = RoundEntry { owned: vec![(1, 0..1)], ..membership(6, 3, b"add") };
    assert!(matches!(builder().push(&entry), Err(RoundError::Owned { .. })));
}

#[test]
fn a_round_without_entries_or_under_a_name_of_an_older_term_or_another_group_is_refused() {
    let none = RoundBuilder::new(small(), None, LogIndex(5));
    assert_eq!(none.finish(name(1), b"").unwrap_err(), RoundError::Empty);
    let old = ObjectName { term: Term(2), ..name(1) };
    assert!(matches!(builder().finish(old, b""), Err(RoundError::Name { .. })));
    let previous = ObjectRef { name: name(7), length: 9, checksum: 9 };
    for first in [name(7), name(3), ObjectName { group: GroupId(3), ..name(8) }] {
        let mut builder = RoundBuilder::new(small(), Some(previous), LogIndex(5));
        assert_eq!(builder.push(&empty(5, 3)), Ok(Taken::Yes));
        assert!(matches!(builder.finish(first, b""), Err(RoundError::Name { .. })), "{first}");
    }
}

#[test]
fn a_round_is_full_when_its_runs_would_not_fit_one_entry_and_goes_on_in_the_next() {
    let operations: Vec<Op<'_>> =
        (0..20_000).map(|at| (&b""[..], &b"x"[..], Some(at % 2))).collect();
    let mut builder = RoundBuilder::new(RoundSettings::default(), None, LogIndex(1));
    let taken =
        |builder: &mut RoundBuilder, index| builder.push(&normal(index, 1, &operations)).unwrap();
    let last = (1..).find(|index| taken(&mut builder, *index) == Taken::Full).unwrap();
    assert_eq!((last, builder.next_index()), (7, LogIndex(7)));
    let round = builder.finish(name(1), b"").unwrap();
    assert_eq!(round.runs.len(), 120_000);
    let mut next =
        RoundBuilder::new(RoundSettings::default(), Some(round.footer.reference), LogIndex(7));
    assert_eq!(taken(&mut next, 7), Taken::Yes);
}

#[test]
fn a_round_of_headers_alone_ends_before_its_footer_is_too_large_an_object() {
    let header = vec![7; 8 << 20];
    let mut builder = RoundBuilder::new(RoundSettings::default(), None, LogIndex(1));
    let push = |builder: &mut RoundBuilder, index| {
        builder.push(&normal(index, 1, &[(&header, b"", None)])).unwrap()
    };
    let full = (1..).find(|index| push(&mut builder, *index) == Taken::Full).unwrap();
    assert_eq!(full, 8);
    let round = builder.finish(name(1), b"").unwrap();
    assert!(round.objects.is_empty());
    assert!(u64::from(round.footer.reference.length) <= lts::OBJECT_BYTES_MAX);
}

#[test]
fn a_largest_entry_is_an_object_of_its_own_where_targets_are_smaller() {
    let payload = vec![1; 8 << 20];
    let entries =
        [normal(1, 1, &[(b"h", &payload, Some(1))]), normal(2, 1, &[(b"h", b"small", Some(1))])];
    let settings = RoundSettings { object_bytes: ByteSize::mib(1), ..RoundSettings::default() };
    let round = build(&entries, settings, None);
    let lengths: Vec<_> = round.objects.iter().map(|object| object.reference.length).collect();
    assert_eq!(lengths, [(8 << 20) + 84, 5 + 84]);
    let huge = vec![0; common::limits::ENTRY_BYTES_MAX];
    let mut builder = RoundBuilder::new(settings, None, LogIndex(1));
    let error = builder.push(&normal(1, 1, &[(b"", &huge, None)])).unwrap_err();
    assert!(matches!(error, RoundError::TooLarge { .. }));
}
