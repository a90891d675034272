//! What a fault of the compiler leaves behind: a folder with all that it takes to see it again.

use std::fs;
use std::io;
use std::path::PathBuf;

use skipc_artifact::replace;
use skipc_artifact::section::ContentHash;

use super::CompileArgs;
use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};
use crate::frontend::lower::{Function, Skipping, lower};
use crate::frontend::spec::model::Model;

/// Adds a reproducer folder to a failure that is skipc's own fault; leaves others as they are.
///
/// The folder, `skipc-repro-HASH` in the current directory, has the resolved spec, the graph before the passes (weights
/// are not part of it: no stage before the constants reads them), the options and the errors.
pub(super) fn attach(error: Error, model: &Model, args: &CompileArgs) -> Error {
    if error.kind != ErrorKind::Internal {
        return error;
    }
    let spec = model.to_string();
    let errors = error.diagnostics.to_string();
    let hash = ContentHash::of(format!("{spec}{errors}").as_bytes()).to_string();
    let dir = PathBuf::from(format!("skipc-repro-{}", &hash[..8]));
    let options = format!(
        "skipc {}\n--target {} --dtype {}\n--passes {:?} --fuel {:?} --max-tokens {:?}\n",
        env!("CARGO_PKG_VERSION"),
        args.target.join(","),
        args.dtype.join(","),
        args.passes,
        args.fuel,
        args.max_tokens,
    );
    let graph =
        lower(model, Skipping::Gathered, Function::Score).map(|graph| graph.to_string()).unwrap_or_default();
    let files =
        [("spec.toml", &spec), ("lowered.sir", &graph), ("options.txt", &options), ("errors.txt", &errors)];
    let write = |(name, text): &(&str, &String)| {
        replace::bytes(&dir.join(name), text.as_bytes()).map_err(io::Error::other)
    };
    let written = fs::create_dir_all(&dir).and_then(|()| files.iter().try_for_each(write));
    let said = match written {
        Ok(()) => format!("{} has what it takes to see this again: please report it", dir.display()),
        Err(error) => format!("no reproducer could be written to {}: {error}", dir.display()),
    };
    error.and(Diagnostic::new("internal::reproducer", said).into())
}
