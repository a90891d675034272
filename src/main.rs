//! The `skipc` command.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use skipc::Error;
use skipc::cli::{self, Cli};

fn main() -> ExitCode {
    let (cli, files) = Cli::from_command_line();
    let mut out: Box<dyn Write> = match files.write_to_stdout() {
        true => Box::new(std::io::stderr().lock()),
        false => Box::new(std::io::stdout().lock()),
    };
    let out = out.as_mut();
    // A panic is a fault of ours; the user gets an error with a code like any other.
    std::panic::set_hook(Box::new(|_| ()));
    let command = std::panic::AssertUnwindSafe(|| cli::run(&cli, &files, out));
    let ran = std::panic::catch_unwind(command).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(cli::panicked(message.unwrap_or("a panic without a message")))
    });
    match ran {
        Ok(text) => match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // A reader that has seen enough, such as `head`, is no error.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                cli::say(&format!("skipc: standard output: {error}\n"));
                ExitCode::FAILURE
            }
            _ => ExitCode::SUCCESS,
        },
        Err(error) => {
            report(&error, cli.json, out);
            ExitCode::from(cli::exit_code(error.kind))
        }
    }
}

/// Says what failed. Where nobody can read it, the exit code alone has to.
fn report(error: &Error, json: bool, out: &mut dyn Write) {
    if !json {
        return cli::show(&error.diagnostics);
    }
    match serde_json::to_string_pretty(&error.diagnostics) {
        Ok(text) => {
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        }
        Err(broken) => cli::say(&format!("skipc: {broken}\n")),
    }
}
