//! Waits until an event is due, to within some tens of microseconds; the runtime's own timers
//! only reach milliseconds.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::thread::clock_nanosleep_relative;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use serde::Serialize;
use tokio::io::unix::AsyncFd;

use super::clock::BenchClock;
use crate::failure::Result;

/// How the sender waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Pacing {
    /// On a kernel timer, in the client's own thread: costs no CPU; its wake-ups count as latency
    Timer,
    /// On a thread of its own that sleeps and spins the last stretch: punctual, but takes a core
    Spin,
}

/// Waits in one of the two ways.
pub(super) enum Pacer {
    Timer(AsyncFd<OwnedFd>),
    Spin,
}

/// The last stretch, which is spun: how late the kernel wakes a sleeper at most, usually.
const SPIN: Duration = Duration::from_micros(100);

impl Pacer {
    /// A timer belongs to the runtime it is made in.
    #[expect(deprecated, reason = "what replaces it is unsafe; an owned descriptor is sound here")]
    pub(super) fn new(pacing: Pacing) -> Result<Self> {
        Ok(match pacing {
            Pacing::Timer => {
                let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
                let timer = timerfd_create(TimerfdClockId::Monotonic, flags);
                Pacer::Timer(AsyncFd::new(timer.map_err(std::io::Error::from)?)?)
            }
            Pacing::Spin => Pacer::Spin,
        })
    }

    /// Returns at `due` or, where that has passed, at once.
    pub(super) async fn wait_until(&self, clock: &BenchClock, due: u64) -> Result<()> {
        let left = due.saturating_sub(clock.nanos());
        if left == 0 {
            return Ok(());
        }
        match self {
            Pacer::Timer(timer) => wait_on(timer, left).await,
            Pacer::Spin => {
                spin_until(clock, due, left);
                Ok(())
            }
        }
    }
}

async fn wait_on(timer: &AsyncFd<OwnedFd>, nanos: u64) -> Result<()> {
    let it_value = timespec(nanos);
    let once = Itimerspec { it_interval: timespec(0), it_value };
    timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &once)
        .map_err(std::io::Error::from)?;
    loop {
        let mut ready = timer.readable().await?;
        let mut expirations = [0; 8];
        let read = ready.try_io(|timer| {
            rustix::io::read(timer.get_ref(), &mut expirations).map_err(std::io::Error::from)
        });
        match read {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => return Err(error.into()),
            // Woken too early.
            Err(_) => {}
        }
    }
}

fn spin_until(clock: &BenchClock, due: u64, left: u64) {
    let spin = SPIN.as_nanos() as u64;
    if left > spin {
        // Woken early by a signal: the spinning below makes up for it.
        let _ = clock_nanosleep_relative(ClockId::Monotonic, &timespec(left - spin));
    }
    while clock.nanos() < due {
        std::hint::spin_loop();
    }
}

const fn timespec(nanos: u64) -> Timespec {
    Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn neither_way_of_waiting_comes_back_early() {
        for pacing in [Pacing::Timer, Pacing::Spin] {
            let (pacer, clock) = (Pacer::new(pacing).unwrap(), BenchClock::start());
            for step in 1..=3_u64 {
                let due = step * 400_000;
                pacer.wait_until(&clock, due).await.unwrap();
                assert!(clock.nanos() >= due, "{pacing:?}");
            }
            pacer.wait_until(&clock, 0).await.unwrap();
        }
    }
}
