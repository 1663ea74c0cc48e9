//! How commands find the server, and how long they try.

use std::time::Duration;

use client::{Client, ClientConfig};

use crate::failure::Result;

/// Where `braid dev` listens unless told otherwise.
pub(crate) const DEV_ENDPOINT: &str = "127.0.0.1:7070";

/// The server to talk to.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ConnectArgs {
    /// Where the server is
    #[arg(long, value_name = "HOST:PORT", env = "BRAID_ENDPOINT", default_value = DEV_ENDPOINT)]
    #[arg(global = true)]
    pub(crate) endpoint: String,
}

impl ConnectArgs {
    pub(crate) async fn open(&self) -> Result<Client> {
        Ok(Client::connect(ClientConfig::new(&*self.endpoint)).await?)
    }

    /// A client whose writers and readers ride out `patience` without a server.
    pub(crate) async fn open_patient(&self, patience: Duration) -> Result<Client> {
        let config = ClientConfig::new(&*self.endpoint);
        Ok(Client::connect(ClientConfig { retry_deadline: Some(patience), ..config }).await?)
    }
}
