//! Times compiled models on the CPU: the constants of the passes' cost model, and a model with and without a pass.
//!
//! ```text
//! cargo run --release --example bench -- constants
//! cargo run --release --example bench -- passes models/kjv-12l-d25.toml --tokens 512
//! ```
//!
//! All figures are the shortest of several rounds in which every form runs once, on one thread. Outputs are not judged here but
//! in the tests.

mod constants;
mod passes;
mod subject;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// What kernels take, for `passes/src/rewrite/cost/target.rs`.
    Constants,
    /// A model with `saturate` and without, at several densities.
    Passes {
        /// The spec.
        spec: PathBuf,
        /// Tokens of a step, in one sequence.
        #[arg(long, default_value_t = 512)]
        tokens: u32,
        /// Rounds.
        #[arg(long, default_value_t = 31)]
        rounds: usize,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().what {
        What::Constants => constants::run(),
        What::Passes { spec, tokens, rounds } => passes::run(&spec, tokens, rounds),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
