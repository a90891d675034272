//! The MLIR context, and the way from text to LLVM.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Once;

use melior::Context;
use melior::diagnostic::DiagnosticSeverity;
use melior::dialect::DialectRegistry;
use melior::ir::Module;
use melior::ir::operation::OperationLike;
use melior::pass::PassManager;
use melior::utility::{
    parse_pass_pipeline, register_all_dialects, register_all_llvm_translations, register_all_passes,
};

use crate::error::Error;
use crate::ffi;

/// Turns the operations that stand for inline PTX into inline assembly; all others translate as
/// they are.
const PIPELINE: &str = "builtin.module(convert-nvvm-to-llvm)";

/// An MLIR context with every dialect that kernels use.
pub struct Session {
    context: Context,
    /// What MLIR said since it was last asked.
    diagnostics: Rc<RefCell<Vec<String>>>,
}

/// A module that MLIR's verifier has accepted.
pub struct Mlir<'s> {
    session: &'s Session,
    module: Module<'s>,
}

impl Session {
    /// Makes a context, loads all dialects and keeps MLIR from writing to stderr.
    #[must_use]
    pub fn new() -> Self {
        static PASSES: Once = Once::new();
        PASSES.call_once(register_all_passes);
        let registry = DialectRegistry::new();
        register_all_dialects(&registry);
        let context = Context::new_with_threading(false);
        context.append_dialect_registry(&registry);
        // Types of a dialect that is not loaded end the process instead of giving an error.
        context.load_all_available_dialects();
        register_all_llvm_translations(&context);
        let diagnostics = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&diagnostics);
        context.attach_diagnostic_handler(move |diagnostic| {
            if matches!(diagnostic.severity(), DiagnosticSeverity::Error) {
                sink.borrow_mut().push(diagnostic.to_string());
            }
            true
        });
        Self { context, diagnostics }
    }

    /// Parses and verifies a module.
    ///
    /// # Errors
    /// [`Error::Parse`] with what MLIR said.
    pub fn parse(&self, text: &str) -> Result<Mlir<'_>, Error> {
        let refused = || Error::Parse { diagnostics: self.diagnostics.take() };
        // The text goes through a C string.
        if text.contains('\0') {
            return Err(Error::Parse { diagnostics: vec!["the text contains a NUL".to_owned()] });
        }
        let module = Module::parse(&self.context, text).ok_or_else(refused)?;
        if !module.as_operation().verify() {
            return Err(refused());
        }
        Ok(Mlir { session: self, module })
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Mlir<'_> {
    /// Lowers the module and hands it to LLVM.
    ///
    /// # Errors
    /// [`Error::Pipeline`] or [`Error::Translate`] with what MLIR said.
    pub fn to_llvm(mut self) -> Result<skipc_llvm::Module, Error> {
        let failed = || Error::Pipeline { pipeline: PIPELINE, diagnostics: self.session.diagnostics.take() };
        let passes = PassManager::new(&self.session.context);
        parse_pass_pipeline(passes.as_operation_pass_manager(), PIPELINE).map_err(|_| failed())?;
        passes.run(&mut self.module).map_err(|_| failed())?;
        ffi::translate(&self.module)
            .ok_or_else(|| Error::Translate { diagnostics: self.session.diagnostics.take() })
    }
}
