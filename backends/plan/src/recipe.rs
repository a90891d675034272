//! How a constant is made of tensors of the weights file.

use serde::{Deserialize, Serialize};
use skipc_ir::interp::{Number, functions};

/// Steps of a recipe, at most: more siblings than any layer has. It bounds what a graph that doubles its weights over
/// and over could ask for.
pub(crate) const MAX_STEPS: usize = 4096;

/// One step. A recipe is a list of them, operands before what is done to them: each takes its operands from the top of
/// a stack and leaves its result there. So a recipe of any depth is read without recursion.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RecipeStep {
    /// A tensor of the weights file.
    Weight {
        /// Its name.
        name: String,
        /// Its rows; a vector has one.
        rows: u32,
    },
    /// The rows of the second but top, then those of the top.
    Concat,
    /// The second but top, each column times the top's element of that column.
    FoldGain,
}

/// Takes the steps in turn: a weight becomes what `weight` says of its name and rows, and a step with two operands what
/// its function makes of the second but top and the top.
///
/// Returns `None` as soon as one of them does, and if the recipe does not come to exactly one result.
fn fold<'a, T>(
    recipe: &'a [RecipeStep],
    weight: impl Fn(&'a str, u32) -> Option<T>,
    concat: impl Fn(T, T) -> Option<T>,
    fold_gain: impl Fn(T, T) -> Option<T>,
) -> Option<T> {
    let mut stack: Vec<T> = Vec::new();
    for step in recipe {
        let made = match step {
            RecipeStep::Weight { name, rows } => weight(name, *rows)?,
            RecipeStep::Concat => {
                let (second, first) = (stack.pop()?, stack.pop()?);
                concat(first, second)?
            }
            RecipeStep::FoldGain => {
                let (gain, rows) = (stack.pop()?, stack.pop()?);
                fold_gain(rows, gain)?
            }
        };
        stack.push(made);
    }
    let made = stack.pop()?;
    stack.is_empty().then_some(made)
}

/// Makes the elements, row by row, of the tensors that `weight` knows. Nothing is rounded but by the numbers' own
/// products.
///
/// Returns `None` if a tensor is missing or does not fit.
pub fn elements<N: Number>(recipe: &[RecipeStep], weight: impl Fn(&str) -> Option<Vec<N>>) -> Option<Vec<N>> {
    fold(
        recipe,
        |name, _| weight(name),
        |mut first, second| {
            first.extend(second);
            Some(first)
        },
        |mut rows, gain| {
            if gain.is_empty() || !rows.len().is_multiple_of(gain.len()) {
                return None;
            }
            functions::fold_gain(&mut rows, &gain);
            Some(rows)
        },
    )
}

/// Rows of a constant that come from one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The tensor.
    pub name: &'a str,
    /// Its first row in the constant.
    pub first_row: u32,
    /// Its rows.
    pub rows: u32,
    /// The gains that were folded into it.
    pub gains: Vec<&'a str>,
}

/// The tensors that a constant holds, from its first row on; `None` if it is not made of whole rows and gains.
pub fn parts<'a>(recipe: &'a [RecipeStep]) -> Option<Vec<Part<'a>>> {
    fold(
        recipe,
        |name, rows| Some(vec![Part { name, first_row: 0, rows, gains: Vec::new() }]),
        |mut first, second| {
            let n_rows = first.last().map_or(0, |part| part.first_row.saturating_add(part.rows));
            let below = |part: Part<'a>| Part { first_row: part.first_row.saturating_add(n_rows), ..part };
            first.extend(second.into_iter().map(below));
            Some(first)
        },
        |mut parts, gain| {
            let [Part { name: gain, gains, .. }] = gain.as_slice() else { return None };
            if !gains.is_empty() {
                return None;
            }
            parts.iter_mut().for_each(|part| part.gains.push(gain));
            Some(parts)
        },
    )
}

/// A name for people, such as `q.weight·norm.weight`; empty for steps that do not come to one result.
pub(crate) fn describe(recipe: &[RecipeStep]) -> String {
    let described = fold(
        recipe,
        |name, _| Some(name.to_owned()),
        |first, second| Some(format!("{first}|{second}")),
        |weight, gain| Some(format!("{weight}·{gain}")),
    );
    described.unwrap_or_default()
}

#[cfg(test)]
mod tests {
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
        RecipeStep::Weight { name: name.to_owned(), rows: if name == "b" { 2 } else { 1 } }
    }

    #[test]
    fn rows_follow_one_another_and_columns_are_scaled() {
        let recipe = [named("a"), named("b"), RecipeStep::Concat, named("g"), RecipeStep::FoldGain];
        let made = elements(&recipe, weight).expect("all weights are there");
        assert_eq!(made, [10.0, -2.0, 30.0, -4.0, 50.0, -6.0]);
        assert_eq!(describe(&recipe), "a|b·g");
        let folded = [named("a"), named("g"), RecipeStep::FoldGain, named("b"), RecipeStep::Concat];
        assert_eq!(describe(&folded), "a·g|b");
    }

    #[test]
    fn rows_are_found_again() {
        let recipe = [named("b"), named("g"), RecipeStep::FoldGain, named("a"), RecipeStep::Concat];
        let wanted = [
            Part { name: "b", first_row: 0, rows: 2, gains: vec!["g"] },
            Part { name: "a", first_row: 2, rows: 1, gains: vec![] },
        ];
        assert_eq!(parts(&recipe).expect("rows and gains"), wanted);
        assert_eq!(parts(&[named("a"), RecipeStep::Concat]), None);
    }

    #[test]
    fn what_does_not_fit_has_no_elements() {
        assert_eq!(elements(&[named("missing")], weight), None);
        assert_eq!(elements(&[named("a"), RecipeStep::Concat], weight), None);
        assert_eq!(elements(&[named("a"), named("b")], weight), None);
        assert_eq!(elements(&[], weight), None);
        let wide = |name: &str| if name == "g" { Some(vec![1.0; 3]) } else { weight(name) };
        assert_eq!(elements(&[named("b"), named("g"), RecipeStep::FoldGain], wide), None);
    }
}
