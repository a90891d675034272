//! How a constant is made of tensors of the weights file.

use serde::{Deserialize, Serialize};
use skipc_ir::interp::Number;

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

/// Makes the elements, row by row, of the tensors that `weight` knows. Nothing is rounded but by the numbers' own
/// products.
///
/// Returns `None` if a tensor is missing or does not fit.
pub fn elements<N: Number>(recipe: &[RecipeStep], weight: impl Fn(&str) -> Option<Vec<N>>) -> Option<Vec<N>> {
    let mut stack: Vec<Vec<N>> = Vec::new();
    for step in recipe {
        let made = match step {
            RecipeStep::Weight { name, .. } => weight(name)?,
            RecipeStep::Concat => {
                let (second, mut first) = (stack.pop()?, stack.pop()?);
                first.extend(second);
                first
            }
            RecipeStep::FoldGain => {
                let (gain, mut rows) = (stack.pop()?, stack.pop()?);
                if gain.is_empty() || !rows.len().is_multiple_of(gain.len()) {
                    return None;
                }
                for row in rows.chunks_exact_mut(gain.len()) {
                    row.iter_mut().zip(&gain).for_each(|(x, gain)| *x = x.mul(*gain));
                }
                rows
            }
        };
        stack.push(made);
    }
    let made = stack.pop()?;
    stack.is_empty().then_some(made)
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
pub fn parts(recipe: &[RecipeStep]) -> Option<Vec<Part<'_>>> {
    let mut stack: Vec<Vec<Part<'_>>> = Vec::new();
    for step in recipe {
        let made = match step {
            RecipeStep::Weight { name, rows } => {
                vec![Part { name, first_row: 0, rows: *rows, gains: Vec::new() }]
            }
            RecipeStep::Concat => {
                let (second, mut first) = (stack.pop()?, stack.pop()?);
                let n_rows = first.last().map_or(0, |part| part.first_row.saturating_add(part.rows));
                first.extend(
                    second
                        .into_iter()
                        .map(|part| Part { first_row: part.first_row.saturating_add(n_rows), ..part }),
                );
                first
            }
            RecipeStep::FoldGain => {
                let (gain, mut parts) = (stack.pop()?, stack.pop()?);
                let [Part { name: gain, gains, .. }] = gain.as_slice() else { return None };
                if !gains.is_empty() {
                    return None;
                }
                parts.iter_mut().for_each(|part| part.gains.push(gain));
                parts
            }
        };
        stack.push(made);
    }
    let made = stack.pop()?;
    stack.is_empty().then_some(made)
}

/// A name for people, such as `q.weight·norm.weight`.
pub(crate) fn describe(recipe: &[RecipeStep]) -> String {
    let mut stack: Vec<String> = Vec::new();
    for step in recipe {
        let operands = (stack.len() >= 2).then(|| (stack.pop(), stack.pop()));
        let made = match (step, operands) {
            (RecipeStep::Weight { name, .. }, popped) => {
                if let Some((Some(second), Some(first))) = popped {
                    stack.extend([first, second]);
                }
                name.clone()
            }
            (RecipeStep::Concat, Some((Some(second), Some(first)))) => format!("{first}|{second}"),
            (RecipeStep::FoldGain, Some((Some(gain), Some(weight)))) => format!("{weight}·{gain}"),
            _ => continue,
        };
        stack.push(made);
    }
    stack.pop().unwrap_or_default()
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
