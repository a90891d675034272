//! Every kernel case through MLIR and LLVM to PTX, and that PTX run on the host, in several schedules each.
//!
//! This shows that indexing, barriers, tails and epilogues are right and that no thread races with another. What only a
//! device can show: speed, and the approximations' accuracy.

#[path = "../../../tests/conformance/on_the_ptx_machine.rs"]
mod on_the_ptx_machine;

use std::collections::BTreeMap;
use std::sync::Arc;

use on_the_ptx_machine::Loaded;
use skipc_llvm::CudaTarget;
use skipc_mlir::lower;
use skipc_plan::buckets::ByHeight;
use skipc_plan::kernel::Kernel;
use skipc_ptx::machine::Program;
use skipc_testkit::conformance::{Backend, run};
use skipc_testkit::kernel_cases::{Case, cases, cuda_cases};

/// Schedules that each case is run in.
const SCHEDULES: u64 = 4;

/// The targets whose code is run.
const TARGETS: [CudaTarget; 2] = [CudaTarget::Sm80, CudaTarget::Sm90a];

/// Code of both targets on the machine.
struct PtxMachine {
    /// How many kernels the targets share: their instructions are the same, so that one run checks both.
    n_shared: usize,
    /// The different programs of each kernel that was met, by its description.
    programs: BTreeMap<String, Vec<Loaded>>,
}

impl Backend for PtxMachine {
    fn name(&self) -> String {
        format!("PTX machine, sm_80 and sm_90a, {SCHEDULES} schedules")
    }

    fn run(&mut self, cases: &[&Case]) -> Vec<Result<Vec<Vec<u8>>, String>> {
        cases.iter().map(|case| self.run_case(case)).collect()
    }
}

impl PtxMachine {
    fn new() -> Self {
        Self { n_shared: 0, programs: BTreeMap::new() }
    }

    /// The operands after the kernel, which have to be the same in every schedule; those of the first target, and those of
    /// others are checked here.
    fn run_case(&mut self, case: &Case) -> Result<Vec<Vec<u8>>, String> {
        let kernel = &case.kernel;
        let key = format!("{kernel:?}");
        if !self.programs.contains_key(&key) {
            let programs = programs(kernel)?;
            self.n_shared += usize::from(programs.len() < TARGETS.len());
            self.programs.insert(key.clone(), programs);
        }
        let mut first = None;
        for loaded in &self.programs[&key] {
            let run = |seed| on_the_ptx_machine::run(loaded, kernel, &case.operands, seed);
            let found = run(0)?;
            for seed in 1..SCHEDULES {
                if run(seed)? != found {
                    return Err(format!("schedule {seed} gives other bits than schedule 0"));
                }
            }
            if first.as_ref().is_some_and(|first| *first != found) {
                case.check(&found).map_err(|wrong| wrong.to_string())?;
            }
            first.get_or_insert(found);
        }
        first.ok_or_else(|| "no target".to_owned())
    }
}

/// The kernel's code for the targets, of those that differ in the header only the first.
fn programs(kernel: &Kernel) -> Result<Vec<Loaded>, String> {
    let mut texts: Vec<String> = Vec::new();
    let mut programs = Vec::new();
    for target in TARGETS {
        let named = [("kernel".to_owned(), kernel)];
        let lowered = lower(target, &named, &ByHeight).map_err(|(_, error)| error.to_string())?;
        let is_header = |line: &&str| line.starts_with(".version") || line.starts_with(".target");
        let text = lowered.ptx.text.lines().filter(|line| !is_header(line)).collect::<Vec<_>>().join("\n");
        if !texts.contains(&text) {
            let program = Program::load(&lowered.ptx.text, "kernel").map_err(|error| error.to_string())?;
            programs.push((Arc::new(program), lowered.launches[0].clone()));
            texts.push(text);
        }
    }
    Ok(programs)
}

/// Kinds of cases with a test of their own, so that they run beside each other.
const APART: [&str; 8] =
    ["gemm", "epilogue", "attention", "cached", "choose", "limit", "partition", "grouped"];

fn check_named(chosen: impl Fn(&str) -> bool) {
    check(cases().into_iter().filter(|case| chosen(&case.name)).collect());
}

fn check(chosen: Vec<Case>) {
    assert!(!chosen.is_empty(), "no such case");
    let mut machine = PtxMachine::new();
    let report = run(&chosen, &mut machine);
    println!(
        "{report}  of {} kernels {} are the same for all targets",
        machine.programs.len(),
        machine.n_shared
    );
    assert!(report.failed.is_empty(), "{report}");
}

#[test]
fn matmuls() {
    check_named(|name| name.starts_with(APART[0]));
}

#[test]
fn epilogues() {
    check_named(|name| name.starts_with(APART[1]));
}

#[test]
fn attention() {
    check_named(|name| name.starts_with(APART[2]));
}

#[test]
fn caches() {
    check_named(|name| name.starts_with(APART[3]));
}

#[test]
fn experts() {
    check_named(|name| APART[4..].iter().any(|prefix| name.starts_with(prefix)));
}

#[test]
fn everything_else() {
    check_named(|name| !APART.iter().any(|prefix| name.starts_with(prefix)));
}

/// Matmuls whose weights are swizzled: every kind of matmul and epilogue, at all extents.
#[test]
fn matmuls_of_swizzled_weights() {
    let chosen = |case: &Case| case.name.starts_with("swizzled_") && !case.name.contains("264x1032");
    check(cuda_cases().into_iter().filter(chosen).collect());
}

/// Matmuls of the size that the large tile is used for: tiles, columns and inner size have tails, sums are exact.
#[test]
fn large_tiles() {
    let chosen = [
        "swizzled_epilogue_bf16_whole_residual_2x264x1032_rows_140_",
        "epilogue_f32_whole_residual_2x264x1032_rows_1_",
        "epilogue_bf16_whole_residual_1x264x1032_rows_129_",
        "epilogue_bf16_whole_residual_2x264x1032_rows_127_",
    ];
    let large: Vec<Case> = cuda_cases()
        .into_iter()
        .filter(|case| chosen.iter().any(|name| case.name.starts_with(name)))
        .collect();
    assert_eq!(large.len(), chosen.len());
    check(large);
}
