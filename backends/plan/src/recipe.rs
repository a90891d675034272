//! How a constant is made of tensors of the weights file.

use serde::{Deserialize, Serialize};
use skipc_artifact::target::DType;
use skipc_ir::interp::functions;
use skipc_ir::{F64, stacked_name};

use crate::kernel::{BLOCK_TERMS, PANEL_COLS, SWIZZLE_TERMS, WeightLayout, place_in_panel};
use crate::stored::Stored;

/// Steps of a recipe, at most: several times what the rules of any pass make. It bounds what a graph that folds its
/// weights over and over could ask for.
pub(crate) const MAX_STEPS: usize = 64;

/// bf16 terms of a weight whose products are as accurate as those of the weight in f32: three times eight bits.
pub const BF16_TERMS: u32 = 3;

/// One step. A recipe begins with a tensor or a fill, and each step changes what there is so far: a matrix `[rows, cols]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RecipeStep {
    /// A tensor of the weights file: the first step, and no other.
    Weight {
        /// Its name.
        name: String,
        /// Its columns; a vector is one row.
        cols: u32,
    },
    /// The same number everywhere: the first step, and no other.
    Fill {
        /// The number.
        value: F64,
        /// How many rows.
        rows: u32,
        /// Their columns.
        cols: u32,
    },
    /// The steps before this one for each of so many tensors, whose numbers stand for the `*` in the name of the first step; one
    /// result below the other. The last step.
    Stacked {
        /// How many.
        count: u32,
    },
    /// Each column times the element of this vector of the weights file: the gain of a norm.
    FoldGain {
        /// Its name.
        gain: String,
        /// What is added to each of its elements first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<F64>,
    },
    /// Times the matrix that this recipe makes, as the weights of two matmuls in a row become one.
    FoldLinear {
        /// Makes the weight of the first of them.
        before: Vec<RecipeStep>,
    },
    /// Times the bias that a recipe makes, a row, as that of the first of two matmuls in a row comes behind both; and on it that of the
    /// second, if it has one. The result is a row.
    FoldBias {
        /// Makes the first bias.
        bias: Vec<RecipeStep>,
        /// Makes the second.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        on: Option<Vec<RecipeStep>>,
    },
    /// Each element and this number.
    Offset {
        /// The number.
        by: F64,
    },
    /// These rows.
    Rows {
        /// The first.
        start: u32,
        /// How many.
        len: u32,
    },
    /// One of the terms of bf16 whose sum is the element: the nearest bf16, that of what is left, and so on. Where
    /// nothing is rounded to bf16, the first term is the element and the others are 0.
    Term {
        /// Which, from 0.
        term: u32,
    },
    /// The whole number that each element is of the scale of its block, see [`RecipeStep::Scales`]. Where nothing is rounded
    /// it is the element.
    Levels,
    /// What each [`BLOCK_TERMS`] neighbours of a row are multiples of: a 127th of the largest of them, in bf16. Where nothing
    /// is rounded it is 1.
    Scales,
    /// Rows become columns.
    Transpose,
    /// Rows become panels, see [`WeightLayout::Panels`]: a panel for each [`PANEL_COLS`] rows, a row of which has so many
    /// neighbouring elements of each of them.
    Panels {
        /// How many rows there are.
        outputs: u32,
        /// How many elements of a row: those of [`crate::kernel::panel_terms`].
        terms: u32,
    },
    /// Rows are cut, filled up with zeros and swizzled, see [`WeightLayout::Swizzled`].
    Swizzled {
        /// How many rows there are.
        outputs: u32,
    },
}

/// Makes the elements, row by row, of the tensors that `weight` knows. Nothing is rounded but by the numbers' own
/// arithmetic, and by [`RecipeStep::Term`], [`RecipeStep::Levels`] and [`RecipeStep::Scales`].
///
/// Returns `None` if a tensor is missing or does not fit.
pub fn elements<N: Stored>(recipe: &[RecipeStep], weight: impl Fn(&str) -> Option<Vec<N>>) -> Option<Vec<N>> {
    let Some((RecipeStep::Stacked { count }, steps)) = recipe.split_last() else {
        return of_one(recipe, &weight);
    };
    let mut all = Vec::new();
    for number in 0..*count {
        all.extend(of_one(steps, &|name: &str| weight(&stacked_name(name, number)))?);
    }
    Some(all)
}

/// What a recipe makes that has no stack.
fn of_one<N: Stored>(recipe: &[RecipeStep], weight: &dyn Fn(&str) -> Option<Vec<N>>) -> Option<Vec<N>> {
    let (first, steps) = recipe.split_first()?;
    let (mut data, mut cols) = match first {
        RecipeStep::Weight { name, cols } => (weight(name)?, *cols as usize),
        RecipeStep::Fill { value, rows, cols } => {
            let size = (*rows as usize).checked_mul(*cols as usize)?;
            (vec![N::from_f64(value.0); size], *cols as usize)
        }
        _ => return None,
    };
    if cols == 0 || !data.len().is_multiple_of(cols) {
        return None;
    }
    for step in steps {
        match step {
            RecipeStep::Weight { .. } | RecipeStep::Fill { .. } | RecipeStep::Stacked { .. } => return None,
            RecipeStep::FoldGain { gain, offset } => {
                let mut gain = weight(gain).filter(|gain| gain.len() == cols)?;
                offset.iter().for_each(|by| add(&mut gain, *by));
                functions::fold_gain(&mut data, &gain);
            }
            RecipeStep::FoldLinear { before } => {
                let before = of_one(before, weight)?;
                if !before.len().is_multiple_of(cols) {
                    return None;
                }
                let width = before.len() / cols;
                data = functions::fold_linear(&data, &before, (cols, width));
                cols = width;
            }
            RecipeStep::FoldBias { bias, on } => {
                data = folded_bias((&data, cols), (bias, on.as_deref()), weight)?;
                cols = data.len();
            }
            RecipeStep::Offset { by } => add(&mut data, *by),
            RecipeStep::Rows { start, len } => {
                let first = (*start as usize).checked_mul(cols)?;
                let end = first.checked_add((*len as usize).checked_mul(cols)?)?;
                data = data.get(first..end)?.to_vec();
            }
            RecipeStep::Term { term } => data.iter_mut().for_each(|x| *x = bf16_term(*x, *term)),
            RecipeStep::Levels => {
                for block in data.chunks_exact_mut(cols).flat_map(|row| row.chunks_mut(BLOCK_TERMS as usize))
                {
                    let scale = N::scale_of(block);
                    block.iter_mut().for_each(|x| *x = x.level_of(scale));
                }
            }
            RecipeStep::Scales => {
                let rows = data.chunks_exact(cols);
                data = rows.flat_map(|row| row.chunks(BLOCK_TERMS as usize).map(N::scale_of)).collect();
                cols = cols.div_ceil(BLOCK_TERMS as usize);
            }
            RecipeStep::Transpose => {
                let rows = data.len() / cols;
                data = (0..cols).flat_map(|col| data[col..].iter().step_by(cols).copied()).collect();
                cols = rows;
            }
            RecipeStep::Panels { outputs, terms } => {
                if data.len() / cols != *outputs as usize {
                    return None;
                }
                data = panels(&data, (data.len() / cols, cols), *terms as usize)?;
                cols = PANEL_COLS as usize * *terms as usize;
            }
            RecipeStep::Swizzled { outputs } => {
                if data.len() / cols != *outputs as usize {
                    return None;
                }
                let (size, places) = swizzled_places(*outputs, u32::try_from(cols).ok()?)?;
                let mut made = vec![N::ZERO; size];
                places.zip(&data).for_each(|(at, x)| made[at] = *x);
                cols = size / cols.div_ceil(SWIZZLE_TERMS as usize);
                data = made;
            }
        }
        if data.is_empty() {
            return None;
        }
    }
    Some(data)
}

/// What becomes of the bias that a recipe makes behind this weight, and on it the other bias. `None` if one does not fit.
fn folded_bias<N: Stored>(
    (data, cols): (&[N], usize),
    (bias, on): (&[RecipeStep], Option<&[RecipeStep]>),
    weight: &dyn Fn(&str) -> Option<Vec<N>>,
) -> Option<Vec<N>> {
    let bias = of_one(bias, weight).filter(|bias| bias.len() == cols)?;
    let on = match on {
        Some(on) => Some(of_one(on, weight).filter(|on| on.len() == data.len() / cols)?),
        None => None,
    };
    Some(functions::fold_bias(data, &bias, on.as_deref()))
}

/// A matrix in panels; zeros past its last row or column. `None` if they are too many.
fn panels<N: Stored>(matrix: &[N], (rows, cols): (usize, usize), terms: usize) -> Option<Vec<N>> {
    let (width, depth) = (PANEL_COLS as usize, cols.div_ceil(terms.max(1)));
    let size = rows.div_ceil(width).checked_mul(depth.checked_mul(width * terms)?)?;
    let mut made = vec![N::ZERO; size];
    for (panel, rows) in made.chunks_exact_mut(depth * width * terms).zip(matrix.chunks(width * cols)) {
        for (of_panel, row) in rows.chunks_exact(cols).enumerate() {
            let groups = panel.chunks_exact_mut(width * terms);
            for (group, elements) in groups.zip(row.chunks(terms)) {
                for (factor, element) in elements.iter().enumerate() {
                    group[place_in_panel((of_panel as u64, factor as u64), terms as u64) as usize] = *element;
                }
            }
        }
    }
    Some(made)
}

/// How many elements a matrix has in [`WeightLayout::Swizzled`], and the place there of each of its own, row by row.
/// `None` if they are too many.
pub fn swizzled_places(outputs: u32, k: u32) -> Option<(usize, impl Iterator<Item = usize>)> {
    let (layout, dtype) = (WeightLayout::Swizzled, DType::Bf16);
    let (rows, cols) = layout.shape((outputs, k), dtype)?;
    let size = (rows as usize).checked_mul(cols as usize)?;
    let elements =
        (0..outputs).flat_map(move |output| (0..k).map(move |inner| (output.into(), inner.into())));
    let place = move |element| {
        let (row, col) = layout.place(element, k, dtype);
        row as usize * cols as usize + col as usize
    };
    Some((size, elements.map(place)))
}

fn add<N: Stored>(data: &mut [N], by: F64) {
    let by = N::from_f64(by.0);
    data.iter_mut().for_each(|x| *x = x.add(by));
}

fn bf16_term<N: Stored>(x: N, term: u32) -> N {
    let rest = (0..term).fold(x, |rest, _| rest.sub(rest.stored_as(DType::Bf16)));
    rest.stored_as(DType::Bf16)
}

/// The tensors that a recipe takes from the weights file.
pub fn tensors(recipe: &[RecipeStep]) -> Vec<&str> {
    let mut names = Vec::new();
    for step in recipe {
        match step {
            RecipeStep::Weight { name, .. } | RecipeStep::FoldGain { gain: name, .. } => {
                names.push(name.as_str())
            }
            RecipeStep::FoldLinear { before } => names.extend(tensors(before)),
            RecipeStep::FoldBias { bias, on } => {
                names.extend([Some(bias), on.as_ref()].into_iter().flatten().flat_map(|bias| tensors(bias)));
            }
            RecipeStep::Fill { .. }
            | RecipeStep::Rows { .. }
            | RecipeStep::Offset { .. }
            | RecipeStep::Stacked { .. }
            | RecipeStep::Term { .. }
            | RecipeStep::Levels
            | RecipeStep::Scales
            | RecipeStep::Transpose
            | RecipeStep::Panels { .. }
            | RecipeStep::Swizzled { .. } => {}
        }
    }
    names
}

/// A human-readable name, such as `q.weight·norm.weight`.
pub(crate) fn describe(recipe: &[RecipeStep]) -> String {
    let mut text = String::new();
    for step in recipe {
        match step {
            RecipeStep::Weight { name, .. } => text.push_str(name),
            RecipeStep::Fill { value, rows, cols } => text.push_str(&format!("{rows}x{cols} of {value}")),
            RecipeStep::FoldGain { gain, offset: None } => text.push_str(&format!("·{gain}")),
            RecipeStep::FoldGain { gain, offset: Some(by) } => text.push_str(&format!("·({gain} + {by})")),
            RecipeStep::Stacked { count } => text.push_str(&format!(" for {count}")),
            RecipeStep::FoldLinear { before } => text.push_str(&format!("·({})", describe(before))),
            RecipeStep::FoldBias { bias, on } => {
                text.push_str(&format!("·({})", describe(bias)));
                on.iter().for_each(|on| text.push_str(&format!(" + {}", describe(on))));
            }
            RecipeStep::Offset { by } => text.push_str(&format!(" + {by}")),
            RecipeStep::Rows { start, len } => text.push_str(&format!("[{start}, {len} rows]")),
            RecipeStep::Term { term } => text.push_str(&format!(" term {term}")),
            RecipeStep::Levels => text.push_str(" levels"),
            RecipeStep::Scales => text.push_str(" scales"),
            RecipeStep::Transpose => text.push_str(" transposed"),
            RecipeStep::Panels { .. } => text.push_str(" in panels"),
            RecipeStep::Swizzled { .. } => text.push_str(" swizzled"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use skipc_ir::interp::{Gf61, Number};

    use super::*;

    fn weight(name: &str) -> Option<Vec<f64>> {
        match name {
            "a" => Some(vec![1.0, 2.0]),
            "b" => Some(vec![3.0, 4.0, 5.0, 6.0]),
            "g" => Some(vec![10.0, -1.0]),
            _ => None,
        }
    }

    fn named(name: &str) -> RecipeStep {
        RecipeStep::Weight { name: name.to_owned(), cols: 2 }
    }

    fn gain() -> RecipeStep {
        RecipeStep::FoldGain { gain: "g".to_owned(), offset: None }
    }

    #[test]
    fn columns_are_scaled_and_rows_chosen() {
        let made = |steps: &[RecipeStep]| elements(steps, weight).expect("all weights are there");
        assert_eq!(made(&[named("b"), gain()]), [30.0, -4.0, 50.0, -6.0]);
        assert_eq!(made(&[named("b"), RecipeStep::Transpose, gain()]), [30.0, -5.0, 40.0, -6.0]);
        assert_eq!(made(&[named("b"), RecipeStep::Rows { start: 1, len: 1 }]), [5.0, 6.0]);
        assert_eq!(describe(&[named("b"), gain()]), "b·g");
        let both = [named("b"), RecipeStep::FoldLinear { before: vec![named("b"), gain()] }];
        assert_eq!(made(&both), [290.0, -36.0, 450.0, -56.0]);
        assert_eq!((describe(&both), tensors(&both)), ("b·(b·g)".to_owned(), vec!["b", "b", "g"]));
        let ones = RecipeStep::Fill { value: F64::from(1.0), rows: 2, cols: 1 };
        assert_eq!(made(&[named("b"), RecipeStep::FoldLinear { before: vec![ones] }]), [7.0, 11.0]);
    }

    #[test]
    fn a_bias_goes_through_the_weight_behind_it() {
        let bias = vec![named("a")];
        let folded = |on| [named("b"), RecipeStep::FoldBias { bias: bias.clone(), on }];
        assert_eq!(elements(&folded(None), weight), Some(vec![11.0, 17.0]));
        let both = folded(Some(vec![named("g")]));
        assert_eq!(elements(&both, weight), Some(vec![21.0, 16.0]));
        assert_eq!((describe(&both), tensors(&both)), ("b·(a) + g".to_owned(), vec!["b", "a", "g"]));
        // 2²⁴ and two halves: in f32 the first half would be lost, and then the second.
        let f32s = |name: &str| match name {
            "b" => Some(vec![16_777_216.0f32, 1.0, 0.0, 0.0]),
            "a" => Some(vec![1.0, 0.5]),
            _ => Some(vec![0.75, 0.0]),
        };
        assert_eq!(elements(&both, f32s), Some(vec![16_777_218.0, 0.0]));
        assert_eq!(elements(&folded(Some(vec![named("b")])), weight), None);
        assert_eq!(
            elements(&[named("b"), RecipeStep::FoldBias { bias: vec![named("b")], on: None }], weight),
            None
        );
    }

    #[test]
    fn panels_hold_every_element_at_its_place() {
        use crate::kernel::panel_terms;
        for (outputs, k) in [(1u32, 1u32), (32, 2), (33, 5), (70, 3)] {
            let matrix: Vec<f64> = (0..outputs * k).map(|at| f64::from(at) + 1.0).collect();
            for dtype in [DType::F32, DType::Bf16, DType::I8] {
                let steps = [
                    RecipeStep::Weight { name: "x".to_owned(), cols: k },
                    RecipeStep::Panels { outputs, terms: panel_terms(dtype) },
                ];
                let panels = elements(&steps, |_| Some(matrix.clone())).expect("a weight");
                let (rows, cols) = WeightLayout::Panels.shape((outputs, k), dtype).expect("it is small");
                assert_eq!(panels.len(), rows as usize * cols as usize);
                for (at, element) in matrix.iter().enumerate() {
                    let (output, inner) = (at as u64 / u64::from(k), at as u64 % u64::from(k));
                    let (row, col) = WeightLayout::Panels.place((output, inner), k, dtype);
                    assert_eq!(panels[row as usize * cols as usize + col as usize], *element);
                }
                assert_eq!(panels.iter().filter(|element| **element != 0.0).count(), matrix.len());
            }
        }
    }

    #[test]
    fn swizzled_rows_are_cut_and_filled_up() {
        let factors: Vec<f64> = (0..9 * 70).map(f64::from).collect();
        let steps =
            [RecipeStep::Weight { name: "w".to_owned(), cols: 70 }, RecipeStep::Swizzled { outputs: 9 }];
        let made = elements(&steps, |_| Some(factors.clone())).expect("a weight");
        assert_eq!(made.len(), 2 * 9 * 64);
        // Output 0 as it is; of output 1 each piece of eight at its place xor 1; output 8 like output 0.
        assert_eq!(made[..64], factors[..64]);
        assert_eq!((&made[64..72], &made[72..80]), (&factors[78..86], &factors[70..78]));
        assert_eq!(made[8 * 64..9 * 64], factors[8 * 70..8 * 70 + 64]);
        let (size, places) = swizzled_places(9, 70).expect("it is small");
        assert_eq!(size, made.len());
        assert!(places.map(|at| made[at]).eq(factors.iter().copied()));
        // The second row has six factors of each output, and zeros.
        let rest = &made[9 * 64..10 * 64];
        assert_eq!((&rest[..6], rest[6..].iter().sum::<f64>()), (&factors[64..70], 0.0));
    }

    #[test]
    fn terms_add_up_to_the_element() {
        let x = 0.123_456_79_f32;
        let term = |term| {
            let steps = [named("x"), RecipeStep::Term { term }];
            elements(&steps, |_| Some(vec![x, -3.0 * x])).expect("a weight")
        };
        let sum: f32 = (0..BF16_TERMS).map(|idx| term(idx)[0]).sum();
        assert_eq!(sum, x);
        assert_ne!(term(0)[0], x);
        assert_eq!(term(0)[0].stored_as(DType::Bf16), term(0)[0]);
        let exact =
            |term| elements(&[named("x"), RecipeStep::Term { term }], |_| Some(vec![Gf61::from_f64(0.3); 2]));
        assert_eq!(exact(0), Some(vec![Gf61::from_f64(0.3); 2]));
        assert_eq!(exact(1), Some(vec![Gf61::ZERO; 2]));
    }

    #[test]
    fn levels_times_scales_are_near_the_elements() {
        let numbers: Vec<f32> = (0..2 * 70).map(|at| ((at * 37 % 101) as f32 - 50.0) * 1.5e-3).collect();
        let named = RecipeStep::Weight { name: "w".to_owned(), cols: 70 };
        let made =
            |step: RecipeStep| elements(&[named.clone(), step], |_| Some(numbers.clone())).expect("a weight");
        let (levels, scales) = (made(RecipeStep::Levels), made(RecipeStep::Scales));
        assert_eq!((levels.len(), scales.len()), (140, 6));
        for (row, numbers) in numbers.chunks(70).enumerate() {
            for (col, number) in numbers.iter().enumerate() {
                let (level, scale) = (levels[row * 70 + col], scales[row * 3 + col / 32]);
                assert!(level.fract() == 0.0 && level.abs() <= 127.0, "{level}");
                // Half a step, and what the largest element loses where its scale was rounded down.
                assert!((level * scale - number).abs() <= 0.8 * scale, "{number}: {level} × {scale}");
            }
        }
        assert!(levels.iter().any(|level| level.abs() == 127.0), "{levels:?}");
        let zeros = elements(&[named.clone(), RecipeStep::Levels], |_| Some(vec![0.0f32; 70]));
        assert_eq!(zeros, Some(vec![0.0; 70]));
        let steps = [[named.clone(), RecipeStep::Levels], [named, RecipeStep::Scales]];
        let [levels, scales] = steps.map(|steps| elements(&steps, |_| Some(vec![Gf61::from_f64(0.3); 70])));
        assert_eq!((levels, scales), (Some(vec![Gf61::from_f64(0.3); 70]), Some(vec![Gf61::ONE; 3])));
    }

    #[test]
    fn what_does_not_fit_has_no_elements() {
        assert_eq!(elements(&[named("missing")], weight), None);
        assert_eq!(elements(&[named("a"), named("b")], weight), None);
        assert_eq!(elements(&[], weight), None);
        assert_eq!(elements(&[gain()], weight), None);
        assert_eq!(elements(&[named("b"), RecipeStep::Rows { start: 1, len: 2 }], weight), None);
        let wide = |name: &str| if name == "g" { Some(vec![1.0; 3]) } else { weight(name) };
        assert_eq!(elements(&[named("b"), gain()], wide), None);
    }
}
