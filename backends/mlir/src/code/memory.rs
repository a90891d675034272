//! Loads, stores, and copies from global to shared memory.

use super::Code;
use super::value::{BF16, Elem, GPtr, I32, I64, Int, Operand, Ptr, SPtr, Ty, V2, V4, Val};

/// What one instruction can load or store.
pub(crate) trait Access: Ty {
    /// Bytes, which is also the alignment that the address has.
    const SIZE: u32;
}

impl<T: Elem> Access for T {
    const SIZE: u32 = T::BYTES;
}

impl<T: Elem> Access for V2<T> {
    const SIZE: u32 = 2 * T::BYTES;
}

impl<T: Elem> Access for V4<T> {
    const SIZE: u32 = 4 * T::BYTES;
}

impl<'c, P: Ptr> Val<'c, P> {
    /// The address that many elements further.
    pub(crate) fn at<T: Elem>(self, elements: impl Operand<'c, I32>) -> Self {
        let elements = elements.val(self.code);
        self.code.op(format_args!(
            "llvm.getelementptr {self}[{elements}] : ({}, i32) -> {}, {}",
            P::NAME,
            P::NAME,
            T::NAME
        ))
    }

    /// The address that many elements further, beyond what an i32 can count.
    pub(crate) fn far<T: Elem>(self, elements: impl Operand<'c, I64>) -> Self {
        let elements = elements.val(self.code);
        self.code.op(format_args!(
            "llvm.getelementptr {self}[{elements}] : ({}, i64) -> {}, {}",
            P::NAME,
            P::NAME,
            T::NAME
        ))
    }

    /// What stands there. The address is a multiple of the size.
    pub(crate) fn load<T: Access>(self) -> Val<'c, T> {
        self.code.op(format_args!(
            "llvm.load {self} {{alignment = {} : i64}} : {} -> {}",
            T::SIZE,
            P::NAME,
            T::NAME
        ))
    }

    /// Writes there. The address is a multiple of the size.
    pub(crate) fn store<T: Access>(self, value: Val<'c, T>) {
        self.code.stmt(format_args!(
            "llvm.store {value}, {self} {{alignment = {} : i64}} : {}, {}",
            T::SIZE,
            T::NAME,
            P::NAME
        ));
    }
}

impl<'c> SPtr<'c> {
    /// As a number, within the shared memory of the block.
    pub(crate) fn address(self) -> Int<'c> {
        self.code.op(format_args!("llvm.ptrtoint {self} : !llvm.ptr<3> to i32"))
    }

    /// Begins to copy `bytes` (2, 4, 8 or 16) from global memory; zeros where `present` does not
    /// hold. Both addresses are multiples of `bytes`, and the one to read from exists in any case.
    ///
    /// The device copies 2 bytes at once only, so then the copy is done before the thread goes on.
    pub(crate) fn copy_async(self, from: GPtr<'c>, bytes: u32, present: super::Bool<'c>) {
        if bytes == 2 {
            let loaded = from.load::<BF16>().to_float();
            self.store(present.select(loaded, 0.0f32).to_bf16());
            return;
        }
        let size: Int<'c> = present.select(bytes, 0u32);
        // Only copies of 16 bytes can pass the first-level cache by.
        let cache = if bytes == 16 { "cg" } else { "ca" };
        self.code.stmt(format_args!(
            "nvvm.cp.async.shared.global {self}, {from}, {bytes}, cache = {cache}, {size} \
             : !llvm.ptr<3>, !llvm.ptr<1>, i32"
        ));
    }
}

impl Code {
    /// Ends a group of asynchronous copies.
    pub(crate) fn copy_commit(&self) {
        self.stmt("nvvm.cp.async.commit.group");
    }

    /// Waits until all of this thread's copies are done, in a group or not.
    pub(crate) fn copy_wait_all(&self) {
        self.copy_commit();
        self.copy_wait(0);
    }

    /// Waits until at most `left` groups of this thread's copies are under way.
    pub(crate) fn copy_wait(&self, left: u32) {
        self.stmt(format_args!("nvvm.cp.async.wait.group {left}"));
    }
}
