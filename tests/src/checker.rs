//! The history checker: whether what was read is what exactly-once, ordered, durable appends allow.
//!
//! It knows nothing of the store, only the history. All checks are linear in its length but for
//! sorting:
//!
//! - **loss**: an acknowledged event is in the last read, unless it can have been truncated;
//! - **double**: no (writer, number) stands twice, in any segment of a stream;
//! - **phantom**: what is read was appended with that key, to that segment, before, and not refused;
//! - **order**: the numbers of one writer rise within a segment, and an append that ended before
//!   another one began stands before it; both along the segments of a key, too, where one went on
//!   in another;
//! - **atomic**: an atomic batch is there as a whole and together;
//! - **conditional**: an event that expected an offset stands there or nowhere;
//! - **stability**: what was read once at an offset is read there for ever, or truncated;
//! - **visibility**: a read to the tail contains everything acknowledged before it began;
//! - **recovered**: where a machine was lost, everything acknowledged before the end of what was
//!   archived is there, and behind it a prefix: nothing that came after what is missing;
//! - **sealed**, **deleted**: nothing that began after a seal or a deletion had ended is stored, in
//!   the segment or in the stream that it was of.

mod index;
mod reads;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Line, SegmentRef};
use index::{Append, Fate, Index};

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
    /// Of these, those that a successor has of the segment that they were given to.
    pub moved: usize,
    pub reads: usize,
}

/// Checks a history; an empty list of violations means that it keeps every promise.
pub fn check(lines: &[Line]) -> (Summary, Vec<Violation>) {
    let mut violations = Vec::new();
    let index = Index::of(lines, &mut violations);
    let placed = reads::check(&index, &mut violations);
    check_appends(&index, &placed, &mut violations);
    for places in placed.values() {
        check_order(&index, places, &mut violations);
    }
    check_lineages(&index, &placed, &mut violations);
    (summary(&index, &placed), violations)
}

/// Where the last read of each segment found which append's event, by offset.
type Placed = BTreeMap<SegmentRef, Vec<Place>>;

#[derive(Debug, Clone, Copy)]
struct Place {
    segment: SegmentRef,
    offset: u64,
    append: usize,
    number: u64,
}

fn summary(index: &Index, placed: &Placed) -> Summary {
    let count = |fate: fn(&Fate) -> bool| index.appends.iter().filter(|a| fate(&a.fate)).count();
    let moved = |place: &&Place| index.appends[place.append].segment != place.segment;
    Summary {
        moved: placed.values().flatten().filter(moved).count(),
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
        if index.homes(append).any(|home| index.last_read(home).is_none()) {
            check_unread(index, append, violations);
            continue;
        }
        let places = found.get(&id).map_or(&[][..], Vec::as_slice);
        if let Some(expected) = append.expected_offset
            && let Some((_, place)) = places.first()
            && place.offset != expected
        {
            let evidence = format!("{append} stands at {}, expected {expected}", place.offset);
            add(violations, Anomaly::WrongOffset, evidence);
        }
        // A batch is in one segment, or was.
        let homes = || index.homes(append).filter(|home| is_home(*home, places));
        if places.len() >= append.events.len() {
            let next = |a: &(usize, Place), b: &(usize, Place)| {
                a.1.segment == b.1.segment && a.0 + 1 == b.0
            };
            let together = places.windows(2).all(|pair| next(&pair[0], &pair[1]));
            if !together {
                add(violations, Anomaly::TornBatch, format!("{append} is not stored together"));
            }
        } else if homes().any(|home| {
            let low = lowest.get(&(home, append.writer)).copied();
            may_be_truncated(index, append, home, places, low)
        }) {
            // Its beginning or all of it went with a truncation.
        } else if !places.is_empty() {
            let evidence = format!("{append}: {} of its events are stored", places.len());
            add(violations, Anomaly::TornBatch, evidence);
        } else if let Fate::Acknowledged(at) = append.fate
            && !homes().any(|home| may_be_lost(index, append, at, home, ends.get(&home)))
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

/// Whether a segment may have the events that are not found, by those that are.
fn is_home(segment: SegmentRef, found: &[(usize, Place)]) -> bool {
    found.first().is_none_or(|(_, place)| place.segment == segment)
}

/// Whether the missing events of `append` can have been truncated: the segment does not start at
/// zero, the append began before the truncation ended, and everything of its writer that is left
/// came later.
fn may_be_truncated(
    index: &Index,
    append: &Append,
    home: SegmentRef,
    places: &[(usize, Place)],
    low: Option<u64>,
) -> bool {
    let missing = append.events.len().saturating_sub(places.len());
    let first_numbers_missing = append.events[..missing]
        .iter()
        .all(|event| !places.iter().any(|(_, place)| place.number == event.number));
    let highest_missing = append.events[..missing].last().map_or(0, |event| event.number);
    index.last_read(home).is_some_and(|last| last.start > 0)
        && first_numbers_missing
        && low.is_none_or(|low| highest_missing < low)
        && index.truncated_until(home).is_some_and(|until| append.invoked < until)
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
fn may_be_lost(
    index: &Index,
    append: &Append,
    at: u64,
    home: SegmentRef,
    end: Option<&End>,
) -> bool {
    let until = index.recovered.get(&home);
    until.is_some_and(|until| at >= *until) && !end.is_some_and(|end| end.reaches(append, at))
}

/// Where a key went on in other segments, its events are in order from the first to the last.
fn check_lineages(index: &Index, placed: &Placed, violations: &mut Vec<Violation>) {
    for ((_, key), lineage) in &index.lineages {
        let places = lineage.iter().filter_map(|segment| placed.get(segment)).flatten();
        let of_key = |place: &&Place| index.appends[place.append].key() == *key;
        let places: Vec<Place> = places.filter(of_key).copied().collect();
        check_order(index, &places, violations);
    }
}

/// Real time and number order, by one sweep from the end.
fn check_order(index: &Index, places: &[Place], violations: &mut Vec<Violation>) {
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
                "{append}, begun at {}, stands in {:?} before {later}, which ended at {end}",
                append.invoked, place.segment
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
                "writer {}: {} stands in {:?} before {}",
                append.writer,
                place.number,
                place.segment,
                next.unwrap_or_default()
            );
            add(violations, Anomaly::Order, evidence);
        }
    }
}
