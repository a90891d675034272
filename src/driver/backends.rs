//! Which backends this build has. The only place with `cfg(feature)`.

use serde::Serialize;
#[cfg(any(feature = "cranelift", feature = "llvm"))]
use skipc_artifact::image::HostArch;
use skipc_artifact::image::HostLevel;
use skipc_artifact::target::{DType, Target};
use skipc_plan::buckets::Bucketing;
use skipc_plan::codegen::Codegen;
use skipc_plan::kernel::WeightLayout;

use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};

/// What generates code for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuBackend {
    /// In milliseconds, for any processor of the architecture.
    Cranelift,
    /// For several levels of instructions, of which a runtime takes the highest that it can.
    Llvm,
}

impl CpuBackend {
    /// Those that this build has.
    pub fn built() -> Vec<CpuBackend> {
        let all = [
            (CpuBackend::Cranelift, cfg!(feature = "cranelift")),
            (CpuBackend::Llvm, cfg!(feature = "llvm")),
        ];
        all.into_iter().filter(|(_, is_built)| *is_built).map(|(backend, _)| backend).collect()
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            CpuBackend::Cranelift => "cranelift",
            CpuBackend::Llvm => "llvm",
        }
    }
}

impl Default for CpuBackend {
    /// LLVM, whose code is faster, where this build has it.
    fn default() -> CpuBackend {
        if cfg!(feature = "llvm") { CpuBackend::Llvm } else { CpuBackend::Cranelift }
    }
}

/// Which processors code for the host is made for, where a backend has code for several levels of instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuLevels {
    /// All processors of the architecture, each with the best code for it.
    #[default]
    All,
    /// This machine's: the level that a runtime takes here, in a third of the time.
    Native,
    /// Those with this level.
    Only(HostLevel),
}

impl CpuLevels {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            CpuLevels::All => "all",
            CpuLevels::Native => "native",
            CpuLevels::Only(level) => level.name(),
        }
    }
}

/// How weights of matmuls of a type lie for a target.
pub fn layout(target: &Target, cpu: CpuBackend, dtype: DType) -> WeightLayout {
    match (target, cpu) {
        (Target::Cpu, CpuBackend::Llvm) => WeightLayout::Panels,
        (Target::Cpu, CpuBackend::Cranelift) | (Target::Cuda(_), _) => WeightLayout::on(target, dtype),
    }
}

/// The backend for a target, with what chooses among the forms of kernels; `cpu` says which for the host, and for which processors.
///
/// # Errors
/// If the target does not exist, or this build or machine has no backend for it.
pub fn for_target(
    target: &Target,
    cpu: (CpuBackend, CpuLevels),
    bucketing: Box<dyn Bucketing>,
) -> Result<Box<dyn Codegen>, Error> {
    match (target, cpu) {
        (Target::Cpu, (CpuBackend::Cranelift, _)) => cranelift(bucketing),
        (Target::Cpu, (CpuBackend::Llvm, levels)) => llvm(levels),
        (Target::Cuda(_), _) => cuda(target, bucketing),
    }
}

/// The processor that code for the host is made for.
#[cfg(any(feature = "cranelift", feature = "llvm"))]
fn host_arch() -> Result<HostArch, Error> {
    HostArch::of_this_process().ok_or_else(|| {
        let message = format!("no code generation for processors of kind `{}`", std::env::consts::ARCH);
        Error::new(
            ErrorKind::Unsupported,
            Diagnostic::new("target::host", message).help("compile on x86-64 or aarch64 Linux"),
        )
    })
}

#[cfg(feature = "cranelift")]
fn cranelift(bucketing: Box<dyn Bucketing>) -> Result<Box<dyn Codegen>, Error> {
    match skipc_cranelift::Cranelift::new(host_arch()?) {
        Ok(backend) => Ok(Box::new(backend.with_bucketing(bucketing))),
        Err(error) => {
            Err(Error::new(ErrorKind::Internal, Diagnostic::new("target::cranelift", error.to_string())))
        }
    }
}

#[cfg(not(feature = "cranelift"))]
fn cranelift(_: Box<dyn Bucketing>) -> Result<Box<dyn Codegen>, Error> {
    Err(not_built("by Cranelift for `cpu`", "cranelift"))
}

#[cfg(feature = "llvm")]
fn llvm(levels: CpuLevels) -> Result<Box<dyn Codegen>, Error> {
    let arch = host_arch()?;
    let here = || skipc_runtime::Choice::among(HostLevel::DESCENDING.map(|level| (arch, level)));
    match skipc_llvm::Host::new(arch) {
        Ok(backend) => Ok(Box::new(match levels {
            CpuLevels::All => backend,
            CpuLevels::Native => backend.only(here().map_or(HostLevel::Baseline, |choice| choice.level)),
            CpuLevels::Only(level) => backend.only(level),
        })),
        Err(error) => {
            Err(Error::new(ErrorKind::Unsupported, Diagnostic::new("target::unsupported", error.to_string())))
        }
    }
}

#[cfg(not(feature = "llvm"))]
fn llvm(_: CpuLevels) -> Result<Box<dyn Codegen>, Error> {
    Err(not_built("by LLVM for `cpu`", "llvm"))
}

#[cfg(feature = "cuda")]
fn cuda(target: &Target, bucketing: Box<dyn Bucketing>) -> Result<Box<dyn Codegen>, Error> {
    let backend = ptxas().and_then(|ptxas| skipc_mlir::CudaCodegen::new(target.clone(), ptxas));
    match backend {
        Ok(backend) => Ok(Box::new(backend.with_bucketing(bucketing))),
        Err(error) => {
            Err(Error::new(ErrorKind::Unsupported, Diagnostic::new("target::unsupported", error.to_string())))
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(target: &Target, _: Box<dyn Bucketing>) -> Result<Box<dyn Codegen>, Error> {
    Err(not_built(&format!("for `{target}`"), "cuda"))
}

#[cfg(not(all(feature = "cranelift", feature = "cuda")))]
fn not_built(what: &str, feature: &str) -> Error {
    let message = format!("this skipc was built without code generation {what}");
    let help = format!("build it with `cargo build --features {feature}`");
    Error::new(ErrorKind::Unsupported, Diagnostic::new("target::not_built", message).help(help))
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

/// Version of LLVM that this build generates code with.
pub fn llvm_version() -> Option<String> {
    #[cfg(feature = "llvm")]
    return Some(skipc_llvm::version());
    #[cfg(not(feature = "llvm"))]
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
        // All but f32 needs LLVM, which knows the instructions for it.
        dtypes: if cfg!(feature = "llvm") { vec!["f32", "bf16", "q8"] } else { vec!["f32"] },
        tier: "run by every test",
        built: !CpuBackend::built().is_empty(),
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
