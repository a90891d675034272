//! States on a GPU, against a stand-in for its driver: they outlive steps, and the graphs of several functions live side
//! by side.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use skipc_artifact::bundle::Bundle;
use skipc_artifact::interface::{Binding, Role};
use skipc_artifact::program::{ArenaPlace, Arg, Buffer, Program, RowBound, Storage};
use skipc_artifact::target::DType;
use skipc_runtime::{Device, Error, Model, Module, Options, State};

mod stand_in;
mod tiny;

fn load(bundle: Bundle, checked: bool) -> Module {
    let model = Model::from_bytes(&tiny::artifact(stand_in::for_cuda(bundle))).unwrap();
    Module::load(&model, Device::Cuda(0), Options { checked, ..Options::default() }).unwrap()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Counts so many more tokens; returns how many the state has seen.
fn count(state: &mut State, n_tokens: u32) -> u32 {
    let found = state.call("count", n_tokens, &[], &[Role::State { name: tiny::SEEN.into() }]).unwrap();
    u32::from_le_bytes(found[0][..].try_into().unwrap())
}

/// Scores so many tokens and checks their logits.
fn score(state: &mut State, n_tokens: u32) {
    let tokens: Vec<u32> = (0..n_tokens).map(|idx| idx % 4).collect();
    let inputs = [
        (Role::Tokens, words(&tokens)),
        (Role::Positions, words(&(0..n_tokens).collect::<Vec<_>>())),
        (Role::Sequences, words(&vec![0; tokens.len()])),
    ];
    let found = state.call("score", n_tokens, &inputs, &[Role::Logits]).unwrap();
    let logits: Vec<f32> = found[0].as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let expected: Vec<f32> = tokens.iter().flat_map(|token| tiny::logits_of(*token)).collect();
    assert_eq!(logits, expected);
}

#[test]
fn a_state_outlives_calls_and_each_function_keeps_its_graph() {
    let printed = stand_in::with_driver("a_state_outlives_calls_and_each_function_keeps_its_graph", || {
        for checked in [false, true] {
            let mut state = load(tiny::counting(), checked).state().unwrap();
            let mut sum = 0;
            // The arena grows at the fourth call of each.
            for n in [3, 1, 64, 65, 2, 100, 0] {
                score(&mut state, n);
                sum += n;
                assert_eq!(count(&mut state, n), sum, "{n} more, checked {checked}");
            }
            state.clear().unwrap();
            assert_eq!(count(&mut state, 7), 7);
            let given = [(Role::State { name: tiny::SEEN.into() }, words(&[1000]))];
            state.call("count", 2, &given, &[]).unwrap();
            assert_eq!(count(&mut state, 1), 1003, "the next call finds what this one left");
        }
    });
    let Some(printed) = printed else { return };
    // Each is captured for 64 tokens, for 128, and for 64 again, because the arena lies elsewhere then: in both runs.
    for kernel in ["table_4", "count_up"] {
        let n = printed.lines().filter(|line| line.starts_with(kernel)).count();
        assert_eq!(n, 2 * 3, "captures of {kernel}: {printed}");
    }
    assert_eq!(printed.matches("held 0 pieces 0\n").count(), 2, "{printed}");
}

#[test]
fn states_of_one_module_go_their_own_ways_on_any_thread() {
    let printed = stand_in::with_driver("states_of_one_module_go_their_own_ways_on_any_thread", || {
        let module = load(tiny::counting(), false);
        let mut states = [module.state().unwrap(), module.state().unwrap()];
        assert_eq!(
            [count(&mut states[0], 3), count(&mut states[1], 40), count(&mut states[0], 4)],
            [3, 40, 7]
        );
        let others = states.map(|mut state| {
            std::thread::spawn(move || {
                let last = (0..100).map(|n| count(&mut state, n)).last();
                // A thread that has not made a call yet can clear a state, too.
                std::thread::spawn(move || state.clear().map(|()| count(&mut state, 5)))
                    .join()
                    .unwrap()
                    .unwrap();
                last
            })
        });
        assert_eq!(others.map(|other| other.join().unwrap()), [Some(7 + 4950), Some(40 + 4950)]);
    });
    assert!(printed.is_none_or(|printed| printed.contains("held 0 pieces 0\n")));
}

/// The name of a cache: a row of two words for each token.
const KEPT: &str = "kept";

/// A model whose function `count` has the cache for a port.
fn with_cache() -> Bundle {
    let mut bundle = tiny::counting();
    let program: &mut Program = &mut bundle.program;
    let (dtype, rows, cols) = (DType::U32, RowBound::Cached, 2);
    let place = ArenaPlace { fixed_offset: program.state_fixed_bytes, row_offset: 0 };
    program.states.push(skipc_artifact::program::State { name: KEPT.into(), dtype, rows, cols, place });
    program.state_row_bytes = 8;
    let function = program.functions.get_mut("count").unwrap();
    let buffer = function.buffers.len() as u32;
    let storage = Storage::State(1);
    function.buffers.push(Buffer { name: KEPT.into(), dtype, rows, cols, storage, live: None });
    function.interface.bind(Role::State { name: KEPT.into() }, Binding::Buffer(buffer));
    bundle
}

#[test]
fn rows_of_caches_stay_and_are_copied() {
    let printed = stand_in::with_driver("rows_of_caches_stay_and_are_copied", || {
        let mut state = load(with_cache(), true).state_with_cache(70).unwrap();
        assert_eq!(state.cached_rows(), 128);
        let kept = Role::State { name: KEPT.into() };
        let mut rows: Vec<u32> = (0..2 * 128).collect();
        state.call("count", 1, &[(kept.clone(), words(&rows))], &[]).unwrap();
        score(&mut state, 100);
        state.copy_cached(16, 112, 16).unwrap();
        rows.copy_within(2 * 16..2 * 32, 2 * 112);
        let found = state.call("count", 1, &[], &[kept]).unwrap();
        assert!(found == [words(&rows)], "{found:?}");
        assert_eq!(count(&mut state, 0), 2, "the other state is as it was");
        // What is forgotten is NaN where runs are checked, and stays where they are not.
        state.forget_cached(3..5).unwrap();
        assert_eq!(state.forget_cached(120..129).unwrap_err().code(), "run::batch-shape");
        let kept = Role::State { name: KEPT.into() };
        rows[2 * 3..2 * 5].fill(u32::MAX);
        let found = state.call("count", 1, &[], std::slice::from_ref(&kept)).unwrap();
        assert!(found == [words(&rows)], "{found:?}");
        let mut unchecked = load(with_cache(), false).state_with_cache(70).unwrap();
        unchecked.forget_cached(0..128).unwrap();
        assert!(unchecked.call("count", 1, &[], &[kept]).unwrap() == [words(&[0; 2 * 128])]);
    });
    assert!(printed.is_none_or(|printed| printed.contains("held 0 pieces 0\n")));
}

#[test]
fn a_checked_call_finds_writes_beside_the_states() {
    let printed = stand_in::with_driver("a_checked_call_finds_writes_beside_the_states", || {
        let mut bundle = tiny::counting();
        let step = &mut bundle.program.functions.get_mut("count").unwrap().steps[0];
        // The kernel writes before its buffer, which is the first of the states.
        (step.kernel, step.args) = (2, vec![Arg::Buffer(1)]);
        let call = |checked| load(bundle.clone(), checked).state().unwrap().call("count", 1, &[], &[]);
        match call(true) {
            Err(Error::StrayWrite { memory, at, .. }) => assert_eq!((memory, at), ("the states", -4)),
            other => panic!("{other:?}"),
        }
        assert!(call(false).is_ok(), "only a checked call looks");
    });
    assert!(printed.is_none_or(|printed| printed.contains("held 0 pieces 0\n")));
}

#[test]
fn events_between_kernels_say_when_each_ran() {
    let printed = stand_in::with_driver("events_between_kernels_say_when_each_ran", || {
        let module = load(tiny::counting(), false);
        let mut state = module.state().unwrap();
        score(&mut state, 3);
        assert_eq!(state.calls(), [], "nobody wanted them");
        state.record_calls(true);
        for n_tokens in [3, 70] {
            score(&mut state, n_tokens);
            let times: Vec<_> = state.calls().iter().map(|call| (call.step, call.begin, call.end)).collect();
            // A kernel of the stand-in takes a millisecond, and those that logits do not need are left out.
            assert_eq!(times, [(0, 0, 1_000_000)], "{n_tokens} tokens");
        }
        count(&mut state, 2);
        assert_eq!(state.calls().len(), 1);
        state.record_calls(false);
        score(&mut state, 3);
        assert_eq!(state.calls(), []);

        let peak = module.gpu_peak().unwrap().unwrap();
        // One processor at 1 GHz, and a gigabyte in a millisecond.
        assert_eq!(peak.operations, 2.0 * 2048.0 * 1e9);
        assert_eq!(peak.bytes, f64::from(1 << 30) / 1e-3);
    });
    assert!(printed.is_none_or(|printed| printed.contains("held 0 pieces 0")), "all is given back");
}
