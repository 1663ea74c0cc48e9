//! How many requests there may be under way, in all and of each connection.
//!
//! Reads last as long as their clients want, so that they could take every place there is. Neither
//! they nor appends get the last part of the places, which is kept for calls that manage or ask
//! something; and no connection gets more than a quarter of either, whatever it does.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The part of all places that is kept for control calls: one in so many.
const CONTROL_DIVISOR: usize = 8;

/// The part of the places that one connection may have: one in so many.
const CONNECTION_DIVISOR: usize = 4;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reads and appends.
    Events,
    /// All others.
    Control,
}

/// Who has as many requests under way as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Server,
    Connection,
}

/// Counts requests. Cloning shares the counts.
#[derive(Debug, Clone)]
pub(super) struct RequestCaps {
    /// Places for requests of any kind.
    any: Arc<Semaphore>,
    /// Places for control calls that find none of these.
    control: Arc<Semaphore>,
    any_of_connection: usize,
    control_of_connection: usize,
}

/// Counts the requests of one connection. Cloning shares the counts.
#[derive(Debug, Clone)]
pub(super) struct ConnectionCaps {
    all: RequestCaps,
    any: Arc<Semaphore>,
    control: Arc<Semaphore>,
}

/// The right to one request; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct RequestPermit {
    _of_all: OwnedSemaphorePermit,
    _of_connection: OwnedSemaphorePermit,
}

impl RequestCaps {
    /// So many `requests` in all.
    pub(super) fn new(requests: usize) -> Self {
        let control = requests / CONTROL_DIVISOR;
        let of_connection = |places: usize| (places / CONNECTION_DIVISOR).max(1);
        Self {
            any: Arc::new(Semaphore::new(requests - control)),
            control: Arc::new(Semaphore::new(control)),
            any_of_connection: of_connection(requests),
            control_of_connection: of_connection(control),
        }
    }

    /// The counts of a new connection.
    pub(super) fn of_connection(&self) -> ConnectionCaps {
        ConnectionCaps {
            all: self.clone(),
            any: Arc::new(Semaphore::new(self.any_of_connection)),
            control: Arc::new(Semaphore::new(self.control_of_connection)),
        }
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.any.available_permits() + self.control.available_permits()
    }
}

impl ConnectionCaps {
    pub(super) fn take(&self, kind: Kind) -> Result<RequestPermit, Full> {
        let taken = take(&self.any, &self.all.any);
        match kind {
            Kind::Events => taken,
            Kind::Control => taken.or_else(|_| take(&self.control, &self.all.control)),
        }
    }
}

fn take(of_connection: &Arc<Semaphore>, of_all: &Arc<Semaphore>) -> Result<RequestPermit, Full> {
    let of_connection = of_connection.clone().try_acquire_owned().map_err(|_| Full::Connection)?;
    let of_all = of_all.clone().try_acquire_owned().map_err(|_| Full::Server)?;
    Ok(RequestPermit { _of_all: of_all, _of_connection: of_connection })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(caps: &ConnectionCaps, kind: Kind) -> (Vec<RequestPermit>, Full) {
        let mut taken = Vec::new();
        loop {
            match caps.take(kind) {
                Ok(permit) => taken.push(permit),
                Err(full) => return (taken, full),
            }
        }
    }

    #[test]
    fn one_connection_gets_a_quarter_of_the_places_whatever_it_asks_for() {
        let all = RequestCaps::new(32);
        let greedy = all.of_connection();
        let (reads, full) = take_all(&greedy, Kind::Events);
        assert_eq!((reads.len(), full), (8, Full::Connection));
        let (calls, full) = take_all(&greedy, Kind::Control);
        assert_eq!((calls.len(), full), (1, Full::Connection));
        let (others, _) = take_all(&all.of_connection(), Kind::Events);
        assert_eq!(others.len(), 8);
        drop(reads);
        assert_eq!(take_all(&greedy, Kind::Events).0.len(), 8, "places are given back");
    }

    #[test]
    fn control_calls_find_places_when_reads_and_appends_have_all_that_they_get() {
        let all = RequestCaps::new(32);
        let greedy: Vec<_> = (0..4).map(|_| all.of_connection()).collect();
        let reads: Vec<_> = greedy.iter().flat_map(|caps| take_all(caps, Kind::Events).0).collect();
        assert_eq!(reads.len(), 28);
        let other = all.of_connection();
        assert_eq!(other.take(Kind::Events).unwrap_err(), Full::Server);
        let call = other.take(Kind::Control).expect("a place is kept for it");
        greedy[0].take(Kind::Control).expect("also over a connection that is full");
        drop(call);
        assert_eq!(all.free(), 4);
    }
}
