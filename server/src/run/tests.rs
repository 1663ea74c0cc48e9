use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use client::{Client, ClientConfig, Event, ReadFrom, ReadUntil, StreamConfig};
use common::clock::ManualClock;
use common::{ByteSize, ScopedStream};
use wal::{DiskOperation, Fault, FaultyDisk};

use super::*;
use crate::error::ErrorKind;
use crate::settings::Period;

mod clocks;
mod full_connections;
mod quarantine;

/// A server on a thread of its own.
struct Served {
    ready: Ready,
    stop: CancellationToken,
    thread: JoinHandle<Result<(), ServerError>>,
}

fn settings(dir: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    settings.data.dir = dir.to_owned();
    settings.data.allow_volatile = true;
    settings.log.budget = ByteSize::mib(256);
    settings.log.file_size = ByteSize::mib(16);
    settings
}

impl Served {
    fn start(settings: Settings) -> Self {
        Self::start_in(settings, Surroundings::of_machine())
    }

    fn start_in(settings: Settings, surroundings: Surroundings) -> Self {
        let stop = CancellationToken::new();
        let (send, receive) = mpsc::channel();
        let token = stop.clone();
        let thread = spawn_thread("server", move || {
            let ready = |ready: &Ready| send.send(ready.clone()).unwrap();
            serve(&settings, surroundings, Stop::When(token), false, ready)
        })
        .unwrap();
        match receive.recv_timeout(Duration::from_secs(30)) {
            Ok(ready) => Self { ready, stop, thread },
            Err(_) => panic!("the server did not start: {:?}", thread.join().unwrap()),
        }
    }

    fn stop(self) {
        self.stop.cancel();
        self.thread.join().unwrap().unwrap();
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.ready.address).unwrap();
        // An answer that does not come fails the test.
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    async fn client(&self) -> Client {
        Client::connect(ClientConfig::new(self.ready.address.to_string())).await.unwrap()
    }
}

fn with_client<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

async fn append(client: &Client, stream: &ScopedStream, payloads: std::ops::Range<u32>) {
    let writer = client.event_writer(stream).open().await.unwrap();
    for number in payloads {
        let payload = number.to_le_bytes();
        let event = Event::new(&payload).key("k");
        writer.append(event).await.unwrap();
    }
    writer.flush().await.unwrap();
    writer.close().await.unwrap();
}

async fn read_all(client: &Client, stream: &ScopedStream) -> Vec<u32> {
    let reader = client.event_reader(stream).from(ReadFrom::Head).until(ReadUntil::Tail);
    let mut reader = reader.open().await.unwrap();
    let mut numbers = Vec::new();
    while let Some(event) = reader.next().await {
        let payload = event.unwrap().payload;
        numbers.push(u32::from_le_bytes(payload.as_ref().try_into().unwrap()));
    }
    numbers
}

#[test]
fn what_is_acknowledged_is_read_back_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let stream: ScopedStream = "demo/hello".parse().unwrap();
    let served = Served::start(settings(dir.path()));
    assert!(served.ready.created);
    with_client(async {
        let client = served.client().await;
        let config = StreamConfig { segments: 4, create_scope: true };
        client.streams().create_stream(&stream, config).await.unwrap();
        append(&client, &stream, 0..1_000).await;
        assert_eq!(read_all(&client, &stream).await, (0..1_000).collect::<Vec<_>>());
    });
    assert!(served.get("/readyz").ends_with("ready\n"));
    let metrics = served.get("/metrics");
    assert!(metrics.contains("braid_appended_events_total 1000.0"), "{metrics}");
    served.stop();

    let served = Served::start(settings(dir.path()));
    assert!(!served.ready.created);
    with_client(async {
        let client = served.client().await;
        append(&client, &stream, 1_000..1_010).await;
        assert_eq!(read_all(&client, &stream).await, (0..1_010).collect::<Vec<_>>());
    });
    served.stop();
}

#[test]
fn writers_and_readers_go_on_over_new_connections_when_theirs_become_old() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.limits.connection_age = Period(Duration::from_millis(20));
    settings.server.drain = Period(Duration::from_millis(1));
    let stream: ScopedStream = "demo/hello".parse().unwrap();
    let served = Served::start(settings);
    with_client(async {
        let client = served.client().await;
        let config = StreamConfig { segments: 2, create_scope: true };
        client.streams().create_stream(&stream, config).await.unwrap();
        let mut reader = client.event_reader(&stream).from(ReadFrom::Head).open().await.unwrap();
        let writer = client.event_writer(&stream).open().await.unwrap();
        let (mut number, mut aged) = (0_u32, 0);
        // Every append waits for the one before to be read: each connection is in use when it ends.
        while aged < 10 {
            let payload = number.to_le_bytes();
            let event = Event::new(&payload).key("k");
            writer.append(event).await.unwrap();
            let read = reader.next().await.unwrap().unwrap();
            assert_eq!(read.payload.as_ref(), payload);
            number += 1;
            let metrics = served.get("/metrics");
            let line = metrics.lines().find(|line| line.starts_with("braid_connections_aged"));
            aged = line.unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u32;
        }
        writer.flush().await.unwrap();
        writer.close().await.unwrap();
        assert_eq!(read_all(&client, &stream).await, (0..number).collect::<Vec<_>>());
    });
    served.stop();
}

#[test]
fn a_disk_that_does_not_answer_ends_the_server_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.server.drain = Period(Duration::from_millis(1));
    let clock = Arc::new(ManualClock::default());
    let (send, faults) = mpsc::channel();
    let open_disk: OpenDisk = Box::new(move |folder, volatile| {
        let disk = FaultyDisk::new(Arc::new(RealDisk::open(folder, volatile)?), |_| {});
        send.send(disk.faults()).unwrap();
        Ok(Arc::new(disk))
    });
    let surroundings = Surroundings {
        clock: clock.clone(),
        rng: Rng::from_seed(1),
        open_disk,
        ..Surroundings::of_machine()
    };
    let served = Served::start_in(settings, surroundings);
    let faults = faults.recv().unwrap();
    let stream: ScopedStream = "demo/hello".parse().unwrap();
    with_client(async {
        let client = served.client().await;
        let config = StreamConfig { segments: 1, create_scope: true };
        client.streams().create_stream(&stream, config).await.unwrap();
        append(&client, &stream, 0..10).await;
        // From here on no write comes back.
        for _ in 0..100 {
            faults.plan_fault(DiskOperation::Write, "", 0, Fault::Stall);
        }
        let writer = client.event_writer(&stream).open().await.unwrap();
        let event = Event::new("hung").key("k");
        writer.append(event).await.unwrap();
    });
    while !served.thread.is_finished() {
        clock.advance(Duration::from_secs(60));
        std::thread::yield_now();
    }
    let error = served.thread.join().unwrap().unwrap_err();
    assert!(
        matches!(&error, ServerError::Fatal { message } if message.contains("60 s")),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Failure);
    // What hangs goes with the process.
}

#[test]
fn a_folder_and_a_port_in_use_are_conflicts_and_leave_the_first_server_alone() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(settings(dir.path()));
    let second = run(&settings(dir.path()), Stop::When(CancellationToken::new()), |_| ());
    let error = second.unwrap_err();
    assert!(matches!(error, ServerError::DataInUse { .. }), "{error}");
    let elsewhere = tempfile::tempdir().unwrap();
    let mut same_port = settings(elsewhere.path());
    same_port.server.listen = served.ready.address;
    let error = run(&same_port, Stop::When(CancellationToken::new()), |_| ()).unwrap_err();
    assert!(matches!(error, ServerError::PortInUse { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(served.get("/livez").ends_with("alive\n"));
    served.stop();
}

#[test]
fn containers_may_be_added_and_not_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.containers.count = 2;
    Served::start(settings.clone()).stop();
    settings.containers.count = 3;
    Served::start(settings.clone()).stop();
    settings.containers.count = 1;
    let error = run(&settings, Stop::When(CancellationToken::new()), |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("set it to 3"), "{error}");
}

#[test]
fn state_without_its_log_and_log_without_its_state_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let stream: ScopedStream = "demo/hello".parse().unwrap();
    let served = Served::start(settings(dir.path()));
    with_client(async {
        let client = served.client().await;
        let config = StreamConfig { segments: 1, create_scope: true };
        client.streams().create_stream(&stream, config).await.unwrap();
        append(&client, &stream, 0..10).await;
    });
    served.stop();
    std::fs::rename(dir.path().join("wal"), dir.path().join("gone")).unwrap();
    let error = run(&settings(dir.path()), Stop::When(CancellationToken::new()), |_| ());
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
}

#[test]
fn dev_prints_where_it_is_and_what_to_try() {
    let ready = |address: &str| Ready {
        address: address.parse().unwrap(),
        data: "some/dir".into(),
        lts: Some("s3://bucket/p".to_owned()),
        created: true,
    };
    let welcome = |ready| {
        let mut out = Vec::new();
        write_welcome(&ready, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let text = welcome(ready("127.0.0.1:7070"));
    assert!(text.contains("127.0.0.1:7070") && text.contains("some/dir"), "{text}");
    assert!(text.contains("s3://bucket/p"), "{text}");
    assert!(text.contains("braid append demo/hello\n") && !text.contains("--endpoint"), "{text}");
    assert!(welcome(ready("127.0.0.1:9")).contains("--endpoint 127.0.0.1:9"));
}
