//! How long a form of a kernel takes on a machine, as far as forms differ.

use skipc_artifact::program::RowTile;
use skipc_artifact::target::{DType, Target};
use skipc_passes::rewrite::cost::{self, CPU, Work};
use skipc_plan::buckets::Tile;
use skipc_plan::kernel::{Attention, Body, Gemm, Kernel, Part};

/// What kernels run on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Machine {
    /// A processor.
    Host(cost::Target),
    /// A GPU.
    Gpu(Gpu),
}

/// The rates of a GPU. Times are in nanoseconds, so that rates are in G a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// Multiprocessors, each of which works on one tile at a time.
    pub multiprocessors: u32,
    /// Floating-point operations of the tensor cores on bf16, all multiprocessors together.
    pub bf16_flops: f64,
    /// The same in f32, without tensor cores.
    pub f32_flops: f64,
    /// Bytes from memory.
    pub memory: f64,
    /// Bytes from the second-level cache, all multiprocessors together.
    pub cache: f64,
    /// To start a kernel behind another in a graph.
    pub launch: f64,
}

impl Gpu {
    /// H100 SXM: what sustained matmuls and copies were measured at by others (`performance.md` names the goals that
    /// are compared with them): 800 TFLOP/s, 3.0 TB/s, 18 TB/s from the cache, 1.3 µs a kernel border; f32 from the data
    /// sheet. Not measured by us.
    pub const H100: Gpu = Gpu {
        multiprocessors: 132,
        bf16_flops: 800_000.0,
        f32_flops: 67_000.0,
        memory: 3_000.0,
        cache: 18_000.0,
        launch: 1_300.0,
    };

    /// A100 SXM 40 GB, from its data sheet (312 TFLOP/s, 19.5 in f32, 1.56 TB/s), with the cache at 64 bytes a cycle and
    /// multiprocessor and the kernel border of an H100. Not measured by us.
    pub const A100: Gpu = Gpu {
        multiprocessors: 108,
        bf16_flops: 312_000.0,
        f32_flops: 19_500.0,
        memory: 1_555.0,
        cache: 9_700.0,
        launch: 1_300.0,
    };

    /// Any kernel that reads and writes so many bytes and does so many multiply-adds over `rows` rows: what takes longer of
    /// the two, and of a matmul also its waves of tiles.
    pub fn kernel(&self, kernel: &Kernel, tiles: &[RowTile], rows: u32, (bytes, macs): (f64, f64)) -> f64 {
        let roof = bytes / self.memory;
        let Body::Gemm(gemm) = &kernel.body else {
            return self.launch + roof.max(2.0 * macs / self.bf16_flops);
        };
        let waves = tiles.iter().rev().find(|tile| tile.from <= rows).map(|tile| {
            let outputs: u32 = gemm.parts.iter().map(|part| part.n * part.sums.len() as u32).sum();
            let across = tile.across.max(1);
            let tile = Tile { rows: tile.rows, cols: outputs.div_ceil(across), across };
            self.matmul(kernel, gemm, &tile, rows)
        });
        waves.unwrap_or(0.0).max(self.launch + roof)
    }

    /// A matmul: tiles go to the multiprocessors in waves, each of which takes as long as the arithmetic of a whole tile
    /// or the copies of its operands; and no matmul is done before its weights and rows are read.
    fn matmul(&self, kernel: &Kernel, gemm: &Gemm, tile: &Tile, rows: u32) -> f64 {
        let dtype = kernel.param(gemm.a.slot).dtype;
        let flops = if dtype == DType::Bf16 { self.bf16_flops } else { self.f32_flops };
        let (k, element) = (f64::from(gemm.k), f64::from(dtype.size()));
        let (tile_rows, tile_cols) = (f64::from(tile.rows), f64::from(tile.cols));
        let each = f64::from(self.multiprocessors);
        let arithmetic = 2.0 * tile_rows * tile_cols * k / (flops / each);
        let copies = (tile_rows + tile_cols) * k * element / (self.cache / each);
        let tiles = rows.div_ceil(tile.rows.max(1)).saturating_mul(tile.across);
        let waves = f64::from(tiles.div_ceil(self.multiprocessors));
        let outputs: f64 = gemm.parts.iter().map(columns).sum();
        let read = (outputs + f64::from(rows)) * k * element / self.memory;
        self.launch + read.max(waves * arithmetic.max(copies))
    }
}

/// Columns of all sums of a part.
fn columns(part: &Part) -> f64 {
    f64::from(part.n) * part.sums.len() as f64
}

impl Machine {
    /// The machine that a target stands for. GPUs of other kinds than the two that have constants are priced as an A100:
    /// measure them ([`super::tuning`]).
    pub fn of(target: &Target) -> Machine {
        match target {
            Target::Cpu => Machine::Host(CPU),
            Target::Cuda(arch) if arch.starts_with("sm_9") => Machine::Gpu(Gpu::H100),
            Target::Cuda(_) => Machine::Gpu(Gpu::A100),
        }
    }

    /// What a form takes for a number of rows, in nanoseconds, but for what all forms of the kernel have in common.
    pub fn time(&self, kernel: &Kernel, tile: &Tile, rows: u32) -> f64 {
        match (self, &kernel.body) {
            (Machine::Gpu(gpu), Body::Gemm(gemm)) => gpu.matmul(kernel, gemm, tile, rows),
            (Machine::Host(host), Body::Attention(attention)) => host_attention(host, attention, tile, rows),
            // What is computed for rows of a tile that do not exist is all that is known of other forms.
            _ => f64::from(rows.div_ceil(tile.rows.max(1)).saturating_mul(tile.rows)),
        }
    }
}

/// Attention over one key of each head: row by row, or with what it takes to lay the key out for a matmul with a tile.
fn host_attention(host: &cost::Target, attention: &Attention, tile: &Tile, rows: u32) -> f64 {
    let cols = f64::from(attention.heads * attention.width);
    let key_cols = f64::from(attention.kv_heads * attention.width);
    match tile.rows {
        1 => f64::from(rows) * cols * host.price(Work::AttentionRow),
        _ => {
            let tiles = f64::from(rows.div_ceil(tile.rows.max(1)));
            tiles * key_cols * host.price(Work::AttentionKey)
                + f64::from(rows) * cols * host.price(Work::Attention)
        }
    }
}

#[cfg(test)]
mod tests {
    use skipc_artifact::program::Extent;
    use skipc_plan::kernel::{Access, Param, Rows, Slot, View};
    use skipc_plan::pointwise::Pointwise;

    use super::*;

    fn matmul(k: u32, n: u32) -> Kernel {
        let param = |dtype| Param { name: "x".to_owned(), dtype, cols: k, access: Access::Read };
        let a = View { slot: Slot(0), rows: Rows::Dense, col: 0 };
        let parts = vec![Part::of(n, &[Slot(1)], Pointwise { code: Vec::new(), stores: Vec::new() })];
        Kernel {
            params: vec![param(DType::Bf16), param(DType::Bf16)],
            extent: Extent::Fixed(1 << 14),
            body: Body::Gemm(Gemm { a, k, parts }),
        }
    }

    fn tile(rows: u32, cols: u32, n: u32) -> Tile {
        Tile { rows, cols, across: n.div_ceil(cols) }
    }

    #[test]
    fn a_count_off_the_grid_costs_a_whole_wave() {
        let (kernel, machine) = (matmul(8192, 2048), Machine::Gpu(Gpu::H100));
        let time = |rows| machine.time(&kernel, &tile(128, 256, 2048), rows);
        // 2,112 rows are 17 × 8 tiles: a second wave for four of them.
        let (on_grid, off_grid) = (time(2048) / 2048.0, time(2112) / 2112.0);
        assert!(off_grid > 1.8 * on_grid, "{on_grid} {off_grid}");
    }

    #[test]
    fn few_rows_wait_for_the_weights() {
        let (kernel, machine) = (matmul(4096, 16384), Machine::Gpu(Gpu::H100));
        let time = |rows| machine.time(&kernel, &tile(64, 128, 16384), rows);
        let floor = Gpu::H100.launch + 4096.0 * 16384.0 * 2.0 / Gpu::H100.memory;
        assert!((time(1) / floor - 1.0).abs() < 0.01, "{} {floor}", time(1));
        assert!(time(64) < 1.02 * time(1));
    }
}
