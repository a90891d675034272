//! The `skipc` command.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use skipc::Error;
use skipc::cli::{self, Cli};
use skipc_runtime::allocator::{self, CommandAllocator};
use skipc_runtime::command::printable;

#[global_allocator]
static ALLOCATOR: CommandAllocator = CommandAllocator;

fn main() -> ExitCode {
    // Before the command line is read, which takes memory.
    if std::env::args_os().any(|arg| arg == "--json") {
        allocator::answer_in_json();
    }
    #[cfg(feature = "llvm")]
    skipc_llvm::end_without_memory(allocator::no_memory);
    let (cli, files) = Cli::from_command_line();
    let mut out: Box<dyn Write> = match files.write_to_stdout() {
        true => Box::new(std::io::stderr()),
        false => Box::new(std::io::stdout()),
    };
    let out = out.as_mut();
    // A panic is a fault of ours; the user gets an error with a code like any other.
    std::panic::set_hook(Box::new(|_| ()));
    let command = std::panic::AssertUnwindSafe(|| cli::run(&cli, &files, out));
    let ran = std::panic::catch_unwind(command).unwrap_or_else(|panic| Err(Error::panicked(panic.as_ref())));
    match ran {
        Ok(text) => match out
            .write_all(shown(&text, std::io::stdout().is_terminal()).as_bytes())
            .and_then(|()| out.flush())
        {
            // A reader that has seen enough, such as `head`, is no error.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                cli::say(&format!("skipc: standard output: {error}\n"));
                ExitCode::FAILURE
            }
            _ => ExitCode::SUCCESS,
        },
        Err(error) => {
            cli::report(&error, cli.json, out);
            ExitCode::from(cli::exit_code(error.kind))
        }
    }
}

/// What a command gives, as a terminal or anybody else gets it: names in a file are no commands to a terminal.
fn shown(text: &str, terminal: bool) -> Cow<'_, str> {
    if terminal { printable(text) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn names_in_a_file_are_no_commands_to_a_terminal() {
        let text = "kernel \u{1b}]0;title\u{7}\n\t1 µs\n";
        assert_eq!(shown(text, true), "kernel \u{fffd}]0;title\u{fffd}\n\t1 µs\n");
        assert_eq!(shown(text, false), text);
    }
}
