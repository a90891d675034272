//! Kernels to host object code with the processor's own vectors.
//!
//! [`Host`] turns all kernels of a plan into one relocatable ELF object for each level of instructions, with a function
//! for each kernel, as [`skipc_artifact::abi`] says; a runtime takes the highest level that its processor has. The code
//! refers to nothing outside of itself and calls nothing, not even the helpers.
//!
//! # How kernels become code
//!
//! - Matmuls: rows of the left operand, read in place if they are dense f32, else gathered and converted into scratch
//!   memory, times panels of weights in register tiles of their own for each level; the epilogue runs on a small buffer
//!   of sums.
//! - Attention: up to a panel of query rows of one sequence in the lanes of vectors, blocks of keys and values where
//!   they lie, a running softmax down the columns.
//! - Attention over caches: a query row after the other, heads that share keys together; the cache is read block by block of
//!   keys, with what comes next on its way from memory.
//! - Row-wise work and pointwise programs: loops over columns in the widest vectors.
//! - Sums have one order, which depends on the number of their terms and on the level alone: neither tiles nor threads
//!   change a bit.
//!
//! # Precision
//!
//! Parameters may be f32 or bf16. Arithmetic is f32; multiplications of matmuls and attention are fused with their sums where
//! the level has the instruction.
//!
//! # Reading order
//!
//! `level`, `code` (arithmetic and loops), `frame` (the ABI, rows, loads, stores), `math`, `pointwise`, `matmul`
//! (register tiles), then the kernels: `gemm`, `attention`, `rowwise`, `compact`, and `machine` (objects).

mod along;
mod attention;
mod cached;
mod choose;
mod code;
mod compact;
mod conv;
mod fault;
mod frame;
mod function;
mod gemm;
mod level;
mod limit;
mod loops;
mod machine;
mod math;
mod matmul;
mod pending;
mod pointwise;
mod ranked;
mod rowwise;
mod update;
mod weight_gradient;

use std::rc::Rc;

use fault::Fault;
use inkwell::context::Context;
use level::Level;
use rayon::prelude::*;
use skipc_artifact::image::{HostArch, HostLevel};
use skipc_artifact::target::{DType, Target};
use skipc_plan::codegen::{Code, Codegen, CodegenError, Image};
use skipc_plan::kernel::{Body, Grouped, Kernel};

/// The backend: host code for x86-64, at several levels of instructions.
pub struct Host {
    levels: Vec<Level>,
}

impl Host {
    /// Code for this architecture at all levels.
    ///
    /// # Errors
    /// [`CodegenError::Unsupported`] if there is none.
    pub fn new(arch: HostArch) -> Result<Host, CodegenError> {
        match arch {
            HostArch::X86_64 => Ok(Host { levels: Level::ALL.to_vec() }),
            HostArch::Aarch64 => {
                let why = "the LLVM backend has no code for aarch64; use --cpu-backend cranelift".to_owned();
                Err(Fault::Unsupported(why).at("(target)"))
            }
        }
    }

    /// Code at one level only.
    #[must_use]
    pub fn only(mut self, level: HostLevel) -> Host {
        self.levels.retain(|known| known.host == level);
        self
    }
}

impl Codegen for Host {
    fn target(&self) -> &Target {
        &Target::Cpu
    }

    fn compile(&self, kernels: &[(String, &Kernel)]) -> Result<Code, CodegenError> {
        let mut launches = Vec::with_capacity(kernels.len());
        for (symbol, kernel) in kernels {
            launches.push(function::launch(kernel, &self.levels).map_err(|fault| fault.at(symbol))?);
        }
        // Without dot products of bf16 the highest level is the one below it again.
        let has_bf16 = kernels.iter().any(|(_, kernel)| {
            matches!(&kernel.body, Body::Gemm(gemm) | Body::Grouped(Grouped { gemm, .. }) if kernel.param(gemm.a.slot).dtype == DType::Bf16)
        });
        let mut levels: Vec<Level> =
            self.levels.iter().map(|level| if has_bf16 { *level } else { level.without_dots() }).collect();
        levels.dedup_by_key(|level| level.host);
        let compiled = levels.par_iter().map(|level| compile_level(level, kernels));
        let (mut images, mut listing) = (Vec::new(), String::new());
        for (level, compiled) in levels.iter().zip(compiled.collect::<Vec<_>>()) {
            let (object, text) = compiled?;
            images.push(Image::HostObject { level: level.host, object });
            listing = text;
        }
        Ok(Code { launches, images, stages: vec![("llvm".to_owned(), listing)] })
    }
}

/// The object of a level, and its code as text before it is optimised.
fn compile_level(level: &Level, kernels: &[(String, &Kernel)]) -> Result<(Vec<u8>, String), CodegenError> {
    let context = Context::create();
    let module = Rc::new(context.create_module("kernels"));
    for (symbol, kernel) in kernels {
        function::define(&context, &module, *level, symbol, kernel).map_err(|fault| fault.at(symbol))?;
    }
    let text = module.print_to_string().to_string();
    let object = machine::object(&module, level).map_err(|fault| fault.at("(object)"))?;
    Ok((object, text))
}
