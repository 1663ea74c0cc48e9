//! `braid append`: events from a file or a pipe into a stream.
//!
//! Lines are handed to the writer in order; what an error stops is everything behind it, never
//! something in front of it. The end of the command says what is stored.

mod fields;
mod header;
mod input;
mod json_array;
mod pace;
mod progress;
mod split;
mod writer;

use std::future::Future;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use client::{Client, Event, Header, StreamConfig};
use common::{ScopedStream, WriterName};
use serde::Serialize;
use tokio::time::Instant;

use self::fields::Fields;
use self::header::HeaderArg;
use self::input::Input;
use self::pace::Pace;
use self::progress::Progress;
use self::split::{InputForm, Splitter};
use self::writer::{Writer, ends_early};
use crate::connect::ConnectArgs;
use crate::failure::{Exit, Failure, Result};
use crate::moment::TimeFormat;
use crate::output::{self, OutputArgs, bytes_text, counted, note};
use crate::signals::Interrupts;

/// Segments of a stream that is created by the first append to it.
const DEV_SEGMENTS: u32 = 4;

/// How long an interrupted append may take to have acknowledged what it has handed over.
const INTERRUPTED_FLUSH: Duration = Duration::from_secs(5);

/// Append events from standard input or a file
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  echo 'hello, river' | braid append demo/hello
  braid append demo/flights --file flights.json --key-field origin
  braid append demo/flights --file flights.json --key-field origin \\
      --time-field date --time-format '%Y/%m/%d %H:%M'
  tail -F app.log | braid append logs/app --key \"$HOSTNAME\"
  braid append demo/load --file big.jsonl --writer loader   # run again after a crash
  tail -F app.log | braid append logs/app --writer tailer --continue

Each line is an event, with its exact bytes, an empty line an empty event. A carriage return before
the newline belongs to the event; --delimiter '\\r\\n' takes it away. Where the input is one JSON
array, each of its elements is an event. Events with the same key are read in the order in
which they were appended; events without a key are spread over the segments.

With --writer NAME the number of an event is its line number. The same input given again under
the same name stores only what is not stored yet. That it is the same is proven, segment by segment:
another input, or one that ends before what is stored, is refused (exit code 4).

With --continue, for pipes that do not begin at the beginning, numbers go on behind the highest
stored one: every line is new. What was on its way when an earlier run crashed may be missing.")]
pub(crate) struct Args {
    /// The stream; `braid dev` creates it (with 4 segments) where it does not exist
    #[arg(value_name = "SCOPE/STREAM")]
    stream: ScopedStream,

    /// Read this file instead of standard input
    #[arg(short, long)]
    file: Option<PathBuf>,

    /// Give every event this routing key
    #[arg(short, long, value_name = "TEXT", conflicts_with = "key_field")]
    key: Option<String>,

    /// Take the routing key from this field; events are JSON objects
    #[arg(long, value_name = "NAME")]
    key_field: Option<String>,

    /// Take the event's own time from this field; events are JSON objects
    #[arg(long, value_name = "NAME")]
    time_field: Option<String>,

    /// How the time is written: rfc3339, epoch-s, epoch-ms, epoch-us, or a strptime pattern
    /// [default: rfc3339, or epoch seconds or milliseconds by their size]
    #[arg(long, value_name = "FORMAT", requires = "time_field")]
    time_format: Option<TimeFormat>,

    /// Give every event this header; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = HeaderArg::parse)]
    header: Vec<HeaderArg>,

    /// What ends a line; \n, \r, \t and \0 stand for the usual characters
    #[arg(long, value_name = "TEXT", default_value = "\\n", value_parser = parse_delimiter)]
    delimiter: Delimiter,

    /// How the input is cut into events
    #[arg(long, value_enum, value_name = "FORM", default_value_t = InputForm::Auto)]
    input: InputForm,

    /// Append at most this many events per second
    #[arg(long, value_name = "EVENTS", value_parser = parse_rate)]
    rate: Option<NonZeroU64>,

    /// Resume under this name: lines that are stored already are not stored again
    #[arg(short, long, value_name = "NAME")]
    writer: Option<WriterName>,

    /// The input is new: number its lines behind the highest that is stored under the name
    #[arg(long = "continue", requires = "writer")]
    continues: bool,

    /// Give up when the server does not answer for this long
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    #[arg(value_parser = humantime::parse_duration)]
    timeout: Duration,

    #[command(flatten)]
    connect: ConnectArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// The bytes that end a line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Delimiter(Vec<u8>);

fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    text.parse().map_err(|_| "write a number of events per second, 1 or more".to_owned())
}

fn parse_delimiter(text: &str) -> Result<Delimiter, String> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => bytes.push(match rest.next() {
                Some('n') => b'\n',
                Some('r') => b'\r',
                Some('t') => b'\t',
                Some('0') => 0,
                Some('\\') => b'\\',
                _ => return Err("after `\\` comes n, r, t, 0 or another `\\`".to_owned()),
            }),
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    if bytes.is_empty() {
        Err("a delimiter has at least one byte".to_owned())
    } else {
        Ok(Delimiter(bytes))
    }
}

/// What is printed at the end.
#[derive(Debug, Serialize)]
struct Summary {
    stream: String,
    /// Events of the input, stored now or before.
    events: u64,
    /// Those stored by this run.
    stored: u64,
    /// Those that an earlier run under the same writer name had stored.
    already_stored: u64,
    /// Bytes of all events of the input, without delimiters.
    bytes: u64,
    seconds: f64,
    /// Whether a signal ended the command before the input did.
    interrupted: bool,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let mut interrupts = Interrupts::listen()?;
    let mut input = Input::open(args.file.as_deref())?;
    let prepared = async {
        let client = args.connect.open_patient(args.timeout).await?;
        ensure_stream(&client, &args.stream).await?;
        Ok::<_, Failure>(Writer::open(args, &client).await?)
    };
    let writer = tokio::select! {
        biased;
        () = interrupts.next() => {
            return Err(Failure::new(Exit::Unavailable, "interrupted before anything was sent"));
        }
        writer = prepared => writer?,
    };
    let mut append = Append::new(args, writer, input.length_bytes);
    let pumped = append.pump(&mut input, &mut interrupts).await;
    append.progress.finish();
    append.conclude(pumped, &mut interrupts).await
}

/// Makes sure that the stream is there: a server of `braid dev` creates it.
async fn ensure_stream(client: &Client, stream: &ScopedStream) -> Result<()> {
    let error = match client.streams().describe(stream).await {
        Ok(_) => return Ok(()),
        Err(error) => Failure::from(error),
    };
    let missing = matches!(error, Failure::Told { exit: Exit::NotFound, .. });
    if !missing || !client.server_info().await?.dev {
        return Err(error);
    }
    let config = StreamConfig { segments: DEV_SEGMENTS, create_scope: true };
    if client.streams().create_stream(stream, config).await?.created {
        note(format_args!("created stream `{stream}` with {DEV_SEGMENTS} segments"));
    }
    Ok(())
}

/// Why no more input is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Input,
    Interrupted,
}

struct Append<'a> {
    args: &'a Args,
    fields: Fields,
    /// Of every event.
    headers: Vec<Header<'a>>,
    splitter: Splitter,
    pace: Option<Pace>,
    progress: Progress,
    start: Instant,
    writer: Writer,
    /// Events handed to the writer.
    events: u64,
    bytes: u64,
}

impl<'a> Append<'a> {
    fn new(args: &'a Args, writer: Writer, input_bytes: Option<u64>) -> Self {
        let time_format = args.time_format.clone().unwrap_or(TimeFormat::Auto);
        let time = args.time_field.clone().map(|field| (field, time_format));
        Self {
            args,
            fields: Fields { key: args.key_field.clone(), time },
            headers: args.header.iter().map(HeaderArg::header).collect(),
            splitter: Splitter::new(args.input, &args.delimiter.0),
            pace: args.rate.map(Pace::new),
            progress: Progress::new(input_bytes),
            start: Instant::now(),
            writer,
            events: 0,
            bytes: 0,
        }
    }

    /// Takes input until it ends, a signal comes, or something is wrong with it.
    async fn pump(&mut self, input: &mut Input, interrupts: &mut Interrupts) -> Result<End> {
        loop {
            let chunk = tokio::select! {
                biased;
                () = interrupts.next() => return Ok(End::Interrupted),
                chunk = input.chunk() => chunk?,
            };
            let ended = chunk.is_none();
            match &chunk {
                Some(bytes) => self.splitter.push(bytes),
                None => self.splitter.end(),
            }
            let before = self.events;
            let end = self.take_events(interrupts).await;
            self.progress
                .advance(self.events - before, chunk.map_or(0, |bytes| bytes.len() as u64));
            match end? {
                Some(end) => return Ok(end),
                None if ended => return Ok(End::Input),
                None => {}
            }
        }
    }

    /// Hands over every event that is complete; says so when a signal came meanwhile.
    async fn take_events(&mut self, interrupts: &mut Interrupts) -> Result<Option<End>> {
        let args = self.args;
        loop {
            if let Some(pace) = &mut self.pace {
                let due = async {
                    pace.wait().await;
                    Ok(())
                };
                if let Some(end) = unless_interrupted(interrupts, due).await? {
                    return Ok(Some(end));
                }
            }
            let noun = self.splitter.noun();
            let (number, payload) = match self.splitter.next() {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(None),
                Err(error) => return Err(Failure::general(error.to_string())),
            };
            let at = |problem: String| Failure::general(format!("{noun} {number} {problem}"));
            let found = self.fields.take(payload).map_err(|error| at(error.to_string()))?;
            let key = found.key.as_deref().or(args.key.as_deref());
            let mut event = Event::new(payload);
            (event.key, event.time_micros) = (key, found.time_micros);
            event.headers = &self.headers;
            event.stored_bytes().map_err(|error| at(format!("cannot be stored: {error}")))?;
            if self.writer.try_append(event)?.is_none() {
                let appended = async { Ok(self.writer.append(event).await.map(drop)?) };
                if let Some(end) = unless_interrupted(interrupts, appended).await? {
                    return Ok(Some(end));
                }
            }
            if let Some(pace) = &mut self.pace {
                pace.sent();
            }
            self.events += 1;
            self.bytes += payload.len() as u64;
        }
    }

    /// Waits until what was handed over is stored, and says how the command ended.
    async fn conclude(mut self, pumped: Result<End>, interrupts: &mut Interrupts) -> Result<()> {
        let patience = match pumped {
            Ok(End::Input) => None,
            Ok(End::Interrupted) | Err(_) => Some(INTERRUPTED_FLUSH),
        };
        // An input that was not taken to its end proves nothing about what comes behind.
        let flushed = match self.flush(patience, interrupts).await {
            Err(error) if !matches!(pumped, Ok(End::Input)) && ends_early(&error) => Ok(false),
            flushed => flushed.map_err(Failure::from),
        };
        // A server that refuses says what frees it; one that is away has nothing to say.
        let trouble = self.writer.trouble();
        let explained = |failure: Failure| match (&failure, &trouble) {
            (Failure::Told { exit: Exit::Unavailable, .. }, Some(trouble)) => {
                failure.adding(&format!("in the way was: {trouble}"))
            }
            _ => failure,
        };
        let (pumped, flushed) = (pumped.map_err(explained), flushed.map_err(explained));
        let noun = self.splitter.noun();
        let acknowledged = self.writer.acknowledged();
        match (pumped, flushed) {
            (Ok(end), Ok(true)) => {
                let already_stored = self.writer.already_stored();
                self.report(end, already_stored)?;
                // Everything is stored: what is left is to be forgotten by the stores.
                self.writer.close().await.map(drop).map_err(Failure::from)
            }
            (Ok(_), Ok(false)) => Err(Failure::new(
                Exit::Unavailable,
                format!(
                    "interrupted before everything was acknowledged; {noun}s up to {acknowledged} \
                     are stored, whether later ones are is unknown"
                ),
            )),
            (Err(failure), Ok(true)) if acknowledged == 0 => {
                Err(failure.adding("nothing of it is stored"))
            }
            (Err(failure), Ok(true)) => {
                Err(failure.adding(&format!("{noun}s up to {acknowledged} are stored, no others")))
            }
            (Err(failure), _) | (Ok(_), Err(failure)) => Err(failure.adding(&format!(
                "{noun}s up to {acknowledged} are stored, whether later ones are is unknown"
            ))),
        }
    }

    /// Whether everything handed over is stored. A signal, now or before, bounds the wait, and a
    /// further one ends it.
    async fn flush(
        &mut self,
        patience: Option<Duration>,
        interrupts: &mut Interrupts,
    ) -> client::Result<bool> {
        let mut flushed = pin!(self.writer.flush());
        let patience = match patience {
            Some(patience) => patience,
            None => tokio::select! {
                biased;
                flushed = flushed.as_mut() => return flushed.map(|_| true),
                () = interrupts.next() => INTERRUPTED_FLUSH,
            },
        };
        tokio::select! {
            biased;
            flushed = flushed => flushed.map(|_| true),
            () = tokio::time::sleep(patience) => Ok(false),
            () = interrupts.next() => Ok(false),
        }
    }

    fn report(&self, end: End, already_stored: u64) -> Result<()> {
        let summary = Summary {
            stream: self.args.stream.to_string(),
            events: self.events,
            stored: self.events.saturating_sub(already_stored),
            already_stored,
            bytes: self.bytes,
            seconds: self.start.elapsed().as_secs_f64(),
            interrupted: end == End::Interrupted,
        };
        output::print_done(self.args.output.output, &summary.sentence(self.args), &summary)
    }
}

impl Summary {
    fn sentence(&self, args: &Args) -> String {
        let mut text = format!("stored {} in {}", counted(self.stored, "event"), self.stream);
        if args.writer.is_some() && !args.continues {
            text += &format!("; {} already stored", were(self.already_stored));
        }
        if self.interrupted {
            text += &format!("; interrupted behind number {}", self.events);
        }
        text + &format!(" ({} in {:.2} s)", bytes_text(self.bytes), self.seconds)
    }
}

fn were(count: u64) -> String {
    let verb = if count == 1 { "was" } else { "were" };
    format!("{count} {verb}")
}

/// Waits for `work` unless a signal comes first.
async fn unless_interrupted(
    interrupts: &mut Interrupts,
    work: impl Future<Output = Result<()>>,
) -> Result<Option<End>> {
    tokio::select! {
        biased;
        done = work => done.map(|()| None),
        () = interrupts.next() => Ok(Some(End::Interrupted)),
    }
}

#[cfg(test)]
mod tests;
