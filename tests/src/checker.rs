//! The history checker: whether what was read is what exactly-once, ordered, durable appends allow.
//!
//! It knows nothing of the store, only the history. All checks are linear in its length but for
//! sorting:
//!
//! - **loss**: an acknowledged event is in the last read, unless it can have been truncated;
//! - **double**: no (writer, number) stands twice, in any segment of a stream;
//! - **phantom**: what is read was appended with that key, to that segment, before, and not refused;
//! - **order**: the numbers of one writer rise within a segment, and an append that ended before
//!   another one began stands before it;
//! - **atomic**: an atomic batch is there as a whole and together;
//! - **conditional**: an event that expected an offset stands there or nowhere;
//! - **stability**: what was read once at an offset is read there for ever, or truncated;
//! - **visibility**: a read to the tail contains everything acknowledged before it began;
//! - **recovered**: where a machine was lost, everything acknowledged before the end of what was
//!   archived is there, and behind it a prefix: nothing that came after what is missing;
//! - **sealed**, **deleted**: nothing that began after a seal or a deletion had ended is stored.

mod index;
mod reads;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Line, SegmentRef};
use index::{Append, Fate, Index, Read};

/// What a history shows to be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    Loss,
    Double,
    Phantom,
    Damage,
    Order,
    TornBatch,
    WrongOffset,
    Unstable,
    Invisible,
    AfterSeal,
    AfterDelete,
    /// The history itself is not one: an end without invocation, a number given twice.
    Malformed,
}

/// One broken promise, with what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub anomaly: Anomaly,
    pub evidence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.anomaly, self.evidence)
    }
}

/// What a checked history contained, so that success is known to mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    pub acknowledged: usize,
    pub refused: usize,
    pub unknown: usize,
    pub read_at_the_end: usize,
    pub reads: usize,
}

/// Checks a history; an empty list of violations means that it keeps every promise.
pub fn check(lines: &[Line]) -> (Summary, Vec<Violation>) {
    let mut violations = Vec::new();
    let index = Index::of(lines, &mut violations);
    let placed = reads::check(&index, &mut violations);
    check_appends(&index, &placed, &mut violations);
    for (segment, events) in &placed {
        check_order(&index, *segment, events, &mut violations);
    }
    (summary(&index, &placed), violations)
}

/// Where the last read of each segment found which append's event: (offset, append, position in
/// its batch), by offset.
type Placed = BTreeMap<SegmentRef, Vec<Place>>;

#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    append: usize,
    number: u64,
}

fn summary(index: &Index, placed: &Placed) -> Summary {
    let count = |fate: fn(&Fate) -> bool| index.appends.iter().filter(|a| fate(&a.fate)).count();
    Summary {
        acknowledged: count(|fate| matches!(fate, Fate::Acknowledged(_))),
        refused: count(|fate| matches!(fate, Fate::Refused)),
        unknown: count(|fate| matches!(fate, Fate::Unknown)),
        read_at_the_end: placed.values().map(Vec::len).sum(),
        reads: index.reads.len(),
    }
}

fn add(violations: &mut Vec<Violation>, anomaly: Anomaly, evidence: String) {
    violations.push(Violation { anomaly, evidence });
}

/// Loss, torn batches, wrong offsets: one look at each append.
fn check_appends(index: &Index, placed: &Placed, violations: &mut Vec<Violation>) {
    let mut found: BTreeMap<usize, Vec<(usize, Place)>> = BTreeMap::new();
    // The lowest number of each writer that is left in a segment.
    let mut lowest: BTreeMap<(SegmentRef, u32), u64> = BTreeMap::new();
    let mut ends: BTreeMap<SegmentRef, End> = BTreeMap::new();
    for (segment, places) in placed {
        for (position, place) in places.iter().enumerate() {
            found.entry(place.append).or_default().push((position, *place));
            let writer = index.appends[place.append].writer;
            let low = lowest.entry((*segment, writer)).or_insert(place.number);
            *low = place.number.min(*low);
            ends.entry(*segment).or_default().take(&index.appends[place.append], place.number);
        }
    }
    for (id, append) in index.appends.iter().enumerate() {
        let Some(last) = index.last_read(append.segment) else {
            check_unread(index, append, violations);
            continue;
        };
        let places = found.get(&id).map_or(&[][..], Vec::as_slice);
        if let Some(expected) = append.expected_offset
            && let Some((_, place)) = places.first()
            && place.offset != expected
        {
            let evidence = format!("{append} stands at {}, expected {expected}", place.offset);
            add(violations, Anomaly::WrongOffset, evidence);
        }
        let low = lowest.get(&(append.segment, append.writer)).copied();
        if places.len() >= append.events.len() {
            let together = places.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1);
            if !together {
                add(violations, Anomaly::TornBatch, format!("{append} is not stored together"));
            }
        } else if may_be_truncated(index, append, places, last, low) {
            // Its beginning or all of it went with a truncation.
        } else if !places.is_empty() {
            let evidence = format!("{append}: {} of its events are stored", places.len());
            add(violations, Anomaly::TornBatch, evidence);
        } else if let Fate::Acknowledged(at) = append.fate
            && !may_be_lost(index, append, at, ends.get(&append.segment))
        {
            let evidence = format!("{append} was acknowledged at {at} and is not stored");
            add(violations, Anomaly::Loss, evidence);
        }
    }
}

/// Without a last read nothing can be said of an event; only a deleted stream may lack it.
fn check_unread(index: &Index, append: &Append, violations: &mut Vec<Violation>) {
    let acknowledged = matches!(append.fate, Fate::Acknowledged(_));
    if acknowledged && !index.may_be_deleted.contains(&append.segment.stream) {
        let evidence = format!("{append} was acknowledged and its segment never read to the end");
        add(violations, Anomaly::Malformed, evidence);
    }
}

/// Whether the missing events of `append` can have been truncated: the segment does not start at
/// zero, the append began before the truncation ended, and everything of its writer that is left
/// came later.
fn may_be_truncated(
    index: &Index,
    append: &Append,
    places: &[(usize, Place)],
    last: &Read,
    low: Option<u64>,
) -> bool {
    let missing = append.events.len().saturating_sub(places.len());
    let first_numbers_missing = append.events[..missing]
        .iter()
        .all(|event| !places.iter().any(|(_, place)| place.number == event.number));
    let highest_missing = append.events[..missing].last().map_or(0, |event| event.number);
    last.start > 0
        && first_numbers_missing
        && low.is_none_or(|low| highest_missing < low)
        && index.truncated_until(append.segment).is_some_and(|until| append.invoked < until)
}

/// How far what is left of a segment reaches.
#[derive(Debug, Default)]
struct End {
    /// The latest beginning of an append that is there.
    begun: u64,
    /// By writer.
    numbers: BTreeMap<u32, u64>,
}

impl End {
    fn take(&mut self, append: &Append, number: u64) {
        self.begun = self.begun.max(append.invoked);
        let highest = self.numbers.entry(append.writer).or_default();
        *highest = number.max(*highest);
    }

    /// Whether what ended at `at` must stand before something that is there.
    fn reaches(&self, append: &Append, at: u64) -> bool {
        let number = append.events.first().map_or(0, |event| event.number);
        at < self.begun || self.numbers.get(&append.writer).is_some_and(|found| number < *found)
    }
}

/// Whether an append that was acknowledged at `at` was beyond what a recovery brought back.
fn may_be_lost(index: &Index, append: &Append, at: u64, end: Option<&End>) -> bool {
    let until = index.recovered.get(&append.segment);
    until.is_some_and(|until| at >= *until) && !end.is_some_and(|end| end.reaches(append, at))
}

/// Real time and number order within one segment, by one sweep from its end.
fn check_order(
    index: &Index,
    segment: SegmentRef,
    places: &[Place],
    violations: &mut Vec<Violation>,
) {
    let mut earliest_end: Option<(u64, usize)> = None;
    let mut next_number: BTreeMap<u32, u64> = BTreeMap::new();
    for place in places.iter().rev() {
        let append = &index.appends[place.append];
        if let Some((end, later)) = earliest_end
            && end < append.invoked
            && later != place.append
        {
            let later = &index.appends[later];
            let evidence = format!(
                "{append}, begun at {}, stands in {segment:?} before {later}, which ended at {end}",
                append.invoked
            );
            add(violations, Anomaly::Order, evidence);
        }
        if let Fate::Acknowledged(end) = append.fate
            && earliest_end.is_none_or(|(earliest, _)| end < earliest)
        {
            earliest_end = Some((end, place.append));
        }
        let next = next_number.insert(append.writer, place.number);
        if next.is_some_and(|next| next < place.number) {
            let evidence = format!(
                "writer {}: {} stands in {segment:?} before {}",
                append.writer,
                place.number,
                next.unwrap_or_default()
            );
            add(violations, Anomaly::Order, evidence);
        }
    }
}
