//! The CUDA devices that code is generated for, and what each of them can do.

use std::fmt;

use crate::error::Error;

/// A CUDA device architecture.
///
/// A target with the suffix `a` has instructions that no other architecture runs, so its code runs
/// on that architecture alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CudaTarget {
    /// A100.
    Sm80,
    /// RTX 30, A10, A40.
    Sm86,
    /// RTX 40, L4, L40.
    Sm89,
    /// H100, H200.
    Sm90a,
    /// B100, B200.
    Sm100a,
    /// RTX 50.
    Sm120a,
}

/// An instruction family that only some targets have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// `mma.sync` on bf16 operands with f32 accumulators.
    MmaBf16,
    /// `cp.async` from global to shared memory.
    CpAsync,
    /// `ldmatrix`.
    LdMatrix,
    /// `cvt.rn.bf16x2.f32`.
    CvtBf16x2,
    /// `wgmma.mma_async`.
    Wgmma,
    /// Bulk tensor copies through tensor maps (`cp.async.bulk.tensor`).
    TensorMap,
    /// `setmaxnreg`.
    SetMaxNReg,
    /// Programmatic dependent launch (`griddepcontrol`).
    GridDependency,
    /// Clusters of blocks that read each other's shared memory.
    Clusters,
}

impl CudaTarget {
    /// All targets, oldest first.
    pub const ALL: [Self; 6] = [Self::Sm80, Self::Sm86, Self::Sm89, Self::Sm90a, Self::Sm100a, Self::Sm120a];

    /// The target of that name (`sm_80`, `sm_90a`, …).
    ///
    /// # Errors
    /// [`Error::UnknownTarget`] with the names that exist.
    pub fn parse(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|target| target.name() == name).ok_or_else(|| Error::UnknownTarget {
            name: name.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }

    /// Devices with this architecture, human-readable.
    #[must_use]
    pub fn devices(self) -> &'static str {
        match self {
            Self::Sm80 => "A100",
            Self::Sm86 => "RTX 30, A10, A40",
            Self::Sm89 => "RTX 40, L4, L40",
            Self::Sm90a => "H100, H200",
            Self::Sm100a => "B100, B200",
            Self::Sm120a => "RTX 50",
        }
    }

    /// The name as ptxas and LLVM write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sm80 => "sm_80",
            Self::Sm86 => "sm_86",
            Self::Sm89 => "sm_89",
            Self::Sm90a => "sm_90a",
            Self::Sm100a => "sm_100a",
            Self::Sm120a => "sm_120a",
        }
    }

    /// LLVM's name for the PTX version to write.
    ///
    /// The oldest version that has all instructions of the target, so that old drivers can still
    /// read the text, and never above 9.0, the newest that LLVM 22 and CUDA 13.0 both know.
    pub(crate) fn ptx_feature(self) -> &'static str {
        match self {
            Self::Sm80 | Self::Sm86 | Self::Sm89 => "+ptx80",
            Self::Sm90a => "+ptx86",
            Self::Sm100a | Self::Sm120a => "+ptx90",
        }
    }

    /// Bytes of shared memory that one block may ask for.
    #[must_use]
    pub fn max_shared_bytes(self) -> u32 {
        match self {
            Self::Sm80 => 163 * 1024,
            Self::Sm86 | Self::Sm89 | Self::Sm120a => 99 * 1024,
            Self::Sm90a | Self::Sm100a => 227 * 1024,
        }
    }

    /// Does the target have this instruction family?
    #[must_use]
    pub fn has(self, feature: Feature) -> bool {
        match feature {
            Feature::MmaBf16 | Feature::CpAsync | Feature::LdMatrix | Feature::CvtBf16x2 => {
                self >= Self::Sm80
            }
            // Later architectures replaced it by another tensor-core interface.
            Feature::Wgmma => self == Self::Sm90a,
            Feature::TensorMap | Feature::GridDependency | Feature::SetMaxNReg | Feature::Clusters => {
                self >= Self::Sm90a
            }
        }
    }

    /// Checks that the target has all that a kernel needs. To be asked before code generation: LLVM
    /// ends the process on an instruction that it cannot select.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for the first feature that is missing.
    pub fn require(self, kernel: &str, features: &[Feature]) -> Result<(), Error> {
        match features.iter().find(|feature| !self.has(**feature)) {
            Some(feature) => {
                Err(Error::Unsupported { kernel: kernel.to_owned(), feature: *feature, target: self })
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for CudaTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MmaBf16 => "mma.sync on bf16",
            Self::CpAsync => "cp.async",
            Self::LdMatrix => "ldmatrix",
            Self::CvtBf16x2 => "cvt.rn.bf16x2.f32",
            Self::Wgmma => "wgmma",
            Self::TensorMap => "bulk tensor copies",
            Self::SetMaxNReg => "setmaxnreg",
            Self::GridDependency => "griddepcontrol",
            Self::Clusters => "clusters of blocks",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for target in CudaTarget::ALL {
            assert_eq!(CudaTarget::parse(target.name()).ok(), Some(target));
        }
        let error = CudaTarget::parse("sm_75").map_err(|error| error.to_string());
        assert!(error.is_err_and(|text| text.contains("sm_80, sm_86")));
    }

    #[test]
    fn missing_feature_is_an_error() {
        let error = CudaTarget::Sm80.require("gemm", &[Feature::MmaBf16, Feature::Wgmma]);
        assert!(
            error.is_err_and(
                |error| error.to_string() == "kernel `gemm` needs wgmma, which sm_80 does not have"
            )
        );
        assert!(CudaTarget::Sm90a.require("gemm", &[Feature::MmaBf16, Feature::Wgmma]).is_ok());
        assert!(!CudaTarget::Sm100a.has(Feature::Wgmma));
    }
}
