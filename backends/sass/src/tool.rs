//! NVIDIA's disassembler.

use std::path::PathBuf;
use std::process::Command;

use crate::Error;

/// The disassembler: that of the folder of tools that the set-up script fills (`SKIPC_CACHE`), or the one on `PATH`.
pub fn disassembler() -> PathBuf {
    let cache = std::env::var_os("SKIPC_CACHE").map(PathBuf::from);
    let in_cache = cache.map(|cache| cache.join("cuda/bin/nvdisasm")).filter(|path| path.is_file());
    in_cache.unwrap_or_else(|| PathBuf::from("nvdisasm"))
}

/// The instructions of a cubin as text, with `options` of the disassembler; [`listing::read`](crate::listing::read) takes that of
/// `["-hex"]`.
///
/// # Errors
/// [`Error::NoDisassembler`] without `nvdisasm`, [`Error::Refused`] if it does not take the file, [`Error::Temporary`].
pub fn disassemble(cubin: &[u8], options: &[&str]) -> Result<String, Error> {
    let file = tempfile::NamedTempFile::new().map_err(Error::Temporary)?;
    std::fs::write(file.path(), cubin).map_err(Error::Temporary)?;
    let program = disassembler();
    let output = Command::new(&program).arg("--print-code").args(options).arg(file.path()).output();
    let output = output.map_err(|error| Error::NoDisassembler { program, error })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Refused(said.lines().next().unwrap_or("no reason given").to_owned()))
}
