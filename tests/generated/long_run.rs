//! Checks many generated models and enters the run in the ledger.
//!
//! ```text
//! cargo run --release --example generated-models -- --from 0 --count 250000 --threads 2 --ledger tests/ledger/generated.json
//! ```

mod bounded;
mod campaign;
mod check;
mod choices;
mod convs;
mod experts;
mod forms;
mod identities;
mod ledger;
mod metamorphic;
mod model;
mod rules;
mod run;
mod shrink;
mod stacks;
mod steps;
mod subject;
mod tally;
mod training;
#[path = "../training/call.rs"]
mod training_call;
mod vision;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;

use campaign::Campaign;
use forms::Honest;
use ledger::{Entry, Ledger};
use subject::Subject;

/// Checks generated models in every form that the compiler has.
#[derive(Parser)]
struct Args {
    /// First seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Compiled code runs for every so many seeds; 0: for none.
    #[arg(long, default_value_t = 1)]
    code_every: u64,
    /// Stop after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Enter the run in this ledger.
    #[arg(long)]
    ledger: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let begin = Instant::now();
    let campaign = Campaign {
        from: args.from,
        count: args.count,
        threads: args.threads,
        code_every: args.code_every,
        deadline: args.minutes.map(|minutes| begin + Duration::from_secs(60 * minutes)),
    };
    // The working tree as it is now; it may change while this runs.
    let commit = commit();
    let tally = campaign.run(&Honest, &|done| {
        if done.is_multiple_of(1000) {
            println!("{done} of {} models, {} s", campaign.count, begin.elapsed().as_secs());
        }
    });
    let entry = Entry::of(&campaign, &tally, commit, begin.elapsed().as_secs());
    println!("{}", serde_json::to_string_pretty(&entry).unwrap_or_default());
    let mut told: Vec<&str> = Vec::new();
    for finding in &tally.findings {
        println!("seed {}: {}: {}", finding.seed, finding.check, finding.detail);
        if finding.seed >= training::FIRST_SEED {
            continue;
        }
        if !told.contains(&finding.check.as_str()) {
            told.push(&finding.check);
            let subject = Subject::of(finding.seed);
            let small = shrink::shrink(&Honest, &subject, &finding.check, campaign.until(&subject));
            println!("{}\nsequences {:?}\n", small.model, small.sequences);
        }
    }
    if let Some(path) = args.ledger {
        let mut ledger = Ledger::read(&path);
        ledger.runs.push(entry);
        if let Err(error) = ledger.write(&path) {
            println!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    if tally.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let head = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    match git(&["status", "--porcelain", "--", "src", "ir", "passes", "backends"]) {
        Some(changes) if changes.is_empty() => head,
        _ => format!("{head} with changes"),
    }
}
