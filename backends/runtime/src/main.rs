//! `skipc-run`: runs compiled models, without the compiler.

use std::process::ExitCode;

use clap::Parser;
use skipc_runtime::command::{self, RunArgs};

/// Runs compiled models
#[derive(Parser)]
#[command(name = "skipc-run", version)]
struct Cli {
    #[command(flatten)]
    run: RunArgs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match command::run(&cli.run, &mut std::io::stdout().lock()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error[{}]: {error}", error.code());
            ExitCode::from(error.exit_code())
        }
    }
}
