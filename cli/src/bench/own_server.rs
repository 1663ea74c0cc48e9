//! A server that a measurement starts for itself, in a process of its own, and takes away again.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::failure::{Exit, Failure, Result};

/// How long a server may take to be ready.
const READY: Duration = Duration::from_secs(30);

/// The log of the server: small enough that a warm-up at full speed fills half of it, is truncated,
/// and what is measured goes to recycled files, as in a server that has been running for a while. A
/// file made anew costs the disk each of its bytes twice.
const LOG_BUDGET: &str = "3GiB";

/// Between two looks at a server that starts or stops.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Killed and its data removed when dropped, stopped cleanly by [`OwnServer::stop`].
pub(super) struct OwnServer {
    child: Child,
    data: PathBuf,
    pub(super) endpoint: String,
}

impl OwnServer {
    /// Starts `braid dev` on a free port with its data in a new folder inside `parent`.
    pub(super) async fn start(parent: &Path) -> Result<Self> {
        let data = parent.join(format!("braid-bench-{}", std::process::id()));
        std::fs::create_dir(&data).map_err(|error| {
            Failure::general(format!("create folder `{}`: {error}", data.display()))
        })?;
        let endpoint = free_endpoint()?;
        let child = Command::new(std::env::current_exe()?)
            .args(["dev", "--listen", &endpoint, "--data"])
            .arg(&data)
            .env("BRAID__LOG__BUDGET", LOG_BUDGET)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let mut server = Self { child, data, endpoint };
        server.wait_until_ready().await?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let ready = async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    return Err(Failure::general(format!("the server ended at once ({status})")));
                }
                if http_get(&self.endpoint, "/readyz").await.is_ok() {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(READY, ready).await.unwrap_or_else(|_| {
            Err(Failure::new(Exit::Unavailable, format!("the server is not ready after {READY:?}")))
        })
    }

    /// Ends the server as a person would, and waits until it has ended.
    pub(super) async fn stop(mut self) -> Result<()> {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            kill_process(pid, Signal::TERM).map_err(std::io::Error::from)?;
        }
        let ended = async {
            while self.child.try_wait()?.is_none() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Ok::<_, std::io::Error>(())
        };
        // What does not end by itself is killed when it is dropped.
        tokio::time::timeout(READY, ended).await.unwrap_or(Ok(()))?;
        Ok(())
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // Each of these may have happened already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

fn free_endpoint() -> Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.to_string())
}

/// The body of a plain HTTP answer with status 200.
pub(super) async fn http_get(endpoint: &str, path: &str) -> std::io::Result<String> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let address = endpoint.strip_prefix("http://").unwrap_or(endpoint);
    let exchange = async {
        let mut connection = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await??;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other("not answered with status 200")),
    }
}
