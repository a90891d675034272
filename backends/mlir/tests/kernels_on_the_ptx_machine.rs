//! Every kernel case through MLIR and LLVM to PTX, and that PTX run on the host, in several schedules each.
//!
//! This shows that indexing, barriers, tails and epilogues are right and that no thread races with another. What only a
//! device can show: speed, and the approximations' accuracy.

use std::collections::BTreeMap;
use std::sync::Arc;

use skipc_artifact::program::{Extent, Launch};
use skipc_artifact::target::DType;
use skipc_llvm::CudaTarget;
use skipc_mlir::lower;
use skipc_plan::interp::{Tiling, run_kernel};
use skipc_plan::kernel::{Access, Body, Gemm, Kernel, Param, Rows, Slot, View};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store};
use skipc_ptx::machine::{self, Arg, Memory, Program};
use skipc_testkit::conformance::{Backend, run};
use skipc_testkit::kernel_cases::{Case, cases};

/// Schedules that each case is run in.
const SCHEDULES: u64 = 8;

/// The targets whose code is run.
const TARGETS: [CudaTarget; 2] = [CudaTarget::Sm80, CudaTarget::Sm90a];

/// Code of both targets on the machine.
struct PtxMachine {
    /// How many kernels the targets share: their instructions are the same, so that one run judges both.
    n_shared: usize,
    /// The different programs of each kernel that was met, by its description.
    programs: BTreeMap<String, Vec<(Arc<Program>, Launch)>>,
}

impl Backend for PtxMachine {
    fn name(&self) -> String {
        format!("PTX machine, sm_80 and sm_90a, {SCHEDULES} schedules")
    }

    fn run(&mut self, cases: &[&Case]) -> Vec<Result<Vec<Vec<u8>>, String>> {
        cases.iter().map(|case| self.run_kernel(&case.kernel, &case.operands)).collect()
    }
}

impl PtxMachine {
    fn new() -> Self {
        Self { n_shared: 0, programs: BTreeMap::new() }
    }

    /// The operands after the kernel, which have to be the same in every schedule and for every target.
    fn run_kernel(&mut self, kernel: &Kernel, operands: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
        let key = format!("{kernel:?}");
        if !self.programs.contains_key(&key) {
            let programs = programs(kernel)?;
            self.n_shared += usize::from(programs.len() < TARGETS.len());
            self.programs.insert(key.clone(), programs);
        }
        let mut first = None;
        for (program, launch) in &self.programs[&key] {
            for seed in 0..SCHEDULES {
                let found = run_once(program, launch, kernel, operands, seed)?;
                if *first.get_or_insert_with(|| found.clone()) != found {
                    return Err(format!("schedule {seed} gives other bits than schedule 0"));
                }
            }
        }
        first.ok_or_else(|| "no target".to_owned())
    }
}

/// The kernel's code for the targets, of those that differ in the header only the first.
fn programs(kernel: &Kernel) -> Result<Vec<(Arc<Program>, Launch)>, String> {
    let mut texts: Vec<String> = Vec::new();
    let mut programs = Vec::new();
    for target in TARGETS {
        let named = [("kernel".to_owned(), kernel)];
        let lowered = lower(target, &named).map_err(|(_, error)| error.to_string())?;
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

fn run_once(
    program: &Arc<Program>,
    launch: &Launch,
    kernel: &Kernel,
    operands: &[Vec<u8>],
    seed: u64,
) -> Result<Vec<Vec<u8>>, String> {
    let Launch::Cuda { tile_rows, grid_y, threads, shared_bytes, .. } = *launch else {
        return Err("not a launch on CUDA".to_owned());
    };
    let (Extent::Fixed(bound) | Extent::Counted { at_most: bound, .. }) = kernel.extent;
    let grid_x = if tile_rows == 0 { 1 } else { bound.div_ceil(tile_rows) };
    if grid_x == 0 {
        return Ok(operands.to_vec());
    }
    let mut memory = Memory::default();
    let mut args = Vec::new();
    for (param, operand) in kernel.params.iter().zip(operands) {
        let (name, bytes) = (param.name.clone(), operand.clone());
        let writable = param.access != Access::Read;
        args.push(Arg::U64(memory.add(machine::Buffer { name, bytes, writable })));
    }
    let launch = machine::Launch {
        dynamic_shared: shared_bytes,
        seed,
        ..machine::Launch::new([grid_x, grid_y, 1], threads, args)
    };
    machine::run(program, &launch, &mut memory).map_err(|fault| fault.to_string())?;
    Ok(memory.into_buffers().into_iter().map(|buffer| buffer.bytes).collect())
}

/// Kinds of cases with a test of their own, so that they run beside each other.
const APART: [&str; 3] = ["gemm", "epilogue", "attention"];

fn check(chosen: impl Fn(&str) -> bool) {
    let chosen: Vec<Case> = cases().into_iter().filter(|case| chosen(&case.name)).collect();
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
fn products() {
    check(|name| name.starts_with(APART[0]));
}

#[test]
fn epilogues() {
    check(|name| name.starts_with(APART[1]));
}

#[test]
fn attention() {
    check(|name| name.starts_with(APART[2]));
}

#[test]
fn everything_else() {
    check(|name| !APART.iter().any(|prefix| name.starts_with(prefix)));
}

/// A product of the size that the large tile is used for: gathered rows, one or two weights, added
/// to listed rows. Tiles, columns and inner size have tails.
fn large_product(dtype: DType, weights: u32) -> Kernel {
    let (k, n) = (264, 1032);
    let param = |name: &str, dtype, cols, access| Param { name: name.to_owned(), dtype, cols, access };
    let read = |name: &str, dtype, cols| param(name, dtype, cols, Access::Read);
    let listed = |slot| View { slot: Slot(slot), rows: Rows::Listed(Slot(1)), col: 0 };
    let mut code = vec![Inst::Load(listed(3)), Inst::Acc(0), Inst::Binary(Binary::Add, Reg(0), Reg(1))];
    let mut params = vec![
        read("count", DType::U32, 1),
        read("rows", DType::U32, 1),
        read("a", dtype, k),
        param("x", dtype, n, Access::ReadWrite),
        read("first", dtype, k),
    ];
    if weights == 2 {
        params.push(read("second", dtype, k));
        code.extend([Inst::Acc(1), Inst::Binary(Binary::Sub, Reg(2), Reg(3))]);
    }
    let value = Reg(code.len() as u32 - 1);
    Kernel {
        params,
        extent: Extent::Counted { count: 0, at_most: 512 },
        body: Body::Gemm(Gemm {
            a: listed(2),
            k,
            n,
            weights: (4..4 + weights).map(Slot).collect(),
            epilogue: Pointwise { code, stores: vec![Store { to: listed(3), value }] },
        }),
    }
}

/// Operands of small whole numbers, whose sums are exact; `count` of the rows are listed.
fn whole_numbers(kernel: &Kernel, rows: u32, count: u32) -> Vec<Vec<u8>> {
    let mut state = 1_u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 24) % 5) as f32 - 2.0
    };
    let fill = |param: &Param| -> Vec<u8> {
        let rows = if param.name == "first" || param.name == "second" { 1032 } else { rows };
        let items = (0..rows * param.cols).map(|_| next());
        match param.dtype {
            DType::Bf16 => items.flat_map(|item| ((item.to_bits() >> 16) as u16).to_le_bytes()).collect(),
            _ => items.flat_map(f32::to_le_bytes).collect(),
        }
    };
    let mut operands: Vec<Vec<u8>> = kernel.params.iter().map(fill).collect();
    operands[0] = count.to_le_bytes().to_vec();
    operands[1] = (0..rows).map(|row| 2 * row.min(count)).flat_map(u32::to_le_bytes).collect();
    operands
}

#[test]
fn large_tiles() {
    let mut machine = PtxMachine::new();
    for (dtype, weights, count) in [(DType::Bf16, 1, 129), (DType::Bf16, 2, 65), (DType::F32, 2, 1)] {
        let kernel = large_product(dtype, weights);
        let operands = whole_numbers(&kernel, 260, count);
        let mut expected = operands.clone();
        run_kernel(&kernel, &mut expected, Tiling::of(64)).expect("the interpreter runs it");
        let found = machine.run_kernel(&kernel, &operands).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(found == expected, "{dtype}, {weights} weights, {count} rows");
    }
}
