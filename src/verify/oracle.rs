//! The oracle: the masked graph, which also says what it would have decided itself, and how narrowly.

use std::collections::BTreeMap;

use skipc_ir::interp::{Datum, Env, EvalError, FlatBatch, Weights};
use skipc_ir::{Domain, Graph, Op, Role, TypeError, Unary, Value};

use skipc_runtime::Choices;

use super::LadderError;
use super::experts::{self, Layer};
use crate::verify::reference::{Forced, Outcome, choices_of, replayed};

/// The masked graph with two more results for each router: its own decisions where nothing forces them, and what they
/// were taken by.
pub(super) struct Oracle {
    graph: Graph,
    borders: Vec<Border>,
    layers: Vec<Layer>,
}

/// Where a router's decision turns.
#[derive(Clone, Copy, Debug, Default)]
struct Border {
    /// Scores from here on execute.
    threshold: Option<f64>,
    /// The order of scores decides.
    ranked: bool,
    /// What other tokens of the sequence want decides too.
    limited: bool,
    /// Tokens are compared with those of other sequences.
    of_batch: bool,
    /// The scores are those of the repetitions of a stack, and which is highest decides whether a token gets to this one.
    depth: Option<usize>,
}

/// What the oracle computes under given decisions.
pub(super) struct Verdict<N> {
    /// `[n, vocab]`, row by row.
    pub(super) logits: Vec<N>,
    /// For each router what it would have decided, `[n]`.
    pub(super) own: Vec<Vec<bool>>,
    /// For each router the scores it decides by, `[n]`; none for routers without.
    scores: Vec<Vec<f64>>,
    /// What tokens would have chosen in each layer of experts.
    pub(super) own_choices: Vec<Choices>,
    /// For each layer of experts the scores that choices rank by, `[n, choices]`; none where a hash chooses.
    choice_scores: Vec<Vec<f64>>,
}

/// What a router decides itself.
fn own_role(router: u32) -> Role {
    Role::Result { name: format!("own decision of router {router}") }
}

/// What a router decides by.
fn score_role(router: u32) -> Role {
    Role::Result { name: format!("scores of router {router}") }
}

impl Oracle {
    /// # Errors
    /// If a copy of a route does not type: a fault of the compiler.
    pub(super) fn new(mut graph: Graph) -> Result<Oracle, TypeError> {
        let gates: Vec<(u32, Value)> = graph.decisions().collect();
        let mut borders = Vec::new();
        for (router, gate) in gates {
            let mut border = Border::default();
            let mut own = gate;
            if let (Op::Executed {}, &[set]) = (graph.op(gate), graph.operands(gate).as_slice()) {
                // Nobody forces a set without a gate, so the copy decides for itself.
                let (op, origin) = (graph.op(set).with_set(graph.fresh_set()), graph.origin(set).clone());
                let copy = graph.add(op, &graph.operands(set), &origin)?;
                own = graph.add(Op::Executed {}, &[copy], &origin)?;
                if let Some(score) = score_of(&graph, set, &mut border) {
                    graph.set_result(score_role(router), score);
                }
            }
            graph.set_result(own_role(router), own);
            borders.push(border);
        }
        let layers = experts::add_own(&mut graph)?;
        Ok(Oracle { graph, borders, layers })
    }

    /// Whether it has layers of experts.
    pub(super) fn has_experts(&self) -> bool {
        !self.layers.is_empty()
    }

    /// Evaluates under the decisions that a form took, and its choices of experts.
    pub(super) fn under<N: Domain>(
        &self,
        weights: &dyn Weights<N>,
        batch: &FlatBatch,
        got: &Outcome<N>,
    ) -> Result<Verdict<N>, LadderError> {
        self.run(weights, batch, (Some(&got.gates), Some(&got.choices)))
    }

    /// Whether rounding within `band` of the scores that choices rank by gives a row those that it got.
    pub(super) fn is_near_choice<N>(
        &self,
        verdict: &Verdict<N>,
        (layer, row, got): (usize, usize, &Choices),
        batch: &FlatBatch,
        band: f64,
    ) -> bool {
        let (scores, own) = (verdict.choice_scores.get(layer), verdict.own_choices.get(layer));
        let (Some(found), Some(scores), Some(own)) = (self.layers.get(layer), scores, own) else {
            return false;
        };
        found.is_near((scores, own), (row, got), &batch.sequences, band)
    }

    /// Evaluates under these decisions, and these choices of experts, or under its own where there are none.
    pub(super) fn run<N: Domain>(
        &self,
        weights: &dyn Weights<N>,
        batch: &FlatBatch,
        (gates, choices): (Option<&[Vec<bool>]>, Option<&[Choices]>),
    ) -> Result<Verdict<N>, LadderError> {
        let routing = Forced { graph: &self.graph, masks: gates };
        let tensors = choices.map_or_else(BTreeMap::new, |layers| replayed(&self.graph, layers));
        let env = Env { batch, tensors, weights, routing: &routing };
        let results = skipc_ir::run(&self.graph, &env)
            .map_err(|error: EvalError| LadderError::stage("the masked graph", &error))?;
        let mut results: BTreeMap<Role, Datum<N>> = results.into_iter().collect();
        let mut verdict = Verdict {
            logits: Vec::new(),
            own: Vec::new(),
            scores: Vec::new(),
            own_choices: Vec::new(),
            choice_scores: Vec::new(),
        };
        for (layer, found) in (0..).zip(&self.layers) {
            if let Some(Datum::Real { cols, data }) = results.remove(&experts::own_role(layer)) {
                verdict.own_choices.push(choices_of(found.of, cols, &data));
            }
            verdict.choice_scores.push(match results.remove(&experts::score_role(layer)) {
                Some(Datum::Real { data, .. }) => data.into_iter().map(N::to_f64).collect(),
                _ => Vec::new(),
            });
        }
        if let Some(Datum::Real { data, .. }) = results.remove(&Role::Logits) {
            verdict.logits = data;
        }
        for router in 0..self.borders.len() as u32 {
            verdict.own.push(match results.remove(&own_role(router)) {
                Some(Datum::Mask(own)) => own,
                _ => Vec::new(),
            });
            verdict.scores.push(match results.remove(&score_role(router)) {
                Some(Datum::Real { data, .. }) => data.into_iter().map(N::to_f64).collect(),
                _ => Vec::new(),
            });
        }
        Ok(verdict)
    }

    /// Whether the decision of a router about a row turns within `band` of its score, or of those it depends on, relative to
    /// the larger of the score and the root mean square of the router's scores.
    pub(super) fn is_near_tie<N>(
        &self,
        verdict: &Verdict<N>,
        router: usize,
        row: usize,
        batch: &FlatBatch,
        band: f64,
    ) -> bool {
        let (Some(border), Some(scores)) = (self.borders.get(router), verdict.scores.get(router)) else {
            return false;
        };
        if let Some(depth) = border.depth {
            let repetitions = scores.len() / batch.sequences.len().max(1);
            let row = &scores[row * repetitions..][..repetitions];
            let [before, from] = [&row[..depth], &row[depth..]]
                .map(|some| some.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            let size = row.iter().fold(0.0, |size: f64, score| size.max(score.abs()));
            return (before - from).abs() <= band * size;
        }
        let Some(score) = scores.get(row) else { return false };
        let squares: f64 = scores.iter().map(|score| score * score).sum();
        let size = (squares / scores.len() as f64).sqrt();
        let near = |a: f64, b: f64| (a - b).abs() <= band * a.abs().max(b.abs()).max(size);
        let is_compared =
            |other: &usize| border.of_batch || batch.sequences.get(*other) == batch.sequences.get(row);
        let rows = (0..scores.len()).filter(is_compared);
        let others: Vec<f64> = rows.filter(|other| *other != row).map(|other| scores[other]).collect();
        let at_threshold = border.threshold.is_some_and(|threshold| {
            near(*score, threshold) || (border.limited && others.iter().any(|other| near(*other, threshold)))
        });
        at_threshold || (border.ranked && others.iter().any(|other| near(*other, *score)))
    }
}

/// The scores of a set of rows whose score is at least a number.
fn score_of_route(graph: &Graph, (score, at_least): (Value, f64), border: &mut Border) -> Option<Value> {
    // The highest of a row of scores, which is a whole number.
    let chosen = graph.operands(score).first().copied();
    if let (Op::Slice { .. }, Some(chosen)) = (graph.op(score), chosen)
        && let Op::Choose { .. } = graph.op(chosen)
    {
        border.depth = Some(at_least as usize);
        return graph.operands(chosen).first().copied();
    }
    border.threshold = Some(at_least);
    Some(score)
}

/// The scores by which a set is chosen, and where the choice turns. `None` for sets that no score decides: by chance, or
/// given by the host.
fn score_of(graph: &Graph, set: Value, border: &mut Border) -> Option<Value> {
    let operands = graph.operands(set);
    match graph.op(set) {
        Op::Route { at_least, .. } => score_of_route(graph, (*operands.first()?, at_least.0), border),
        Op::RouteTopK { .. } | Op::RouteTopKAmong { .. } => {
            border.ranked = true;
            border.of_batch =
                operands.len() == 1 + usize::from(matches!(graph.op(set), Op::RouteTopKAmong { .. }));
            operands.first().copied()
        }
        Op::LimitFirst { .. } | Op::LimitFirstAfter { .. } => {
            border.limited = true;
            score_of(graph, *operands.first()?, border)
        }
        Op::WithFirst { .. } => score_of(graph, *operands.first()?, border),
        Op::LimitBest { .. } => {
            let (wanted, scores) = (*operands.first()?, *operands.get(1)?);
            (border.limited, border.ranked) = (true, true);
            let chosen_by = score_of(graph, wanted, border)?;
            if let Op::Unary(Unary::Sigmoid) = graph.op(chosen_by) {
                // Chosen by probability, ranked by logit: the border on the scale of logits.
                border.threshold = border.threshold.map(|p| (p / (1.0 - p)).ln());
            }
            Some(scores)
        }
        // The outer set is given, as all decisions are.
        Op::Within { .. } => score_of(graph, *operands.first()?, border),
        // Who is left out follows from who is not, whose border is looked at.
        Op::RouteRandom { .. } | Op::Input { .. } | Op::Pending { .. } | Op::Complement { .. } => None,
        // None of these makes a set.
        Op::Weight { .. }
        | Op::WeightStack { .. }
        | Op::Fill { .. }
        | Op::GroupedMatmul {}
        | Op::Choose { .. }
        | Op::ChooseOrReplay { .. }
        | Op::HashChoice { .. }
        | Op::LimitChoices { .. }
        | Op::LimitChoicesAfter { .. }
        | Op::ShareChoices { .. }
        | Op::Partition { .. }
        | Op::WeightRows { .. }
        | Op::FoldGain {}
        | Op::FoldLinear {}
        | Op::FoldBias {}
        | Op::OffsetGain { .. }
        | Op::Embed {}
        | Op::Matmul {}
        | Op::RouterLogits {}
        | Op::AddBias {}
        | Op::RmsNorm { .. }
        | Op::InvRms { .. }
        | Op::LayerNorm { .. }
        | Op::Rope { .. }
        | Op::Attention { .. }
        | Op::CachedAttention { .. }
        | Op::Conv {}
        | Op::CachedConv {}
        | Op::SequenceMean {}
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::ScaleRows {}
        | Op::ScaleElements {}
        | Op::Widen {}
        | Op::ForceFirst { .. }
        | Op::ClassToken {}
        | Op::RepeatRow {}
        | Op::Slice { .. }
        | Op::StoreRows {}
        | Op::AddRows {}
        | Op::Gather {}
        | Op::Scatter {}
        | Op::Executed {}
        | Op::FillMask { .. }
        | Op::Training(_) => None,
    }
}
