//! A kernel by itself: what it does to each of its parameters.

use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_ir::{MOST_AHEAD, Scoring};

use super::program;
use crate::error::Fault;
use crate::kernel::{
    Access, Attention, BLOCK_TERMS, Body, CachedAttention, Candidates, Choice, Compact, Gemm, Grouped, Keep,
    KeepChoices, Kernel, Limit, MAX_SUMS, NormKind, PANEL_COLS, Param, Part, Partition, Pending, RankOrder,
    Ranked, Replay, Rows, Rowwise, SWIZZLE_TERMS, Segment, Select, Shift, Slot, Sum, Update, View,
    WeightLayout,
};
use crate::pointwise::Real;

/// Parameters of a kernel, at most: the pointers that fit 1 KiB, a quarter of what a CUDA launch takes. An epilogue
/// of 32 pointwise ops needs fewer than 80.
const MAX_PARAMS: usize = 128;

/// Element types that a use allows.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// `f32` or `bf16`.
    Real,
    F32,
    Bf16,
    U32,
    U8,
    I8,
}

/// Rows of a parameter that a use may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// The rows of an extent, themselves or by a list.
    Over(Extent, Rows),
    /// The first so many, of a table or of a single value.
    First(u32),
    /// Rows that other values name, of a buffer all of whose rows are held.
    Anywhere,
    /// As many as the kernel finds and counts.
    Listing,
}

/// One use of a parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touch {
    pub(super) slot: Slot,
    pub(super) rows: Touched,
    pub(super) is_write: bool,
    /// It has to be a constant.
    pub(super) is_constant: bool,
}

/// What a kernel does, and what is wrong with it.
pub(super) struct Check<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) touches: Vec<Touch>,
    pub(super) faults: Vec<Fault>,
    /// Reads that the tile which writes does, by slot and place, each with the part of the kernel that reads.
    pub(super) tile_reads: Vec<(View, usize)>,
    /// Columns that stores write: place, number of columns, part of the kernel that writes.
    pub(super) stores: Vec<(View, u32, usize)>,
    /// Parameters that are read and written in one row of a kernel of loops.
    pub(super) own: Vec<Slot>,
    /// The part of the kernel that is checked: tiles of two parts are made by different threads.
    part: usize,
}

/// Checks a kernel.
pub(super) fn check(kernel: &Kernel) -> Check<'_> {
    let mut check = Check {
        kernel,
        touches: Vec::new(),
        faults: Vec::new(),
        tile_reads: Vec::new(),
        stores: Vec::new(),
        own: Vec::new(),
        part: 0,
    };
    check.size("the number of parameters", kernel.params.len() as u32, kernel.params.len() <= MAX_PARAMS);
    check.extent(kernel.extent);
    match &kernel.body {
        Body::Gemm(gemm) => check.gemm(gemm),
        Body::Grouped(grouped) => check.grouped(grouped),
        Body::Partition(partition) => check.partition(partition),
        Body::Attention(attention) => check.attention(attention),
        Body::CachedAttention(attention) => check.cached_attention(attention),
        Body::Along(along) => check.along(along),
        Body::Rowwise(rowwise) => check.rowwise(rowwise),
        Body::Compact(compact) => check.compact(compact),
        Body::Pending(pending) => check.pending(pending),
        Body::Update(update) => check.update(update),
        Body::Loops(loops) => check.loops(loops),
        Body::WeightGradient(gradient) => check.weight_gradient(gradient),
    }
    check.access();
    check
}

impl Check<'_> {
    pub(super) fn param(&mut self, slot: Slot) -> Option<&Param> {
        let param = self.kernel.params.get(slot.0 as usize);
        if param.is_none() {
            let (idx, len) = (slot.0 as usize, self.kernel.params.len());
            self.faults.push(Fault::Range { what: "parameter", idx, len });
        }
        param
    }

    pub(super) fn kind(&mut self, slot: Slot, kind: Kind) {
        let Some(Param { name, dtype, .. }) = self.param(slot).cloned() else { return };
        let (fits, wanted) = match kind {
            Kind::Real => (matches!(dtype, DType::F32 | DType::Bf16), "f32 or bf16"),
            Kind::F32 => (dtype == DType::F32, "f32"),
            Kind::Bf16 => (dtype == DType::Bf16, "bf16"),
            Kind::I8 => (dtype == DType::I8, "i8"),
            Kind::U32 => (dtype == DType::U32, "u32"),
            Kind::U8 => (dtype == DType::U8, "u8"),
        };
        if !fits {
            self.faults.push(Fault::DType { param: name, got: dtype, wanted });
        }
    }

    pub(super) fn touch(&mut self, slot: Slot, rows: Touched, is_write: bool) {
        self.touches.push(Touch { slot, rows, is_write, is_constant: false });
    }

    /// Parameter with exactly these columns.
    pub(super) fn exact(&mut self, slot: Slot, cols: u32, kind: Kind) {
        self.kind(slot, kind);
        let Some(param) = self.param(slot).cloned() else { return };
        if param.cols != cols {
            let (param, got, wanted) = (param.name, param.cols, u64::from(cols));
            self.faults.push(Fault::Cols { param, got, wanted });
        }
    }

    pub(super) fn within(&mut self, view: View, cols: u32, kind: Kind) {
        self.kind(view.slot, kind);
        let Some(param) = self.param(view.slot).cloned() else { return };
        let end = u64::from(view.col) + u64::from(cols);
        if end > u64::from(param.cols) {
            self.faults.push(Fault::Cols { param: param.name, got: param.cols, wanted: end });
        }
    }

    /// Reads `cols` columns of the rows of the extent.
    pub(super) fn read(&mut self, view: View, cols: u32, kind: Kind) {
        self.read_over(self.kernel.extent, view, cols, kind);
    }

    pub(super) fn read_over(&mut self, extent: Extent, view: View, cols: u32, kind: Kind) {
        self.within(view, cols, kind);
        self.touch(view.slot, Touched::Over(extent, view.rows), false);
        self.list(view.rows, extent);
    }

    pub(super) fn list(&mut self, rows: Rows, extent: Extent) {
        if let Rows::Listed(list) = rows {
            self.exact(list, 1, Kind::U32);
            self.touch(list, Touched::Over(extent, Rows::Dense), false);
        }
    }

    /// Stores `cols` columns of the rows of the extent.
    pub(super) fn store(&mut self, view: View, cols: u32, kind: Kind) {
        self.within(view, cols, kind);
        self.touch(view.slot, Touched::Over(self.kernel.extent, view.rows), true);
        self.list(view.rows, self.kernel.extent);
        self.stores.push((view, cols, self.part));
    }

    /// A dense result of exactly these columns.
    pub(super) fn write(&mut self, slot: Slot, cols: u32, kind: Kind) {
        self.exact(slot, cols, kind);
        self.store(View::dense(slot), cols, kind);
    }

    /// A constant of these rows and columns.
    pub(super) fn constant(&mut self, slot: Slot, rows: u32, cols: u32, kind: Kind) {
        self.exact(slot, cols, kind);
        self.touches.push(Touch { slot, rows: Touched::First(rows), is_write: false, is_constant: true });
    }

    /// A read that only the tile which writes the place does.
    pub(super) fn tile_read(&mut self, view: View) {
        self.tile_reads.push((view, self.part));
    }

    /// A use of a part's own sum.
    pub(super) fn sum(&mut self, acc: u32, n_sums: usize) {
        if acc as usize >= n_sums {
            self.faults.push(Fault::Acc { acc, sums: n_sums });
        }
    }

    pub(super) fn size(&mut self, what: &'static str, got: u32, fits: bool) {
        if !fits {
            self.faults.push(Fault::Size { what, got: got.into() });
        }
    }

    pub(super) fn extent(&mut self, extent: Extent) {
        if let Extent::Counted { count, .. } = extent {
            self.exact(Slot(count), 1, Kind::U32);
            self.touch(Slot(count), Touched::First(1), false);
        }
    }

    fn gemm(&mut self, gemm: &Gemm) {
        let Gemm { a, k, parts } = gemm;
        self.size("k", *k, *k > 0);
        self.size("the number of parts", parts.len() as u32, !parts.is_empty());
        self.read(*a, *k, Kind::Real);
        let dtype = self.param(a.slot).map(|param| param.dtype);
        for (idx, part) in parts.iter().enumerate() {
            self.part = idx;
            self.columns(*k, part, dtype);
        }
    }

    fn grouped(&mut self, grouped: &Grouped) {
        let Grouped { gemm, segments, ends, shifts } = grouped;
        self.size("the number of segments", *segments, *segments > 0);
        self.exact(*ends, 1, Kind::U32);
        self.touch(*ends, Touched::First(*segments), false);
        self.gemm(gemm);
        for Shift { slot, rows } in shifts {
            let (all, is_there) = match rows.checked_mul(*segments) {
                Some(all) => (all, *rows > 0),
                None => (*rows, false),
            };
            self.size("the rows of a segment's constant", all, is_there);
            let of_one = |touch: &&mut Touch| touch.slot == *slot && touch.is_constant;
            for touch in self.touches.iter_mut().filter(of_one) {
                match touch.rows {
                    Touched::First(least) if least <= *rows => touch.rows = Touched::First(all),
                    _ => self.faults.push(Fault::Size {
                        what: "the rows of a segment's constant",
                        got: u64::from(*rows),
                    }),
                }
            }
        }
    }

    fn partition(&mut self, partition: &Partition) {
        let Partition { index, first, parts, rows, ends, count } = *partition;
        self.size("the number of segments", parts, parts > 0);
        self.size("the index of the first segment", first, first.saturating_add(parts) <= 1 << 24);
        self.read(index, 1, Kind::F32);
        self.write(rows, 1, Kind::U32);
        for (slot, rows) in [(ends, parts), (count, 1)] {
            self.exact(slot, 1, Kind::U32);
            self.touch(slot, Touched::First(rows), true);
        }
    }

    fn columns(&mut self, k: u32, part: &Part, dtype: Option<DType>) {
        let Part { n, layout, sums, epilogue } = part;
        self.size("n", *n, *n > 0);
        self.size("the number of sums", sums.len() as u32, (1..=MAX_SUMS).contains(&sums.len()));
        for Sum { weight, row, scales } in sums {
            let end = row.saturating_add(*n);
            let kind = if dtype == Some(DType::F32) && !layout.is_plain() { Kind::F32 } else { Kind::Real };
            match layout {
                WeightLayout::Rows => self.constant(*weight, end, k, kind),
                WeightLayout::Columns => {
                    let cols = self.param(*weight).map_or(0, |param| param.cols);
                    self.size("the columns of a weight", cols, end <= cols);
                    self.constant(*weight, k, cols, kind);
                }
                WeightLayout::Levels => {
                    self.levels(k, *weight, *scales, (*row, end));
                    continue;
                }
                WeightLayout::Panels => {
                    self.size("the first output of a sum in panels", *row, row.is_multiple_of(PANEL_COLS));
                    let dtype = self.param(*weight).map_or(DType::F32, |param| param.dtype);
                    match layout.shape((end, k), dtype) {
                        Some((rows, cols)) => self.constant(*weight, rows, cols, kind),
                        None => self.size("the rows of a weight in panels", end, false),
                    }
                }
                WeightLayout::Swizzled => {
                    let (cols, dtype) =
                        self.param(*weight).map_or((0, DType::Bf16), |param| (param.cols, param.dtype));
                    let least = layout.shape((end, k), dtype);
                    let is_wide = least.is_some_and(|(_, least)| least <= cols);
                    let is_whole = cols.is_multiple_of(SWIZZLE_TERMS);
                    self.size("the columns of a swizzled weight", cols, is_wide && is_whole);
                    self.constant(*weight, least.map_or(0, |(rows, _)| rows), cols, kind);
                }
            }
            self.size("scales of a weight that has none", 1, scales.is_none());
            let Some(param) = self.param(*weight).cloned() else { continue };
            if Some(param.dtype) != dtype && !layout.is_plain() {
                let (param, got) = (param.name, param.dtype);
                self.faults.push(Fault::DType { param, got, wanted: "the type of the left operand" });
            }
        }
        program::check(self, epilogue, *n, sums.len());
    }

    /// A weight in [`WeightLayout::Levels`].
    fn levels(&mut self, k: u32, weight: Slot, scales: Option<Slot>, (row, end): (u32, u32)) {
        self.size("the first output of a sum in panels", row, row.is_multiple_of(PANEL_COLS));
        self.size("the scales of a weight in 8 bits", 0, scales.is_some());
        let of_scales = scales.map(|scales| (scales, k.div_ceil(BLOCK_TERMS), DType::Bf16, Kind::Bf16));
        for (slot, k, dtype, kind) in [(weight, k, DType::I8, Kind::I8)].into_iter().chain(of_scales) {
            match WeightLayout::Panels.shape((end, k), dtype) {
                Some((rows, cols)) => self.constant(slot, rows, cols, kind),
                None => self.size("the rows of a weight in panels", end, false),
            }
        }
    }

    fn attention(&mut self, attention: &Attention) {
        let Attention { heads, kv_heads, width, scoring, .. } = *attention;
        self.scoring(scoring);
        self.size("heads", heads, heads > 0);
        self.size("kv_heads", kv_heads, kv_heads > 0 && heads.is_multiple_of(kv_heads));
        self.size("the width of a head", width, width > 0);
        self.extent(attention.kv_extent);
        let (q_cols, kv_cols) = (heads.saturating_mul(width), kv_heads.saturating_mul(width));
        self.read(attention.q, q_cols, Kind::Real);
        self.read(attention.q_pos, 1, Kind::U32);
        self.read(attention.q_seq, 1, Kind::U32);
        self.read_over(attention.kv_extent, attention.k, kv_cols, Kind::Real);
        self.read_over(attention.kv_extent, attention.v, kv_cols, Kind::Real);
        self.read_over(attention.kv_extent, attention.k_pos, 1, Kind::U32);
        self.read_over(attention.kv_extent, attention.k_seq, 1, Kind::U32);
        for view in [attention.q, attention.k, attention.v] {
            if (view.rows, view.col) != (Rows::Dense, 0)
                && let Some(param) = self.param(view.slot).map(|param| param.name.clone())
            {
                self.faults.push(Fault::Dense { param });
            }
        }
        self.write(attention.out, q_cols, Kind::Real);
    }

    fn scoring(&mut self, Scoring { scale, cap, window, ahead }: Scoring) {
        let is_positive =
            |number: Option<Real>| number.is_none_or(|number| number.0.is_finite() && number.0 > 0.0);
        for (what, number) in [("scale (as bits)", scale), ("cap (as bits)", cap)] {
            if !is_positive(number) {
                self.faults.push(Fault::Size { what, got: number.unwrap_or_default().0.to_bits() });
            }
        }
        self.size("the window", window.unwrap_or(1), window != Some(0));
        let ahead = ahead.unwrap_or(0);
        self.size("how far a query looks ahead", ahead, ahead <= MOST_AHEAD);
    }

    fn cached_attention(&mut self, attention: &CachedAttention) {
        let CachedAttention { heads, kv_heads, width, scoring, q, q_pos, q_seq, .. } = *attention;
        let CachedAttention { k, v, pages, present, out, .. } = *attention;
        self.scoring(scoring);
        self.size("heads", heads, heads > 0);
        self.size("kv_heads", kv_heads, kv_heads > 0 && heads.is_multiple_of(kv_heads));
        self.size("the width of a head", width, width > 0);
        let (q_cols, kv_cols) = (heads.saturating_mul(width), kv_heads.saturating_mul(width));
        self.read(q, q_cols, Kind::Real);
        self.read(q_pos, 1, Kind::U32);
        self.read(q_seq, 1, Kind::U32);
        if (q.rows, q.col) != (Rows::Dense, 0)
            && let Some(param) = self.param(q.slot).map(|param| param.name.clone())
        {
            self.faults.push(Fault::Dense { param });
        }
        for cache in [k, v] {
            self.exact(cache, kv_cols, Kind::Real);
            self.touch(cache, Touched::Anywhere, false);
        }
        self.pages(pages);
        self.present(present);
        self.write(out, q_cols, Kind::Real);
    }

    /// The pages of each sequence.
    pub(super) fn pages(&mut self, pages: Slot) {
        self.kind(pages, Kind::U32);
        self.touch(pages, Touched::Anywhere, false);
    }

    /// Which rows of a cache are there, if not all are.
    pub(super) fn present(&mut self, present: Option<Slot>) {
        if let Some(present) = present {
            self.exact(present, 1, Kind::U8);
            self.touch(present, Touched::Anywhere, false);
        }
    }

    fn rowwise(&mut self, rowwise: &Rowwise) {
        match *rowwise {
            Rowwise::Map { cols, ref program } => {
                self.size("columns", cols, cols > 0);
                program::check(self, program, cols, 0);
            }
            Rowwise::Norm { kind, eps, cols, groups, x, gain, out } => {
                self.size("columns", cols, cols > 0);
                self.size("groups of columns", groups, groups > 0 && cols.is_multiple_of(groups));
                let width = cols / groups.max(1);
                self.eps(eps);
                self.read(x, cols, Kind::Real);
                self.constant(gain, 1, width, Kind::F32);
                if let NormKind::Layer { bias } = kind {
                    self.constant(bias, 1, width, Kind::F32);
                }
                self.write(out, cols, Kind::Real);
            }
            Rowwise::RowScale { eps, cols, x, out } => {
                self.size("columns", cols, cols > 0);
                self.eps(eps);
                self.read(x, cols, Kind::Real);
                self.write(out, 1, Kind::F32);
            }
            Rowwise::Choose { n, choice, logits, bias, replay, out } => {
                let Choice { k, scale, .. } = choice;
                self.size("the number of choices", k, (1..=n).contains(&k));
                if !scale.0.is_finite() {
                    self.faults.push(Fault::Size { what: "scale (as bits)", got: scale.0.to_bits() });
                }
                self.read(logits, n, Kind::F32);
                bias.into_iter().for_each(|bias| self.constant(bias, 1, n, Kind::F32));
                if let Some(Replay { use_forced, choices }) = replay {
                    self.exact(use_forced, 1, Kind::U32);
                    self.touch(use_forced, Touched::First(1), false);
                    self.read(choices, k, Kind::F32);
                }
                self.write(out, k.saturating_mul(2 + u32::from(choice.ranks.is_some())), Kind::F32);
            }
            Rowwise::Limit(limit) => self.limit_choices(&limit),
            Rowwise::Embed { cols, ids, n_ids, table, out } => {
                self.read(ids, 1, Kind::U32);
                self.constant(table, n_ids, cols, Kind::Real);
                self.write(out, cols, Kind::Real);
            }
            Rowwise::Rope { heads, width, turned, x, positions, cos, sin, out } => {
                self.size("heads", heads, heads > 0);
                self.size("the width of a head", width, width > 0 && width.is_multiple_of(2));
                let turned = turned.unwrap_or(width);
                let turns = turned > 0 && turned.is_multiple_of(2) && turned <= width;
                self.size("the columns of a head that turn", turned, turns);
                let cols = heads.saturating_mul(width);
                self.read(x, cols, Kind::Real);
                self.read(positions, 1, Kind::U32);
                self.constant(cos, 1, turned / 2, Kind::F32);
                self.constant(sin, 1, turned / 2, Kind::F32);
                self.write(out, cols, Kind::Real);
                // Both columns of a pair are read before either is written.
                self.tile_read(x);
            }
        }
    }

    fn limit_choices(&mut self, limit: &Limit) {
        let Limit { k, index, ranks, positions, sequences, group_size, keep, out } = *limit;
        self.size("the number of choices", k, k > 0);
        self.size("positions of a group", group_size.unwrap_or(1), group_size != Some(0));
        std::iter::once(index).chain(ranks).for_each(|view| self.read(view, k, Kind::F32));
        [positions, sequences].into_iter().for_each(|view| self.read(view, 1, Kind::U32));
        match keep {
            KeepChoices::Slots { experts, .. } => self.size("the number of experts", experts, experts > 0),
            KeepChoices::Left { experts, before, pages, present, .. } => {
                self.size("the number of experts", experts, experts > 0);
                self.size("positions of a group", 0, group_size.is_some());
                self.size("the ranks of choices that earlier tokens take", k, ranks.is_none());
                self.exact(before, k, Kind::F32);
                self.touch(before, Touched::Anywhere, false);
                self.pages(pages);
                self.present(present);
            }
            KeepChoices::Share { top_k, extent, positions, sequences } => {
                self.size("experts of a token", top_k, top_k > 0);
                self.extent(extent);
                let views = [positions, sequences];
                views.into_iter().for_each(|view| self.read_over(extent, view, 1, Kind::U32));
            }
        }
        self.write(out, k, Kind::F32);
    }

    fn eps(&mut self, eps: Real) {
        if !(eps.0.is_finite() && eps.0 >= 0.0) {
            self.faults.push(Fault::Size { what: "eps (as bits)", got: eps.0.to_bits() });
        }
    }

    /// A mask of which the row at hand is read.
    fn mask(&mut self, mask: Slot) {
        self.exact(mask, 1, Kind::U8);
        self.touch(mask, Touched::Over(self.kernel.extent, Rows::Dense), false);
    }

    fn compact(&mut self, compact: &Compact) {
        match compact.select {
            Select::AtLeast { scores, threshold } => {
                self.read(scores, 1, Kind::F32);
                if threshold.0.is_nan() {
                    self.faults.push(Fault::Size { what: "threshold (as bits)", got: threshold.0.to_bits() });
                }
            }
            Select::Random { ids, sequences, limit, .. } => {
                std::iter::once(ids).chain(sequences).for_each(|view| self.read(view, 1, Kind::U32));
                if limit > 1 << 32 {
                    self.faults.push(Fault::Size { what: "limit", got: limit });
                }
            }
            Select::NotIn(mask) => self.mask(mask),
            Select::InBoth(masks) => masks.into_iter().for_each(|mask| self.mask(mask)),
            Select::WithFirst { chosen, positions, .. } => {
                self.mask(chosen);
                self.read(positions, 1, Kind::U32);
            }
            Select::Ranked(ranked) => self.ranked(&ranked),
        }
        self.exact(compact.use_forced, 1, Kind::U32);
        self.touch(compact.use_forced, Touched::First(1), false);
        self.exact(compact.forced, 1, Kind::U8);
        self.touch(compact.forced, Touched::Over(self.kernel.extent, Rows::Dense), false);
        self.write(compact.rows, 1, Kind::U32);
        self.write(compact.mask, 1, Kind::U8);
        self.exact(compact.count, 1, Kind::U32);
        self.touch(compact.count, Touched::First(1), true);
    }

    fn pending(&mut self, pending: &Pending) {
        let Pending { executed, positions, sequences, pages, pending, router, rows, count } = *pending;
        self.exact(executed, 1, Kind::U8);
        self.touch(executed, Touched::Over(self.kernel.extent, Rows::Dense), false);
        [positions, sequences].into_iter().for_each(|view| self.read(view, 1, Kind::U32));
        for table in [pages, pending] {
            self.kind(table, Kind::U32);
            self.touch(table, Touched::Anywhere, false);
        }
        let n_cols = self.param(pending).map_or(0, |param| param.cols);
        self.size("the column of a router", router, router < n_cols.saturating_sub(1));
        // How many rows it lists is its own to say.
        self.exact(rows, 1, Kind::U32);
        self.touch(rows, Touched::Listing, true);
        self.exact(count, 1, Kind::U32);
        self.touch(count, Touched::First(1), true);
    }

    fn update(&mut self, update: &Update) {
        let (state, cols, rows) = match *update {
            Update::StoreRows { cols, rows, places, cache } => {
                self.size("columns", cols, cols > 0);
                let of = |slot: Slot| self.kernel.params.get(slot.0 as usize).map(|param| param.dtype);
                let kind = match of(cache) {
                    Some(DType::F32) => Kind::F32,
                    Some(DType::U8) => Kind::U8,
                    Some(DType::U32) => Kind::U32,
                    Some(DType::I8) => Kind::I8,
                    Some(DType::Bf16) | None => Kind::Real,
                };
                self.size("the type of the rows of a cache", 0, of(rows.slot) == of(cache));
                self.read(rows, cols, kind);
                self.read(places, 1, Kind::U32);
                self.exact(cache, cols, kind);
                self.touch(cache, Touched::Anywhere, true);
                return;
            }
            Update::AddRows { cols, x, sum } => {
                self.size("columns", cols, cols > 0);
                self.read(x, cols, Kind::Real);
                self.exact(sum, cols, Kind::F32);
                (sum, cols, 1)
            }
        };
        self.size("the rows of a state", rows, rows > 0);
        // One tile reads and writes all of it.
        let view = View::dense(state);
        self.touch(state, Touched::First(rows), false);
        self.touch(state, Touched::First(rows), true);
        self.tile_read(view);
        self.stores.push((view, cols, self.part));
    }

    fn ranked(&mut self, ranked: &Ranked) {
        let Ranked { among, sequences, segment, order, keep } = *ranked;
        if let Candidates::Masked(mask) = among {
            self.exact(mask, 1, Kind::U8);
            self.touch(mask, Touched::Over(self.kernel.extent, Rows::Dense), false);
        }
        if let Some(sequences) = sequences {
            self.read(sequences, 1, Kind::U32);
        }
        if let Segment::Group { positions, size } = segment {
            self.read(positions, 1, Kind::U32);
            self.size("the size of a group", size, size > 0);
        }
        if let RankOrder::Score(scores) = order {
            self.read(scores, 1, Kind::F32);
        }
        match keep {
            Keep::Share(share) | Keep::ShareDown(share) if !(0.0..=1.0).contains(&share.0) => {
                self.faults.push(Fault::Size { what: "share (as bits)", got: share.0.to_bits() });
            }
            Keep::Left { before, pages, .. } => {
                self.exact(before, 1, Kind::U8);
                self.kind(pages, Kind::U32);
                [before, pages].into_iter().for_each(|slot| self.touch(slot, Touched::Anywhere, false));
                let has_cache = matches!(segment, Segment::Group { .. }) && sequences.is_some();
                self.size("the size of a group", 0, has_cache);
            }
            Keep::Share(_) | Keep::ShareDown(_) | Keep::Slots(_) => {}
        }
    }

    /// Every parameter is used as it is declared; what is read and written is so within a tile.
    fn access(&mut self) {
        for (idx, param) in self.kernel.params.iter().enumerate() {
            let slot = Slot(idx as u32);
            let n_reads = self.touches.iter().filter(|touch| touch.slot == slot && !touch.is_write).count();
            let n_writes = self.touches.iter().filter(|touch| touch.slot == slot && touch.is_write).count();
            let (used, wanted) = match (n_reads, n_writes) {
                (0, 0) => ("neither read nor written", None),
                (_, 0) => ("read", Some(Access::Read)),
                (0, _) => ("written", Some(Access::Write)),
                _ => ("read and written", Some(Access::ReadWrite)),
            };
            if self.own.contains(&slot) {
                // What a row of the kernel reads of it, no other row writes: the code says so, and nobody checks.
                if param.access != Access::ReadWrite || n_writes == 0 {
                    self.faults.push(Fault::Access { param: param.name.clone(), used });
                }
                continue;
            }
            if wanted != Some(param.access) {
                self.faults.push(Fault::Access { param: param.name.clone(), used });
            }
            let stores: Vec<&(View, u32, usize)> =
                self.stores.iter().filter(|(view, ..)| view.slot == slot).collect();
            let tile_reads: Vec<&(View, usize)> =
                self.tile_reads.iter().filter(|(view, _)| view.slot == slot).collect();
            // Every read is of exactly the elements that one store of the same tile writes.
            let reads_fit = tile_reads.len() == n_reads
                && tile_reads
                    .iter()
                    .all(|(read, part)| stores.iter().any(|(store, _, of)| store == read && of == part));
            let stores_fit = stores.iter().enumerate().all(|(idx, (a, a_cols, _))| {
                stores[..idx].iter().all(|(b, b_cols, _)| {
                    a.rows == b.rows
                        && (u64::from(a.col) + u64::from(*a_cols) <= b.col.into()
                            || u64::from(b.col) + u64::from(*b_cols) <= a.col.into())
                })
            });
            if !stores_fit || (n_reads > 0 && n_writes > 0 && !reads_fit) {
                self.faults.push(Fault::Hazard { param: param.name.clone() });
            }
        }
    }
}
