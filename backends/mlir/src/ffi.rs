//! The raw call that hands a module from MLIR to LLVM.

use melior::ir::Module;

/// Translates a module of the LLVM dialect, in process. `None` if MLIR cannot; its diagnostics go to
/// the handlers of the context.
pub(crate) fn translate(module: &Module<'_>) -> Option<skipc_llvm::Module> {
    let operation = module.as_operation().to_raw();
    // SAFETY: the translation makes a new module in the context that it is given, owned by whom it
    // is returned to, or returns null. `operation` is a live module operation for the whole call.
    unsafe {
        skipc_llvm::Module::build(|context| {
            mlir_sys::mlirTranslateModuleToLLVMIR(operation, context.cast()).cast()
        })
    }
}
