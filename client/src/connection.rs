//! Connections to endpoints: one for management calls, kept; others made for those who move bytes,
//! so that a reader that is not read from never holds up anybody else's flow control window.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::limits::{CONTROL_MESSAGE_BYTES_MAX, DATA_MESSAGE_BYTES_MAX, KIB, MIB};
use proto::v1::controller_client::ControllerClient;
use proto::v1::segment_store_client::SegmentStoreClient;
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};

use crate::error::{ClientError, Result};

/// HTTP/2 flow control windows and frame size of a connection that moves bytes.
const STREAM_WINDOW_BYTES: u32 = 8 * MIB as u32;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 * MIB as u32;
const FRAME_BYTES_MAX: u32 = 256 * KIB as u32;

/// A silent peer is asked for a sign of life this often, and given up when none comes.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The endpoints a client knows, each with its connection for management calls.
#[derive(Debug)]
pub(crate) struct Connections {
    connect_timeout: Duration,
    /// Where connections run.
    runtime: Handle,
    control: Mutex<BTreeMap<String, Channel>>,
}

impl Connections {
    pub(crate) fn new(connect_timeout: Duration, runtime: Handle) -> Self {
        Self { connect_timeout, runtime, control: Mutex::default() }
    }

    /// The shared connection for management calls; made on first use, remade when it breaks.
    pub(crate) fn control(&self, endpoint: &str) -> Result<Channel> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = control.get(endpoint) {
            return Ok(channel.clone());
        }
        let channel = self.data(endpoint)?;
        control.insert(endpoint.to_owned(), channel.clone());
        Ok(channel)
    }

    /// A connection of its own for bytes, with the windows of the data path.
    pub(crate) fn data(&self, endpoint: &str) -> Result<Channel> {
        self.data_within(endpoint, CONNECTION_WINDOW_BYTES)
    }

    /// As [`Connections::data`], with at most so many bytes that wait for who reads from it.
    pub(crate) fn data_within(&self, endpoint: &str, window: u32) -> Result<Channel> {
        let endpoint = self.endpoint(endpoint)?;
        let endpoint = endpoint
            .initial_connection_window_size(window)
            .initial_stream_window_size(STREAM_WINDOW_BYTES.min(window / 2));
        // The task that holds the connection is spawned in here.
        let _runtime = self.runtime.enter();
        Ok(endpoint.connect_lazy())
    }

    pub(crate) fn controller(&self, endpoint: &str) -> Result<ControllerClient<Channel>> {
        Ok(ControllerClient::new(self.control(endpoint)?)
            .max_decoding_message_size(CONTROL_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(CONTROL_MESSAGE_BYTES_MAX))
    }

    /// The store's unary calls, over the shared connection.
    pub(crate) fn store(&self, endpoint: &str) -> Result<SegmentStoreClient<Channel>> {
        Ok(store_client(self.control(endpoint)?))
    }

    fn endpoint(&self, endpoint: &str) -> Result<Endpoint> {
        let bad =
            |problem: String| ClientError::BadEndpoint { endpoint: endpoint.to_owned(), problem };
        let uri = if endpoint.contains("://") {
            endpoint.to_owned()
        } else {
            format!("http://{endpoint}")
        };
        if !uri.starts_with("http://") {
            return Err(bad("only http:// is supported".to_owned()));
        }
        let endpoint = Endpoint::from_shared(uri).map_err(|e| bad(e.to_string()))?;
        if endpoint.uri().port().is_none() {
            return Err(bad("the port is missing".to_owned()));
        }
        Ok(endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT))
    }
}

/// A store client with the message limits of the data path.
pub(crate) fn store_client(channel: Channel) -> SegmentStoreClient<Channel> {
    SegmentStoreClient::new(channel)
        .max_decoding_message_size(DATA_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(DATA_MESSAGE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endpoint_that_cannot_be_used_is_refused_with_the_form_it_should_have() {
        let connections = Connections::new(Duration::from_secs(1), Handle::current());
        for endpoint in ["", "here", "https://here:1", "http://", "a b:1", "http://here"] {
            let message = connections.endpoint(endpoint).unwrap_err().to_string();
            assert!(message.contains("HOST:PORT"), "{endpoint}: {message}");
        }
        for endpoint in ["127.0.0.1:7070", "http://here:1", "[::1]:7070"] {
            assert!(connections.endpoint(endpoint).is_ok(), "{endpoint}");
        }
    }
}
