//! A server under test, and commands against it and its bucket.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Braid, Finished, Running, binary, temp_dir};
use crate::small_disk::SmallDisk;

/// A server under test, in a folder of its own.
pub struct Server {
    process: Option<Running>,
    settings: Vec<(String, String)>,
    pub address: SocketAddr,
    /// A file system for its data alone, or for its bucket alone.
    pub disk: Option<SmallDisk>,
    of_bucket: bool,
    dir: TempDir,
}

impl Server {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With settings from the environment, such as `("BRAID__LOG__BUDGET", "512MiB")`.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        Self::start_on(None, false, settings)
    }

    /// With its data on a file system that a test can fill.
    pub fn on(disk: SmallDisk, settings: &[(&str, &str)]) -> Self {
        Self::start_on(Some(disk), false, settings)
    }

    /// With its bucket on a file system that a test can fill.
    pub fn with_bucket_on(disk: SmallDisk, settings: &[(&str, &str)]) -> Self {
        let url = format!("file://{}/lts", disk.path().display());
        let settings = [settings, &[("BRAID__LTS__URL", &*url)]].concat();
        Self::start_on(Some(disk), true, &settings)
    }

    fn start_on(disk: Option<SmallDisk>, of_bucket: bool, settings: &[(&str, &str)]) -> Self {
        let settings =
            settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let dir = temp_dir();
        let mut server = Self { process: None, settings, address, disk, of_bucket, dir };
        server.restart();
        server
    }

    pub fn data(&self) -> PathBuf {
        let disk = self.disk.as_ref().filter(|_| !self.of_bucket);
        disk.map_or_else(|| self.dir.path(), SmallDisk::path).join("data")
    }

    /// Another value of a setting, from the next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Where commands may leave files; removed with the server.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How it is started.
    pub fn command(&self) -> Command {
        let mut command = match &self.disk {
            Some(disk) => disk.enter(binary()),
            None => Command::new(binary()),
        };
        if self.disk.as_ref().is_some_and(SmallDisk::is_volatile) {
            let of = if self.of_bucket { "LTS" } else { "DATA" };
            command.env(format!("BRAID__{of}__ALLOW_VOLATILE"), "true");
        }
        command.arg("dev").arg("--data").arg(self.data()).env_remove("BRAID_LOG");
        command.args(["--listen", &self.address.to_string()]);
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it again where it was, once it does not run any more.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "one at a time");
        let process = Running::spawn(&mut self.command());
        let mut said = Vec::new();
        let address = loop {
            let Some(line) = process.line() else {
                panic!("the server does not start: {said:?} {:?}", process.finish());
            };
            if let Some(rest) = line.trim_start().strip_prefix("gRPC and HTTP") {
                break rest.split_whitespace().next().unwrap().parse().unwrap();
            }
            said.push(line);
        };
        self.address = address;
        self.process = Some(process);
    }

    /// The process, while it runs.
    pub fn id(&self) -> i32 {
        self.process.as_ref().unwrap().id()
    }

    /// The most memory that the process had, without what is mapped from files: the text of a
    /// debug build is many times that of the program that people run.
    pub fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
        };
        field("VmHWM:") - field("RssFile:")
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Finished {
        self.process.take().unwrap().kill()
    }

    /// `kill -9`, and everything on its disk is gone.
    pub fn lose_machine(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).unwrap();
    }

    /// Ends it as a person would.
    pub fn stop(&mut self, signal: Signal) -> Finished {
        let process = self.process.take().unwrap();
        process.signal(signal);
        process.finish()
    }

    /// Waits until it ends by itself.
    pub fn end(&mut self) -> Finished {
        self.process.take().unwrap().finish()
    }

    /// A command against this server.
    pub fn braid<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Braid {
        Braid::new(args).env("BRAID_ENDPOINT", self.address.to_string())
    }

    /// A command on its bucket, by the settings that the server has.
    pub fn lts<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Braid {
        let disk = self.disk.as_ref().filter(|_| self.of_bucket);
        let command = disk.map_or_else(|| Command::new(binary()), |disk| disk.enter(binary()));
        let mut braid = Braid::of(command, ["lts"]);
        braid.command.args(args).arg("--data").arg(self.data());
        braid.command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        braid
    }

    /// A recovery of what it had in the bucket at `url`, into its data folder.
    pub fn recover(&self, url: &str) -> Braid {
        let mut braid = Braid::new(["recover", "--from-lts", url, "-o", "json", "--data"]);
        braid.command.arg(self.data());
        braid.command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        braid
    }

    /// A metric that has no labels.
    pub fn metric(&self, name: &str) -> u64 {
        metric_at(self.address, name)
    }

    /// What `braid status` says.
    pub fn status(&self) -> serde_json::Value {
        self.line("status -o json").run().json()
    }

    /// A command line, split at spaces.
    pub fn line(&self, line: &str) -> Braid {
        self.braid(line.split(' '))
    }

    /// Everything that a stream holds, one event a line.
    pub fn read_all(&self, stream: &str) -> Vec<String> {
        let text = self.braid(["read", stream, "--from", "head", "--until", "tail"]).run().ok();
        text.lines().map(str::to_owned).collect()
    }

    /// As [`Server::read_all`], nothing while the stream does not exist.
    pub fn read_all_or_none(&self, stream: &str) -> Vec<String> {
        let read = self.braid(["read", stream, "--from", "head", "--until", "tail"]).run();
        read.stdout.lines().map(str::to_owned).collect()
    }

    /// Bytes that a stream holds; 0 while it does not exist or the server does not answer.
    pub fn stored_bytes(&self, stream: &str) -> u64 {
        let described = self.braid(["stream", "describe", stream, "-o", "json"]).run();
        let described: Option<serde_json::Value> = serde_json::from_str(&described.stdout).ok();
        described.and_then(|found| found["bytes"].as_u64()).unwrap_or(0)
    }
}

/// A metric without labels of the server at `address`, which must answer in time.
pub fn metric_at(address: SocketAddr, name: &str) -> u64 {
    let mut request = TcpStream::connect(address).unwrap();
    request.set_read_timeout(Some(super::LIMIT)).unwrap();
    let head = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    request.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    request.read_to_string(&mut text).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no `{name}` in {text}")).parse::<f64>().unwrap() as u64
}
