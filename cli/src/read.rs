//! `braid read`: the events of a stream on standard output.

pub(crate) mod shape;

use std::io::Write as _;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use client::{EventReader, OnTruncated, ReadFrom, ReadUntil, Skipped};
use common::ScopedStream;
use futures::poll;

use self::shape::Shape;
use crate::connect::ConnectArgs;
use crate::failure::{Failure, Result, output_failed};
use crate::output::{Format, note};
use crate::place::Place;
use crate::signals::Interrupts;

/// Bytes of output gathered while more events are at hand.
const OUTPUT_BYTES: usize = 256 * 1024;

/// Read the events of a stream
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  braid read demo/hello --from head                 # everything, then follow
  braid read demo/hello --from head --until tail    # everything that is there now
  braid read demo/hello --from -5m --format json    # the last five minutes, with key and place
  braid read demo/hello --from 2026-11-22T18:00:00Z --limit 10

Events with the same key come in the order in which they were appended. Times are ingest times,
when the server stored an event; reading from a time may begin a little before it, never behind.

--format json gives one object a line: key, time (the event's own), stored, segment, offset, headers
where there are any, and event as text, or in base64 with \"encoding\":\"base64\" where it is not
UTF-8. stored is when the server stored the event: not before earliest and not after latest, which
are less than a second apart for what was stored lately and further apart for what is old (null:
not known).")]
pub(crate) struct Args {
    /// The stream
    #[arg(value_name = "SCOPE/STREAM")]
    stream: ScopedStream,

    /// Where to begin: head, tail, a stream cut, a time (RFC 3339, or seconds or milliseconds
    /// since 1970), or back from now (-5m) [default: tail]
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    from: Option<Place>,

    /// Where to end: tail (as it is at the start), a stream cut, or a time [default: never]
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    until: Option<Place>,

    /// Where what is to be read next was truncated away: fail, or go on at what is kept and say what
    /// was skipped
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Truncated::Fail)]
    on_truncated: Truncated,

    /// End after this many events
    #[arg(long, value_name = "EVENTS")]
    limit: Option<u64>,

    /// What is printed: the event's bytes and a newline, or an object for each event
    #[arg(long, value_enum, default_value_t = Shape::Raw)]
    format: Shape,

    /// The same as --format json, or each event as a YAML document, or as a line with its place
    #[arg(short, long, value_enum, conflicts_with = "format")]
    output: Option<Format>,

    /// Give up when the server does not answer for this long
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    #[arg(value_parser = humantime::parse_duration)]
    timeout: Duration,

    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Truncated {
    Fail,
    Skip,
}

impl From<Truncated> for OnTruncated {
    fn from(truncated: Truncated) -> Self {
        match truncated {
            Truncated::Fail => Self::Fail,
            Truncated::Skip => Self::Skip,
        }
    }
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let mut interrupts = Interrupts::listen()?;
    if args.from.is_none() {
        note(format_args!("reading from the tail; --from head reads everything"));
    }
    if let Some(time) = args.from.as_ref().and_then(Place::in_the_future) {
        note(format_args!("{time} has not come yet: reading from the tail"));
    }
    let opened = async {
        let client = args.connect.open_patient(args.timeout).await?;
        let reader = client
            .event_reader(&args.stream)
            .from(read_from(args.from.clone().unwrap_or(Place::Tail)))
            .until(read_until(args.until.clone()))
            .on_truncated(args.on_truncated.into());
        Ok::<_, Failure>(reader.open().await?)
    };
    let reader = tokio::select! {
        biased;
        () = interrupts.next() => return Ok(()),
        reader = opened => reader?,
    };
    let shape = args.output.map_or(args.format, Shape::from);
    copy(reader, shape, args.limit.unwrap_or(u64::MAX), &mut interrupts).await
}

fn read_from(place: Place) -> ReadFrom {
    match place {
        Place::Head => ReadFrom::Head,
        Place::Tail => ReadFrom::Tail,
        Place::Cut(cut) => ReadFrom::Cut(cut),
        Place::Time(time) => ReadFrom::Time(time),
    }
}

fn read_until(place: Option<Place>) -> ReadUntil {
    match place {
        None => ReadUntil::Never,
        // Nothing lies before the head: the reader ends at once, as asked.
        Some(Place::Head) => ReadUntil::Time(common::WallTime(0)),
        Some(Place::Tail) => ReadUntil::Tail,
        Some(Place::Cut(cut)) => ReadUntil::Cut(cut),
        Some(Place::Time(time)) => ReadUntil::Time(time),
    }
}

fn tell_skipped(Skipped { segment, from, to, .. }: Skipped) {
    let segment = segment.local_name();
    match to {
        Some(to) => note(format_args!(
            "segment {segment}: skipped bytes {from} to {to}, which were truncated away"
        )),
        None => note(format_args!(
            "segment {segment}: skipped everything from byte {from} on, which was truncated away"
        )),
    }
}

/// Writes events until the end, the limit or a signal. Output is gathered while events are at
/// hand and written before waiting for more, so that a follower sees each at once.
async fn copy(
    mut reader: EventReader,
    shape: Shape,
    limit: u64,
    interrupts: &mut Interrupts,
) -> Result<()> {
    let mut out = std::io::BufWriter::with_capacity(OUTPUT_BYTES, std::io::stdout().lock());
    for _ in 0..limit {
        let event = {
            let mut next = pin!(reader.next());
            match poll!(next.as_mut()) {
                Poll::Ready(event) => event,
                Poll::Pending => {
                    out.flush().map_err(output_failed)?;
                    tokio::select! {
                        biased;
                        () = interrupts.next() => break,
                        event = next => event,
                    }
                }
            }
        };
        reader.take_skipped().into_iter().for_each(tell_skipped);
        match event {
            None => break,
            Some(Ok(event)) => shape.write(&mut out, &event)?,
            Some(Err(error)) => {
                out.flush().map_err(output_failed)?;
                return Err(error.into());
            }
        }
    }
    out.flush().map_err(output_failed)
}
