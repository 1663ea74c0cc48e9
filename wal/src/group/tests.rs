//! Copies of entries, and where they take their places.

use super::*;

fn at(file: u32, index: u64, term: u64) -> Place {
    Place { term: Term(term), file, offset: index as u32 * 100, length: 10 }
}

/// Entries of a term each, all in the file of their term.
fn with(terms: &[u64]) -> Group {
    let mut group = Group::default();
    for (index, term) in (1..).zip(terms) {
        group.put(LogIndex(index), at(*term as u32, index, *term), &mut |_| ());
    }
    group
}

fn row(last: u64, last_term: u64) -> GroupRow {
    let (last, last_term) = (LogIndex(last), Term(last_term));
    GroupRow { last, last_term, ..GroupRow::default() }
}

fn relocate(group: &mut Group, index: u64, place: Place) -> Vec<Place> {
    let mut dropped = Vec::new();
    group.relocate(LogIndex(index), place, &mut |place| dropped.push(place));
    dropped
}

fn files(group: &Group) -> Vec<u32> {
    group.indexed().map(|(_, place)| place.file).collect()
}

#[test]
fn a_copy_replaces_the_place_of_its_entry_and_nothing_else() {
    let mut group = with(&[1, 1, 2, 2]);
    let before = (group.bytes, group.last, group.last_term, group.first());
    assert_eq!(relocate(&mut group, 2, at(9, 2, 1)), [at(1, 2, 1)]);
    assert_eq!(files(&group), [1, 9, 2, 2]);
    assert_eq!((group.bytes, group.last, group.last_term, group.first()), before);
    assert_eq!(group.holdings.oldest().map(|held| (held.file, held.entries)), Some((1, 1)));
    assert_eq!(relocate(&mut group, 1, at(9, 1, 1)), [at(1, 1, 1)]);
    assert_eq!(group.holdings.oldest().map(|held| (held.file, held.entries)), Some((2, 2)));
}

#[test]
fn a_copy_of_an_entry_that_was_replaced_is_none() {
    let mut group = with(&[1, 1, 2, 2]);
    assert_eq!(relocate(&mut group, 3, at(9, 3, 1)), []);
    assert_eq!(relocate(&mut group, 2, at(9, 2, 2)), []);
    assert_eq!(files(&group), [1, 1, 2, 2]);
    let lost = LostEntries { first: LogIndex(1), last: LogIndex(2), term: Term(1) };
    let mut group = Group::from_row(&GroupRow { lost: vec![lost], ..row(2, 1) });
    assert_eq!(relocate(&mut group, 2, at(9, 2, 1)), []);
    assert!(group.places().next().is_none(), "what was given up stays so");
}

#[test]
fn copies_wait_for_the_entries_behind_them_in_any_order() {
    for order in [[1, 2, 3, 4], [4, 3, 2, 1], [3, 1, 4, 2], [2, 4, 1, 3]] {
        let mut group = Group::from_row(&row(4, 2));
        for index in order {
            relocate(&mut group, index, at(9, index, 1 + index / 4));
        }
        assert!(group.complete(), "{order:?}");
        assert_eq!(files(&group), [9, 9, 9, 9]);
        assert_eq!(group.moved().count(), 0);
    }
}

#[test]
fn a_copy_of_another_history_is_not_put_before_an_entry() {
    // The table says that the last entry has term 2; this one is of what it replaced, or later.
    for term in [1, 3] {
        let mut group = Group::from_row(&row(4, 2));
        relocate(&mut group, 4, at(9, 4, term));
        assert!(!group.has_entries(), "{term}");
    }
    let mut group = Group::from_row(&row(4, 2));
    relocate(&mut group, 4, at(9, 4, 2));
    relocate(&mut group, 3, at(9, 3, 3));
    assert_eq!(files(&group), [9]);
    assert!(!group.complete());
}

#[test]
fn waiting_copies_go_with_what_drops_their_entries() {
    let waiting = || {
        let mut group = Group::from_row(&row(5, 1));
        (1..=4).for_each(|index| drop(relocate(&mut group, index, at(9, index, 1))));
        group
    };
    let left = |group: &Group| group.moved().map(|(index, _)| index.0).collect::<Vec<_>>();
    let ignore = &mut |_: Place| ();
    let mut group = waiting();
    group.put(LogIndex(3), at(2, 3, 2), ignore);
    group.fill_front();
    assert_eq!((files(&group), left(&group)), (vec![9, 9, 2], vec![]), "they are followed now");
    let mut group = waiting();
    group.truncate(Truncated { index: LogIndex(2), term: Term(1) }, ignore);
    assert_eq!(left(&group), [3, 4]);
    let mut group = waiting();
    group.reset(Truncated { index: LogIndex(2), term: Term(1) }, ignore);
    assert_eq!(left(&group), []);
    let mut group = waiting();
    group.bury(Bytes::new(), ignore);
    assert_eq!(left(&group), []);
    let mut group = waiting();
    group.adopt(&row(5, 1));
    assert_eq!(left(&group), [1, 2, 3, 4], "a table that says the same changes nothing");
    group.drop_from(LogIndex(3), ignore);
    assert_eq!(left(&group), [1, 2]);
}
