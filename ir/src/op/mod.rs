//! What ops mean: for each family one file with the type rule (`infer`) beside the reference semantics (`eval`).

mod args;
pub(crate) mod attention;
mod choice;
mod constant;
mod conv;
pub(crate) mod leaf;
mod linear;
mod norm;
mod pointwise;
mod sequence;
mod state;
pub(crate) mod token_set;
mod training;
pub(crate) mod vjp;

use args::Args;
pub use args::TypeError;

use crate::elementwise::Binary;
use crate::interp::{Datum, Env, EvalError, Number, functions};
use crate::ops::Op;
use crate::rope::Frequencies;
use crate::scoring::Scoring;
use crate::ty::{Elem, Type};

/// The type of the result of `op` over operands of these types.
///
/// # Errors
/// If the operands do not fit the op.
pub fn infer(op: &Op, operands: &[&Type]) -> Result<Type, TypeError> {
    let info = op.info();
    let fewest = info.operands.len() - usize::from(info.last_is_optional);
    if !(fewest..=info.operands.len()).contains(&operands.len()) {
        return Err(TypeError::Arity { op: info.name, wanted: info.operands.len(), got: operands.len() });
    }
    let args = Args { op, types: operands };
    match op {
        Op::Input { port } => leaf::infer_input(port, args),
        Op::Weight { shape, .. } => leaf::infer_weight(shape, args),
        Op::WeightStack { count, shape, .. } => leaf::infer_stack(*count, shape, args),
        Op::Fill { value, shape } => leaf::infer_fill(*value, shape, args),
        Op::FillMask { .. } => Ok(leaf::infer_mask(args)),
        Op::WeightRows { start, len } => constant::infer_rows(args, *start, *len),
        Op::FoldGain {} => constant::infer_gain(args),
        Op::FoldLinear {} => constant::infer_linear(args),
        Op::FoldBias {} => constant::infer_fold_bias(args),
        Op::OffsetGain { by } => constant::infer_offset(args, *by),
        Op::Embed {} => linear::infer_embed(args),
        Op::Matmul {} => linear::infer_matmul(args, Elem::Real),
        Op::RouterLogits {} => linear::infer_matmul(args, Elem::F32),
        Op::GroupedMatmul {} => choice::infer_grouped(args),
        Op::AddBias {} => linear::infer_bias(args),
        Op::RmsNorm { eps, groups } => norm::infer(args, *eps, (1, *groups)),
        Op::LayerNorm { eps, groups } => norm::infer(args, *eps, (2, *groups)),
        Op::InvRms { eps } => norm::infer_scale(args, *eps),
        Op::Rope { heads, theta, turned, scaling } => {
            let frequencies = Frequencies { theta: *theta, scaling: *scaling };
            attention::infer_rope(args, (*heads, *turned), frequencies)
        }
        Op::Attention { heads, kv_heads, scale, cap, window, ahead } => {
            let scoring = Scoring { scale: *scale, cap: *cap, window: *window, ahead: *ahead };
            attention::infer(args, (*heads, *kv_heads), scoring)
        }
        Op::CachedAttention { heads, kv_heads, scale, cap, window } => {
            let scoring = Scoring { scale: *scale, cap: *cap, window: *window, ahead: None };
            attention::infer_cached(args, (*heads, *kv_heads), scoring)
        }
        Op::Conv {} => conv::infer(args),
        Op::CachedConv {} => conv::infer_cached(args),
        Op::SequenceMean {} => sequence::infer_mean(args),
        Op::Unary(function) => pointwise::infer_unary(*function, args),
        Op::Binary(_) => pointwise::infer_binary(args),
        Op::ScaleRows {} => pointwise::infer_scale(args),
        Op::ScaleElements {} => pointwise::infer_scale_elements(args),
        Op::Widen {} => pointwise::infer_widen(args),
        Op::ForceFirst { .. } => token_set::infer_force(args),
        Op::ClassToken {} => linear::infer_class(args),
        Op::RepeatRow {} => linear::infer_repeat(args),
        Op::Slice { start, len } => pointwise::infer_slice(args, *start, *len),
        Op::Choose { k, scale, ranks, .. } => choice::infer_choose(args, 1, (*k, *ranks), *scale),
        Op::ChooseOrReplay { k, scale, ranks, .. } => choice::infer_replayed(args, (*k, *ranks), *scale),
        Op::HashChoice { experts, n_ids, .. } => choice::infer_hash(args, *experts, *n_ids),
        Op::LimitChoices { group_size, experts, .. } => choice::infer_limit(args, *group_size, *experts),
        Op::LimitChoicesAfter { group_size, experts, .. } => {
            choice::infer_limit_after(args, *group_size, *experts)
        }
        Op::ShareChoices { top_k, group_size } => choice::infer_share(args, *top_k, *group_size),
        Op::Partition { set, first, parts } => choice::infer_partition(args, *set, (*first, *parts)),
        Op::Route { set, at_least } => token_set::infer_route(args, *set, *at_least),
        Op::RouteRandom { set, limit, .. } => token_set::infer_random(args, *set, *limit),
        Op::RouteTopK { set, share, .. } => token_set::infer_top_k(args, (*set, *share), None),
        Op::RouteTopKAmong { set, share, .. } => token_set::infer_top_k(args, (*set, *share), Some(1)),
        Op::LimitFirst { set, group_size, .. } => token_set::infer_limit(args, (*set, *group_size), None),
        Op::LimitFirstAfter { set, group_size, .. } => {
            state::infer_before(args)?;
            token_set::infer_limit(args, (*set, *group_size), None)
        }
        Op::LimitBest { set, group_size, .. } => token_set::infer_limit(args, (*set, *group_size), Some(1)),
        Op::Complement { set } => token_set::infer_complement(args, *set),
        Op::WithFirst { set, .. } => token_set::infer_with_first(args, *set),
        Op::Within { set } => token_set::infer_within(args, *set),
        Op::Pending { set, router } => state::infer_pending(args, (*set, *router)),
        Op::StoreRows {} => state::infer_store(args),
        Op::AddRows {} => state::infer_sum(args),
        Op::Gather {} => token_set::infer_gather(args),
        Op::Scatter {} => token_set::infer_scatter(args),
        Op::Executed {} => token_set::infer_executed(args),
        Op::Training(op) => training::infer(*op, args),
    }
}

/// The value of `op` over these operands.
///
/// # Errors
/// If the environment has no value for a leaf, or an id or position is out of range.
#[expect(clippy::too_many_lines, reason = "an arm for each op, and nothing else")]
pub(crate) fn eval<N: Number>(
    op: &Op,
    operands: &[&Datum<N>],
    env: &Env<'_, N>,
) -> Result<Datum<N>, EvalError> {
    match op {
        Op::Input { port } => leaf::input(port, env),
        Op::Weight { name, shape } => leaf::weight(&name.0, shape, env),
        Op::WeightStack { name, count, shape } => leaf::stack(&name.0, (*count, shape), env),
        Op::Fill { value, shape } => Ok(leaf::fill(*value, shape)),
        Op::FillMask { value } => Ok(leaf::mask(*value, operands[0])),
        Op::WeightRows { start, len } => constant::rows(operands[0], *start, *len),
        Op::FoldGain {} => constant::fold_gain(operands[0], operands[1]),
        Op::FoldLinear {} => constant::fold_linear(operands[0], operands[1]),
        Op::FoldBias {} => constant::fold_bias(operands),
        Op::OffsetGain { by } => constant::offset_gain(operands[0], by.0),
        Op::Embed {} => linear::embed(operands[0], operands[1].ints()?),
        Op::Matmul {} | Op::RouterLogits {} => linear::matmul(operands[0], operands[1]),
        Op::GroupedMatmul {} => choice::grouped_matmul(operands),
        Op::AddBias {} => linear::add_bias(operands[0], operands[1]),
        Op::RmsNorm { eps, groups } => norm::rms(operands, *groups, eps.0),
        Op::LayerNorm { eps, groups } => norm::layer(operands, *groups, eps.0),
        Op::InvRms { eps } => norm::scales(operands[0], |row| functions::inv_rms(row, eps.0)),
        Op::Rope { heads, theta, turned, scaling } => {
            let frequencies = Frequencies { theta: *theta, scaling: *scaling };
            attention::rope(operands[0], operands[1].ints()?, (*heads, *turned), frequencies)
        }
        Op::Attention { heads, kv_heads, scale, cap, window, ahead } => {
            let scoring = Scoring { scale: *scale, cap: *cap, window: *window, ahead: *ahead };
            attention::attention(operands, (*heads, *kv_heads), scoring)
        }
        Op::CachedAttention { heads, kv_heads, scale, cap, window } => {
            let (heads, n_tokens) = ((*heads, *kv_heads), env.batch.len());
            let scoring = Scoring { scale: *scale, cap: *cap, window: *window, ahead: None };
            attention::cached_attention(operands, n_tokens, heads, scoring)
        }
        Op::Conv {} => conv::conv(operands),
        Op::CachedConv {} => conv::cached(operands, env.batch.len()),
        Op::SequenceMean {} => sequence::mean(operands[0], operands[1].ints()?),
        Op::Unary(function) => pointwise::unary(*function, operands[0]),
        Op::Binary(function) => pointwise::binary(*function, operands[0], operands[1]),
        Op::ScaleRows {} => pointwise::scale_rows(operands[0], operands[1]),
        Op::ScaleElements {} => pointwise::binary(Binary::Mul, operands[0], operands[1]),
        Op::Widen {} => Ok(operands[0].clone()),
        Op::ForceFirst { first } => token_set::force_first(operands[0], operands[1], *first),
        Op::ClassToken {} => linear::class_token(operands[0], operands[1], operands[2].ints()?),
        Op::RepeatRow {} => linear::repeat_row(operands[0], operands[1]),
        Op::Slice { start, len } => pointwise::slice(operands[0], *start as usize, *len as usize),
        Op::Choose { k, sigmoid, normalise, scale, ranks } => choice::choose(
            (operands[0], operands.get(1).copied()),
            (*k, *sigmoid, *normalise),
            (*scale, *ranks),
            None,
        ),
        Op::ChooseOrReplay { k, sigmoid, normalise, scale, ranks } => {
            let [logits, replayed, ref bias @ ..] = *operands else {
                return Err(EvalError::Kind("logits and choices to replay"));
            };
            let logits = (logits, bias.first().copied());
            choice::choose(logits, (*k, *sigmoid, *normalise), (*scale, *ranks), Some(replayed))
        }
        Op::HashChoice { experts, seed, block, .. } => choice::hash(operands[0], *experts, (*seed, *block)),
        Op::LimitChoices { group_size, slots, experts } => {
            choice::limit(operands, *group_size, (*slots, *experts))
        }
        Op::LimitChoicesAfter { group_size, slots, experts } => {
            choice::limit_after(operands, env.batch.len(), *group_size, (*slots, *experts))
        }
        Op::ShareChoices { top_k, group_size } => choice::share(operands, *top_k, *group_size),
        Op::Partition { set, first, parts } => choice::partition(operands[0], env, *set, (*first, *parts)),
        Op::Route { set, at_least } => {
            token_set::route(*set, operands[0], env, || token_set::at_least(operands[0], at_least.0))
        }
        Op::RouteRandom { set, seed, block, limit } => token_set::route(*set, operands[0], env, || {
            token_set::random((*seed, *block, *limit), operands[0], operands.get(1).copied())
        }),
        Op::RouteTopK { set, share, round } => token_set::best((*set, *share, *round), operands, env),
        Op::RouteTopKAmong { set, share, round } => token_set::best_in((*set, *share, *round), operands, env),
        Op::LimitFirst { set, group_size, slots } => token_set::route(*set, operands[0], env, || {
            token_set::limited((*group_size, *slots), operands[0], None, &operands[1..])
        }),
        Op::LimitFirstAfter { set, group_size, slots } => token_set::route(*set, operands[0], env, || {
            let taken = state::taken(&operands[1..], env.batch.len(), *group_size)?;
            token_set::limited_after(&taken, (*group_size, *slots), operands[0], &operands[1..3])
        }),
        Op::Complement { .. } => token_set::complement(operands[0]),
        Op::WithFirst { set, first } => token_set::route(*set, operands[0], env, || {
            token_set::with_first(operands[0], operands[1], *first)
        }),
        Op::Within { set } => token_set::route(*set, operands[0], env, || token_set::within(operands)),
        Op::Pending { router, .. } => state::pending(operands, env.batch.len(), *router as usize),
        Op::StoreRows {} => state::store_rows(operands[0], operands[1], operands[2]),
        Op::AddRows {} => state::add_rows(operands[0], operands[1]),
        Op::LimitBest { set, group_size, slots } => token_set::route(*set, operands[0], env, || {
            token_set::limited((*group_size, *slots), operands[0], Some(operands[1]), &operands[2..])
        }),
        Op::Gather {} => Ok(operands[0].select_rows(operands[1].listed()?)),
        Op::Scatter {} => token_set::scatter(operands[0], operands[1], operands[2]),
        Op::Executed {} => token_set::executed(operands[0]),
        Op::Training(op) => training::eval(*op, operands),
    }
}
