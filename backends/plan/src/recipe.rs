//! How a constant is made of tensors of the weights file.

use serde::{Deserialize, Serialize};
use skipc_artifact::target::DType;
use skipc_ir::interp::functions;

use crate::interp::Element;
use crate::kernel::{PANEL, WeightLayout};

/// Steps of a recipe, at most: several times what the rules of any pass make. It bounds what a graph that folds its
/// weights over and over could ask for.
pub(crate) const MAX_STEPS: usize = 64;

/// bf16 terms of a weight whose products are as accurate as those of the weight in f32: three times eight bits.
pub const BF16_TERMS: u32 = 3;

/// One step. A recipe begins with a tensor, and each step changes what there is so far: a matrix `[rows, cols]`.
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
    /// Each column times the element of this vector of the weights file: the gain of a norm.
    FoldGain {
        /// Its name.
        gain: String,
    },
    /// Each row minus its mean: what a layer norm leaves of it.
    Centre,
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
    /// Rows become columns.
    Transpose,
    /// As [`WeightLayout::Panels`]: zeros behind each row up to a multiple of [`PANEL`], then panels.
    Panels,
    /// A vector: the mean of each row. It is what [`RecipeStep::Centre`] takes away, kept so that it can be given back.
    RowMeans,
    /// A vector: each row times this vector of the weights file, what the bias of a norm adds to each product.
    FoldBias {
        /// Its name.
        bias: String,
    },
}

/// Makes the elements, row by row, of the tensors that `weight` knows. Nothing is rounded but by the numbers' own
/// arithmetic, and by [`RecipeStep::Term`].
///
/// Returns `None` if a tensor is missing or does not fit.
pub fn elements<N: Element>(
    recipe: &[RecipeStep],
    weight: impl Fn(&str) -> Option<Vec<N>>,
) -> Option<Vec<N>> {
    let (RecipeStep::Weight { name, cols }, steps) = recipe.split_first()? else { return None };
    let (mut data, mut cols) = (weight(name)?, *cols as usize);
    if cols == 0 || !data.len().is_multiple_of(cols) {
        return None;
    }
    for step in steps {
        match step {
            RecipeStep::Weight { .. } => return None,
            RecipeStep::FoldGain { gain } => {
                let gain = weight(gain).filter(|gain| gain.len() == cols)?;
                functions::fold_gain(&mut data, &gain);
            }
            RecipeStep::Centre => data.chunks_exact_mut(cols).for_each(functions::centre),
            RecipeStep::Rows { start, len } => {
                let first = (*start as usize).checked_mul(cols)?;
                let end = first.checked_add((*len as usize).checked_mul(cols)?)?;
                data = data.get(first..end)?.to_vec();
            }
            RecipeStep::Term { term } => data.iter_mut().for_each(|x| *x = bf16_term(*x, *term)),
            RecipeStep::Transpose => {
                let rows = data.len() / cols;
                data = (0..cols)
                    .flat_map(|col| (0..rows).map(move |row| row * cols + col))
                    .map(|at| data[at])
                    .collect();
                cols = rows;
            }
            RecipeStep::Panels => {
                let rows = data.len() / cols;
                let panels = cols.div_ceil(PANEL as usize);
                let mut made = vec![N::from_f64(0.0); (rows * panels).checked_mul(PANEL as usize)?];
                for (idx, x) in data.iter().enumerate() {
                    let (row, col) = WeightLayout::in_panels((idx / cols) as u64, (idx % cols) as u64);
                    *made.get_mut(row as usize * rows * PANEL as usize + col as usize)? = *x;
                }
                data = made;
                cols = rows * PANEL as usize;
            }
            RecipeStep::RowMeans => {
                data = data.chunks_exact(cols).map(functions::mean_of).collect();
                cols = data.len();
            }
            RecipeStep::FoldBias { bias } => {
                let bias = weight(bias).filter(|bias| bias.len() == cols)?;
                data = data.chunks_exact(cols).map(|row| functions::dot(row, &bias)).collect();
                cols = data.len();
            }
        }
        if data.is_empty() {
            return None;
        }
    }
    Some(data)
}

fn bf16_term<N: Element>(x: N, term: u32) -> N {
    let rest = (0..term).fold(x, |rest, _| rest.sub(rest.stored_as(DType::Bf16)));
    rest.stored_as(DType::Bf16)
}

/// The tensors that a recipe takes from the weights file.
pub fn tensors(recipe: &[RecipeStep]) -> impl Iterator<Item = &str> {
    recipe.iter().filter_map(|step| match step {
        RecipeStep::Weight { name, .. }
        | RecipeStep::FoldGain { gain: name }
        | RecipeStep::FoldBias { bias: name } => Some(name.as_str()),
        RecipeStep::Centre
        | RecipeStep::Rows { .. }
        | RecipeStep::Term { .. }
        | RecipeStep::Transpose
        | RecipeStep::Panels
        | RecipeStep::RowMeans => None,
    })
}

/// A name for people, such as `q.weight·norm.weight`.
pub(crate) fn describe(recipe: &[RecipeStep]) -> String {
    let mut text = String::new();
    for step in recipe {
        match step {
            RecipeStep::Weight { name, .. } => text.push_str(name),
            RecipeStep::FoldGain { gain } => text.push_str(&format!("·{gain}")),
            RecipeStep::Centre => text.push_str(" centred"),
            RecipeStep::Rows { start, len } => text.push_str(&format!("[{start}, {len} rows]")),
            RecipeStep::Term { term } => text.push_str(&format!(" term {term}")),
            RecipeStep::Transpose => text.push_str(" transposed"),
            RecipeStep::Panels => text.push_str(" in panels"),
            RecipeStep::RowMeans => text.push_str(" row means"),
            RecipeStep::FoldBias { bias } => text.push_str(&format!(" × {bias}")),
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
        RecipeStep::FoldGain { gain: "g".to_owned() }
    }

    #[test]
    fn columns_are_scaled_and_rows_centred_and_chosen() {
        let made = |steps: &[RecipeStep]| elements(steps, weight).expect("all weights are there");
        assert_eq!(made(&[named("b"), gain()]), [30.0, -4.0, 50.0, -6.0]);
        assert_eq!(made(&[named("b"), RecipeStep::Centre]), [-0.5, 0.5, -0.5, 0.5]);
        assert_eq!(made(&[named("b"), RecipeStep::RowMeans]), [3.5, 5.5]);
        assert_eq!(made(&[named("b"), RecipeStep::Transpose, gain()]), [30.0, -5.0, 40.0, -6.0]);
        assert_eq!(made(&[named("b"), RecipeStep::Rows { start: 1, len: 1 }]), [5.0, 6.0]);
        assert_eq!(made(&[named("b"), RecipeStep::FoldBias { bias: "g".to_owned() }]), [26.0, 44.0]);
        assert_eq!(describe(&[named("b"), gain(), RecipeStep::Centre]), "b·g centred");
    }

    #[test]
    fn panels_are_swizzled_and_padded() {
        let factors: Vec<f64> = (0..9 * 70).map(f64::from).collect();
        let steps = [RecipeStep::Weight { name: "w".to_owned(), cols: 70 }, RecipeStep::Panels];
        let panels = elements(&steps, |_| Some(factors.clone())).expect("a weight");
        assert_eq!(panels.len(), 2 * 9 * 64);
        // Output 0 as it is; of output 1 each piece of eight at its place xor 1; output 8 like output 0.
        assert_eq!(panels[..16], factors[..16]);
        assert_eq!((&panels[64..72], &panels[72..80]), (&factors[78..86], &factors[70..78]));
        assert_eq!(panels[8 * 64..9 * 64], factors[8 * 70..8 * 70 + 64]);
        // The second panel has six factors of each output, and zeros.
        let rest = &panels[9 * 64..10 * 64];
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
