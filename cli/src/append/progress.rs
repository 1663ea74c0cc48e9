//! Shows how far an append has come, where someone looks.

use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::output;

/// A line on the terminal that is redrawn; nothing where standard error is no terminal.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    start: Instant,
    events: u64,
    bytes: u64,
}

impl Progress {
    /// `input_bytes`: the input's length where it is known.
    pub(crate) fn new(input_bytes: Option<u64>) -> Self {
        let bar = output::progress_is_seen().then(|| bar(input_bytes));
        Self { bar, start: Instant::now(), events: 0, bytes: 0 }
    }

    /// Events handed to the writer and bytes taken from the input since the last call.
    pub(crate) fn advance(&mut self, events: u64, bytes: u64) {
        self.events += events;
        self.bytes += bytes;
        let Some(bar) = &self.bar else { return };
        bar.set_position(self.bytes);
        let seconds = self.start.elapsed().as_secs_f64().max(0.001);
        bar.set_message(format!(
            "{} events, {:.0}/s, {}/s",
            self.events,
            self.events as f64 / seconds,
            HumanBytes((self.bytes as f64 / seconds) as u64),
        ));
    }

    /// Takes the line away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(input_bytes: Option<u64>) -> ProgressBar {
    const REDRAWS_PER_SECOND: u8 = 8;
    let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND);
    let (bar, template) = match input_bytes {
        Some(length) => {
            let bar = ProgressBar::with_draw_target(Some(length), target);
            (bar, "{percent:>3}% of {total_bytes}  {msg}  {eta} left")
        }
        None => (ProgressBar::with_draw_target(None, target), "{spinner} {bytes}  {msg}"),
    };
    bar.enable_steady_tick(Duration::from_millis(250));
    // The templates above are tried in the test below.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_silent_without_a_terminal() {
        let mut progress = Progress { bar: None, start: Instant::now(), events: 0, bytes: 0 };
        progress.advance(2, 10);
        progress.advance(1, 5);
        progress.finish();
        assert_eq!((progress.events, progress.bytes), (3, 15));
    }
}
