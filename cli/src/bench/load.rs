//! Sends events and learns when each is acknowledged.
//!
//! At a rate the load is open-loop: each event has a moment at which it is meant to be sent, and
//! its latency counts from there, whatever held it up. At full speed there is no such moment, and
//! latency counts from when the event was handed to the writer.

use std::time::Duration;

use client::{Event, EventNumber, EventWriter};
use futures::future::{join, join_all, try_join_all};
use tokio::sync::mpsc;

use super::clock::{BenchClock, Window};
use super::latency::Latencies;
use super::pacer::{Pacer, Pacing};
use super::payload::{Header, Payload};
use crate::failure::{Failure, Result};

/// Events that share one look at the clock at full speed.
const SPAN_EVENTS: u32 = 64;

/// Events sent at full speed before others get a turn.
const TURN_EVENTS: u32 = 1_024;

/// Wake-ups of a sender are at least this far apart, which is also Linux's default timer slack: at
/// high rates a wake-up for each event would cost the client most of a core. Latency counts from
/// when an event was meant to be sent all the same.
const SLACK_NANOS: u64 = 50_000;

/// Spans on their way to acknowledgement, per writer: more than fit a writer's memory.
const SPANS_AHEAD: usize = 1 << 16;

/// What is sent.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) event_size: usize,
    /// All writers together; `None`: as fast as it goes.
    pub(super) rate: Option<u64>,
    pub(super) pacing: Pacing,
    pub(super) window: Window,
}

/// A writer and the keys it sends to.
pub(super) struct Sender {
    pub(super) writer: EventWriter,
    number: u32,
    /// (index of the key among all keys, the key, events sent with it).
    keys: Vec<(u32, String, u64)>,
    turn: usize,
}

/// What came of it.
pub(super) struct Outcome {
    pub(super) latencies: Latencies,
    /// How much later than meant events were sent.
    pub(super) lateness: Latencies,
    /// Events acknowledged within the window.
    pub(super) acknowledged: u64,
    /// By writer and key, the events sent.
    pub(super) sent: Vec<u64>,
}

/// Events handed over together that become durable together.
struct Span {
    last: EventNumber,
    first_nanos: u64,
    step_nanos: u64,
    events: u32,
}

impl Sender {
    pub(super) fn new(number: u32, writer: EventWriter, keys: Vec<(u32, String)>) -> Self {
        let keys = keys.into_iter().map(|(index, key)| (index, key, 0)).collect();
        Self { writer, number, keys, turn: 0 }
    }

    /// Hands over the next event. Waits only where the writer's memory is used up.
    pub(super) async fn send(&mut self, payload: &mut Payload, sent_nanos: u64) -> Result<()> {
        let (key_index, key, count) = &mut self.keys[self.turn];
        *count += 1;
        let header = Header { writer: self.number, key: *key_index, number: *count, sent_nanos };
        let event = Event::new(payload.with(header)).key(key);
        if self.writer.try_append(event)?.is_none() {
            self.writer.append(event).await?;
        }
        self.turn = (self.turn + 1) % self.keys.len();
        Ok(())
    }

    /// A span of the last `events` handed over.
    fn span(&self, first_nanos: u64, step_nanos: u64, events: u32) -> Span {
        let last = EventNumber(self.writer.next_number().0 - 1);
        Span { last, first_nanos, step_nanos, events }
    }
}

/// Sends until the window ends and waits until everything is acknowledged. Gives the senders back.
pub(super) async fn run(
    plan: &Plan,
    clock: BenchClock,
    senders: Vec<Sender>,
    keys: usize,
) -> Result<Outcome> {
    let (spans, receivers): (Vec<_>, Vec<_>) =
        senders.iter().map(|_| mpsc::channel(SPANS_AHEAD)).unzip();
    let watched = senders.iter().map(|sender| sender.writer.clone()).zip(receivers);
    let watching = watched.map(|(writer, spans)| watch(writer, spans, clock, plan.window));
    let watching = join_all(watching);
    let sending = async {
        match plan.rate {
            None => {
                let all = senders.into_iter().zip(spans);
                let all = all.map(|(sender, spans)| send_at_full_speed(plan, clock, sender, spans));
                Ok((try_join_all(all).await?, Latencies::new()))
            }
            Some(rate) if plan.pacing == Pacing::Spin => {
                on_own_thread(plan.clone(), rate, clock, senders, spans).await
            }
            Some(rate) => send_at_rate(plan, rate, clock, senders, spans).await,
        }
    };
    let (sent, watched) = join(sending, watching).await;
    let (senders, lateness) = sent?;
    let mut outcome =
        Outcome { latencies: Latencies::new(), lateness, acknowledged: 0, sent: Vec::new() };
    for watched in watched {
        let (latencies, acknowledged) = watched?;
        outcome.latencies.add(&latencies);
        outcome.acknowledged += acknowledged;
    }
    outcome.sent = sent_by_key(&senders, keys);
    for sender in senders {
        sender.writer.close().await?;
    }
    Ok(outcome)
}

pub(super) fn sent_by_key(senders: &[Sender], keys: usize) -> Vec<u64> {
    let mut sent = vec![0; senders.len() * keys];
    for sender in senders {
        for (key, _, count) in &sender.keys {
            sent[sender.number as usize * keys + *key as usize] = *count;
        }
    }
    sent
}

async fn send_at_full_speed(
    plan: &Plan,
    clock: BenchClock,
    mut sender: Sender,
    spans: mpsc::Sender<Span>,
) -> Result<Sender> {
    let mut payload = Payload::new(plan.event_size);
    let mut turn = 0;
    loop {
        let now = clock.nanos();
        if now >= plan.window.until {
            return Ok(sender);
        }
        for _ in 0..SPAN_EVENTS {
            sender.send(&mut payload, now).await?;
        }
        if spans.send(sender.span(now, 0, SPAN_EVENTS)).await.is_err() {
            // Whoever watches has failed and says why.
            return Ok(sender);
        }
        turn += SPAN_EVENTS;
        if turn >= TURN_EVENTS {
            turn = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Event `i` of all is meant for the moment `i / rate` and goes to writer `i % writers`.
async fn send_at_rate(
    plan: &Plan,
    rate: u64,
    clock: BenchClock,
    mut senders: Vec<Sender>,
    spans: Vec<mpsc::Sender<Span>>,
) -> Result<(Vec<Sender>, Latencies)> {
    let pacer = Pacer::new(plan.pacing)?;
    let mut payload = Payload::new(plan.event_size);
    let mut lateness = Latencies::new();
    let begin = clock.nanos();
    let due_at = |event: u64| begin + (u128::from(event) * 1_000_000_000 / u128::from(rate)) as u64;
    let writers = senders.len() as u64;
    let step_nanos = 1_000_000_000 * writers / rate;
    let mut event = 0;
    let mut woken = 0;
    // (moment of the first, events) handed over in this round, by writer.
    let mut round = vec![(0, 0_u32); senders.len()];
    while due_at(event) < plan.window.until {
        pacer.wait_until(&clock, due_at(event).max(woken + SLACK_NANOS)).await?;
        let now = clock.nanos();
        woken = now;
        let from = event;
        while due_at(event) <= now && event - from < u64::from(TURN_EVENTS) {
            let (due, w) = (due_at(event), (event % writers) as usize);
            senders[w].send(&mut payload, due).await?;
            if plan.window.contains(due) {
                lateness.record(now - due);
            }
            if round[w].1 == 0 {
                round[w].0 = due;
            }
            round[w].1 += 1;
            event += 1;
        }
        for touched in from..event.min(from + writers) {
            let w = (touched % writers) as usize;
            let (first, events) = std::mem::take(&mut round[w]);
            if spans[w].send(senders[w].span(first, step_nanos, events)).await.is_err() {
                return Ok((senders, lateness));
            }
        }
        if event - from == u64::from(TURN_EVENTS) {
            tokio::task::yield_now().await;
        }
    }
    Ok((senders, lateness))
}

/// As [`send_at_rate`], on a thread that may spin without holding up anything else.
async fn on_own_thread(
    plan: Plan,
    rate: u64,
    clock: BenchClock,
    senders: Vec<Sender>,
    spans: Vec<mpsc::Sender<Span>>,
) -> Result<(Vec<Sender>, Latencies)> {
    let (done, result) = tokio::sync::oneshot::channel();
    // The client's tasks stay in this runtime; only waiting and sending happen over there.
    let runtime = tokio::runtime::Handle::current();
    common::tasks::spawn_thread("sender", move || {
        let sent = runtime.block_on(send_at_rate(&plan, rate, clock, senders, spans));
        // Nobody waits any more: the measurement has failed.
        let _ = done.send(sent);
    })?;
    result.await.unwrap_or_else(|_| Err(Failure::general("the sending thread has panicked")))
}

/// Records when each span is acknowledged. Acknowledgements come in order, so that waiting for
/// one after the other misses none.
async fn watch(
    writer: EventWriter,
    mut spans: mpsc::Receiver<Span>,
    clock: BenchClock,
    window: Window,
) -> Result<(Latencies, u64)> {
    let (mut latencies, mut acknowledged) = (Latencies::new(), 0);
    while let Some(span) = spans.recv().await {
        writer.wait_acknowledged(span.last).await?;
        let now = clock.nanos();
        if window.contains(now) {
            acknowledged += u64::from(span.events);
        }
        if span.step_nanos == 0 {
            if window.contains(span.first_nanos) {
                latencies.record_many(now - span.first_nanos, span.events.into());
            }
            continue;
        }
        for event in 0..u64::from(span.events) {
            let meant = span.first_nanos + event * span.step_nanos;
            if window.contains(meant) {
                latencies.record(now.saturating_sub(meant));
            }
        }
    }
    Ok((latencies, acknowledged))
}

/// Waits for a moment, for whoever is not in a hurry.
pub(super) async fn until(clock: BenchClock, nanos: u64) {
    tokio::time::sleep_until(clock.at(nanos)).await;
}

/// How long an unhurried look at the server waits for the next one.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);
