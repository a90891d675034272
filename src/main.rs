//! The `skipc` command.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use skipc::Error;
use skipc::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A panic is a fault of ours; the user gets an error with a code like any other.
    std::panic::set_hook(Box::new(|_| ()));
    let ran = std::panic::catch_unwind(|| cli::run(&cli)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(cli::panicked(message.unwrap_or("a panic without a message")))
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
        Err(error) => report(&error, cli.json),
    }
}

fn report(error: &Error, json: bool) -> ExitCode {
    if json {
        match serde_json::to_string_pretty(&error.diagnostics) {
            Ok(text) => println!("{text}"),
            Err(broken) => eprintln!("skipc: {broken}"),
        }
    } else {
        cli::show(&error.diagnostics);
    }
    ExitCode::from(cli::exit_code(error.kind))
}
