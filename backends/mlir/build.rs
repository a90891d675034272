//! Provides `libMLIR-C.so`, which `mlir-sys` links in shared mode and Debian does not ship.
//!
//! The C API exists there only as static archives whose C++ symbols live in `libMLIR.so`.
//! A linker script of that name that lists the archives is all that is missing.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MLIR_SYS_220_PREFIX");
    let prefix = env::var_os("MLIR_SYS_220_PREFIX").unwrap_or_else(|| "/usr/lib/llvm-22".into());
    let lib = Path::new(&prefix).join("lib");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    if lib.join("libMLIR-C.so").exists() {
        return Ok(());
    }
    let mut archives = Vec::new();
    for entry in fs::read_dir(&lib)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("libMLIRCAPI") && name.ends_with(".a") {
            archives.push(name);
        }
    }
    // Directory order is the file system's; the script should not depend on it.
    archives.sort();
    if archives.is_empty() {
        println!("cargo:warning=no libMLIRCAPI*.a under {}: install libmlir-22-dev", lib.display());
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut script = String::from("/* GNU ld script */\nINPUT(\n");
    for name in archives {
        script.push_str(&format!("  {}\n", lib.join(name).display()));
    }
    script.push_str(")\n");
    fs::write(out.join("libMLIR-C.so"), script)?;
    println!("cargo:rustc-link-search=native={}", out.display());
    Ok(())
}
