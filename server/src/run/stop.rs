//! What tells a server to stop, and to hurry.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What ends a server other than an error.
#[derive(Debug, Clone)]
pub enum Stop {
    /// SIGINT or SIGTERM. A further one cuts what clients have under way, and one more what the
    /// server itself has.
    OnSignal,
    /// The token, for servers inside another process.
    When(CancellationToken),
}

/// Who is listened to. Signals are from [`Stopping::new`] on: one that comes right behind the
/// announcement of readiness must not end the process as it stands.
#[derive(Debug)]
pub(super) enum Stopping {
    Signals { interrupt: Signal, terminate: Signal },
    Token(CancellationToken),
    Never,
}

impl Stopping {
    pub(super) fn new(stop: Stop) -> Self {
        let signals = match stop {
            Stop::When(token) => return Self::Token(token),
            Stop::OnSignal => (signal(SignalKind::interrupt()), signal(SignalKind::terminate())),
        };
        let (Ok(interrupt), Ok(terminate)) = signals else {
            tracing::warn!("signals cannot be listened to; stop the process with SIGKILL");
            return Self::Never;
        };
        Self::Signals { interrupt, terminate }
    }

    /// Returns the next time that the server is told to stop.
    pub(super) async fn asked(&mut self) {
        match self {
            Self::Signals { interrupt, terminate } => {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            }
            Self::Token(token) => {
                token.cancelled().await;
                // It says so once.
                *self = Self::Never;
            }
            Self::Never => std::future::pending().await,
        }
    }
}
