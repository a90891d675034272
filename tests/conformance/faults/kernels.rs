//! Faults in what a kernel does.

use skipc_artifact::program::Extent;
use skipc_plan::kernel::{Attention, Body, Gemm, Grouped, NormKind, Rows, Rowwise, Select, Slot, View};
use skipc_plan::pointwise::{Binary, Inst, Pointwise, Real, Reg, Unary};

use super::{Fault, Victim};

pub(super) const FAULTS: [Fault; 20] = [
    Fault { name: "the two weights of a pair are swapped", plant: weights_swapped, least: 23 },
    Fault { name: "the last inner column is dropped", plant: inner_tail_dropped, least: 214 },
    Fault { name: "the gate is not turned round", plant: gate_not_turned, least: 10 },
    Fault { name: "a bias is taken from its first column", plant: bias_of_first_column, least: 19 },
    Fault { name: "a row's number is taken from row 0", plant: row_number_of_first_row, least: 12 },
    Fault { name: "the residual is dropped", plant: residual_dropped, least: 10 },
    Fault { name: "the activation is another", plant: activation_swapped, least: 46 },
    Fault { name: "operands of a difference are swapped", plant: difference_turned, least: 6 },
    Fault { name: "later keys are seen", plant: not_causal, least: 64 },
    Fault { name: "a query does not see its own key", plant: strictly_causal, least: 70 },
    Fault { name: "keys of other sequences are seen", plant: sequences_mixed, least: 68 },
    Fault { name: "positions are the row's own number", plant: compacted_positions, least: 21 },
    Fault { name: "the number of keys is that of queries", plant: wrong_key_count, least: 14 },
    Fault { name: "all heads use the first keys", plant: first_key_heads, least: 28 },
    Fault { name: "epsilon is dropped", plant: eps_dropped, least: 17 },
    Fault { name: "the mean is not subtracted", plant: layer_norm_as_rms, least: 31 },
    Fault { name: "heads turn as one", plant: heads_turn_as_one, least: 23 },
    Fault { name: "an id past the table is clamped", plant: id_clamped, least: 10 },
    Fault { name: "ties are skipped", plant: ties_skipped, least: 4 },
    Fault { name: "a replay is ignored", plant: replay_ignored, least: 7 },
];

fn gemm(victim: &mut Victim) -> Option<&mut Gemm> {
    if let Body::Gemm(gemm) = &mut victim.kernel.body { Some(gemm) } else { None }
}

fn attention(victim: &mut Victim) -> Option<&mut Attention> {
    if let Body::Attention(attention) = &mut victim.kernel.body { Some(attention) } else { None }
}

fn rowwise(victim: &mut Victim) -> Option<&mut Rowwise> {
    if let Body::Rowwise(rowwise) = &mut victim.kernel.body { Some(rowwise) } else { None }
}

/// The program of a map, or of the first part of a matmul.
fn program(victim: &mut Victim) -> Option<&mut Pointwise> {
    match &mut victim.kernel.body {
        Body::Gemm(gemm) => gemm.parts.first_mut().map(|part| &mut part.epilogue),
        Body::Rowwise(Rowwise::Map { program, .. }) => Some(program),
        Body::Grouped(Grouped { gemm, .. }) => gemm.parts.first_mut().map(|part| &mut part.epilogue),
        Body::Along(_)
        | Body::Rowwise(_)
        | Body::Partition(_)
        | Body::Attention(_)
        | Body::CachedAttention(_)
        | Body::Compact(_)
        | Body::Pending(_)
        | Body::Update(_)
        | Body::Loops(_)
        | Body::WeightGradient(_) => None,
    }
}

fn weights_swapped(victim: &mut Victim) -> bool {
    let Some(part) = gemm(victim).and_then(|gemm| gemm.parts.first_mut()) else { return false };
    part.sums.reverse();
    part.sums.len() == 2
}

fn inner_tail_dropped(victim: &mut Victim) -> bool {
    let Some(gemm) = gemm(victim) else { return false };
    let weights: Vec<Slot> = gemm.parts.iter().flat_map(|part| &part.sums).map(|sum| sum.weight).collect();
    let k = gemm.k as usize;
    for weight in weights {
        let size = victim.kernel.param(weight).dtype.size() as usize;
        for row in victim.operands[weight.0 as usize].chunks_exact_mut(k * size) {
            row[(k - 1) * size..].fill(0);
        }
    }
    true
}

fn replace(victim: &mut Victim, by: fn(Inst) -> Option<Inst>) -> bool {
    let Some(program) = program(victim) else { return false };
    let mut any = false;
    for inst in &mut program.code {
        if let Some(other) = by(*inst) {
            *inst = other;
            any = true;
        }
    }
    any
}

fn gate_not_turned(victim: &mut Victim) -> bool {
    // There is no instruction that copies: `x · x` is as wrong as `x`.
    replace(victim, |inst| match inst {
        Inst::Unary(Unary::OneMinus, x) => Some(Inst::Binary(Binary::Mul, x, x)),
        _ => None,
    })
}

fn bias_of_first_column(victim: &mut Victim) -> bool {
    let Some(idx) = program(victim)
        .and_then(|program| program.code.iter().position(|inst| matches!(inst, Inst::LoadCol(_))))
    else {
        return false;
    };
    let Some(Inst::LoadCol(bias)) = program(victim).map(|program| program.code[idx]) else { return false };
    let size = victim.kernel.param(bias).dtype.size() as usize;
    let operand = &mut victim.operands[bias.0 as usize];
    let first = operand[..size].to_vec();
    operand.chunks_exact_mut(size).for_each(|element| element.copy_from_slice(&first));
    true
}

fn row_number_of_first_row(victim: &mut Victim) -> bool {
    let Some(slot) = program(victim).and_then(|program| {
        program.code.iter().find_map(|inst| match inst {
            Inst::LoadRow(view) => Some(view.slot),
            Inst::Acc(_)
            | Inst::AccRotated { .. }
            | Inst::Load(_)
            | Inst::LoadCol(_)
            | Inst::LoadAt { .. }
            | Inst::Unary(..)
            | Inst::Binary(..) => None,
        })
    }) else {
        return false;
    };
    let param = victim.kernel.param(slot);
    let row_bytes = param.cols as usize * param.dtype.size() as usize;
    let operand = &mut victim.operands[slot.0 as usize];
    let first = operand[..row_bytes].to_vec();
    operand.chunks_exact_mut(row_bytes).for_each(|row| row.copy_from_slice(&first));
    true
}

fn residual_dropped(victim: &mut Victim) -> bool {
    let Some(program) = program(victim) else { return false };
    let code = program.code.clone();
    let is_load = |reg: Reg| matches!(code[reg.0 as usize], Inst::Load(_));
    let mut any = false;
    for inst in &mut program.code {
        if let Inst::Binary(Binary::Add, a, b) = *inst
            && (is_load(a) || is_load(b))
        {
            let kept = if is_load(a) { b } else { a };
            *inst = Inst::Binary(Binary::Add, kept, kept);
            any = true;
        }
    }
    any
}

fn activation_swapped(victim: &mut Victim) -> bool {
    replace(victim, |inst| match inst {
        Inst::Unary(Unary::Gelu, x) => Some(Inst::Unary(Unary::Silu, x)),
        Inst::Unary(Unary::Silu | Unary::Relu, x) => Some(Inst::Unary(Unary::Gelu, x)),
        Inst::Unary(Unary::Relu2, x) => Some(Inst::Unary(Unary::Relu, x)),
        Inst::Unary(Unary::GeluErf, x) => Some(Inst::Unary(Unary::Relu, x)),
        Inst::Unary(Unary::Tanh, x) => Some(Inst::Unary(Unary::Sigmoid, x)),
        Inst::Unary(Unary::Sigmoid, x) => Some(Inst::Unary(Unary::Silu, x)),
        _ => None,
    })
}

fn difference_turned(victim: &mut Victim) -> bool {
    replace(victim, |inst| match inst {
        Inst::Binary(Binary::Sub, a, b) => Some(Inst::Binary(Binary::Sub, b, a)),
        _ => None,
    })
}

/// Another integer column with as many rows, where `of` says what each physical row holds.
fn column(victim: &mut Victim, like: View, of: impl Fn(usize, u32) -> u32) -> View {
    let old = victim.operands[like.slot.0 as usize].as_chunks::<4>().0.to_vec();
    let new = old.iter().enumerate().map(|(row, word)| of(row, u32::from_le_bytes(*word)));
    let bytes = new.flat_map(u32::to_le_bytes).collect();
    View { slot: victim.add(like.slot, bytes), ..like }
}

fn set_positions(victim: &mut Victim, of: fn(usize, u32) -> u32) -> bool {
    let Some(q_pos) = attention(victim).map(|attention| attention.q_pos) else { return false };
    let q_pos = column(victim, q_pos, of);
    attention(victim).is_some_and(|attention| {
        attention.q_pos = q_pos;
        true
    })
}

fn not_causal(victim: &mut Victim) -> bool {
    set_positions(victim, |_, _| u32::MAX)
}

fn strictly_causal(victim: &mut Victim) -> bool {
    set_positions(victim, |_, pos| pos.saturating_sub(1))
}

/// Masks that compare compacted indices instead of absolute positions.
fn compacted_positions(victim: &mut Victim) -> bool {
    let Some(q_pos) = attention(victim).map(|attention| attention.q_pos) else { return false };
    if q_pos.rows == Rows::Dense {
        return false;
    }
    let q_pos = View { rows: Rows::Dense, ..column(victim, q_pos, |row, _| row as u32) };
    attention(victim).is_some_and(|attention| {
        attention.q_pos = q_pos;
        true
    })
}

fn sequences_mixed(victim: &mut Victim) -> bool {
    let Some(views) = attention(victim).map(|attention| [attention.q_seq, attention.k_seq, attention.k_pos])
    else {
        return false;
    };
    let [q_seq, k_seq, k_pos] = views.map(|view| column(victim, view, |_, _| 0));
    attention(victim).is_some_and(|attention| {
        (attention.q_seq, attention.k_seq, attention.k_pos) = (q_seq, k_seq, k_pos);
        true
    })
}

fn wrong_key_count(victim: &mut Victim) -> bool {
    let extent = victim.kernel.extent;
    let n_rows = |victim: &Victim, extent: Extent| match extent {
        Extent::Fixed(rows) => rows,
        Extent::Counted { count, .. } => victim.word(count),
    };
    let Some(kv_extent) = attention(victim).map(|attention| attention.kv_extent) else { return false };
    if n_rows(victim, extent) >= n_rows(victim, kv_extent) {
        return false;
    }
    attention(victim).is_some_and(|attention| {
        attention.kv_extent = extent;
        true
    })
}

/// Copies the first key head over the others.
fn first_key_heads(victim: &mut Victim) -> bool {
    let Some((k, kv_heads, width)) =
        attention(victim).map(|attention| (attention.k, attention.kv_heads, attention.width))
    else {
        return false;
    };
    if kv_heads == 1 || k.col != 0 {
        return false;
    }
    let head_bytes = width as usize * victim.kernel.param(k.slot).dtype.size() as usize;
    for row in victim.operands[k.slot.0 as usize].chunks_exact_mut(head_bytes * kv_heads as usize) {
        let first = row[..head_bytes].to_vec();
        row.chunks_exact_mut(head_bytes).for_each(|head| head.copy_from_slice(&first));
    }
    true
}

fn eps_dropped(victim: &mut Victim) -> bool {
    match rowwise(victim) {
        Some(Rowwise::Norm { eps, .. } | Rowwise::RowScale { eps, .. }) => {
            *eps = Real::from(0.0);
            true
        }
        _ => false,
    }
}

fn layer_norm_as_rms(victim: &mut Victim) -> bool {
    match rowwise(victim) {
        Some(Rowwise::Norm { kind, .. }) if *kind != NormKind::Rms => {
            *kind = NormKind::Rms;
            true
        }
        _ => false,
    }
}

/// One head of all columns, with tables that repeat those of a head.
fn heads_turn_as_one(victim: &mut Victim) -> bool {
    let Some(Rowwise::Rope { heads, width, cos, sin, .. }) = rowwise(victim) else { return false };
    if *heads == 1 {
        return false;
    }
    let (n, half, tables) = (*heads, *width / 2, [*cos, *sin]);
    (*width, *heads) = (*width * n, 1);
    for table in tables {
        let rows = victim.operands[table.0 as usize].chunks_exact(half as usize * 4);
        let repeated = rows.flat_map(|row| row.repeat(n as usize)).collect();
        victim.operands[table.0 as usize] = repeated;
        victim.kernel.params[table.0 as usize].cols = half * n;
    }
    true
}

fn id_clamped(victim: &mut Victim) -> bool {
    let Some(Rowwise::Embed { ids, n_ids, .. }) = rowwise(victim) else { return false };
    let (slot, last): (Slot, u32) = (ids.slot, *n_ids - 1);
    for word in victim.operands[slot.0 as usize].as_chunks_mut::<4>().0 {
        *word = u32::from_le_bytes(*word).min(last).to_le_bytes();
    }
    true
}

fn ties_skipped(victim: &mut Victim) -> bool {
    let Body::Compact(compact) = &mut victim.kernel.body else { return false };
    match &mut compact.select {
        Select::AtLeast { threshold, .. } => {
            *threshold = Real::from(f64::from((threshold.0 as f32).next_up()));
            true
        }
        Select::Random { .. }
        | Select::NotIn(_)
        | Select::InBoth(_)
        | Select::WithFirst { .. }
        | Select::Ranked(_) => false,
    }
}

fn replay_ignored(victim: &mut Victim) -> bool {
    let Body::Compact(compact) = &victim.kernel.body else { return false };
    let slot = compact.use_forced;
    let forced = victim.word(slot.0) != 0;
    victim.operands[slot.0 as usize].fill(0);
    forced
}
