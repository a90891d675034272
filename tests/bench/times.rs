//! Measures the constants of the passes' cost model on this machine.
//!
//! ```text
//! cargo run --release --example bench -- constants
//! ```
//!
//! All figures are the shortest of several rounds in which every model runs once, on one thread. Outputs are not checked
//! here but in the tests. Whole models in their forms are timed by `skipc bench`.

mod constants;
mod subject;

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
}

fn main() -> ExitCode {
    let done = match Args::parse().what {
        What::Constants => constants::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
