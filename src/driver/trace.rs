//! What a compile shows of itself: stages for `--emit` and `--dump-to`, times for `--timing`, and what it is at.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use skipc_artifact::replace;

/// Told what a compile is at, from any thread: a part of the work when it begins and how far it is, nothing when it is
/// done.
pub type Progress = Arc<dyn Fn(Option<&str>) + Send + Sync>;

/// Progress that nobody hears of.
pub fn unheard() -> Progress {
    Arc::new(|_| ())
}

/// Collects what the stages of a compile print. Nothing of it reaches an artefact.
pub struct Trace {
    dump_to: Option<PathBuf>,
    emit: Option<String>,
    emitted: Vec<String>,
    seen: Vec<String>,
    n_dumped: usize,
    times: Vec<(String, Duration)>,
    progress: Progress,
    started: Instant,
}

impl Trace {
    /// `emit` names the stage to keep, `dump_to` the folder for all of them (made if missing).
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn new(emit: Option<String>, dump_to: Option<PathBuf>) -> std::io::Result<Trace> {
        if let Some(dir) = &dump_to {
            fs::create_dir_all(dir)?;
        }
        Ok(Trace { dump_to, emit, ..Trace::silent() })
    }

    /// A trace that keeps nothing.
    pub fn silent() -> Trace {
        Trace {
            dump_to: None,
            emit: None,
            emitted: Vec::new(),
            seen: Vec::new(),
            n_dumped: 0,
            times: Vec::new(),
            progress: unheard(),
            started: Instant::now(),
        }
    }

    /// The trace, with something that is told what the compile is at.
    #[must_use]
    pub fn with_progress(mut self, progress: Progress) -> Trace {
        self.progress = progress;
        self
    }

    /// What is told how far the compile is.
    pub fn progress(&self) -> Progress {
        Arc::clone(&self.progress)
    }

    /// Offers a stage's text. `stage` is what `--emit` takes; `name` tells passes and targets apart.
    ///
    /// # Errors
    /// If it cannot be written to the dump folder.
    pub fn stage(
        &mut self,
        stage: &str,
        name: &str,
        extension: &str,
        text: impl FnOnce() -> String,
    ) -> std::io::Result<()> {
        if !self.seen.iter().any(|seen| seen == stage) {
            self.seen.push(stage.to_owned());
        }
        let wanted = self.emit.as_deref() == Some(stage);
        if !wanted && self.dump_to.is_none() {
            return Ok(());
        }
        let text = text();
        if let Some(dir) = &self.dump_to {
            let name: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            let path = dir.join(format!("{:02}-{name}.{extension}", self.n_dumped));
            replace::bytes(&path, text.as_bytes()).map_err(std::io::Error::other)?;
            self.n_dumped += 1;
        }
        if wanted {
            self.emitted.push(text);
        }
        Ok(())
    }

    /// Says that a part of the work begins; it lasts until the next begins or the trace ends.
    pub fn begin(&mut self, what: &str) {
        self.end();
        (self.progress)(Some(what));
        self.times.push((what.to_owned(), Duration::ZERO));
        self.started = Instant::now();
    }

    /// Says that the part that began last is done.
    pub fn end(&mut self) {
        if let Some((_, time)) = self.times.last_mut()
            && time.is_zero()
        {
            *time = self.started.elapsed();
        }
        (self.progress)(None);
    }

    /// How long each part took, in order.
    pub fn times(&self) -> &[(String, Duration)] {
        &self.times
    }

    /// The text of the stage that `--emit` names; if the compile had no such stage, the names of those it had.
    ///
    /// # Errors
    /// The names of the stages that there are.
    pub fn emitted(&self) -> Result<String, &[String]> {
        if self.emitted.is_empty() { Err(&self.seen) } else { Ok(self.emitted.join("\n")) }
    }
}
