//! Decoding from caches against running every prefix again, on the example and on golden models.

mod checked;
mod exact;
mod front;
mod levels;
mod planted;

use std::cmp::Ordering;
use std::path::Path;

use skipc::driver::pack;
use skipc::driver::pipeline::{self, Request, SkipRuns};
use skipc::driver::trace::Trace;
use skipc::frontend::lower::{Function, KeyValues};
use skipc::frontend::spec;
use skipc::frontend::weights::Weights;
use skipc::verify::steps::{Cut, Room, Waiting, pieces};
use skipc_artifact::interface::Role;
use skipc_artifact::program::{PAGE_ROWS, STEP};
use skipc_artifact::target::{DType, Target};
use skipc_ir::interp::FlatBatch;
use skipc_runtime::decode::bookkeeping::Bookkeeping;
use skipc_runtime::decode::{Cached, Chunk, Decoder, Recompute, Rows, Slot, StepOutputs, likeliest};
use skipc_runtime::{Batch, Device, Model, Module, Options, Session};
use skipc_testkit::golden::cases;

/// Distance of a logit between two orders of summation.
const TOLERANCE: f32 = 2e-4;

const SLOTS: u32 = 5;

fn artefact(spec: &Path, weights: &Path, (key_values, skip_runs): (KeyValues, SkipRuns)) -> Model {
    let model = spec::load(spec).expect("a spec");
    let weights = Weights::open(weights, &model).expect("weights");
    let request = Request {
        targets: vec![(Target::Cpu, DType::F32)],
        key_values: Some(key_values),
        skip_runs,
        max_tokens: Some(2048),
        ..Request::here()
    };
    let compiled = pipeline::compile(&model, &request, &mut Trace::silent()).expect("it compiles");
    let bytes = pack::to_bytes((&model, &weights), &request, compiled).expect("an artefact");
    Model::from_bytes(&bytes).expect("it loads")
}

fn example(key_values: KeyValues) -> Model {
    example_with(key_values, SkipRuns::Apart)
}

fn example_with(key_values: KeyValues, skip_runs: SkipRuns) -> Model {
    let [spec, weights] =
        ["models/kjv-12l-d25.toml", "models/kjv-12l-d25.safetensors"].map(|path| Path::new(path).to_owned());
    artefact(&spec, &weights, (key_values, skip_runs))
}

/// A decoder of a model with so many slots.
fn cached(model: &Model, slots: u32, pages: u32) -> Cached {
    let module = Module::load(model, Device::Cpu, Options::default()).expect("code");
    Cached::new(&module, slots, pages * 16).expect("a cache")
}

/// Both decoders of a model. The cache has room for `pages` pages.
fn decoders(model: &Model, pages: u32) -> (Cached, Recompute) {
    let module = Module::load(model, Device::Cpu, Options::default()).expect("code");
    let cached = Cached::new(&module, SLOTS, pages * 16).expect("a cache");
    let session = Session::of_module(&module).expect("a session");
    (cached, Recompute::new(session, model, SLOTS).expect("it generates"))
}

#[track_caller]
fn compare(what: &str, cached: &StepOutputs, whole: &StepOutputs) {
    if let Err(difference) = difference(cached, whole) {
        panic!("{what}: {difference}");
    }
}

fn difference(cached: &StepOutputs, whole: &StepOutputs) -> Result<(), String> {
    if cached.gates != whole.gates {
        return Err("other decisions".to_owned());
    }
    if cached.logits.len() != whole.logits.len() {
        return Err(format!("{} logits, not {}", cached.logits.len(), whole.logits.len()));
    }
    let mut logits = cached.logits.iter().zip(&whole.logits).enumerate();
    let is_far = |(_, (a, b)): &(usize, (&f32, &f32))| {
        (**a - **b).abs().partial_cmp(&TOLERANCE) != Some(Ordering::Less)
    };
    match logits.find(is_far) {
        Some((idx, (a, b))) => Err(format!("logit {idx} is {a}, the whole prefix gives {b}")),
        None => Ok(()),
    }
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

/// The token at a position of texts that begin alike, in 4 ways to go on from the 20th on.
fn token(way: u64, position: u32, vocab_size: u32) -> u32 {
    let way = if position < 20 { 0 } else { way % 4 };
    (Rng(way * 1000 + u64::from(position)).below(vocab_size.into())) as u32
}

/// What every caller may do with slots, in no order: begin, go on by chunks around pages, share, take back, end. Texts are
/// random, or, if they `begin_alike`, some of a few. Returns how many tokens were known when sequences began.
#[track_caller]
fn exercise(
    what: &str,
    decoders: (Cached, Recompute),
    begin_alike: bool,
    rounds: usize,
    rng: &mut Rng,
) -> u32 {
    try_exercise(decoders, begin_alike, rounds, rng)
        .unwrap_or_else(|difference| panic!("{what}: {difference}"))
}

/// The next tokens of some slots of these lengths, around pages, up to so many positions.
fn next_tokens(
    lengths: &[Option<u32>],
    positions: u32,
    rng: &mut Rng,
    draw: impl Fn(&mut Rng, u64, u32) -> u32,
) -> Vec<(Slot, Vec<u32>, Rows)> {
    let mut tokens = Vec::new();
    for (idx, length) in (0..).zip(lengths) {
        let Some(length) = length.filter(|length| *length < positions) else { continue };
        let size = [1, 1, 1, 2, 15, 16, 17][rng.below(7) as usize].min(positions - length);
        let way = rng.below(4);
        let new = (length..length + size).map(|position| draw(rng, way, position)).collect();
        let rows = [Rows::None, Rows::Last, Rows::All][rng.below(3) as usize];
        if rng.below(3) > 0 {
            tokens.push((Slot(idx), new, rows));
        }
    }
    tokens
}

/// As [`exercise`]; says what differs first.
fn try_exercise<B: Bookkeeping>(
    (mut cached, mut whole): (Cached<B>, Recompute),
    begin_alike: bool,
    rounds: usize,
    rng: &mut Rng,
) -> Result<u32, String> {
    let limits = cached.limits();
    let positions = limits.positions.min(60);
    let mut lengths: Vec<Option<u32>> = vec![None; SLOTS as usize];
    let mut all_known = 0;
    let (mut n_run, mut computed) = (0, Vec::new());
    let draw = |rng: &mut Rng, way: u64, position: u32| match begin_alike {
        true => token(way, position, limits.vocab_size),
        false => rng.below(limits.vocab_size.into()) as u32,
    };
    for round in 0..rounds {
        let slot = Slot(rng.below(SLOTS.into()) as u32);
        match (lengths[slot.0 as usize], rng.below(8)) {
            (None, _) => {
                let number = rng.below(3) as u32;
                let way = rng.below(4);
                let tokens: Vec<u32> = (0..positions).map(|position| draw(rng, way, position)).collect();
                let known = cached.resume(slot, number, &tokens).unwrap();
                whole.start(slot, number).unwrap();
                if known > 0 {
                    let tokens = &tokens[..known as usize];
                    whole.step(&[Chunk { slot, tokens, rows: Rows::None }]).unwrap();
                }
                all_known += known;
                lengths[slot.0 as usize] = Some(known);
            }
            (Some(_), 0) => {
                cached.free(slot).unwrap();
                whole.free(slot).unwrap();
                lengths[slot.0 as usize] = None;
            }
            (Some(length), 1) => {
                let kept = rng.below(u64::from(length) + 1) as u32;
                cached.truncate(slot, kept).unwrap();
                whole.truncate(slot, kept).unwrap();
                lengths[slot.0 as usize] = Some(kept);
            }
            (Some(length), 2) => {
                let Some(to) = lengths.iter().position(Option::is_none) else { continue };
                // Each may compute what waits of both.
                n_run += length;
                cached.fork(slot, Slot(to as u32)).unwrap();
                whole.fork(slot, Slot(to as u32)).unwrap();
                lengths[to] = Some(length);
            }
            _ => {
                let tokens = next_tokens(&lengths, positions, rng, draw);
                let chunks: Vec<Chunk<'_>> = tokens
                    .iter()
                    .map(|(slot, tokens, rows)| Chunk { slot: *slot, tokens, rows: *rows })
                    .collect();
                if chunks.is_empty() || !cached.fits(&chunks) {
                    continue;
                }
                let got = cached.step(&chunks).unwrap();
                difference(&got, &whole.step(&chunks).unwrap())
                    .map_err(|difference| format!("round {round}: {difference}"))?;
                n_run += chunks.iter().map(|chunk| chunk.tokens.len() as u32).sum::<u32>();
                computed.resize(got.computed.len(), 0);
                computed.iter_mut().zip(&got.computed).for_each(|(sum, count)| *sum += count);
                // What waits is computed once.
                if computed.iter().any(|computed| *computed > n_run) {
                    return Err(format!(
                        "round {round}: {n_run} tokens ran, keys and values of {computed:?} were computed"
                    ));
                }
                for Chunk { slot, tokens, .. } in chunks {
                    lengths[slot.0 as usize] =
                        lengths[slot.0 as usize].map(|length| length + tokens.len() as u32);
                }
            }
        }
    }
    let (pages, in_use) = (cached.pages(), lengths.iter().flatten().map(|length| length.div_ceil(16)));
    match pages.used <= in_use.sum() && pages.used + pages.kept + pages.free == 24 {
        true => Ok(all_known),
        false => Err(format!("{pages:?}")),
    }
}

/// Two slots in turn, in pieces that end before, at and behind the borders of pages and of tiles, alone and together, so
/// that the bound of the batch grows on the way. Then both are freed, and others take their pages.
#[test]
fn cuts_of_every_size_give_what_whole_prefixes_give() {
    let model = example(KeyValues::Lazy);
    let (mut cached, mut whole) = decoders(&model, 16);
    let mut rng = Rng(7);
    for (round, size) in [1, 7, 16, 17, 64, 15].into_iter().enumerate() {
        let texts: [Vec<u32>; 2] = [97, 83].map(|len| (0..len).map(|_| rng.below(256) as u32).collect());
        // Numbers of slots change, so that pages of one become those of the other.
        let slots = [Slot(round as u32 % 2), Slot(1 - round as u32 % 2)];
        for slot in slots {
            cached.start(slot, 0).unwrap();
            whole.start(slot, 0).unwrap();
        }
        let mut pieces = texts.each_ref().map(|text| text.chunks(size));
        for turn in 0.. {
            // Each third step takes a piece of both.
            let taken: Vec<(Slot, &[u32])> = (0..2)
                .filter(|idx| turn % 3 == 2 || turn % 2 == *idx)
                .filter_map(|idx| Some((slots[idx], pieces[idx].next()?)))
                .collect();
            if taken.is_empty() && pieces.iter_mut().all(|pieces| pieces.len() == 0) {
                break;
            }
            let chunk = |&(slot, tokens)| Chunk { slot, tokens, rows: Rows::All };
            let chunks: Vec<Chunk<'_>> = taken.iter().map(chunk).collect();
            if !chunks.is_empty() {
                let what = format!("pieces of {size}, turn {turn}");
                compare(&what, &cached.step(&chunks).unwrap(), &whole.step(&chunks).unwrap());
            }
        }
        for slot in slots {
            cached.free(slot).unwrap();
            whole.free(slot).unwrap();
        }
    }
}

/// To the model's last position: each token is the likeliest of its row when the whole is scored at once.
#[test]
fn a_thousand_greedy_tokens_are_those_of_the_whole_sequence() {
    let model = example(KeyValues::Eager);
    let mut decoder = cached(&model, 1, 64);
    let mut tokens: Vec<u32> = b"And God said, Let there".iter().map(|byte| u32::from(*byte)).collect();
    let n_positions = decoder.limits().positions as usize;
    decoder.start(Slot(0), 0).unwrap();
    let mut steps = StepOutputs::default();
    let mut done = 0;
    while done < n_positions {
        let out = decoder.step(&[Chunk { slot: Slot(0), tokens: &tokens[done..], rows: Rows::All }]).unwrap();
        done = tokens.len();
        let row = out.logits.len() - decoder.limits().vocab_size as usize;
        tokens.push(likeliest(&out.logits[row..]));
        steps.logits.extend(out.logits);
        steps.gates.resize(out.gates.len(), Vec::new());
        steps.gates.iter_mut().zip(out.gates).for_each(|(all, new)| all.extend(new));
    }
    tokens.truncate(n_positions);
    let mut session = Session::new(&model, Device::Cpu, Options::default()).expect("a session");
    let scored = session.run(&Batch::of_sequence(tokens.clone())).expect("logits");
    assert!(tokens.len() > 1000);
    steps.overflow.clone_from(&scored.overflow);
    let (logits, gates, overflow) = (scored.logits, scored.gates, scored.overflow);
    let whole = StepOutputs { logits, gates, overflow, ..StepOutputs::default() };
    compare("a thousand tokens", &steps, &whole);
    for (row, next) in whole.logits.chunks_exact(256).zip(&tokens[1..]).skip(22) {
        let (best, taken) = (row[likeliest(row) as usize], row[*next as usize]);
        assert!(best - taken <= 2.0 * TOLERANCE, "token {next} has {taken}, the likeliest {best}");
    }
}

/// Prompts of unequal lengths, one of them a single token, then one token of each a step.
#[test]
fn slots_beside_others_give_what_they_give_alone() {
    let model = example(KeyValues::Lazy);
    let mut rng = Rng(11);
    let texts: Vec<Vec<u32>> =
        (0..32).map(|idx| (0..1 + idx * 5 % 37 + 9).map(|_| rng.below(256) as u32).collect()).collect();
    // The last nine tokens come one by one.
    let pieces = |text: &[u32]| -> Vec<Vec<u32>> {
        let (prompt, rest) = text.split_at(text.len() - 9);
        [prompt.to_vec()].into_iter().chain(rest.iter().map(|token| vec![*token])).collect()
    };
    let mut decoder = cached(&model, 32, 128);
    let mut alone = Vec::new();
    for text in &texts {
        decoder.start(Slot(0), 0).unwrap();
        let step = |tokens: Vec<u32>| {
            decoder.step(&[Chunk { slot: Slot(0), tokens: &tokens, rows: Rows::Last }]).unwrap()
        };
        alone.push(pieces(text).into_iter().map(step).collect::<Vec<StepOutputs>>());
        decoder.free(Slot(0)).unwrap();
    }
    for n_slots in [1, 8, 32] {
        (0..n_slots).for_each(|slot| decoder.start(Slot(slot), 0).unwrap());
        for turn in 0..10 {
            let tokens: Vec<Vec<u32>> =
                texts[..n_slots as usize].iter().map(|text| pieces(text).swap_remove(turn)).collect();
            let chunk = |(slot, tokens)| Chunk { slot: Slot(slot), tokens, rows: Rows::Last };
            let chunks: Vec<Chunk<'_>> = (0..).zip(tokens.iter().map(Vec::as_slice)).map(chunk).collect();
            let together = decoder.step(&chunks).unwrap();
            let mut wanted = StepOutputs { overflow: together.overflow.clone(), ..StepOutputs::default() };
            wanted.gates.resize(together.gates.len(), Vec::new());
            for alone in &alone[..n_slots as usize] {
                wanted.logits.extend(&alone[turn].logits);
                wanted.gates.iter_mut().zip(&alone[turn].gates).for_each(|(all, own)| all.extend(own));
            }
            compare(&format!("{n_slots} slots, turn {turn}"), &together, &wanted);
        }
        (0..n_slots).for_each(|slot| decoder.free(Slot(slot)).unwrap());
    }
}

#[test]
fn slots_of_the_example_give_what_whole_prefixes_give() {
    for (key_values, skip_runs) in [
        (KeyValues::Eager, SkipRuns::Apart),
        (KeyValues::Lazy, SkipRuns::Apart),
        (KeyValues::Lazy, SkipRuns::Together),
    ] {
        let what = format!("the example, {key_values:?}, {skip_runs:?}");
        let model = example_with(key_values, skip_runs);
        let known = exercise(&what, decoders(&model, 24), false, 120, &mut Rng(1));
        assert_eq!(known, 0);
    }
}

/// An engine asks this before it begins a sequence, and would else begin one only to put it back.
#[test]
fn a_free_slot_needs_pages_for_all_its_tokens() {
    let (cached, _) = decoders(&example(KeyValues::Eager), 24);
    let tokens = vec![0; 24 * 16 + 1];
    let fits = |tokens| cached.fits(&[Chunk { slot: Slot(0), tokens, rows: Rows::Last }]);
    assert!(fits(&tokens[1..]) && !fits(&tokens));
}

/// Pages that ended sequences leave give what the tokens themselves give, until they are given up for others.
#[test]
fn sequences_that_begin_alike_find_their_pages() {
    for key_values in [KeyValues::Eager, KeyValues::Lazy] {
        let (cached, whole) = decoders(&example(key_values), 24);
        let what = format!("the example, {key_values:?}");
        let known = exercise(&what, (cached.sharing_prefixes(), whole), true, 240, &mut Rng(7));
        // Pages in which something waits are not shared.
        assert!(known >= 160 || key_values == KeyValues::Lazy, "{what}: {known}");
    }
}

/// Each kind of router, scaled gates, keys of active tokens alone, layers of every kind.
#[test]
fn slots_of_golden_models_give_what_whole_prefixes_give() {
    let mut checked = 0;
    for (seed, case) in (2u64..).zip(cases(Path::new("tests/golden"))) {
        let model = spec::load(&case.spec).expect("a spec");
        if !Function::of(&model).contains(&Function::Step) || case.name.starts_with("kjv") {
            continue;
        }
        // Nothing says of a whole prefix where its prompt ended; the golden continuations are what such a model gives.
        if model.keeps_prompts() {
            continue;
        }
        let forms = [(KeyValues::Eager, SkipRuns::Apart), (KeyValues::Lazy, SkipRuns::Together)];
        for (idx, form) in (0..).zip(forms) {
            let (cached, whole) = decoders(&artefact(&case.spec, &case.weights, form), 24);
            let begin_alike = (seed + idx).is_multiple_of(2);
            let cached = if begin_alike { cached.sharing_prefixes() } else { cached };
            let what = format!("{}, {form:?}, begin alike: {begin_alike}", case.name);
            exercise(&what, (cached, whole), begin_alike, 24, &mut Rng(seed));
        }
        checked += 1;
    }
    assert!(checked >= 25, "only {checked} golden models generate");
}

/// Runs two sequences of a model with `n_routers` routers in steps, under these decisions.
fn forced_steps(model: &Model, sequences: [&[i64]; 2], gates: &[Vec<u8>], cut: Cut) -> StepOutputs {
    let module = Module::load(model, Device::Cpu, Options { checked: true, ..Options::default() });
    let module = module.expect("code");
    let interface = &module.function(STEP).expect("steps").interface;
    let positions = Cached::new(&module, 1, PAGE_ROWS).expect("a cache").limits().positions;
    let batch = FlatBatch::from_sequences(sequences);
    let room = Room { pages: positions.div_ceil(PAGE_ROWS) as usize, tokens: usize::MAX };
    let (pieces, n_rows) = pieces(&batch, cut, room);
    let mut state = module.state_with_cache(n_rows).expect("a state");
    let mut wanted = vec![Role::Logits];
    wanted.extend((0..gates.len() as u32).map(|router| Role::Decision { router }));
    let mut whole =
        StepOutputs { gates: vec![vec![0; batch.tokens.len()]; gates.len()], ..StepOutputs::default() };
    let mut waiting = Waiting::new(gates.len());
    for mut piece in pieces {
        piece.cached.pending = waiting.table(&piece);
        let mut inputs = piece.bytes();
        let own = |gate: &Vec<u8>| piece.rows.iter().map(|row| gate[*row]).collect();
        inputs.extend((0..).zip(gates).map(|(router, gate)| (Role::Forced { router }, own(gate))));
        inputs.retain(|(role, _)| interface.buffer(role).is_some());
        let results = state.call(STEP, piece.rows.len() as u32, &inputs, &wanted).expect("a step");
        let decided: Vec<Vec<bool>> =
            results[1..].iter().map(|gate| gate.iter().map(|bit| *bit != 0).collect()).collect();
        waiting.advance(&piece, &decided);
        let cols = results[0].len() / 4 / piece.rows.len();
        whole.logits.resize(batch.tokens.len() * cols, f32::NAN);
        for (idx, row) in piece.rows.iter().enumerate() {
            let logits =
                results[0].as_chunks().0[idx * cols..][..cols].iter().map(|word| f32::from_le_bytes(*word));
            whole.logits.splice(row * cols..(row + 1) * cols, logits);
            whole.gates.iter_mut().zip(&results[1..]).for_each(|(all, new)| all[*row] = new[idx]);
        }
    }
    whole
}

/// Keys of active tokens alone: nobody executes, so that each layer looks at no key at all; then one token at the end of
/// a page, the first of one, or each behind a page is the first that does.
#[test]
fn layers_that_nobody_executed_yet_give_what_whole_sequences_give() {
    let lengths = [33, 20];
    let tokens: Vec<u32> = (0..53).map(|idx| idx * 7 % 11).collect();
    let [a, b] =
        [&tokens[..33], &tokens[33..]].map(|part| part.iter().map(|id| i64::from(*id)).collect::<Vec<i64>>());
    let nobody: fn(u32) -> bool = |_| false;
    let executed: [fn(u32) -> bool; 4] =
        [nobody, |position| position == 15, |position| position == 16, |position| position > 16];
    let mut n_cases = 0;
    for name in ["gumbel-active-rope", "gumbel-raw-active", "sigmoid-raw-active", "wrap-both-active"] {
        let folder = Path::new("tests/golden").join(name);
        let form = (KeyValues::Lazy, SkipRuns::Together);
        let model = artefact(&folder.join("spec.toml"), &folder.join("weights.safetensors"), form);
        let mut session = Session::new(&model, Device::Cpu, Options::default()).expect("a session");
        let n_routers = session.run(&Batch::of_sequence(vec![1])).expect("logits").gates.len();
        for (which, executes) in executed.iter().enumerate() {
            let gate =
                lengths.iter().flat_map(|length| 0..*length).map(|position| u8::from(executes(position)));
            let gates = vec![gate.collect::<Vec<u8>>(); n_routers];
            let batch = Batch {
                tokens: tokens.clone(),
                lengths: lengths.to_vec(),
                routing: Some(gates.clone()),
                ..Batch::default()
            };
            let scored = session.run(&batch).expect("logits");
            assert!(scored.logits.iter().all(|logit| logit.is_finite()));
            let whole = StepOutputs { logits: scored.logits, gates: scored.gates, ..StepOutputs::default() };
            for cut in [Cut::Together(1), Cut::InTurn(1), Cut::Together(16), Cut::InTurn(17)] {
                let steps = forced_steps(&model, [&a, &b], &gates, cut);
                compare(&format!("{name}, decisions {which}, {cut}"), &steps, &whole);
                n_cases += 1;
            }
        }
    }
    assert_eq!(n_cases, 64);
}

/// What does not fit is refused, and leaves the slots as they were.
#[test]
fn a_full_cache_refuses_and_forgets_nothing() {
    let model = example(KeyValues::Lazy);
    let (mut cached, mut whole) = decoders(&model, 4);
    let chunk = |slot, tokens| Chunk { slot: Slot(slot), tokens, rows: Rows::Last };
    for slot in [0, 1] {
        cached.start(Slot(slot), 0).unwrap();
        whole.start(Slot(slot), 0).unwrap();
    }
    let long = [65; 48];
    cached.step(&[chunk(0, &long)]).unwrap();
    whole.step(&[chunk(0, &long)]).unwrap();
    let too_much = [chunk(1, &long[..17])];
    assert!(!cached.fits(&too_much));
    assert_eq!(cached.step(&too_much).unwrap_err().code(), "run::slot");
    assert!(cached.step(&[chunk(1, &[70_000])]).is_err());
    let next = [chunk(1, &long[..16])];
    compare("a chunk that fits", &cached.step(&next).unwrap(), &whole.step(&next).unwrap());
    cached.free(Slot(0)).unwrap();
    assert!(cached.fits(&too_much));
}
