//! The `skipc` command.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use skipc::cli::{self, Cli, Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A panic is a fault of ours; the user gets an error with a code like any other.
    std::panic::set_hook(Box::new(|_| ()));
    let ran = std::panic::catch_unwind(|| cli::run(&cli)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Failure::panicked(message.unwrap_or("a panic without a message")))
    });
    match ran {
        Ok(output) => match std::io::stdout().lock().write_all(output.as_bytes()) {
            // A reader that has seen enough, such as `head`, is no error.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                eprintln!("skipc: standard output: {error}");
                ExitCode::FAILURE
            }
            _ => ExitCode::SUCCESS,
        },
        Err(failure) => report(&failure, cli.json),
    }
}

fn report(failure: &Failure, json: bool) -> ExitCode {
    if json {
        match serde_json::to_string_pretty(&failure.diagnostics) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("skipc: {error}"),
        }
    } else {
        cli::show(&failure.diagnostics);
    }
    ExitCode::from(failure.exit as u8)
}
