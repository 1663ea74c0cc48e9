//! Loads that would take all of a machine's memory, each on a server of its own and then all of them
//! on one: whoever connects, and whatever is sent, resident memory stays within a tenth of
//! `memory.limit`, people and monitoring are answered meanwhile, and everything goes on afterwards.
//!
//! `BRAID_MEMORY_SECONDS` lets the loads that have no end of their own go on for longer.

mod raw;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::{ByteSize, Client, ClientConfig, Event, ScopedStream, SegmentSet, StreamConfig};
use common::tasks::spawn_thread;
use common::{Clock, SystemClock};
use futures::future::join_all;
use futures::{FutureExt as _, StreamExt as _};
use proto::v1::append_request::Message;
use proto::v1::segment_store_client::SegmentStoreClient;
use proto::v1::{AppendRequest, Hello, OpenSegment, OpenSessions, ReadRequest, Reason};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use self::raw::RawCodec;
use crate::harness::{Server, metric_at};

const MEMORY_LIMIT: u64 = 256 << 20;

const SETTINGS: [(&str, &str); 3] = [
    ("BRAID__MEMORY__LIMIT", "256MiB"),
    ("BRAID__LOG__BUDGET", "512MiB"),
    ("BRAID__LOG__FILE_SIZE", "16MiB"),
];

#[derive(Debug, Clone, Copy)]
enum Load {
    /// Writers that append as fast as they can, each over a connection of its own.
    ManyConnections,
    /// Writers with a session on each of a thousand segments.
    ManySegments,
    /// Messages that would decode into a hundred times their size.
    ManyBlocks,
    /// Clients that ask and do not take their answers.
    NothingRead,
}

impl Load {
    async fn run(self, server: &Target) {
        match self {
            Self::ManyConnections => many_connections(server).await,
            Self::ManySegments => many_segments(server).await,
            Self::ManyBlocks => many_blocks(server).await,
            Self::NothingRead => nothing_read(server).await,
        }
    }
}

/// Where a load goes, and until when.
#[derive(Debug)]
struct Target {
    endpoint: String,
    clock: SystemClock,
    until: common::MonotonicTime,
}

impl Target {
    fn is_over(&self) -> bool {
        self.clock.monotonic() >= self.until
    }

    /// Returns when the load has lasted. How long it lasts is what is asked for: there is nothing
    /// else that would tell a client which takes no answers that it is over.
    async fn over(&self) {
        tokio::time::sleep(self.until.since(self.clock.monotonic())).await;
    }

    async fn client(&self) -> Client {
        patiently(|| Client::connect(ClientConfig::new(self.endpoint.clone()))).await
    }

    async fn stream(&self, client: &Client, name: &str, segments: u32) -> ScopedStream {
        let stream = ScopedStream::new("loads", name).unwrap();
        let config = StreamConfig { segments, create_scope: true };
        let streams = client.streams();
        patiently(|| streams.create_stream(&stream, config)).await;
        stream
    }

    async fn store(&self) -> Result<SegmentStoreClient<Channel>, Status> {
        Ok(SegmentStoreClient::new(self.channel().await?))
    }

    async fn channel(&self) -> Result<Channel, Status> {
        let endpoint = format!("http://{}", self.endpoint);
        let endpoint = Endpoint::from_shared(endpoint).unwrap();
        // Room for more than the server could ever have on its way.
        let endpoint = endpoint.initial_stream_window_size(8 << 20);
        let endpoint = endpoint.initial_connection_window_size(64 << 20);
        endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))
    }
}

/// Asks again where the server is too busy to answer in time.
async fn patiently<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = client::Result<T>>,
{
    for _ in 0..20 {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    }
    panic!("no answer after many attempts")
}

async fn many_connections(server: &Target) {
    let client = server.client().await;
    let stream = server.stream(&client, "connections", 16).await;
    let payload = vec![7; 4_096];
    let write = async |number: usize| {
        let client = server.client().await;
        let writer = client.event_writer(&stream).memory_limit(ByteSize::mib(2));
        let writer = writer.open().await.unwrap();
        for event in 0.. {
            let key = format!("{number}-{event}");
            writer.append(Event::new(&payload).key(&key)).await.unwrap();
            if server.is_over() {
                break;
            }
        }
        // What is acknowledged of it does not matter, but that the server goes on does.
        drop(writer);
    };
    join_all((0..256).map(write)).await;
}

fn hello() -> AppendRequest {
    let (library, version) = ("test".to_owned(), "0".to_owned());
    let hello = Hello { library, version, protocol_min: 1, protocol_max: 1, ..Hello::default() };
    AppendRequest { message: Some(Message::Hello(hello)) }
}

async fn many_segments(server: &Target) {
    let client = server.client().await;
    let stream = server.stream(&client, "segments", 1_000).await;
    let places = client.streams().segments(&stream, SegmentSet::Active).await.unwrap().segments;
    assert_eq!(places.len(), 1_000);
    let write = async |number: u128| {
        let open = |(slot, place): (usize, &client::SegmentPlace)| OpenSegment {
            slot: slot as u32,
            segment: Some(place.segment.into()),
            container: place.container.0,
            resuming: false,
        };
        let open = OpenSessions {
            writer: number.to_be_bytes().to_vec().into(),
            session: Some(proto::v1::WriterSession { epoch: 1, attempt: 1 }),
            segments: places.iter().enumerate().map(open).collect(),
            named: true,
        };
        let open = AppendRequest { message: Some(Message::Open(open)) };
        while let Err(refused) = open_all(server, open.clone()).await {
            // Others have what there is, until they are gone: the next answer says whether they are.
            assert!(is_transient(&refused), "{refused}");
        }
    };
    join_all((1..=64).map(write)).await;
}

/// Opens everything, and ends once the load does.
async fn open_all(server: &Target, open: AppendRequest) -> Result<(), Status> {
    let requests = futures::stream::iter([hello(), open]);
    let requests = requests.chain(futures::stream::pending());
    let mut answers = server.store().await?.append(requests).await?.into_inner();
    let mut opened = 0;
    while opened < 1_000 {
        let answer = answers.message().await?.ok_or_else(|| Status::unavailable("ended"))?;
        for failure in &answer.failures {
            // An attempt before this one may have come as far as the segments.
            assert_eq!(failure.reason(), Reason::WriterFenced, "{failure:?}");
        }
        opened += answer.opened.len() + answer.failures.len();
    }
    server.over().await;
    Ok(())
}

fn is_transient(refused: &Status) -> bool {
    // What a connection that was closed looks like is up to the library.
    matches!(
        refused.code(),
        Code::ResourceExhausted | Code::Unavailable | Code::Unknown | Code::Cancelled
    )
}

async fn many_blocks(server: &Target) {
    // Five million empty blocks: two bytes each, below the limit of a message.
    let bomb = [&[0x1a, 0x80, 0xad, 0xe2, 0x04][..], &[0x0a, 0].repeat(5_000_000)].concat();
    let bomb = bytes::Bytes::from(bomb);
    let hello = bytes::Bytes::from(proto::append_stream::encode(&hello()));
    let send = async || {
        let mut grpc = tonic::client::Grpc::new(server.channel().await?);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let messages = futures::stream::iter([hello.clone(), bomb.clone()]);
        let messages = messages.chain(futures::stream::pending());
        let path = "/braid.v1.SegmentStore/Append".parse().unwrap();
        let answers = grpc.streaming(tonic::Request::new(messages), path, RawCodec).await;
        let mut answers = answers?.into_inner();
        while answers.message().await?.is_some() {}
        Err::<(), _>(Status::ok("it is not refused"))
    };
    let refused = async |_| {
        for _ in 0..4 {
            let mut refused = send().await.unwrap_err();
            while is_transient(&refused) {
                refused = send().await.unwrap_err();
            }
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
            assert!(refused.message().contains("5000000 blocks"), "{refused}");
        }
    };
    join_all((0..8).map(refused)).await;
}

async fn nothing_read(server: &Target) {
    let client = server.client().await;
    let stream = server.stream(&client, "unread", 4).await;
    let writer = client.event_writer(&stream).open().await.unwrap();
    for event in 0..1_000_u32 {
        let key = event.to_string();
        writer.append(Event::new(&[7; 65_000]).key(&key)).await.unwrap();
    }
    writer.flush().await.unwrap();
    let places = client.streams().segments(&stream, SegmentSet::Head).await.unwrap().segments;
    let read = async |_| {
        let mut store = server.store().await.unwrap();
        let mut untaken = Vec::new();
        for place in places.iter().cycle().take(100) {
            let request = ReadRequest {
                segment: Some(place.segment.into()),
                container: place.container.0,
                ..ReadRequest::default()
            };
            // Refused where others have what there is.
            untaken.push(store.read(request).await);
        }
        untaken
    };
    let append = async |number: u128| {
        // Each of its opens is refused with a message.
        let open = move |attempt: u32| {
            let segment = |slot: u32| OpenSegment {
                slot: attempt * 1_000 + slot,
                container: 1 << 40,
                segment: Some(places_segment()),
                resuming: false,
            };
            let open = OpenSessions {
                writer: number.to_be_bytes().to_vec().into(),
                session: Some(proto::v1::WriterSession { epoch: 1, attempt }),
                segments: (0..1_000).map(segment).collect(),
                named: false,
            };
            AppendRequest { message: Some(Message::Open(open)) }
        };
        let requests = futures::stream::iter(std::iter::once(hello()).chain((1..200).map(open)));
        let requests = requests.chain(futures::stream::pending());
        server.store().await.unwrap().append(requests).await
    };
    let untaken = (join_all((0..16).map(read)).await, join_all((0..32).map(append)).await);
    // Whatever comes, comes meanwhile.
    server.over().await;
    drop(untaken);
}

fn places_segment() -> proto::v1::SegmentId {
    proto::v1::SegmentId { stream: 1, epoch: 0, number: 0 }
}

/// An ordinary client appends and reads as if nothing had been.
async fn ordinary(target: &Target) {
    let client = target.client().await;
    let stream = target.stream(&client, "afterwards", 2).await;
    let writer = client.event_writer(&stream).open().await.unwrap();
    for event in 0..100_u32 {
        writer.append(Event::new(&event.to_le_bytes()).key("k")).await.unwrap();
    }
    writer.flush().await.unwrap();
    let reader = client.event_reader(&stream).from(client::ReadFrom::Head);
    let mut reader = reader.until(client::ReadUntil::Tail).open().await.unwrap();
    for event in 0..100_u32 {
        assert_eq!(reader.next().await.unwrap().unwrap().payload.as_ref(), event.to_le_bytes());
    }
}

/// Runs loads at once against a new server.
fn run(loads: &[Load]) {
    let server = Server::with(&SETTINGS);
    let seconds = crate::soak::from_environment("BRAID_MEMORY_SECONDS").unwrap_or(4);
    let clock = SystemClock::new();
    let until = clock.monotonic().plus(Duration::from_secs(seconds));
    let target = Target { endpoint: server.address.to_string(), clock, until };
    let runtime: Runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let watching = spawn_thread("metrics", {
        let (address, over) = (server.address, over.clone());
        move || {
            let mut scrapes = 0;
            while !over.load(Ordering::Relaxed) {
                metric_at(address, "braid_connections");
                scrapes += 1;
            }
            scrapes
        }
    });
    runtime.block_on(async {
        let all = join_all(loads.iter().map(|load| load.run(&target)));
        all.boxed_local().await;
    });
    over.store(true, Ordering::Relaxed);
    assert!(watching.unwrap().join().unwrap() > 0, "metrics were answered meanwhile");
    runtime.block_on(ordinary(&target));
    let peak = server.peak_bytes();
    let status = server.line("status -o json").run().json();
    assert!(
        peak <= MEMORY_LIMIT + MEMORY_LIMIT / 10,
        "{loads:?}: {} MiB of {} were resident: {}",
        peak >> 20,
        MEMORY_LIMIT >> 20,
        status["memory"]
    );
    crate::soak::say(&format!("{loads:?}: {} MiB resident at most", peak >> 20));
    drop(runtime);
}

#[test]
fn many_writers_with_a_connection_each_stay_within_the_memory_limit() {
    run(&[Load::ManyConnections]);
}

#[test]
fn writers_of_many_segments_each_stay_within_the_memory_limit() {
    run(&[Load::ManySegments]);
}

#[test]
fn messages_of_millions_of_empty_blocks_stay_within_the_memory_limit() {
    run(&[Load::ManyBlocks]);
}

#[test]
fn clients_that_never_take_their_answers_stay_within_the_memory_limit() {
    run(&[Load::NothingRead]);
}

#[test]
fn all_of_these_loads_at_once_stay_within_the_memory_limit() {
    run(&[Load::ManyConnections, Load::ManySegments, Load::ManyBlocks, Load::NothingRead]);
}
