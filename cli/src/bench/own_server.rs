//! A server that a measurement starts for itself, in a process of its own, and takes away again.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
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

/// Where the server of a measurement tiers what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TiersTo {
    /// Nowhere; its log is kept short by truncating the stream.
    Nowhere,
    /// A folder in its data, as `braid dev` does.
    Data,
    Url(String),
}

impl FromStr for TiersTo {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "none" => TiersTo::Nowhere,
            "data" => TiersTo::Data,
            url => TiersTo::Url(url.to_owned()),
        })
    }
}

/// Its data is removed when dropped.
struct DataFolder(PathBuf);

impl Drop for DataFolder {
    fn drop(&mut self) {
        // It may never have been filled.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Killed when dropped, stopped cleanly by [`OwnServer::stop`].
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The server and its data, which goes when this is dropped. `braid dev` with the settings that the
/// environment names, but for those that a measurement is about.
pub(super) struct OwnServer {
    // Dropped in this order.
    process: Process,
    data: DataFolder,
    tiers_to: TiersTo,
    pub(super) endpoint: String,
}

impl OwnServer {
    /// Starts `braid dev` on a free port with its data in a new folder inside `parent`.
    pub(super) async fn start(parent: &Path, tiers_to: &TiersTo) -> Result<Self> {
        let data = parent.join(format!("braid-bench-{}", std::process::id()));
        std::fs::create_dir(&data).map_err(|error| {
            Failure::general(format!("create folder `{}`: {error}", data.display()))
        })?;
        let data = DataFolder(data);
        let endpoint = free_endpoint()?;
        let process = launch(&data.0, tiers_to, &endpoint)?;
        let mut server = Self { process, data, tiers_to: tiers_to.clone(), endpoint };
        server.wait_until_ready().await?;
        Ok(server)
    }

    /// Stops the server, lets `meanwhile` look at its data, and starts it again: nothing that was
    /// in its memory is left.
    pub(super) async fn restart<T>(
        &mut self,
        meanwhile: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        self.end().await?;
        let seen = meanwhile(&self.data.0)?;
        self.process = launch(&self.data.0, &self.tiers_to, &self.endpoint)?;
        self.wait_until_ready().await?;
        Ok(seen)
    }

    /// The most memory that the process has had at once; `None` where the kernel does not tell.
    pub(super) fn peak_resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id()));
        let status = status.ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let ready = async {
            loop {
                if let Some(status) = self.process.0.try_wait()? {
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
        self.end().await
    }

    async fn end(&mut self) -> Result<()> {
        if let Some(pid) = Pid::from_raw(self.process.0.id() as i32) {
            kill_process(pid, Signal::TERM).map_err(std::io::Error::from)?;
        }
        let ended = async {
            while self.process.0.try_wait()?.is_none() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Ok::<_, std::io::Error>(())
        };
        // What does not end by itself is killed when it is dropped.
        tokio::time::timeout(READY, ended).await.unwrap_or(Ok(()))?;
        Ok(())
    }
}

fn launch(data: &Path, tiers_to: &TiersTo, endpoint: &str) -> Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["dev", "--listen", endpoint, "--data"]).arg(data);
    if std::env::var_os("BRAID__LOG__BUDGET").is_none() {
        command.env("BRAID__LOG__BUDGET", LOG_BUDGET);
    }
    match tiers_to {
        TiersTo::Nowhere => command.args(["--lts", "none"]),
        TiersTo::Data => &mut command,
        TiersTo::Url(url) => command.args(["--lts", url]),
    };
    Ok(Process(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?))
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
