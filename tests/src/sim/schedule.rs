//! The one event queue: virtual time moves from event to event, ties go first come first served.

use std::collections::BTreeMap;

/// Events in the order in which they happen.
#[derive(Debug)]
pub(super) struct Schedule<E> {
    events: BTreeMap<(u64, u64), E>,
    now: u64,
    scheduled: u64,
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self { events: BTreeMap::new(), now: 0, scheduled: 0 }
    }
}

impl<E> Schedule<E> {
    /// Microseconds since the simulation began.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Puts `event` `delay` microseconds from now.
    pub(super) fn after(&mut self, delay: u64, event: E) {
        self.at(self.now + delay, event);
    }

    /// Puts `event` at `time`, or now where that has passed.
    pub(super) fn at(&mut self, time: u64, event: E) {
        self.scheduled += 1;
        self.events.insert((time.max(self.now), self.scheduled), event);
    }

    /// Takes the next event and moves time on to it.
    pub(super) fn next(&mut self) -> Option<E> {
        let ((time, _), event) = self.events.pop_first()?;
        self.now = time;
        Some(event)
    }

    /// Drops the events that `keep` refuses.
    pub(super) fn retain(&mut self, keep: impl Fn(&E) -> bool) {
        self.events.retain(|_, event| keep(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_ties_in_the_order_of_scheduling() {
        let mut schedule = Schedule::default();
        schedule.after(5, "c");
        schedule.after(1, "a");
        schedule.after(5, "d");
        schedule.at(2, "b");
        let order: Vec<_> = std::iter::from_fn(|| schedule.next()).collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
        assert_eq!(schedule.now(), 5);
        schedule.at(1, "late");
        schedule.next();
        assert_eq!(schedule.now(), 5);
    }
}
