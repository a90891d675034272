//! Programs run on the host as their steps say, and nothing else happens.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use skipc_artifact::bundle::{Bundle, BundleCode};
use skipc_artifact::image::HostArch;
use skipc_artifact::interface::RouterPorts;
use skipc_artifact::program::{ArenaPlace, Arg, Buffer, Storage};
use skipc_runtime::decode::{
    Chunk, Completion, Decoder, Engine, EngineOptions, Finish, Recompute, Request, Rows, Slot,
};
use skipc_runtime::{Batch, Device, Error, Kind, Model, Options, Outputs, Session};

mod tiny;

fn session(bundle: Bundle, threads: usize, checked: bool) -> Result<Session, Error> {
    let model = Model::from_bytes(&tiny::artifact(bundle))?;
    Session::new(&model, Device::Cpu, Options { threads, checked, ..Options::default() })
}

fn batch(tokens: &[u32], lengths: &[u32]) -> Batch {
    Batch { tokens: tokens.to_vec(), lengths: lengths.to_vec(), ..Batch::default() }
}

fn expected(tokens: &[u32]) -> Outputs {
    let odd: Vec<u8> = tokens.iter().map(|&token| (token % 2) as u8).collect();
    let n = tokens.len();
    Outputs {
        logits: tokens.iter().flat_map(|&token| tiny::logits_of(token)).collect(),
        counts: vec![n as u32, odd.iter().map(|&odd| u32::from(odd)).sum(), 0],
        gates: vec![vec![1; n], odd, vec![0; n]],
        overflow: vec![0; 3],
        choices: Vec::new(),
    }
}

#[test]
fn results_do_not_depend_on_threads_checks_or_earlier_runs() {
    for (threads, checked) in [(1, false), (2, false), (1, true), (3, true)] {
        let mut session = session(tiny::bundle(), threads, checked).unwrap();
        for n in [3usize, 0, 1, 63, 64, 65, 100, 2] {
            let tokens: Vec<u32> = (0..n as u32).map(|idx| (idx * idx + 1) % 4).collect();
            let half = n as u32 / 2;
            let outputs = session.run(&batch(&tokens, &[half, 0, n as u32 - half])).unwrap();
            assert_eq!(outputs, expected(&tokens), "{n} tokens, {threads} threads, checked {checked}");
        }
    }
}

#[test]
fn decisions_are_replayed() {
    let mut session = session(tiny::bundle(), 1, true).unwrap();
    let mut replay = batch(&[0, 1, 2], &[3]);
    replay.routing = Some(vec![vec![1; 3], vec![1, 0, 1], vec![0; 3]]);
    let outputs = session.run(&replay).unwrap();
    assert_eq!(outputs.gates[1], [1, 0, 1]);
    assert_eq!(outputs.counts, [3, 2, 0]);
    assert_eq!(
        session.run(&batch(&[0, 1, 2], &[3])).unwrap().gates[1],
        [0, 1, 0],
        "the next run decides itself"
    );
    let mut wrong = |routing: Vec<Vec<u8>>| {
        replay.routing = Some(routing);
        session.run(&replay).unwrap_err().code()
    };
    assert_eq!(wrong(vec![vec![1; 3], vec![1; 3]]), "run::batch-shape");
    assert_eq!(wrong(vec![vec![1; 3], vec![1; 2], vec![0; 3]]), "run::batch-shape");
    assert_eq!(wrong(vec![vec![1, 0, 1], vec![1; 3], vec![0; 3]]), "run::routing-conflict");
}

/// As many sequences as there may be, of which a step takes few: in front of those of a step stand as many that are empty.
#[test]
fn batches_of_more_tokens_than_a_step_takes_are_cut() {
    let mut bundle = tiny::bundle();
    tiny::function(&mut bundle).max_tokens = 7;
    let mut session = session(bundle.clone(), 1, true).unwrap();
    let lengths = [3, 0, 4, 1, 7, 0, 2, 6, 6, 1];
    let tokens: Vec<u32> = (0..30).map(|idx| (idx * idx + 1) % 4).collect();
    let mut whole = batch(&tokens, &lengths);
    assert_eq!(session.run(&whole).unwrap(), expected(&tokens));
    assert!(session.step_times().iter().all(|time| !time.is_zero()), "times of all steps are kept");
    // Decisions are replayed for the tokens that they are of.
    let third: Vec<u8> = (0..30).map(|idx| u8::from(idx % 3 == 0)).collect();
    whole.routing = Some(vec![vec![1; 30], third.clone(), vec![0; 30]]);
    let replayed = session.run(&whole).unwrap();
    assert_eq!((&replayed.gates[1], &replayed.counts[..]), (&third, &[30, 10, 0][..]));
    let error = session.run(&batch(&[0; 9], &[1, 8])).unwrap_err();
    assert!(matches!(error, Error::LongSequence { sequence: 1, found: 8, limit: 7 }), "{error}");
    tiny::function(&mut bundle).ranks_batch = true;
    let mut session = self::session(bundle, 1, true).unwrap();
    assert_eq!(session.run(&batch(&[0; 7], &[3, 4])).unwrap().counts[0], 7);
    assert_eq!(session.run(&batch(&[0; 8], &[4, 4])).unwrap_err().code(), "run::whole-batch");
}

/// Continues a sequence on a program without a function for steps.
fn greedy(tokens: &[u32], count: u32) -> Result<Completion, Error> {
    let model = Model::from_bytes(&tiny::artifact(tiny::bundle()))?;
    let mut engine = Engine::new(&model, Device::Cpu, EngineOptions::default())?;
    engine.complete(Request::greedy(tokens.to_vec(), count))
}

/// The router of `tiny`, as if it had taken its rows out of all tokens.
fn limited() -> Bundle {
    let mut bundle = tiny::bundle();
    let routed = RouterPorts::Routed { decision: 7, forced: 8, executed: 2, wanted: Some(0) };
    tiny::function(&mut bundle).interface.bind_router(1, routed);
    bundle
}

#[test]
fn tokens_over_capacity_are_counted_where_the_router_decides() {
    let mut session = session(limited(), 1, true).unwrap();
    let mut replay = batch(&[0, 1, 2, 2], &[4]);
    assert_eq!(session.run(&replay).unwrap().overflow, [0, 3, 0]);
    replay.routing = Some(vec![vec![1; 4], vec![1, 0, 0, 0], vec![0; 4]]);
    let outputs = session.run(&replay).unwrap();
    assert_eq!((&outputs.counts[..], &outputs.overflow[..]), (&[4, 1, 0][..], &[0; 3][..]));
    let model = Model::from_bytes(&tiny::artifact(limited())).unwrap();
    let mut whole = Recompute::new(self::session(limited(), 1, true).unwrap(), &model, 1).unwrap();
    whole.start(Slot(0), 0).unwrap();
    let continued = whole.step(&[Chunk { slot: Slot(0), tokens: &[0, 1, 2], rows: Rows::Last }]).unwrap();
    assert_eq!(continued.overflow, [0, 2, 0]);
}

#[test]
fn routers_that_share_a_buffer_must_agree() {
    let mut bundle = tiny::bundle();
    let routed = RouterPorts::Routed { decision: 7, forced: 8, executed: 2, wanted: None };
    tiny::function(&mut bundle).interface.bind_router(2, routed);
    let mut session = session(bundle, 1, false).unwrap();
    let mut replay = batch(&[0, 1], &[2]);
    replay.routing = Some(vec![vec![1; 2], vec![1, 0], vec![1, 0]]);
    assert_eq!(session.run(&replay).unwrap().counts, [2, 1, 1]);
    replay.routing = Some(vec![vec![1; 2], vec![1, 0], vec![1, 1]]);
    assert_eq!(session.run(&replay).unwrap_err().code(), "run::routing-conflict");
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let mut session = session(tiny::bundle(), 1, false).unwrap();
    let mut code = |tokens: &[u32], lengths: &[u32]| session.run(&batch(tokens, lengths)).unwrap_err().code();
    assert_eq!(code(&[0; 51], &[51]), "run::sequence-too-long");
    assert_eq!(code(&[0, 4], &[2]), "run::token-range");
    assert_eq!(code(&[0, 1], &[1]), "run::batch-shape");
    assert_eq!(code(&[0, 1], &[u32::MAX, u32::MAX]), "run::batch-shape");
}

#[test]
fn a_checked_run_finds_stray_writes() {
    let mut bundle = tiny::bundle();
    let function = tiny::function(&mut bundle);
    function.steps[0].kernel = 2;
    function.steps[0].args = vec![Arg::Buffer(2)];
    let found = session(bundle.clone(), 1, true).unwrap().run(&batch(&[1], &[1])).unwrap_err();
    let Error::StrayWrite { kernel, origin, memory, at } = found else { panic!("{found}") };
    assert_eq!((kernel.as_str(), origin.as_str(), memory, at), ("stray", "lm_head", "the arena", 516));
    // The same behind the last byte of the arena, where only the guard is.
    let function = tiny::function(&mut bundle);
    let storage = Storage::Step(ArenaPlace { fixed_offset: 768, row_offset: 36 });
    let last = Buffer { name: "last".into(), storage, ..function.buffers[0].clone() };
    function.fixed_bytes += 4;
    function.steps[0].args = vec![Arg::Buffer(function.buffers.len() as u32)];
    let executed = function.buffers.len() as u32;
    function.buffers.push(last);
    let routed = RouterPorts::Routed { decision: 7, forced: 8, executed, wanted: None };
    function.interface.bind_router(1, routed);
    let found = session(bundle, 1, true).unwrap().run(&batch(&[1], &[1])).unwrap_err();
    let Error::StrayWrite { at, .. } = found else { panic!("{found}") };
    assert_eq!(at, 768 + 36 * 64 + 4);
}

#[test]
fn code_for_another_machine_is_refused() {
    let mut bundle = tiny::bundle();
    let BundleCode::Host(images) = &mut bundle.code else { unreachable!("made for the CPU") };
    images[0].table.arch = HostArch::Aarch64;
    let error = session(bundle, 1, false).unwrap_err();
    assert_eq!((error.code(), error.kind()), ("run::wrong-arch", Kind::Unsupported));
    let model = Model::from_bytes(&tiny::artifact(tiny::bundle())).unwrap();
    let error = Session::new(&model, Device::Cuda(0), Options::default()).unwrap_err();
    assert_eq!((error.code(), error.kind()), ("run::no-program", Kind::Unsupported));
}

#[test]
fn generation_takes_the_likeliest_token_until_the_positions_end() {
    let new = greedy(&[2, 1], 4).unwrap();
    assert_eq!((&new.tokens[..], new.finish), (&[2, 3, 0, 1][..], Finish::MaxNewTokens));
    let to_the_end = greedy(&[0], 1000).unwrap();
    assert_eq!((to_the_end.tokens.len(), to_the_end.finish), (49, Finish::Positions), "50 positions");
    assert_eq!(greedy(&[], 1).unwrap_err().code(), "run::empty-prompt");
    assert_eq!(greedy(&[0; 51], 1).unwrap_err().code(), "run::sequence-too-long");
}
