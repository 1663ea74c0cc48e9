//! The whole road over loopback gRPC: service, container, a one-voter group, the log.

use std::sync::Arc;

use bytes::Bytes;
use common::{ByteSize, Rng, SystemClock, Tasks};
use futures::StreamExt;
use proto::error::{fact_of, reason_of};
use proto::v1;
use proto::v1::append_request::Message;
use proto::v1::segment_store_client::SegmentStoreClient;
use proto::v1::{
    AppendBlock, AppendBlocks, AppendRequest, AppendResponse, FindOffsetRequest,
    GetSegmentInfoRequest, Hello, OpenSegment, OpenSessions, ReadRequest, ReadResponse, SegmentAt,
};
use replica::{Host, HostSettings, MemKv};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Status, Streaming};
use wal::{LogSettings, SimDisk};

use super::*;
use crate::container::{ContainerMachine, Memory};
use crate::settings::Settings;
use crate::testing::{CONTAINER, command, identity, segment, session, successor, writer};

/// A node with one container that survives restarts.
struct Node {
    disk: SimDisk,
    kv: MemKv,
    settings: Settings,
}

/// The node while it runs.
struct Running {
    host: Host,
    store: SegmentStore,
    client: SegmentStoreClient<Channel>,
    tasks: Tasks,
}

impl Node {
    fn new() -> Self {
        let settings = Settings { tail_cache: ByteSize::mib(1), ..Settings::default() };
        Self { disk: SimDisk::new(Rng::from_seed(1)), kv: MemKv::new(), settings }
    }

    async fn start(&self) -> Running {
        let log = LogSettings {
            budget: ByteSize::mib(256),
            file_size: ByteSize::mib(16),
            files_ahead: 1,
            ..LogSettings::default()
        };
        let settings = HostSettings { log, ..HostSettings::default() };
        let clock = SystemClock::shared();
        let (disk, kv) = (Arc::new(self.disk.clone()), Arc::new(self.kv.clone()));
        let mut host = Host::start(settings, disk, kv, clock.clone(), Rng::from_seed(2)).unwrap();
        let memory = Memory::new(&self.settings);
        let machine = ContainerMachine::new(CONTAINER, memory.clone());
        let handle = host.add_group(CONTAINER.group(), machine).unwrap();
        host.run().unwrap();
        handle.serving().await.unwrap();
        let (tasks, containers) = (Tasks::new(), vec![(CONTAINER, handle)]);
        let log = host.log();
        let store =
            SegmentStore::new(containers, log, None, &memory, &self.settings, clock, tasks.clone());
        let store = store.unwrap();
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap();
        let service = SegmentStoreService::new(store.clone()).into_server();
        let token = tasks.token();
        tasks.spawn("server", async move {
            let server = Server::builder().add_service(service);
            let stopped = token.cancelled_owned();
            server.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
        });
        let client = SegmentStoreClient::connect(format!("http://{address}")).await.unwrap();
        let client = client.max_decoding_message_size(DATA_MESSAGE_BYTES_MAX);
        Running { host, store, client, tasks }
    }
}

impl Running {
    async fn stop(mut self) {
        drop(self.client);
        self.tasks.stop().await;
        drop(self.store);
        self.host.stop();
    }

    async fn create(&self) {
        let commands = self.store.commands();
        commands.create(CONTAINER, command(1, 1, 1), identity(1)).await.unwrap();
    }

    async fn connect(&self) -> Appender {
        let (requests, receiver) = mpsc::channel(16);
        let hello = Hello { protocol_min: 1, protocol_max: 1, ..Hello::default() };
        requests.send(request(Message::Hello(hello))).await.unwrap();
        let mut client = self.client.clone();
        let answers = client.append(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let mut appender = Appender { requests, answers };
        assert!(appender.answer().await.hello.is_some());
        appender
    }

    async fn read(&self, offset: u64, follow: bool) -> Result<Streaming<ReadResponse>, Status> {
        let request = ReadRequest {
            segment: Some(segment(1).into()),
            container: CONTAINER.0,
            offset,
            end_offset: None,
            follow,
        };
        Ok(self.client.clone().read(request).await?.into_inner())
    }
}

struct Appender {
    requests: mpsc::Sender<AppendRequest>,
    answers: Streaming<AppendResponse>,
}

fn request(message: Message) -> AppendRequest {
    AppendRequest { message: Some(message) }
}

impl Appender {
    async fn answer(&mut self) -> AppendResponse {
        self.answers.message().await.unwrap().unwrap()
    }

    async fn open(&mut self, attempt: u32, resuming: bool) -> AppendResponse {
        let open = OpenSessions {
            writer: proto::convert::writer_bytes(writer(1)),
            session: Some(session(1, attempt).into()),
            segments: vec![OpenSegment {
                slot: attempt,
                segment: Some(segment(1).into()),
                container: CONTAINER.0,
                resuming,
            }],
            named: true,
        };
        self.requests.send(request(Message::Open(open))).await.unwrap();
        self.answer().await
    }

    async fn send(&self, slot: u32, numbers: (u64, u64), data: Bytes) {
        let (previous_number, last_number) = numbers;
        let events = (last_number - previous_number) as u32;
        let block = AppendBlock {
            slot,
            previous_number,
            last_number,
            events,
            data,
            ..AppendBlock::default()
        };
        let blocks = AppendBlocks { blocks: vec![block] };
        self.requests.send(request(Message::Blocks(blocks))).await.unwrap();
    }

    /// Waits until everything up to `number` is acknowledged.
    async fn acknowledged(&mut self, number: u64) -> u64 {
        loop {
            let answer = self.answer().await;
            assert!(answer.failures.is_empty(), "{answer:?}");
            if let Some(ack) = answer.acks.iter().find(|ack| ack.last_number >= number) {
                return ack.length;
            }
        }
    }
}

fn data(block: u64, bytes: usize) -> Bytes {
    (0..bytes).map(|i| (block as usize * 31 + i) as u8).collect()
}

async fn collect(mut stream: Streaming<ReadResponse>, bytes: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < bytes {
        let message = stream.next().await.unwrap().unwrap();
        assert_eq!(message.offset as usize, all.len());
        all.extend_from_slice(&message.data);
    }
    all
}

#[tokio::test]
async fn what_is_acknowledged_is_read_back_also_after_a_restart() {
    let node = Node::new();
    let running = node.start().await;
    running.create().await;
    let following = running.read(0, true).await.unwrap();
    let mut appender = running.connect().await;
    assert_eq!(appender.open(1, false).await.opened[0].last_number, 0);
    let mut all = Vec::new();
    for block in 0..60 {
        let data = data(block, if block % 3 == 0 { 100 } else { 70_000 });
        all.extend_from_slice(&data);
        appender.send(1, (block, block + 1), data).await;
    }
    let length = appender.acknowledged(60).await;
    assert_eq!(length as usize, all.len());
    assert_eq!(collect(following, all.len()).await, all);
    drop(appender);
    running.stop().await;

    let running = node.start().await;
    let reading = running.read(0, false).await.unwrap();
    assert_eq!(collect(reading, all.len()).await, all);
    assert!(running.store.metrics().log_read_bytes.get() > 0, "memory cannot hold all of it");
    let mut appender = running.connect().await;
    let opened = appender.open(2, true).await;
    assert_eq!((opened.opened[0].last_number, opened.opened[0].length), (60, length));
    appender.send(2, (60, 61), Bytes::from_static(b"more")).await;
    assert_eq!(appender.acknowledged(61).await, length + 4);
    drop(appender);
    running.stop().await;
}

#[tokio::test]
async fn what_segments_know_of_a_writer_is_told_without_opening_them() {
    let node = Node::new();
    let running = node.start().await;
    running.create().await;
    let mut appender = running.connect().await;
    appender.open(1, false).await;
    appender.send(1, (0, 7), data(0, 50)).await;
    appender.acknowledged(7).await;
    let at = |number| SegmentAt { segment: Some(segment(number).into()), container: CONTAINER.0 };
    let ask = |who, segments| v1::GetWriterStatesRequest {
        writer: proto::convert::writer_bytes(writer(who)),
        segments,
    };
    let mut client = running.client.clone();
    let told = client.get_writer_states(ask(1, vec![at(9), at(1)])).await.unwrap().into_inner();
    let [missing, known] = &told.states[..] else { panic!("{told:?}") };
    assert_eq!((missing.known, missing.last_number), (false, 0));
    assert_eq!((known.known, known.last_number), (true, 7));
    assert_eq!(known.session, Some(session(1, 1).into()));
    let told = client.get_writer_states(ask(2, vec![at(1)])).await.unwrap().into_inner();
    assert!(!told.states[0].known);
    let refused = client.get_writer_states(ask(1, vec![at(1); 1_001])).await.unwrap_err();
    assert_eq!(reason_of(&refused), Reason::InvalidArgument);
    // The session goes on.
    appender.send(1, (7, 8), data(1, 50)).await;
    appender.acknowledged(8).await;
    drop(appender);
    running.stop().await;
}

#[tokio::test]
async fn refusals_carry_reason_and_facts() {
    let node = Node::new();
    let running = node.start().await;
    let missing = running.read(0, false).await.unwrap_err();
    assert_eq!(reason_of(&missing), Reason::SegmentNotFound);
    running.create().await;
    let mut appender = running.connect().await;
    appender.open(1, false).await;
    appender.send(1, (0, 1), data(0, 50)).await;
    appender.acknowledged(1).await;
    let commands = running.store.commands();
    commands.truncate(CONTAINER, command(1, 2, 1), segment(1), common::Offset(20)).await.unwrap();
    let truncated = running.read(3, false).await.unwrap_err();
    assert_eq!(reason_of(&truncated), Reason::Truncated);
    assert_eq!(fact_of(&truncated, "start_offset").as_deref(), Some("20"));
    let beyond = running.read(51, false).await.unwrap_err();
    assert_eq!(reason_of(&beyond), Reason::OutOfRange);
    assert_eq!(fact_of(&beyond, "length").as_deref(), Some("50"));
    let mut elsewhere = running.client.clone();
    let request =
        ReadRequest { segment: Some(segment(1).into()), container: 77, ..ReadRequest::default() };
    assert_eq!(reason_of(&elsewhere.read(request).await.unwrap_err()), Reason::NotLeader);
    let request = ReadRequest::default();
    assert_eq!(reason_of(&elsewhere.read(request).await.unwrap_err()), Reason::InvalidArgument);
    drop((appender, elsewhere));
    running.stop().await;
}

#[tokio::test]
async fn segments_are_described_and_searched_by_time() {
    let node = Node::new();
    let running = node.start().await;
    running.create().await;
    let mut appender = running.connect().await;
    appender.open(1, false).await;
    appender.send(1, (0, 1), data(0, 50)).await;
    appender.acknowledged(1).await;
    let sealed = running.store.commands();
    let successors = vec![successor(2)];
    let length = sealed.seal(CONTAINER, command(1, 2, 1), segment(1), successors).await;
    assert_eq!(length.unwrap().0, 50);
    let at = |number| SegmentAt { segment: Some(segment(number).into()), container: CONTAINER.0 };
    let mut client = running.client.clone();
    let request = GetSegmentInfoRequest { segments: vec![at(9), at(1)] };
    let infos = client.get_segment_info(request).await.unwrap().into_inner().segments;
    assert!(!infos[0].found && infos[1].found);
    let info = &infos[1];
    assert_eq!((info.length, info.sealed, info.writers, info.log_bytes), (50, true, 1, 50));
    assert!(info.oldest_micros > 0 && info.newest_micros >= info.oldest_micros);
    let find = |time_micros| FindOffsetRequest { at: Some(at(1)), time_micros };
    let found = client.find_offset(find(info.oldest_micros)).await.unwrap().into_inner();
    assert_eq!(found.offset, 0);
    let found = client.find_offset(find(info.newest_micros + 1)).await.unwrap().into_inner();
    assert_eq!(found.offset, 50);
    let mut reading = running.read(0, true).await.unwrap();
    let message = reading.next().await.unwrap().unwrap();
    assert!(message.end_of_segment && message.data.len() == 50);
    assert!(reading.next().await.is_none());
    drop((appender, client, reading));
    running.stop().await;
}

#[tokio::test]
async fn questions_beyond_those_that_may_be_under_way_are_refused_until_one_is_answered() {
    let mut node = Node::new();
    node.settings.questions = 2;
    let running = node.start().await;
    running.create().await;
    let service = SegmentStoreService::new(running.store.clone());
    let at = SegmentAt { segment: Some(segment(1).into()), container: CONTAINER.0 };
    let info = || {
        let request = GetSegmentInfoRequest { segments: vec![at] };
        service.get_segment_info(Request::new(request))
    };
    let states = || {
        let writer = proto::convert::writer_bytes(writer(1));
        let request = v1::GetWriterStatesRequest { writer, segments: vec![at] };
        service.get_writer_states(Request::new(request))
    };
    let find = || {
        let request = FindOffsetRequest { at: Some(at), time_micros: 0 };
        service.find_offset(Request::new(request))
    };
    let under_way = [service.question().unwrap(), service.question().unwrap()];
    for refused in [info().await.err(), states().await.err(), find().await.err()] {
        let refused = refused.expect("two questions are under way");
        assert_eq!(reason_of(&refused), Reason::ResourceExhausted);
        assert!(refused.message().starts_with("2 questions"), "{refused}");
        assert!(refused.message().contains("`limits.queries`"), "{refused}");
    }
    drop(under_way);
    info().await.unwrap();
    states().await.unwrap();
    find().await.unwrap();
    drop(service);
    running.stop().await;
}

#[tokio::test]
async fn a_stopping_server_ends_appends_and_reads_with_an_error_that_says_so() {
    let node = Node::new();
    let running = node.start().await;
    running.create().await;
    let mut appender = running.connect().await;
    let mut reading = running.read(0, true).await.unwrap();
    running.tasks.cancel();
    let error = appender.answers.message().await.unwrap_err();
    assert_eq!(reason_of(&error), Reason::Unavailable, "{error}");
    let error = reading.message().await.unwrap_err();
    assert_eq!(reason_of(&error), Reason::Unavailable, "{error}");
    drop((appender, reading));
    running.stop().await;
}
