//! The derivative of each op: what its operands get of the gradient of its result (a vector-Jacobian product).
//!
//! A rule adds nodes to the graph that the op stands in and uses its operands, so that the backward pass has the token sets
//! and decisions of the forward pass and decides nothing anew. Sets, decisions and integers have no gradient.

use smallvec::{SmallVec, smallvec};

use super::args::TypeError;
use crate::attr::F64;
use crate::elementwise::{Binary, Unary};
use crate::graph::{Graph, Value};
use crate::ops::Op;
use crate::training::Training;
use crate::ty::{Elem, Type};

/// The gradient of each operand; `None` of one that gets none.
pub(crate) type OfOperands = SmallVec<[Option<Value>; 4]>;

/// Why an operand has no gradient.
pub(crate) enum Fault {
    /// The op has no derivative.
    NoDerivative,
    /// A node of the backward pass does not fit its operands.
    Type(TypeError),
}

impl From<TypeError> for Fault {
    fn from(error: TypeError) -> Fault {
        Fault::Type(error)
    }
}

/// A node whose operands get gradients.
struct Rule<'g> {
    graph: &'g mut Graph,
    node: Value,
    operands: SmallVec<[Value; 4]>,
    /// Gradient of the result.
    dy: Value,
    /// Whether each operand is asked for its gradient.
    wanted: &'g dyn Fn(Value) -> bool,
}

impl Rule<'_> {
    fn add(&mut self, op: impl Into<Op>, operands: &[Value]) -> Result<Value, Fault> {
        let origin = self.graph.origin(self.node).clone();
        Ok(self.graph.add(op.into(), operands, &origin)?)
    }

    /// As [`Rule::add`], if operand `idx` is asked for its gradient.
    fn of(&mut self, idx: usize, op: impl Into<Op>, operands: &[Value]) -> Result<Option<Value>, Fault> {
        if !(self.wanted)(self.operands[idx]) {
            return Ok(None);
        }
        self.add(op, operands).map(Some)
    }

    fn x(&self, idx: usize) -> Value {
        self.operands[idx]
    }

    fn elem(&self, value: Value) -> Option<Elem> {
        self.graph.ty(value).as_tensor().map(|(elem, _)| elem)
    }
}

/// The gradients of a node's operands. Those that `wanted` does not ask for may be left out.
pub(crate) fn vjp(
    graph: &mut Graph,
    node: Value,
    dy: Value,
    wanted: &dyn Fn(Value) -> bool,
) -> Result<OfOperands, Fault> {
    let (op, operands) = (graph.op(node).clone(), graph.operands(node));
    let rule = Rule { graph, node, operands, dy, wanted };
    match op {
        // What is given, chosen or counted has no gradient.
        Op::Input { .. }
        | Op::Weight { .. }
        | Op::Fill { .. }
        | Op::Route { .. }
        | Op::RouteRandom { .. }
        | Op::RouteTopK { .. }
        | Op::RouteTopKAmong { .. }
        | Op::LimitFirst { .. }
        | Op::LimitFirstAfter { .. }
        | Op::LimitBest { .. }
        | Op::Pending { .. }
        | Op::Complement { .. }
        | Op::WithFirst { .. }
        | Op::Within { .. }
        | Op::Executed {}
        | Op::FillMask { .. } => Ok(SmallVec::new()),
        // States are updated behind the backward pass, and constants are folded behind it, too.
        Op::WeightRows { .. }
        | Op::FoldGain {}
        | Op::FoldLinear {}
        | Op::FoldBias {}
        | Op::StoreRows {}
        | Op::AddRows {}
        // Training refuses models that have these.
        | Op::ForceFirst { .. }
        | Op::ScaleElements {}
        | Op::Choose { .. }
        | Op::ChooseOrReplay { .. }
        | Op::HashChoice { .. }
        | Op::LimitChoices { .. }
        | Op::LimitChoicesAfter { .. }
        | Op::ShareChoices { .. }
        | Op::Partition { .. }
        | Op::WeightStack { .. }
        | Op::GroupedMatmul {}
        | Op::CachedAttention { .. }
        | Op::Conv {}
        | Op::CachedConv {}
        | Op::SequenceMean {}
        | Op::ClassToken {}
        | Op::RepeatRow {}
        | Op::InvRms { .. } => Err(Fault::NoDerivative),
        // What was widened stays so: sums over it are of numbers that nothing rounded.
        Op::OffsetGain { .. } | Op::Widen {} => Ok(smallvec![Some(dy)]),
        Op::Embed {} => embed(rule),
        Op::Matmul {} | Op::RouterLogits {} => matmul(rule),
        Op::AddBias {} => add_bias(rule),
        Op::RmsNorm { eps, groups } => rms_norm(rule, eps, groups),
        Op::LayerNorm { eps, groups } => layer_norm(rule, eps, groups),
        Op::Rope { heads, theta, turned, scaling } => {
            turn_back(rule, Training::RopeGradient { heads, theta, turned, scaling })
        }
        Op::Attention { heads, kv_heads, scale, cap, window, ahead } => attention(
            rule,
            [
                Training::AttentionSums { heads, kv_heads, scale, cap, window, ahead },
                Training::QueryGradient { heads, kv_heads, scale, cap, window, ahead },
                Training::KeyValueGradient { heads, kv_heads, scale, cap, window, ahead },
            ],
        ),
        Op::Unary(function) => unary(rule, function),
        Op::Binary(function) => binary(rule, function),
        Op::ScaleRows {} => scale_rows(rule),
        Op::Slice { start, .. } => slice(rule, start),
        Op::Gather {} => gather(rule),
        Op::Scatter {} => scatter(rule),
        Op::Training(op) => training(rule, op),
    }
}

fn embed(mut rule: Rule<'_>) -> Result<OfOperands, Fault> {
    let Some((_, &[crate::Dim::Fixed(rows), _])) = rule.graph.ty(rule.x(0)).as_tensor() else {
        return Err(Fault::NoDerivative);
    };
    let (dy, ids) = (rule.dy, rule.x(1));
    Ok(smallvec![rule.of(0, Training::EmbedGradient { rows }, &[dy, ids])?, None])
}

fn matmul(mut rule: Rule<'_>) -> Result<OfOperands, Fault> {
    let (x, weight, dy) = (rule.x(0), rule.x(1), rule.dy);
    let of_x = rule.of(0, Training::InputGradient {}, &[dy, weight])?;
    let of_weight = rule.of(1, Training::WeightGradient {}, &[x, dy])?;
    Ok(smallvec![of_x, of_weight])
}

fn add_bias(mut rule: Rule<'_>) -> Result<OfOperands, Fault> {
    let dy = rule.dy;
    let of_bias = rule.of(1, Training::ColumnSums { groups: None }, &[dy])?;
    Ok(smallvec![Some(dy), of_bias])
}

fn rms_norm(mut rule: Rule<'_>, eps: F64, groups: Option<u32>) -> Result<OfOperands, Fault> {
    let (x, gain, dy) = (rule.x(0), rule.x(1), rule.dy);
    let of_x = rule.of(0, Training::RmsNormGradient { eps, groups }, &[x, gain, dy])?;
    let of_gain = rule.of(1, Training::RmsGainGradient { eps, groups }, &[x, dy])?;
    Ok(smallvec![of_x, of_gain])
}

fn layer_norm(mut rule: Rule<'_>, eps: F64, groups: Option<u32>) -> Result<OfOperands, Fault> {
    let (x, gain, dy) = (rule.x(0), rule.x(1), rule.dy);
    let of_x = rule.of(0, Training::LayerNormGradient { eps, groups }, &[x, gain, dy])?;
    let of_gain = rule.of(1, Training::LayerGainGradient { eps, groups }, &[x, dy])?;
    let of_bias = rule.of(2, Training::ColumnSums { groups }, &[dy])?;
    Ok(smallvec![of_x, of_gain, of_bias])
}

fn turn_back(mut rule: Rule<'_>, op: Training) -> Result<OfOperands, Fault> {
    let (dy, positions) = (rule.dy, rule.x(1));
    Ok(smallvec![rule.of(0, op, &[dy, positions])?, None])
}

fn attention(mut rule: Rule<'_>, [sums, of_q, of_kv]: [Training; 3]) -> Result<OfOperands, Fault> {
    let (k, v) = (rule.x(1), rule.x(2));
    let mut operands: SmallVec<[Value; 9]> = rule.operands.iter().copied().collect();
    operands.push(rule.dy);
    operands.push(rule.add(sums, &operands)?);
    let mut gradients: OfOperands = smallvec![rule.of(0, of_q, &operands)?];
    if (rule.wanted)(k) || (rule.wanted)(v) {
        let (both, len) = (rule.add(of_kv, &operands)?, rule.graph.ty(k).cols());
        gradients.push(rule.of(1, Op::Slice { start: 0, len }, &[both])?);
        gradients.push(rule.of(2, Op::Slice { start: len, len }, &[both])?);
    }
    gradients.resize(rule.operands.len(), None);
    Ok(gradients)
}

fn unary(mut rule: Rule<'_>, function: Unary) -> Result<OfOperands, Fault> {
    let (x, dy) = (rule.x(0), rule.dy);
    let of_x = match function {
        Unary::Scale(_) => rule.of(0, function, &[dy])?,
        Unary::OneMinus => rule.of(0, Unary::Scale(F64::from(-1.0)), &[dy])?,
        Unary::Gelu
        | Unary::Relu
        | Unary::Relu2
        | Unary::Silu
        | Unary::Sigmoid
        | Unary::GeluErf
        | Unary::Tanh => rule.of(0, Training::Derivative { of: function }, &[x, dy])?,
    };
    Ok(smallvec![of_x])
}

fn binary(mut rule: Rule<'_>, function: Binary) -> Result<OfOperands, Fault> {
    let (a, b, dy) = (rule.x(0), rule.x(1), rule.dy);
    Ok(match function {
        Binary::Add => smallvec![Some(dy), Some(dy)],
        Binary::Sub => smallvec![Some(dy), rule.of(1, Unary::Scale(F64::from(-1.0)), &[dy])?],
        Binary::Mul => {
            smallvec![rule.of(0, Binary::Mul, &[dy, b])?, rule.of(1, Binary::Mul, &[dy, a])?]
        }
    })
}

fn scale_rows(mut rule: Rule<'_>) -> Result<OfOperands, Fault> {
    let (x, scale, dy) = (rule.x(0), rule.x(1), rule.dy);
    let of_x = rule.of(0, Op::ScaleRows {}, &[dy, scale])?;
    if rule.elem(scale) != Some(Elem::F32) && (rule.wanted)(scale) {
        return Err(Fault::NoDerivative);
    }
    Ok(smallvec![of_x, rule.of(1, Training::RowDot {}, &[dy, x])?])
}

fn slice(mut rule: Rule<'_>, start: u32) -> Result<OfOperands, Fault> {
    let (cols, dy) = (rule.graph.ty(rule.x(0)).cols(), rule.dy);
    Ok(smallvec![rule.of(0, Training::PlaceColumns { start, cols }, &[dy])?])
}

/// Rows of a set are distinct: a gather's gradient is a plain store into zeros.
fn gather(mut rule: Rule<'_>) -> Result<OfOperands, Fault> {
    let (x, set, dy) = (rule.x(0), rule.x(1), rule.dy);
    if !(rule.wanted)(x) {
        return Ok(smallvec![None, None]);
    }
    if matches!(rule.graph.ty(x), Type::State { .. }) {
        return Err(Fault::NoDerivative);
    }
    let zeros = rule.add(Training::ZerosLike {}, &[x])?;
    Ok(smallvec![Some(rule.add(Op::Scatter {}, &[zeros, dy, set])?), None])
}

/// The rows get theirs; the base gets the others.
fn scatter(mut rule: Rule<'_>) -> Result<OfOperands, Fault> {
    let (rows, set, dy) = (rule.x(1), rule.x(2), rule.dy);
    let of_base = match (rule.wanted)(rule.x(0)) {
        true => {
            let zeros = rule.add(Training::ZerosLike {}, &[rows])?;
            Some(rule.add(Op::Scatter {}, &[dy, zeros, set])?)
        }
        false => None,
    };
    Ok(smallvec![of_base, rule.of(1, Op::Gather {}, &[dy, set])?, None])
}

fn training(mut rule: Rule<'_>, op: Training) -> Result<OfOperands, Fault> {
    let dy = rule.dy;
    match op {
        Training::Constant { .. } | Training::Parameter { .. } | Training::SetSize {} => Ok(SmallVec::new()),
        Training::Times {} => {
            let factor = rule.x(1);
            match (rule.wanted)(factor) {
                true => Err(Fault::NoDerivative),
                false => Ok(smallvec![rule.of(0, op, &[dy, factor])?, None]),
            }
        }
        Training::Combine { by_a, by_b } => {
            let none = F64::from(0.0);
            let of_a = rule.of(0, Training::Combine { by_a, by_b: none }, &[dy, dy])?;
            Ok(smallvec![of_a, rule.of(1, Training::Combine { by_a: by_b, by_b: none }, &[dy, dy])?])
        }
        Training::StraightThrough {} => {
            let value = rule.x(2);
            Ok(smallvec![Some(dy), rule.of(1, Training::RowDot {}, &[dy, value])?, None])
        }
        Training::RateLoss { target } => {
            let operands = [rule.x(0), rule.x(1), rule.x(2), dy];
            Ok(smallvec![None, rule.of(1, Training::RateLossGradient { target }, &operands)?, None])
        }
        Training::CrossEntropy {} => {
            let operands = [rule.x(0), rule.x(1), rule.x(2), dy];
            Ok(smallvec![rule.of(0, Training::CrossEntropyGradient {}, &operands)?, None, None])
        }
        Training::Divergence { temperature } => {
            let operands = [rule.x(0), rule.x(1), rule.x(2), dy];
            let of_logits = rule.of(0, Training::DivergenceGradient { temperature }, &operands)?;
            Ok(smallvec![of_logits, None, None])
        }
        // Backward passes have no backward pass of their own.
        Training::WeightGradient {}
        | Training::InputGradient {}
        | Training::ColumnSums { .. }
        | Training::EmbedGradient { .. }
        | Training::Derivative { .. }
        | Training::RmsNormGradient { .. }
        | Training::RmsGainGradient { .. }
        | Training::LayerNormGradient { .. }
        | Training::LayerGainGradient { .. }
        | Training::RopeGradient { .. }
        | Training::AttentionSums { .. }
        | Training::QueryGradient { .. }
        | Training::KeyValueGradient { .. }
        | Training::RowDot {}
        | Training::PlaceColumns { .. }
        | Training::ZerosLike {}
        | Training::RateLossGradient { .. }
        | Training::CrossEntropyGradient {}
        | Training::DivergenceGradient { .. }
        | Training::Accumulate {}
        | Training::Clear {}
        | Training::SumSquares {}
        | Training::ReadScaled {}
        | Training::Squares { .. }
        | Training::RowMeans {}
        | Training::ColumnMeans {}
        | Training::MovingAverage {}
        | Training::AdamW { .. }
        | Training::Adafactor { .. } => Err(Fault::NoDerivative),
    }
}
