//! A batch in steps: sequences cut into pieces that go through the function that goes on with sequences, one after the other,
//! each finding in the caches what those before it left. Whatever the cut, the rows are those of the whole.

use std::collections::BTreeMap;

use skipc_artifact::interface::Role;
use skipc_artifact::pending;
use skipc_artifact::program::{BOUND_UNIT, PAGE_ROWS, STEP};
use skipc_ir::interp::{Datum, Env, FlatBatch, Number, Weights};
use skipc_ir::{Domain, Graph};
use skipc_plan::Plan;
use skipc_plan::interp::{self as kernels, Cached, Constants, Element, Mode, States, Tiling};
use skipc_runtime::State;
use skipc_runtime::choices::{self, Choices};
use skipc_runtime::distance::Bound;

use super::LadderError;
use super::cases::select_masks;
use super::forms::{Runner, TILE_ROWS, kernel_batch, outcome_of};
use crate::verify::reference::{Forced, Outcome, choices_of};

/// How sequences are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Each step takes so many tokens of every sequence that has some left.
    Together(usize),
    /// Each step takes so many tokens of one sequence, sequences one after the other.
    InTurn(usize),
    /// Each step takes so many tokens of one sequence, then of another, until none has any left.
    Interleaved(usize),
}

/// The cuts that every form sees: single tokens, pieces that end before, at and behind the borders of pages and tiles, and
/// sequences beside, after and between each other.
pub const CUTS: [Cut; 7] = [
    Cut::Together(1),
    Cut::Together(7),
    Cut::Together(16),
    Cut::InTurn(17),
    Cut::Together(64),
    Cut::Interleaved(1),
    Cut::Interleaved(16),
];

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cut::Together(size) => write!(f, "{size} a step"),
            Cut::InTurn(size) => write!(f, "{size} in turn"),
            Cut::Interleaved(size) => write!(f, "{size} interleaved"),
        }
    }
}

/// What a step has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Pages of the caches that a sequence can have.
    pub pages: usize,
    /// Tokens, those whose keys and values it computes included.
    pub tokens: usize,
}

/// What graphs and kernels of steps are sized for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// What a step has room for.
    pub(super) room: Room,
    /// Routers of the model.
    pub(super) routers: usize,
}

/// Tokens of a sequence whose keys and values may wait, at most: few, so that both reasons to compute them come up.
const MOST_PENDING: u32 = 5;

/// A step of a batch that was cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Its rows of the whole, ascending.
    pub rows: Vec<usize>,
    /// Its tokens. Sequences are numbered from 0 on in each step.
    pub batch: FlatBatch,
    /// Where they lie in the caches.
    pub cached: Cached,
    /// The sequence of the whole that each of the step's is.
    of_whole: Vec<i64>,
}

/// The pieces of a batch, and how many rows the caches need. `pages` is how many a sequence can have; a step takes at most `tokens`
/// of several sequences, those included whose keys and values waited.
pub fn pieces(batch: &FlatBatch, cut: Cut, Room { pages: n_pages, tokens: most }: Room) -> (Vec<Piece>, u32) {
    let mut sequences: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (row, sequence) in batch.sequences.iter().enumerate() {
        sequences.entry(*sequence).or_default().push(row);
    }
    // Pages of all sequences take turns, the first of them last, so that none lies where another order would put it.
    let longest = sequences.values().map(|rows| rows.len().div_ceil(PAGE_ROWS as usize)).max().unwrap_or(0);
    let all_pages = longest * sequences.len();
    let page = |rank: usize, page: usize| (all_pages - 1 - (page * sequences.len() + rank)) as u32;
    let turns = turns(&sequences.values().map(Vec::as_slice).collect::<Vec<_>>(), cut, most);
    let ranks: Vec<i64> = sequences.keys().copied().collect();
    let piece = |mut rows: Vec<usize>| {
        rows.sort_unstable();
        let mut chosen = vec![false; batch.len()];
        rows.iter().for_each(|row| chosen[*row] = true);
        let mut step = batch.select(|row| chosen[row]);
        let mut cached = Cached { logit_rows: (0..rows.len() as u32).collect(), ..Cached::default() };
        let mut of_step: Vec<i64> = step.sequences.clone();
        of_step.dedup();
        for (sequence, position) in step.sequences.iter().zip(&step.positions) {
            let rank = ranks.iter().position(|other| other == sequence).unwrap_or(0);
            let (of_page, within) = (*position as usize / PAGE_ROWS as usize, *position as u32 % PAGE_ROWS);
            cached.requests.push(*sequence as u32);
            cached.places.push(page(rank, of_page) * PAGE_ROWS + within);
        }
        for sequence in &of_step {
            let rank = ranks.iter().position(|other| other == sequence).unwrap_or(0);
            let own = (0..n_pages).map(|idx| if idx < longest { page(rank, idx) } else { u32::MAX });
            cached.pages.extend(own);
        }
        let renumber = |sequence: &mut i64| {
            *sequence = of_step.iter().position(|other| other == sequence).unwrap_or(0) as i64;
        };
        step.sequences.iter_mut().for_each(renumber);
        Piece { rows, batch: step, cached, of_whole: of_step }
    };
    let pieces = turns.into_iter().map(piece).collect();
    let n_rows = (all_pages as u32 * PAGE_ROWS).next_multiple_of(BOUND_UNIT);
    (pieces, n_rows)
}

/// The rows of each step of sequences of these rows.
fn turns(sequences: &[&[usize]], cut: Cut, most: usize) -> Vec<Vec<usize>> {
    let in_turn = |rows: &[usize], size| rows.chunks(size).map(<[usize]>::to_vec).collect::<Vec<_>>();
    let (Cut::Together(size) | Cut::InTurn(size) | Cut::Interleaved(size)) = cut;
    let n_turns = sequences.iter().map(|rows| rows.len().div_ceil(size)).max().unwrap_or(0);
    let of_turn =
        |turn| sequences.iter().filter_map(move |rows| Some((rows.chunks(size).nth(turn)?, rows.len())));
    match cut {
        Cut::InTurn(_) => sequences.iter().flat_map(|rows| in_turn(rows, size)).collect(),
        Cut::Interleaved(_) => (0..n_turns).flat_map(of_turn).map(|(piece, _)| piece.to_vec()).collect(),
        Cut::Together(_) => (0..n_turns).flat_map(|turn| together(of_turn(turn), most)).collect(),
    }
}

/// Pieces of sequences of these lengths in steps that have room for so many tokens, with those that waited.
fn together<'a>(pieces: impl Iterator<Item = (&'a [usize], usize)>, most: usize) -> Vec<Vec<usize>> {
    let (mut steps, mut n_rows) = (vec![Vec::new()], 0);
    for (piece, length) in pieces {
        // What waits is of the same sequence.
        let needs = (piece.len() + MOST_PENDING as usize).min(length);
        if n_rows > 0 && n_rows + needs > most {
            steps.push(Vec::new());
            n_rows = 0;
        }
        steps.last_mut().into_iter().for_each(|step| step.extend_from_slice(piece));
        n_rows += needs;
    }
    steps
}

/// A form that runs each piece of a batch by `step`, and puts the rows together. `begin` makes the states before the first,
/// with caches of so many rows.
fn in_steps<'a, N: Clone + 'a, S>(
    (form, numbers, bound): (String, &'static str, Bound),
    (cut, sizes): (Cut, Sizes),
    mut begin: impl FnMut(u32) -> Result<S, LadderError> + 'a,
    mut step: impl FnMut(&mut S, &Piece, Option<&[Vec<bool>]>) -> Result<Outcome<N>, LadderError> + 'a,
) -> Runner<'a, N> {
    let run = move |batch: &FlatBatch, forced: Option<&[Vec<bool>]>| {
        let (pieces, n_rows) = pieces(batch, cut, sizes.room);
        let mut states = begin(n_rows)?;
        let mut waiting = Waiting::new(sizes.routers);
        let mut rows: Vec<Option<OfRow<N>>> = vec![None; batch.len()];
        for mut piece in pieces {
            piece.cached.pending = waiting.table(&piece);
            let own = forced.map(|masks| select_masks(masks, |row| piece.rows.binary_search(&row).is_ok()));
            let outcome = step(&mut states, &piece, own.as_deref())?;
            waiting.advance(&piece, &outcome.gates);
            let width = outcome.logits.len() / piece.rows.len().max(1);
            for (idx, row) in piece.rows.iter().enumerate() {
                let gates = outcome.gates.iter().map(|gate| gate[idx]).collect();
                let choices = outcome.choices.iter().map(|layer| layer.rows(idx..idx + 1)).collect();
                rows[*row] = Some((outcome.logits[idx * width..][..width].to_vec(), gates, choices));
            }
        }
        let mut whole = Outcome::default();
        for (logits, gates, choices) in rows.into_iter().flatten() {
            choices::extend_all(&mut whole.choices, &choices);
            whole.logits.extend(logits);
            whole.gates.resize(gates.len(), Vec::new());
            whole.gates.iter_mut().zip(gates).for_each(|(mask, gate)| mask.push(gate));
        }
        Ok(whole)
    };
    Runner::new(format!("{form}, {cut}"), numbers, bound, run)
}

/// Logits, decisions and choices of experts of a row.
type OfRow<N> = (Vec<N>, Vec<bool>, Vec<Choices>);

/// The first position of each sequence whose keys and values wait, by router.
#[derive(Debug)]
pub struct Waiting {
    first: BTreeMap<i64, Vec<u32>>,
    n_routers: usize,
}

impl Waiting {
    /// Nothing has run yet.
    #[must_use]
    pub fn new(n_routers: usize) -> Self {
        Self { first: BTreeMap::new(), n_routers }
    }

    /// What a step is told of this piece's sequences.
    pub fn table(&mut self, piece: &Piece) -> Vec<u32> {
        let mut table = Vec::new();
        for sequence in &piece.of_whole {
            let first = self.first.entry(*sequence).or_insert_with(|| vec![0; self.n_routers]);
            table.extend(first.iter().copied().chain([MOST_PENDING]));
        }
        table
    }

    /// Notes that a step has run this piece under these decisions, `[routers][tokens]`.
    pub fn advance(&mut self, piece: &Piece, gates: &[Vec<bool>]) {
        for (idx, sequence) in (0..).zip(&piece.of_whole) {
            let rows: Vec<usize> =
                (0..piece.rows.len()).filter(|row| piece.batch.sequences[*row] == idx).collect();
            let end = rows.last().map_or(0, |row| piece.batch.positions[*row] as u32 + 1);
            if let Some(first) = self.first.get_mut(sequence) {
                pending::advance(first, MOST_PENDING, end, |router| {
                    rows.iter().any(|row| gates[router][*row])
                });
            }
        }
    }
}

/// The graph in the number domain `N`.
pub(super) fn graph<'a, N: Domain>(
    form: &str,
    (numbers, bound): (&'static str, Bound),
    cut: (Cut, Sizes),
    graph: &'a Graph,
    weights: &'a dyn Weights<N>,
) -> Runner<'a, N> {
    let ports = graph.signature().states;
    let begin = move |n_rows: u32| {
        let zeros =
            |port: &skipc_ir::Port| Some((port.role.clone(), Datum::zeros(&port.ty, n_rows as usize)?));
        Ok(ports.iter().filter_map(zeros).collect::<BTreeMap<Role, Datum<N>>>())
    };
    let step = move |states: &mut BTreeMap<Role, Datum<N>>, piece: &Piece, forced: Option<&[Vec<bool>]>| {
        let mut tensors = std::mem::take(states);
        tensors.extend(piece.tensors(cut.1.room.pages));
        let routing = Forced { graph, masks: forced };
        let env = Env { batch: &piece.batch, tensors, weights, routing: &routing };
        let mut outcome = Outcome::default();
        let results = skipc_ir::run(graph, &env).map_err(|error| LadderError::stage("steps", &error))?;
        for (role, datum) in results {
            match (role, datum) {
                (Role::Logits, Datum::Real { data, .. }) => outcome.logits = data,
                (Role::Decision { .. }, Datum::Mask(mask)) => outcome.gates.push(mask),
                (Role::Choices { of, .. }, Datum::Real { cols, data }) => {
                    outcome.choices.push(choices_of(of, cols, &data));
                }
                (role @ (Role::State { .. } | Role::PromptState { .. }), datum) => {
                    states.insert(role, datum);
                }
                _ => {}
            }
        }
        Ok(outcome)
    };
    in_steps((form.to_owned(), numbers, bound), cut, begin, step)
}

/// The planned kernels in the number domain `N`.
pub(super) fn kernels_in<'a, N: Element>(
    (numbers, bound): (&'static str, Bound),
    cut: (Cut, Sizes),
    plan: &'a Plan,
    constants: &'a Constants<N>,
) -> Runner<'a, N> {
    let begin = |n_rows: u32| Ok(States::with_cache(n_rows));
    let step = move |states: &mut States<N>, piece: &Piece, forced: Option<&[Vec<bool>]>| {
        let batch = piece.kernel_batch(forced);
        let places = (Mode::Arena, Tiling::of(TILE_ROWS));
        let outcome = kernels::run_plan_in::<N>(plan, constants, states, &batch, places);
        let outcome = outcome.map_err(|fault| LadderError::stage("kernels", &fault))?;
        Ok(outcome_of(outcome))
    };
    in_steps(("kernels".to_owned(), numbers, bound), cut, begin, step)
}

/// The machine's own code.
pub(super) fn code<'a>(module: skipc_runtime::Module, bound: Bound, cut: (Cut, Sizes)) -> Runner<'a, f64> {
    let (form, numbers) = (module.program().target.to_string(), module.program().dtype.name());
    let n_routers = module.program().function(STEP).map_or(0, |step| step.interface.routers().len() as u32);
    let layers = module.program().function(STEP).map_or_else(Vec::new, |step| step.interface.choices());
    let roles: Vec<Role> = module
        .program()
        .function(STEP)
        .into_iter()
        .flat_map(|step| step.interface.ports.iter().map(|port| port.role.clone()))
        .collect();
    let begin = move |n_rows: u32| {
        let mut state = module.state_with_cache(n_rows)?;
        // Nothing is kept yet.
        state.forget_cached(0..state.cached_rows())?;
        Ok(state)
    };
    let step = move |state: &mut State, piece: &Piece, forced: Option<&[Vec<bool>]>| {
        let mut inputs = piece.bytes();
        for (router, mask) in (0..).zip(forced.unwrap_or_default()) {
            inputs.push((Role::Forced { router }, mask.iter().map(|bit| u8::from(*bit)).collect()));
        }
        inputs.retain(|(role, _)| roles.contains(role));
        let mut wanted = vec![Role::Logits];
        wanted.extend((0..n_routers).map(|router| Role::Decision { router }));
        wanted.extend(layers.iter().map(|(role, _)| role.clone()));
        let mut results = state.call(STEP, piece.rows.len() as u32, &inputs, &wanted)?.into_iter();
        let logits = results.next().unwrap_or_default();
        let logits = logits.as_chunks().0.iter().map(|word| f64::from(f32::from_le_bytes(*word))).collect();
        let gates = results.by_ref().take(n_routers as usize);
        let gates = gates.map(|gate| gate.iter().map(|bit| *bit != 0).collect()).collect();
        let function = state.module().program().function(STEP);
        let choices = function.map_or_else(Vec::new, |step| choices::of_results(step, results));
        Ok(Outcome { logits, gates, choices, ..Outcome::default() })
    };
    in_steps((form, numbers, bound), cut, begin, step)
}

impl Piece {
    /// What a graph is given beside the tokens and the states, for sequences of at most `n_pages` pages.
    pub fn tensors<N: Number>(&self, n_pages: usize) -> BTreeMap<Role, Datum<N>> {
        let ints = |words: &[u32]| Datum::Ints(words.iter().map(|word| i64::from(*word)).collect());
        let n = self.rows.len();
        // A table row for each token, of which those of the sequences count.
        let mut pages = self.cached.pages.clone();
        pages.resize(n * n_pages, u32::MAX);
        let mut pending = self.cached.pending.clone();
        pending.resize(n * (pending.len() / self.of_whole.len().max(1)), 0);
        BTreeMap::from([
            (Role::Requests, ints(&self.cached.requests)),
            (Role::Places, ints(&self.cached.places)),
            (Role::Pages, ints(&pages)),
            (Role::Pending, ints(&pending)),
            (Role::Margins, Datum::Real { cols: 1, data: vec![N::ZERO; n] }),
            (Role::LogitRows, Datum::Set { rows: (0..n).collect(), of: n }),
        ])
    }

    /// What compiled code may be given; not every function has all these ports.
    pub fn bytes(&self) -> Vec<(Role, Vec<u8>)> {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let batch = self.kernel_batch(None);
        vec![
            (Role::Tokens, words(&batch.tokens)),
            (Role::Positions, words(&batch.positions)),
            (Role::Sequences, words(&batch.sequences)),
            (Role::Requests, words(&self.cached.requests)),
            (Role::Places, words(&self.cached.places)),
            (Role::Pages, words(&self.cached.pages)),
            (Role::Pending, words(&self.cached.pending)),
            (Role::Margins, words(&vec![0f32.to_bits(); self.rows.len()])),
            (Role::LogitRows, words(&self.cached.logit_rows)),
        ]
    }

    /// What planned kernels are given.
    pub fn kernel_batch(&self, forced: Option<&[Vec<bool>]>) -> kernels::StepInput {
        kernels::StepInput { cached: Some(self.cached.clone()), ..kernel_batch(&self.batch, forced) }
    }
}
