//! `skipc-run`: runs compiled models, without the compiler.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};
use skipc_runtime::Error;
use skipc_runtime::command::{self, Files, RunArgs};

/// Runs compiled models
#[derive(Parser)]
#[command(name = "skipc-run", version)]
struct Cli {
    #[command(flatten)]
    run: RunArgs,
}

fn main() -> ExitCode {
    let command = Cli::command();
    let matches = command.clone().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(&cli, &Files::of(&command, &matches)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody can read it, the exit code alone has to say it.
            let _ = writeln!(std::io::stderr(), "error[{}]: {error}", error.code());
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: &Cli, files: &Files) -> Result<(), Error> {
    files.check()?;
    let mut out: Box<dyn Write> = match files.write_to_stdout() {
        true => Box::new(std::io::stderr().lock()),
        false => Box::new(std::io::stdout().lock()),
    };
    command::run(&cli.run, out.as_mut()).map(drop)
}
