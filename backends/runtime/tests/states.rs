//! States outlive steps, and each belongs to one user of a module.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use skipc_artifact::interface::Role;
use skipc_runtime::{Batch, Device, Error, Model, Module, Options, Session, State};

mod tiny;

fn module(threads: usize, checked: bool) -> Module {
    let model = Model::from_bytes(&tiny::artifact(tiny::counting())).unwrap();
    Module::load(&model, Device::Cpu, Options { threads, checked, ..Options::default() }).unwrap()
}

fn seen() -> Role {
    Role::State { name: tiny::SEEN.into() }
}

/// Counts so many more tokens; returns how many the state has seen.
fn count(state: &mut State, n_tokens: u32) -> u32 {
    let found = state.call("count", n_tokens, &[], &[seen()]).unwrap();
    u32::from_le_bytes(found[0][..].try_into().unwrap())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// What `score` takes for one sequence.
fn sequence(tokens: &[u32]) -> Vec<(Role, Vec<u8>)> {
    let positions: Vec<u32> = (0..tokens.len() as u32).collect();
    vec![
        (Role::Tokens, words(tokens)),
        (Role::Positions, words(&positions)),
        (Role::Sequences, words(&vec![0; tokens.len()])),
    ]
}

#[test]
fn a_state_outlives_steps_of_any_function_and_size() {
    for (threads, checked) in [(1, false), (2, false), (1, true), (2, true)] {
        let mut state = module(threads, checked).state().unwrap();
        let mut sum = 0;
        for n in [1, 0, 64, 65, 100, 3] {
            sum += n;
            assert_eq!(count(&mut state, n), sum, "{threads} threads, checked {checked}");
            // The arena grows, is filled with NaN, and shrinks again.
            let tokens = vec![1; n as usize];
            state.call("score", n, &sequence(&tokens), &[Role::Logits]).unwrap();
        }
        state.clear().unwrap();
        assert_eq!(count(&mut state, 7), 7);
    }
}

#[test]
fn states_of_one_module_know_nothing_of_each_other() {
    let module = module(2, false);
    let mut states = [module.state().unwrap(), module.state().unwrap()];
    assert_eq!([count(&mut states[0], 3), count(&mut states[1], 40), count(&mut states[0], 4)], [3, 40, 7]);
    let others =
        states.map(|mut state| std::thread::spawn(move || (0..100).map(|n| count(&mut state, n)).last()));
    let found = others.map(|other| other.join().unwrap().unwrap());
    assert_eq!(found, [7 + 4950, 40 + 4950]);
}

#[test]
fn a_state_can_be_given() {
    let mut state = module(1, false).state().unwrap();
    let found = state.call("count", 2, &[(seen(), words(&[1000]))], &[seen()]).unwrap();
    assert_eq!(found, [words(&[1002])]);
    assert_eq!(count(&mut state, 1), 1003, "the next step finds what this one left");
}

#[test]
fn only_what_is_asked_for_is_computed() {
    let module = module(1, false);
    let mut state = module.state().unwrap();
    let ran =
        |state: &State| -> Vec<bool> { state.step_times().iter().map(|time| !time.is_zero()).collect() };
    let inputs = sequence(&[1, 2, 3]);
    let all = state.call("score", 3, &inputs, &[Role::Logits, Role::Executed { router: 1 }]).unwrap();
    assert_eq!(ran(&state), [true, true]);
    let decisions =
        state.call("score", 3, &inputs, &[Role::Decision { router: 1 }, Role::Decision { router: 0 }]);
    assert_eq!(decisions.unwrap(), [vec![1, 0, 1], vec![1, 1, 1]]);
    assert_eq!(ran(&state), [false, true], "no decision needs the head");
    assert_eq!(state.call("score", 3, &inputs, &[Role::Logits]).unwrap()[0], all[0]);
    assert_eq!(ran(&state), [true, false]);
    // A step that advances a state runs whatever is asked for.
    state.call("count", 5, &[], &[]).unwrap();
    assert_eq!(count(&mut state, 0), 5);

    let mut session = Session::of_module(&module).unwrap();
    let batch = Batch::of_sequence(vec![1, 2, 3]);
    let (whole, decided) = (session.run(&batch).unwrap(), session.decide(&batch).unwrap());
    assert_eq!((decided.gates, decided.counts, decided.logits), (whole.gates, whole.counts, Vec::new()));
}

#[test]
fn decisions_are_forced_by_port() {
    let mut state = module(1, true).state().unwrap();
    let mut inputs = sequence(&[0, 1, 2]);
    inputs.push((Role::Forced { router: 1 }, vec![1, 0, 1]));
    let found = state.call("score", 3, &inputs, &[Role::Decision { router: 1 }]).unwrap();
    assert_eq!(found, [[1, 0, 1]]);
}

#[test]
fn calls_that_do_not_fit_say_what_does_not() {
    let mut state = module(1, false).state().unwrap();
    let good = sequence(&[1, 2]);
    let mut code = |function: &str, n, inputs: &[(Role, Vec<u8>)], wanted: &[Role]| {
        let error = state.call(function, n, inputs, wanted).unwrap_err();
        (error.code(), error.to_string())
    };
    let (found, text) = code("step", 2, &good, &[]);
    assert_eq!((found, text.contains("`step`; it has count, score")), ("run::no-function", true), "{text}");
    assert_eq!(code("score", 101, &good, &[]).0, "run::too-many-tokens");
    let port = |(code, text): (&str, String), words: &str| {
        assert!(code == "run::port" && text.contains(words), "{code}: {text}");
    };
    port(code("score", 2, &good[1..], &[]), "`tokens`: it is not given");
    port(code("score", 3, &good, &[]), "`tokens`: it has 8 bytes, expected 12");
    port(code("score", 2, &good, &[Role::Tokens]), "`tokens`: the function has no such result");
    port(code("score", 2, &good, &[Role::Wanted { router: 1 }]), "no such result");
    let with = |role: Role, bytes| [good.clone(), vec![(role, bytes)]].concat();
    port(code("score", 2, &with(Role::TokenCount, words(&[1])), &[]), "no such input");
    port(code("score", 2, &with(Role::Logits, words(&[1])), &[]), "no such input");
    port(code("count", 2, &good, &[]), "`tokens`: the function has no such input");
    assert!(matches!(module(1, false).function("x"), Err(Error::NoFunction { .. })));
}
