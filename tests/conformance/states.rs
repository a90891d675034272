//! Functions with a state, compiled and run over several steps: what each step leaves for the next is what the graph
//! leaves.

use std::collections::BTreeMap;

use skipc::driver::backends::{CpuBackend, CpuLevels};
use skipc::driver::{backends, constants};
use skipc::frontend::spec;
use skipc::frontend::weights::Weights;
use skipc_artifact::bundle::Bundle;
use skipc_artifact::image::HostLevel;
use skipc_artifact::program::{Head, SCORE};
use skipc_artifact::target::{DType, Target};
use skipc_artifact::writer::Writer;
use skipc_ir::interp::{Datum, Env, Free};
use skipc_ir::{Legal, Role, legalize, text};
use skipc_plan::buckets::ByHeight;
use skipc_runtime::{Device, Model, Module, Options, State};
use skipc_testkit::state_graphs::{self, CACHED_ROWS, CAPACITY, PENDING, SUM, UPDATE_FIRST};

use super::compiled::{link, manifest};

/// Where the toy functions have their weights from.
const SPEC: &str = r#"
[model]
name = "toy"
vocab_size = 5
d_model = 4
max_positions = 128
norm = "rmsnorm"
positions = "none"
tie_embeddings = true

[block.a]
skip = { router = "sigmoid" }
layers = [{ kind = "ffn", d_ff = 4, activation = "relu" }]

[[stack]]
blocks = ["a"]
"#;

/// A toy function on one backend, with all that runs it.
pub(super) struct Toy {
    pub(super) legal: Legal,
    pub(super) weights: Weights,
    artefact: Vec<u8>,
}

impl Toy {
    /// The function of a graph in its text form.
    pub(super) fn new(text: &str, target: &Target, backend: CpuBackend) -> Toy {
        let graph = text::parse(text).expect("a graph");
        let legal = legalize(graph).expect("a legal graph");
        let model = spec::model("toy.toml", SPEC).expect("a model");
        let weights = Weights::drawn(&model, 1).expect("weights");
        let plan = skipc_plan::build(
            &legal,
            &skipc_plan::Options {
                dtype: DType::F32,
                layout: backends::layout(target, backend, DType::F32),
                max_tokens: 256,
                max_positions: 128,
                vocab_size: 5,
                head: Head::Tokens,
                class_token: false,
                logits: 5,
            },
        );
        let linked = skipc_plan::link([(SCORE, &plan.expect("a plan"))]).expect("a program");
        let codegen =
            backends::for_target(target, (backend, CpuLevels::All), Box::new(ByHeight)).expect("a backend");
        let kernels: Vec<_> =
            linked.kernels.iter().map(|(symbol, kernel)| (symbol.clone(), kernel)).collect();
        let code = codegen.compile(&kernels).expect("code");
        let program = linked.program(target, &code.launches);
        let constants = constants::lay_out(&linked.constants, &weights).expect("constants");
        let mut writer = Writer::new(manifest(target));
        let bundle = Bundle { program, code: link(code).expect("linked code") };
        bundle.write(&mut writer, constants).expect("sections");
        Toy { legal, weights, artefact: writer.to_bytes().expect("an artefact") }
    }

    pub(super) fn model(&self) -> Model {
        Model::from_bytes(&self.artefact).expect("an artefact")
    }

    pub(super) fn state(&self, threads: usize, max_level: HostLevel) -> State {
        let model = self.model();
        let options = Options { threads, max_level: Some(max_level), checked: threads == 1 };
        Module::load(&model, Device::Cpu, options)
            .and_then(|module| module.state_with_cache(CACHED_ROWS))
            .expect("a state")
    }

    /// Runs all steps and compares what each leaves, and what it decides: `call` runs one over the caller's inputs, on what
    /// those before it left, and gives the bytes of these roles.
    fn check(&self, mut call: impl FnMut(u32, &[(Role, Vec<u8>)], &[Role]) -> Vec<Vec<u8>>) {
        let zeros = self.legal.graph().signature().states.into_iter();
        let mut kept: BTreeMap<Role, Datum<f64>> = zeros
            .filter_map(|port| Some((port.role, Datum::zeros(&port.ty, CACHED_ROWS as usize)?)))
            .collect();
        for step in state_graphs::steps() {
            let mut tensors = std::mem::take(&mut kept);
            tensors.extend(step.tensors());
            let env = Env { batch: &step.batch, tensors, weights: &self.weights, routing: &Free };
            let wanted = skipc_ir::run::<f64>(self.legal.graph(), &env).expect("values");
            let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
            let mut inputs = vec![
                (Role::Tokens, words(&step.batch.tokens)),
                (Role::Positions, words(&step.batch.positions)),
                (Role::Sequences, words(&step.batch.sequences)),
                (Role::Places, bytes(&step.cached.places)),
                (Role::Pages, bytes(&step.cached.pages)),
                (Role::Pending, bytes(&step.cached.pending)),
            ];
            let ports = self.legal.graph().signature().inputs;
            inputs.retain(|(role, _)| ports.iter().any(|port| port.role == *role));
            let roles: Vec<Role> = wanted.iter().map(|(role, _)| role.clone()).collect();
            let got = call(step.batch.tokens.len() as u32, &inputs, &roles);
            for ((role, wanted), got) in wanted.into_iter().zip(got) {
                assert!(same(&role, &wanted, &got), "{role} after {step:?}: {wanted:?} is not {got:?}");
                if let Role::State { .. } = role {
                    kept.insert(role, wanted);
                }
            }
        }
    }
}

pub(super) fn words(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| (*value as u32).to_le_bytes()).collect()
}

/// Counts and decisions exactly, reals to f32's rounding of sums of some hundred rows.
pub(super) fn same(role: &Role, wanted: &Datum<f64>, got: &[u8]) -> bool {
    match wanted {
        // The host gets how many there are.
        Datum::Mask(mask) if matches!(role, Role::Wanted { .. }) => {
            words(&[mask.iter().filter(|bit| **bit).count() as i64]) == got
        }
        Datum::Real { data, .. } => {
            let got =
                got.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            got.len() == data.len()
                && got
                    .zip(data)
                    .all(|(got, wanted)| (f64::from(got) - wanted).abs() < 1e-5 * (1.0 + wanted.abs()))
        }
        Datum::Ints(counts) => words(counts) == got,
        Datum::Mask(mask) => mask.iter().map(|bit| u8::from(*bit)).eq(got.iter().copied()),
        _ => false,
    }
}

#[test]
fn states_outlive_steps_in_compiled_code() {
    for backend in CpuBackend::built() {
        for body in [SUM, CAPACITY, UPDATE_FIRST, PENDING] {
            let toy = Toy::new(&state_graphs::text(body), &Target::Cpu, backend);
            for level in HostLevel::DESCENDING {
                for threads in [1, 2] {
                    let mut state = toy.state(threads, level);
                    toy.check(|n, inputs, roles| state.call(SCORE, n, inputs, roles).expect("a step"));
                }
            }
        }
    }
}

#[cfg(feature = "cuda")]
#[test]
fn states_outlive_steps_on_the_ptx_machine() {
    use super::ptx_model::PtxModel;

    for arch in ["sm_80", "sm_90a"] {
        for (body, seed) in [SUM, CAPACITY, UPDATE_FIRST, PENDING].into_iter().zip(0..) {
            let target = Target::Cuda(arch.to_owned());
            let toy = Toy::new(&state_graphs::text(body), &target, CpuBackend::default());
            let model = PtxModel::new(&toy.model(), arch);
            let mut memories = model.zero_states(CACHED_ROWS);
            toy.check(|n, inputs, roles| model.call_roles((n, inputs), roles, &mut memories, seed));
        }
    }
}
