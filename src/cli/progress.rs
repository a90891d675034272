//! What long commands show of themselves on a terminal; nothing where standard error is none.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::driver::trace::Progress;

/// A line of progress that is gone when its owner is.
pub(super) struct Line(ProgressBar);

impl Drop for Line {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Line {
    /// A spinner with the part of the work that is being done.
    pub(super) fn spinner() -> Line {
        Line::new(|| {
            let bar = ProgressBar::new_spinner().with_style(style("{spinner} {msg} {elapsed}"));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        })
    }

    /// A bar of rounds. It has no tick of its own, which would be a thread that disturbs what is timed.
    pub(super) fn rounds(rounds: u64) -> Line {
        Line::counting("round", rounds)
    }

    /// A bar of so many things.
    pub(super) fn counting(what: &str, count: u64) -> Line {
        let template = format!("{{bar:24}} {what} {{pos}} of {{len}} {{elapsed}}");
        Line::new(|| ProgressBar::new(count).with_style(style(&template)))
    }

    /// A bar of so many steps, of which some are done, with what the last one found and the time that is left.
    pub(super) fn training(steps: u64, done: u64) -> Line {
        let template = "{bar:24} step {pos} of {len} {msg} {elapsed}, {eta} left";
        Line::new(|| ProgressBar::new(steps).with_position(done).with_style(style(template)))
    }

    fn new(bar: impl FnOnce() -> ProgressBar) -> Line {
        Line(if std::io::stderr().is_terminal() { bar() } else { ProgressBar::hidden() })
    }

    /// One more is done.
    pub(super) fn turn(&self) {
        self.0.inc(1);
    }

    /// What is being done now.
    pub(super) fn at(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_spinner())
}

/// A spinner for a compile.
pub(super) fn of_compile() -> Progress {
    let line = Line::spinner();
    Arc::new(move |what| line.at(what.unwrap_or_default()))
}
