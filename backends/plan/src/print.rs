//! Plans, human-readable: kernels with parameters and bodies, steps by name, buffers with sizes and lifetimes. Read plans
//! back from their JSON form, not from this.

use std::fmt::{self, Display, Formatter};

use skipc_artifact::interface::{Binding, Bound};
use skipc_artifact::program::{Arg, Buffer, Extent, RowBound, Step, Storage};

use crate::kernel::{
    Access, Along, Attention, Body, CachedAttention, Candidates, Choice, Compact, Conv, Gemm, Grouped,
    Inputs, Keep, KeepChoices, Kernel, Limit, NormKind, Part, Partition, Pending, RankOrder, Ranked, Replay,
    Rows, Rowwise, Segment, Select, Shift, Slot, Sum, Update, View, WeightLayout,
};
use skipc_ir::{Ranking, Scoring};

use crate::plan::Plan;
use crate::pointwise::{Inst, Pointwise, Reg};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let function = &self.function;
        writeln!(
            f,
            "plan {}: {} kernels, {} steps, {} buffers, {} constants",
            self.dtype,
            self.kernels.len(),
            function.steps.len(),
            function.buffers.len(),
            self.constants.len()
        )?;
        writeln!(
            f,
            "arena {} bytes + {} bytes a row ({} in use at once), constants {} bytes, at most {} tokens",
            function.fixed_bytes,
            function.row_bytes,
            self.peak_row_bytes(),
            self.constant_bytes(),
            function.max_tokens
        )?;
        for (symbol, kernel) in &self.kernels {
            write!(f, "\nkernel {symbol} {kernel}")?;
        }
        writeln!(f, "\nsteps")?;
        for (idx, step) in function.steps.iter().enumerate() {
            self.print_step(f, idx, step)?;
        }
        writeln!(f, "\nbuffers")?;
        for (idx, buffer) in function.buffers.iter().enumerate() {
            print_buffer(f, idx, buffer)?;
        }
        writeln!(f, "\nconstants")?;
        for (idx, constant) in self.constants.iter().enumerate() {
            let constant = &constant.constant;
            let (name, dtype) = (&constant.name, constant.dtype);
            writeln!(
                f,
                "  c{idx} {name}: {dtype}[{}, {}] at {}",
                constant.rows, constant.cols, constant.offset
            )?;
        }
        writeln!(f, "\nports")?;
        for Bound { role, to, count } in &function.interface.ports {
            match (to, count) {
                (Binding::Buffer(idx), Some(count)) => {
                    writeln!(f, "  {role}: b{idx}, rows counted by b{count}")?
                }
                (Binding::Buffer(idx), None) => writeln!(f, "  {role}: b{idx}")?,
                (Binding::Always(value), _) => writeln!(f, "  {role}: always {value}")?,
            }
        }
        Ok(())
    }
}

impl Plan {
    fn print_step(&self, f: &mut Formatter<'_>, idx: usize, step: &Step) -> fmt::Result {
        let unknown = (String::new(), None);
        let (symbol, kernel) = self
            .kernels
            .get(step.kernel as usize)
            .map_or(unknown, |(symbol, kernel)| (symbol.clone(), Some(kernel)));
        write!(f, "  {idx:3} {symbol}(")?;
        for (arg_idx, arg) in step.args.iter().enumerate() {
            let param = kernel.and_then(|kernel| kernel.params.get(arg_idx));
            let lead = if arg_idx == 0 { "" } else { ", " };
            write!(f, "{lead}{}: ", param.map_or("?", |param| &param.name))?;
            match arg {
                Arg::Buffer(idx) => write!(f, "b{idx}")?,
                Arg::Constant(idx) => {
                    let constant = self.constants.get(*idx as usize);
                    write!(f, "c{idx} {}", constant.map_or("?", |constant| &constant.constant.name))?;
                }
            }
        }
        writeln!(f, ")  @{}", step.origin)?;
        for node in self.sources.get(idx).into_iter().flat_map(|source| &source.nodes) {
            writeln!(f, "        {node}")?;
        }
        Ok(())
    }
}

fn print_buffer(f: &mut Formatter<'_>, idx: usize, buffer: &Buffer) -> fmt::Result {
    let Buffer { name, dtype, cols, .. } = buffer;
    let rows = match buffer.rows {
        RowBound::Tokens => "n".to_owned(),
        RowBound::Fixed(rows) => rows.to_string(),
        RowBound::Cached => "m".to_owned(),
    };
    write!(f, "  b{idx} {name}: {dtype}[{rows}, {cols}] ")?;
    match buffer.storage {
        Storage::Step(place) => write!(f, "at {} + {}n", place.fixed_offset, place.row_offset)?,
        Storage::State(state) => write!(f, "state {state}")?,
    }
    match buffer.live {
        Some((first, last)) => writeln!(f, ", steps {first}..={last}"),
        None => writeln!(f, ", shared with the host"),
    }
}

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "over {} rows", InKernel(self, &self.extent))?;
        for (idx, param) in self.params.iter().enumerate() {
            let access = match param.access {
                Access::Read => "read",
                Access::Write => "write",
                Access::ReadWrite => "read, write",
            };
            writeln!(f, "  p{idx} {}: {}[_, {}] {access}", param.name, param.dtype, param.cols)?;
        }
        write!(f, "{}", InKernel(self, &self.body))
    }
}

/// A part of a kernel, printed with the names of the kernel's parameters.
pub(crate) struct InKernel<'a, T>(pub(crate) &'a Kernel, pub(crate) &'a T);

impl Display for InKernel<'_, Slot> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let param = self.0.params.get(self.1.0 as usize);
        write!(f, "{}", param.map_or("?", |param| &param.name))
    }
}

impl Display for InKernel<'_, View> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let InKernel(kernel, View { slot, rows, col }) = self;
        write!(f, "{}", InKernel(kernel, slot))?;
        if let Rows::Listed(list) = rows {
            write!(f, "[{}]", InKernel(kernel, list))?;
        }
        if *col == 0 { Ok(()) } else { write!(f, ".{col}") }
    }
}

impl Display for InKernel<'_, Extent> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.1 {
            Extent::Fixed(rows) => write!(f, "{rows}"),
            Extent::Counted { count, at_most } => {
                write!(f, "*{} <= {at_most}", InKernel(self.0, &Slot(*count)))
            }
        }
    }
}

impl Display for InKernel<'_, Body> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kernel = self.0;
        match self.1 {
            Body::Gemm(gemm) => write!(f, "{}", InKernel(kernel, gemm)),
            Body::Grouped(grouped) => write!(f, "{}", InKernel(kernel, grouped)),
            Body::Partition(partition) => write!(f, "{}", InKernel(kernel, partition)),
            Body::Attention(attention) => write!(f, "{}", InKernel(kernel, attention)),
            Body::CachedAttention(attention) => write!(f, "{}", InKernel(kernel, attention)),
            Body::Along(along) => write!(f, "{}", InKernel(kernel, along)),
            Body::Rowwise(rowwise) => write!(f, "{}", InKernel(kernel, rowwise)),
            Body::Compact(compact) => write!(f, "{}", InKernel(kernel, compact)),
            Body::Pending(pending) => write!(f, "{}", InKernel(kernel, pending)),
            Body::Update(update) => write!(f, "{}", InKernel(kernel, update)),
            Body::Loops(loops) => write!(f, "{}", InKernel(kernel, loops)),
            Body::WeightGradient(gradient) => write!(f, "{}", InKernel(kernel, gradient)),
        }
    }
}

impl Display for InKernel<'_, Gemm> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let InKernel(kernel, Gemm { a, k, parts }) = self;
        for Part { n, layout, sums, epilogue } in parts {
            for (idx, Sum { weight, row, scales }) in sums.iter().enumerate() {
                let (a, weight) = (InKernel(kernel, a), InKernel(kernel, weight));
                match layout {
                    WeightLayout::Rows => write!(f, "  acc{idx} = {a} [_, {k}] x {weight} [{n}, {k}]")?,
                    WeightLayout::Columns => write!(f, "  acc{idx} = {a} [_, {k}] . {weight} [{k}, {n}]")?,
                    WeightLayout::Panels | WeightLayout::Levels => {
                        write!(f, "  acc{idx} = {a} [_, {k}] . {weight} [{k}, {n}] in panels")?;
                    }
                    WeightLayout::Swizzled => {
                        write!(f, "  acc{idx} = {a} [_, {k}] x {weight} [{n}, {k}] swizzled")?;
                    }
                }
                if let Some(scales) = scales {
                    write!(f, " times {}", InKernel(kernel, scales))?;
                }
                writeln!(f, "{}", if *row == 0 { String::new() } else { format!(" from {row}") })?;
            }
            write!(f, "{}", InKernel(kernel, epilogue))?;
        }
        Ok(())
    }
}

impl Display for InKernel<'_, Grouped> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let InKernel(kernel, Grouped { gemm, segments, ends, shifts }) = self;
        write!(f, "  for each of {segments} segments up to {}", InKernel(kernel, ends))?;
        for (idx, Shift { slot, rows }) in shifts.iter().enumerate() {
            let word = if idx == 0 { ", with" } else { " and" };
            write!(f, "{word} {rows} rows of {}", InKernel(kernel, slot))?;
        }
        writeln!(f)?;
        write!(f, "{}", InKernel(kernel, gemm))
    }
}

impl Display for InKernel<'_, Partition> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let InKernel(kernel, Partition { index, first, parts, rows, ends, count }) = self;
        let slot = |slot| InKernel(kernel, slot);
        write!(f, "  {}, {}, {} = rows ", slot(rows), slot(ends), slot(count))?;
        writeln!(f, "in {parts} segments from {first} on by {}", InKernel(kernel, index))
    }
}

impl Display for InKernel<'_, Attention> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let InKernel(kernel, attention) = self;
        let Attention { heads, kv_heads, width, scoring, q, q_pos, q_seq, .. } = attention;
        let Attention { kv_extent, k, v, k_pos, k_seq, out, .. } = attention;
        let view = |view| InKernel(kernel, view);
        writeln!(
            f,
            "  {heads} heads on {kv_heads}, {width} wide, over {} keys",
            InKernel(kernel, kv_extent)
        )?;
        writeln!(f, "  queries {} at {}, {}", view(q), view(q_pos), view(q_seq))?;
        writeln!(f, "  keys {} values {} at {}, {}", view(k), view(v), view(k_pos), view(k_seq))?;
        writeln!(f, "  {} = attention{}", InKernel(kernel, out), ScoringText(scoring))
    }
}

impl Display for InKernel<'_, CachedAttention> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let InKernel(kernel, attention) = self;
        let CachedAttention { heads, kv_heads, width, scoring, q, q_pos, q_seq, .. } = attention;
        let CachedAttention { k, v, pages, present, out, .. } = attention;
        let (view, slot) = (|view| InKernel(kernel, view), |slot| InKernel(kernel, slot));
        writeln!(f, "  {heads} heads on {kv_heads}, {width} wide, over a cache in pages {}", slot(pages))?;
        writeln!(f, "  queries {} at {}, {}", view(q), view(q_pos), view(q_seq))?;
        write!(f, "  keys {} values {}", slot(k), slot(v))?;
        if let Some(present) = present {
            write!(f, " where {}", slot(present))?;
        }
        writeln!(f, "\n  {} = attention{}", slot(out), ScoringText(scoring))
    }
}

/// What is said of scores, such as ` (scale 0.1, window 512)`; nothing if nothing is.
struct ScoringText<'a>(&'a Scoring);

impl Display for ScoringText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Scoring { scale, cap, window, ahead } = self.0;
        let said = [
            scale.map(|scale| format!("scale {scale}")),
            cap.map(|cap| format!("cap {cap}")),
            window.map(|window| format!("window {window}")),
            ahead.map(|ahead| format!("{ahead} ahead")),
        ];
        let said: Vec<String> = said.into_iter().flatten().collect();
        if said.is_empty() { Ok(()) } else { write!(f, " ({})", said.join(", ")) }
    }
}

impl Display for InKernel<'_, Rowwise> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kernel = self.0;
        let view = |view| InKernel(kernel, view);
        let slot = |slot| InKernel(kernel, slot);
        match self.1 {
            Rowwise::Map { program, .. } => write!(f, "{}", InKernel(kernel, program)),
            Rowwise::Norm { kind, eps, groups, x, gain, out, .. } => {
                match kind {
                    NormKind::Rms => write!(f, "  {} = rms_norm {}, {}", slot(out), view(x), slot(gain))?,
                    NormKind::Layer { bias } => {
                        let (gain, bias) = (slot(gain), slot(bias));
                        write!(f, "  {} = layer_norm {}, {gain}, {bias}", slot(out), view(x))?;
                    }
                }
                match groups {
                    1 => writeln!(f, " (eps {eps})"),
                    _ => writeln!(f, " (eps {eps}, {groups} groups)"),
                }
            }
            Rowwise::RowScale { eps, x, out, .. } => {
                writeln!(f, "  {} = inv_rms {} (eps {eps})", slot(out), view(x))
            }
            Rowwise::Choose { n, choice, logits, bias, replay, out } => {
                let Choice { k, sigmoid, normalise, scale, ranks } = choice;
                let score = if *sigmoid { "sigmoid" } else { "softmax" };
                write!(f, "  {} = {k} of {n} by {score} {}", slot(out), view(logits))?;
                if let Some(bias) = bias {
                    write!(f, " and {}", slot(bias))?;
                }
                let of_sum = if *normalise { " of their sum" } else { "" };
                let ranks = match ranks {
                    None => "",
                    Some(Ranking::Score) => ", ranked by score",
                    Some(Ranking::Turn) => ", ranked by turn",
                };
                write!(f, ", counted as {scale}{of_sum}{ranks}")?;
                match replay {
                    None => writeln!(f),
                    Some(Replay { use_forced, choices }) => {
                        writeln!(f, ", or if {} those of {}", slot(use_forced), view(choices))
                    }
                }
            }
            Rowwise::Limit(limit) => limit_choices(f, kernel, limit),
            Rowwise::Embed { ids, n_ids, table, out, .. } => {
                writeln!(f, "  {} = rows of {} [{n_ids}] by {}", slot(out), slot(table), view(ids))
            }
            Rowwise::Rope { heads, width, turned, x, positions, cos, sin, out } => {
                let (cos, sin) = (slot(cos), slot(sin));
                write!(f, "  {} = rope {} at {}", slot(out), view(x), view(positions))?;
                let turned = turned.map_or_else(String::new, |turned| format!(", of which {turned} turn"));
                writeln!(f, " by {cos}, {sin} ({heads} heads, {width} wide{turned})")
            }
        }
    }
}

fn limit_choices(f: &mut Formatter<'_>, kernel: &Kernel, limit: &Limit) -> fmt::Result {
    let Limit { k, index, ranks, positions, sequences, group_size, keep, out } = limit;
    let view = |view| InKernel(kernel, view);
    write!(f, "  {} = {k} choices {} ", InKernel(kernel, out), view(index))?;
    match keep {
        KeepChoices::Slots { slots, experts } => write!(f, "in {slots} slots of each of {experts}")?,
        KeepChoices::Left { slots, experts, before, pages, present } => {
            let (before, pages) = (InKernel(kernel, before), InKernel(kernel, pages));
            write!(f, "in {slots} slots of each of {experts} with those of {before} in pages {pages}")?;
            if let Some(present) = present {
                write!(f, " where {}", InKernel(kernel, present))?;
            }
        }
        KeepChoices::Share { top_k, extent, positions, sequences } => {
            write!(f, "as a share of {top_k} of {k} of {} tokens", InKernel(kernel, extent))?;
            write!(f, " at {}, {}", view(positions), view(sequences))?;
        }
    }
    if let Some(ranks) = ranks {
        write!(f, ", highest {} first", view(ranks))?;
    }
    let group = group_size.map_or("sequences".to_owned(), |size| format!("groups of {size}"));
    writeln!(f, ", in {group} at {}, {}", view(positions), view(sequences))
}

impl Display for InKernel<'_, Compact> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let InKernel(kernel, compact) = self;
        let Compact { select, use_forced, forced, rows, count, mask } = compact;
        let slot = |slot| InKernel(kernel, slot);
        write!(f, "  {}, {}, {} = rows ", slot(rows), slot(count), slot(mask))?;
        match select {
            Select::AtLeast { scores, threshold } => {
                write!(f, "where {} >= {threshold}", InKernel(kernel, scores))?
            }
            Select::Random { ids, sequences, seed, block, limit } => {
                write!(f, "where random({seed}, {block}, ")?;
                match sequences {
                    Some(sequences) => write!(f, "{}, ", InKernel(kernel, sequences))?,
                    None => write!(f, "0, ")?,
                }
                write!(f, "{}) < {limit}", InKernel(kernel, ids))?;
            }
            Select::NotIn(mask) => write!(f, "that are not in {}", slot(mask))?,
            Select::WithFirst { chosen, positions, first } => {
                write!(f, "in {} or at {} < {first}", slot(chosen), InKernel(kernel, positions))?
            }
            Select::InBoth([wanted, outer]) => write!(f, "that are in {} and {}", slot(wanted), slot(outer))?,
            Select::Ranked(ranked) => write!(f, "{}", InKernel(kernel, ranked))?,
        }
        writeln!(f, ", or {} if {}", slot(forced), slot(use_forced))
    }
}

/// Such as `that are the first 3 by score z of those in wanted in each 16 positions p of each sequence s`.
impl Display for InKernel<'_, Ranked> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let InKernel(kernel, Ranked { among, sequences, segment, order, keep }) = self;
        match keep {
            Keep::Slots(slots) => write!(f, "that are the first {slots}")?,
            Keep::Left { slots, before, pages } => {
                let (before, pages) = (InKernel(kernel, before), InKernel(kernel, pages));
                write!(f, "that are the first {slots} with those of {before} in pages {pages}")?;
            }
            Keep::Share(share) => write!(f, "that are the first {share} of all")?,
            Keep::ShareDown(share) => write!(f, "that are the first {share} of all, rounded down,")?,
        }
        if let RankOrder::Score(scores) = order {
            write!(f, " by score {}", InKernel(kernel, scores))?;
        }
        if let Candidates::Masked(mask) = among {
            write!(f, " of those in {}", InKernel(kernel, mask))?;
        }
        if let Segment::Group { positions, size } = segment {
            write!(f, " in each {size} positions {}", InKernel(kernel, positions))?;
        }
        match sequences {
            Some(sequences) => write!(f, " of each sequence {}", InKernel(kernel, sequences)),
            None => write!(f, " of the batch"),
        }
    }
}

impl Display for InKernel<'_, Pending> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let InKernel(kernel, Pending { executed, positions, sequences, pages, pending, router, rows, count }) =
            self;
        let (view, slot) = (|view| InKernel(kernel, view), |slot| InKernel(kernel, slot));
        write!(f, "  {}, {} = rows in pages {}", slot(rows), slot(count), slot(pages))?;
        write!(f, " up to {} of each sequence {}", view(positions), view(sequences))?;
        writeln!(f, " that wait by column {router} of {} for {}", slot(pending), slot(executed))
    }
}

impl Display for InKernel<'_, Update> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let InKernel(kernel, update) = self;
        match update {
            Update::StoreRows { rows, places, cache, .. } => {
                let (rows, places) = (InKernel(kernel, rows), InKernel(kernel, places));
                writeln!(f, "  {} at {places} = {rows}", InKernel(kernel, cache))
            }
            Update::AddRows { x, sum, .. } => {
                writeln!(f, "  {} += rows of {}", InKernel(kernel, sum), InKernel(kernel, x))
            }
        }
    }
}

impl Display for InKernel<'_, Along> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let InKernel(kernel, along) = self;
        match along {
            Along::Mean { x, sequences, out, .. } => {
                let (x, sequences) = (InKernel(kernel, x), InKernel(kernel, sequences));
                writeln!(f, "  {} = mean of {x} over each sequence {sequences}", InKernel(kernel, out))
            }
            Along::Conv(conv) => write!(f, "{}", InKernel(kernel, conv)),
        }
    }
}

impl Display for InKernel<'_, Conv> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let InKernel(kernel, Conv { taps, filters, positions, sequences, inputs, out, .. }) = self;
        let (view, slot) = (|view| InKernel(kernel, view), |slot| InKernel(kernel, slot));
        write!(f, "  {} = {taps} taps of {} on ", slot(out), slot(filters))?;
        match inputs {
            Inputs::Rows { extent, x, positions, sequences } => {
                write!(f, "{}, {} rows", view(x), InKernel(kernel, extent))?;
                write!(f, " at {}, {}", view(positions), view(sequences))?;
            }
            Inputs::Cached { cache, pages, present } => {
                write!(f, "{} in pages {}", slot(cache), slot(pages))?;
                if let Some(present) = present {
                    write!(f, " where {}", slot(present))?;
                }
            }
        }
        writeln!(f, ", for {}, {}", view(positions), view(sequences))
    }
}

impl Display for InKernel<'_, Pointwise> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let InKernel(kernel, program) = self;
        for (idx, inst) in program.code.iter().enumerate() {
            write!(f, "  r{idx} = ")?;
            match inst {
                Inst::Acc(acc) => writeln!(f, "acc{acc}")?,
                Inst::AccRotated { sum, width } => writeln!(f, "rotated acc{sum} ({width} wide)")?,
                Inst::Load(view) => writeln!(f, "{}", InKernel(kernel, view))?,
                Inst::LoadRow(view) => writeln!(f, "row {}", InKernel(kernel, view))?,
                Inst::LoadCol(slot) => writeln!(f, "col {}", InKernel(kernel, slot))?,
                Inst::LoadAt { table, index } => {
                    writeln!(f, "{} at {}", InKernel(kernel, table), InKernel(kernel, index))?
                }
                Inst::Unary(function, Reg(x)) => writeln!(f, "{}", function.formula(&format!("r{x}")))?,
                Inst::Binary(function, Reg(a), Reg(b)) => writeln!(f, "r{a} {} r{b}", function.sign())?,
            }
        }
        for store in &program.stores {
            writeln!(f, "  {} = r{}", InKernel(kernel, &store.to), store.value.0)?;
        }
        Ok(())
    }
}
