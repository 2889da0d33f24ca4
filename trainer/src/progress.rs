//! Progress for people on standard error, and for programs on standard output.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use trainer::{EpochMetrics, EpochStart, Observer, StepProgress};

use crate::cli::Format;

/// Where there is no terminal, a long epoch says how far it is this often.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Shows a bar per epoch on a terminal, and plain lines elsewhere; as JSON, prints one object per epoch.
pub(crate) struct Progress {
    format: Format,
    bar: Option<ProgressBar>,
    interactive: bool,
    start: Option<EpochStart>,
    spoke: Instant,
    failure: Option<io::Error>,
}

impl Progress {
    pub(crate) fn new(format: Format) -> Self {
        let interactive = io::stderr().is_terminal();
        Self { format, bar: None, interactive, start: None, spoke: Instant::now(), failure: None }
    }

    /// Clears the bar, and reports what could not be printed.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        self.clear();
        self.failure.map_or(Ok(()), |error| Err(error).context("cannot write to standard output"))
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Shows how many pictures are done, on a bar that appears with the first of them.
    fn show(&mut self, task: &'static str, done: usize, total: usize) {
        if !self.interactive {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| bar(total, "{msg:>12} {wide_bar} {pos}/{len}  {eta} left"));
        bar.set_message(task);
        bar.set_position(done as u64);
        if done == total {
            self.clear();
        }
    }
}

fn bar(total: usize, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the templates are part of the program");
    ProgressBar::new(total as u64).with_style(style.progress_chars("━╸ "))
}

impl Observer for Progress {
    fn notice(&mut self, text: &str) {
        self.clear();
        eprintln!("{text}");
    }

    fn checked(&mut self, done: usize, total: usize) {
        self.show("reading", done, total);
    }

    fn downloaded(&mut self, done: u64, total: u64) {
        // In MiB, the last of which is not whole.
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20) as usize;
        self.show("downloading", mebibytes(done), mebibytes(total));
    }

    fn epoch_started(&mut self, start: EpochStart) {
        self.clear();
        self.start = Some(start);
        self.spoke = Instant::now();
        if self.interactive {
            let bar = bar(start.pictures, "{prefix} {wide_bar} {pos}/{len}  {msg}  {per_sec:>9}  {eta} left");
            bar.set_prefix(format!("epoch {}/{}", start.epoch, start.epochs));
            bar.set_position(start.done as u64);
            bar.reset_eta();
            self.bar = Some(bar);
        }
    }

    fn stepped(&mut self, progress: StepProgress) {
        let figures = format!("loss {:.4}  accuracy {:5.1} %", progress.loss, 100.0 * progress.accuracy);
        if let Some(bar) = &self.bar {
            bar.set_message(figures);
            bar.set_position(progress.done as u64);
        } else if let Some(start) = self.start
            && self.spoke.elapsed() >= LINE_EVERY
        {
            self.spoke = Instant::now();
            eprintln!(
                "epoch {}/{}  {} of {} pictures  {figures}",
                start.epoch, start.epochs, progress.done, start.pictures
            );
        }
    }

    fn validated(&mut self, done: usize, total: usize) {
        if self.start.take().is_some() {
            self.clear();
        }
        self.show("validating", done, total);
    }

    fn ranged(&mut self, done: usize, steps: usize) {
        self.show("testing", done, steps);
    }

    fn taught(&mut self, done: usize, total: usize) {
        self.show("teacher", done, total);
    }

    fn distorted(&mut self, done: usize, total: usize) {
        self.show("distorting", done, total);
    }

    fn epoch_finished(&mut self, metrics: &EpochMetrics, epochs: u32, best: bool) {
        self.clear();
        eprintln!("{}", line(metrics, epochs, best));
        if self.format == Format::Json && self.failure.is_none() {
            self.failure = print_json(&Event { event: "epoch", metrics, best }).err();
        }
    }
}

/// One line of the JSON output.
#[derive(Serialize)]
struct Event<'a> {
    event: &'static str,
    #[serde(flatten)]
    metrics: &'a EpochMetrics,
    best: bool,
}

fn print_json(event: &Event<'_>) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", serde_json::to_string(event)?)
}

fn line(metrics: &EpochMetrics, epochs: u32, best: bool) -> String {
    let EpochMetrics {
        epoch, loss, accuracy, validation_loss, validation_accuracy, seconds, pictures_per_second, ..
    } = metrics;
    let mut line = format!("epoch {epoch}/{epochs}  loss {loss:.4}  accuracy {:5.1} %", 100.0 * accuracy);
    if let (Some(loss), Some(accuracy)) = (validation_loss, validation_accuracy) {
        line += &format!("  validation loss {loss:.4}  accuracy {:5.1} %", 100.0 * accuracy);
    }
    line += &format!("  {seconds:.1} s  {pictures_per_second:.1} pictures/s");
    if best {
        line += "  best";
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> EpochMetrics {
        EpochMetrics {
            epoch: 3,
            learning_rate: 1e-4,
            loss: 0.5,
            accuracy: 0.75,
            validation_loss: Some(0.25),
            validation_accuracy: Some(1.0),
            seconds: 12.34,
            pictures_per_second: 56.78,
            gradient_norm: None,
        }
    }

    #[test]
    fn an_epoch_is_a_line() {
        let expected = "epoch 3/20  loss 0.5000  accuracy  75.0 %  validation loss 0.2500  accuracy 100.0 %  \
                        12.3 s  56.8 pictures/s  best";
        assert_eq!(line(&metrics(), 20, true), expected);
        let alone = EpochMetrics { validation_loss: None, validation_accuracy: None, ..metrics() };
        assert_eq!(line(&alone, 20, false), "epoch 3/20  loss 0.5000  accuracy  75.0 %  12.3 s  56.8 pictures/s");
    }

    #[test]
    fn an_epoch_is_one_json_object() {
        let json = serde_json::to_value(Event { event: "epoch", metrics: &metrics(), best: true }).expect("plain data");
        assert_eq!((&json["event"], &json["epoch"], &json["best"]), (&"epoch".into(), &3.into(), &true.into()));
        assert_eq!(json["validation_accuracy"], 1.0);
    }
}
