//! Faults planted in what runs the steps of training, each of which has to be caught by a case.

use std::panic::{AssertUnwindSafe, catch_unwind};

use skipc::error::Error;
use skipc::frontend::spec::model::Model;
use skipc::frontend::weights::Weights;
use skipc::train::interpreted;
use skipc::train::machine::{FirstState, Function, Graphs, Machine, OfPart};
use skipc::train::times::Times;
use skipc_ir::Role;
use skipc_ir::interp::{Datum, FlatBatch, Results};

use crate::record;
use crate::runs::{Bounds, cases, compare};

/// What goes wrong in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Each part of a batch squares its own rate.
    RateOfPart,
    /// Each part of a batch divides by its own tokens.
    TokensOfPart,
    /// Gradients of parts are averaged.
    Averaged,
    /// The backward pass has other noise than the decisions.
    NoiseDrawnAnew,
    /// The probability of a noisy decision is not cooled.
    NoTemperature,
    /// The gradient is not clipped.
    NotClipped,
    /// What a moment became is not kept.
    MomentLost,
    /// Norms, biases and routers decay.
    AllDecay,
    /// Tensors that do not train decay.
    FrozenDecay,
    /// The gradient of a step is still there in the next one.
    NotCleared,
}

const FAULTS: [Fault; 10] = [
    Fault::RateOfPart,
    Fault::TokensOfPart,
    Fault::Averaged,
    Fault::NoiseDrawnAnew,
    Fault::NoTemperature,
    Fault::NotClipped,
    Fault::MomentLost,
    Fault::AllDecay,
    Fault::FrozenDecay,
    Fault::NotCleared,
];

/// A machine with a fault.
struct Faulty {
    fault: Option<Fault>,
    right: Box<dyn Machine<f64>>,
    /// Tensors that train.
    trained: Vec<String>,
    /// Those that should not.
    frozen: Vec<String>,
    parts: f64,
}

fn numbers(datum: &mut Datum<f64>) -> &mut Vec<f64> {
    match datum {
        Datum::Real { data, .. } => data,
        _ => panic!("numbers"),
    }
}

impl Faulty {
    fn gradient_of(&self, name: &str) -> Vec<f64> {
        self.right.state(&format!("gradient {name}")).unwrap()
    }

    fn set(&mut self, name: &str, values: &[f64]) {
        let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
        self.right.set_state(name, &values);
    }

    fn before(
        &mut self,
        function: Function,
        inputs: &mut [(String, Datum<f64>)],
        batch: &FlatBatch,
        replayed: Option<&OfPart<'_>>,
    ) -> Result<(), Error> {
        let all = inputs.to_vec();
        let given = |name: &str| all.iter().find(|(own, _)| own == name).map(|(_, datum)| datum.clone());
        match (self.fault, function) {
            (Some(Fault::RateOfPart), Function::Gradient) => {
                let counted = self.right.run(Function::Count, all.clone(), batch, replayed)?;
                for (role, wanted) in counted {
                    let (Role::Decision { router } | Role::WantedMask { router }) = role else { continue };
                    let count = wanted.mask().unwrap().iter().filter(|wants| **wants).count() as f64;
                    // The rate of the part, as a count of the batch.
                    let all = numbers(&mut given("tokens").unwrap())[0];
                    let count = count * all / batch.len() as f64;
                    for (name, datum) in
                        inputs.iter_mut().filter(|(name, _)| *name == format!("count {router}"))
                    {
                        *numbers(datum) = vec![count];
                        assert!(name.starts_with("count"));
                    }
                }
            }
            (Some(Fault::TokensOfPart), Function::Gradient) => {
                let of_part = |(name, datum): &mut (String, Datum<f64>)| {
                    if name == "tokens" {
                        *numbers(datum) = vec![batch.len() as f64];
                    }
                };
                inputs.iter_mut().for_each(of_part);
            }
            (Some(Fault::NoiseDrawnAnew), Function::Gradient) => {
                for (_, datum) in inputs.iter_mut().filter(|(name, _)| name.starts_with("noise ")) {
                    numbers(datum).iter_mut().for_each(|noise| *noise = 1.0 - *noise);
                }
            }
            (Some(Fault::NoTemperature), Function::Gradient) => {
                for (_, datum) in inputs.iter_mut().filter(|(name, _)| name == "inverse temperature") {
                    *numbers(datum) = vec![1.0];
                }
            }
            (Some(Fault::Averaged), Function::Norm) => {
                for name in self.trained.clone() {
                    let mean: Vec<f64> =
                        self.gradient_of(&name).iter().map(|value| value / self.parts).collect();
                    self.set(&format!("gradient {name}"), &mean);
                }
            }
            (Some(Fault::FrozenDecay), Function::Norm) => {
                for name in self.frozen.clone() {
                    let zeros = vec![0.0; self.gradient_of(&name).len()];
                    self.set(&format!("gradient {name}"), &zeros);
                }
            }
            (Some(Fault::NotClipped), Function::Update) => {
                for (_, datum) in inputs.iter_mut().filter(|(name, _)| name == "clip") {
                    *numbers(datum) = vec![1.0];
                }
            }
            (Some(Fault::AllDecay), Function::Update) => {
                let rates = given("rates").unwrap();
                for (_, datum) in inputs.iter_mut().filter(|(name, _)| name == "rates without decay") {
                    *datum = rates.clone();
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Machine<f64> for Faulty {
    fn run(
        &mut self,
        function: Function,
        mut inputs: Vec<(String, Datum<f64>)>,
        batch: &FlatBatch,
        replayed: Option<&OfPart<'_>>,
    ) -> Result<Results<f64>, Error> {
        self.before(function, &mut inputs, batch, replayed)?;
        let first = self.trained[0].clone();
        let kept = match (self.fault, function) {
            (Some(Fault::MomentLost), Function::Update) => {
                let moments = ["mean", "square", "rows"].map(|what| format!("{what} {first}"));
                moments.into_iter().find_map(|name| Some((self.right.state(&name)?, name)))
            }
            (Some(Fault::NotCleared), Function::Update) => {
                Some((self.gradient_of(&first), format!("gradient {first}")))
            }
            _ => None,
        };
        let results = self.right.run(function, inputs, batch, replayed)?;
        if let Some((values, name)) = kept {
            self.set(&name, &values);
        }
        Ok(results)
    }

    fn state(&self, name: &str) -> Option<Vec<f64>> {
        self.right.state(name)
    }

    fn set_state(&mut self, name: &str, values: &[f32]) {
        self.right.set_state(name, values);
    }

    fn describe(&self) -> String {
        self.right.describe()
    }

    fn times(&self) -> Option<&Times> {
        None
    }
}

/// Whether a case goes well with a fault, or with none.
fn goes_well(case: &std::path::Path, fault: Option<Fault>) -> bool {
    let text = std::fs::read_to_string(case.join("train.toml")).unwrap();
    let config = skipc::frontend::training::read("train.toml", &text, case).unwrap();
    let in_parts = [Fault::RateOfPart, Fault::TokensOfPart, Fault::Averaged];
    let rows = if fault.is_none_or(|fault| in_parts.contains(&fault)) { 1 } else { 0 };
    let parts = if rows == 1 { config.train.batch as f64 } else { 1.0 };
    let build = |model: &Model, graphs: Graphs, states: Vec<FirstState>, weights: &Weights| {
        let names: Vec<String> = states
            .iter()
            .map(|state| state.name.clone())
            .filter(|name| weights.sizes().any(|(own, _)| own == name))
            .collect();
        let (trained, frozen) = names.into_iter().partition(|name| config.trains(name));
        let right = interpreted(model, graphs, states, weights)?;
        let machine: Box<dyn Machine<f64>> = Box::new(Faulty { fault, right, trained, frozen, parts });
        Ok(machine)
    };
    let folder = tempfile::tempdir().unwrap();
    record::<f64>(case, folder.path(), (fault == Some(Fault::NoiseDrawnAnew), &build), |config| {
        config.train.microbatch = rows;
        if fault == Some(Fault::FrozenDecay) {
            config.train.freeze.0.clear();
        }
    });
    let bounds = Bounds { loss: 2e-5, gradient: 2e-5, change: 1e-3 };
    catch_unwind(AssertUnwindSafe(|| compare(case, folder.path(), &bounds))).is_ok()
}

#[test]
fn planted_faults_of_steps_are_caught() {
    let cases = cases();
    assert!(cases.iter().all(|case| goes_well(case, None)), "a machine without a fault");
    for fault in FAULTS {
        assert!(cases.iter().any(|case| !goes_well(case, Some(fault))), "not caught: {fault:?}");
    }
}
