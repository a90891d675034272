//! Runs programs and tests against the stand-in for the CUDA driver.
#![allow(dead_code, reason = "each test takes a part of it")]

use std::path::Path;
use std::process::Command;

use skipc_artifact::bundle::{Bundle, BundleCode};
use skipc_artifact::program::{Launch, RowTile};

/// The bundle of a hand-written model for the GPU that the stand-in plays.
pub(crate) fn for_cuda(mut bundle: Bundle) -> Bundle {
    bundle.program.target = "cuda:sm_90a".parse().unwrap();
    for entry in &mut bundle.program.entries {
        let tiles = match entry.symbol == "table_4" {
            true => vec![RowTile { from: 0, rows: 16, across: 2 }],
            false => Vec::new(),
        };
        let shared_bytes = if entry.symbol == "table_4" { 60_000 } else { 0 };
        entry.launch = Launch::Cuda {
            tiles,
            threads: 96,
            shared_bytes,
            registers: 1,
            static_shared_bytes: 0,
            persistent: false,
            segments: 0,
        };
    }
    bundle.code = BundleCode::Cuda { ptx: "PTX text".into(), cubin: Some(b"CUBIN".to_vec()) };
    bundle
}

/// A folder with the stand-in as `libcuda.so`.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand_in/driver.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut compile = Command::new(rustc);
    compile.args(["--edition=2024", "--crate-type=cdylib", "-Cdebuginfo=0", "-o"]);
    let compiled = compile.arg(folder.path().join("libcuda.so")).arg(source).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    folder
}

/// Runs `body`, part of the test of this name, in a process of its own that finds the stand-in; returns what the stand-in
/// has to say at its end. `None` in that process.
pub(crate) fn with_driver(test: &str, body: impl FnOnce()) -> Option<String> {
    if std::env::var_os("STAND_IN").is_some() {
        body();
        return None;
    }
    let folder = folder();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env("LD_LIBRARY_PATH", folder.path()).env("STAND_IN", "");
    let ran = command.output().unwrap();
    let printed = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{printed}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(printed.contains("1 passed"), "there is no test `{test}`: {printed}");
    Some(printed)
}
