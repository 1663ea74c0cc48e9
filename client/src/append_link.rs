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
    /// Sessions of this connection that are to be closed.
    closes: Vec<u32>,
    /// What the store said about itself on this connection.
    hello: Option<v1::Hello>,
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

    /// Makes a writer known; gives its number on this link, and what the store said of itself.
    pub(crate) fn join(&self, writer: Weak<Shared>, link: LinkId) -> (usize, Option<v1::Hello>) {
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
        let hello = state.hello.clone();
        drop(state);
        self.joined.notify_one();
        (index, hello)
    }

    /// Asks the store to forget sessions of a writer, as far as their connection is still there.
    pub(crate) fn close_sessions(&self, member: usize, slots: Vec<u32>) {
        let mut state = self.state();
        let first = state.first_slot;
        let own = |state: &State, slot: u32| {
            let place = slot.checked_sub(first)?;
            state.owners.get(place as usize).copied()
        };
        let slots = slots.into_iter().filter(|slot| own(&state, *slot) == Some(member));
        let slots: Vec<_> = slots.collect();
        state.closes.extend(slots);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
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
            self.disconnected(&ended.error);
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
        let weak = client.clone();
        let client = client.upgrade().ok_or(ClientError::Closed { what: "client" })?;
        let mut store = store_client(client.connections.data(&self.endpoint)?);
        let timeout = client.config.connect_timeout;
        drop(client);
        let requests = Requests::new(self.clone(), weak);
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
    fn disconnected(&self, error: &ClientError) {
        let mut state = self.state();
        state.connection += 1;
        state.first_slot = state.slots.given_out();
        state.owners.clear();
        state.closes.clear();
        state.hello = None;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        drop(state);
        let problem = error.to_string();
        let fatal = matches!(error.kind(), ErrorKind::InvalidRequest | ErrorKind::Denied);
        for member in self.members() {
            let Some(writer) = member.writer.upgrade() else { continue };
            writer.on_disconnect(member.link, &problem);
            if fatal {
                writer.fail(error.clone());
            }
        }
    }

    /// Hands each part of an answer to the writer whose slot it names.
    fn dispatch(&self, client: &Arc<Inner>, answer: v1::AppendResponse) {
        let mut state = self.state();
        let mut parts = Parts::new(&state);
        for opened in answer.opened {
            if let Some(part) = parts.of(&state, opened.slot) {
                part.opened.push(opened);
            }
        }
        for ack in answer.acks {
            if let Some(part) = parts.of(&state, ack.slot) {
                part.acks.push(ack);
            }
        }
        for failure in answer.failures {
            if let Some(part) = parts.of(&state, failure.slot) {
                part.failures.push(failure);
            }
        }
        for slot in answer.closed {
            if let Some(part) = parts.of(&state, slot) {
                part.closed.push(slot);
            }
        }
        if let Some(hello) = answer.hello {
            parts.for_all(&hello);
            state.hello = Some(hello);
        }
        let deliveries = parts.deliveries(&state);
        drop(state);
        for (member, part) in deliveries {
            if let Some(writer) = member.writer.upgrade() {
                writer.on_response(member.link, part, client);
            }
        }
    }
}

/// An answer taken apart, by member.
struct Parts {
    parts: Vec<Option<v1::AppendResponse>>,
    touched: Vec<usize>,
}

impl Parts {
    fn new(state: &State) -> Self {
        Self { parts: vec![None; state.members.len()], touched: Vec::new() }
    }

    /// The part of the member whose slot it is.
    fn of(&mut self, state: &State, slot: u32) -> Option<&mut v1::AppendResponse> {
        let place = slot.checked_sub(state.first_slot)?;
        let member = state.owners.get(place as usize).copied()?;
        if self.parts[member].is_none() {
            self.touched.push(member);
        }
        Some(self.parts[member].get_or_insert_default())
    }

    fn for_all(&mut self, hello: &v1::Hello) {
        for (member, part) in self.parts.iter_mut().enumerate() {
            if part.is_none() {
                self.touched.push(member);
            }
            part.get_or_insert_default().hello = Some(hello.clone());
        }
    }

    fn deliveries(mut self, state: &State) -> Vec<(Member, v1::AppendResponse)> {
        let touched = std::mem::take(&mut self.touched).into_iter();
        touched
            .filter_map(|member| Some((state.members[member].clone()?, self.parts[member].take()?)))
            .collect()
    }
}

/// How a connection ended.
struct Ended {
    error: ClientError,
    /// Whether it answered anything.
    progress: bool,
}
