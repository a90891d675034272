//! Causal convolutions: a thread for each group of neighbouring columns of a row sums over the inputs in the row's window.

use skipc_artifact::target::DType;
use skipc_plan::kernel::{Conv, Inputs, Kernel, View};

use super::attention::ranges::count_below;
use super::generated::Generated;
use super::pages::Pages;
use super::place;
use super::rowwise::elementwise::{dense_columns, over_groups};
use crate::code::{Arith, Code, Float, I8, I32, Int, Steps};
use crate::error::Error;

/// Generates a convolution.
///
/// # Errors
/// [`Error::Malformed`].
pub(super) fn generate(kernel: &Kernel, conv: &Conv) -> Result<Generated, Error> {
    let Conv { cols, taps, filters, positions, sequences, inputs, out } = *conv;
    if taps == 0 || cols == 0 || taps > i32::MAX.cast_unsigned() {
        return Err(Error::Malformed { what: format!("a convolution of {taps} taps over {cols} columns") });
    }
    place::require(kernel, filters, DType::F32)?;
    let (filter, _) = dense_columns(kernel, filters, cols)?;
    let (result, to) = dense_columns(kernel, out, cols)?;
    let mut columns = vec![positions, sequences];
    let x = match inputs {
        Inputs::Rows { extent, x, positions, sequences } => {
            place::require_extent(kernel, &extent)?;
            columns.extend([positions, sequences]);
            x
        }
        Inputs::Cached { cache, pages, present } => {
            columns.push(View::dense(pages));
            if let Some(present) = present {
                place::require(kernel, present, DType::U8)?;
                place::require_view(kernel, View::dense(present), 1)?;
            }
            View::dense(cache)
        }
    };
    for view in columns {
        place::require_u32(kernel, view.slot)?;
        place::require_view(kernel, view, 1)?;
    }
    let input = place::require_view(kernel, x, cols)?;
    place::require_real(input)?;
    let width = place::group_width([cols, filter.cols, result.cols, input.cols, x.col]);
    over_groups(kernel, cols / width, |code, groups| {
        for group in groups {
            let window = Window { code, kernel, conv, col: group.index * width, width };
            let sums = window.sums(group.row);
            code.when(group.inside, || {
                let at = place::element(code, result, to, group.row, window.col);
                place::store_group(at, result.dtype, &sums);
            });
        }
    })
}

/// The inputs of a row at a group of columns.
struct Window<'k, 'c> {
    code: &'c Code,
    kernel: &'k Kernel,
    conv: &'k Conv,
    /// First column.
    col: Int<'c>,
    /// How many.
    width: u32,
}

impl<'c> Window<'_, 'c> {
    fn sums(&self, row: Int<'c>) -> Vec<Float<'c>> {
        let (code, kernel, taps) = (self.code, self.kernel, self.conv.taps);
        let index =
            |view: View, row| place::element(code, kernel.param(view.slot), view, row, 0u32).load::<I32>();
        let (position, sequence) = (index(self.conv.positions, row), index(self.conv.sequences, row));
        let end = position + 1;
        let from = end - end.min(taps);
        match self.conv.inputs {
            Inputs::Rows { extent, x, positions, sequences } => {
                let place = |position: Int<'c>| (sequence.to_long() << 32u64) | position.to_long();
                let below = |bound| count_below(code, kernel, (extent, (sequences, positions)), bound);
                let (first, end) = (below(place(from)), below(place(end)));
                self.sum(first, end, |input| {
                    let at = place::physical(code, x.rows, input);
                    (index(positions, input) - position, self.load(x, at))
                })
            }
            Inputs::Cached { cache, pages, present } => {
                let pages = Pages::of(code, kernel, pages, sequence);
                self.sum(from, end, |at| {
                    let input = pages.key(at);
                    let numbers = self.load(View::dense(cache), input);
                    let numbers = match present {
                        None => numbers,
                        // What lies where no input is may be anything.
                        Some(present) => {
                            let param = kernel.param(present);
                            let flag =
                                place::row_start(code, param, View::dense(present), input).load::<I8>();
                            let is_there = flag.to_int().ne(0);
                            numbers.into_iter().map(|number| is_there.select(number, 0.0f32)).collect()
                        }
                    };
                    (at - position, numbers)
                })
            }
        }
    }

    /// The sum over what `input` gives for each of a range: how far behind the row it is (0 or less), and its columns.
    fn sum(
        &self,
        first: Int<'c>,
        end: Int<'c>,
        input: impl Fn(Int<'c>) -> (Int<'c>, Vec<Float<'c>>),
    ) -> Vec<Float<'c>> {
        let nothing = vec![self.code.float(0.0); self.width as usize];
        self.code.repeat(Steps { from: first, to: end, step: 1 }, nothing, |idx, sums: Vec<Float<'c>>| {
            let (behind, numbers) = input(idx);
            let factors = self.load(View::dense(self.conv.filters), behind + (self.conv.taps - 1));
            let terms = factors.into_iter().zip(numbers);
            sums.into_iter().zip(terms).map(|(sum, (factor, number))| factor.fma(number, sum)).collect()
        })
    }

    /// The group's columns of a physical row.
    fn load(&self, view: View, row: Int<'c>) -> Vec<Float<'c>> {
        let param = self.kernel.param(view.slot);
        let start = place::row_start(self.code, param, view, row);
        place::load_group(place::along(start, param.dtype, self.col), param.dtype, self.width)
    }
}
