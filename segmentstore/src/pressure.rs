//! Back-pressure on appends that grows smoothly, long before anything is refused.
//!
//! Whoever runs out of something says how badly, from 0 to 1; the largest counts. Under pressure a
//! message of a client waits before it is let in, for a time that grows with the square of the
//! pressure and with its bytes: meanwhile nothing is read from that client, whose credit goes, and
//! what is let in is what can be carried off. Refusals come behind that, by those who have nothing
//! left. Tiering, truncation and checkpoints do not come this way and are never slowed down.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use common::limits::MIB;
use common::{Clock, MonotonicTime};

/// What all connections together may still append a second under full pressure. They share it in the
/// order in which they come: more of them get no more through.
const BYTES_PER_SECOND_AT_FULL: u64 = MIB as u64;

/// The longest that one message waits, so that nobody is taken for dead.
const WAIT_LONGEST: Duration = Duration::from_secs(4);

/// Waits shorter than this are added up: the runtime's timer knows no less.
const WAIT_SHORTEST: Duration = Duration::from_millis(2);

/// For how long a look at the signals is good.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How scarce something is, from 0 (none of its users needs to care) to 1 (used up). Asked at most
/// a hundred times a second, by whoever appends; it must be quick.
pub type Signal = Box<dyn Fn() -> f64 + Send + Sync>;

/// How long `bytes` keep those behind them waiting under `pressure`.
fn wait_for(pressure: f64, bytes: usize) -> Duration {
    let pressure = pressure.clamp(0.0, 1.0);
    let seconds = pressure * pressure * bytes as f64 / BYTES_PER_SECOND_AT_FULL as f64;
    Duration::from_secs_f64(seconds).min(WAIT_LONGEST)
}

/// The pressure by a level that rises: 0 up to `from`, 1 at `to` and above, straight between them.
pub fn ramp(level: f64, from: f64, to: f64) -> f64 {
    ((level - from) / (to - from)).clamp(0.0, 1.0)
}

/// The pressure of the process. Clones share it.
#[derive(Clone)]
pub struct Pressure(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    signals: RwLock<Vec<(&'static str, Signal)>>,
    /// The level found last, as bits, and until when it is good, in microseconds.
    level: AtomicU32,
    good_until: AtomicU64,
    /// When what was let in so far is carried off, in nanoseconds.
    free_at: AtomicU64,
}

impl fmt::Debug for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pressure").field("signals", &self.signals()).finish_non_exhaustive()
    }
}

impl Pressure {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            clock,
            signals: RwLock::default(),
            level: AtomicU32::new(0),
            good_until: AtomicU64::new(0),
            free_at: AtomicU64::new(0),
        }))
    }

    /// Adds a signal for as long as the process lives.
    pub fn register(&self, name: &'static str, signal: Signal) {
        let mut signals = self.0.signals.write().unwrap_or_else(PoisonError::into_inner);
        signals.push((name, signal));
        // Looked at by the next who asks.
        self.0.good_until.store(0, Ordering::Relaxed);
    }

    /// Every signal as it is now.
    pub fn signals(&self) -> Vec<(&'static str, f64)> {
        let signals = self.0.signals.read().unwrap_or_else(PoisonError::into_inner);
        signals.iter().map(|(name, signal)| (*name, signal().clamp(0.0, 1.0))).collect()
    }

    /// The largest signal, as of the last hundredth of a second.
    pub fn level(&self) -> f64 {
        let now = self.0.clock.monotonic();
        if now.0 >= self.0.good_until.load(Ordering::Relaxed) {
            self.look(now);
        }
        f32::from_bits(self.0.level.load(Ordering::Relaxed)).into()
    }

    /// Queues a message behind all that came before it; says how long it has to wait.
    pub(crate) fn wait(&self, bytes: usize) -> Option<Duration> {
        let level = self.level();
        if level == 0.0 {
            return None;
        }
        let now = self.0.clock.monotonic().0.saturating_mul(1_000);
        let longest = now + WAIT_LONGEST.as_nanos() as u64;
        let cost = wait_for(level, bytes).as_nanos() as u64;
        let behind = |free: u64| (free.max(now) + cost).min(longest);
        let update = |free| Some(behind(free));
        let before = self.0.free_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        let free_at = before.map_or_else(behind, behind);
        let wait = Duration::from_nanos(free_at - now);
        (wait >= WAIT_SHORTEST).then_some(wait)
    }

    /// Several may look at the same time, and find about the same.
    fn look(&self, now: MonotonicTime) {
        let largest = self.signals().into_iter().map(|(_, level)| level).fold(0.0, f64::max);
        self.0.level.store((largest as f32).to_bits(), Ordering::Relaxed);
        self.0.good_until.store(now.plus(LOOK_AGAIN).0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
