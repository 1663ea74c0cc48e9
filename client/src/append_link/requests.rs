//! The stream of requests of one append connection, pulled by HTTP/2.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use common::MonotonicTime;
use common::limits::{APPEND_BLOCK_BYTES_MAX, OPEN_SEGMENTS_MAX};
use futures::Stream;
use proto::v1;
use proto::v1::append_request::Message;

use super::{AppendLink, State};
use crate::client::Inner;

#[derive(Debug)]
pub(super) struct Requests {
    link: Arc<AppendLink>,
    client: Weak<Inner>,
    connection: u64,
    greeted: bool,
}

impl Requests {
    pub(super) fn new(link: Arc<AppendLink>, client: Weak<Inner>) -> Self {
        let connection = link.state().connection;
        Self { link, client, connection, greeted: false }
    }
}

impl Stream for Requests {
    type Item = v1::AppendRequest;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<v1::AppendRequest>> {
        let request = |message| Poll::Ready(Some(v1::AppendRequest { message: Some(message) }));
        if !std::mem::replace(&mut self.greeted, true) {
            return request(Message::Hello(hello()));
        }
        let boot_time = self.client.upgrade().map(|client| client.boot_time()).unwrap_or_default();
        let mut state = self.link.state();
        if state.connection != self.connection {
            return Poll::Ready(None);
        }
        match next_message(&mut state, boot_time) {
            Some(message) => request(message),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

pub(crate) fn hello() -> v1::Hello {
    v1::Hello {
        library: "braid-rust".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol_min: proto::PROTOCOL_MIN,
        protocol_max: proto::PROTOCOL_MAX,
        ..v1::Hello::default()
    }
}

/// Sessions that are wanted, or blocks of every writer that has some, in turn, while they fit.
fn next_message(state: &mut State, boot_time: MonotonicTime) -> Option<Message> {
    if !state.closes.is_empty() {
        let rest = state.closes.split_off(state.closes.len().min(OPEN_SEGMENTS_MAX));
        let slots = std::mem::replace(&mut state.closes, rest);
        return Some(Message::Close(v1::CloseSessions { slots }));
    }
    let mut blocks = Vec::new();
    let mut bytes = 0;
    while let Some(index) = state.ready.pop_front() {
        let Some(member) = state.members[index].clone() else { continue };
        let Some(writer) = member.writer.upgrade() else { continue };
        let mut core = writer.core();
        core.set_boot_time(boot_time);
        if blocks.is_empty() {
            let open = core.poll_open(member.link, &mut state.slots);
            if let Some(open) = open {
                let given_out = state.slots.given_out() - state.first_slot;
                state.owners.resize(given_out as usize, index);
                if core.has_work(member.link) {
                    state.ready.push_back(index);
                }
                return Some(Message::Open(open));
            }
        } else if core.wants_open(member.link) {
            // It needs a message of its own, the next one.
            state.ready.push_front(index);
            break;
        }
        let room = if state.ready.is_empty() && blocks.is_empty() {
            core.message_bytes(member.link)
        } else {
            APPEND_BLOCK_BYTES_MAX - bytes
        };
        bytes += core.poll_blocks(member.link, room, &mut blocks);
        if core.has_work(member.link) {
            state.ready.push_back(index);
        }
        drop(core);
        if bytes >= room {
            break;
        }
    }
    (!blocks.is_empty()).then(|| Message::Blocks(v1::AppendBlocks { blocks }))
}
