//! A kernel, its operands, and how near the interpreter's results the code's must be.

use half::bf16;
use skipc_artifact::image::HostArch;
use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_cranelift::Cranelift;
use skipc_plan::codegen::{Codegen as _, Image};
use skipc_plan::interp::{self, Tiling};
use skipc_plan::kernel::{Access, Body, Kernel, Param, Rows, Slot, View};

use skipc_testkit::machine::{Machine, Order};

pub(crate) const ODD_COLS: [u32; 8] = [1, 2, 3, 4, 5, 30, 33, 64];

/// How far a real may be from the interpreter's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// Not at all: the case's numbers make every sum exact.
    Exact,
    /// This many units in the last place of the larger of the result and `scale`, and one of bf16 if it is stored so.
    Ulps { n: f64, scale: f64 },
}

/// A kernel in the making: parameters with their bytes.
#[derive(Default)]
pub(crate) struct Case {
    pub(crate) params: Vec<Param>,
    pub(crate) operands: Vec<Vec<u8>>,
    numbers: u64,
}

impl Case {
    /// A parameter with these bytes.
    pub(crate) fn param(&mut self, dtype: DType, cols: u32, access: Access, bytes: Vec<u8>) -> Slot {
        let name = format!("p{}", self.params.len());
        self.params.push(Param { name, dtype, cols, access });
        self.operands.push(bytes);
        Slot(self.params.len() as u32 - 1)
    }

    /// Reals to read: multiples of 1/4 from −4 to 4, so that sums of some thousand products are exact.
    pub(crate) fn reals(&mut self, dtype: DType, rows: u32, cols: u32) -> Slot {
        let bytes = self.real_bytes(dtype, rows * cols);
        self.param(dtype, cols, Access::Read, bytes)
    }

    /// Reals to read and write.
    pub(crate) fn updated(&mut self, dtype: DType, rows: u32, cols: u32) -> Slot {
        let bytes = self.real_bytes(dtype, rows * cols);
        self.param(dtype, cols, Access::ReadWrite, bytes)
    }

    pub(crate) fn given(&mut self, cols: u32, reals: &[f32]) -> Slot {
        let bytes = reals.iter().flat_map(|real| real.to_le_bytes()).collect();
        self.param(DType::F32, cols, Access::Read, bytes)
    }

    /// Indices to read, one column.
    pub(crate) fn indices(&mut self, indices: &[u32]) -> Slot {
        let bytes = indices.iter().flat_map(|index| index.to_le_bytes()).collect();
        self.param(DType::U32, 1, Access::Read, bytes)
    }

    /// Poison to write to.
    pub(crate) fn output(&mut self, dtype: DType, rows: u32, cols: u32) -> Slot {
        let bytes = vec![0xff; (rows * cols * dtype.size()) as usize];
        self.param(dtype, cols, Access::Write, bytes)
    }

    /// An extent that a parameter holds.
    pub(crate) fn counted(&mut self, count: u32, at_most: u32) -> Extent {
        let count = self.indices(&[count]);
        Extent::Counted { count: count.0, at_most }
    }

    fn real_bytes(&mut self, dtype: DType, n: u32) -> Vec<u8> {
        let reals = (0..n).map(|_| self.real()).collect::<Vec<f32>>();
        match dtype {
            DType::Bf16 => reals.iter().flat_map(|real| bf16::from_f32(*real).to_le_bytes()).collect(),
            _ => reals.iter().flat_map(|real| real.to_le_bytes()).collect(),
        }
    }

    fn real(&mut self) -> f32 {
        self.numbers += 1;
        let score = skipc_ir::random_score(7, 0, 0, self.numbers);
        (score % 33) as f32 / 4.0 - 4.0
    }

    /// Runs the kernel compiled and interpreted and compares; gives the operands after the run.
    pub(crate) fn check(&self, extent: Extent, body: Body, bound: Bound) -> Vec<Vec<u8>> {
        let kernel = Kernel { params: self.params.clone(), extent, body };
        let faults = skipc_plan::verify::verify_kernel(&kernel);
        assert!(faults.is_empty(), "the case itself is malformed: {faults:?}");
        let mut expected = self.operands.clone();
        interp::run_kernel(&kernel, &mut expected, Tiling::of(16)).unwrap();

        let machine = machine(&kernel);
        let mut first: Option<Vec<Vec<u8>>> = None;
        for order in [Order::AtOnce, Order::Backwards, Order::TwoThreads] {
            let mut found = self.operands.clone();
            machine.run(&mut found, self.n_rows(extent), order);
            match &first {
                None => self.compare(&found, &expected, bound),
                Some(first) => assert!(found == *first, "other bits with the tiles {order:?}"),
            }
            first.get_or_insert(found);
        }
        first.unwrap()
    }

    fn n_rows(&self, extent: Extent) -> u32 {
        match extent {
            Extent::Fixed(rows) => rows,
            Extent::Counted { count, at_most } => u32s(&self.operands[count as usize])[0].min(at_most),
        }
    }

    fn compare(&self, found: &[Vec<u8>], expected: &[Vec<u8>], bound: Bound) {
        for (param, (found, expected)) in self.params.iter().zip(found.iter().zip(expected)) {
            let is_real = matches!(param.dtype, DType::F32 | DType::Bf16);
            if !is_real || param.access == Access::Read {
                assert!(found == expected, "`{}`: {found:?}, expected {expected:?}", param.name);
                continue;
            }
            let pairs = reals(found, param.dtype).into_iter().zip(reals(expected, param.dtype));
            for (idx, (found, expected)) in pairs.enumerate() {
                let (row, col) = (idx as u32 / param.cols, idx as u32 % param.cols);
                assert!(
                    is_near(found, expected, param.dtype, bound),
                    "`{}`[{row}, {col}]: {found:e}, expected {expected:e} ({bound:?})",
                    param.name
                );
            }
        }
    }
}

/// The kernel as code for this machine.
pub(crate) fn machine(kernel: &Kernel) -> Machine {
    let arch = HostArch::of_this_process().expect("a host that code can be made for");
    let code = Cranelift::new(arch).unwrap().compile(&[("kernel".to_owned(), kernel)]).unwrap();
    let [Image::HostObject { level, object }] = code.images.as_slice() else { panic!("one object") };
    Machine::new(object, *level, &code.launches[0])
}

/// Whether two results agree. Poison is a NaN of its own bits, which no arithmetic makes.
fn is_near(found: f32, expected: f32, dtype: DType, bound: Bound) -> bool {
    if found.is_nan() || expected.is_nan() {
        return found.to_bits() == expected.to_bits();
    }
    match bound {
        Bound::Exact => found == expected,
        Bound::Ulps { n, scale } => {
            let size = f64::from(expected.abs()).max(scale);
            let last_place = size * f64::from(f32::EPSILON);
            let rounding = if dtype == DType::Bf16 { size / 128.0 } else { 0.0 };
            (f64::from(found) - f64::from(expected)).abs() <= n * last_place + rounding
        }
    }
}

pub(crate) fn reals(bytes: &[u8], dtype: DType) -> Vec<f32> {
    match dtype {
        DType::Bf16 => bytes
            .chunks_exact(2)
            .map(|pair| f32::from_bits(u32::from(u16::from_le_bytes(pair.try_into().unwrap())) << 16))
            .collect(),
        _ => u32s(bytes).into_iter().map(f32::from_bits).collect(),
    }
}

pub(crate) fn u32s(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

pub(crate) fn dense(slot: Slot) -> View {
    View { slot, rows: Rows::Dense, col: 0 }
}

pub(crate) fn listed(slot: Slot, list: Slot) -> View {
    View { slot, rows: Rows::Listed(list), col: 0 }
}

/// `count` ascending rows of `of`, spread out.
pub(crate) fn row_list(count: u32, of: u32) -> Vec<u32> {
    (0..count).map(|idx| idx * of / count.max(1)).collect()
}
