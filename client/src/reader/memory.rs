//! Memory for events that have come in part: a reader of a thousand segments could hold as many
//! large events whose ends are still on their way.
//!
//! Who has the beginning of a large event asks for room for all of it. Where there is none, it
//! gives the beginning back and reads it again when there is. An event finds room whenever no other
//! one has any, so that one that is larger than the memory is read, too. What has room comes to its
//! end, since nothing that waits for room keeps bytes in a connection.

use std::sync::{Arc, Mutex, PoisonError};

use common::limits::KIB;
use tokio::sync::Notify;

/// Smaller events are not counted: there is no more of each than one per segment.
pub(super) const COUNTED_BYTES_MIN: usize = 4 * KIB;

#[derive(Debug)]
pub(super) struct Memory {
    bytes_max: usize,
    used: Mutex<usize>,
    freed: Notify,
}

/// Room for one event; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: Mutex::default(), freed: Notify::new() })
    }

    /// Room for `bytes`, if there is.
    pub(super) fn try_room(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if *used > 0 && *used + bytes > self.bytes_max {
            return None;
        }
        *used += bytes;
        Some(Room { memory: self.clone(), bytes })
    }

    /// As [`Memory::try_room`], waiting for it.
    pub(super) async fn room(self: &Arc<Self>, bytes: usize) -> Room {
        loop {
            let freed = self.freed.notified();
            if let Some(room) = self.try_room(bytes) {
                return room;
            }
            freed.await;
        }
    }
}

impl Room {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *self.memory.used.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.memory.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn an_event_waits_for_room_and_one_that_is_too_large_for_nobody_else() {
        let memory = Memory::new(100);
        let first = memory.try_room(60).unwrap();
        assert!(memory.try_room(41).is_none());
        let second = memory.try_room(40).unwrap();
        let mut large = Box::pin(memory.room(1_000));
        assert!(large.as_mut().now_or_never().is_none());
        drop(first);
        assert!(large.as_mut().now_or_never().is_none());
        drop(second);
        assert_eq!(large.now_or_never().unwrap().bytes(), 1_000);
        assert!(memory.try_room(100).is_some(), "the large one is gone");
    }
}
