//! Byte permits: how much of the clients' appends may be in memory at once.
//!
//! A message takes its permit piece by piece, each before it is kept; the permit is split among the
//! message's blocks and given back block by block as they are answered. Waiting for one is what
//! stops reading from a client.
//!
//! What was promised and does not come takes nothing, so that it holds up nobody. And messages that
//! are half there never wait for one another: a part of the pool is for the one of them that was
//! found waiting first, which is thereby completed, then for the next.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The process-wide pool. Clones share it.
#[derive(Debug, Clone)]
pub struct BytePermits(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    free: Semaphore,
    free_total: usize,
    /// For the message that is completed next.
    reserve: Semaphore,
    reserve_total: usize,
    /// The right to the reserve.
    turn: Arc<Semaphore>,
}

/// Bytes taken from the pool; given back when dropped.
#[derive(Debug)]
pub struct BytePermit {
    pool: Arc<Pool>,
    bytes: usize,
    reserved: usize,
}

/// What a message that is still coming has taken.
#[derive(Debug)]
pub(crate) struct Growing {
    taken: BytePermit,
    turn: Option<OwnedSemaphorePermit>,
}

impl BytePermits {
    pub fn new(bytes: usize) -> Self {
        Self::with_reserve(bytes, 0)
    }

    /// A pool of which `reserve` bytes, not less than a largest message, complete what waits half
    /// done.
    pub fn with_reserve(bytes: usize, reserve: usize) -> Self {
        let free_total = bytes.saturating_sub(reserve).min(u32::MAX as usize);
        Self(Arc::new(Pool {
            free: Semaphore::new(free_total),
            free_total,
            reserve: Semaphore::new(reserve),
            reserve_total: reserve,
            turn: Arc::new(Semaphore::new(1)),
        }))
    }

    /// Waits until `bytes` are free; first come, first served. More than all is all.
    pub async fn acquire(&self, bytes: usize) -> BytePermit {
        let bytes = bytes.min(self.0.free_total);
        take(&self.0.free, bytes).await;
        self.taken(bytes)
    }

    /// Takes `bytes` if they are free.
    pub fn try_acquire(&self, bytes: usize) -> Option<BytePermit> {
        let bytes = bytes.min(self.0.free_total);
        self.0.free.try_acquire_many(bytes as u32).ok()?.forget();
        Some(self.taken(bytes))
    }

    /// The permit of a message that is about to come.
    pub(crate) fn growing(&self) -> Growing {
        Growing { taken: self.taken(0), turn: None }
    }

    pub fn free_bytes(&self) -> usize {
        self.0.free.available_permits() + self.0.reserve.available_permits()
    }

    pub fn used_bytes(&self) -> usize {
        self.0.free_total + self.0.reserve_total - self.free_bytes()
    }

    fn taken(&self, bytes: usize) -> BytePermit {
        BytePermit { pool: self.0.clone(), bytes, reserved: 0 }
    }
}

async fn take(semaphore: &Semaphore, bytes: usize) {
    semaphore.acquire_many(bytes as u32).await.expect("the pool is never closed").forget();
}

impl Growing {
    /// Waits for `bytes` more. What one message takes beyond the size of the reserve is not
    /// counted: it is the last that is let in. Dropping the future loses nothing.
    pub(crate) async fn grow(&mut self, bytes: usize) {
        let pool = self.taken.pool.clone();
        let from_pool = bytes.min(pool.free_total);
        if let Ok(taken) = pool.free.try_acquire_many(from_pool as u32) {
            taken.forget();
            self.taken.bytes += from_pool;
            return;
        }
        if self.turn.is_none() && pool.reserve_total > 0 {
            tokio::select! {
                biased;
                () = take(&pool.free, from_pool) => {
                    self.taken.bytes += from_pool;
                    return;
                }
                turn = pool.turn.clone().acquire_owned() => self.turn = turn.ok(),
            }
        }
        let room = pool.reserve_total - self.taken.reserved;
        let (has_turn, reserved) = (self.turn.is_some(), bytes.min(room));
        tokio::select! {
            biased;
            () = take(&pool.free, from_pool) => self.taken.bytes += from_pool,
            () = take(&pool.reserve, reserved), if has_turn => self.taken.reserved += reserved,
        }
    }

    /// The permit of the message, which is there now: the next one may be completed.
    pub(crate) fn finish(self) -> BytePermit {
        self.taken
    }
}

impl BytePermit {
    /// Takes up to `bytes` out of this permit.
    pub fn split(&mut self, bytes: usize) -> BytePermit {
        let from_pool = bytes.min(self.bytes);
        let reserved = (bytes - from_pool).min(self.reserved);
        self.bytes -= from_pool;
        self.reserved -= reserved;
        BytePermit { pool: self.pool.clone(), bytes: from_pool, reserved }
    }
}

impl Drop for BytePermit {
    fn drop(&mut self) {
        self.pool.free.add_permits(self.bytes);
        if self.reserved > 0 {
            self.pool.reserve.add_permits(self.reserved);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn parts_of_a_permit_are_given_back_one_by_one_and_wake_who_waits() {
        let permits = BytePermits::new(100);
        let mut whole = permits.acquire(90).await;
        let part = whole.split(60);
        assert!(permits.try_acquire(20).is_none());
        let waiting = permits.acquire(70);
        drop(part);
        let taken = waiting.await;
        assert_eq!(permits.free_bytes(), 0);
        drop((whole, taken));
        assert_eq!(permits.free_bytes(), 100);
    }

    #[tokio::test]
    async fn a_message_larger_than_the_pool_takes_all_of_it() {
        let permits = BytePermits::new(100);
        let all = permits.acquire(1_000).await;
        assert_eq!(permits.free_bytes(), 0);
        drop(all);
        assert_eq!(permits.free_bytes(), 100);
    }

    #[tokio::test]
    async fn of_messages_that_are_half_there_one_after_the_other_is_completed() {
        let permits = BytePermits::with_reserve(110, 100);
        let (mut first, mut second) = (permits.growing(), permits.growing());
        first.grow(5).await;
        second.grow(5).await;
        assert_eq!(permits.free_bytes(), 100);
        first.grow(60).now_or_never().expect("it takes of the reserve");
        first.grow(35).now_or_never().expect("it takes the rest of it");
        {
            let waiting = second.grow(60);
            tokio::pin!(waiting);
            assert!(futures::poll!(&mut waiting).is_pending(), "it is the turn of the first");
            let first = first.finish();
            assert!(futures::poll!(&mut waiting).is_pending(), "the first is not answered");
            drop(first);
            waiting.now_or_never().expect("it is its turn");
        }
        drop(second.finish());
        assert_eq!(permits.free_bytes(), 110);
    }

    #[tokio::test]
    async fn a_message_that_stops_coming_keeps_what_came_and_no_more() {
        let permits = BytePermits::with_reserve(110, 100);
        let mut promised: Vec<_> = (0..4).map(|_| permits.growing()).collect();
        promised[0].grow(4).await;
        assert_eq!(permits.free_bytes(), 106);
        let mut other = permits.growing();
        other.grow(90).await;
        drop(promised);
        drop(other.finish());
        assert_eq!(permits.free_bytes(), 110);
    }

    #[tokio::test]
    async fn a_split_permit_gives_back_what_it_took_from_pool_and_reserve() {
        let permits = BytePermits::with_reserve(110, 100);
        let mut growing = permits.growing();
        growing.grow(10).await;
        growing.grow(20).await;
        let mut whole = growing.finish();
        let part = whole.split(15);
        drop(whole);
        assert_eq!(permits.free_bytes(), 95);
        drop(part);
        assert_eq!(permits.free_bytes(), 110);
    }
}
