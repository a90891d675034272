//! Ops of training, by what they belong to: backward passes of layers, losses and decisions, updates of states.

mod attention;
mod layers;
mod loss;
mod update;

use attention::Of;

use super::args::{Args, TypeError};
use crate::interp::{Datum, EvalError, Number};
use crate::rope::Frequencies;
use crate::scoring::Scoring;
use crate::training::Training;
use crate::ty::{Dim, Elem, Type};

/// The type of one number.
fn scalar() -> Type {
    Type::tensor(Elem::F32, &[Dim::Fixed(1), Dim::Fixed(1)])
}

/// One number.
fn number<N: Number>(value: N) -> Datum<N> {
    Datum::Real { cols: 1, data: vec![value] }
}

/// The one number of an operand that is one.
fn the_number<N: Number>(datum: &Datum<N>) -> Result<N, EvalError> {
    datum.real()?.1.first().copied().ok_or(EvalError::Kind("one number"))
}

pub(super) fn infer(op: Training, args: Args<'_>) -> Result<Type, TypeError> {
    match op {
        Training::Constant { value } => loss::infer_constant(args, value),
        Training::Parameter { rank } => update::infer_parameter(args, rank),
        Training::Times {} => loss::infer_times(args),
        Training::Combine { .. } => loss::infer_combine(args),
        Training::StraightThrough {} => loss::infer_straight_through(args),
        Training::SetSize {} => loss::infer_set_size(args),
        Training::RateLoss { .. } => loss::infer_rate(args, false),
        Training::RateLossGradient { .. } => loss::infer_rate(args, true),
        Training::CrossEntropy {} => loss::infer_cross_entropy(args, false),
        Training::CrossEntropyGradient {} => loss::infer_cross_entropy(args, true),
        Training::Divergence { temperature } => loss::infer_divergence(args, temperature, false),
        Training::DivergenceGradient { temperature } => loss::infer_divergence(args, temperature, true),
        Training::WeightGradient {} => layers::infer_weight_gradient(args),
        Training::InputGradient {} => layers::infer_input_gradient(args),
        Training::ColumnSums { groups } => layers::infer_sums(args, 0, groups),
        Training::EmbedGradient { rows } => layers::infer_embed_gradient(args, rows),
        Training::Derivative { .. } => layers::infer_pair(args),
        Training::RowDot {} => layers::infer_row_dot(args),
        Training::RmsNormGradient { eps, groups } | Training::LayerNormGradient { eps, groups } => {
            layers::infer_norm_gradient(args, eps, groups)
        }
        Training::RmsGainGradient { groups, .. } | Training::LayerGainGradient { groups, .. } => {
            layers::infer_pair(args)?;
            layers::infer_sums(args, 1, groups)
        }
        Training::RopeGradient { heads, theta, turned, scaling } => {
            super::attention::infer_rope(args, (heads, turned), Frequencies { theta, scaling })
        }
        Training::AttentionSums { heads, kv_heads, scale, cap, window, ahead } => {
            attention::infer(args, (heads, kv_heads), Scoring { scale, cap, window, ahead }, Of::Sums)
        }
        Training::QueryGradient { heads, kv_heads, scale, cap, window, ahead } => {
            attention::infer(args, (heads, kv_heads), Scoring { scale, cap, window, ahead }, Of::Query)
        }
        Training::KeyValueGradient { heads, kv_heads, scale, cap, window, ahead } => attention::infer(
            args,
            (heads, kv_heads),
            Scoring { scale, cap, window, ahead },
            Of::KeysAndValues,
        ),
        Training::PlaceColumns { start, cols } => layers::infer_place(args, start, cols),
        Training::ZerosLike {} => args.token_matrix(0).map(|_| args.ty(0).clone()),
        Training::Accumulate {} => update::infer_accumulate(args),
        Training::Clear {} => update::state(args, 0).map(|_| args.ty(0).clone()),
        Training::SumSquares {} => update::state(args, 0).map(|_| scalar()),
        Training::ReadScaled {} => update::infer_read(args),
        Training::Squares { plus } => update::infer_squares(args, plus),
        Training::RowMeans {} => update::infer_means(args, true),
        Training::ColumnMeans {} => update::infer_means(args, false),
        Training::MovingAverage {} => update::infer_average(args),
        Training::AdamW { eps } => update::infer_adamw(args, eps),
        Training::Adafactor { clip, least } => update::infer_adafactor(args, clip, least),
    }
}

pub(super) fn eval<N: Number>(op: Training, operands: &[&Datum<N>]) -> Result<Datum<N>, EvalError> {
    match op {
        Training::Constant { value } => Ok(number(N::from_f64(value.0))),
        Training::Parameter { .. } => Ok(operands[0].clone()),
        Training::Times {} | Training::ReadScaled {} => loss::times(operands[0], operands[1]),
        Training::Combine { by_a, by_b } => loss::combine(operands, by_a.0, by_b.0),
        Training::StraightThrough {} => Ok(operands[0].clone()),
        Training::SetSize {} => Ok(number(N::from_f64(operands[0].set()?.0.len() as f64))),
        Training::RateLoss { target } => loss::rate_loss(operands, target.0),
        Training::RateLossGradient { target } => loss::rate_loss_gradient(operands, target.0),
        Training::CrossEntropy {} => loss::cross_entropy(operands),
        Training::CrossEntropyGradient {} => loss::cross_entropy_gradient(operands),
        Training::Divergence { temperature } => loss::divergence(operands, temperature.0),
        Training::DivergenceGradient { temperature } => loss::divergence_gradient(operands, temperature.0),
        Training::WeightGradient {} => layers::weight_gradient(operands[0], operands[1]),
        Training::InputGradient {} => layers::input_gradient(operands[0], operands[1]),
        Training::ColumnSums { groups } => layers::column_sums(operands[0], groups),
        Training::EmbedGradient { rows } => {
            layers::embed_gradient(operands[0], operands[1].ints()?, rows as usize)
        }
        Training::Derivative { of } => layers::derivative(of, operands[0], operands[1]),
        Training::RowDot {} => layers::row_dot(operands[0], operands[1]),
        Training::RmsNormGradient { eps, groups } => layers::rms_norm_gradient(operands, eps.0, groups),
        Training::RmsGainGradient { eps, groups } => layers::rms_gain_gradient(operands, eps.0, groups),
        Training::LayerNormGradient { eps, groups } => layers::layer_norm_gradient(operands, eps.0, groups),
        Training::LayerGainGradient { eps, groups } => layers::layer_gain_gradient(operands, eps.0, groups),
        Training::RopeGradient { heads, theta, turned, scaling } => {
            let frequencies = Frequencies { theta, scaling };
            layers::rope_gradient(operands[0], operands[1].ints()?, (heads, turned), frequencies)
        }
        Training::AttentionSums { heads, kv_heads, scale, cap, window, ahead } => {
            attention::sums(operands, (heads, kv_heads), Scoring { scale, cap, window, ahead })
        }
        Training::QueryGradient { heads, kv_heads, scale, cap, window, ahead } => {
            attention::query_gradient(operands, (heads, kv_heads), Scoring { scale, cap, window, ahead })
        }
        Training::KeyValueGradient { heads, kv_heads, scale, cap, window, ahead } => {
            attention::key_value_gradient(operands, (heads, kv_heads), Scoring { scale, cap, window, ahead })
        }
        Training::PlaceColumns { start, cols } => layers::place(operands[0], start as usize, cols as usize),
        Training::ZerosLike {} | Training::Clear {} => layers::zeros_like(operands[0]),
        Training::Accumulate {} => update::accumulate(operands[0], operands[1]),
        Training::SumSquares {} => update::sum_squares(operands[0]),
        Training::Squares { plus } => update::squares(operands[0], plus.0),
        Training::RowMeans {} => update::row_means(operands[0]),
        Training::ColumnMeans {} => update::column_means(operands[0]),
        Training::MovingAverage {} => update::moving_average(operands),
        Training::AdamW { eps } => update::adamw(operands, eps.0),
        Training::Adafactor { clip, least } => {
            update::adafactor(operands, clip.0, least.map(|least| least.0))
        }
    }
}
