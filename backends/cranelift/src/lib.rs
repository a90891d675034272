//! Kernels to host object code without LLVM.
//!
//! [`Cranelift`] turns all kernels of a plan into one relocatable ELF object with a function for each kernel, as
//! [`skipc_artifact::abi`] says. The code is for any processor of its architecture ([`Cranelift::LEVEL`]), refers to
//! nothing outside of itself and calls nothing but the helper table: the matmul, and the functions with an
//! exponential in them, which the runtime has in the widest vectors of the machine.
//!
//! # How kernels become code
//!
//! - Matmuls: rows of the left operand are used in place if they are dense f32, else gathered and converted into
//!   scratch memory; the helper multiplies them with each weight into scratch memory, as many rows and columns at
//!   once as its caches like; the epilogue program runs over the sums and stores, row by row.
//! - Attention: the keys in sight are found by binary search. Many query rows of one sequence take blocks of keys
//!   through two matmuls with a running softmax between them; few rows, or bf16, go one by one.
//! - Row-wise work and pointwise programs: loops over columns in vectors of four f32 and a scalar loop for what is
//!   left. What is the same for all columns of a row is computed once.
//! - Sums over columns have one order, which depends on the number of columns alone. Only the matmul may
//!   order its sums by its sizes, and sizes depend on the tiles of a call.
//!
//! # Precision
//!
//! Parameters may be f32 or bf16, except that weights of matmuls are f32. Arithmetic is f32 without fused
//! multiply-adds, except in the helpers, whose precision [`skipc_artifact::abi`] says.
//!
//! # Reading order
//!
//! `function` (the shell of each kernel), `emit` (loops), `memory` (rows, loads, stores), `math`, `pointwise`, then
//! the kernels: `gemm`, `attention`, `along`, `rowwise`, `norm`, `compact`, `loops`, `weight_gradient`.

mod along;
mod attention;
mod choose;
mod compact;
mod conv;
mod emit;
mod error;
mod function;
mod gemm;
mod isa;
mod limit;
mod loops;
mod math;
mod matmul;
mod memory;
mod norm;
mod pending;
mod pointwise;
mod ranked;
mod rowwise;
mod update;
mod weight_gradient;

use std::fmt::Write as _;
use std::sync::Arc;

use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::FunctionBuilderContext;
use cranelift_module::{Linkage, Module as _, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use error::Fault;
use skipc_artifact::image::{HostArch, HostLevel};
use skipc_artifact::program::Launch;
use skipc_artifact::target::Target;
use skipc_plan::buckets::{Bucketing, ByHeight};
use skipc_plan::codegen::{Code, Codegen, CodegenError, Image};
use skipc_plan::kernel::Kernel;

/// The backend: host code for one architecture.
pub struct Cranelift {
    isa: Arc<dyn TargetIsa>,
    target: Target,
    bucketing: Box<dyn Bucketing>,
}

impl Cranelift {
    /// Which extensions of the instruction set the code uses: none.
    pub const LEVEL: HostLevel = HostLevel::Baseline;

    /// Code for this architecture. Among the forms of a kernel it takes the lowest that holds all rows.
    ///
    /// # Errors
    /// [`CodegenError::Internal`] if Cranelift was built without it.
    pub fn new(arch: HostArch) -> Result<Cranelift, CodegenError> {
        let isa = isa::baseline(arch).map_err(|fault| fault.at("(target)"))?;
        Ok(Cranelift { isa, target: Target::Cpu, bucketing: Box::new(ByHeight) })
    }

    /// The same, but forms are chosen so. Attention has two, and counts rows of one sequence in a tile.
    #[must_use]
    pub fn with_bucketing(self, bucketing: Box<dyn Bucketing>) -> Cranelift {
        Cranelift { bucketing, ..self }
    }

    fn compile_kernel(
        &self,
        module: &mut ObjectModule,
        builder_ctx: &mut FunctionBuilderContext,
        symbol: &str,
        kernel: &Kernel,
        listing: &mut String,
    ) -> Result<Launch, Fault> {
        let refused = |error: cranelift_module::ModuleError| Fault::Cranelift(format!("{error:?}"));
        let tiles = function::tiles(kernel, self.bucketing.as_ref())?;
        let launch = function::launch(kernel, &tiles)?;
        let config = self.isa.frontend_config();
        let mut ctx = module.make_context();
        function::build(&mut ctx, builder_ctx, config, symbol, (kernel, &tiles))?;
        if !listing.is_empty() {
            listing.push('\n');
        }
        write!(listing, "; {symbol}\n{}", ctx.func.display())
            .map_err(|error| Fault::Cranelift(error.to_string()))?;
        let id = module.declare_function(symbol, Linkage::Export, &ctx.func.signature).map_err(refused)?;
        module.define_function(id, &mut ctx).map_err(refused)?;
        Ok(launch)
    }
}

impl Codegen for Cranelift {
    fn target(&self) -> &Target {
        &self.target
    }

    fn compile(&self, kernels: &[(String, &Kernel)]) -> Result<Code, CodegenError> {
        let internal = |message: String| Fault::Cranelift(message).at("(object)");
        let builder = ObjectBuilder::new(Arc::clone(&self.isa), "kernels", default_libcall_names())
            .map_err(|error| internal(error.to_string()))?;
        let mut module = ObjectModule::new(builder);
        let mut builder_ctx = FunctionBuilderContext::new();
        let (mut launches, mut listing) = (Vec::with_capacity(kernels.len()), String::new());
        for (symbol, kernel) in kernels {
            let launch = self
                .compile_kernel(&mut module, &mut builder_ctx, symbol, kernel, &mut listing)
                .map_err(|fault| fault.at(symbol))?;
            launches.push(launch);
        }
        let object = module.finish().emit().map_err(|error| internal(error.to_string()))?;
        Ok(Code {
            launches,
            images: vec![Image::HostObject { level: Cranelift::LEVEL, object }],
            stages: vec![("clif".to_owned(), listing)],
        })
    }
}
