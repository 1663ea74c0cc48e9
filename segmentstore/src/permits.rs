//! Byte permits: how much of the clients' appends may be in memory at once.
//!
//! A permit is taken for a whole message before it is looked at, split among its blocks, and given
//! back block by block as they are answered. Waiting for one is what stops reading from a client.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// The process-wide pool.
#[derive(Debug, Clone)]
pub struct BytePermits {
    free: Arc<Semaphore>,
    total: usize,
}

/// Bytes taken from the pool; given back when dropped.
#[derive(Debug)]
pub struct BytePermit {
    free: Arc<Semaphore>,
    bytes: usize,
}

impl BytePermits {
    pub fn new(bytes: usize) -> Self {
        let total = bytes.min(u32::MAX as usize);
        Self { free: Arc::new(Semaphore::new(total)), total }
    }

    /// Waits until `bytes` are free; first come, first served. More than all is all.
    pub async fn acquire(&self, bytes: usize) -> BytePermit {
        let bytes = bytes.min(self.total);
        let taken = self.free.acquire_many(bytes as u32).await;
        taken.expect("the pool is never closed").forget();
        BytePermit { free: self.free.clone(), bytes }
    }

    /// Takes `bytes` if they are free.
    pub fn try_acquire(&self, bytes: usize) -> Option<BytePermit> {
        let bytes = bytes.min(self.total);
        self.free.try_acquire_many(bytes as u32).ok()?.forget();
        Some(BytePermit { free: self.free.clone(), bytes })
    }

    pub fn free_bytes(&self) -> usize {
        self.free.available_permits()
    }
}

impl BytePermit {
    /// Takes up to `bytes` out of this permit.
    pub fn split(&mut self, bytes: usize) -> BytePermit {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        BytePermit { free: self.free.clone(), bytes }
    }
}

impl Drop for BytePermit {
    fn drop(&mut self) {
        self.free.add_permits(self.bytes);
    }
}

#[cfg(test)]
mod tests {
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
}
