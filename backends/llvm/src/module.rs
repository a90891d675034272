//! An LLVM module on its way to PTX.

use inkwell::OptimizationLevel;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{
    CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple,
};

use crate::error::Error;
use crate::ffi::{self, Owned};
use crate::target::CudaTarget;

/// An LLVM module that owns its context. Made by [`Module::build`].
pub struct Module {
    pub(crate) owned: Owned,
}

/// The text of a PTX module. Holds no path and no line information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ptx {
    /// The text, ending in a line feed.
    pub text: String,
    /// What it was generated for.
    pub target: CudaTarget,
}

impl Module {
    /// The module as LLVM text, for dumps.
    #[must_use]
    pub fn text(&self) -> String {
        self.owned.module().print_to_string().to_string()
    }

    /// Names of the functions that the module declares and LLVM does not know as intrinsics.
    #[must_use]
    pub fn externals(&self) -> Vec<String> {
        self.owned
            .module()
            .get_functions()
            .filter(|function| function.count_basic_blocks() == 0 && function.get_intrinsic_id() == 0)
            .map(|function| function.get_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Optimises the module for the target and generates PTX.
    ///
    /// # Errors
    /// [`Error::Invalid`] if LLVM's verifier refuses the module, [`Error::Externals`] if it calls
    /// what no device has, [`Error::Machine`] and [`Error::Codegen`] for what LLVM reports.
    pub fn to_ptx(self, target: CudaTarget) -> Result<Ptx, Error> {
        let machine = machine(target)?;
        let module = self.owned.module();
        let names = self.externals();
        if !names.is_empty() {
            return Err(Error::Externals { names });
        }
        module.set_triple(&machine.get_triple());
        module.set_data_layout(&machine.get_target_data().get_data_layout());
        module.verify().map_err(|message| Error::Invalid { message: message.to_string() })?;
        ffi::mark_asm_convergent(&self.owned);
        let failed =
            |message: inkwell::support::LLVMString| Error::Codegen { target, message: message.to_string() };
        module.run_passes("default<O3>", &machine, PassBuilderOptions::create()).map_err(failed)?;
        let buffer = machine.write_to_memory_buffer(module, FileType::Assembly).map_err(failed)?;
        let text = String::from_utf8_lossy(buffer.as_slice());
        Ok(Ptx { text: text.trim_end_matches('\0').to_owned(), target })
    }
}

impl Ptx {
    /// How often `what` occurs in the text.
    #[must_use]
    pub fn count(&self, what: &str) -> usize {
        self.text.matches(what).count()
    }
}

fn machine(target: CudaTarget) -> Result<TargetMachine, Error> {
    Target::initialize_nvptx(&InitializationConfig::default());
    let triple = TargetTriple::create("nvptx64-nvidia-cuda");
    let failed = |message: String| Error::Machine { target, message };
    let nvptx = Target::from_triple(&triple).map_err(|message| failed(message.to_string()))?;
    nvptx
        .create_target_machine(
            &triple,
            target.name(),
            target.ptx_feature(),
            OptimizationLevel::Aggressive,
            RelocMode::Default,
            CodeModel::Default,
        )
        .ok_or_else(|| failed("no target machine".to_owned()))
}
