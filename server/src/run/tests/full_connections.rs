//! Control calls, the page of metrics and health, while nothing more fits on the connections of
//! clients that append.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use proto::v1::append_request::Message;
use proto::v1::controller_client::ControllerClient;
use proto::v1::segment_store_client::SegmentStoreClient;
use proto::v1::{
    AppendRequest, AppendResponse, FindOffsetRequest, GetSegmentInfoRequest, GetStatusRequest,
    Hello, SegmentAt,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::*;
use crate::settings::Auto;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

fn within<T>(what: &str, asked: impl Future<Output = T>) -> impl Future<Output = T> {
    let asked = Box::pin(tokio::time::timeout(PATIENCE, asked));
    async move {
        let answer = asked.await;
        answer.unwrap_or_else(|_| panic!("{what}: no answer while append connections are full"))
    }
}

async fn channel(served: &Served) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", served.ready.address)).unwrap();
    within("a connection", endpoint.connect()).await.unwrap()
}

/// An append stream that said who it is and sends nothing. Dropping it ends it.
struct AppendStream {
    _requests: mpsc::Sender<AppendRequest>,
    _answers: Streaming<AppendResponse>,
}

async fn append_stream(channel: &Channel) -> Result<AppendStream, Status> {
    let hello = Hello { protocol_min: 1, protocol_max: 1, ..Hello::default() };
    let hello = AppendRequest { message: Some(Message::Hello(hello)) };
    let (requests, receiver) = mpsc::channel(1);
    requests.send(hello).await.unwrap();
    let mut store = SegmentStoreClient::new(channel.clone());
    let mut answers = store.append(ReceiverStream::new(receiver)).await?.into_inner();
    assert!(answers.message().await?.is_some_and(|answer| answer.hello.is_some()));
    Ok(AppendStream { _requests: requests, _answers: answers })
}

fn assert_full(refused: &Status) {
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("connections that append is used up"), "{refused}");
}

/// Opens append streams, some over each connection, until there is no memory for another.
async fn fill(served: &Served) -> Vec<AppendStream> {
    let mut open = Vec::new();
    loop {
        let channel = channel(served).await;
        for _ in 0..8 {
            match within("an append stream", append_stream(&channel)).await {
                Ok(stream) => open.push(stream),
                Err(refused) => {
                    assert_full(&refused);
                    return open;
                }
            }
        }
    }
}

/// Appends until it is told that it is over.
async fn write(client: Client, stream: ScopedStream, over: Arc<AtomicBool>) {
    let writer = client.event_writer(&stream).memory_limit(ByteSize::mib(2)).open().await.unwrap();
    for number in 0_u32.. {
        let event = [7; 4_096];
        let key = number.to_string();
        writer.append(Event::new(&event).key(&key)).await.unwrap();
        if over.load(Ordering::Relaxed) {
            return;
        }
    }
}

async fn ask_everything(served: &Served, stream: &ScopedStream) {
    let client = Client::connect(ClientConfig::new(served.ready.address.to_string()));
    let client = within("a client that connects", client).await.unwrap();
    let streams = client.streams();
    let other: ScopedStream = "demo/meanwhile".parse().unwrap();
    let config = StreamConfig { segments: 2, create_scope: true };
    within("making a stream", streams.create_stream(&other, config)).await.unwrap();
    let places = streams.segments(stream, client::SegmentSet::Active);
    let places = within("listing segments", places).await.unwrap().segments;
    let mut controller = ControllerClient::new(channel(served).await);
    within("the status", controller.get_status(GetStatusRequest::default())).await.unwrap();
    let mut store = SegmentStoreClient::new(channel(served).await);
    let at = |place: &client::SegmentPlace| SegmentAt {
        segment: Some(place.segment.into()),
        container: place.container.0,
    };
    let request = GetSegmentInfoRequest { segments: places.iter().map(at).collect() };
    let infos = within("bounds of segments", store.get_segment_info(request)).await.unwrap();
    assert!(infos.into_inner().segments.iter().all(|info| info.found));
    let request = FindOffsetRequest { at: Some(at(&places[0])), time_micros: 0 };
    within("an offset of a time", store.find_offset(request)).await.unwrap();
    assert!(served.get("/readyz").ends_with("ready\n"));
    assert!(served.get("/metrics").contains("braid_connections"));
}

#[test]
fn control_calls_and_metrics_are_answered_while_nothing_more_fits_on_append_connections() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.memory.limit = Auto(Some(ByteSize::mib(256)));
    let served = Served::start(settings);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(async {
        let client = served.client().await;
        let stream: ScopedStream = "demo/full".parse().unwrap();
        let config = StreamConfig { segments: 4, create_scope: true };
        client.streams().create_stream(&stream, config).await.unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let clients = join_all((0..4).map(|_| served.client())).await;
        let write = |client| write(client, stream.clone(), over.clone());
        let writing = join_all(clients.into_iter().map(write));
        let asking = async {
            let full = fill(&served).await;
            for _ in 0..3 {
                Box::pin(ask_everything(&served, &stream)).await;
            }
            let refused = append_stream(&channel(&served).await).await;
            assert_full(&refused.err().expect("it is still full"));
            over.store(true, Ordering::Relaxed);
            drop(full);
        };
        tokio::join!(writing, asking);
        // What the others held is given back.
        let channel = channel(&served).await;
        let again = async { while append_stream(&channel).await.is_err() {} };
        within("an append stream afterwards", again).await;
    });
    served.stop();
}
