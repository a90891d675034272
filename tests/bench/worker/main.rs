//! Runs and times artefacts in a process of its own, at the word of `tests/bench/peers/run.py`, so that other programs can
//! take turns with it.
//!
//! Reads one request a line from the standard input and answers each with a line of JSON. An artefact is loaded once, a
//! batch handed over once; a time is that of a whole step as a caller of the runtime sees it. It ends with its input.

#[expect(unsafe_code, reason = "calls instructions that only some processors have")]
mod peak;

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};
use skipc_runtime::decode::{Cached, Chunk, Decoder as _, Rows, Slot, likeliest};
use skipc_runtime::{Batch, Device, Model, Options, Session};

/// What can be asked. Sessions and batches are named by the numbers that loading them gave.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    /// Makes a session of an artefact.
    Load { artefact: PathBuf, threads: usize },
    /// Keeps tokens, or the rows of a file of f32 in their place, for later runs.
    Batch {
        #[serde(default)]
        tokens: Vec<u32>,
        rows: Option<PathBuf>,
        lengths: Vec<u32>,
    },
    /// Runs a step once; writes the logits as bytes of f32 if a file is named.
    Run { session: usize, batch: usize, logits: Option<PathBuf> },
    /// Runs a step some times; each kernel's median.
    Steps { session: usize, batch: usize, rounds: usize },
    /// Continues a prompt by the likeliest tokens from caches: the tokens, the time of the prompt and of each step behind
    /// it, and how many routers executed each new token; writes the logits of the last token of the prompt as bytes of f32
    /// if a file is named.
    Decode { session: usize, prompt: Vec<u32>, count: u32, logits: Option<PathBuf> },
    /// The most multiply-adds that so many threads do at once.
    Peak { threads: usize },
}

#[derive(Default)]
struct Worker {
    sessions: Vec<Session>,
    batches: Vec<Batch>,
}

impl Worker {
    fn answer(&mut self, request: Request) -> Result<Value, Box<dyn Error>> {
        match request {
            Request::Load { artefact, threads } => {
                let options = Options { threads, ..Options::default() };
                let session = Session::new(&Model::open(&artefact)?, Device::Cpu, options)?;
                let device = session.describe();
                self.sessions.push(session);
                Ok(json!({"session": self.sessions.len() - 1, "device": device}))
            }
            Request::Batch { tokens, rows, lengths } => {
                let rows = rows.map(fs::read).transpose()?.unwrap_or_default();
                let rows = rows.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect();
                self.batches.push(Batch { tokens, rows, lengths, ..Batch::default() });
                Ok(json!({"batch": self.batches.len() - 1}))
            }
            Request::Run { session, batch, logits } => {
                let (session, batch) = self.of(session, batch)?;
                let started = Instant::now();
                let outputs = session.run(batch)?;
                let ms = started.elapsed().as_secs_f64() * 1e3;
                if let Some(path) = logits {
                    let bytes: Vec<u8> =
                        outputs.logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
                    fs::write(path, bytes)?;
                }
                Ok(json!({"ms": ms, "executed": outputs.counts}))
            }
            Request::Steps { session, batch, rounds } => {
                let (session, batch) = self.of(session, batch)?;
                let mut times = vec![Vec::new(); session.function().steps.len()];
                for _ in 0..rounds.max(1) {
                    session.run(batch)?;
                    for (all, time) in times.iter_mut().zip(session.step_times()) {
                        all.push(time.as_secs_f64() * 1e3);
                    }
                }
                let program = session.program();
                let steps = session.function().steps.iter().zip(times).map(|(step, mut times)| {
                    times.sort_by(f64::total_cmp);
                    let kernel = program.entries.get(step.kernel as usize).map(|entry| &entry.symbol);
                    json!({"kernel": kernel, "origin": step.origin, "ms": times.get(times.len() / 2)})
                });
                Ok(json!({"steps": steps.collect::<Vec<_>>()}))
            }
            Request::Decode { session, prompt, count, logits } => {
                let session = self.sessions.get(session).ok_or("no such session: load an artefact first")?;
                decode(session, &prompt, count, logits)
            }
            Request::Peak { threads } => {
                let peak = peak::measure(threads);
                Ok(json!({"f32": peak.f32, "bf16": peak.bf16}))
            }
        }
    }

    fn of(&mut self, session: usize, batch: usize) -> Result<(&mut Session, &Batch), Box<dyn Error>> {
        let session = self.sessions.get_mut(session).ok_or("no such session: load an artefact first")?;
        let batch = self.batches.get(batch).ok_or("no such batch: hand it over first")?;
        Ok((session, batch))
    }
}

fn decode(
    session: &Session,
    prompt: &[u32],
    count: u32,
    logits: Option<PathBuf>,
) -> Result<Value, Box<dyn Error>> {
    let slot = Slot(0);
    let room = prompt.len() as u32 + count;
    let mut decoder = Cached::new(session.module(), 1, room)?;
    decoder.start(slot, 0)?;
    let (mut tokens, mut times, mut executed) = (Vec::new(), Vec::new(), Vec::new());
    let mut next = prompt.to_vec();
    for _ in 0..=count {
        let started = Instant::now();
        let outputs = decoder.step(&[Chunk { slot, tokens: &next, rows: Rows::Last }])?;
        let token = likeliest(&outputs.logits);
        times.push(started.elapsed().as_secs_f64() * 1e3);
        if let Some(path) = logits.as_ref().filter(|_| tokens.is_empty()) {
            let bytes: Vec<u8> = outputs.logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
            fs::write(path, bytes)?;
        }
        executed.push(outputs.gates.iter().filter(|gate| gate.last() == Some(&1)).count());
        tokens.push(token);
        next = vec![token];
    }
    Ok(json!({"tokens": tokens, "prompt_ms": times[0], "ms": times[1..], "executed": executed[1..]}))
}

fn serve() -> Result<(), Box<dyn Error>> {
    let (mut worker, mut out) = (Worker::default(), std::io::stdout());
    for line in std::io::stdin().lock().lines() {
        let answer = serde_json::from_str(&line?).map_err(Into::into).and_then(|it| worker.answer(it));
        let answer = answer.unwrap_or_else(|error| json!({"error": error.to_string()}));
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench worker: {error}");
            ExitCode::FAILURE
        }
    }
}
