//! Which backends this build has. The only place with `cfg(feature)`.

use serde::Serialize;
#[cfg(feature = "cranelift")]
use skipc_artifact::image::HostArch;
use skipc_artifact::target::Target;
use skipc_plan::buckets::Bucketing;
use skipc_plan::codegen::Codegen;

use crate::cli::{Exit, Failure};
use crate::diagnostic::Diagnostic;

/// The backend for a target, with what chooses among the forms of kernels.
///
/// # Errors
/// If the target does not exist, or this build or machine has no backend for it.
pub fn for_target(target: &Target, bucketing: Box<dyn Bucketing>) -> Result<Box<dyn Codegen>, Failure> {
    match target {
        Target::Cpu => cpu(bucketing),
        Target::Cuda(_) => cuda(target, bucketing),
    }
}

#[cfg(feature = "cranelift")]
fn cpu(bucketing: Box<dyn Bucketing>) -> Result<Box<dyn Codegen>, Failure> {
    let arch = HostArch::of_this_process().ok_or_else(|| {
        let message = format!("no code generation for processors of kind `{}`", std::env::consts::ARCH);
        Failure::new(
            Exit::Unsupported,
            Diagnostic::new("target::host", message).help("compile on x86-64 or aarch64 Linux"),
        )
    })?;
    match skipc_cranelift::Cranelift::new(arch) {
        Ok(backend) => Ok(Box::new(backend.with_bucketing(bucketing))),
        Err(error) => {
            Err(Failure::new(Exit::Internal, Diagnostic::new("target::cranelift", error.to_string())))
        }
    }
}

#[cfg(not(feature = "cranelift"))]
fn cpu(_: Box<dyn Bucketing>) -> Result<Box<dyn Codegen>, Failure> {
    Err(not_built(&Target::Cpu, "cranelift"))
}

#[cfg(feature = "cuda")]
fn cuda(target: &Target, bucketing: Box<dyn Bucketing>) -> Result<Box<dyn Codegen>, Failure> {
    let backend = ptxas().and_then(|ptxas| skipc_mlir::CudaCodegen::new(target.clone(), ptxas));
    match backend {
        Ok(backend) => Ok(Box::new(backend.with_bucketing(bucketing))),
        Err(error) => {
            Err(Failure::new(Exit::Unsupported, Diagnostic::new("target::unsupported", error.to_string())))
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(target: &Target, _: Box<dyn Bucketing>) -> Result<Box<dyn Codegen>, Failure> {
    Err(not_built(target, "cuda"))
}

#[cfg(not(all(feature = "cranelift", feature = "cuda")))]
fn not_built(target: &Target, feature: &str) -> Failure {
    let message = format!("this skipc was built without code generation for `{target}`");
    let help = format!("build it with `cargo build --features {feature}`");
    Failure::new(Exit::Unsupported, Diagnostic::new("target::not_built", message).help(help))
}

/// The PTX assembler: `SKIPC_PTXAS`, the cache that the set-up script fills, or the one on `PATH`.
#[cfg(feature = "cuda")]
fn ptxas() -> Result<skipc_llvm::Ptxas, skipc_llvm::Error> {
    let cache = match std::env::var_os("SKIPC_CACHE") {
        Some(cache) => std::path::PathBuf::from(cache),
        None => std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".cache"),
    };
    skipc_llvm::Ptxas::find(Some(&cache.join("cuda/bin/ptxas")))
}

/// Version of LLVM that this build generates CUDA code with.
pub fn llvm_version() -> Option<String> {
    #[cfg(feature = "cuda")]
    return Some(skipc_llvm::version());
    #[cfg(not(feature = "cuda"))]
    None
}

/// Version of the PTX assembler, if there is one.
pub fn ptxas_version() -> Option<String> {
    #[cfg(feature = "cuda")]
    return ptxas().and_then(|ptxas| ptxas.version()).ok();
    #[cfg(not(feature = "cuda"))]
    None
}

/// A target as `skipc targets` shows it.
#[derive(Debug, Serialize)]
pub struct TargetInfo {
    /// What `--target` takes.
    pub name: String,
    /// Devices with it.
    pub devices: String,
    /// Precisions that there are kernels for.
    pub dtypes: Vec<&'static str>,
    /// How its code is checked; see the README for what a tier promises.
    pub tier: &'static str,
    /// Whether this build generates code for it.
    pub built: bool,
}

/// All targets that skipc knows.
pub fn targets() -> Vec<TargetInfo> {
    let mut targets = vec![TargetInfo {
        name: "cpu".to_owned(),
        devices: "x86-64, aarch64".to_owned(),
        dtypes: vec!["f32"],
        tier: "run by every test",
        built: cfg!(feature = "cranelift"),
    }];
    targets.extend(cuda_targets());
    targets
}

#[cfg(feature = "cuda")]
fn cuda_targets() -> Vec<TargetInfo> {
    let info = |target: skipc_llvm::CudaTarget| TargetInfo {
        name: format!("cuda:{}", target.name()),
        devices: target.devices().to_owned(),
        dtypes: vec!["bf16", "f32"],
        tier: "assembled by every test, run by the device harness",
        built: true,
    };
    skipc_llvm::CudaTarget::ALL.into_iter().map(info).collect()
}

#[cfg(not(feature = "cuda"))]
fn cuda_targets() -> Vec<TargetInfo> {
    vec![TargetInfo {
        name: "cuda:…".to_owned(),
        devices: "NVIDIA GPUs".to_owned(),
        dtypes: vec!["bf16", "f32"],
        tier: "needs a build with the feature `cuda`",
        built: false,
    }]
}
