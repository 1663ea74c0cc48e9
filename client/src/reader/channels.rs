//! The connections of one reader: nobody else's flow control is held up by it, and what waits in
//! them keeps to the reader's memory.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use common::limits::{KIB, MIB};
use tonic::transport::Channel;

use crate::client::Inner;
use crate::connection::CONNECTION_WINDOW_BYTES;
use crate::error::Result;
use crate::streams::SegmentPlace;

/// Segments on one connection as long as there is memory for more connections: servers limit the
/// streams of a connection.
const SEGMENTS_PER_CONNECTION: usize = 100;

/// The smallest window of a connection that is worth having.
const WINDOW_BYTES_MIN: u64 = 256 * KIB as u64;

/// Memory for what waits in the connections, unless told.
const BYTES_DEFAULT: u64 = 32 * MIB as u64;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Channels {
    /// What all windows together may come to.
    bytes_max: u64,
    open: Mutex<Vec<(String, Weak<Shared>)>>,
}

#[derive(Debug)]
struct Shared {
    channel: Channel,
    window: u32,
}

/// A segment's part of a connection, which ends with the last of them.
#[derive(Debug)]
pub(crate) struct Lease(Arc<Shared>);

impl Lease {
    pub(super) fn channel(&self) -> Channel {
        self.0.channel.clone()
    }
}

impl Default for Channels {
    fn default() -> Self {
        Self::within(BYTES_DEFAULT)
    }
}

impl Channels {
    pub(super) fn within(bytes_max: u64) -> Self {
        Self { bytes_max, open: Mutex::default() }
    }

    /// A connection to where `place` is: the first ones get a window for full speed, later ones
    /// half of what is left, and when that is little, connections are shared by more segments.
    pub(crate) fn lease(&self, client: &Inner, place: &SegmentPlace) -> Result<Lease> {
        let endpoint = client.endpoint_of(place);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, shared)| shared.strong_count() > 0);
        let live: Vec<_> = open.iter().filter_map(|(e, s)| Some((e, s.upgrade()?))).collect();
        let used: u64 = live.iter().map(|(_, shared)| u64::from(shared.window)).sum();
        let window =
            u64::from(CONNECTION_WINDOW_BYTES).min(self.bytes_max.saturating_sub(used) / 2);
        let here = live.iter().filter(|(at, _)| *at == endpoint).map(|(_, shared)| shared);
        // One of the counts is this function's own.
        if let Some(least) = here.min_by_key(|shared| Arc::strong_count(shared))
            && (Arc::strong_count(least) <= SEGMENTS_PER_CONNECTION || window < WINDOW_BYTES_MIN)
        {
            return Ok(Lease(least.clone()));
        }
        let window = window.max(WINDOW_BYTES_MIN) as u32;
        let channel = client.connections.data_within(endpoint, window)?;
        let shared = Arc::new(Shared { channel, window });
        open.push((endpoint.to_owned(), Arc::downgrade(&shared)));
        Ok(Lease(shared))
    }
}

#[cfg(test)]
mod tests {
    use common::{Rng, SegmentId};

    use super::*;
    use crate::client::Client;
    use crate::config::ClientConfig;

    fn place(endpoint: &str) -> SegmentPlace {
        SegmentPlace {
            segment: SegmentId::default(),
            range: common::KeyRange::ALL,
            container: common::ContainerId(2),
            endpoint: endpoint.to_owned(),
            predecessors: Vec::new(),
        }
    }

    fn windows(channels: &Channels) -> Vec<u64> {
        let open = channels.open.lock().unwrap();
        open.iter().filter_map(|(_, shared)| Some(shared.upgrade()?.window.into())).collect()
    }

    #[tokio::test]
    async fn windows_of_many_segments_and_servers_keep_to_the_readers_memory() {
        let client = Client::unconnected(
            ClientConfig::default(),
            Rng::from_seed(1),
            common::SystemClock::shared(),
        );
        let channels = Channels::default();
        let lease = |endpoint: &str| channels.lease(&client.inner, &place(endpoint)).unwrap();
        let mut leases: Vec<_> = (0..SEGMENTS_PER_CONNECTION).map(|_| lease("a:1")).collect();
        assert_eq!(windows(&channels), [u64::from(CONNECTION_WINDOW_BYTES)], "one is shared");
        leases.extend((0..5_000).map(|i| lease(["a:1", "b:1"][i % 2])));
        let all = windows(&channels);
        assert!(all.len() > 2 && all.iter().sum::<u64>() <= BYTES_DEFAULT, "{all:?}");
        leases.clear();
        let again = lease("a:1");
        assert_eq!(windows(&channels), [u64::from(CONNECTION_WINDOW_BYTES)], "others have ended");
        drop(again);
    }
}
