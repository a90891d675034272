//! Norms and what they scale rows by: a warp for each row, or for each group of its columns.

use skipc_artifact::program::RowTile;
use skipc_artifact::target::DType;
use skipc_plan::kernel::{Kernel, NormKind, Param, Slot, View};

use super::super::generated::Generated;
use super::super::place;
use super::THREADS;
use crate::code::{Arith, Bool, Code, F32, Float, GPtr, Int, Steps};
use crate::error::Error;

/// Groups of a row that a lane works on at once, so that their loads are under way together.
const AT_ONCE: u32 = 4;

/// A norm.
pub(super) struct Norm {
    pub(super) kind: NormKind,
    pub(super) eps: f32,
    /// Columns of a group.
    pub(super) cols: u32,
    pub(super) groups: u32,
    pub(super) x: View,
    pub(super) gain: Slot,
    pub(super) out: Slot,
}

/// What a norm scales a row by.
pub(super) struct RowScale {
    pub(super) eps: f32,
    pub(super) cols: u32,
    pub(super) x: View,
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

fn finish(code: Code, across: u32) -> Generated {
    Generated::new(code, vec![RowTile { from: 0, rows: THREADS / 32, across }], THREADS)
}

/// The parameter of a slot as a dense view of at least `cols` columns.
fn dense(kernel: &Kernel, slot: Slot, cols: u32) -> Result<(&Param, View), Error> {
    let view = View::dense(slot);
    let param = place::require_view(kernel, view, cols)?;
    place::require_real(param)?;
    Ok((param, view))
}

pub(super) fn norm(kernel: &Kernel, norm: Norm) -> Result<Generated, Error> {
    let cols = norm.cols.checked_mul(norm.groups).filter(|cols| *cols > 0);
    let malformed =
        || Error::Malformed { what: format!("a norm of {} groups of {} columns", norm.groups, norm.cols) };
    let cols = cols.ok_or_else(malformed)?;
    let x = place::require_view(kernel, norm.x, cols)?;
    place::require_real(x)?;
    let gain = dense(kernel, norm.gain, norm.cols)?.0;
    let out = dense(kernel, norm.out, cols)?;
    let mut numbers = vec![x.cols, norm.x.col, out.0.cols];
    let bias = match norm.kind {
        NormKind::Rms => None,
        NormKind::Layer { bias } => Some(dense(kernel, bias, norm.cols)?.0),
    };
    numbers.extend([gain.cols].into_iter().chain(bias.map(|bias| bias.cols)));
    let sweep = Sweep::new(norm.cols, &numbers)?;

    let code = Code::new(place::n_params(kernel)?);
    write_norm(&code, kernel, &norm, sweep);
    Ok(finish(code, norm.groups))
}

/// What the squares of a row are measured from.
#[derive(Clone, Copy)]
enum Centre<'c> {
    Zero,
    /// The mean in two parts: as it rounds, and the mean of what that leaves, which for a row far from zero may be more
    /// than the row spreads.
    Mean(Float<'c>, Float<'c>),
}

impl<'c> Centre<'c> {
    fn mean(sweep: Sweep, code: &'c Code, (row, dtype): (GPtr<'c>, DType)) -> Self {
        let mean = sweep.sum(code, row, dtype, |value, sum| sum + value) / sweep.cols as f32;
        let left = sweep.sum(code, row, dtype, |value, sum| sum + (value - mean));
        Centre::Mean(mean, left / sweep.cols as f32)
    }

    /// How far a value lies from it.
    fn offset(self, value: Float<'c>) -> Float<'c> {
        match self {
            Centre::Zero => value,
            Centre::Mean(mean, rest) => value - mean - rest,
        }
    }

    /// `1 / √(mean square of the offsets + eps)`.
    fn scale(self, sweep: Sweep, code: &'c Code, (row, dtype): (GPtr<'c>, DType), eps: f32) -> Float<'c> {
        let squares = sweep.sum(code, row, dtype, |value, sum| {
            let value = self.offset(value);
            value.fma(value, sum)
        });
        code.float(1.0) / (squares / sweep.cols as f32 + eps).sqrt()
    }
}

fn write_norm<'c>(code: &'c Code, kernel: &Kernel, norm: &Norm, sweep: Sweep) {
    let (x, out) = (kernel.param(norm.x.slot), kernel.param(norm.out));
    let row = begin(code, kernel);
    let first = if norm.groups == 1 { code.int(0) } else { code.block_y() * norm.cols };
    let from = place::element(code, x, norm.x, row, first);
    let out_view = View::dense(norm.out);
    let to = place::element(code, out, out_view, row, first);
    let centre = match norm.kind {
        NormKind::Rms => Centre::Zero,
        NormKind::Layer { .. } => Centre::mean(sweep, code, (from, x.dtype)),
    };
    let scale = centre.scale(sweep, code, (from, x.dtype), norm.eps);
    let row_of =
        |slot: Slot, group: &Group<'c>| sweep.load(code.param(slot.0), kernel.param(slot).dtype, group);
    sweep.fold(code, Vec::new(), |groups, none| {
        for group in &groups {
            let values = sweep.load(from, x.dtype, group);
            let gains = row_of(norm.gain, group);
            let mut results: Vec<Float<'c>> =
                values.iter().zip(gains).map(|(value, gain)| centre.offset(*value) * scale * gain).collect();
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

pub(super) fn row_scale(kernel: &Kernel, scale: RowScale) -> Result<Generated, Error> {
    let x = place::require_view(kernel, scale.x, scale.cols)?;
    place::require_real(x)?;
    place::require(kernel, scale.out, DType::F32)?;
    let out = dense(kernel, scale.out, 1)?;
    let sweep = Sweep::new(scale.cols, &[x.cols, scale.x.col])?;

    let code = Code::new(place::n_params(kernel)?);
    {
        let code = &code;
        let row = begin(code, kernel);
        let from = (place::element(code, x, scale.x, row, 0u32), x.dtype);
        let scale = Centre::Zero.scale(sweep, code, from, scale.eps);
        let to = place::element(code, out.0, out.1, row, 0u32);
        let first_lane = (code.thread() % 32).eq(0);
        code.when(first_lane, || to.at::<F32>(0u32).store(scale));
    }
    Ok(finish(code, 1))
}
