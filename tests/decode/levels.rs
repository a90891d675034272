//! Steps in bf16 on every level of instructions that this processor has, against the rule that bf16 is held to.

use std::path::Path;

use skipc::driver::backends::CpuLevels;
use skipc::driver::pack;
use skipc::driver::pipeline::{self, Request};
use skipc::driver::trace::Trace;
use skipc::frontend::spec;
use skipc::frontend::weights::Weights;
use skipc::verify::{Inputs, climb, drawn_batch, scoring};
use skipc_artifact::target::{DType, Target};
use skipc_runtime::{Device, Model, Module, Options};

/// Both ways to keep keys and values.
const MODELS: [&str; 2] = ["gumbel", "gumbel-active-rope"];

#[test]
fn steps_in_bf16_are_within_the_rule_on_every_level() {
    let levels: Vec<_> = skipc_runtime::cpu_levels().collect();
    let mut n_rows = 0;
    for name in MODELS {
        let folder = Path::new("tests/golden").join(name);
        let model = spec::load(&folder.join("spec.toml")).expect("a spec");
        let weights = Weights::open(&folder.join("weights.safetensors"), &model).expect("weights");
        let targets = vec![(Target::Cpu, DType::Bf16)];
        let request = Request { targets, cpu_levels: CpuLevels::All, ..Request::here() };
        let compiled = pipeline::compile(&model, &request, &mut Trace::silent()).expect("it compiles");
        let bytes = pack::to_bytes((&model, &weights), &request, compiled).expect("an artefact");
        let artefact = Model::from_bytes(&bytes).expect("it loads");
        let batch = drawn_batch(&scoring(&artefact).expect("it scores"));
        for level in &levels {
            let inputs = Inputs {
                batch: &batch,
                routing: None,
                threads: Some(1),
                max_level: Some(*level),
                weights: &weights,
                progress: &|_| {},
            };
            let report = climb(&artefact, &inputs).expect("a report");
            let wrong = report.rows.iter().find(|row| !row.ok);
            assert!(wrong.is_none(), "{name}, {level:?}: {wrong:?}");
            let in_steps = report.rows.iter().filter(|row| row.form.starts_with("cpu, "));
            n_rows += in_steps.filter(|row| row.numbers == "bf16").count();
            let options = Options { max_level: Some(*level), ..Options::default() };
            let module = Module::load(&artefact, Device::Cpu, options).expect("code");
            assert!(module.describe().contains(&format!("{level:?}")), "{}", module.describe());
        }
    }
    assert!(n_rows >= 10 * MODELS.len() * levels.len(), "{n_rows} comparisons on {levels:?}");
}
