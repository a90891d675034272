//! Every kernel case through MLIR and LLVM to PTX, and that PTX run on the host.
//!
//! This shows that indexing, barriers, tails and epilogues are right, with the device's functions
//! replaced by exact ones. What only a device can show: speed, and the approximations' accuracy.

mod ptx_machine;

use std::collections::BTreeMap;

use ptx_machine::{Grid, Module};
use skipc_artifact::program::Launch;
use skipc_llvm::CudaTarget;
use skipc_mlir::lower;
use skipc_plan::kernel::Kernel;
use skipc_testkit::conformance::{Backend, run};
use skipc_testkit::kernel_cases::{Case, cases};

/// Generates PTX for each distinct kernel once.
struct PtxMachine {
    modules: BTreeMap<String, (Module, Launch)>,
}

impl Backend for PtxMachine {
    fn name(&self) -> String {
        "PTX machine".to_owned()
    }

    fn run(&mut self, cases: &[&Case]) -> Vec<Result<Vec<Vec<u8>>, String>> {
        let run = |case: &&Case| {
            let mut operands = case.operands.clone();
            self.run_kernel(&case.kernel, &mut operands).map(|()| operands)
        };
        cases.iter().map(run).collect()
    }
}

impl PtxMachine {
    fn run_kernel(&mut self, kernel: &Kernel, operands: &mut [Vec<u8>]) -> Result<(), String> {
        let key = format!("{kernel:?}");
        if !self.modules.contains_key(&key) {
            let named = [("kernel".to_owned(), kernel)];
            let lowered = lower(CudaTarget::Sm80, &named).map_err(|(_, error)| error.to_string())?;
            let module = Module::parse(&lowered.ptx.text)?;
            self.modules.insert(key.clone(), (module, lowered.launches[0].clone()));
        }
        let (module, launch) = &self.modules[&key];
        let Launch::Cuda { tile_rows, grid_y, threads, shared_bytes, .. } = *launch else {
            return Err("not a launch on CUDA".to_owned());
        };
        let (skipc_artifact::program::Extent::Fixed(bound)
        | skipc_artifact::program::Extent::Counted { at_most: bound, .. }) = kernel.extent;
        let x = if tile_rows == 0 { 1 } else { bound.div_ceil(tile_rows) };
        ptx_machine::run(module, "kernel", Grid { x, y: grid_y, threads, shared_bytes }, operands)
    }
}

/// Runs every `stride`-th of the cases whose name begins so; all of them where `SKIPC_ALL_CASES` is set.
fn check(prefix: &str, stride: usize) {
    let stride = if std::env::var_os("SKIPC_ALL_CASES").is_some() { 1 } else { stride };
    let chosen: Vec<Case> = cases().into_iter().filter(|case| case.name.starts_with(prefix)).step_by(stride).collect();
    assert!(!chosen.is_empty(), "no case begins with `{prefix}`");
    let report = run(&chosen, &mut PtxMachine { modules: BTreeMap::new() });
    println!("{report}");
    assert!(report.failed.is_empty(), "{report}");
}

#[test]
fn products() {
    check("gemm", 1);
    check("epilogue", 1);
}

#[test]
fn attention() {
    check("attention", 1);
}

#[test]
fn everything_else() {
    for prefix in ["rms_norm", "layer_norm", "dot", "embed", "rope", "map", "compact"] {
        check(prefix, 1);
    }
}
