//! mbarriers, and what roles of a block need beside them: fences between proxies, and shares of the registers.
//!
//! Sections are those of the PTX ISA 9.0.

use super::Code;
use super::value::{Int, SPtr};

/// Nanoseconds after which a wait that found nothing asks again.
const PATIENCE: u32 = 10_000_000;

impl<'c> SPtr<'c> {
    /// Makes the 8 bytes here an mbarrier whose phases end with so many arrivals (section 9.7.13.15.9).
    pub(crate) fn init_mbarrier(self, arrivals: u32) {
        let arrivals = self.code.int(arrivals);
        self.code.stmt(format_args!("nvvm.mbarrier.init {self}, {arrivals} : !llvm.ptr<3>, i32"));
    }

    /// Arrives at the mbarrier and releases all that the thread knows (section 9.7.13.15.13).
    pub(crate) fn arrive(self) {
        self.code.stmt(format_args!("nvvm.mbarrier.arrive {self} : !llvm.ptr<3>"));
    }

    /// Waits until the mbarrier's phase of this parity is over (section 9.7.13.15.16). That before its first one
    /// counts as over, and has parity 1.
    pub(crate) fn wait_phase(self, parity: Int<'c>) {
        let patience = self.code.int(PATIENCE);
        self.code.stmt(format_args!(
            "nvvm.mbarrier.try_wait.parity {self}, {parity}, {patience} : !llvm.ptr<3>, i32, i32"
        ));
    }
}

impl Code {
    /// Shows new mbarriers to the asynchronous units (section 9.7.13.4).
    pub(crate) fn fence_new_mbarriers(&self) {
        self.stmt("nvvm.fence.mbarrier.init");
    }

    /// What the thread wrote to shared memory may be read by `wgmma` from here on (section 9.7.13.4).
    pub(crate) fn fence_async_proxy(&self) {
        self.stmt(
            "nvvm.fence.proxy {kind = #nvvm.proxy_kind<async.shared>, space = #nvvm.shared_space<cta>}",
        );
    }

    /// The lanes of a warp meet here and see each other's memory.
    pub(crate) fn sync_warp(&self) {
        let all = self.int(u32::MAX);
        self.stmt(format_args!("nvvm.bar.warp.sync {all} : i32"));
    }

    /// Gives registers back until each thread of the warp group has so many (section 9.7.19.5).
    pub(crate) fn shrink_registers(&self, to: u32) {
        self.stmt(format_args!("nvvm.setmaxregister decrease {to}"));
    }

    /// Waits for registers until each thread of the warp group has so many.
    pub(crate) fn grow_registers(&self, to: u32) {
        self.stmt(format_args!("nvvm.setmaxregister increase {to}"));
    }
}
