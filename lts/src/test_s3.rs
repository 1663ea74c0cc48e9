//! A real S3 server in the process of a test.
//!
//! Its check of create-only puts is not atomic: puts that race do not belong on it.

use std::net::SocketAddr;
use std::path::PathBuf;

use common::Tasks;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

use crate::cloud::Environment;
use crate::settings::Settings;
use crate::test_support::test_directory;

pub(crate) const KEY_ID: &str = "braid";
pub(crate) const SECRET: &str = "under water";

/// Serves the buckets of a directory until it is dropped.
pub(crate) struct S3Server {
    directory: tempfile::TempDir,
    address: SocketAddr,
    tasks: Tasks,
}

impl S3Server {
    /// With an empty bucket called `bucket`.
    pub(crate) async fn start() -> Self {
        let directory = test_directory();
        std::fs::create_dir(directory.path().join("bucket")).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(directory.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let connections = tasks.clone();
        tasks.spawn("s3", async move {
            while let Some(Ok((socket, _))) =
                connections.token().run_until_cancelled(listener.accept()).await
            {
                let service = service.clone();
                let token = connections.token();
                connections.spawn("s3 connection", async move {
                    let server = Builder::new(TokioExecutor::new());
                    let served = server.serve_connection(TokioIo::new(socket), service);
                    // A connection that breaks is the client's to notice.
                    let _ = token.run_until_cancelled(served).await;
                });
            }
        });
        Self { directory, address, tasks }
    }

    /// Stops answering; what is stored stays.
    pub(crate) async fn stop(&self) {
        self.tasks.stop().await;
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings { endpoint: format!("http://{}", self.address), ..Settings::default() }
    }

    pub(crate) fn environment(&self) -> Environment {
        credentials(SECRET)
    }

    /// Where the bucket's objects are files.
    pub(crate) fn files(&self) -> PathBuf {
        self.directory.path().join("bucket")
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

pub(crate) fn credentials(secret: &str) -> Environment {
    let variables = [("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", secret)];
    Environment::new(variables.map(|(name, value)| (name.to_owned(), value.to_owned())))
}
