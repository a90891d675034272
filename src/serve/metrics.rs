//! What the server counts, in the text form of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use skipc_runtime::decode::{PageUse, Progress};

/// All counts since the start.
#[derive(Debug)]
pub(super) struct Metrics {
    /// What each router decides about.
    layers: Vec<String>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// By path and status.
    requests: BTreeMap<(&'static str, u16), u64>,
    tokens: Tokens,
    running: usize,
    waiting: usize,
    pages: PageUse,
    /// Tokens that each router decided about.
    decided: u64,
    /// How many of them each router executed.
    executed: Vec<u64>,
}

#[derive(Debug, Default)]
struct Tokens {
    prompt: u64,
    new: u64,
    known: u64,
}

impl Metrics {
    pub(super) fn new(layers: Vec<String>) -> Metrics {
        Metrics { layers, counts: Mutex::default() }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Numbers are sound at any time.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request was answered.
    pub(super) fn answered(&self, path: &'static str, status: u16) {
        *self.counts().requests.entry((path, status)).or_default() += 1;
    }

    /// A step ran; then so many requests run and wait.
    pub(super) fn stepped(&self, progress: Progress, (running, waiting): (usize, usize), pages: PageUse) {
        let mut counts = self.counts();
        counts.tokens.prompt += u64::from(progress.prompt_tokens);
        counts.tokens.new += u64::from(progress.new_tokens);
        counts.tokens.known += u64::from(progress.known_tokens);
        (counts.running, counts.waiting, counts.pages) = (running, waiting, pages);
    }

    pub(super) fn set_pages(&self, pages: PageUse) {
        self.counts().pages = pages;
    }

    /// Routers decided about tokens: `[routers][tokens]`.
    pub(super) fn ran(&self, gates: &[Vec<u8>]) {
        let mut counts = self.counts();
        counts.decided += gates.first().map_or(0, |gate| gate.len() as u64);
        counts.executed.resize(gates.len(), 0);
        for (executed, gate) in counts.executed.iter_mut().zip(gates) {
            *executed += gate.iter().map(|executes| u64::from(*executes)).sum::<u64>();
        }
    }

    /// The page for Prometheus.
    pub(super) fn text(&self) -> String {
        let counts = self.counts();
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, rows: &[(String, String)]| {
            // Writing to a string does not fail.
            let _ = write!(text, "# HELP skipc_{name} {help}\n# TYPE skipc_{name} {kind}\n");
            for (labels, value) in rows {
                let _ = writeln!(text, "skipc_{name}{labels} {value}");
            }
        };
        let requests: Vec<_> = counts
            .requests
            .iter()
            .map(|((path, status), count)| {
                (format!("{{path=\"{path}\",status=\"{status}\"}}"), count.to_string())
            })
            .collect();
        family("requests_total", "counter", "Requests answered.", &requests);
        let one = |count: u64| [(String::new(), count.to_string())];
        let Tokens { prompt, new, known } = counts.tokens;
        family("prompt_tokens_total", "counter", "Tokens of prompts that ran.", &one(prompt));
        family("new_tokens_total", "counter", "Tokens of continuations that ran.", &one(new));
        let help = "Tokens that did not run, because a sequence that began alike had left them in the cache.";
        family("prefix_cached_tokens_total", "counter", help, &one(known));
        family("requests_running", "gauge", "Continuations that have a slot.", &one(counts.running as u64));
        family(
            "requests_waiting",
            "gauge",
            "Continuations that wait for a slot.",
            &one(counts.waiting as u64),
        );
        let PageUse { used, kept, free } = counts.pages;
        let pages = [("used", used), ("kept", kept), ("free", free)]
            .map(|(state, count)| (format!("{{state=\"{state}\"}}"), count.to_string()));
        family(
            "pages",
            "gauge",
            "Pages of the cache: of running sequences, kept for others that begin alike, free.",
            &pages,
        );
        let executed = counts.executed.iter().chain(std::iter::repeat(&0));
        let share = |(layer, executed): (&String, &u64)| {
            let share = *executed as f64 / counts.decided.max(1) as f64;
            (format!("{{layer=\"{layer}\"}}"), share.to_string())
        };
        let shares: Vec<_> = self.layers.iter().zip(executed).map(share).collect();
        family(
            "executed_share",
            "gauge",
            "Share of the tokens that ran for which a layer was executed.",
            &shares,
        );
        text
    }
}
