//! How far an offline replay is, for whoever looks on: a bar on a terminal, with what is logged
//! above it. Elsewhere the log's own lines tell ([`told`]).

use crate::offline::CaptureStats;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How often the rate is measured.
const RATE: Duration = Duration::from_secs(1);

static BAR: OnceLock<ProgressBar> = OnceLock::new();

/// Standard error, for a log whose lines stand above the bar.
pub struct AboveBar;

impl Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match BAR.get() {
            Some(bar) => bar.suspend(|| io::stderr().write_all(bytes))?,
            None => io::stderr().write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// True if somebody may be looking on.
pub fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// The bar of a running replay.
pub struct Progress {
    bar: ProgressBar,
    /// When the rate was measured last, the frames then, and the rate.
    measured: (Instant, u64, f64),
}

impl Progress {
    /// Shows a bar, if standard error is a terminal.
    pub fn begin(now: Instant) -> Option<Self> {
        if !is_terminal() {
            return None;
        }
        let bar = BAR.get_or_init(ProgressBar::new_spinner).clone();
        Some(Self {
            bar,
            measured: (now, 0, 0.0),
        })
    }

    /// Shows how far it is: `frames` were read.
    pub fn show(&mut self, now: Instant, stats: &CaptureStats, frames: u64) {
        let (at, before, rate) = &mut self.measured;
        let passed = now.saturating_duration_since(*at);
        if passed >= RATE {
            *rate = frames.saturating_sub(*before) as f64 / passed.as_secs_f64();
            (*at, *before) = (now, frames);
        }
        let rate = *rate;
        if let Some(size) = stats.size
            && self.bar.length() != Some(size)
        {
            self.bar.set_length(size);
            let style = "{bar:30} {percent:>3} %, {msg}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(style) {
                self.bar.set_style(style);
            }
        }
        self.bar.set_position(stats.read);
        let played = clock(stats);
        self.bar
            .set_message(format!("{rate:.0} frames/s, {played} of the capture"));
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// How far it is, behind a line of the log.
pub fn told(stats: &CaptureStats) -> String {
    let share = stats.size.filter(|size| *size > 0).map(|size| {
        let percent = stats.read as f64 * 100.0 / size as f64;
        format!("{:.0} % of the files, ", percent.min(100.0))
    });
    let played = clock(stats);
    format!("; {}{played} of the capture", share.unwrap_or_default())
}

/// Capture time that was read, without what was left out of it: hours, minutes and seconds.
fn clock(stats: &CaptureStats) -> String {
    let seconds = stats.position.saturating_sub(stats.skipped) / 1_000_000_000;
    let (h, m, s) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{h}:{m:02}:{s:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is_in_words() {
        let mut stats = CaptureStats {
            size: Some(1_000),
            read: 255,
            position: 7_325_900_000_000,
            skipped: 3_600_000_000_000,
            ..CaptureStats::default()
        };
        assert_eq!(told(&stats), "; 26 % of the files, 1:02:05 of the capture");
        stats.size = None;
        assert_eq!(told(&stats), "; 1:02:05 of the capture");
        stats.size = Some(0);
        assert_eq!(told(&stats), "; 1:02:05 of the capture");
    }
}
