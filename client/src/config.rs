//! What a client is told about the server and about its own patience.

use std::time::Duration;

/// Where the server is and how long to try. The client reads neither files nor the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// `HOST:PORT` or `http://HOST:PORT`.
    pub endpoint: String,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// How long [`Client::connect`](crate::Client::connect) goes on trying while the server is not
    /// reached or cannot answer yet; zero: one attempt.
    pub connect_deadline: Duration,
    /// How long a call that manages something (streams, scopes, registrations) may take, repeated
    /// attempts included. What the server works on for longer, such as the creation of a wide stream,
    /// is waited for as long as it gets on: this long without a step forward ends it.
    pub request_timeout: Duration,
    /// How long writers and readers go on trying without any progress before they fail; `None`:
    /// for ever.
    pub retry_deadline: Option<Duration>,
    /// The first pause before trying again; pauses double up to `backoff_max` and are jittered.
    pub backoff_min: Duration,
    /// The longest pause before trying again.
    pub backoff_max: Duration,
}

impl ClientConfig {
    /// The defaults for a server at `endpoint`.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into(), ..Self::default() }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            endpoint: "127.0.0.1:7070".to_owned(),
            connect_timeout: Duration::from_secs(5),
            connect_deadline: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            retry_deadline: None,
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_secs(1),
        }
    }
}
