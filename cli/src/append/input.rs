//! Reads a file or standard input on a thread of its own, so that a signal ends a command that
//! waits for input.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use common::limits::KIB;
use common::tasks::spawn_thread;
use tokio::sync::mpsc;

use crate::failure::{Exit, Failure, Result};

/// Bytes of one read.
const CHUNK_BYTES: usize = 256 * KIB;

/// Chunks read ahead of what is being appended.
const CHUNKS_AHEAD: usize = 4;

/// The input as it comes. The thread ends with the input, or with the process where it waits for
/// a terminal or a pipe.
pub(crate) struct Input {
    chunks: mpsc::Receiver<std::io::Result<Vec<u8>>>,
    name: String,
    /// Of a regular file.
    pub(crate) length_bytes: Option<u64>,
}

impl Input {
    /// Opens `path`, or standard input where there is none or it is `-`.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        match path.filter(|path| *path != Path::new("-")) {
            None => Self::start("standard input".to_owned(), None, std::io::stdin()),
            Some(path) => {
                let name = format!("`{}`", path.display());
                let file = File::open(path).map_err(|error| open_failed(&name, &error))?;
                let metadata = file.metadata().map_err(|error| open_failed(&name, &error))?;
                let length_bytes = metadata.is_file().then_some(metadata.len());
                Self::start(name, length_bytes, file)
            }
        }
    }

    fn start(
        name: String,
        length_bytes: Option<u64>,
        source: impl Read + Send + 'static,
    ) -> Result<Self> {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        spawn_thread("input", move || pass_on(source, &sender))?;
        Ok(Self { chunks, name, length_bytes })
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        match self.chunks.recv().await {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(error)) => Err(Failure::general(format!("read {}: {error}", self.name))),
        }
    }
}

fn open_failed(name: &str, error: &std::io::Error) -> Failure {
    let exit = match error.kind() {
        std::io::ErrorKind::NotFound => Exit::NotFound,
        std::io::ErrorKind::PermissionDenied => Exit::Denied,
        _ => Exit::Failure,
    };
    Failure::new(exit, format!("open {name}: {error}"))
}

fn pass_on(mut source: impl Read, sender: &mpsc::Sender<std::io::Result<Vec<u8>>>) {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = match source.read(&mut chunk) {
            Ok(0) => return,
            Ok(length) => {
                chunk.truncate(length);
                Ok(chunk)
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        // A closed channel: the command has ended.
        if sender.blocking_send(read).is_err() || failed {
            return;
        }
    }
}
