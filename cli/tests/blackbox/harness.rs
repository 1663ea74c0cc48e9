//! Processes under test. Nothing here waits without a limit, nothing is left behind: every process
//! is killed by its id when its handle is dropped, every folder is removed.

mod server;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::tasks::spawn_thread;
use common::{Clock, SystemClock};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub use self::server::{Server, metric_at};

/// Nothing that is waited for takes longer than this, or the test fails.
pub const LIMIT: Duration = Duration::from_secs(90);

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_braid")
}

/// A folder on the disk that the build uses, removed when dropped.
pub fn temp_dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A process that runs.
pub struct Running {
    pid: Pid,
    exit: Receiver<ExitStatus>,
    ended: Option<ExitStatus>,
    stdin: Option<std::process::ChildStdin>,
    lines: Receiver<String>,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers_done: Receiver<()>,
    what: String,
}

/// What a process that has ended said.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stdout_bytes: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    /// The process succeeded; gives what it printed.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// The process failed with `code` and said each of `words`.
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not said: {self:?}");
        }
        self
    }

    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }
}

impl Running {
    pub fn spawn(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let (line, lines) = channel();
        let (done, readers_done) = channel();
        let (stdout, stderr) = (Arc::default(), Arc::default());
        gather(child.stdout.take().unwrap(), &stdout, Some(line), done.clone());
        gather(child.stderr.take().unwrap(), &stderr, None, done);
        let stdin = child.stdin.take();
        let (exited, exit) = channel();
        spawn_thread("exit", move || {
            let status = child.wait().unwrap();
            // The handle may be gone already.
            let _ = exited.send(status);
        })
        .unwrap();
        Self { pid, exit, ended: None, stdin, lines, stdout, stderr, readers_done, what }
    }

    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Gives the process input; `false` where it does not read any more.
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).and_then(|()| stdin.flush()).is_ok()
    }

    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// The next line that it prints.
    pub fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(LIMIT) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing printed: {}", self.what),
        }
    }

    pub fn signal(&self, signal: Signal) {
        // It may have ended already.
        let _ = kill_process(self.pid, signal);
    }

    pub fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.exit.try_recv().ok();
        }
        self.ended.is_some()
    }

    /// Waits for its end, but no longer than this; whether it came.
    pub fn ends_within(&mut self, time: Duration) -> bool {
        if self.ended.is_none() {
            self.ended = self.exit.recv_timeout(time).ok();
        }
        self.ended.is_some()
    }

    /// Ends the input and waits for the end, which must come within the limit.
    pub fn finish(mut self) -> Finished {
        self.end_input();
        self.finish_with_open_input()
    }

    /// Waits for the end of a process that has not come to the end of its input.
    pub fn finish_with_open_input(mut self) -> Finished {
        let status = match self.ended.take() {
            Some(status) => status,
            None => self.exit.recv_timeout(LIMIT).unwrap_or_else(|_| {
                let stderr = String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned();
                panic!("does not end: {} {stderr}", self.what)
            }),
        };
        self.ended = Some(status);
        for _ in 0..2 {
            self.readers_done.recv_timeout(LIMIT).unwrap();
        }
        let stdout_bytes = std::mem::take(&mut *self.stdout.lock().unwrap());
        Finished {
            code: status.code(),
            stdout: String::from_utf8_lossy(&stdout_bytes).into_owned(),
            stdout_bytes,
            stderr: String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned(),
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(self) -> Finished {
        self.signal(Signal::KILL);
        self.finish()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.signal(Signal::KILL);
            // Gone before its folder is removed.
            let _ = self.exit.recv_timeout(LIMIT);
        }
    }
}

fn gather(
    source: impl Read + Send + 'static,
    into: &Arc<Mutex<Vec<u8>>>,
    lines: Option<Sender<String>>,
    done: Sender<()>,
) {
    let into = into.clone();
    spawn_thread("output", move || {
        let mut source = BufReader::new(source);
        loop {
            let mut line = Vec::new();
            if source.read_until(b'\n', &mut line).unwrap() == 0 {
                // Nobody may wait for it.
                let _ = done.send(());
                return;
            }
            into.lock().unwrap().extend_from_slice(&line);
            if let Some(lines) = &lines {
                let _ = lines.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
    })
    .unwrap();
}

/// A command line of `braid`.
pub struct Braid {
    command: Command,
    input: Vec<u8>,
}

impl Braid {
    /// Without a server: nothing listens where it looks.
    pub fn new<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        Self::of(Command::new(binary()), args)
    }

    fn of<S: AsRef<OsStr>>(mut command: Command, args: impl IntoIterator<Item = S>) -> Self {
        command.args(args).env_remove("BRAID_LOG").env("BRAID_ENDPOINT", "127.0.0.1:1");
        Self { command, input: Vec::new() }
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn input(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.input = bytes.as_ref().to_vec();
        self
    }

    pub fn start(mut self) -> Running {
        Running::spawn(&mut self.command)
    }

    /// On a terminal of its own, where it tells how it gets on. The first line is the id of its
    /// process; what it says on standard error comes as if it were printed.
    pub fn start_on_terminal(self) -> Running {
        let quoted = |word: &OsStr| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''"));
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let line = words.map(quoted).collect::<Vec<_>>().join(" ");
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command"]);
        script.arg(format!("echo $$; exec {line}")).arg("/dev/null");
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        Running::spawn(script.env("SHELL", "/bin/sh"))
    }

    pub fn run(mut self) -> Finished {
        let mut running = Running::spawn(&mut self.command);
        let mut stdin = running.stdin.take().unwrap();
        let input = self.input;
        // Large input must not block before output is read.
        spawn_thread("input", move || {
            // A command that refuses its input early is what some tests are about.
            let _ = stdin.write_all(&input);
        })
        .unwrap();
        running.finish()
    }
}

/// Looks again until `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    let start = clock.monotonic();
    while !condition() {
        assert!(clock.monotonic().since(start) < LIMIT, "{what} does not come to pass");
        // Each look starts a process or asks the kernel, so that this does not spin.
        std::thread::yield_now();
    }
}

/// An address that nothing listened on a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}
