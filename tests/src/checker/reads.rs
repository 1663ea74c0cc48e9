//! What reads show by themselves: phantoms, damage, doubles, instability, what they should have
//! contained, and what should not exist after a seal or a deletion.

use std::collections::BTreeMap;

use super::index::{Append, Fate, Index, Read};
use super::{Anomaly, Place, Placed, Violation, add};
use crate::history::{Seen, SegmentRef};

/// What was read at each offset, and when that read ended.
type Known = BTreeMap<(SegmentRef, u64), ((u32, u64), u64)>;

/// Checks all reads and returns where the last ones found what.
pub(super) fn check(index: &Index, violations: &mut Vec<Violation>) -> Placed {
    let mut placed = Placed::new();
    let mut known = Known::new();
    for read in &index.reads {
        check_shape(read, violations);
        for seen in &read.events {
            check_event(index, read, seen, violations);
            let at = (read.segment, seen.offset);
            let (before, first) =
                known.entry(at).or_insert(((seen.writer, seen.number), read.ended));
            *first = read.ended.min(*first);
            if *before != (seen.writer, seen.number) {
                let evidence = format!("{at:?} held {before:?}, then {seen:?}");
                add(violations, Anomaly::Unstable, evidence);
            }
        }
        if read.last {
            placed.insert(read.segment, places(index, read));
        }
    }
    check_doubles(index, &placed, violations);
    check_still_there(index, &known, violations);
    check_visible(index, &placed, violations);
    placed
}

fn places(index: &Index, read: &Read) -> Vec<Place> {
    let place = |seen: &Seen| {
        let append = index.append_of(read.segment, seen)?;
        let (segment, offset, number) = (read.segment, seen.offset, seen.number);
        Some(Place { segment, offset, append, number })
    };
    read.events.iter().filter_map(place).collect()
}

fn check_shape(read: &Read, violations: &mut Vec<Violation>) {
    let first = read.from.max(read.start);
    let offsets = || read.events.iter().map(|seen| seen.offset);
    let rising = offsets().zip(offsets().skip(1)).all(|(a, b)| a < b);
    let inside = offsets().all(|offset| offset >= first && offset < read.next);
    let begins = read.next <= first || offsets().next() == Some(first);
    if !(rising && inside && begins) {
        let evidence =
            format!("a read of {:?} from {first} to {} has holes", read.segment, read.next);
        add(violations, Anomaly::Malformed, evidence);
    }
}

fn check_event(index: &Index, read: &Read, seen: &Seen, violations: &mut Vec<Violation>) {
    if !seen.intact {
        add(violations, Anomaly::Damage, format!("{seen:?} in {:?}", read.segment));
        return;
    }
    let Some(append) = index.append_of(read.segment, seen).map(|id| &index.appends[id]) else {
        add(violations, Anomaly::Phantom, format!("{seen:?} was never appended"));
        return;
    };
    let as_given = index.homes(append).any(|home| home == read.segment)
        && append.events.iter().any(|e| e.number == seen.number && e.key == seen.key);
    if !as_given {
        let evidence = format!("{seen:?} in {:?} was given as {append}", read.segment);
        add(violations, Anomaly::Phantom, evidence);
    } else if append.fate == Fate::Refused {
        add(violations, Anomaly::Phantom, format!("{append} was refused and is read"));
    } else if append.invoked > read.ended {
        add(violations, Anomaly::Phantom, format!("{append} was read before it was appended"));
    }
    let until = index.recovered.get(&read.segment).filter(|_| read.last);
    if let Some(until) = until.filter(|until| append.invoked > **until) {
        let evidence = format!("{append} was begun after {until} and came back");
        add(violations, Anomaly::Phantom, evidence);
    }
    check_ended(index, append, read.segment, violations);
}

fn check_ended(
    index: &Index,
    append: &Append,
    segment: SegmentRef,
    violations: &mut Vec<Violation>,
) {
    if let Some(at) = index.succeeded.get(&segment).filter(|at| **at < append.invoked) {
        let evidence = format!("{append}, begun after {at}, is stored in {segment:?}");
        add(violations, Anomaly::AfterSeal, evidence);
    }
    let stream = append.segment.stream;
    for (times, anomaly) in
        [(&index.sealed, Anomaly::AfterSeal), (&index.deleted, Anomaly::AfterDelete)]
    {
        if let Some(at) = times.get(&stream).filter(|at| **at < append.invoked) {
            add(violations, anomaly, format!("{append}, begun after {at}, is stored"));
        }
    }
}

fn check_doubles(index: &Index, placed: &Placed, violations: &mut Vec<Violation>) {
    let mut seen: BTreeMap<(usize, u64), (SegmentRef, u64)> = BTreeMap::new();
    for (segment, places) in placed {
        for place in places {
            let here = (*segment, place.offset);
            if let Some(there) = seen.insert((place.append, place.number), here) {
                let append = &index.appends[place.append];
                let evidence =
                    format!("{} of {append} stands at {there:?} and at {here:?}", place.number);
                add(violations, Anomaly::Double, evidence);
            }
        }
    }
}

/// What any read found must be in the last one, unless truncated since, or behind the end of what
/// was recovered.
fn check_still_there(index: &Index, known: &Known, violations: &mut Vec<Violation>) {
    for ((segment, offset), (event, at)) in known {
        let Some(last) = index.last_read(*segment) else { continue };
        let lost = index.recovered.get(segment).is_some_and(|until| at >= until);
        if lost && *offset >= last.next {
            continue;
        }
        let found = last.events.binary_search_by_key(offset, |seen| seen.offset).is_ok();
        if *offset >= last.start.max(last.from) && !found {
            let evidence = format!("{event:?} was read at {offset} of {segment:?} and is gone");
            add(violations, Anomaly::Unstable, evidence);
        }
    }
}

/// A read that reached the tail contains what was acknowledged before it began.
fn check_visible(index: &Index, placed: &Placed, violations: &mut Vec<Violation>) {
    for (segment, places) in placed {
        let mut acknowledged: Vec<(u64, u64)> = places
            .iter()
            .filter_map(|place| match index.appends[place.append].fate {
                Fate::Acknowledged(at) => Some((at, place.offset)),
                _ => None,
            })
            .collect();
        acknowledged.sort_unstable();
        let mut reads: Vec<&Read> =
            index.reads.iter().filter(|r| r.segment == *segment && r.at_tail).collect();
        reads.sort_by_key(|read| read.invoked);
        let mut furthest = None;
        let mut next = acknowledged.into_iter().peekable();
        for read in reads {
            while let Some((_, offset)) = next.next_if(|(at, _)| *at < read.invoked) {
                furthest = furthest.max(Some(offset));
            }
            if let Some(offset) = furthest.filter(|offset| *offset >= read.next.max(read.from)) {
                let evidence = format!(
                    "a read of {segment:?} begun at {} ended at {}, before offset {offset}, which \
                     was acknowledged earlier",
                    read.invoked, read.next
                );
                add(violations, Anomaly::Invisible, evidence);
            }
        }
    }
}
