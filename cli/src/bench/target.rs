//! The server and the stream that a measurement uses.

use std::path::{Path, PathBuf};

use client::{Client, ClientConfig, ReadFrom, ReadUntil, StreamConfig};
use common::{ByteSize, Clock as _, ScopedStream, SystemClock};

use super::LoadArgs;
use super::check::Checker;
use super::keys::{key_of_each_segment, segments_of_writer};
use super::load::{LOOK_EVERY, Sender};
use super::own_server::{OwnServer, TiersTo};
use super::report::ServerFacts;
use crate::connect::DEV_ENDPOINT;
use crate::failure::{Failure, Result};

/// Which server, which stream.
#[derive(Debug, clap::Args)]
pub(super) struct TargetArgs {
    /// Where the server is
    #[arg(long, value_name = "HOST:PORT", env = "BRAID_ENDPOINT", default_value = DEV_ENDPOINT)]
    endpoint: String,

    /// Start a server for this measurement, and stop it afterwards
    #[arg(long)]
    spawn: bool,

    /// Where the data of that server rests while it runs; a real disk, not a tmpfs
    #[arg(long, value_name = "DIR", default_value = ".", requires = "spawn")]
    data: PathBuf,

    /// Where that server tiers to: none, data (a folder in its data, as `braid dev` does) or a URL
    #[arg(long, value_name = "URL", default_value = "none", requires = "spawn")]
    lts: TiersTo,

    /// The stream to use, which must not exist [default: a new one in scope bench]
    #[arg(long, value_name = "SCOPE/STREAM")]
    stream: Option<ScopedStream>,

    /// Leave the stream there afterwards
    #[arg(long)]
    keep: bool,
}

/// A connected client and a new stream.
pub(super) struct Target {
    pub(super) client: Client,
    pub(super) stream: ScopedStream,
    pub(super) endpoint: String,
    keep: bool,
    own: Option<OwnServer>,
}

impl Target {
    pub(super) async fn prepare(args: &TargetArgs, segments: u32) -> Result<Self> {
        let own = match args.spawn {
            true => Some(OwnServer::start(&args.data, &args.lts).await?),
            false => None,
        };
        let endpoint =
            own.as_ref().map_or_else(|| args.endpoint.clone(), |own| own.endpoint.clone());
        let client = Client::connect(ClientConfig::new(&*endpoint)).await?;
        let stream = match &args.stream {
            Some(stream) => stream.clone(),
            None => new_name()?,
        };
        create(&client, &stream, segments).await?;
        Ok(Self { client, stream, endpoint, keep: args.keep, own })
    }

    /// A server of its own in a folder of `data`, that tiers to its own data.
    pub(super) async fn prepare_own(data: &Path, segments: u32) -> Result<Self> {
        let own = OwnServer::start(data, &TiersTo::Data).await?;
        let endpoint = own.endpoint.clone();
        let client = Client::connect(ClientConfig::new(&*endpoint)).await?;
        let stream = new_name()?;
        create(&client, &stream, segments).await?;
        Ok(Self { client, stream, endpoint, keep: false, own: Some(own) })
    }

    /// Stops and starts the server that [`Target::prepare_own`] started.
    pub(super) async fn restart<T>(
        &mut self,
        meanwhile: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        self.own.as_mut().expect("it is the measurement's own").restart(meanwhile).await
    }

    /// Writers with the keys of their segments.
    pub(super) async fn senders(&self, load: &LoadArgs) -> Result<Vec<Sender>> {
        let keys = key_of_each_segment(load.segments);
        let mut senders = Vec::new();
        for number in 0..load.writers {
            let builder = self.client.event_writer(&self.stream).memory_limit(load.memory);
            let segments = segments_of_writer(number, load.writers, load.segments);
            let keys = segments.into_iter().map(|s| (s, keys[s as usize].clone())).collect();
            senders.push(Sender::new(number, builder.open().await?, keys));
        }
        Ok(senders)
    }

    /// Keeps the server's log from filling up, by dropping what was written once half of it is
    /// used. Says whether it ever did, when `work` is done. A server that tiers does so by itself.
    pub(super) async fn while_freeing<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<(T, bool)> {
        let tiering =
            client::server_status(ClientConfig::new(&*self.endpoint)).await?.lts.is_some();
        let mut truncated = false;
        let freeing = async {
            if tiering {
                return std::future::pending().await;
            }
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let info = self.client.server_info().await?;
                if info.log_used_bytes > info.log_budget_bytes / 2 {
                    let streams = self.client.streams();
                    let cut = streams.tail_cut(&self.stream).await?;
                    streams.truncate(&self.stream, &cut).await?;
                    truncated = true;
                }
            }
        };
        let done = tokio::select! {
            done = work => done?,
            failed = freeing => {
                let failed: Result<std::convert::Infallible> = failed;
                match failed { Err(failure) => return Err(failure), Ok(never) => match never {} }
            }
        };
        Ok((done, truncated))
    }

    /// Reads everything that the stream holds through `checker`.
    pub(super) async fn verify(&self, checker: &mut Checker) -> Result<()> {
        let reader = self.client.event_reader(&self.stream);
        let mut reader = reader.from(ReadFrom::Head).until(ReadUntil::Tail).open().await?;
        while let Some(batch) = reader.next_batch().await {
            for event in batch? {
                checker.read(&event.payload).map_err(wrong)?;
            }
        }
        Ok(())
    }

    /// What a report says of the server.
    pub(super) async fn server(&self) -> Result<ServerFacts> {
        let status = client::server_status(ClientConfig::new(&*self.endpoint)).await?;
        Ok(ServerFacts {
            server_version: status.version,
            server_tiers_to: status.lts.map(|lts| lts.url),
            server_peak_resident_bytes: self.own.as_ref().and_then(OwnServer::peak_resident_bytes),
        })
    }

    /// Takes the stream and an own server away.
    pub(super) async fn finish(self) -> Result<()> {
        if !self.keep && self.own.is_none() {
            self.client.streams().seal(&self.stream).await?;
            self.client.streams().delete(&self.stream).await?;
        }
        self.client.close().await;
        match self.own {
            Some(own) => own.stop().await,
            None => Ok(()),
        }
    }
}

/// What was read is not what was written.
pub(super) fn wrong(problem: String) -> Failure {
    Failure::general(format!("verification failed: {problem}; report this as a bug"))
}

async fn create(client: &Client, stream: &ScopedStream, segments: u32) -> Result<()> {
    let config = StreamConfig { segments, create_scope: true };
    if !client.streams().create_stream(stream, config).await?.created {
        let message = format!("stream `{stream}` exists; name one that does not");
        return Err(Failure::new(crate::failure::Exit::Conflict, message));
    }
    Ok(())
}

fn new_name() -> Result<ScopedStream> {
    let micros = SystemClock::new().wall().as_micros();
    let name = format!("run-{micros}-{}", std::process::id());
    ScopedStream::new("bench", &name).map_err(|error| Failure::general(error.to_string()))
}

/// The smallest memory of a writer that the client accepts.
pub(super) const MEMORY_MIN: ByteSize = ByteSize::mib(8);
