//! Waiting as an argument, so that a simulation without a runtime can let time pass.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use common::clock::ManualClock;
use futures::future::BoxFuture;

/// Lets time pass by the same clock that the component is given.
pub trait Timer: Send + Sync + fmt::Debug {
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
}

/// The timer of the runtime, which tests can pause.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioTimer;

impl Timer for TokioTimer {
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// Lets time pass at once, by moving a clock: for simulations of one thread. What waits for
/// something to happen meanwhile waits in vain, as for a request that hangs.
#[derive(Debug, Clone)]
pub struct ManualTimer(pub Arc<ManualClock>);

impl Timer for ManualTimer {
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let clock = self.0.clone();
        Box::pin(async move { clock.advance(time) })
    }
}
