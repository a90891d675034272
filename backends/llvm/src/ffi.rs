//! The raw calls into LLVM: owning a context together with its module, call-site attributes, and addresses.

use std::ffi::{c_char, c_void};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::OnceLock;

use inkwell::attributes::Attribute;
use inkwell::builder::{Builder, BuilderError};
use inkwell::llvm_sys::core::{
    LLVMAddCallSiteAttribute, LLVMContextCreate, LLVMContextDispose, LLVMCreateEnumAttribute,
    LLVMGetCalledValue, LLVMGetModuleContext, LLVMIsACallInst, LLVMIsAInlineAsm,
};
use inkwell::llvm_sys::{LLVMAttributeFunctionIndex, LLVMContext, LLVMModule};
use inkwell::types::IntType;
use inkwell::values::{AsValueRef, IntValue, PointerValue};

use crate::module::Module;

// Not in the interface for C. The names are those of the only version that is linked (the workspace's manifest pins it), and whose
// header is `llvm/Support/ErrorHandling.h`.
// SAFETY: both are functions of LLVM with these types; the second takes nothing and may be called at any time.
unsafe extern "C" {
    #[link_name = "_ZN4llvm31install_bad_alloc_error_handlerEPFvPvPKcbES0_"]
    fn install_bad_alloc_error_handler(
        handler: extern "C" fn(*mut c_void, *const c_char, bool),
        data: *mut c_void,
    );
    #[link_name = "_ZN4llvm33install_out_of_memory_new_handlerEv"]
    safe fn install_out_of_memory_new_handler();
}

static WITHOUT_MEMORY: OnceLock<fn() -> !> = OnceLock::new();

/// Where LLVM, MLIR or anything else in C++ finds no memory, `end` ends the process, which else would abort. Only the first call counts.
pub fn end_without_memory(end: fn() -> !) {
    extern "C" fn without_memory(_: *mut c_void, _: *const c_char, _: bool) {
        WITHOUT_MEMORY.get().map_or_else(|| std::process::abort(), |end| end())
    }
    if WITHOUT_MEMORY.set(end).is_ok() {
        // SAFETY: no handler is installed, since the first call alone comes here; ours looks at none of its arguments and does not return.
        unsafe { install_bad_alloc_error_handler(without_memory, std::ptr::null_mut()) };
        install_out_of_memory_new_handler();
    }
}

/// A pointer to an LLVM context.
pub type RawContext = *mut LLVMContext;
/// A pointer to an LLVM module.
pub type RawModule = *mut LLVMModule;

/// A module with the context it lives in.
///
/// Invariant: the module belongs to the context, and both are owned by this value alone.
pub(crate) struct Owned {
    module: ManuallyDrop<inkwell::module::Module<'static>>,
    context: NonNull<LLVMContext>,
}

impl Owned {
    /// Makes a context and lets `build` make a module in it. `None` if `build` returns null.
    ///
    /// # Safety
    /// What `build` returns is null or a module of the context that it was given, and nobody else
    /// keeps or frees it.
    pub(crate) unsafe fn build(build: impl FnOnce(RawContext) -> RawModule) -> Option<Self> {
        // SAFETY: no precondition.
        let context = NonNull::new(unsafe { LLVMContextCreate() })?;
        let module = build(context.as_ptr());
        if module.is_null() {
            // SAFETY: the context was made above and holds no module.
            unsafe { LLVMContextDispose(context.as_ptr()) };
            return None;
        }
        // SAFETY: the caller promises a module of this context that is ours alone.
        debug_assert_eq!(unsafe { LLVMGetModuleContext(module) }, context.as_ptr());
        // SAFETY: as above; the lifetime is a stand-in, `Owned` never lets the module outlive the
        // context because `module` gives it out by reference only.
        let module = ManuallyDrop::new(unsafe { inkwell::module::Module::new(module) });
        Some(Self { module, context })
    }

    pub(crate) fn module(&self) -> &inkwell::module::Module<'static> {
        &self.module
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: dropped once, here, and not used after.
        unsafe { ManuallyDrop::drop(&mut self.module) };
        // SAFETY: the only module of the context is gone; the context is ours (invariant).
        unsafe { LLVMContextDispose(self.context.as_ptr()) };
    }
}

impl Module {
    /// Makes a context and takes the module that `build` makes in it; `None` if that is null.
    ///
    /// # Safety
    /// What `build` returns is null or a module of the context that it was given, and nobody else
    /// keeps or frees it.
    pub unsafe fn build(build: impl FnOnce(RawContext) -> RawModule) -> Option<Self> {
        // SAFETY: the caller's promise is the same.
        unsafe { Owned::build(build) }.map(|owned| Self { owned })
    }
}

/// Marks each call of inline assembly as convergent: it must not be moved under a condition that
/// differs between threads, or be duplicated. Returns how many calls there are.
///
/// The conversion from NVVM marks such calls as having side effects only, which permits both.
pub(crate) fn mark_asm_convergent(owned: &Owned) -> usize {
    let kind = Attribute::get_named_enum_kind_id("convergent");
    let mut marked = 0;
    for function in owned.module.get_functions() {
        for block in function.get_basic_blocks() {
            for instruction in block.get_instructions() {
                let value = instruction.as_value_ref();
                // SAFETY: `value` is an instruction of the module; a cast to a call yields null for
                // others, and only calls are asked for their callee.
                let is_asm = unsafe {
                    !LLVMIsACallInst(value).is_null()
                        && !LLVMIsAInlineAsm(LLVMGetCalledValue(value)).is_null()
                };
                if is_asm {
                    // SAFETY: the attribute is made in the context of the module, `value` is a call.
                    unsafe {
                        let attribute = LLVMCreateEnumAttribute(owned.context.as_ptr(), kind, 0);
                        LLVMAddCallSiteAttribute(value, LLVMAttributeFunctionIndex, attribute);
                    }
                    marked += 1;
                }
            }
        }
    }
    marked
}

/// `base + bytes`, where the sum may be any address.
pub(crate) fn byte_offset<'c>(
    builder: &Builder<'c>,
    byte: IntType<'c>,
    base: PointerValue<'c>,
    bytes: IntValue<'c>,
) -> Result<PointerValue<'c>, BuilderError> {
    // SAFETY: one index for a scalar type is what the instruction takes, and it makes no promise of bounds.
    unsafe { builder.build_gep(byte, base, &[bytes], "") }
}
