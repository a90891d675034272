//! What the machine code of a CUDA program costs at least, kernel by kernel (`skipc inspect --sass`).

use serde::Serialize;
use skipc_artifact::program::{Launch, Program, RowTile};
use skipc_plan::Linked;
use skipc_plan::kernel::{Body, Kernel};
use skipc_sass::analysis::{self, LaunchShape};
use skipc_sass::listing;

use super::bucketing::machine::Gpu;

/// One kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfKernel {
    /// Its code.
    #[serde(flatten)]
    pub code: analysis::Kernel,
    /// Cycles of a turn of the loop of matmuls, if it has one.
    pub turn_cycles: Option<u32>,
    /// The most instructions between two matmuls of a turn.
    pub matmul_gap: Option<u32>,
    /// Cycles that its warps take for what they do behind the loop, for each tile.
    pub behind_cycles: Option<u32>,
    /// Turns for a tile of a matmul.
    pub turns: Option<u32>,
    /// Cycles behind the loop, of those of all its turns for a tile: while they pass, the tensor cores rest.
    pub exposed: Option<f64>,
    /// Bytes that a tile of a matmul takes from the second-level cache for each cycle of the tensor cores.
    pub operand_bytes: Option<f64>,
    /// Of the multiprocessors' time in a matmul of about [`Report::rows`] rows, the mean share in which they have a whole tile.
    pub filled: Option<f64>,
}

/// The kernels of a program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Its target.
    pub target: String,
    /// Rows around which [`OfKernel::filled`] is taken: from a tenth below to a tenth above.
    pub rows: u32,
    /// Multiprocessors that [`OfKernel::filled`] is of.
    pub processors: u32,
    /// In the order of the program.
    pub kernels: Vec<OfKernel>,
}

/// Bytes of an element of operands of the tensor cores.
const ELEMENT: u32 = 2;

/// Reads a cubin of a program; `rows` are 1 and more.
///
/// # Errors
/// The disassembler's.
pub fn report(
    program: &Program,
    linked: Option<&Linked>,
    cubin: &[u8],
    rows: u32,
) -> Result<Report, skipc_sass::Error> {
    let functions = listing::read(&skipc_sass::disassemble(cubin, &["-hex"])?)?;
    let mut kernels = Vec::new();
    for entry in &program.entries {
        let Launch::Cuda { threads, registers, .. } = entry.launch else { continue };
        let function = listing::find(&functions, &entry.symbol)?;
        let code = analysis::Kernel::of(function, LaunchShape { threads, registers });
        let kernel =
            linked.and_then(|linked| linked.kernels.iter().find(|(symbol, _)| **symbol == entry.symbol));
        kernels.push(of_kernel(code, kernel.map(|(_, kernel)| kernel), &entry.launch, rows));
    }
    let processors = Gpu::H100.multiprocessors;
    Ok(Report { target: program.target.to_string(), rows, processors, kernels })
}

fn of_kernel(code: analysis::Kernel, kernel: Option<&Kernel>, launch: &Launch, rows: u32) -> OfKernel {
    let inner = kernel.and_then(|kernel| match &kernel.body {
        Body::Gemm(gemm) => Some(gemm.k),
        _ => None,
    });
    let main = code.main_loop().and_then(|(main, behind)| Some((main, behind, main.tile?)));
    let turn_cycles = main.map(|(main, ..)| main.bound);
    let matmul_gap = main.map(|(main, ..)| main.matmul_gap);
    let behind_cycles = main.and_then(|(_, behind, _)| behind).map(|behind| behind.alone.max(behind.bound));
    let (mut turns, mut exposed, mut operand_bytes, mut filled) = (None, None, None, None);
    if let (Some(inner), Some((main, _, tile))) = (inner, main) {
        let n = inner.div_ceil(tile.inner.max(1));
        let busy = f64::from(n) * f64::from(main.bound);
        turns = Some(n);
        exposed = behind_cycles.map(|behind| f64::from(behind) / busy);
        if let Some(row_tile) = row_tile(launch, rows) {
            let bytes = (row_tile.rows + tile.columns) * tile.inner * ELEMENT;
            operand_bytes = Some(f64::from(bytes) / f64::from(main.tensor_cycles.max(1)));
        }
        filled = mean_filled(launch, rows, Gpu::H100.multiprocessors);
    }
    OfKernel { code, turn_cycles, matmul_gap, behind_cycles, turns, exposed, operand_bytes, filled }
}

/// The tile that is taken for so many rows.
fn row_tile(launch: &Launch, rows: u32) -> Option<&RowTile> {
    launch.tiles().iter().rev().find(|tile| tile.from <= rows)
}

/// The mean over counts from a tenth below to a tenth above `rows` of the share of the multiprocessors' time in which they have
/// rows that there are; nothing for kernels of which several blocks share a multiprocessor.
fn mean_filled(launch: &Launch, rows: u32, processors: u32) -> Option<f64> {
    let Launch::Cuda { persistent: true, .. } = launch else { return None };
    let counts = rows - rows / 10..=rows + rows / 10;
    let n = counts.clone().count();
    let share = |count: u32| {
        let tile = row_tile(launch, count)?;
        let waves = (count.div_ceil(tile.rows.max(1)) * tile.across).div_ceil(processors);
        Some(f64::from(count) / f64::from(tile.rows) * f64::from(tile.across) / f64::from(waves * processors))
    };
    Some(counts.map(share).sum::<Option<f64>>()? / n as f64)
}
