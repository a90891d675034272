//! LLVM modules to host objects.

use inkwell::OptimizationLevel;
use inkwell::module::Module;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{
    CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple,
};

use super::code::Made;
use super::fault::Fault;
use super::level::Level;

/// What kernels need of the optimiser: their loops are written as they should run.
const PASSES: &str = "function(instcombine<no-verify-fixpoint>,early-cse,simplifycfg,loop-mssa(licm),gvn,instcombine<no-verify-fixpoint>,simplifycfg)";

/// Optimises the module for a level and gives the bytes of a relocatable object.
pub(crate) fn object(module: &Module<'_>, level: &Level) -> Made<Vec<u8>> {
    let machine = machine(level)?;
    module.set_triple(&machine.get_triple());
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    let failed = |message: inkwell::support::LLVMString| Fault::Llvm(message.to_string());
    module.verify().map_err(failed)?;
    module.run_passes(PASSES, &machine, PassBuilderOptions::create()).map_err(failed)?;
    let buffer = machine.write_to_memory_buffer(module, FileType::Object).map_err(failed)?;
    Ok(buffer.as_slice().to_vec())
}

/// Position-independent code with the instructions of the level, never those of this machine: the same plan gives the
/// same bytes everywhere.
fn machine(level: &Level) -> Made<TargetMachine> {
    Target::initialize_x86(&InitializationConfig::default());
    let triple = TargetTriple::create("x86_64-unknown-linux-gnu");
    let target = Target::from_triple(&triple).map_err(|message| Fault::Llvm(message.to_string()))?;
    target
        .create_target_machine(
            &triple,
            "x86-64",
            level.features,
            OptimizationLevel::Default,
            RelocMode::PIC,
            CodeModel::Small,
        )
        .ok_or_else(|| Fault::Llvm(format!("no target machine for {:?}", level.host)))
}
