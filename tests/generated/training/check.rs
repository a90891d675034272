//! All forms of a training run against each other.

use std::collections::BTreeMap;

use skipc::driver::backends::CpuBackend;
use skipc::driver::training::Host;
use skipc::frontend::layer::Layer;
use skipc::frontend::lower::{Counting, Skipping, Train};
use skipc::frontend::spec::model::Model;
use skipc::frontend::training::Config;
use skipc::frontend::weights::Weights;
use skipc::train::engine::{Build, Found, Settings};
use skipc::train::machine::Replayed;
use skipc::train::ranks::Alone;
use skipc::train::{Engine, Part, Tensors, compiled, interpreted};
use skipc_artifact::target::DType;
use skipc_ir::Domain;
use skipc_ir::interp::{Gf61, Number, Ring32};
use skipc_testkit::random::Rng;

use super::{STEPS, Trainee, options};
use crate::forms::Until;
use crate::tally::{Finding, Tally};
use crate::training_call::{Call, Forced, RULES, Rule};

/// How far a gradient in f32 may be off, of what it is and of a hundredth of the gradient of all tensors.
const F32_SHARE: f64 = 4e-5;

/// The same of a model with a cap: its slope is what is left of 1 beside the square of a number that is rounded near 1.
const CAPPED_SHARE: f64 = 1e-3;

/// How much farther it may be off than that of weights that differ by the last bit.
const SLACK: f64 = 128.0;

/// Runs of weights nearby, at most.
const MOST_RUNS: u32 = 24;

/// How far f64 forms may be off: their results are stored as f32.
const F64_SHARE: f64 = 1e-6;

/// The change of weights by an optimiser, which divides gradients by their own size.
const CHANGE_SHARE: f64 = 1e-3;

/// What a run did.
struct Ran {
    /// Of each step.
    found: Vec<Found>,
    gradients: Vec<Tensors>,
    weights: Tensors,
    moments: Tensors,
}

impl Ran {
    /// The decisions of each step.
    fn decisions(&self) -> Vec<Replayed> {
        let of = |found: &Found| Replayed { wanted: found.wanted.clone(), executed: found.executed.clone() };
        self.found.iter().map(of).collect()
    }
}

struct Checker<'a> {
    seed: u64,
    of: &'a Trainee,
    tally: Tally,
}

/// Checks a training run in every way there is.
pub(crate) fn check_trainee(seed: u64, until: Until) -> Tally {
    let of = Trainee::of(seed);
    let mut checker = Checker { seed, of: &of, tally: Tally { models: 1, ..Tally::default() } };
    for option in options(&of) {
        checker.tally.options.insert(option, 1);
    }
    if let Err(error) = checker.all(until) {
        checker.found("trains", error);
    }
    checker.tally
}

/// Whether a function has no slope in kernels: only its graphs are compared.
fn has_no_kernel(error: &str) -> bool {
    error.contains("no backend has a kernel of `derivative`")
}

impl Checker<'_> {
    fn all(&mut self, until: Until) -> Result<(), String> {
        let config = &self.of.config;
        let whole = self.run::<f64>(&in_parts(config, 0), &interpreted, &self.of.weights, None)?;
        let replayed = whole.decisions();
        self.decisions(&whole);
        self.frozen(&whole);
        let parts = self.run::<f64>(config, &interpreted, &self.of.weights, None)?;
        self.same("parts = whole, f64", &whole, &parts);
        let mut noise = Noise::default();
        let whole_config = in_parts(config, 0);
        let single = self.run::<f32>(&whole_config, &interpreted, &self.of.weights, Some(&replayed))?;
        self.gradients("f32 within bound", (&whole, &replayed), &single, &mut noise)?;
        self.resumed(&single, &replayed)?;
        if until == Until::Code {
            for backend in CpuBackend::built() {
                let host = Host { backend, dtype: DType::F32, threads: 1, max_tokens: 64 };
                let build = |model: &Model, graphs, states, weights: &Weights| {
                    compiled(model, &graphs, states, (weights, host))
                };
                match self.run::<f32>(&whole_config, &build, &self.of.weights, Some(&replayed)) {
                    Ok(ran) => {
                        self.gradients("code within bound", (&whole, &replayed), &ran, &mut noise)?;
                    }
                    Err(error) if has_no_kernel(&error) => {}
                    Err(error) => return Err(format!("{backend:?}: {error}")),
                }
            }
        }
        for (name, rule) in RULES {
            self.forms::<Ring32>((name, rule), false)?;
            self.forms::<Gf61>((name, rule), true)?;
        }
        Ok(())
    }

    fn found(&mut self, check: &str, detail: String) {
        self.tally.findings.push(Finding { seed: self.seed, check: check.to_owned(), detail });
    }

    /// Runs all steps, on other decisions than those of routers if there are any.
    fn run<N: Number>(
        &self,
        config: &Config,
        build: Build<'_, N>,
        weights: &Tensors,
        replayed: Option<&[Replayed]>,
    ) -> Result<Ran, String> {
        let mut engine = self.engine(config, build, weights)?;
        let mut ran = Ran {
            found: Vec::new(),
            gradients: Vec::new(),
            weights: Tensors::new(),
            moments: Tensors::new(),
        };
        for step in 0..STEPS {
            let replayed = replayed.map(|steps| &steps[step as usize]);
            self.advance(&mut engine, config, step, (replayed, &mut ran))?;
        }
        (ran.weights, ran.moments) = (engine.weights(), engine.moments());
        Ok(ran)
    }

    fn engine<N: Number>(
        &self,
        config: &Config,
        build: Build<'_, N>,
        weights: &Tensors,
    ) -> Result<Engine<N>, String> {
        let teacher = self.of.teacher.as_ref().map(|(model, weights)| (model, weights));
        Engine::new(&self.of.model, config, (weights, 1), (teacher, build)).map_err(|error| error.to_string())
    }

    fn advance<N: Number>(
        &self,
        engine: &mut Engine<N>,
        config: &Config,
        step: u64,
        (replayed, ran): (Option<&Replayed>, &mut Ran),
    ) -> Result<(), String> {
        let (noise, temperature) = (config.train.noise.at(step), config.train.temperature.at(step));
        let settings = Settings { step, noise, temperature };
        let batch: &Part = &self.of.batches[step as usize];
        let found =
            engine.gradient(settings, batch, (replayed, &Alone)).map_err(|error| error.to_string())?;
        ran.gradients.push(engine.gradients());
        engine.update(step, found.norm, config.optimizer.lr).map_err(|error| error.to_string())?;
        ran.found.push(found);
        Ok(())
    }

    /// Every decision of a step counts; none executes what it does not want.
    fn decisions(&mut self, ran: &Ran) {
        for found in &ran.found {
            for (wanted, executed) in found.wanted.iter().zip(&found.executed) {
                self.tally.decisions += wanted.len() as u64;
                self.tally.compared("only what is wanted executes");
                if executed.iter().zip(wanted).any(|(executes, wants)| *executes && !wants) {
                    self.found("only what is wanted executes", format!("{wanted:?} {executed:?}"));
                }
            }
        }
    }

    /// Tensors that do not train keep their bytes.
    fn frozen(&mut self, ran: &Ran) {
        for (name, tensor) in &self.of.weights {
            if self.of.config.trains(name) {
                continue;
            }
            self.tally.compared("frozen tensors keep their bytes");
            if ran.weights[name] != *tensor {
                self.found("frozen tensors keep their bytes", name.clone());
            }
        }
    }

    /// Runs that may differ by the order of f64 sums alone.
    fn same(&mut self, check: &str, a: &Ran, b: &Ran) {
        for (a, b) in a.found.iter().zip(&b.found) {
            self.tally.compared(check);
            let losses = (a.ce - b.ce).abs() + (a.kl - b.kl).abs();
            if (&a.wanted, &a.executed) != (&b.wanted, &b.executed) {
                self.found(check, "other decisions".to_owned());
            } else if losses > F64_SHARE * (1.0 + a.ce.abs()) {
                self.found(check, format!("losses {} {} and {} {}", a.ce, a.kl, b.ce, b.kl));
            }
        }
        for (a, b) in a.gradients.iter().zip(&b.gradients) {
            let all = norm_of_all(a);
            for (name, tensor) in a {
                let off = distance(&tensor.values, &b[name].values);
                if !is_within(off, F64_SHARE * (norm(&tensor.values) + 0.01 * all)) {
                    self.found(check, format!("the gradient of {name} is off by {off:e}"));
                }
            }
        }
        for (name, tensor) in &a.weights {
            let before = &self.of.weights[name].values;
            let change = distance(&tensor.values, before);
            let off = distance(&tensor.values, &b.weights[name].values);
            if !is_within(off, CHANGE_SHARE * change + 1e-6 * norm(before)) {
                self.found(check, format!("{name} is off by {off:e} of {change:e} after the last step"));
            }
        }
    }

    /// The gradient of the first step, in f32.
    fn gradients(
        &mut self,
        check: &str,
        (exact, replayed): (&Ran, &[Replayed]),
        ran: &Ran,
        noise: &mut Noise,
    ) -> Result<(), String> {
        self.tally.compared(check);
        let all = norm_of_all(&exact.gradients[0]);
        let share = if has_cap(&self.of.model) { CAPPED_SHARE } else { F32_SHARE };
        for (name, tensor) in &exact.gradients[0] {
            let off = distance(&tensor.values, &ran.gradients[0][name].values);
            let rounding = share * (norm(&tensor.values) + 0.01 * all);
            let bound = |noise: &Noise| rounding + SLACK * noise.of(name);
            // Most gradients need no more than one run of weights nearby; one at the bend of an activation may need many.
            while noise.runs < MOST_RUNS && (noise.runs == 0 || !is_within(off, bound(noise))) {
                self.disturb(noise, (exact, replayed))?;
            }
            let bound = bound(noise);
            self.tally.bounded += 1;
            self.tally.worst_share = self.tally.worst_share.max(off / bound);
            if !is_within(off, bound) {
                self.found(check, format!("the gradient of {name} is off by {off:e}, and {bound:e} may be"));
            }
        }
        if (&exact.found[0].wanted, &exact.found[0].executed)
            != (&ran.found[0].wanted, &ran.found[0].executed)
        {
            self.found(check, "other decisions than the replayed ones".to_owned());
        }
        Ok(())
    }

    /// Runs once more with weights nearby, and keeps how far gradients were off at most.
    fn disturb(&self, noise: &mut Noise, (exact, replayed): (&Ran, &[Replayed])) -> Result<(), String> {
        let weights = nearby(&self.of.weights, noise.runs);
        let config = in_parts(&self.of.config, 0);
        let nearby = self.run::<f64>(&config, &interpreted, &weights, Some(replayed))?;
        for (name, tensor) in &exact.gradients[0] {
            let off = distance(&tensor.values, &nearby.gradients[0][name].values);
            let most = noise.off.entry(name.clone()).or_default();
            *most = most.max(off);
        }
        noise.runs += 1;
        Ok(())
    }

    /// A run that stops behind its first step and goes on is the same to the bit.
    fn resumed(&mut self, whole: &Ran, replayed: &[Replayed]) -> Result<(), String> {
        const CHECK: &str = "resumed = uninterrupted, f32";
        let config = in_parts(&self.of.config, 0);
        let mut ran = Ran {
            found: Vec::new(),
            gradients: Vec::new(),
            weights: Tensors::new(),
            moments: Tensors::new(),
        };
        let mut engine = self.engine::<f32>(&config, &interpreted, &self.of.weights)?;
        for (step, replayed) in (0..STEPS).zip(replayed) {
            self.advance(&mut engine, &config, step, (Some(replayed), &mut ran))?;
            let (weights, moments) = (engine.weights(), engine.moments());
            engine = self.engine::<f32>(&config, &interpreted, &weights)?;
            engine.restore(&moments);
        }
        self.tally.compared(CHECK);
        if (engine.weights(), engine.moments()) != (whole.weights.clone(), whole.moments.clone()) {
            self.found(CHECK, "other weights or moments".to_owned());
        }
        Ok(())
    }

    /// Forms of the gradient where nothing rounds, under the same decisions everywhere.
    fn forms<N: skipc_plan::interp::Element + Domain>(
        &mut self,
        (name, rule): (&str, Rule),
        has_kernels: bool,
    ) -> Result<(), String> {
        let Trainee { model, config, weights, batches, .. } = self.of;
        let distill = config.distill.as_ref().map(|distill| (distill.weight, distill.temperature));
        let (ste, aux_weight) = (config.train.ste, config.train.aux_weight);
        let train = Train { ste, aux_weight, distill, counting: Counting::Here };
        let trains = |name: &str| config.trains(name);
        let call = |skipping| Call::new((model, &train, &trains), (weights, &batches[0]), skipping);
        let gathered = call(Skipping::Gathered).interpreted::<N>(&Forced(rule));
        let masked = call(Skipping::Masked).interpreted::<N>(&Forced(rule));
        let domain = std::any::type_name::<N>().rsplit("::").next().unwrap_or_default();
        let check = format!("masked = gathered, {domain}");
        self.tally.compared(&check);
        for ((state, ours), (_, theirs)) in masked.iter().zip(&gathered) {
            if ours != theirs {
                self.found(&check, format!("{name} executes: {state}"));
            }
        }
        if !has_kernels {
            return Ok(());
        }
        let check = format!("kernels = gathered, {domain}");
        for skipping in [Skipping::Gathered, Skipping::Masked] {
            let kernels = match call(skipping).planned_with::<N>((model, DType::F32), rule, &mut |_| ()) {
                Ok(kernels) => kernels,
                Err(error) if has_no_kernel(&error) => {
                    self.tally.refused.insert("a function without a slope".to_owned(), 1);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            self.tally.compared(&check);
            for (state, theirs) in &gathered {
                if kernels.reals(state) != Some(theirs) {
                    self.found(&check, format!("{name} executes, {skipping:?}: {state}"));
                }
            }
        }
        Ok(())
    }
}

/// Whether scores or logits are capped.
fn has_cap(model: &Model) -> bool {
    let is_capped = |layer: &Layer| matches!(layer, Layer::Attention(of) if of.softcap.is_some());
    model.stream.logit_softcap.is_some() || model.layers().any(is_capped)
}

/// A NaN is not.
fn is_within(off: f64, bound: f64) -> bool {
    off <= bound
}

/// The same run with so many rows in a part; 0: all.
fn in_parts(config: &Config, rows: usize) -> Config {
    let mut config = config.clone();
    config.train.microbatch = rows;
    config
}

/// What the last bits of weights change in gradients.
#[derive(Default)]
struct Noise {
    runs: u32,
    off: BTreeMap<String, f64>,
}

impl Noise {
    fn of(&self, name: &str) -> f64 {
        self.off.get(name).copied().unwrap_or_default()
    }
}

/// Weights whose last bits are others, up or down, each time in another way.
fn nearby(weights: &Tensors, run: u32) -> Tensors {
    let (mut nearby, mut rng) = (weights.clone(), Rng::new(run.into()));
    let size = f32::EPSILON * [1.0, 1.0, 2.0, 4.0][run as usize % 4];
    for value in nearby.values_mut().flat_map(|tensor| &mut tensor.values) {
        *value *= if rng.one_in(2) { 1.0 + size } else { 1.0 - size };
    }
    nearby
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

fn norm_of_all(tensors: &Tensors) -> f64 {
    tensors.values().map(|tensor| norm(&tensor.values).powi(2)).sum::<f64>().sqrt()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}
