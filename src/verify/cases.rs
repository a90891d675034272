//! Inputs of the ladder: tokens, and decisions at densities and counts where kernels go wrong.

use skipc_artifact::interface::RouterPorts;
use skipc_artifact::program::{Extent, Function, Launch, Program};
use skipc_ir::interp::FlatBatch;
use skipc_ir::random_score;
use skipc_runtime::batch::row_columns;

use super::Inputs;
use crate::frontend::spec::random;

/// Lengths of the two sequences that are drawn: several tiles of every kernel, and a tail.
const DRAWN: [u32; 2] = [69, 28];

/// At most so many tokens of the first sequences for number domains in which time counts more than length: two
/// tiles of the kernel interpreter, and a tail.
const SHORT: [usize; 2] = [6, 4];

/// The same for the cuts of steps: more than the largest piece, and another sequence that ends behind the border of a page.
const FOR_CUTS: [usize; 2] = [66, 19];

/// Tokens with the decisions to try on them.
pub(super) struct Cases {
    pub(super) batch: FlatBatch,
    pub(super) list: Vec<Case>,
}

/// One set of decisions.
pub(super) struct Case {
    pub(super) name: String,
    /// One mask `[n]` a router; `None` leaves the routers free.
    pub(super) masks: Option<Vec<Vec<bool>>>,
}

/// A batch that fits the function, drawn.
pub fn drawn_batch(function: &Function) -> FlatBatch {
    let mut left = function.max_tokens;
    let lengths = DRAWN.map(|wanted| {
        let length = wanted.min(function.max_positions).min(left);
        left -= length;
        length as usize
    });
    drawn(function, 7, &lengths)
}

/// Sequences of these lengths of what the function takes: ids from its vocabulary, or rows.
pub(super) fn drawn(function: &Function, seed: u64, lengths: &[usize]) -> FlatBatch {
    if let Some(cols) = row_columns(function) {
        let rows = random::rows(seed, lengths.iter().sum(), cols as usize);
        return FlatBatch::of_rows(rows, lengths.iter().copied());
    }
    let vocab_size = u64::from(function.vocab_size);
    let sequence = |(idx, length): (u64, &usize)| -> Vec<i64> {
        (0..*length as u64).map(|place| (random_score(seed, 0, idx, place) % vocab_size) as i64).collect()
    };
    let sequences: Vec<Vec<i64>> = (0..).zip(lengths).map(sequence).collect();
    FlatBatch::from_sequences(sequences.iter().map(Vec::as_slice))
}

/// The rows of masks for which `keep` holds.
pub(super) fn select_masks(masks: &[Vec<bool>], keep: impl Fn(usize) -> bool) -> Vec<Vec<bool>> {
    let pick = |mask: &Vec<bool>| {
        mask.iter().enumerate().filter(|(row, _)| keep(*row)).map(|(_, bit)| *bit).collect()
    };
    masks.iter().map(pick).collect()
}

/// The most rows that a tile of one of the program's kernels over token rows has.
pub(super) fn tile_rows(program: &Program) -> Option<u32> {
    let rows = |launch: &Launch| match launch {
        Launch::Host { tile_rows, .. } => *tile_rows,
        Launch::Cuda { tiles, .. } => tiles.iter().map(|tile| tile.rows).max().unwrap_or(0),
    };
    let tiles = program.entries.iter().map(|entry| match entry.extent {
        Extent::Counted { .. } => rows(&entry.launch),
        Extent::Fixed(_) => 0,
    });
    tiles.max().filter(|rows| *rows > 0)
}

impl Cases {
    /// The cases of the inputs. `densities` are those that the spec wants, one a router; `tile_rows` is where counts
    /// are at an edge.
    pub(super) fn new(
        inputs: &Inputs<'_>,
        routers: &[RouterPorts],
        densities: &[f64],
        tile_rows: u32,
    ) -> Cases {
        let batch = inputs.batch.clone();
        let n = batch.len();
        let mut cases = Cases { batch, list: Vec::new() };
        if let Some(routing) = inputs.routing {
            cases.push("given", routing.to_vec());
            return cases;
        }
        let tile = tile_rows as usize;
        let share = |density: f64| (density * n as f64).round() as usize;
        let mut push = |name: &str, count: &dyn Fn(f64) -> usize| {
            cases.push(name, masks(routers, n, |router| count(densities[router])));
        };
        push("none", &|_| 0);
        push("one", &|_| 1);
        push("low", &|density| share(density / 4.0));
        push("target", &share);
        push("high", &|density| share(1.0 - (1.0 - density) / 4.0));
        push("all", &|_| n);
        push("all-1", &|_| n.saturating_sub(1));
        for (name, count) in [("tile-1", tile - 1), ("tile", tile), ("tile+1", tile + 1)] {
            if count < n {
                push(name, &|_| count);
            }
        }
        cases.list.push(Case { name: "free".to_owned(), masks: None });
        cases
    }

    /// The inputs with free decisions alone, for what time does not suffice for all of. Given ones are forced.
    pub(super) fn free(inputs: &Inputs<'_>) -> Cases {
        let case = match inputs.routing {
            Some(masks) => Case { name: "given".to_owned(), masks: Some(masks.to_vec()) },
            None => Case { name: "free".to_owned(), masks: None },
        };
        Cases { batch: inputs.batch.clone(), list: vec![case] }
    }

    /// Adds a case unless there is an equal one: in a short batch many densities are the same count.
    fn push(&mut self, name: &str, masks: Vec<Vec<bool>>) {
        if !self.list.iter().any(|case| case.masks.as_ref() == Some(&masks)) {
            self.list.push(Case { name: name.to_owned(), masks: Some(masks) });
        }
    }
}

/// Decisions with this many executed tokens for each router, spread over the batch. Routers that were found equal
/// decide alike.
pub(super) fn masks(routers: &[RouterPorts], n: usize, count: impl Fn(usize) -> usize) -> Vec<Vec<bool>> {
    let decided = |router: usize| -> Vec<bool> {
        let mut rows: Vec<usize> = (0..n).collect();
        rows.sort_by_key(|row| (random_score(1, router as u32, 0, *row as u64), *row));
        let mut mask = vec![false; n];
        rows.into_iter().take(count(router)).for_each(|row| mask[row] = true);
        mask
    };
    let mask = |router: &RouterPorts| match router {
        RouterPorts::Constant(value) => vec![*value; n],
        RouterPorts::Routed { decision, .. } => {
            let same = |other: &RouterPorts| matches!(other, RouterPorts::Routed { decision: other, .. } if other == decision);
            decided(routers.iter().position(same).unwrap_or(0))
        }
    };
    routers.iter().map(mask).collect()
}

/// Inputs of their own.
pub(super) struct Shortened {
    batch: FlatBatch,
    routing: Option<Vec<Vec<bool>>>,
}

impl Shortened {
    pub(super) fn as_inputs<'a>(&'a self, inputs: &Inputs<'a>) -> Inputs<'a> {
        Inputs { batch: &self.batch, routing: self.routing.as_deref(), ..*inputs }
    }
}

impl Inputs<'_> {
    /// The beginnings of the first sequences that are not empty, where every form runs under every decision.
    pub(super) fn shortened(&self) -> Shortened {
        self.beginnings(SHORT)
    }

    /// The same, where forms in steps run under free decisions alone.
    pub(super) fn for_cuts(&self) -> Shortened {
        self.beginnings(FOR_CUTS)
    }

    fn beginnings(&self, lengths: [usize; 2]) -> Shortened {
        let mut kept = vec![false; self.batch.len()];
        let mut begin = 0;
        let sequences = self.batch.sequences.chunk_by(|a, b| a == b);
        for (rank, sequence) in sequences.enumerate() {
            let length = lengths.get(rank).copied().unwrap_or(0).min(sequence.len());
            kept[begin..begin + length].fill(true);
            begin += sequence.len();
        }
        let keep = |row: usize| kept[row];
        Shortened {
            batch: self.batch.select(keep),
            routing: self.routing.map(|masks| select_masks(masks, keep)),
        }
    }
}
