//! Look-ups that go on trying: what a reader needs in the middle of its work is not given up
//! sooner than the work itself.

use std::future::Future;
use std::time::Duration;

use crate::client::Inner;
use crate::error::{ClientError, Result};

impl Inner {
    /// Looks up until it succeeds, is refused, or
    /// [`ClientConfig::retry_deadline`](crate::ClientConfig::retry_deadline) has passed without an
    /// answer.
    pub(crate) async fn patiently<T, F>(&self, look_up: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.patiently_for(self.config.retry_deadline, look_up).await
    }

    /// As [`Inner::patiently`], with a deadline of its own; `None`: for ever.
    pub(crate) async fn patiently_for<T, F>(
        &self,
        deadline: Option<Duration>,
        mut look_up: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let started = self.now();
        let mut backoff = self.backoff("look-up");
        loop {
            let error = match look_up().await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            let waited = self.now().since(started);
            let gives_up = deadline.is_some_and(|deadline| waited >= deadline);
            if gives_up || !error.is_transient() {
                return Err(error);
            }
            tracing::debug!(%error, "look up again after a pause");
            let pause = tokio::time::sleep(backoff.pause());
            let token = self.token();
            token.run_until_cancelled(pause).await.ok_or(ClientError::Closed { what: "client" })?;
        }
    }
}
