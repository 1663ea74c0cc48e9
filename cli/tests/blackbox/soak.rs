//! A soak: one server with little memory and a bucket that fails, under writers, readers,
//! truncations, seals and deletions, while it is killed, stopped and robbed of its state.
//!
//! Whatever happens meanwhile, in the end everything acknowledged is there once and in order, as the
//! history checker of the simulation understands it; nothing needed more memory than it may have;
//! and the bucket holds everything it must and nothing that it should not.
//!
//! Every choice is drawn from one seed, so that a run is like another one, though the machine's
//! timing is not the same. `docs/testing.md` says how to run it longer, and again.

mod bucket;
mod ending;
mod faults;
mod journal;
mod lives;
mod reading;
mod writing;

use std::future::Future;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Client, ClientConfig, ErrorKind, Rng, ScopedStream};
use common::{Clock, SystemClock, Tasks};
use tokio::runtime::Runtime;

use self::bucket::Bucket;
use self::faults::{Counts, Faults};
use self::journal::Journal;
use crate::harness::Server;

const MEMORY_LIMIT: u64 = 256 << 20;
/// Time from dropping an object to its deletion.
const GRACE: &str = "10s";
/// Streams at a time.
const STREAMS: usize = 5;

/// So small that within two minutes there are many rounds, checkpoints, compactions and collections.
const SETTINGS: [(&str, &str); 14] = [
    ("BRAID__MEMORY__LIMIT", "256MiB"),
    ("BRAID__LOG__BUDGET", "128MiB"),
    ("BRAID__LOG__FILE_SIZE", "16MiB"),
    ("BRAID__CONTAINERS__COUNT", "2"),
    ("BRAID__CHECKPOINT__LOG_BYTES", "2MiB"),
    ("BRAID__CHECKPOINT__INTERVAL", "2s"),
    ("BRAID__TIERING__AGE", "200ms"),
    ("BRAID__TIERING__ROUND_BYTES", "1MiB"),
    ("BRAID__TIERING__OBJECT_BYTES", "1MiB"),
    ("BRAID__TIERING__CHECKPOINT_BYTES", "1MiB"),
    ("BRAID__TIERING__CHECKPOINT_KEEP", "5s"),
    ("BRAID__TIERING__GRACE", GRACE),
    ("BRAID__LTS__TIMEOUT", "2s"),
    ("BRAID__LTS__ATTEMPTS", "3"),
];

/// What all tasks of the load share.
#[derive(Debug, Clone)]
pub struct Load {
    journal: Arc<Journal>,
    problems: Arc<Mutex<Vec<String>>>,
}

impl Load {
    fn new() -> Self {
        Self { journal: Arc::new(Journal::new()), problems: Arc::default() }
    }

    /// Notes what must not happen; the run ends early.
    fn problem(&self, problem: String) {
        say(&format!("PROBLEM: {problem}"));
        self.problems.lock().unwrap().push(problem);
    }

    fn has_problems(&self) -> bool {
        !self.problems.lock().unwrap().is_empty()
    }
}

/// Past the capture of test output: a long run says how it goes.
pub fn say(text: &str) {
    std::io::stderr().write_all(format!("soak: {text}\n").as_bytes()).unwrap();
}

/// Calls until there is an answer; `None` where what it is about is gone or sealed.
async fn patiently<T, F>(what: &str, mut call: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = client::Result<T>>,
{
    loop {
        match call().await {
            Ok(answer) => return Some(answer),
            Err(error) if error.is_transient() => {}
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::Conflict => return None,
                _ => panic!("{what}: {error}"),
            },
        }
        pass(ASK_AGAIN).await;
    }
}

/// Between two attempts at what failed for the moment.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Lets time pass in a run of real processes, which has no clock to advance: the pace of load and
/// faults. Nothing waits here for something to have happened.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// The same for a time that chance picks, in milliseconds.
async fn pass_some(rng: &mut Rng, low: u64, high: u64) {
    pass(Duration::from_millis(rng.between(low, high))).await;
}

pub fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("`{name}` is not a number: `{text}`")))
}

fn start_server(bucket: &Bucket) -> Server {
    let environment = bucket.environment();
    let of_bucket = environment.iter().map(|(name, value)| (*name, value.as_str()));
    let settings: Vec<_> = SETTINGS.into_iter().chain(of_bucket).collect();
    Server::with(&settings)
}

fn start_load(load: &Load, client: &Client, rng: &mut Rng, runtime: &Runtime) -> Tasks {
    let tasks = Tasks::new();
    for number in 0..STREAMS {
        let name = ScopedStream::new(&format!("scope{number}"), "events").unwrap();
        let (load, client, rng) = (load.clone(), client.clone(), rng.fork("life"));
        let life = lives::live(load, client, name, rng, tasks.token());
        tasks.spawn_on(runtime.handle(), "life", life);
    }
    tasks
}

#[test]
fn what_was_acknowledged_outlives_kills_outages_and_a_small_memory() {
    let seed = from_environment("BRAID_SOAK_SEED").unwrap_or_else(|| Rng::from_entropy().u64());
    let seconds = from_environment("BRAID_SOAK_SECONDS").unwrap_or(120);
    say(&format!("BRAID_SOAK_SEED={seed} BRAID_SOAK_SECONDS={seconds}"));
    let (mut rng, clock) = (Rng::from_seed(seed), SystemClock::new());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let bucket = runtime.block_on(Bucket::start());
    let server = start_server(&bucket);
    let load = Load::new();
    let config = ClientConfig::new(server.address.to_string());
    let client = runtime.block_on(Client::connect_with(config, rng.fork("client"))).unwrap();
    let tasks = start_load(&load, &client, &mut rng, &runtime);
    let mut faults = Faults {
        server,
        bucket: &bucket,
        runtime: runtime.handle(),
        load: &load,
        rng: rng.fork("faults"),
        counts: Counts::default(),
        memory: String::new(),
        said: String::new(),
    };
    faults.run(&clock, clock.monotonic().plus(Duration::from_secs(seconds)));
    ending::settle(&mut faults, &client, &tasks);
    ending::judge(faults, seed);
}
