//! A training run: what it begins with, and its steps.

use std::collections::BTreeMap;

use serde::Serialize;
use skipc_artifact::target::DType;
use skipc_ir::interp::Number;

use super::engine::{Build, Found, Settings};
use super::machine::Replayed;
use super::ranks::Ranks;
use super::record::Record;
use super::{Data, Engine, Evaluation, Part, Tensor, Tensors};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::driver::backends::CpuBackend;
use crate::error::{Error, ErrorKind};
use crate::frontend::layer::Layer;
use crate::frontend::spec::first;
use crate::frontend::spec::model::Model;
use crate::frontend::spec::node::{self, Block, Layers, SubLayer};
use crate::frontend::spec::skip::{BranchScale, Branches, Carry, Combine, Decider, Generate, Scope};
use crate::frontend::spec::tensors::tensors;
use crate::frontend::stream::{Head, StreamInput};
use crate::frontend::training::{Config, Dtype, Ste};
use crate::frontend::weights::Weights;
use crate::frontend::weights::memory::Memory;

/// Routers that the place of a draw has room for.
const MAX_ROUTERS: usize = 1 << 16;

/// A teacher of `[distill]`.
pub struct Teacher {
    /// The model.
    pub model: Model,
    /// Its weights.
    pub weights: Weights,
}

/// What a run begins with.
pub struct Begin<'a> {
    /// The model.
    pub model: &'a Model,
    /// The configuration.
    pub config: &'a Config,
    /// The data.
    pub data: &'a Data,
    /// The teacher, if the configuration has one.
    pub teacher: Option<&'a Teacher>,
    /// The processes that train it.
    pub ranks: &'a dyn Ranks,
}

/// A run between two steps.
pub struct Run<'a, N> {
    begin: &'a Begin<'a>,
    /// Weights and moments.
    pub engine: Engine<N>,
    /// Steps that are done.
    pub step: u64,
}

/// The line of a step in logs and records.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepRecord {
    /// Learning rate.
    pub lr: f64,
    /// Cross-entropy, in nats a token.
    pub ce: f64,
    /// Of the teacher's distribution from the model's.
    pub kl: f64,
    /// Σ (rate − density)² over gumbel and sigmoid routers.
    pub aux: f64,
    /// What is minimised.
    pub loss: f64,
    /// Norm of the gradient, before it is clipped.
    pub grad_norm: f64,
    /// Tokens that have a target.
    pub tokens: usize,
    /// Share of them that each router wants to execute.
    pub wanted: Vec<f64>,
    /// Share that it executes.
    pub executed: Vec<f64>,
}

/// Looks whether a model can be trained like this; warnings are what does nothing.
///
/// # Errors
/// All that contradicts the model.
pub fn check(model: &Model, config: &Config) -> Result<Diagnostics, Error> {
    let mut found = Diagnostics::default();
    if model.stream.input != StreamInput::Tokens || model.stream.head != Head::Tokens {
        let message = "the model takes or gives rows, and not tokens: nothing says what it should give";
        let help = "train a model with an embedding and a head; a part of it can be cut out afterwards";
        return Err(Diagnostic::new("train::rows_model", message).help(help).into());
    }
    if let Some(what) = without_rule(model) {
        let message = format!("the model has {what}, which training does not know yet");
        let help = "a model that has it can be compiled with weights that were trained elsewhere";
        return Err(Error::new(
            ErrorKind::Unsupported,
            Diagnostic::new("train::unsupported", message).help(help),
        ));
    }
    let (seq, most) = (config.train.seq, model.stream.max_positions);
    if seq > most {
        let message = format!("`seq` is {seq}, and the model has {most} positions");
        found.push(
            Diagnostic::new("train::positions", message)
                .help("write a smaller `seq`, or a larger `max_positions`"),
        );
    }
    if model.skips().count() > MAX_ROUTERS {
        let message = format!("the model has {} routers", model.skips().count());
        found.push(
            Diagnostic::new("train::routers", message).help(format!("at most {MAX_ROUTERS} can be trained")),
        );
    }
    let all = tensors(model);
    let names = all.iter().map(|tensor| tensor.name.as_str());
    let lists =
        [("train", &config.train.train), ("freeze", &config.train.freeze), ("missing", &config.init.missing)];
    for (key, patterns) in lists {
        if let Some(pattern) = patterns.idle(names.clone()) {
            let message = format!("`{key}`: no tensor of the model matches `{pattern}`");
            let help = "`skipc check SPEC --json` lists the tensors; `*` stands for any text";
            found.push(Diagnostic::new("train::pattern", message).help(help));
        }
    }
    if !all.iter().any(|tensor| config.trains(&tensor.name)) {
        let message = "`train` and `freeze` leave no tensor to train";
        found.push(Diagnostic::new("train::nothing", message).help("freeze less"));
    }
    found.or(())?;
    Ok(idle_settings(model, config))
}

/// What rows are computed in by code of this backend, or by the interpreter.
///
/// # Errors
/// `train::dtype` where it does not compute in what the configuration wants.
pub fn precision(config: &Config, backend: Option<CpuBackend>) -> Result<DType, Error> {
    let refused = |what: &str, help: &str| {
        let message = format!("`dtype` is \"bf16\", and {what} computes in f32");
        Error::new(ErrorKind::Unsupported, Diagnostic::new("train::dtype", message).help(help))
    };
    match (config.train.dtype, backend) {
        (Dtype::F32, _) => Ok(DType::F32),
        (Dtype::Bf16, Some(CpuBackend::Llvm)) => Ok(DType::Bf16),
        (Dtype::Bf16, Some(CpuBackend::Cranelift)) => {
            let help = match cfg!(feature = "llvm") {
                true => "train by `--cpu-backend llvm`, or write `dtype = \"f32\"`",
                false => "build skipc with the feature `llvm`, or write `dtype = \"f32\"`",
            };
            Err(refused("Cranelift", help))
        }
        (Dtype::Bf16, None) => {
            Err(refused("the interpreter", "train by `--target cpu`, or write `dtype = \"f32\"`"))
        }
    }
}

/// The first thing in a model, in the words of its spec, for which no rule of training stands: what gradient its decision gets.
fn without_rule(model: &Model) -> Option<&'static str> {
    if model.stacks.iter().any(|stack| stack.share) {
        return Some("`share`");
    }
    if !model.stacks.is_empty() {
        return Some("`skip` on a stack");
    }
    let of_layer = |layer: &SubLayer| match layer.layer {
        Layer::Experts(_) => Some("`kind = \"experts\"`"),
        Layer::Conv(_) => Some("`kind = \"conv\"`"),
        Layer::Attention(_) | Layer::Ffn(_) | Layer::Linear(_) => None,
    };
    for part in model.blocks.iter().flat_map(Block::parts) {
        match part {
            node::Part::Layer(Layers::Otherwise(_), ..) => return Some("`otherwise`"),
            node::Part::Layer(_, _, layer) => {
                if let Some(what) = of_layer(layer) {
                    return Some(what);
                }
            }
            node::Part::Route(..) => {}
        }
    }
    model.skips().find_map(|skip| {
        let (scorer, either) = match &skip.combine {
            Combine::Highway(highway) => {
                if highway.carry != Carry::Coupled {
                    return Some("`carry = \"own\"`");
                }
                if highway.carry_bias != 0.0 {
                    return Some("`carry_bias`");
                }
                (Some(highway.scorer), None)
            }
            Combine::Either(either) => (either.decider.scorer(), Some(either)),
        };
        if scorer.is_some_and(|scorer| !scorer.steps.is_empty()) {
            return Some("`decider`");
        }
        if skip.has_channels() {
            return Some("`channels`");
        }
        let either = either?;
        let is_predicted =
            matches!(either.decider, Decider::TopK { generate: Generate::Predictor { .. }, .. });
        let of_batch = matches!(either.decider, Decider::TopK { scope: Scope::Batch, .. });
        let settings = [
            (of_batch, "`scope = \"batch\"`"),
            (is_predicted, "`generate = \"predictor\"`"),
            (either.force_first > 0, "`force_first`"),
            (either.factor != 1.0, "`gate_factor`"),
            (either.scale == BranchScale::Score, "`gate = \"raw\"`"),
            (either.scale == BranchScale::ProbabilityLast, "`gate = \"scaled_last\"`"),
            (either.branches != Branches::Either, "`combine`"),
        ];
        settings.into_iter().find_map(|(is_there, what)| is_there.then_some(what))
    })
}

/// Settings that do nothing, or not what their author may hope.
fn idle_settings(model: &Model, config: &Config) -> Diagnostics {
    let mut notes = Diagnostics::default();
    let eithers = || {
        model.skips().filter_map(|skip| match skip.combine {
            Combine::Either(either) => Some(either),
            Combine::Highway(_) => None,
        })
    };
    if config.train.aux_weight == 0.0 && model.skips().any(|skip| skip.has_rate()) {
        let message = "`aux_weight` is 0, so nothing draws the routers to their densities";
        notes.push(Diagnostic::warning("train::no_rate_loss", message).help("0.1 is what is usual"));
    }
    let learns = |decider: &Decider| decider.scorer().is_some();
    let mut learning = eithers().filter(|either| learns(&either.decider)).peekable();
    let has_any = learning.peek().is_some();
    if config.train.ste != Ste::Dense
        && has_any
        && learning.all(|either| either.scale == BranchScale::Probability)
    {
        let message =
            "every gate is scaled by its probability, which carries its gradient: `ste` does nothing";
        notes.push(Diagnostic::warning("train::idle_ste", message).help("leave it out"));
    }
    notes
}

impl Begin<'_> {
    /// The first weights: those of a file, and what it may lack drawn.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn weights(&self, file: Option<&std::path::Path>) -> Result<Tensors, Error> {
        let Config { train, init, .. } = self.config;
        let all = tensors(self.model);
        let drawn = |tensor: &crate::frontend::spec::tensors::TensorSpec| {
            let values = first::weights(self.model, tensor, train.seed, init.std);
            (tensor.name.clone(), tensor.shape.clone(), values)
        };
        let Some(file) = file else {
            let tensor = |own| {
                let (name, shape, values) = drawn(own);
                (name, Tensor { shape, values })
            };
            return Ok(all.iter().map(tensor).collect());
        };
        let may_lack = all.iter().filter(|tensor| init.missing.matches(&tensor.name));
        let weights = Weights::open_with(file, Memory::new(may_lack.map(drawn)), self.model)?;
        let mut found = BTreeMap::new();
        for own in &all {
            let values = weights.tensor(&own.name)?.to_f32();
            found.insert(own.name.clone(), Tensor { shape: own.shape.clone(), values });
        }
        Ok(found)
    }
}

impl<'a, N: Number> Run<'a, N> {
    /// A run from its beginning.
    ///
    /// # Errors
    /// What cannot be trained.
    pub fn new(begin: &'a Begin<'a>, weights: &Tensors, build: Build<'_, N>) -> Result<Run<'a, N>, Error> {
        let Begin { model, config, teacher, .. } = begin;
        check(model, config)?;
        if let Some(teacher) = teacher
            && teacher.model.stream.vocab_size != model.stream.vocab_size
        {
            let (theirs, own) = (teacher.model.stream.vocab_size, model.stream.vocab_size);
            let message = format!("the teacher has {theirs} ids, and the model {own}");
            let help = "teacher and model need one vocabulary";
            return Err(Diagnostic::new("train::teacher", message).help(help).into());
        }
        let teacher = teacher.map(|teacher| (&teacher.model, &teacher.weights));
        let engine = Engine::new(model, config, (weights, begin.ranks.size()), (teacher, build))?;
        Ok(Run { begin, engine, step: 0 })
    }

    /// The next step. A record gets what it found, before the weights change.
    ///
    /// # Errors
    /// `train::no_target`, `train::not_finite`; the weights are as they were then.
    pub fn advance(
        &mut self,
        record: Option<&mut Record>,
        replayed: impl FnOnce(u64, &Part) -> Option<Replayed>,
    ) -> Result<StepRecord, Error> {
        let (step, config) = (self.step, self.begin.config);
        let batch = self.begin.data.step(step);
        let settings = Settings {
            step,
            noise: config.train.noise.at(step),
            temperature: config.train.temperature.at(step),
        };
        let found =
            self.engine.gradient(settings, &batch, (replayed(step, &batch).as_ref(), self.begin.ranks))?;
        let lr = config.optimizer.lr * config.schedule.factor(step, config.train.steps);
        let line = self.line(&found, lr, batch.n_live());
        if let Some(record) = record {
            let order = self.begin.data.indices(step);
            record.step(&self.engine, (&batch, &order), (&found.wanted, &found.executed), config.train.seq);
            record.line(line.clone());
        }
        self.engine.update(step, found.norm, lr)?;
        self.step += 1;
        Ok(line)
    }

    fn line(&self, found: &Found, lr: f64, tokens: usize) -> StepRecord {
        let config = self.begin.config;
        let rate = |mask: &Vec<bool>| mask.iter().filter(|it| **it).count() as f64 / tokens as f64;
        let wanted: Vec<f64> = found.wanted.iter().map(rate).collect();
        let excess = self
            .begin
            .model
            .skips()
            .zip(&wanted)
            .filter_map(|(skip, rate)| skip.has_rate().then_some((rate - skip.density).powi(2)));
        let (ce, kl, aux) = (found.ce, found.kl, excess.sum::<f64>());
        let of_teacher = config.distill.as_ref().map_or((0.0, 0.0), |distill| {
            (distill.weight, distill.weight * distill.temperature * distill.temperature)
        });
        let loss = (1.0 - of_teacher.0) * ce + of_teacher.1 * kl + config.train.aux_weight * aux;
        let executed = found.executed.iter().map(rate).collect();
        StepRecord { lr, ce, kl, aux, loss, grad_norm: found.norm, tokens, wanted, executed }
    }

    /// The model on what is held out.
    ///
    /// # Errors
    /// None that is not a fault of skipc.
    pub fn evaluate(&mut self) -> Result<Option<Evaluation>, Error> {
        let Begin { data, config, ranks, .. } = self.begin;
        Evaluation::of(&mut self.engine, data, (*ranks, config.rows_at_once(ranks.size())))
    }
}
