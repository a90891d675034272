//! What tokens would choose among experts themselves, and how narrowly.

use std::collections::BTreeMap;

use skipc_ir::attr::F64;
use skipc_ir::{Graph, Op, Ranking, Role, Trait, TypeError, Value};
use skipc_runtime::Choices;

/// A layer of experts of the oracle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layer {
    /// How many choices it has.
    pub(super) of: u32,
    /// Choices of a token.
    k: usize,
    /// Choices of other tokens of the sequence decide, too.
    limited: bool,
    /// Of these the ones with the higher scores come first.
    by_score: bool,
}

/// The choices that tokens would get.
pub(super) fn own_role(layer: u32) -> Role {
    Role::Result { name: format!("own choices of layer {layer}") }
}

/// What choices rank by.
pub(super) fn score_role(layer: u32) -> Role {
    Role::Result { name: format!("scores of layer {layer}") }
}

/// Adds both as results for each layer of experts of a graph, in which nothing replays them.
///
/// # Errors
/// If a copy of an op does not type: a fault of the compiler.
pub(super) fn add_own(graph: &mut Graph) -> Result<Vec<Layer>, TypeError> {
    let reported: Vec<(Role, Value)> = graph
        .results()
        .filter(|(role, _)| matches!(role, Role::Choices { .. }))
        .map(|(role, value)| (role.clone(), value))
        .collect();
    let mut layers = Vec::new();
    for (role, value) in reported {
        let Role::Choices { layer, of } = role else { continue };
        let mut found = Own {
            layer: Layer { of, k: of as usize, limited: false, by_score: false },
            copies: BTreeMap::new(),
        };
        let own = found.copy(graph, value)?;
        graph.set_result(own_role(layer), own);
        if let Some(scores) = found.scores(graph)? {
            graph.set_result(score_role(layer), scores);
        }
        layers.push(found.layer);
    }
    Ok(layers)
}

/// The copy of what leads from a choice to the choices that are reported.
struct Own {
    layer: Layer,
    copies: BTreeMap<Value, Value>,
}

impl Own {
    /// The same value with a choice that nothing replays.
    fn copy(&mut self, graph: &mut Graph, value: Value) -> Result<Value, TypeError> {
        if let Some(copy) = self.copies.get(&value) {
            return Ok(*copy);
        }
        let (op, operands) = (graph.op(value).clone(), graph.operands(value));
        let limits = matches!(op, Op::LimitChoices { .. } | Op::ShareChoices { .. });
        self.layer.limited |= limits;
        let copied = if let Op::ChooseOrReplay { k, sigmoid, normalise, scale, ranks } = op {
            (self.layer.k, self.layer.by_score) = (k as usize, ranks == Some(Ranking::Score));
            let kept = operands.iter().enumerate().filter(|(idx, _)| *idx != 1).map(|(_, value)| *value);
            Some((Op::Choose { k, sigmoid, normalise, scale, ranks }, kept.collect()))
        } else if limits || op.has(Trait::Copies) || matches!(op, Op::Unary(_)) {
            Some((op, self.copy_all(graph, &operands)?))
        } else {
            // What chooses by itself, and what no choice goes into.
            None
        };
        let copy = match copied {
            Some((op, copied)) if copied != operands.to_vec() => {
                let origin = graph.origin(value).clone();
                graph.add(op, &copied, &origin)?
            }
            _ => value,
        };
        self.copies.insert(value, copy);
        Ok(copy)
    }

    fn copy_all(&mut self, graph: &mut Graph, operands: &[Value]) -> Result<Vec<Value>, TypeError> {
        operands.iter().map(|operand| self.copy(graph, *operand)).collect()
    }

    /// What all choices rank by, `[n, choices]`; none where a hash chooses.
    fn scores(&self, graph: &mut Graph) -> Result<Option<Value>, TypeError> {
        let is_choice = |value: &&Value| matches!(graph.op(**value), Op::Choose { .. });
        let Some(chosen) = self.copies.values().find(is_choice).copied() else { return Ok(None) };
        let (op, operands) = (graph.op(chosen).clone(), graph.operands(chosen));
        let (Op::Choose { sigmoid, .. }, Some(logits)) = (op, operands.first()) else { return Ok(None) };
        let (n, origin) = (graph.ty(*logits).cols(), graph.origin(chosen).clone());
        let (scale, ranks) = (F64::from(1.0), Some(Ranking::Score));
        let all = Op::Choose { k: n, sigmoid, normalise: false, scale, ranks };
        let all = graph.add(all, &operands, &origin)?;
        graph.add(Op::Slice { start: 2 * n, len: n }, &[all], &origin).map(Some)
    }
}

impl Layer {
    /// Whether rounding within `band` of these scores, `[n, choices]`, relative to the larger of two that are compared, gives a row
    /// other choices than its `own`: its last and the next one are near each other; or where there are places for some tokens alone,
    /// those of another row of its sequence, which takes or leaves a place; or, where places go by scores, its score of a choice that
    /// differs is near that of a row on the other side of the border.
    pub(super) fn is_near(
        &self,
        (scores, own): (&[f64], &Choices),
        (row, got): (usize, &Choices),
        sequences: &[i64],
        band: f64,
    ) -> bool {
        let of = self.of as usize;
        let row_of = |row: usize| scores.get(row * of..(row + 1) * of).unwrap_or_default();
        let near = |a: f64, b: f64| (a - b).abs() <= band * a.abs().max(b.abs());
        let turns = |row: usize| {
            let mut ranked = row_of(row).to_vec();
            ranked.sort_by(|a, b| b.total_cmp(a));
            matches!(ranked.get(self.k.saturating_sub(1)..), Some([last, next, ..]) if near(*last, *next))
        };
        if !self.limited {
            return turns(row);
        }
        let rows: Vec<usize> =
            (0..sequences.len()).filter(|other| sequences.get(*other) == sequences.get(row)).collect();
        let has =
            |choices: &Choices, row: usize, choice: usize| choices.taken.get(row * of + choice) == Some(&1);
        let score = |row: usize, choice: usize| row_of(row).get(choice).copied().unwrap_or(f64::NAN);
        let overtaken = |choice: usize| {
            let here = has(own, row, choice);
            here != has(got, row, choice)
                && rows.iter().any(|other| {
                    has(own, *other, choice) != here && near(score(row, choice), score(*other, choice))
                })
        };
        rows.iter().any(|row| turns(*row)) || (self.by_score && (0..of).any(overtaken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_turns_where_the_last_and_the_next_are_near() {
        let layer = Layer { of: 3, k: 1, limited: false, by_score: false };
        let scores = [0.5, 0.499, 0.001, 0.5, 0.3, 0.2];
        let (own, got) = (taken([1, 0, 0, 1, 0, 0]), taken([0, 1, 0, 0, 1, 0]));
        let is_near = |layer: Layer, row, sequences: [i64; 2]| {
            layer.is_near((&scores, &own), (row, &got), &sequences, 0.01)
        };
        assert!(is_near(layer, 0, [0, 0]));
        assert!(!is_near(layer, 1, [0, 0]));
        assert!(is_near(Layer { limited: true, ..layer }, 1, [0, 0]));
        assert!(!is_near(Layer { limited: true, ..layer }, 1, [0, 1]));
        assert!(!is_near(Layer { k: 3, ..layer }, 0, [0, 0]), "all are taken");
    }

    /// Two rows of three choices.
    fn taken(taken: [u8; 6]) -> Choices {
        Choices { of: 3, taken: taken.to_vec() }
    }

    #[test]
    fn a_place_by_score_turns_at_its_border_alone() {
        let layer = Layer { of: 3, k: 3, limited: true, by_score: true };
        // Of the first choice the first row has the place, of the second one the second row, by little.
        let (scores, own) = ([0.9, 0.499, 0.1, 0.1, 0.5, 0.1], taken([1, 0, 0, 0, 1, 0]));
        let is_near = |got: [u8; 6], row| {
            let got = taken(got);
            let by_score = layer.is_near((&scores, &own), (row, &got), &[0, 0], 0.01);
            let by_position =
                Layer { by_score: false, ..layer }.is_near((&scores, &own), (row, &got), &[0, 0], 0.01);
            assert!(!by_position, "no score decides");
            by_score
        };
        let swapped_second = [1, 1, 0, 0, 0, 0];
        assert!(is_near(swapped_second, 0) && is_near(swapped_second, 1));
        let swapped_first = [0, 0, 0, 1, 1, 0];
        assert!(!is_near(swapped_first, 0) && !is_near(swapped_first, 1));
        // Of the third nobody has a place: near each other, and on the same side.
        assert!(!is_near([1, 0, 1, 0, 1, 0], 0));
    }
}
