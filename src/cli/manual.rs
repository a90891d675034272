//! `skipc completions` and `skipc man`: what clap knows of the options, for shells and for `man`.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;
use skipc_artifact::replace;

use super::{Cli, to_json};
use crate::error::Error;

/// The script that lets a shell complete commands and options.
pub(super) fn completions(shell: Shell, json: bool) -> Result<String, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "skipc", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    if json { to_json(&json!({"shell": shell.to_string(), "script": script})) } else { Ok(script) }
}

/// A page for each command: `skipc.1`, `skipc-compile.1`, …
pub(super) fn man(dir: &Path, json: bool) -> Result<String, Error> {
    std::fs::create_dir_all(dir).map_err(|error| Error::io(dir, &error))?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut written = Vec::new();
    write_pages(dir, &command, "skipc", &mut written)?;
    if json {
        return to_json(&json!({"pages": written}));
    }
    Ok(format!(
        "{} pages in {}: see `man -l {}`\n",
        written.len(),
        dir.display(),
        dir.join("skipc.1").display()
    ))
}

fn write_pages(
    dir: &Path,
    command: &clap::Command,
    name: &str,
    written: &mut Vec<String>,
) -> Result<(), Error> {
    let path = dir.join(format!("{name}.1"));
    let page = clap_mangen::Man::new(command.clone()).title(name.to_uppercase());
    let mut text = Vec::new();
    page.render(&mut text).map_err(|error| Error::io(&path, &error))?;
    replace::bytes(&path, &text).map_err(|error| Error::in_artifact(&path, &error))?;
    written.push(path.display().to_string());
    command
        .get_subcommands()
        .try_for_each(|below| write_pages(dir, below, &format!("{name}-{}", below.get_name()), written))
}
