//! Decoding from caches against running every prefix again, on the example and on golden models.

use std::path::Path;

use skipc::driver::pack;
use skipc::driver::pipeline::{self, Request};
use skipc::driver::trace::Trace;
use skipc::frontend::lower::KeyValues;
use skipc::frontend::spec;
use skipc::frontend::weights::Weights;
use skipc_artifact::target::{DType, Target};
use skipc_runtime::decode::{Cached, Chunk, Decoder, Recompute, Rows, Slot, StepOutputs};
use skipc_runtime::{Batch, Device, Model, Module, Options, Session};
use skipc_testkit::golden::cases;

/// Distance of a logit between two orders of summation.
const TOLERANCE: f32 = 2e-4;

const SLOTS: u32 = 5;

fn artefact(spec: &Path, weights: &Path, key_values: KeyValues) -> Model {
    let model = spec::load(spec).expect("a spec");
    let weights = Weights::open(weights, &model).expect("weights");
    let request = Request {
        targets: vec![(Target::Cpu, DType::F32)],
        key_values: Some(key_values),
        max_tokens: Some(2048),
        ..Request::host()
    };
    let compiled = pipeline::compile(&model, &request, &mut Trace::silent()).expect("it compiles");
    let bytes = pack::to_bytes((&model, &weights), &request, compiled).expect("an artefact");
    Model::from_bytes(&bytes).expect("it loads")
}

fn example(key_values: KeyValues) -> Model {
    let [spec, weights] =
        ["models/kjv-12l-d25.toml", "models/kjv-12l-d25.safetensors"].map(|path| Path::new(path).to_owned());
    artefact(&spec, &weights, key_values)
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

fn compare(what: &str, cached: &StepOutputs, whole: &StepOutputs) {
    assert_eq!(cached.gates, whole.gates, "{what}: decisions");
    assert_eq!(cached.logits.len(), whole.logits.len(), "{what}: rows");
    for (idx, (a, b)) in cached.logits.iter().zip(&whole.logits).enumerate() {
        assert!((a - b).abs() <= TOLERANCE, "{what}: logit {idx} is {a}, the whole prefix gives {b}");
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

/// What every caller may do with slots, in no order: begin, go on by chunks around pages, share, take back, end.
fn exercise(what: &str, model: &Model, rounds: usize, rng: &mut Rng) {
    let (mut cached, mut whole) = decoders(model, 24);
    let limits = cached.limits();
    let positions = limits.positions.min(60);
    let mut lengths: Vec<Option<u32>> = vec![None; SLOTS as usize];
    for round in 0..rounds {
        let slot = Slot(rng.below(SLOTS.into()) as u32);
        match (lengths[slot.0 as usize], rng.below(8)) {
            (None, _) => {
                let number = rng.below(3) as u32;
                cached.start(slot, number).unwrap();
                whole.start(slot, number).unwrap();
                lengths[slot.0 as usize] = Some(0);
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
                cached.fork(slot, Slot(to as u32)).unwrap();
                whole.fork(slot, Slot(to as u32)).unwrap();
                lengths[to] = Some(length);
            }
            _ => {
                let mut tokens: Vec<(Slot, Vec<u32>, Rows)> = Vec::new();
                for (idx, length) in (0..).zip(&lengths) {
                    let Some(length) = length.filter(|length| *length < positions) else { continue };
                    let size = [1, 1, 1, 2, 15, 16, 17][rng.below(7) as usize].min(positions - length);
                    let draw = |_| rng.below(limits.vocab_size.into()) as u32;
                    let new: Vec<u32> = (0..size).map(draw).collect();
                    let rows = [Rows::None, Rows::Last, Rows::All][rng.below(3) as usize];
                    if rng.below(3) > 0 {
                        tokens.push((Slot(idx), new, rows));
                    }
                }
                let chunks: Vec<Chunk<'_>> = tokens
                    .iter()
                    .map(|(slot, tokens, rows)| Chunk { slot: *slot, tokens, rows: *rows })
                    .collect();
                if chunks.is_empty() || !cached.fits(&chunks) {
                    continue;
                }
                let got = cached.step(&chunks).unwrap();
                compare(&format!("{what}, round {round}"), &got, &whole.step(&chunks).unwrap());
                for Chunk { slot, tokens, .. } in chunks {
                    lengths[slot.0 as usize] =
                        lengths[slot.0 as usize].map(|length| length + tokens.len() as u32);
                }
            }
        }
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

fn likeliest(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a)));
    best.expect("logits") as u32
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
    for key_values in [KeyValues::Eager, KeyValues::Lazy] {
        exercise(&format!("the example, {key_values:?}"), &example(key_values), 120, &mut Rng(1));
    }
}

/// Each kind of router, scaled gates, keys of active tokens alone, layers of every kind.
#[test]
fn slots_of_golden_models_give_what_whole_prefixes_give() {
    let mut checked = 0;
    for (seed, case) in (2..).zip(cases(Path::new("tests/golden"))) {
        let model = spec::load(&case.spec).expect("a spec");
        if !model.can_generate() || case.name.starts_with("kjv") {
            continue;
        }
        for key_values in [KeyValues::Eager, KeyValues::Lazy] {
            let what = format!("{}, {key_values:?}", case.name);
            exercise(&what, &artefact(&case.spec, &case.weights, key_values), 24, &mut Rng(seed));
        }
        checked += 1;
    }
    assert!(checked >= 25, "only {checked} golden models generate");
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
