//! Norms and small products: a warp for each row.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Kernel, NormKind, Param, Rows, Slot, View};

use super::super::{Generated, place};
use super::THREADS;
use crate::code::{Arith, Bool, Code, F32, Float, GPtr, Int, Steps};
use crate::error::Error;

/// Groups of a row that a lane works on at once, so that their loads are under way together.
const AT_ONCE: u32 = 4;

/// Columns of a small product at most; each takes a register of every lane.
const MAX_DOTS: u32 = 8;

/// A norm.
pub(super) struct Norm {
    pub(super) kind: NormKind,
    pub(super) eps: f32,
    pub(super) cols: u32,
    pub(super) x: View,
    pub(super) gain: Slot,
    pub(super) out: Slot,
}

/// What an RMS norm scales a row by.
pub(super) struct InvRms {
    pub(super) eps: f32,
    pub(super) cols: u32,
    pub(super) x: View,
    pub(super) out: Slot,
}

/// A product with few columns.
pub(super) struct Dot {
    pub(super) k: u32,
    pub(super) n: u32,
    pub(super) x: View,
    pub(super) weight: Slot,
    pub(super) out: Slot,
}

/// Goes over a row of `cols` columns: a lane takes groups of `width` columns, 32 groups apart.
#[derive(Clone, Copy)]
struct Sweep {
    cols: u32,
    width: u32,
}

/// A group of a row: its first column, or another group's where there is none.
struct Group<'c> {
    col: Int<'c>,
    inside: Bool<'c>,
}

impl Sweep {
    fn new(cols: u32, numbers: &[u32]) -> Result<Self, Error> {
        if cols == 0 {
            return Err(Error::Malformed { what: "a reduction over no columns".to_owned() });
        }
        let width = place::group_width(numbers.iter().copied().chain([cols]));
        Ok(Self { cols, width })
    }

    /// Groups that a lane works on at once.
    fn at_once(self) -> u32 {
        self.cols.div_ceil(32 * self.width).min(AT_ONCE)
    }

    /// Calls `body` with the groups of each turn and the values that turns hand on.
    fn fold<'c>(
        self,
        code: &'c Code,
        start: Vec<Float<'c>>,
        body: impl FnOnce(Vec<Group<'c>>, Vec<Float<'c>>) -> Vec<Float<'c>>,
    ) -> Vec<Float<'c>> {
        let lane_start = code.thread() % 32 * self.width;
        let step = 32 * self.width * self.at_once();
        // Every lane takes as many turns, for the sake of those that exchange values within one.
        code.repeat(Steps { from: 0, to: self.cols, step }, start, |base, values| {
            let groups = (0..self.at_once())
                .map(|part| {
                    let col = base + lane_start + part * 32 * self.width;
                    let inside = col.lt(self.cols);
                    Group { col: inside.select(col, 0u32), inside }
                })
                .collect();
            body(groups, values)
        })
    }

    /// The sum over the row of `term` of each element.
    fn sum<'c>(
        self,
        code: &'c Code,
        at: GPtr<'c>,
        dtype: DType,
        term: impl Fn(Float<'c>, Float<'c>) -> Float<'c>,
    ) -> Float<'c> {
        let zero = code.float(0.0);
        let start = vec![zero; (self.at_once() * self.width) as usize];
        let sums = self.fold(code, start, |groups, sums| {
            let mut sums = sums.into_iter();
            let mut next = Vec::new();
            for group in &groups {
                for value in self.load(at, dtype, group) {
                    let sum = sums.next().unwrap_or(zero);
                    next.push(group.inside.select(term(value, sum), sum));
                }
            }
            next
        });
        let in_lane = sums.into_iter().reduce(|a, b| a + b).unwrap_or(zero);
        code.reduce(in_lane, 32, |a, b| a + b)
    }

    fn load<'c>(self, at: GPtr<'c>, dtype: DType, group: &Group<'c>) -> Vec<Float<'c>> {
        place::load_group(place::along(at, dtype, group.col), dtype, self.width)
    }
}

/// Begins a kernel with a warp for each row; yields the row, which exists.
fn begin<'c>(code: &'c Code, kernel: &Kernel) -> Int<'c> {
    let rows = place::extent(code, &kernel.extent);
    let row = code.block_x() * (THREADS / 32) + code.thread() / 32;
    // A whole warp leaves, and there is no barrier that it would be missed at.
    code.return_if(row.ge(rows));
    row
}

fn finish(code: Code) -> Generated {
    Generated {
        code,
        tile_rows: THREADS / 32,
        grid_y: 1,
        threads: THREADS,
        shared_bytes: 0,
        min_blocks: 1,
        features: Vec::new(),
    }
}

/// The parameter of a slot as a dense view of at least `cols` columns.
fn dense(kernel: &Kernel, slot: Slot, cols: u32) -> Result<(&Param, View), Error> {
    let view = View { slot, rows: Rows::Dense, col: 0 };
    let param = place::require_view(kernel, view, cols)?;
    place::require_real(param)?;
    Ok((param, view))
}

pub(super) fn norm(kernel: &Kernel, norm: Norm) -> Result<Generated, Error> {
    let x = place::require_view(kernel, norm.x, norm.cols)?;
    place::require_real(x)?;
    let gain = dense(kernel, norm.gain, norm.cols)?.0;
    let out = dense(kernel, norm.out, norm.cols)?;
    let mut numbers = vec![x.cols, norm.x.col, out.0.cols];
    let bias = match norm.kind {
        NormKind::Rms => None,
        NormKind::Layer { bias } => Some(dense(kernel, bias, norm.cols)?.0),
    };
    numbers.extend([gain.cols].into_iter().chain(bias.map(|bias| bias.cols)));
    let sweep = Sweep::new(norm.cols, &numbers)?;

    let code = Code::new(place::n_params(kernel)?);
    write_norm(&code, kernel, &norm, sweep);
    Ok(finish(code))
}

/// `1 / √(mean + eps)`.
fn inv_root<'c>(code: &'c Code, squares: Float<'c>, cols: u32, eps: f32) -> Float<'c> {
    code.float(1.0) / (squares / cols as f32 + eps).sqrt()
}

fn write_norm<'c>(code: &'c Code, kernel: &Kernel, norm: &Norm, sweep: Sweep) {
    let (x, out) = (kernel.param(norm.x.slot), kernel.param(norm.out));
    let row = begin(code, kernel);
    let from = place::element(code, x, norm.x, row, 0u32);
    let out_view = View { slot: norm.out, rows: Rows::Dense, col: 0 };
    let to = place::element(code, out, out_view, row, 0u32);
    let mean = match norm.kind {
        NormKind::Rms => None,
        NormKind::Layer { .. } => {
            Some(sweep.sum(code, from, x.dtype, |value, sum| sum + value) / norm.cols as f32)
        }
    };
    let centred = |value: Float<'c>| match mean {
        Some(mean) => value - mean,
        None => value,
    };
    let squares = sweep.sum(code, from, x.dtype, |value, sum| {
        let value = centred(value);
        value.fma(value, sum)
    });
    let scale = inv_root(code, squares, norm.cols, norm.eps);
    let row_of =
        |slot: Slot, group: &Group<'c>| sweep.load(code.param(slot.0), kernel.param(slot).dtype, group);
    sweep.fold(code, Vec::new(), |groups, none| {
        for group in &groups {
            let values = sweep.load(from, x.dtype, group);
            let gains = row_of(norm.gain, group);
            let mut results: Vec<Float<'c>> =
                values.iter().zip(gains).map(|(value, gain)| centred(*value) * scale * gain).collect();
            if let NormKind::Layer { bias } = norm.kind {
                let biases = row_of(bias, group);
                results = results.iter().zip(biases).map(|(value, bias)| *value + bias).collect();
            }
            code.when(group.inside, || {
                place::store_group(place::along(to, out.dtype, group.col), out.dtype, &results);
            });
        }
        none
    });
}

pub(super) fn inv_rms(kernel: &Kernel, inv_rms: InvRms) -> Result<Generated, Error> {
    let x = place::require_view(kernel, inv_rms.x, inv_rms.cols)?;
    place::require_real(x)?;
    place::require(kernel, inv_rms.out, DType::F32)?;
    let out = dense(kernel, inv_rms.out, 1)?;
    let sweep = Sweep::new(inv_rms.cols, &[x.cols, inv_rms.x.col])?;

    let code = Code::new(place::n_params(kernel)?);
    {
        let code = &code;
        let row = begin(code, kernel);
        let from = place::element(code, x, inv_rms.x, row, 0u32);
        let squares = sweep.sum(code, from, x.dtype, |value, sum| value.fma(value, sum));
        let scale = inv_root(code, squares, inv_rms.cols, inv_rms.eps);
        let to = place::element(code, out.0, out.1, row, 0u32);
        let first_lane = (code.thread() % 32).eq(0);
        code.when(first_lane, || to.at::<F32>(0u32).store(scale));
    }
    Ok(finish(code))
}

pub(super) fn dot(kernel: &Kernel, dot: Dot) -> Result<Generated, Error> {
    let x = place::require_view(kernel, dot.x, dot.k)?;
    place::require_real(x)?;
    place::require(kernel, dot.weight, DType::F32)?;
    place::require(kernel, dot.out, DType::F32)?;
    let weight = dense(kernel, dot.weight, dot.k)?;
    let out = dense(kernel, dot.out, dot.n)?;
    if dot.n > MAX_DOTS {
        return Err(Error::Unsupported {
            what: format!("{} columns of a small product; use a matmul", dot.n),
        });
    }
    let sweep = Sweep::new(dot.k, &[x.cols, dot.x.col, weight.0.cols])?;

    let code = Code::new(place::n_params(kernel)?);
    {
        let code = &code;
        let row = begin(code, kernel);
        let from = place::element(code, x, dot.x, row, 0u32);
        let zero = code.float(0.0);
        let sums = sweep.fold(code, vec![zero; dot.n as usize], |groups, mut sums| {
            for group in &groups {
                let values = sweep.load(from, x.dtype, group);
                for (number, sum) in (0u32..).zip(&mut sums) {
                    let at =
                        code.param(dot.weight.0).far::<F32>(u64::from(number) * u64::from(weight.0.cols));
                    for (value, weight) in values.iter().zip(sweep.load(at, DType::F32, group)) {
                        *sum = group.inside.select(value.fma(weight, *sum), *sum);
                    }
                }
            }
            sums
        });
        let to = place::element(code, out.0, out.1, row, 0u32);
        let first_lane = (code.thread() % 32).eq(0);
        for (number, sum) in (0u32..).zip(sums) {
            let total = code.reduce(sum, 32, |a, b| a + b);
            code.when(first_lane, || to.at::<F32>(number).store(total));
        }
    }
    Ok(finish(code))
}
