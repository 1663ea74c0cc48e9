//! Readers: everything from a place to the tail of that moment, again and again.

use bytes::{Bytes, BytesMut};
use client::{Client, ClientError, ErrorKind, Offset, Rng};
use tests::history::{Answer, Operation, What};
use tests::payload;
use tokio_util::sync::CancellationToken;

use super::journal::Stream;
use super::{ASK_AGAIN, Load, pass, pass_some};

/// Goes on where it was, and now and then from the head, until told to stop.
pub async fn follow(
    load: Load,
    client: Client,
    stream: Stream,
    mut rng: Rng,
    stop: CancellationToken,
) {
    let mut next = vec![0; stream.places.len()];
    while !stop.is_cancelled() {
        let segment = rng.below(next.len() as u64) as usize;
        let from = if rng.chance(1, 6) { 0 } else { next[segment] };
        let reading = Box::pin(read(&load, &client, &stream, segment, from, false));
        match stop.run_until_cancelled(reading).await {
            Some(Some(end)) => next[segment] = end,
            Some(None) | None => return,
        }
        stop.run_until_cancelled(pass_some(&mut rng, 10, 300)).await;
    }
}

/// One read with its lines in the history. Returns where it ended; `None` where the stream is gone.
pub async fn read(
    load: &Load,
    client: &Client,
    stream: &Stream,
    segment: usize,
    from: u64,
    last: bool,
) -> Option<u64> {
    let of = stream.segment(segment);
    let op = load.journal.invoke(Operation::Read { segment: of, from, last });
    loop {
        match attempt(client, stream, segment, from).await {
            Ok((answer, next)) => {
                load.journal.end(op, What::Ok { answer });
                return Some(next);
            }
            Err(ClientError::Truncated { .. }) => {}
            Err(error) if error.is_transient() => {
                pass(ASK_AGAIN).await;
            }
            Err(error) if error.kind() == ErrorKind::NotFound && !last => {
                load.journal.end(op, What::Fail { reason: error.to_string() });
                return None;
            }
            Err(error) => {
                load.problem(format!("read of {of:?} (`{}`) from {from}: {error}", stream.name));
                return None;
            }
        }
    }
}

async fn attempt(
    client: &Client,
    stream: &Stream,
    segment: usize,
    from: u64,
) -> client::Result<(Answer, u64)> {
    let place = &stream.places[segment];
    let info = client.streams().segment_infos(std::slice::from_ref(place)).await?[0];
    let (start, end) = (info.start_offset.0, info.length.0);
    let mut next = from.max(start);
    let mut events = Vec::new();
    let mut rest = Bytes::new();
    let mut reader = client.segment_reader(place, Offset(next)).until(Some(Offset(end.max(next))));
    while let Some(more) = reader.next().await? {
        let bytes = joined(&rest, more.data);
        let (seen, behind) = payload::parse(bytes.clone(), next);
        let damaged = seen.iter().any(|seen| !seen.intact);
        events.extend(seen);
        if damaged {
            next = behind;
            break;
        }
        rest = bytes.slice((behind - next) as usize..);
        next = behind;
    }
    Ok((Answer::Read { start, next, at_tail: next >= end, events }, next))
}

fn joined(rest: &Bytes, more: Bytes) -> Bytes {
    if rest.is_empty() {
        return more;
    }
    let mut joined = BytesMut::with_capacity(rest.len() + more.len());
    joined.extend_from_slice(rest);
    joined.extend_from_slice(&more);
    joined.freeze()
}
