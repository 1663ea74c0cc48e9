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
        Ok(Client::connect(self.config()).await?)
    }

    /// A client whose writers and readers ride out `patience` without a server.
    pub(crate) async fn open_patient(&self, patience: Duration) -> Result<Client> {
        Ok(Client::connect(ClientConfig { retry_deadline: Some(patience), ..self.config() })
            .await?)
    }

    /// Who types a command wants to know at once that there is no server.
    fn config(&self) -> ClientConfig {
        ClientConfig { connect_deadline: Duration::ZERO, ..ClientConfig::new(&*self.endpoint) }
    }
}
