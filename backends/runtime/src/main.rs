//! `skipc-run`: runs compiled models, without the compiler.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use skipc_runtime::allocator::{self, CommandAllocator};
use skipc_runtime::command::{self, Console, Files, GenerateArgs, RunArgs};
use skipc_runtime::{Error, Kind};

/// Runs compiled models
#[derive(Parser)]
#[command(
    name = "skipc-run",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(flatten)]
    run: Option<RunArgs>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Continue texts or sequences of tokens: greedily, by draws, or by beam search
    Generate(GenerateArgs),
}

#[global_allocator]
static ALLOCATOR: CommandAllocator = CommandAllocator;

fn main() -> ExitCode {
    if wants_json() {
        allocator::answer_in_json();
    }
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
            let _ = match wants_json() {
                true => {
                    writeln!(std::io::stdout(), "{:#}", command::error_json(error.code(), &error.to_string()))
                }
                false => {
                    let message = error.to_string();
                    writeln!(std::io::stderr(), "error[{}]: {}", error.code(), command::printable(&message))
                }
            };
            ExitCode::from(exit_code(error.kind()))
        }
    }
}

/// What the process returns for an error. Errors in the command line itself (2) are clap's.
fn exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::Input => 1,
        Kind::Request => 2,
        Kind::Mismatch => 3,
        Kind::Unsupported => 5,
        Kind::Internal => 70,
    }
}

/// Whether the command line asks for JSON, even if it is none otherwise.
fn wants_json() -> bool {
    std::env::args_os().any(|arg| arg == "--json")
}

/// Ends the process for a command line that is none, or that asks for help: with `--json` an error is JSON like any other.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || !wants_json() {
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
    match cli {
        Cli { command: Some(Command::Generate(args)), .. } => {
            let (model, module) = args.load()?;
            let is_terminal = !files.write_to_stdout() && std::io::stdout().is_terminal();
            let mut err = std::io::stderr();
            let mut console = Console::new(out.as_mut(), &mut err, is_terminal);
            command::generate(args, (&model, &module), None, &mut console)
        }
        Cli { run: Some(args), .. } => command::run(args, out.as_mut()).map(drop),
        Cli { run: None, command: None } => Err(Error::Usage("which model? see `skipc-run --help`".into())),
    }
}
