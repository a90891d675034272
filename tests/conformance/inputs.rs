//! Functions that compute with inputs of a name of their own, as compiled code: what they give is what the graph gives.

use skipc::driver::backends::CpuBackend;
use skipc_artifact::image::HostLevel;
use skipc_artifact::interface::Role;
use skipc_artifact::program::SCORE;
use skipc_artifact::target::Target;
use skipc_ir::interp::{Env, FlatBatch, Free, Results};
use skipc_runtime::State;
use skipc_testkit::input_graph::{EVERY, ROWS_OF_SET, SET, SIZES, TEXT, bytes, data, tensors};

use super::states::{Toy, same, words};

/// What a call is given.
type Given = Vec<(Role, Vec<u8>)>;

const GRAPHS: [&str; 3] = [TEXT, SET, ROWS_OF_SET];

/// What the graph gives for so many tokens.
fn wanted(toy: &Toy, n: usize, every: usize) -> Results<f64> {
    let batch = FlatBatch::from_sequences([&vec![0; n][..]]);
    let graph = toy.legal.graph();
    let given = data(graph, n, &tensors(graph, n, every));
    let env = Env { batch: &batch, tensors: given, weights: &toy.weights, routing: &Free };
    skipc_ir::run::<f64>(graph, &env).expect("values")
}

fn runs() -> impl Iterator<Item = (usize, usize)> {
    SIZES.into_iter().flat_map(|n| EVERY.map(|every| (n, every)))
}

/// Those of its name, and the tokens if the function takes some.
fn inputs(toy: &Toy, n: usize, every: usize) -> Given {
    let mut inputs = bytes(&tensors(toy.legal.graph(), n, every));
    if toy.legal.graph().result(&Role::Logits).is_some() {
        inputs.extend([
            (Role::Tokens, words(&vec![0; n])),
            (Role::Positions, words(&(0..n as i64).collect::<Vec<i64>>())),
            (Role::Sequences, words(&vec![0; n])),
        ]);
    }
    inputs
}

fn check(toy: &Toy, mut state: State) {
    for (n, every) in runs() {
        let wanted = wanted(toy, n, every);
        let roles: Vec<Role> = wanted.iter().map(|(role, _)| role.clone()).collect();
        let got = state.call(SCORE, n as u32, &inputs(toy, n, every), &roles).expect("a step");
        for ((role, wanted), got) in wanted.into_iter().zip(got) {
            assert!(same(&role, &wanted, &got), "{role}, {n} tokens, every {every}: {wanted:?}, not {got:?}");
        }
    }
}

#[test]
fn compiled_code_computes_with_what_the_caller_gives() {
    for backend in CpuBackend::built() {
        for text in GRAPHS {
            let toy = Toy::new(text, &Target::Cpu, backend);
            for level in HostLevel::DESCENDING {
                check(&toy, toy.state(1, level));
                check(&toy, toy.state(2, level));
            }
        }
    }
}

fn baseline(text: &str) -> (Toy, State) {
    let Some(backend) = CpuBackend::built().into_iter().next() else { panic!("no backend for the CPU") };
    let toy = Toy::new(text, &Target::Cpu, backend);
    let state = toy.state(1, HostLevel::Baseline);
    (toy, state)
}

#[test]
fn an_input_that_is_not_given_or_has_another_size_is_refused() {
    let (toy, mut state) = baseline(TEXT);
    let mut inputs = inputs(&toy, 2, 1);
    let last = |inputs: &[(Role, Vec<u8>)]| inputs[1..].to_vec();
    let error = state.call(SCORE, 2, &last(&inputs), &[Role::Logits]).expect_err("one is missing");
    assert_eq!(error.code(), "run::port", "{error}");
    inputs[0].1.pop();
    let error = state.call(SCORE, 2, &inputs, &[Role::Logits]).expect_err("one is too short");
    assert_eq!(error.code(), "run::port", "{error}");
}

#[test]
fn a_set_that_is_none_is_refused() {
    let (toy, mut state) = baseline(SET);
    let mut refused = |change: &dyn Fn(&mut Given), says: &str| {
        let mut inputs = inputs(&toy, 5, 2);
        change(&mut inputs);
        let error = state.call(SCORE, 5, &inputs, &[Role::Logits]).expect_err(says);
        assert_eq!(error.code(), "run::port", "{error}");
        assert!(error.to_string().contains(says), "{error}, not {says}");
    };
    let name = |name: &str| Role::Input { name: name.to_owned() };
    let put = |role: Role, bytes: Vec<u8>| {
        move |inputs: &mut Given| {
            inputs.retain(|(other, _)| *other != role);
            inputs.push((role.clone(), bytes.clone()));
        }
    };
    let order = "in ascending order, each once and below the 5 tokens";
    refused(&put(name("set"), words(&[0, 4, 2])), order);
    refused(&put(name("set"), words(&[0, 2, 2])), order);
    refused(&put(name("set"), words(&[0, 2, 5])), order);
    refused(&put(name("set"), words(&[-1])), order);
    refused(&put(name("set"), vec![0; 6]), order);
    refused(&put(name("set"), words(&[0, 2])), "it has 48 bytes, expected 32 for 2 rows of its set");
    refused(&put(name("added"), vec![0; 32]), "it has 32 bytes, expected 48 for 3 rows of its set");
    refused(&put(name("marks"), words(&[1; 15])), "it has 60 bytes, expected 36 for 3 rows of its set");
    refused(&put(Role::SetCount { name: "set".to_owned() }, words(&[3])), "no such input");
    refused(&put(Role::SetMask { name: "set".to_owned() }, vec![1; 5]), "no such input");
    let without = |inputs: &mut Given| inputs.retain(|(role, _)| *role != name("set"));
    refused(&without, "`input set`: it is not given");
    let alone = |inputs: &mut Given| {
        let of_set = ["set", "added", "marks"].map(name);
        inputs.retain(|(role, _)| !of_set.contains(role));
    };
    refused(&alone, "it is not given");
}

#[cfg(feature = "cuda")]
#[test]
fn the_ptx_machine_computes_with_what_the_caller_gives() {
    use super::ptx_model::PtxModel;

    for (arch, text) in ["sm_80", "sm_90a"].into_iter().flat_map(|arch| GRAPHS.map(|text| (arch, text))) {
        let toy = Toy::new(text, &Target::Cuda(arch.to_owned()), CpuBackend::default());
        let model = PtxModel::new(&toy.model(), arch);
        for (seed, (n, every)) in (0..).zip(runs()) {
            let wanted = wanted(&toy, n, every);
            let roles: Vec<Role> = wanted.iter().map(|(role, _)| role.clone()).collect();
            let got =
                model.call_roles((n as u32, &inputs(&toy, n, every)), &roles, &mut model.states(0), seed);
            for ((role, wanted), got) in wanted.into_iter().zip(got) {
                assert!(same(&role, &wanted, &got), "{role}, {arch}, {n} tokens, every {every}: {wanted:?}");
            }
        }
    }
}
