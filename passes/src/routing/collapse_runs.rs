//! Lets the routers of a run of layers see the rows with which the run begins.
//!
//! A token that skips a layer leaves it as it came: what the next router makes of it is known before the layer. With `f`
//! what a router makes of the stream, row by row (norm, logits, their difference):
//!
//! | pattern | becomes |
//! | --- | --- |
//! | `f (scatter %x, %y, %s)` | `scatter (f %x), (f %y), %s` |
//!
//! Before: a verified graph. After: the layers are in runs of [`RUN`], and each router reads the stream where its run begins,
//! all routers of a run in one matmul, and again the rows that a layer of the run has changed.
//!
//! Leaves alone: a stream from which more is made than routers and what executed layers read. Where keys and values of all
//! tokens are computed from it, the columns of the router ride with them.

use std::collections::BTreeMap;

use skipc_ir::{Dim, Facts, Graph, Op, Trait, Type, Value};

use crate::{Operand, Patch};

/// Layers in a run: a layer that executes reads the weights of all later routers of its run again.
const RUN: usize = 8;

pub(crate) fn edits(graph: &Graph, facts: &Facts) -> Vec<Patch> {
    let mut streams = Streams { graph, of: vec![None; graph.bound()] };
    facts.order().iter().for_each(|value| streams.visit(*value));
    let routes = facts.order().iter().filter(|value| graph.op(**value).opens().is_some());
    let mut moved: Vec<Moved> = Vec::new();
    for route in routes {
        for operand in graph.operands(*route) {
            streams.scores(operand, &mut moved);
        }
    }
    let is_free = |moved: &&Moved| moved.layers.len() > 1 && streams.is_for_routers(moved.stream);
    moved.iter().filter(is_free).filter_map(|moved| streams.edit(moved)).collect()
}

/// A number of each token that a decision depends on, and a stream that it is made from alone.
struct Moved {
    score: Value,
    stream: Value,
    /// What the stream is scattered from, the newest first: rows and set of each layer since the run began, then the stream
    /// with which it did.
    layers: Vec<Layer>,
}

#[derive(Clone, Copy)]
enum Layer {
    Executed { rows: Value, set: Value },
    Begin(Value),
}

/// From which scatter each value is made row by row, and from nothing else but constants.
struct Streams<'g> {
    graph: &'g Graph,
    of: Vec<Option<Value>>,
}

impl Streams<'_> {
    /// Finds out for a value whose operands are known.
    fn visit(&mut self, value: Value) {
        let (op, graph) = (self.graph.op(value), self.graph);
        if !has_token_rows(graph, value) {
            return;
        }
        self.of[value.index()] = if matches!(op, Op::Scatter {}) {
            Some(value)
        } else if op.has(Trait::RowWise) && !op.has(Trait::CountsRows) {
            let operands = graph.operands(value);
            let (rows, others): (Vec<Value>, Vec<Value>) =
                operands.into_iter().partition(|operand| has_token_rows(graph, *operand));
            let of = rows.first().and_then(|first| self.of[first.index()]);
            let is_of_one = rows.iter().all(|row| self.of[row.index()] == of);
            of.filter(|_| is_of_one && others.iter().all(|other| is_constant(graph, *other)))
        } else {
            None
        };
    }

    /// The largest parts of a value, row by row, that are made from one stream alone, by a router.
    fn scores(&self, value: Value, found: &mut Vec<Moved>) {
        match self.of[value.index()] {
            Some(stream) if stream != value => {
                let is_new = found.iter().all(|moved| moved.score != value);
                let moved = Moved { score: value, stream, layers: self.layers(stream) };
                found.extend((is_new && self.has_logits(value)).then_some(moved));
            }
            Some(_) => {}
            None if has_token_rows(self.graph, value) && self.graph.op(value).has(Trait::RowWise) => {
                self.graph.operands(value).iter().for_each(|operand| self.scores(*operand, found));
            }
            None => {}
        }
    }

    fn has_logits(&self, score: Value) -> bool {
        let mut is_made_by = false;
        self.each_within(score, &mut |value| {
            is_made_by |= matches!(self.graph.op(value), Op::RouterLogits {});
        });
        is_made_by
    }

    /// Visits what a score is made of between the stream and itself, a value perhaps several times.
    fn each_within(&self, score: Value, visit: &mut dyn FnMut(Value)) {
        visit(score);
        for operand in self.graph.operands(score) {
            if self.of[operand.index()].is_some_and(|stream| stream != operand) {
                self.each_within(operand, visit);
            }
        }
    }

    /// The layers between a stream and the one with which its run begins.
    fn layers(&self, stream: Value) -> Vec<Layer> {
        let (mut all, mut now) = (Vec::new(), stream);
        while let (Op::Scatter {}, &[base, rows, set]) =
            (self.graph.op(now), self.graph.operands(now).as_slice())
        {
            all.push((Layer::Executed { rows, set }, base));
            now = base;
        }
        let in_run = all.len() % RUN;
        let begin = in_run.checked_sub(1).map_or(stream, |last| all[last].1);
        all.into_iter().take(in_run).map(|(layer, _)| layer).chain([Layer::Begin(begin)]).collect()
    }

    /// Whether nothing is made of all rows of a stream but scores: layers read what they gather, caches keep it as it is.
    fn is_for_routers(&self, stream: Value) -> bool {
        self.graph.users(stream).into_iter().all(|user| {
            let op = self.graph.op(user);
            let is_base = matches!(op, Op::Scatter {}) && self.graph.operands(user).first() == Some(&stream);
            is_base || matches!(op, Op::Gather {} | Op::StoreRows {}) || self.leads_to_scores(user)
        })
    }

    /// Whether all that is made of a value row by row becomes logits of a router.
    fn leads_to_scores(&self, value: Value) -> bool {
        let op = self.graph.op(value);
        if matches!(op, Op::RouterLogits {}) {
            return true;
        }
        let is_statistic = self.graph.ty(value).cols() == 1;
        let is_read_by_routers = || {
            let mut users = self.graph.users(value).into_iter();
            op.has(Trait::RowWise) && users.all(|user| self.leads_to_scores(user))
        };
        !matches!(op, Op::Matmul {}) && (is_statistic || is_read_by_routers())
    }

    fn edit(&self, moved: &Moved) -> Option<Patch> {
        let mut patch = Patch::new("routers of a run");
        let mut score = None;
        for layer in moved.layers.iter().rev() {
            score = Some(match (*layer, score) {
                (Layer::Begin(stream), _) => self.over(stream, moved, &mut patch),
                (Layer::Executed { rows, set }, Some(before)) => {
                    let changed = self.over(rows, moved, &mut patch);
                    let operands = [before, changed, set.into()];
                    patch.add(Op::Scatter {}, &operands, self.graph.origin(moved.score))
                }
                (Layer::Executed { .. }, None) => return None,
            });
        }
        Some(patch.replace(moved.score, score?))
    }

    /// The score of other rows.
    fn over(&self, rows: Value, moved: &Moved, patch: &mut Patch) -> Operand {
        let mut made = BTreeMap::from([(moved.stream, Operand::Old(rows))]);
        self.copy(moved.score, &mut made, patch)
    }

    fn copy(&self, value: Value, made: &mut BTreeMap<Value, Operand>, patch: &mut Patch) -> Operand {
        if let Some(done) = made.get(&value) {
            return *done;
        }
        if self.of[value.index()].is_none() {
            return Operand::Old(value);
        }
        let operands = self.graph.operands(value);
        let operands: Vec<Operand> =
            operands.into_iter().map(|operand| self.copy(operand, made, patch)).collect();
        let copied = patch.add(self.graph.op(value).clone(), &operands, self.graph.origin(value));
        made.insert(value, copied);
        copied
    }
}

fn has_token_rows(graph: &Graph, value: Value) -> bool {
    matches!(graph.ty(value), ty @ Type::Tensor { .. } if ty.rows() == Dim::Tokens)
}

/// Whether a value is known when the model is compiled.
fn is_constant(graph: &Graph, value: Value) -> bool {
    graph.op(value).has(Trait::Constant)
}
