//! A real S3 server in the process of a test, and the flights through it.
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
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::harness::temp_dir;
use crate::long_term::{QUICK, tiers_and_reads_back};
use crate::lost_machine::comes_back_from_its_bucket;

pub const KEY_ID: &str = "braid";
pub const SECRET: &str = "under water";

/// The bucket of a braid server, in any of these.
pub const URL: &str = "s3://bucket/prefix";

/// Serves the buckets of a folder until it is dropped.
pub struct S3Server {
    pub address: SocketAddr,
    folder: TempDir,
    runtime: Runtime,
    tasks: Tasks,
}

impl S3Server {
    /// With an empty bucket called `bucket`.
    pub fn start() -> Self {
        let folder = temp_dir();
        std::fs::create_dir(folder.path().join("bucket")).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { address, folder, runtime, tasks: Tasks::new() };
        server.serve();
        server
    }

    /// Answers again, where it was and with what it had.
    pub fn serve(&mut self) {
        self.serve_whoever_knows(SECRET);
    }

    /// Answers again, to those who know this secret; others are denied everything.
    pub fn serve_whoever_knows(&mut self, secret: &str) {
        let mut service = S3ServiceBuilder::new(FileSystem::new(self.folder.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY_ID, secret));
        let service = service.build();
        let tasks = Tasks::new();
        let (connections, address) = (tasks.clone(), self.address);
        self.address = self.runtime.block_on(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            let address = listener.local_addr().unwrap();
            connections.clone().spawn("s3", async move {
                while let Some(Ok((socket, _))) =
                    connections.token().run_until_cancelled(listener.accept()).await
                {
                    let (service, token) = (service.clone(), connections.token());
                    connections.spawn("s3 connection", async move {
                        let server = Builder::new(TokioExecutor::new());
                        let served = server.serve_connection(TokioIo::new(socket), service);
                        // A connection that breaks is the client's to notice.
                        let _ = token.run_until_cancelled(served).await;
                    });
                }
            });
            address
        });
        self.tasks = tasks;
    }

    /// Does not answer any more; what is stored stays.
    pub fn stop(&self) {
        self.runtime.block_on(self.tasks.stop());
    }

    /// Settings of a braid server with its bucket here.
    pub fn settings(&self) -> Vec<(String, String)> {
        settings(self.address, URL, SECRET)
    }

    /// Where an object of that bucket is a file.
    pub fn file(&self, object: &str) -> PathBuf {
        self.folder.path().join("bucket/prefix").join(object)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// Settings of a server with a bucket of an S3 server.
pub fn settings(address: SocketAddr, url: &str, secret: &str) -> Vec<(String, String)> {
    let mut settings: Vec<(String, String)> = vec![
        ("BRAID__LTS__URL".into(), url.into()),
        ("BRAID__LTS__ENDPOINT".into(), format!("http://{address}")),
        ("BRAID__LTS__TIMEOUT".into(), "5s".into()),
        ("AWS_ACCESS_KEY_ID".into(), KEY_ID.into()),
        ("AWS_SECRET_ACCESS_KEY".into(), secret.into()),
    ];
    settings.extend(QUICK.map(|(name, value)| (name.to_owned(), value.to_owned())));
    settings
}

/// As [`Server::with`](crate::harness::Server::with) takes them.
pub fn borrowed(settings: &[(String, String)]) -> Vec<(&str, &str)> {
    settings.iter().map(|(name, value)| (&**name, &**value)).collect()
}

#[test]
fn on_s3_the_flights_are_read_back_from_objects_with_and_without_the_state() {
    let s3 = S3Server::start();
    tiers_and_reads_back(&borrowed(&s3.settings()));
}

#[test]
fn on_s3_a_lost_machine_comes_back_with_what_was_tiered() {
    let s3 = S3Server::start();
    comes_back_from_its_bucket(&borrowed(&s3.settings()), URL);
}
