//! What the machine code of a file's kernels costs at least (`--sass`): assembled by `ptxas`, read by `skipc-sass`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use skipc_ptx::syntax::{Kernel, Module};
use skipc_sass::analysis::{self, LaunchShape};
use skipc_sass::listing;

use crate::failure::Failure;

/// The figures of all kernels, or of the one of this name, as text or as JSON.
pub(crate) fn figures(
    path: &Path,
    module: &Module,
    name: Option<&str>,
    json: bool,
) -> Result<String, Failure> {
    let (cubin, registers) = assemble(path, &module.target)?;
    let failed = |error: skipc_sass::Error| Failure::new(error.to_string()).help(error.help());
    let text = skipc_sass::disassemble(&cubin, &["-hex"]).map_err(failed)?;
    let functions = listing::read(&text).map_err(failed)?;
    let mut found = Vec::new();
    for kernel in module.kernels.iter().filter(|kernel| name.is_none_or(|name| kernel.name == name)) {
        let function = listing::find(&functions, &kernel.name).map_err(failed)?;
        let missing = || Failure::new(format!("ptxas does not say how many registers `{}` has", kernel.name));
        let registers = *registers.get(&kernel.name).ok_or_else(missing)?;
        found.push(analysis::Kernel::of(function, LaunchShape { threads: threads(kernel)?, registers }));
    }
    Ok(match json {
        true => format!("{:#}\n", serde_json::json!({"target": module.target, "kernels": found})),
        false => skipc_sass::table(&found),
    })
}

/// Threads of a block, by which work of all warps is counted.
fn threads(kernel: &Kernel) -> Result<u32, Failure> {
    let missing = || {
        Failure::new(format!("`{}` does not say how many threads its blocks have", kernel.name))
            .help("give it `.reqntid X, Y, Z`")
    };
    Ok(kernel.threads.ok_or_else(missing)?.iter().product())
}

/// The cubin of a file, and the registers of a thread of each kernel.
fn assemble(path: &Path, target: &str) -> Result<(Vec<u8>, BTreeMap<String, u32>), Failure> {
    let cubin =
        tempfile::NamedTempFile::new().map_err(|error| Failure::new(format!("a temporary file: {error}")))?;
    let program = assembler();
    let output = Command::new(&program)
        .arg("-v")
        .arg(format!("-arch={target}"))
        .arg(path)
        .arg("-o")
        .arg(cubin.path())
        .output();
    let output = output.map_err(|error| {
        Failure::new(format!("{} does not start: {error}", program.display())).help(
            "tests/setup.sh fetches ptxas; set SKIPC_CACHE to the folder that has it, or put it on PATH",
        )
    })?;
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let line = said.lines().find(|line| line.contains("error") || line.contains("fatal"));
        return Err(Failure::new(format!("ptxas: {}", line.unwrap_or("no reason given"))));
    }
    let bytes = std::fs::read(cubin.path()).map_err(|error| Failure::file(cubin.path(), &error))?;
    Ok((bytes, registers(&said)))
}

fn assembler() -> PathBuf {
    let disassembler = skipc_sass::disassembler();
    let beside = disassembler.with_file_name("ptxas");
    if beside.is_file() { beside } else { PathBuf::from("ptxas") }
}

/// What `ptxas -v` says: a line that names the kernel, and later one with its registers.
fn registers(said: &str) -> BTreeMap<String, u32> {
    let (mut found, mut kernel) = (BTreeMap::new(), None);
    for line in said.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            kernel = rest.split('\'').next().map(str::to_owned);
        }
        let used = line.split_once("Used ").and_then(|(_, rest)| rest.split_once(" registers"));
        if let (Some((count, _)), Some(kernel)) = (used, &kernel) {
            found.extend(count.parse().ok().map(|count| (kernel.clone(), count)));
        }
    }
    found
}
