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
    let parsed = command
        .clone()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches).map(|cli| (cli, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&error),
    };
    match run(&cli, &Files::of(&command, &matches)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody can read it, the exit code alone has to say it.
            let _ = match cli.run.json {
                true => {
                    writeln!(std::io::stdout(), "{:#}", command::error_json(error.code(), &error.to_string()))
                }
                false => {
                    let message = error.to_string();
                    writeln!(std::io::stderr(), "error[{}]: {}", error.code(), command::printable(&message))
                }
            };
            ExitCode::from(error.exit_code())
        }
    }
}

/// Ends the process for a command line that is none, or that asks for help: with `--json` an error is JSON like any other.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || !std::env::args_os().any(|arg| arg == "--json") {
        error.exit();
    }
    let text = error.to_string();
    let message = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    let _ = writeln!(std::io::stdout(), "{:#}", command::error_json("usage::arguments", message));
    ExitCode::from(2)
}

fn run(cli: &Cli, files: &Files) -> Result<(), Error> {
    files.check()?;
    let mut out: Box<dyn Write> = match files.write_to_stdout() {
        true => Box::new(std::io::stderr().lock()),
        false => Box::new(std::io::stdout().lock()),
    };
    command::run(&cli.run, out.as_mut(), &mut std::io::stderr()).map(drop)
}
