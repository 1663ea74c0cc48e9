//! Time as an argument: the `Clock` seam.
//!
//! Safety never depends on a clock. Wall time labels things (time index, retention, what people
//! read); monotonic time measures durations inside one process. Timers go through `tokio::time`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Microseconds since the Unix epoch, UTC.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct WallTime(pub u64);

/// Microseconds since some moment before the process began. Never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonotonicTime(pub u64);

impl WallTime {
    pub const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_micros() as u64))
    }

    pub const fn as_micros(self) -> u64 {
        self.0
    }
}

impl MonotonicTime {
    pub const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_micros() as u64))
    }

    /// The time from `earlier` to this, zero when `earlier` is later.
    pub const fn since(self, earlier: MonotonicTime) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Where time comes from. Laws: `monotonic` never decreases within one process; `wall` may jump
/// either way at any time, and nothing that must be correct may rely on it not doing so.
pub trait Clock: Send + Sync + fmt::Debug {
    fn wall(&self) -> WallTime;
    fn monotonic(&self) -> MonotonicTime;

    /// Monotonic time that goes on while the machine sleeps, since some other moment: how long one
    /// was away. A clock that knows nothing of sleep gives [`Clock::monotonic`].
    fn boot(&self) -> MonotonicTime {
        self.monotonic()
    }
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// A shared clock, as components take it.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
    fn wall(&self) -> WallTime {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A clock set before 1970 is as good as no clock: everything is labelled with the epoch.
        WallTime(since_epoch.map_or(0, |d| d.as_micros() as u64))
    }

    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime(self.start.elapsed().as_micros() as u64)
    }

    fn boot(&self) -> MonotonicTime {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        MonotonicTime(time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000)
    }
}

/// A clock that tests and simulations move by hand.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall: std::sync::atomic::AtomicU64,
    monotonic: std::sync::atomic::AtomicU64,
    /// Micros in which the machine slept.
    slept: std::sync::atomic::AtomicU64,
}

impl ManualClock {
    pub fn new(wall: WallTime) -> Self {
        Self { wall: wall.0.into(), ..Self::default() }
    }

    /// Moves both clocks on.
    pub fn advance(&self, duration: Duration) {
        let micros = duration.as_micros() as u64;
        self.wall.fetch_add(micros, std::sync::atomic::Ordering::SeqCst);
        self.monotonic.fetch_add(micros, std::sync::atomic::Ordering::SeqCst);
    }

    /// Lets the machine sleep: no timer notices.
    pub fn sleep(&self, duration: Duration) {
        let micros = duration.as_micros() as u64;
        self.wall.fetch_add(micros, std::sync::atomic::Ordering::SeqCst);
        self.slept.fetch_add(micros, std::sync::atomic::Ordering::SeqCst);
    }

    /// Makes the wall clock jump, which the monotonic one does not notice.
    pub fn set_wall(&self, wall: WallTime) {
        self.wall.store(wall.0, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> WallTime {
        WallTime(self.wall.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime(self.monotonic.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn boot(&self) -> MonotonicTime {
        let slept = self.slept.load(std::sync::atomic::Ordering::SeqCst);
        self.monotonic().plus(Duration::from_micros(slept))
    }
}
