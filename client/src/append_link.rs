//! The append connection to one store, shared by all writers of a client.
//!
//! One bidirectional stream; what goes out is *pulled*: the stream of requests asks the writers
//! for their next blocks only when HTTP/2 has room, so that blocks grow by themselves while it has
//! none. A task reads the answers, hands them to the writers by slot, and makes the connection
//! anew when it breaks.

mod requests;

pub(crate) use requests::hello;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;

use proto::v1;
use tokio::sync::Notify;
use tonic::Streaming;

use crate::client::Inner;
use crate::connection::store_client;
use crate::error::{ClientError, ErrorKind, Result};
use crate::session::{LinkId, Slots};
use crate::writer::Shared;
use requests::Requests;

/// A writer as a link knows it, and what the writer calls the link.
#[derive(Debug, Clone)]
struct Member {
    writer: Weak<Shared>,
    link: LinkId,
}

#[derive(Debug, Default)]
struct State {
    /// Counts connections: what belongs to an earlier one is told apart by it.
    connection: u64,
    members: Vec<Option<Member>>,
    /// Members with something to send, each at most once.
    ready: VecDeque<usize>,
    /// Never given out twice, not even on another connection: a late answer finds nobody.
    slots: Slots,
    /// The first slot of this connection.
    first_slot: u32,
    /// The member that each slot of this connection belongs to.
    owners: Vec<usize>,
    /// Wakes the stream of requests.
    waker: Option<Waker>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct AppendLink {
    endpoint: String,
    state: Mutex<State>,
    joined: Notify,
}

impl AppendLink {
    pub(crate) fn new(endpoint: String) -> Arc<Self> {
        Arc::new(Self { endpoint, state: Mutex::default(), joined: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a writer known; gives its number on this link.
    pub(crate) fn join(&self, writer: Weak<Shared>, link: LinkId) -> usize {
        let mut state = self.state();
        let member = Some(Member { writer, link });
        let free = state.members.iter().position(Option::is_none);
        let index = match free.filter(|index| !state.owners.contains(index)) {
            Some(index) => {
                state.members[index] = member;
                index
            }
            None => {
                state.members.push(member);
                state.members.len() - 1
            }
        };
        drop(state);
        self.joined.notify_one();
        index
    }

    /// Forgets a writer.
    pub(crate) fn leave(&self, member: usize) {
        let mut state = self.state();
        state.members[member] = None;
        state.ready.retain(|ready| *ready != member);
    }

    /// The member has something to send. To be called once per announcement of its core.
    pub(crate) fn enqueue(&self, member: usize) {
        let mut state = self.state();
        state.ready.push_back(member);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn members(&self) -> Vec<Member> {
        self.state().members.iter().flatten().cloned().collect()
    }

    /// Keeps a connection for as long as there are writers, and until the client ends.
    pub(crate) async fn run(self: Arc<Self>, client: Weak<Inner>) {
        let Some(mut backoff) = client.upgrade().map(|client| client.backoff("append")) else {
            return;
        };
        let Some(token) = client.upgrade().map(|client| client.token()) else { return };
        loop {
            let work = async {
                self.wait_for_members().await;
                self.serve_once(&client).await
            };
            let ended = tokio::select! {
                biased;
                () = token.cancelled() => return,
                ended = work => ended,
            };
            let Some(client) = client.upgrade() else { return };
            self.disconnected(&client, &ended.error);
            drop(client);
            if ended.progress {
                backoff.reset();
            }
            let pause = backoff.pause();
            tracing::debug!(endpoint = self.endpoint, error = %ended.error, "append connection ended");
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn wait_for_members(&self) {
        while self.members().is_empty() {
            self.joined.notified().await;
        }
    }

    /// One connection from beginning to end.
    async fn serve_once(self: &Arc<Self>, client: &Weak<Inner>) -> Ended {
        let mut progress = false;
        let error = match self.connect(client).await {
            Ok(mut answers) => loop {
                match answers.message().await {
                    Ok(Some(answer)) => {
                        progress = true;
                        let Some(client) = client.upgrade() else {
                            break ClientError::Closed { what: "client" };
                        };
                        self.dispatch(&client, answer);
                    }
                    Ok(None) => break self.unreachable("the server ended the connection"),
                    Err(status) => break ClientError::from_status(&status, &self.endpoint),
                }
            },
            Err(error) => error,
        };
        Ended { error, progress }
    }

    async fn connect(
        self: &Arc<Self>,
        client: &Weak<Inner>,
    ) -> Result<Streaming<v1::AppendResponse>> {
        let client = client.upgrade().ok_or(ClientError::Closed { what: "client" })?;
        let mut store = store_client(client.connections.data(&self.endpoint)?);
        let timeout = client.config.connect_timeout;
        drop(client);
        let requests = Requests::new(self.clone());
        match tokio::time::timeout(timeout, store.append(requests)).await {
            Ok(Ok(answers)) => Ok(answers.into_inner()),
            Ok(Err(status)) => Err(ClientError::from_status(&status, &self.endpoint)),
            Err(_) => Err(self.unreachable(&format!("no answer within {timeout:?}"))),
        }
    }

    fn unreachable(&self, problem: &str) -> ClientError {
        ClientError::Unreachable { endpoint: self.endpoint.clone(), problem: problem.to_owned() }
    }

    /// The connection is over: its slots mean nothing any more. A refusal that no new connection
    /// can cure ends the writers.
    fn disconnected(&self, client: &Arc<Inner>, error: &ClientError) {
        let mut state = self.state();
        state.connection += 1;
        state.first_slot = state.slots.given_out();
        state.owners.clear();
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        drop(state);
        let problem = error.to_string();
        let fatal = matches!(error.kind(), ErrorKind::InvalidRequest | ErrorKind::Denied);
        for member in self.members() {
            let Some(writer) = member.writer.upgrade() else { continue };
            writer.on_disconnect(member.link, &problem, client);
            if fatal {
                writer.fail(error.clone());
            }
        }
    }

    /// Hands each part of an answer to the writer whose slot it names.
    fn dispatch(&self, client: &Arc<Inner>, answer: v1::AppendResponse) {
        let state = self.state();
        let mut parts: Vec<Option<v1::AppendResponse>> = vec![None; state.members.len()];
        let mut touched = Vec::new();
        let mut part_of = |slot: u32, parts: &mut Vec<Option<v1::AppendResponse>>| {
            let place = slot.checked_sub(state.first_slot)?;
            let member = state.owners.get(place as usize).copied()?;
            if parts[member].is_none() {
                touched.push(member);
                parts[member] = Some(v1::AppendResponse::default());
            }
            Some(member)
        };
        for opened in answer.opened {
            if let Some(member) = part_of(opened.slot, &mut parts) {
                parts[member].get_or_insert_default().opened.push(opened);
            }
        }
        for ack in answer.acks {
            if let Some(member) = part_of(ack.slot, &mut parts) {
                parts[member].get_or_insert_default().acks.push(ack);
            }
        }
        for failure in answer.failures {
            if let Some(member) = part_of(failure.slot, &mut parts) {
                parts[member].get_or_insert_default().failures.push(failure);
            }
        }
        let deliveries: Vec<_> = touched
            .into_iter()
            .filter_map(|member| Some((state.members[member].clone()?, parts[member].take()?)))
            .collect();
        drop(state);
        for (member, part) in deliveries {
            if let Some(writer) = member.writer.upgrade() {
                writer.on_response(member.link, part, client);
            }
        }
    }
}

/// How a connection ended.
struct Ended {
    error: ClientError,
    /// Whether it answered anything.
    progress: bool,
}
