//! Whether the rows of a step can be shared among ranks.

use super::Config;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::frontend::language::ast::{self, ValueKind};

/// Looks whether each of so many ranks gets as many rows of a step. `name` and `text` are those of the file that `config` was
/// read from.
///
/// # Errors
/// `train::batch`, with the place.
pub fn check_shares(name: &str, text: &str, config: &Config, ranks: usize) -> Result<(), Diagnostics> {
    let batch = config.train.batch;
    if batch.is_multiple_of(ranks) {
        return Ok(());
    }
    let message = format!("`batch` is {batch}, and {ranks} ranks cannot have as many rows each");
    let mut diagnostic = Diagnostic::new("train::batch", message);
    let ast = ast::parse(name, text)?;
    if let Some(ValueKind::Table(train)) = ast.root.get("train").map(|entry| &entry.value.kind)
        && let Some(entry) = train.get("batch")
    {
        diagnostic = diagnostic.at(&ast.source, entry.value.span.clone(), format!("no multiple of {ranks}"));
    }
    let below = batch / ranks * ranks;
    let near = if below == 0 { ranks } else { below };
    let help = format!("write `batch = {near}`, or start a number of ranks that divides {batch}");
    Err(diagnostic.help(help).into())
}
