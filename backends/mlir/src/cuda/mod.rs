//! CUDA code for each kind of kernel.

mod attention;
mod compact;
mod gemm;
mod place;
mod pointwise;
mod rowwise;

use skipc_artifact::program::Launch;
use skipc_artifact::target::Target;
use skipc_llvm::{Cubin, CudaTarget, Feature, Ptx, Ptxas};
use skipc_plan::codegen::{self, Codegen, CodegenError, Image};
use skipc_plan::kernel::{Body, Kernel};

use crate::code::Code;
use crate::error::Error;
use crate::session::Session;

/// A kernel that was written, and how it is started.
struct Generated {
    code: Code,
    /// Rows of a block; 0 for a single block.
    tile_rows: u32,
    /// Blocks side by side.
    grid_y: u32,
    /// Threads of a block.
    threads: u32,
    /// Bytes of dynamic shared memory.
    shared_bytes: u32,
    /// Blocks that a multiprocessor should hold; bounds the registers.
    min_blocks: u32,
    /// What it needs of the target.
    features: Vec<Feature>,
}

/// Generates CUDA code: all kernels of a plan in one cubin, with the PTX beside it.
pub struct CudaCodegen {
    target: Target,
    device: CudaTarget,
    ptxas: Ptxas,
}

impl CudaCodegen {
    /// A generator for a CUDA target such as `cuda:sm_90a`.
    ///
    /// # Errors
    /// [`skipc_llvm::Error::UnknownTarget`] if the target is none that code can be generated for.
    pub fn new(target: Target, ptxas: Ptxas) -> Result<Self, skipc_llvm::Error> {
        let device = match &target {
            Target::Cuda(arch) => CudaTarget::parse(arch)?,
            Target::Cpu => CudaTarget::parse("cpu")?,
        };
        Ok(Self { target, device, ptxas })
    }

    fn error(&self, kernel: &str, error: Error) -> CodegenError {
        let kernel = kernel.to_owned();
        match error {
            Error::Unsupported { what } => {
                CodegenError::Unsupported { target: self.target.clone(), kernel, why: format!("no code for {what}") }
            }
            Error::Llvm(error @ skipc_llvm::Error::Unsupported { .. }) => {
                CodegenError::Unsupported { target: self.target.clone(), kernel, why: error.to_string() }
            }
            Error::Llvm(
                error @ (skipc_llvm::Error::NoPtxas { .. }
                | skipc_llvm::Error::Io { .. }
                | skipc_llvm::Error::Ptxas { .. }
                | skipc_llvm::Error::Report { .. }),
            ) => CodegenError::Tool { tool: "ptxas".to_owned(), message: error.to_string() },
            error => CodegenError::Internal { kernel, message: error.to_string() },
        }
    }

    /// Writes one kernel and checks that the target has what it needs.
    fn write(&self, symbol: &str, kernel: &Kernel) -> Result<Generated, Error> {
        let generated = generate(kernel)?;
        self.device.require(symbol, &generated.features)?;
        if generated.shared_bytes > self.device.max_shared_bytes() {
            let what = format!(
                "a tile of {} bytes of shared memory; {} has {}",
                generated.shared_bytes,
                self.device,
                self.device.max_shared_bytes()
            );
            return Err(Error::Unsupported { what });
        }
        Ok(generated)
    }

    fn assemble(&self, mlir: &str) -> Result<(String, Ptx, Cubin), Error> {
        let session = Session::new();
        let module = session.parse(mlir)?.to_llvm()?;
        let llvm = module.text();
        let ptx = module.to_ptx(self.device)?;
        let cubin = self.ptxas.assemble(&ptx)?;
        cubin.require_no_local_memory()?;
        Ok((llvm, ptx, cubin))
    }
}

impl Codegen for CudaCodegen {
    fn target(&self) -> &Target {
        &self.target
    }

    fn compile(&self, kernels: &[(String, &Kernel)]) -> Result<codegen::Code, CodegenError> {
        let mut texts = Vec::new();
        let mut launches = Vec::new();
        for (symbol, kernel) in kernels {
            let generated = self.write(symbol, kernel).map_err(|error| self.error(symbol, error))?;
            launches.push(Launch::Cuda {
                tile_rows: generated.tile_rows,
                grid_y: generated.grid_y,
                threads: generated.threads,
                shared_bytes: generated.shared_bytes,
                registers: 0,
                static_shared_bytes: 0,
            });
            texts.push(generated.code.finish(symbol, generated.threads, generated.min_blocks));
        }
        let mlir = Code::module(&texts);
        let (llvm, ptx, cubin) = self.assemble(&mlir).map_err(|error| self.error("all kernels", error))?;
        for ((symbol, _), launch) in kernels.iter().zip(&mut launches) {
            let Some(resources) = cubin.kernels.iter().find(|resources| resources.kernel == *symbol) else {
                let message = "ptxas does not report on it".to_owned();
                return Err(CodegenError::Internal { kernel: symbol.clone(), message });
            };
            if let Launch::Cuda { registers, static_shared_bytes, .. } = launch {
                *registers = resources.registers;
                *static_shared_bytes = resources.shared;
            }
        }
        Ok(codegen::Code {
            launches,
            stages: vec![
                ("mlir".to_owned(), mlir),
                ("llvm".to_owned(), llvm),
                ("ptx".to_owned(), ptx.text.clone()),
            ],
            images: vec![Image::Cubin(cubin.bytes), Image::Ptx(ptx.text)],
        })
    }
}

fn generate(kernel: &Kernel) -> Result<Generated, Error> {
    match &kernel.body {
        Body::Gemm(gemm) => gemm::generate(kernel, gemm),
        Body::Attention(attention) => attention::generate(kernel, attention),
        Body::Rowwise(rowwise) => rowwise::generate(kernel, rowwise),
        Body::Compact(compact) => compact::generate(kernel, compact),
    }
}

#[cfg(test)]
mod tests;
