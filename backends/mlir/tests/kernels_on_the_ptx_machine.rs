//! Every kernel case through MLIR and LLVM to PTX, and that PTX run on the host.
//!
//! This shows that indexing, barriers, tails and epilogues are right, with the device's functions
//! replaced by exact ones. What only a device can show: speed, and the approximations' accuracy.

mod ptx_machine;

use std::collections::BTreeMap;

use ptx_machine::{Grid, Module};
use skipc_artifact::program::{Extent, Launch};
use skipc_artifact::target::DType;
use skipc_llvm::CudaTarget;
use skipc_mlir::lower;
use skipc_plan::interp::{Tiling, run_kernel};
use skipc_plan::kernel::{Access, Body, Gemm, Kernel, Param, Rows, Slot, View};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Reg, Store};
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
        let (Extent::Fixed(bound) | Extent::Counted { at_most: bound, .. }) = kernel.extent;
        let x = if tile_rows == 0 { 1 } else { bound.div_ceil(tile_rows) };
        ptx_machine::run(module, "kernel", Grid { x, y: grid_y, threads, shared_bytes }, operands)
    }
}

/// Runs every `stride`-th of the cases whose name begins so; all of them where `SKIPC_ALL_CASES` is set.
fn check(prefix: &str, stride: usize) {
    let stride = if std::env::var_os("SKIPC_ALL_CASES").is_some() { 1 } else { stride };
    let chosen: Vec<Case> =
        cases().into_iter().filter(|case| case.name.starts_with(prefix)).step_by(stride).collect();
    assert!(!chosen.is_empty(), "no case begins with `{prefix}`");
    let report = run(&chosen, &mut PtxMachine { modules: BTreeMap::new() });
    println!("{report}");
    assert!(report.failed.is_empty(), "{report}");
}

#[test]
fn products() {
    check("gemm", 9);
    check("epilogue", 9);
}

#[test]
fn attention() {
    check("attention", 11);
}

#[test]
fn everything_else() {
    for prefix in ["rms_norm", "layer_norm", "dot", "embed", "rope", "map", "compact"] {
        check(prefix, 9);
    }
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
    let mut machine = PtxMachine { modules: BTreeMap::new() };
    for (dtype, weights, count) in [(DType::Bf16, 1, 129), (DType::Bf16, 2, 65), (DType::F32, 2, 1)] {
        let kernel = large_product(dtype, weights);
        let mut operands = whole_numbers(&kernel, 260, count);
        let mut expected = operands.clone();
        run_kernel(&kernel, &mut expected, Tiling::of(64)).expect("the interpreter runs it");
        machine.run_kernel(&kernel, &mut operands).expect("the machine runs it");
        assert!(operands == expected, "{dtype}, {weights} weights, {count} rows");
    }
}
