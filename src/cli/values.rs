//! Values of options that the compiler has types for, as clap reads and documents them.

use clap::ValueEnum;
use skipc_artifact::image::HostLevel;

use crate::driver::backends::{CpuBackend, CpuLevels};
use crate::driver::pipeline::{SkipRuns, Variant};
use crate::frontend::lower::KeyValues;

/// Names of what generates code for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CpuBackendArg {
    /// In milliseconds, for any processor of the architecture.
    Cranelift,
    /// For several levels of instructions, of which a runtime takes the highest that it can.
    Llvm,
}

impl Default for CpuBackendArg {
    fn default() -> CpuBackendArg {
        match CpuBackend::default() {
            CpuBackend::Cranelift => CpuBackendArg::Cranelift,
            CpuBackend::Llvm => CpuBackendArg::Llvm,
        }
    }
}

impl From<CpuBackendArg> for CpuBackend {
    fn from(arg: CpuBackendArg) -> CpuBackend {
        match arg {
            CpuBackendArg::Cranelift => CpuBackend::Cranelift,
            CpuBackendArg::Llvm => CpuBackend::Llvm,
        }
    }
}

/// Names of the processors that code for the host is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CpuLevelsArg {
    /// All, each with the best code for it: without vector extensions, AVX2, AVX-512, and its dot products of bf16.
    #[default]
    All,
    /// That of this machine, in a third of the time; elsewhere the artefact may not run.
    Native,
    /// Any, without vector extensions.
    Baseline,
    /// Those with AVX2, FMA, F16C, BMI1 and BMI2 (x86-64-v3).
    Avx2,
    /// Those with AVX-512 F, BW, CD, DQ and VL besides (x86-64-v4).
    Avx512,
    /// Those with AVX-512 BF16 besides.
    #[value(name = "avx512-bf16")]
    Avx512Bf16,
}

impl From<CpuLevelsArg> for CpuLevels {
    fn from(arg: CpuLevelsArg) -> CpuLevels {
        match arg {
            CpuLevelsArg::All => CpuLevels::All,
            CpuLevelsArg::Native => CpuLevels::Native,
            CpuLevelsArg::Baseline => CpuLevels::Only(HostLevel::Baseline),
            CpuLevelsArg::Avx2 => CpuLevels::Only(HostLevel::Avx2),
            CpuLevelsArg::Avx512 => CpuLevels::Only(HostLevel::Avx512),
            CpuLevelsArg::Avx512Bf16 => CpuLevels::Only(HostLevel::Avx512Bf16),
        }
    }
}

/// Names of when keys and values are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyValuesArg {
    /// When the token comes.
    Eager,
    /// When a token of its sequence next executes the layer.
    Lazy,
}

impl From<KeyValuesArg> for KeyValues {
    fn from(arg: KeyValuesArg) -> KeyValues {
        match arg {
            KeyValuesArg::Eager => KeyValues::Eager,
            KeyValuesArg::Lazy => KeyValues::Lazy,
        }
    }
}

/// Names of what routers read in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SkipRunsArg {
    /// Each the tokens that come to its layer.
    Apart,
    /// All of a run of layers the tokens that come to the first.
    Together,
}

impl From<SkipRunsArg> for SkipRuns {
    fn from(arg: SkipRunsArg) -> SkipRuns {
        match arg {
            SkipRunsArg::Apart => SkipRuns::Apart,
            SkipRunsArg::Together => SkipRuns::Together,
        }
    }
}

/// Names of the forms of a model that are measured against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VariantArg {
    /// Layers over gathered rows; gathers, scatters and pointwise ops join the kernels around them.
    Fused,
    /// Layers over gathered rows as the model has them: no other forms are searched, every op is a kernel of its own,
    /// gathers and scatters are copies.
    Unfused,
    /// Layers over all rows, of which those of the tokens that execute are kept; kernels joined as in the first. Forms
    /// are searched as there, but by the rules that leave every op its rows: others would find the gathered form.
    Masked,
}

impl From<VariantArg> for Variant {
    fn from(arg: VariantArg) -> Variant {
        match arg {
            VariantArg::Fused => Variant::Fused,
            VariantArg::Unfused => Variant::Unfused,
            VariantArg::Masked => Variant::Masked,
        }
    }
}
