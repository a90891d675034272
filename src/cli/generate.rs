//! `skipc generate`: continues texts and sequences of tokens.

use std::io::{IsTerminal, Write};

use skipc_runtime::command::{self, Console, GenerateArgs};

use crate::error::Error;

pub(super) fn run(args: &GenerateArgs, json: bool, out: &mut dyn Write) -> Result<String, Error> {
    let args = GenerateArgs { json: json || args.json, ..args.clone() };
    let mut err = std::io::stderr();
    let mut console = Console::new(out, &mut err, std::io::stdout().is_terminal());
    command::generate(&args, &mut console)?;
    Ok(String::new())
}
