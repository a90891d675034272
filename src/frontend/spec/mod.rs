//! The spec frontend: a model spec (TOML), checked and resolved.
//!
//! ```text
//! text ─ast::parse→ Ast ─resolve::resolve→ model::Model ─lowering→ …
//! Model ─tensors::tensors→ names, shapes and roles of its weights
//! ```
//!
//! A spec has three parts: `[model]` with sizes and conventions, `[block.NAME]` with named blocks of sub-layers,
//! and `[[stack]]` with the blocks in order. Every default is the reference's. What a file says and the model
//! would not use is an error, because whoever wrote it expects something of it: unknown keys, settings that the
//! router does not take, tensors that no layer reads. Errors have a code (see [`codes`]), a place and a remedy;
//! a phase reports all it finds.
//!
//! Any bytes give a model or an error, in bounded time and memory (see [`limits`]).

pub mod codes;
pub mod first;
pub mod model;
pub mod node;
mod print;
pub mod random;
pub mod resolve;
pub mod skip;
pub mod skip_table;
pub mod stack;
pub mod steps;
pub mod tensors;

use std::path::Path;

use super::language::{ast, limits};
use crate::diagnostic::{Diagnostic, Diagnostics};
use model::Model;
use skipc_artifact::regular;

/// Parses and resolves a spec. `name` is what users call the file.
pub fn model(name: &str, text: &str) -> Result<Model, Diagnostics> {
    resolve::resolve(&ast::parse(name, text)?)
}

/// Reads, parses and resolves a spec.
pub fn load(path: &Path) -> Result<Model, Diagnostics> {
    let (name, text) = read_text(path)?;
    model(&name, &text)
}

/// Reads a spec's text, at most [`limits::FILE_BYTES`] of it. Gives the path as users wrote it with the text.
pub fn read_text(path: &Path) -> Result<(String, String), Diagnostic> {
    let name = path.display().to_string();
    let failed = |error: std::io::Error| {
        Diagnostic::new("spec::read", format!("cannot read {name}: {error}"))
            .help("give the path of a spec in TOML, or of a directory with a config.json")
    };
    let bytes = regular::read(path, limits::FILE_BYTES as u64).map_err(|error| match error.kind() {
        std::io::ErrorKind::FileTooLarge => limits::file_too_large(&name),
        _ => failed(error),
    })?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok((name, text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            Err(Diagnostic::new("spec::syntax", format!("{name} is not text: byte {at} is not UTF-8"))
                .help("save the spec as UTF-8; weights go to `--weights`"))
        }
    }
}
