//! CUDA code for each kind of kernel.

mod along;
mod attention;
mod choose;
mod compact;
mod conv;
mod gemm;
mod generated;
mod limit;
mod pages;
mod pending;
mod place;
mod pointwise;
mod ranked;
mod rowwise;
mod update;

use skipc_artifact::program::Launch;
use skipc_artifact::target::Target;
use skipc_llvm::{Cubin, CudaTarget, Ptx, Ptxas};
use skipc_plan::buckets::{Bucketing, ByHeight};
use skipc_plan::codegen::{self, Codegen, CodegenError, Image};
use skipc_plan::kernel::{Access, Body, Kernel, Slot};

use generated::Generated;

use crate::code::{Blocks, Code};
use crate::error::Error;
use crate::session::Session;

/// PTX for kernels, and what it was made from.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// How each kernel is started, in the order of the request; what only ptxas knows is 0.
    pub launches: Vec<Launch>,
    /// Registers that the warps of each kernel's block come to hold, if they hand them to each other; else 0.
    pub pools: Vec<u32>,
    /// The module as MLIR text.
    pub mlir: String,
    /// The module as LLVM text, before optimisation.
    pub llvm: String,
    /// The result.
    pub ptx: Ptx,
}

/// Generates PTX for named kernels, all in one module.
///
/// # Errors
/// The first error, with the name of the kernel that it is about; none if it is about the module.
pub fn lower(
    device: CudaTarget,
    kernels: &[(String, &Kernel)],
    bucketing: &dyn Bucketing,
) -> Result<Lowered, (Option<String>, Error)> {
    let mut texts = Vec::new();
    let (mut launches, mut pools) = (Vec::new(), Vec::new());
    for (symbol, kernel) in kernels {
        let generated =
            write(device, symbol, kernel, bucketing).map_err(|error| (Some(symbol.clone()), error))?;
        launches.push(Launch::Cuda {
            tiles: generated.tiles,
            threads: generated.threads,
            shared_bytes: generated.shared_bytes,
            registers: 0,
            static_shared_bytes: 0,
            persistent: generated.persistent,
            segments: generated.segments,
        });
        pools.push(generated.pool);
        if !generated.form.is_empty() {
            texts.push(format!("// {symbol}: {}\n", generated.form));
        }
        // No two parameters of a step overlap in memory, as the plan's verifier sees to.
        let is_read_only = |idx: u32| kernel.param(Slot(idx)).access == Access::Read;
        let Generated { threads, min_blocks: at_once, cluster, .. } = generated;
        texts.push(generated.code.finish(symbol, Blocks { threads, at_once, cluster }, is_read_only));
    }
    let mlir = Code::module(&texts);
    let (llvm, ptx) = translate(device, &mlir).map_err(|error| (None, error))?;
    Ok(Lowered { launches, pools, mlir, llvm, ptx })
}

/// Writes one kernel and checks that the target has what it needs.
fn write(
    device: CudaTarget,
    symbol: &str,
    kernel: &Kernel,
    bucketing: &dyn Bucketing,
) -> Result<Generated, Error> {
    let generated = generate(device, kernel, bucketing)?;
    device.require(symbol, &generated.features)?;
    if generated.shared_bytes > device.max_shared_bytes() {
        let (needed, there) = (generated.shared_bytes, device.max_shared_bytes());
        let what = format!("a tile of {needed} bytes of shared memory; {device} has {there}");
        return Err(Error::Unsupported { what });
    }
    Ok(generated)
}

fn translate(device: CudaTarget, mlir: &str) -> Result<(String, Ptx), Error> {
    let session = Session::new();
    let module = session.parse(mlir)?.to_llvm()?;
    Ok((module.text(), module.to_ptx(device)?))
}

/// Generates CUDA code: all kernels of a plan in one cubin, with the PTX beside it.
pub struct CudaCodegen {
    target: Target,
    device: CudaTarget,
    ptxas: Ptxas,
    bucketing: Box<dyn Bucketing>,
}

impl CudaCodegen {
    /// A generator for a CUDA target such as `cuda:sm_90a`. Among the forms of a kernel it takes the lowest that holds all
    /// rows.
    ///
    /// # Errors
    /// [`skipc_llvm::Error::UnknownTarget`] if the target is none that code can be generated for.
    pub fn new(target: Target, ptxas: Ptxas) -> Result<Self, skipc_llvm::Error> {
        let device = match &target {
            Target::Cuda(arch) => CudaTarget::parse(arch)?,
            Target::Cpu => CudaTarget::parse("cpu")?,
        };
        Ok(Self { target, device, ptxas, bucketing: Box::new(ByHeight) })
    }

    /// The same, but forms are chosen so.
    #[must_use]
    pub fn with_bucketing(self, bucketing: Box<dyn Bucketing>) -> Self {
        Self { bucketing, ..self }
    }

    fn error(&self, kernel: Option<String>, error: Error) -> CodegenError {
        let kernel = kernel.unwrap_or_else(|| "all kernels".to_owned());
        match error {
            Error::Unsupported { what } => {
                let why = format!("no code for {what}");
                CodegenError::Unsupported { target: self.target.clone(), kernel, why }
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

    fn assemble(&self, ptx: &Ptx) -> Result<Cubin, Error> {
        let cubin = self.ptxas.assemble(ptx)?;
        cubin.require_no_local_memory()?;
        cubin.require_no_serialized_matmuls()?;
        Ok(cubin)
    }
}

impl Codegen for CudaCodegen {
    fn target(&self) -> &Target {
        &self.target
    }

    fn compile(&self, kernels: &[(String, &Kernel)]) -> Result<codegen::Code, CodegenError> {
        let Lowered { mut launches, pools, mlir, llvm, ptx } =
            lower(self.device, kernels, self.bucketing.as_ref())
                .map_err(|(kernel, error)| self.error(kernel, error))?;
        let cubin = self.assemble(&ptx).map_err(|error| self.error(None, error))?;
        for (((symbol, _), launch), pool) in kernels.iter().zip(&mut launches).zip(pools) {
            let Some(resources) = cubin.kernels.iter().find(|resources| resources.kernel == *symbol) else {
                let message = "ptxas does not report on it".to_owned();
                return Err(CodegenError::Internal { kernel: symbol.clone(), message });
            };
            if let Launch::Cuda { threads, registers, static_shared_bytes, .. } = launch {
                *registers = resources.registers;
                *static_shared_bytes = resources.shared;
                if let Some(message) = missing_registers(pool, resources.registers, *threads) {
                    return Err(CodegenError::Internal { kernel: symbol.clone(), message });
                }
            }
        }
        let stages = [("mlir", mlir), ("llvm", llvm), ("ptx", ptx.text.clone())];
        Ok(codegen::Code {
            launches,
            stages: stages.map(|(name, text)| (name.to_owned(), text)).to_vec(),
            images: vec![Image::Cubin(cubin.bytes), Image::Ptx(ptx.text)],
        })
    }
}

/// What is wrong with a block that starts with so many registers a thread, if its warps come to hold `pool` in all: those that
/// ask for more than others have given back wait for ever (PTX ISA 9.0, section 9.7.19.5).
fn missing_registers(pool: u32, registers: u32, threads: u32) -> Option<String> {
    let launched = registers.saturating_mul(threads);
    let message = || {
        format!(
            "its warps take {pool} registers, of which ptxas gives the block {launched}: they wait for ever"
        )
    };
    (pool > launched).then(message)
}

fn generate(device: CudaTarget, kernel: &Kernel, bucketing: &dyn Bucketing) -> Result<Generated, Error> {
    match &kernel.body {
        Body::Gemm(gemm) => gemm::generate(device, kernel, (gemm, None), bucketing),
        Body::Grouped(grouped) => gemm::generate_grouped(device, kernel, grouped, bucketing),
        Body::Partition(partition) => choose::partition(kernel, partition),
        Body::Attention(attention) => attention::generate(kernel, attention),
        Body::CachedAttention(attention) => attention::cached::generate(device, kernel, attention),
        Body::Along(along) => along::generate(kernel, along),
        Body::Rowwise(rowwise) => rowwise::generate(kernel, rowwise),
        Body::Compact(compact) => compact::generate(kernel, compact),
        Body::Pending(pending) => pending::generate(kernel, pending),
        Body::Update(state_update) => update::generate(kernel, state_update),
        Body::Loops(_) | Body::WeightGradient(_) => {
            let what = format!("training on a GPU: there is no code for `{}`", kernel.describe());
            Err(Error::Unsupported { what })
        }
    }
}

#[cfg(test)]
mod tests;
