//! The forms of a gradient against each other.

use std::path::Path;

use skipc::frontend::lower::{Counting, Skipping, Train};
use skipc::frontend::spec;
use skipc::frontend::spec::model::Model;
use skipc::frontend::training;
use skipc::train::ranks::Alone;
use skipc::train::{Begin, Data, Part, Tensors};
use skipc_artifact::target::DType;
use skipc_ir::Domain;
use skipc_ir::interp::{Gf61, Ring32};

use crate::call::{Call, Forced, RULES, Rule};
use crate::runs::{cases, distance};

/// Every third token executes.
pub(crate) const EVERY_THIRD: Rule = |row, _| row % 3 == 1;

fn compare_forms<N: Domain>(each: impl Fn(&Setting<'_>, (&str, Rule), &[(String, Vec<N>)])) {
    for case in cases() {
        with_setting(&case, 0.5, |setting| {
            RULES.iter().for_each(|(name, rule)| compare_rule(setting, (*name, *rule), &each));
        });
    }
}

pub(crate) fn with_setting(case: &Path, std: f64, of: impl FnOnce(&Setting<'_>)) {
    let model = spec::load(&case.join("spec.toml")).unwrap();
    let text = std::fs::read_to_string(case.join("train.toml")).unwrap();
    let mut config = training::read("train.toml", &text, case).unwrap();
    config.init.std = std;
    let data = Data::read(&config, model.stream.vocab_size).unwrap();
    let weights = Begin { model: &model, config: &config, data: &data, teacher: None, ranks: &Alone }
        .weights(None)
        .unwrap();
    let batch = data.step(0);
    of(&Setting { case, model: &model, config: &config, weights: &weights, batch: &batch });
}

fn compare_rule<N: Domain>(
    setting: &Setting<'_>,
    (name, rule): (&str, Rule),
    each: impl Fn(&Setting<'_>, (&str, Rule), &[(String, Vec<N>)]),
) {
    let Setting { case, weights, .. } = *setting;
    let of = |skipping| setting.call(skipping).interpreted::<N>(&Forced(rule));
    let (gathered, masked) = (of(Skipping::Gathered), of(Skipping::Masked));
    // Blocks that never run are in neither.
    assert!(gathered.len() == masked.len() && gathered.len() > weights.len());
    for ((state, ours), (_, theirs)) in gathered.iter().zip(&masked) {
        assert!(ours == theirs, "{}, {name} executes: {state}", case.display());
    }
    each(setting, (name, rule), &gathered);
}

/// A case with first weights and a batch.
pub(crate) struct Setting<'a> {
    case: &'a Path,
    pub(crate) model: &'a Model,
    config: &'a training::Config,
    weights: &'a Tensors,
    batch: &'a Part,
}

impl<'a> Setting<'a> {
    /// The gradient function of the case, in which all tensors train.
    pub(crate) fn call(&self, skipping: Skipping) -> Call<'a> {
        let settings = &self.config.train;
        let train = Train {
            ste: settings.ste,
            aux_weight: settings.aux_weight,
            distill: None,
            counting: Counting::Here,
        };
        Call::new((self.model, &train, &|_| true), (self.weights, self.batch), skipping)
    }
}

#[test]
fn all_forms_of_a_gradient_are_one_over_a_field() {
    compare_forms::<Gf61>(|setting, (name, rule), gathered| {
        let Setting { case, model, .. } = *setting;
        for skipping in [Skipping::Gathered, Skipping::Masked] {
            let call = setting.call(skipping);
            let kernels = call.planned_with::<Gf61>((model, DType::F32), rule, &mut |_| ()).unwrap();
            for (state, theirs) in gathered {
                let ours = kernels.reals(state);
                assert!(ours == Some(theirs), "{}, {name} executes, kernels: {state}", case.display());
            }
        }
    });
}

/// How far half of the gradients may be off that kernels in bf16 make, tile by tile.
const BF16_MEDIAN: f64 = 0.1;

#[test]
fn planned_kernels_in_bf16_round_little() {
    for case in cases() {
        with_setting(&case, 0.1, |setting| {
            let (model, call) = (setting.model, setting.call(Skipping::Gathered));
            for (name, rule) in [("every third", EVERY_THIRD), ("all", |_, _| true)] {
                let exact = call.interpreted::<f64>(&Forced(rule));
                let rounded = call.planned_with::<f32>((model, DType::Bf16), rule, &mut |_| ()).unwrap();
                let off = |(state, exact): (String, Vec<f64>)| {
                    let exact: Vec<f32> = exact.into_iter().map(|value| value as f32).collect();
                    distance(rounded.reals(&state).unwrap(), &exact)
                };
                let gradients = exact.into_iter().filter(|(state, _)| state.starts_with("gradient"));
                let mut off: Vec<f64> = gradients.map(off).collect();
                off.sort_by(f64::total_cmp);
                let median = off[off.len() / 2];
                let what = format!("{}, {name} executes", case.display());
                assert!((1e-4..BF16_MEDIAN).contains(&median), "{what}: off by {median}");
            }
        });
    }
}

#[test]
fn gathered_and_masked_gradients_are_equal_where_nothing_rounds() {
    compare_forms::<Ring32>(|_, _, _| ());
}
