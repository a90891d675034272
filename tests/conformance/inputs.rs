//! A function that computes with inputs of a name of their own, as compiled code: what it gives is what the graph gives.

use skipc::driver::backends::CpuBackend;
use skipc_artifact::image::HostLevel;
use skipc_artifact::interface::Role;
use skipc_artifact::program::SCORE;
use skipc_artifact::target::Target;
use skipc_ir::interp::{self, Env, FlatBatch, Free, Results};
use skipc_runtime::State;
use skipc_testkit::input_graph::{EVERY, SIZES, TEXT, bytes, data, tensors};

use super::states::{Toy, same, words};

/// What the graph gives for so many tokens.
fn wanted(toy: &Toy, n: usize, every: usize) -> Results<f64> {
    let batch = FlatBatch::from_sequences([&vec![0; n][..]]);
    let given = data(&tensors(n, every));
    let env = Env { batch: &batch, tensors: given, weights: &toy.weights, routing: &Free };
    skipc_ir::run::<f64>(toy.legal.graph(), &env).expect("values")
}

fn runs() -> impl Iterator<Item = (usize, usize)> {
    SIZES.into_iter().flat_map(|n| EVERY.map(|every| (n, every)))
}

fn check(toy: &Toy, mut state: State) {
    for (n, every) in runs() {
        let mut inputs = bytes(&tensors(n, every));
        inputs.extend([
            (Role::Tokens, words(&vec![0; n])),
            (Role::Positions, words(&(0..n as i64).collect::<Vec<i64>>())),
            (Role::Sequences, words(&vec![0; n])),
        ]);
        let wanted = wanted(toy, n, every);
        let roles: Vec<Role> = wanted.iter().map(|(role, _)| role.clone()).collect();
        let got = state.call(SCORE, n as u32, &inputs, &roles).expect("a step");
        for ((role, wanted), got) in wanted.into_iter().zip(got) {
            assert!(same(&role, &wanted, &got), "{role}, {n} tokens, every {every}: {wanted:?}, not {got:?}");
        }
    }
}

#[test]
fn compiled_code_computes_with_what_the_caller_gives() {
    for backend in CpuBackend::built() {
        let toy = Toy::new(TEXT, &Target::Cpu, backend);
        for level in HostLevel::DESCENDING {
            check(&toy, toy.state(1, level));
            check(&toy, toy.state(2, level));
        }
    }
}

#[test]
fn an_input_that_is_not_given_or_has_another_size_is_refused() {
    let Some(backend) = CpuBackend::built().into_iter().next() else { panic!("no backend for the CPU") };
    let mut state = Toy::new(TEXT, &Target::Cpu, backend).state(1, HostLevel::Baseline);
    let mut inputs = bytes(&tensors(2, 1));
    inputs.extend([Role::Tokens, Role::Positions, Role::Sequences].map(|role| (role, words(&[0, 0]))));
    let last = |inputs: &[(Role, Vec<u8>)]| inputs[1..].to_vec();
    let error = state.call(SCORE, 2, &last(&inputs), &[Role::Logits]).expect_err("one is missing");
    assert_eq!(error.code(), "run::port", "{error}");
    inputs[0].1.pop();
    let error = state.call(SCORE, 2, &inputs, &[Role::Logits]).expect_err("one is too short");
    assert_eq!(error.code(), "run::port", "{error}");
}

#[cfg(feature = "cuda")]
#[test]
fn the_ptx_machine_computes_with_what_the_caller_gives() {
    use super::ptx_model::PtxModel;

    for arch in ["sm_80", "sm_90a"] {
        let toy = Toy::new(TEXT, &Target::Cuda(arch.to_owned()), CpuBackend::default());
        let model = PtxModel::new(&toy.model(), arch);
        for (seed, (n, every)) in (0..).zip(runs()) {
            let got = model.run_with(&vec![0; n], &bytes(&tensors(n, every)), None, seed);
            for (role, wanted) in wanted(&toy, n, every) {
                let logits = || got.logits.iter().flat_map(|logit| logit.to_le_bytes()).collect::<Vec<u8>>();
                let gate = || got.gates[0].iter().map(|executes| u8::from(*executes)).collect::<Vec<u8>>();
                let got = if let interp::Datum::Mask(_) = wanted { gate() } else { logits() };
                assert!(same(&role, &wanted, &got), "{role}, {arch}, {n} tokens, every {every}: {wanted:?}");
            }
        }
    }
}
