//! Attention of a few queries over the keys of a cache.
//!
//! A block takes a query row and query heads that share a key head, so that each key is loaded once for all of them. Its
//! warps take turns with the keys. In a warp a team of lanes takes a key, and a lane some columns of it: of the queries,
//! which stay in its registers, of the key, of the value, and of the sums. Each team keeps the largest scores and the sums
//! of its own keys; teams and warps are put together at the end.
//!
//! Where blocks can read each other's shared memory, several of them, a cluster, share out the keys of one query, so that one
//! query keeps the device busy: each block puts its warps together, and then the cluster its blocks.
//!
//! Which team takes which key depends on the shape of a head alone, and so does the order of all sums: a result is the
//! same bits whatever other queries there are and however many blocks run at once.
//!
//! A key that is not seen (it is absent, or past the query's position) may hold anything, and its page may be none. So in
//! the place of keys past the position the last one is loaded, and of those that are not seen neither score nor value
//! counts.

use skipc_artifact::program::RowTile;
use skipc_artifact::target::DType;
use skipc_llvm::{CudaTarget, Feature};
use skipc_plan::kernel::{CachedAttention, Kernel, Param, Slot, View};

use super::super::compact::require_column;
use super::super::generated::Generated;
use super::super::pages::Pages;
use super::super::place;
use super::LOWEST;
use crate::code::{
    Arith, Bool, CPtr, Code, F32, Float, GPtr, I8, I32, Int, Ptr, SPtr, Steps, V2, V4, Val, math::Precision,
};
use crate::error::Error;

/// Warps of a block.
const WARPS: u32 = 8;

/// Threads of a block.
const THREADS: u32 = WARPS * 32;

/// Columns of a head that a lane takes, at most, if the warp has enough lanes: two pieces of f32, one of bf16.
const LANE_COLS: u32 = 8;

/// Query numbers, and sums, that a lane keeps: heads times columns, at most.
const LANE_NUMBERS: u32 = 64;

/// Keys that a team takes at once, so that their loads are under way together.
const AT_ONCE: u32 = 4;

/// Blocks that share out the keys of a query, at most: what every device can run as a cluster.
const MOST_SPLITS: u32 = 8;

/// Blocks of one query, at most: about as many as a Hopper device has multiprocessors.
const BLOCKS: u32 = 128;

/// How heads and keys are shared out.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Columns of a head.
    width: u32,
    /// Query heads of a block.
    heads: u32,
    /// Neighbouring columns that a lane loads at once.
    group: u32,
    /// Groups that a lane takes, `lanes` groups apart.
    groups: u32,
    /// Lanes of a team, a power of two.
    lanes: u32,
    /// Blocks that share out the keys.
    splits: u32,
}

impl Shape {
    /// `group` columns are loaded at once, of `n_heads` query heads `sharing` share a key head, and `clusters` says whether
    /// there are any.
    fn of(width: u32, group: u32, (n_heads, sharing): (u32, u32), clusters: bool) -> Self {
        let n_groups = width / group;
        let lanes = n_groups.div_ceil((LANE_COLS / group).max(1)).next_power_of_two().min(32);
        let groups = n_groups.div_ceil(lanes);
        let fits = |heads: &u32| sharing.is_multiple_of(*heads) && heads * groups * group <= LANE_NUMBERS;
        let heads = (1..=sharing).rev().find(fits).unwrap_or(1);
        let across = n_heads / heads;
        let splits = (BLOCKS / across.max(1)).clamp(1, MOST_SPLITS);
        let splits = if clusters { 1 << splits.ilog2() } else { 1 };
        Self { width, heads, group, groups, lanes, splits }
    }

    /// Columns of a lane.
    fn cols(self) -> usize {
        (self.groups * self.group) as usize
    }

    /// Teams of a warp.
    fn teams(self) -> u32 {
        32 / self.lanes
    }

    /// Keys that a warp takes in a turn.
    fn turn(self) -> u32 {
        self.teams() * AT_ONCE
    }

    /// Numbers that a warp, or a block of several, leaves in shared memory: sums, and for each head the largest score and the total.
    fn left(self) -> u32 {
        // Sums are stored in groups of up to four.
        (self.heads * (self.width + 2)).next_multiple_of(4)
    }
}

/// Generates attention over a cache.
///
/// # Errors
/// [`Error::Malformed`] and [`Error::Unsupported`].
pub(in super::super) fn generate(
    device: CudaTarget,
    kernel: &Kernel,
    attention: &CachedAttention,
) -> Result<Generated, Error> {
    check(kernel, attention)?;
    let CachedAttention { heads, kv_heads, width, q, k, v, .. } = *attention;
    let [q_param, k_param, v_param] = [q.slot, k, v].map(|slot| kernel.param(slot));
    let dtype = q_param.dtype;
    let piece = place::piece_bytes(dtype, [width, q.col, q_param.cols, k_param.cols, v_param.cols]);
    let shape =
        Shape::of(width, piece / dtype.size(), (heads, heads / kv_heads), device.has(Feature::Clusters));
    let left_by = WARPS + u32::from(shape.splits > 1);
    let code = Code::new(place::n_params(kernel)?);
    write(&code, kernel, attention, shape);
    Ok(Generated {
        shared_bytes: left_by * shape.left() * 4,
        cluster: shape.splits,
        features: if shape.splits > 1 { vec![Feature::Clusters] } else { Vec::new() },
        ..Generated::new(
            code,
            vec![RowTile { from: 0, rows: 1, across: heads / shape.heads * shape.splits }],
            THREADS,
        )
    })
}

fn check(kernel: &Kernel, attention: &CachedAttention) -> Result<(), Error> {
    place::require_extent(kernel, &kernel.extent)?;
    let CachedAttention { heads, kv_heads, width, q, q_pos, q_seq, k, v, pages, present, out, .. } =
        *attention;
    let [q_cols, kv_cols] = super::columns((heads, kv_heads), width)?;
    let dtype = super::require_queries(kernel, (q, out), q_cols)?.dtype;
    for (what, cache) in [("keys", k), ("values", v)] {
        super::require_keys(kernel, (what, View::dense(cache)), (dtype, kv_cols))?;
    }
    super::require_indices(kernel, q_pos)?;
    super::require_indices(kernel, q_seq)?;
    super::require_indices(kernel, View::dense(pages))?;
    match present {
        None => Ok(()),
        Some(present) => {
            place::require(kernel, present, DType::U8)?;
            require_column(kernel, present)
        }
    }
}

/// What the parts of the kernel share.
struct Parts<'k, 'c> {
    code: &'c Code,
    kernel: &'k Kernel,
    attention: &'k CachedAttention,
    shape: Shape,
    /// Those of the sequence.
    pages: Pages<'c>,
    /// Keys up to the query's position.
    n_keys: Int<'c>,
    /// First column of the key head.
    kv_col: Int<'c>,
    /// This thread's lane in its team, and its team in the warp.
    lane: Int<'c>,
    team: Int<'c>,
    precision: Precision,
}

/// For each head: sums of the values in the lane's columns, weighted with the exponentials; the largest score; the sum of
/// the exponentials. A team's keys are in them.
type State<'c> = (Vec<Vec<Float<'c>>>, Vec<Float<'c>>, Vec<Float<'c>>);

/// A key: its row of the cache, and whether the query sees it. If not, the row exists all the same.
#[derive(Clone, Copy)]
struct Key<'c> {
    row: Int<'c>,
    is_seen: Bool<'c>,
}

fn write(code: &Code, kernel: &Kernel, attention: &CachedAttention, shape: Shape) {
    let rows = place::extent(code, &kernel.extent);
    let row = code.block_x();
    code.return_if(row.ge(rows));
    let CachedAttention { heads, kv_heads, width, scoring, q, q_pos, q_seq, pages, .. } = *attention;
    let index = |view: View| place::element(code, kernel.param(view.slot), view, row, 0u32).load::<I32>();
    let first_head = code.block_y() / shape.splits * shape.heads;
    let lane = code.thread() % 32;
    let parts = Parts {
        code,
        kernel,
        attention,
        shape,
        pages: Pages::of(code, kernel, pages, index(q_seq)),
        n_keys: index(q_pos) + 1,
        kv_col: first_head / (heads / kv_heads) * width,
        lane: lane % shape.lanes,
        team: lane / shape.lanes,
        precision: match kernel.param(q.slot).dtype {
            DType::Bf16 => Precision::Bf16,
            _ => Precision::Full,
        },
    };
    let queries = parts.queries(row, first_head);
    let warp = code.thread() / 32;
    let first = match scoring.window {
        Some(window) => parts.n_keys - parts.n_keys.min(window),
        None => code.int(0),
    };
    let rank = if shape.splits > 1 { code.rank_in_cluster() } else { code.int(0) };
    let from = first + (rank * WARPS + warp) * shape.turn();
    let steps = Steps { from, to: parts.n_keys, step: shape.splits * WARPS * shape.turn() };
    let state = code.repeat(steps, parts.start(), |base, state| {
        let keys: Vec<Key<'_>> =
            (0..AT_ONCE).map(|part| parts.key(base + parts.team + part * shape.teams())).collect();
        parts.add_keys(&queries, &keys, state)
    });
    let left = code.shared();
    parts.leave(parts.of_warp(state), left.at::<F32>(warp * shape.left()));
    code.barrier();
    let of_warps: Vec<SPtr<'_>> = (0..WARPS).map(|warp| left.at::<F32>(warp * shape.left())).collect();
    if shape.splits == 1 {
        parts.store(&of_warps, (code.thread(), THREADS), row, first_head * width);
        return;
    }
    let of_block = left.at::<F32>(WARPS * shape.left());
    parts.leave_of_block(&of_warps, of_block);
    code.cluster_barrier();
    let of_blocks: Vec<CPtr<'_>> = (0..shape.splits).map(|rank| of_block.of_block(rank)).collect();
    let numbers = (rank * THREADS + code.thread(), shape.splits * THREADS);
    parts.store(&of_blocks, numbers, row, first_head * width);
    // No block ends while others read what it has left.
    code.cluster_barrier();
}

impl<'c> Parts<'_, 'c> {
    /// Before the first key.
    fn start(&self) -> State<'c> {
        let heads = self.shape.heads as usize;
        let (zero, lowest) = (self.code.float(0.0), self.code.float(LOWEST));
        (vec![vec![zero; self.shape.cols()]; heads], vec![lowest; heads], vec![zero; heads])
    }

    /// First column of a group of this lane, and whether the head has it; the first of the head if not.
    fn group(&self, group: u32) -> (Int<'c>, Option<Bool<'c>>) {
        let Shape { width, group: cols, lanes, .. } = self.shape;
        let col = (self.lane + group * lanes) * cols;
        if (group + 1) * lanes * cols <= width {
            return (col, None);
        }
        let is_inside = col.lt(width);
        (is_inside.select(col, 0u32), Some(is_inside))
    }

    /// This lane's columns of the head that begins there.
    fn load(&self, head: GPtr<'c>, dtype: DType) -> Vec<Float<'c>> {
        let group = |group| {
            place::load_group(place::along(head, dtype, self.group(group).0), dtype, self.shape.group)
        };
        (0..self.shape.groups).flat_map(group).collect()
    }

    /// This lane's columns of the queries; 0 where a head has no such column, so that it adds nothing to a score.
    fn queries(&self, row: Int<'c>, first_head: Int<'c>) -> Vec<Vec<Float<'c>>> {
        let view = self.attention.q;
        let param = self.kernel.param(view.slot);
        let start = place::element(self.code, param, view, row, first_head * self.shape.width);
        let head = |head: u32| {
            let numbers = self.load(place::along(start, param.dtype, head * self.shape.width), param.dtype);
            let inside = (0..self.shape.groups).map(|group| self.group(group).1);
            let inside = inside.flat_map(|inside| vec![inside; self.shape.group as usize]);
            let or_zero = |(number, inside): (Float<'c>, Option<Bool<'c>>)| match inside {
                None => number,
                Some(inside) => inside.select(number, 0.0f32),
            };
            numbers.into_iter().zip(inside).map(or_zero).collect()
        };
        (0..self.shape.heads).map(head).collect()
    }

    /// The key at a position.
    fn key(&self, position: Int<'c>) -> Key<'c> {
        let exists = position.lt(self.n_keys);
        let position = exists.select(position, self.n_keys - 1);
        let row = self.pages.key(position);
        let is_seen = match self.attention.present {
            None => exists,
            Some(present) => {
                let view = View::dense(present);
                let at = place::row_start(self.code, self.kernel.param(present), view, row);
                at.load::<I8>().to_int().ne(0) & exists
            }
        };
        Key { row, is_seen }
    }

    /// This lane's columns of a key or a value.
    fn cached(&self, cache: Slot, key: Key<'c>) -> Vec<Float<'c>> {
        let param = self.kernel.param(cache);
        let row = place::row_start(self.code, param, View::dense(cache), key.row);
        self.load(place::along(row, param.dtype, self.kv_col), param.dtype)
    }

    /// Adds a key of each team, and those that it takes at the same time.
    fn add_keys(&self, queries: &[Vec<Float<'c>>], keys: &[Key<'c>], state: State<'c>) -> State<'c> {
        let (code, scoring) = (self.code, self.attention.scoring);
        let of_cache = |cache: Slot| keys.iter().map(|key| self.cached(cache, *key)).collect::<Vec<_>>();
        let (keys_of, values) = (of_cache(self.attention.k), of_cache(self.attention.v));
        let values: Vec<Vec<Float<'c>>> = keys
            .iter()
            .zip(values)
            .map(|(key, value)| value.into_iter().map(|number| key.is_seen.select(number, 0.0f32)).collect())
            .collect();
        let (mut sums, mut largest, mut totals) = state;
        for (head, query) in queries.iter().enumerate() {
            let scores: Vec<Float<'c>> = keys
                .iter()
                .zip(&keys_of)
                .map(|(key, numbers)| {
                    let zero = code.float(0.0);
                    let in_lane = query.iter().zip(numbers).fold(zero, |sum, (q, k)| q.fma(*k, sum));
                    let product = code.reduce(in_lane, self.shape.lanes, |a, b| a + b);
                    let score = product.score(scoring, self.shape.width, self.precision);
                    key.is_seen.select(score, f32::NEG_INFINITY)
                })
                .collect();
            let new = scores.iter().fold(largest[head], |a, b| a.max(*b));
            let shrink = (largest[head] - new).exp(self.precision);
            largest[head] = new;
            totals[head] = totals[head] * shrink;
            sums[head].iter_mut().for_each(|sum| *sum = *sum * shrink);
            for (score, value) in scores.into_iter().zip(&values) {
                let weight = (score - new).exp(self.precision);
                totals[head] = totals[head] + weight;
                for (sum, number) in sums[head].iter_mut().zip(value) {
                    *sum = weight.fma(*number, *sum);
                }
            }
        }
        (sums, largest, totals)
    }

    /// What the teams of the warp have found together; each team gets it.
    fn of_warp(&self, (sums, largest, totals): State<'c>) -> State<'c> {
        let (code, lanes) = (self.code, self.shape.lanes);
        let found: Vec<Float<'c>> =
            largest.iter().map(|largest| code.reduce_groups(*largest, lanes, |a, b| a.max(b))).collect();
        let shrink = largest.iter().zip(&found).map(|(own, found)| (*own - *found).exp(self.precision));
        let shrink: Vec<Float<'c>> = shrink.collect();
        let add =
            |number: Float<'c>, shrink: Float<'c>| code.reduce_groups(number * shrink, lanes, |a, b| a + b);
        let totals = totals.into_iter().zip(&shrink).map(|(total, shrink)| add(total, *shrink)).collect();
        let of_head = |(sums, shrink): (Vec<Float<'c>>, &Float<'c>)| {
            sums.into_iter().map(|sum| add(sum, *shrink)).collect()
        };
        (sums.into_iter().zip(&shrink).map(of_head).collect(), found, totals)
    }

    /// The first team of a warp leaves what the warp has found in shared memory: the sums, head by head, then largest score
    /// and total of each head.
    fn leave(&self, (sums, largest, totals): State<'c>, to: SPtr<'c>) {
        let Shape { width, heads, group: cols, .. } = self.shape;
        self.code.when(self.team.eq(0), || {
            for (head, sums) in (0u32..).zip(&sums) {
                for (group, sums) in (0u32..).zip(sums.chunks_exact(cols as usize)) {
                    let (col, inside) = self.group(group);
                    let store = || store_shared(to.at::<F32>(col + head * width), sums);
                    match inside {
                        None => store(),
                        Some(inside) => self.code.when(inside, store),
                    }
                }
            }
        });
        let pairs = (0u32..).zip(largest.iter().zip(&totals));
        self.code.when((self.team * 32 + self.lane).eq(0), || {
            for (head, (largest, total)) in pairs {
                let at = to.at::<F32>(heads * width + head * 2);
                at.store(*largest);
                at.at::<F32>(1u32).store(*total);
            }
        });
    }

    /// Of a number of the row: its sum, its head's total, and the largest score that both are scaled by, of what parts of the
    /// keys have left, in their order.
    fn together<P: Ptr>(&self, left: &[Val<'c, P>], number: Int<'c>) -> [Float<'c>; 3] {
        let code = self.code;
        let of_head =
            |part: &Val<'c, P>, which: u32| part.at::<F32>(self.of_head(number, which)).load::<F32>();
        let largest: Vec<Float<'c>> = left.iter().map(|part| of_head(part, 0)).collect();
        let found = largest.iter().fold(code.float(LOWEST), |a, b| a.max(*b));
        let (mut sum, mut total) = (code.float(0.0), code.float(0.0));
        for (part, largest) in left.iter().zip(largest) {
            let weight = (largest - found).exp(self.precision);
            total = of_head(part, 1).fma(weight, total);
            sum = part.at::<F32>(number).load::<F32>().fma(weight, sum);
        }
        [sum, total, found]
    }

    /// Where a part has left the largest score of a number's head, and behind it the total.
    fn of_head(&self, number: Int<'c>, which: u32) -> Int<'c> {
        let Shape { width, heads, .. } = self.shape;
        number / width * 2 + (heads * width + which)
    }

    /// Leaves what the warps have found together, as they have left it.
    fn leave_of_block(&self, of_warps: &[SPtr<'c>], to: SPtr<'c>) {
        let Shape { width, heads, .. } = self.shape;
        let numbers = Steps { from: self.code.thread(), to: heads * width, step: THREADS };
        self.code.each(numbers, |number| {
            let [sum, total, largest] = self.together(of_warps, number);
            to.at::<F32>(number).store(sum);
            self.code.when((number % width).eq(0), || {
                to.at::<F32>(self.of_head(number, 0)).store(largest);
                to.at::<F32>(self.of_head(number, 1)).store(total);
            });
        });
    }

    /// Puts together what parts have left and stores the row's columns from `first_col` on: of them the number `from`, and
    /// those at multiples of `step` behind it.
    fn store<P: Ptr>(
        &self,
        left: &[Val<'c, P>],
        (from, step): (Int<'c>, u32),
        row: Int<'c>,
        first_col: Int<'c>,
    ) {
        let Shape { width, heads, .. } = self.shape;
        let (code, out) = (self.code, self.attention.out);
        let param: &Param = self.kernel.param(out);
        let to = place::along(place::row_start(code, param, View::dense(out), row), param.dtype, first_col);
        code.each(Steps { from, to: heads * width, step }, |number| {
            let [sum, total, _] = self.together(left, number);
            // A query that sees no key has zero sums and gives zeros.
            let total = total.gt(0.0).select(total, 1.0f32);
            place::store_group(place::along(to, param.dtype, number), param.dtype, &[sum / total]);
        });
    }
}

/// Stores 1, 2, 4 or 8 numbers.
fn store_shared<'c>(to: SPtr<'c>, numbers: &[Float<'c>]) {
    match numbers {
        [a] => to.store(*a),
        [a, b] => to.store(Val::<V2<F32>>::pair([*a, *b])),
        numbers => {
            for (part, four) in (0u32..).zip(numbers.as_chunks().0) {
                to.at::<F32>(part * 4).store(Val::<V4<F32>>::quad(*four));
            }
        }
    }
}
