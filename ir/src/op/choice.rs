//! Experts: which of them each row takes, the rows in segments, and matmuls with the weight of each segment.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::args::{Args, TypeError};
use super::state;
use super::token_set::{hash_expert, scored_rows};
use crate::attr::F64;
use crate::interp::functions::{self, Choice, NO_CHOICE, NOT_REPLAYED};
use crate::interp::{Datum, Env, EvalError, Number};
use crate::ranking::Ranking;
use crate::ty::{Dim, Elem, SetSym, Type};

/// Indices of experts stay below: f32 counts by ones up to here.
const MAX_INDEX: u32 = 1 << 24;

/// Choices to replay stand behind the logits, in rows of their own.
pub(super) fn infer_replayed(
    args: Args<'_>,
    (k, ranks): (u32, Option<Ranking>),
    scale: F64,
) -> Result<Type, TypeError> {
    let (_, rows, _) = args.token_matrix(0)?;
    let (own_rows, own) = numbers(args, 1)?;
    args.same_rows(1, rows, own_rows)?;
    if own != k {
        return Err(args.wrong(1, format!("f32[{rows}, {k}], a place for each choice")));
    }
    infer_choose(args, 2, (k, ranks), scale)
}

/// The bias is operand `bias`, if there is one.
pub(super) fn infer_choose(
    args: Args<'_>,
    bias: usize,
    (k, ranks): (u32, Option<Ranking>),
    scale: F64,
) -> Result<Type, TypeError> {
    let (elem, rows, n) = args.token_matrix(0)?;
    if elem != Elem::F32 {
        return Err(args.wrong(0, "f32 logits: f32[rows, experts]"));
    }
    if !(1..=n).contains(&k) {
        return Err(args.bad_attr("k", format!("should be from 1 to {n}, the number of choices")));
    }
    if !scale.0.is_finite() {
        return Err(args.bad_attr("scale", "should be finite"));
    }
    if args.len() > bias {
        args.vector(bias, n)?;
    }
    let blocks = 2 + u32::from(ranks.is_some());
    Ok(Type::tensor(Elem::F32, &[rows, Dim::Fixed(blocks * k)]))
}

pub(super) fn infer_hash(args: Args<'_>, experts: u32, n_ids: u32) -> Result<Type, TypeError> {
    if !(1..MAX_INDEX).contains(&experts) {
        return Err(args.bad_attr("experts", format!("should be from 1 to {MAX_INDEX}")));
    }
    if n_ids == 0 {
        return Err(args.bad_attr("n_ids", "should be at least 1"));
    }
    let rows = args.ty(0).rows();
    args.ints(0, rows)?;
    Ok(Type::tensor(Elem::F32, &[rows, Dim::Fixed(2)]))
}

/// Operand `idx`, numbers in f32, and its rows.
fn numbers(args: Args<'_>, idx: usize) -> Result<(Dim, u32), TypeError> {
    match args.token_matrix(idx)? {
        (Elem::F32, rows, cols) => Ok((rows, cols)),
        _ => Err(args.wrong(idx, "f32 numbers: f32[rows, choices]")),
    }
}

/// Operand `idx`, as many numbers as the choices that are operand 0.
fn of_choices(args: Args<'_>, idx: usize) -> Result<(), TypeError> {
    let ((rows, k), (own_rows, own)) = (numbers(args, 0)?, numbers(args, idx)?);
    args.same_rows(idx, rows, own_rows)?;
    if own == k { Ok(()) } else { Err(args.wrong(idx, format!("f32[{rows}, {k}], one for each choice"))) }
}

pub(super) fn infer_limit(args: Args<'_>, group_size: u32, experts: u32) -> Result<Type, TypeError> {
    infer_places(args, group_size, experts)?;
    if args.len() > 3 {
        of_choices(args, 3)?;
    }
    Ok(args.ty(0).clone())
}

pub(super) fn infer_limit_after(args: Args<'_>, group_size: u32, experts: u32) -> Result<Type, TypeError> {
    infer_places(args, group_size, experts)?;
    let (_, k) = numbers(args, 0)?;
    if args.ty(3).as_state() != Some((Elem::F32, &[Dim::Cached, Dim::Fixed(k)])) {
        return Err(args.wrong(3, format!("a cache of choices, state<f32[m, {k}]>")));
    }
    state::infer_pages(args, 4)?;
    if args.len() > 5 && args.ty(5).as_state() != Some((Elem::Mask, &[Dim::Cached])) {
        return Err(args.wrong(5, "a cache of decisions, state<mask[m]>"));
    }
    Ok(args.ty(0).clone())
}

/// Choices, operand 0, with the place of each row.
fn infer_places(args: Args<'_>, group_size: u32, experts: u32) -> Result<(), TypeError> {
    if group_size == 0 {
        return Err(args.bad_attr("group_size", "should be at least 1"));
    }
    if experts == 0 {
        return Err(args.bad_attr("experts", "should be at least 1"));
    }
    let (rows, _) = numbers(args, 0)?;
    args.ints(1, rows)?;
    args.ints(2, rows)
}

pub(super) fn infer_share(args: Args<'_>, top_k: u32, group_size: Option<u32>) -> Result<Type, TypeError> {
    if group_size == Some(0) {
        return Err(args.bad_attr("group_size", "should be at least 1"));
    }
    if top_k == 0 {
        return Err(args.bad_attr("top_k", "should be at least 1"));
    }
    let (rows, _) = numbers(args, 0)?;
    of_choices(args, 1)?;
    args.ints(2, rows)?;
    args.ints(3, rows)?;
    let all = args.ty(4).rows();
    args.ints(4, all)?;
    args.ints(5, all)?;
    Ok(args.ty(0).clone())
}

pub(super) fn infer_partition(
    args: Args<'_>,
    set: SetSym,
    (first, parts): (u32, u32),
) -> Result<Type, TypeError> {
    if parts == 0 || first.saturating_add(parts) > MAX_INDEX {
        return Err(args.bad_attr("parts", format!("should be at least 1, and end at {MAX_INDEX} at most")));
    }
    Ok(Type::Partition { sym: set, of: scored_rows(args, 0)?, parts })
}

pub(super) fn infer_grouped(args: Args<'_>) -> Result<Type, TypeError> {
    let (_, rows, k) = args.token_matrix(0)?;
    let (all_out, inner) = args.weight(1)?;
    let Type::Partition { sym, parts, .. } = *args.ty(2) else {
        return Err(args.wrong(2, "a partition"));
    };
    args.same_rows(0, Dim::Count(sym), rows)?;
    if inner != k || !all_out.is_multiple_of(parts) {
        return Err(args.wrong(1, format!("a weight real[{parts} · out, {k}]")));
    }
    let out = all_out / parts;
    if args.len() > 3 && args.weight(3)? != (parts, out) {
        return Err(args.wrong(3, format!("biases real[{parts}, {out}]")));
    }
    Ok(Type::tensor(Elem::Real, &[rows, Dim::Fixed(out)]))
}

pub(super) fn choose<N: Number>(
    (logits, bias): (&Datum<N>, Option<&Datum<N>>),
    (k, sigmoid, normalise): (u32, bool, bool),
    (scale, ranks): (F64, Option<Ranking>),
    replayed: Option<&Datum<N>>,
) -> Result<Datum<N>, EvalError> {
    let rule = Choice { k: k as usize, sigmoid, normalise, scale: scale.0, ranks };
    let (n, logits) = logits.real()?;
    let bias = bias.map(Datum::real).transpose()?.map(|(_, bias)| bias);
    let replayed = replayed.map(Datum::real).transpose()?.map(|(_, replayed)| replayed);
    let mut data = Vec::new();
    for (row, logits) in logits.chunks_exact(n).enumerate() {
        let own = replayed.and_then(|replayed| replayed.get(row * rule.k..)?.get(..rule.k));
        let own = own.filter(|own| own.first().is_some_and(|first| first.to_f64() != NOT_REPLAYED));
        data.extend(functions::choose(logits, bias, rule, own));
    }
    let cols = rule.k * (2 + usize::from(ranks.is_some()));
    Ok(Datum::Real { cols, data })
}

pub(super) fn hash<N: Number>(
    ids: &Datum<N>,
    experts: u32,
    (seed, block): (u64, u32),
) -> Result<Datum<N>, EvalError> {
    let expert = |id: &i64| hash_expert(seed, block, id.cast_unsigned(), experts);
    let data = ids.ints()?.iter().flat_map(|id| [N::ONE, N::from_f64(expert(id) as f64)]).collect();
    Ok(Datum::Real { cols: 2, data })
}

/// Where a row stands: its sequence, and its group of so many positions.
fn groups<N: Number>(
    positions: &Datum<N>,
    sequences: &Datum<N>,
    size: Option<u32>,
) -> Result<Vec<(i64, i64)>, EvalError> {
    let group = |position: i64| size.map_or(0, |size| position.div_euclid(i64::from(size)));
    let rows = sequences.ints()?.iter().zip(positions.ints()?);
    Ok(rows.map(|(sequence, position)| (*sequence, group(*position))).collect())
}

pub(super) fn limit<N: Number>(
    operands: &[&Datum<N>],
    group_size: u32,
    (slots, experts): (u32, u32),
) -> Result<Datum<N>, EvalError> {
    let groups = groups(operands[1], operands[2], Some(group_size))?;
    keep(operands[0], operands.get(3).copied(), &groups, experts as usize, |_| slots as usize)
}

/// As [`limit`], with the earlier choices of a group looked up where they lie in a cache.
pub(super) fn limit_after<N: Number>(
    operands: &[&Datum<N>],
    n_tokens: usize,
    group_size: u32,
    (slots, experts): (u32, u32),
) -> Result<Datum<N>, EvalError> {
    let ((cols, index), (_, before)) = (operands[0].real()?, operands[3].real()?);
    let (positions, sequences) = (operands[1].ints()?, operands[2].ints()?);
    let present = operands.get(5).map(|present| present.mask()).transpose()?;
    let pages = state::Pages::new(operands[4], n_tokens, operands[3].n_rows())?;
    let mut data = index.to_vec();
    for (row, choices) in data.chunks_exact_mut(cols).enumerate() {
        let own = positions[row];
        let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
        for position in own - own.rem_euclid(i64::from(group_size))..own {
            let place = pages.key(row, sequences[row], position)?;
            let earlier = before[place * cols..][..cols].iter();
            let is_there = present.is_none_or(|present| present[place]);
            for expert in earlier.filter_map(|choice| functions::segment(*choice, (0, experts))) {
                *taken.entry(expert).or_default() += usize::from(is_there);
            }
        }
        for choice in choices {
            let expert = functions::segment(*choice, (0, experts));
            let before = |expert: usize| taken.get(&expert).copied().unwrap_or(0);
            if expert.is_some_and(|expert| before(expert) >= slots as usize) {
                *choice = N::from_f64(NO_CHOICE);
            }
        }
    }
    Ok(Datum::Real { cols, data })
}

pub(super) fn share<N: Number>(
    operands: &[&Datum<N>],
    top_k: u32,
    group_size: Option<u32>,
) -> Result<Datum<N>, EvalError> {
    let (experts, _) = operands[0].real()?;
    let mut sizes: BTreeMap<(i64, i64), usize> = BTreeMap::new();
    for group in groups(operands[4], operands[5], group_size)? {
        *sizes.entry(group).or_default() += 1;
    }
    let slots = |group: (i64, i64)| {
        let tokens = sizes.get(&group).copied().unwrap_or(0);
        functions::share_of(tokens, top_k as usize, experts)
    };
    let groups = groups(operands[2], operands[3], group_size)?;
    keep(operands[0], Some(operands[1]), &groups, experts, slots)
}

/// The choices with those left out for which their expert has no place among those of its group.
fn keep<N: Number>(
    index: &Datum<N>,
    ranks: Option<&Datum<N>>,
    groups: &[(i64, i64)],
    experts: usize,
    slots: impl Fn((i64, i64)) -> usize,
) -> Result<Datum<N>, EvalError> {
    let (cols, index) = index.real()?;
    let ranks = ranks.map(Datum::real).transpose()?.map(|(_, ranks)| ranks);
    let rank = |place: usize| ranks.map_or(0.0, |ranks| ranks[place].to_f64());
    let mut wanted: BTreeMap<((i64, i64), usize), Vec<usize>> = BTreeMap::new();
    for (place, choice) in index.iter().enumerate() {
        if let Some(expert) = functions::segment(*choice, (0, experts as u32)) {
            wanted.entry((groups[place / cols], expert)).or_default().push(place);
        }
    }
    let mut data = index.to_vec();
    for ((group, _), mut places) in wanted {
        places.sort_by(|a, b| rank(*b).partial_cmp(&rank(*a)).unwrap_or(Ordering::Equal));
        let dropped = places.into_iter().skip(slots(group));
        dropped.for_each(|place| data[place] = N::from_f64(NO_CHOICE));
    }
    Ok(Datum::Real { cols, data })
}

pub(super) fn partition<N: Number>(
    index: &Datum<N>,
    env: &Env<'_, N>,
    set: SetSym,
    which: (u32, u32),
) -> Result<Datum<N>, EvalError> {
    if let Some(forced) = env.routing.forced(set, index.n_rows()) {
        return Ok(Datum::partition_of(&forced, which.1 as usize));
    }
    let (_, index) = index.real()?;
    let mut segments = vec![Vec::new(); which.1 as usize];
    for (row, index) in index.iter().enumerate() {
        if let Some(segment) = functions::segment(*index, which) {
            segments[segment].push(row);
        }
    }
    let ends = segments.iter().scan(0, |end, segment| {
        *end += segment.len();
        Some(*end)
    });
    Ok(Datum::Partition { ends: ends.collect(), rows: segments.concat(), of: index.len() })
}

pub(super) fn grouped_matmul<N: Number>(operands: &[&Datum<N>]) -> Result<Datum<N>, EvalError> {
    let (k, x) = operands[0].real()?;
    let (_, weight) = operands[1].real()?;
    let (_, ends) = operands[2].partition()?;
    let n_out = weight.len() / k / ends.len();
    let mut data = Vec::with_capacity(x.len() / k * n_out);
    let begins = std::iter::once(0).chain(ends.iter().copied());
    for (segment, (begin, end)) in begins.zip(ends).enumerate() {
        let rows = Datum::Real { cols: k, data: x[begin * k..end * k].to_vec() };
        let weight = Datum::Real { cols: k, data: weight[segment * n_out * k..][..n_out * k].to_vec() };
        let mut sums = super::linear::matmul(&rows, &weight)?;
        if let Some(bias) = operands.get(3) {
            let bias = bias.real()?.1[segment * n_out..][..n_out].to_vec();
            sums = super::linear::add_bias(&sums, &Datum::Real { cols: 1, data: bias })?;
        }
        data.extend_from_slice(sums.real()?.1);
    }
    Ok(Datum::Real { cols: n_out, data })
}
