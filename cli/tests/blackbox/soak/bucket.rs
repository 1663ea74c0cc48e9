//! A bucket that fails on command: a real S3 server in the process of the test behind a switch.
//!
//! A request that was taken in is always carried out, whether anybody waits for its answer or not:
//! an upload whose sender was killed arrives all the same, as on any network.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::Tasks;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use crate::harness::temp_dir;
use crate::s3::{KEY_ID, SECRET};

/// How the bucket behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Good,
    /// Connections are closed as they come, and those that are open.
    Unreachable,
    /// Every request is answered with 503.
    Busy,
    /// Requests are carried out, and the connection breaks before the answer.
    Mute,
    /// Every request waits that long first.
    Slow(Duration),
}

/// What the bucket was asked since it was made, as far as it was carried out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Carried {
    pub puts: u64,
    pub gets: u64,
    pub deletes: u64,
}

pub struct Bucket {
    /// Where its objects are files.
    _directory: TempDir,
    address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    service: S3Service,
    mood: watch::Sender<Mood>,
    tasks: Tasks,
    puts: AtomicU64,
    gets: AtomicU64,
    deletes: AtomicU64,
    /// Requests taken in and not yet carried out.
    under_way: watch::Sender<usize>,
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.inner.tasks.cancel();
    }
}

impl Bucket {
    /// Serves an empty bucket on the current runtime.
    pub async fn start() -> Self {
        let directory = temp_dir();
        std::fs::create_dir(directory.path().join("bucket")).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(directory.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            service: service.build(),
            mood: watch::Sender::new(Mood::Good),
            tasks: Tasks::new(),
            puts: AtomicU64::default(),
            gets: AtomicU64::default(),
            deletes: AtomicU64::default(),
            under_way: watch::Sender::new(0),
        });
        inner.tasks.spawn("bucket", inner.clone().accept(listener));
        Self { _directory: directory, address, inner }
    }

    /// Settings and credentials with which a process reaches it.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("BRAID__LTS__URL", self.url().to_owned()),
            ("BRAID__LTS__ENDPOINT", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    pub fn url(&self) -> &'static str {
        "s3://bucket/soak"
    }

    pub fn set(&self, mood: Mood) {
        self.inner.mood.send_replace(mood);
    }

    pub fn carried(&self) -> Carried {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Inner { puts, gets, deletes, .. } = &*self.inner;
        Carried { puts: of(puts), gets: of(gets), deletes: of(deletes) }
    }

    /// Nothing that anybody sent is still on its way.
    pub async fn settle(&self) {
        let mut under_way = self.inner.under_way.subscribe();
        under_way.wait_for(|count| *count == 0).await.unwrap();
    }
}

impl Inner {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let token = self.tasks.token();
        while let Some(Ok((socket, _))) = token.run_until_cancelled(listener.accept()).await {
            self.tasks.spawn("bucket connection", self.clone().connection(socket));
        }
    }

    async fn connection(self: Arc<Self>, socket: TcpStream) {
        let mut mood = self.mood.subscribe();
        let service = service_fn(|request| self.clone().answer(request));
        let builder = Builder::new(TokioExecutor::new());
        tokio::select! {
            biased;
            () = self.tasks.token().cancelled_owned() => {}
            _ = mood.wait_for(|mood| *mood == Mood::Unreachable) => {}
            // A connection that breaks is the client's to notice.
            _ = builder.serve_connection(TokioIo::new(socket), service) => {}
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let (head, body) = request.into_parts();
        // Half a body is no request.
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let mood = *self.mood.borrow();
        if mood == Mood::Busy {
            let busy = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
            return busy.body(Body::empty()).map_err(io::Error::other);
        }
        let (done, answer) = oneshot::channel();
        let request = Request::from_parts(head, Body::from(body));
        self.under_way.send_modify(|count| *count += 1);
        self.tasks.spawn("bucket request", self.clone().carry_out(mood, request, done));
        let answer = answer.await.map_err(io::Error::other)?;
        match mood {
            Mood::Mute => Err(io::Error::other("the answer is lost")),
            _ => Ok(answer),
        }
    }

    async fn carry_out(
        self: Arc<Self>,
        mood: Mood,
        request: Request<Body>,
        done: oneshot::Sender<Response<Body>>,
    ) {
        if let Mood::Slow(delay) = mood {
            super::pass(delay).await;
        }
        let count = match *request.method() {
            Method::PUT => Some(&self.puts),
            Method::GET => Some(&self.gets),
            Method::DELETE | Method::POST => Some(&self.deletes),
            _ => None,
        };
        if let Ok(answer) = self.service.call(request).await {
            if let Some(count) = count.filter(|_| answer.status().is_success()) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            // Nobody may wait any more.
            let _ = done.send(answer);
        }
        self.under_way.send_modify(|count| *count -= 1);
    }
}
