//! Steps of training: what the functions of a program are called with, and what their results mean.

use std::collections::BTreeMap;
use std::ops::Range;

use skipc_ir::draws::{self, DrawKey};
use skipc_ir::interp::{Datum, FlatBatch, Number};
use skipc_ir::{Domain, Graph, Role};
use skipc_passes::Options;

use super::Part;
use super::compiled::Compiled;
pub use super::found::Found;
use super::found::masks;
use super::machine::{
    FirstState, Frozen, Function, Graphs, Interpreter, Machine, OfPart, Replayed, failed, first_states,
    numbers,
};
use super::ranks::Ranks;
use super::times::Times;
use crate::diagnostic::Diagnostic;
use crate::driver::training::{Host, load};
use crate::error::{Error, ErrorKind};
use crate::frontend::lower::{
    self, Counting, Skipping, Train, Trained, count_graph, gradient_graph, norm_graph, score_graph,
    update_graph,
};
use crate::frontend::spec::model::Model;
use crate::frontend::spec::skip::Decider;
use crate::frontend::training::{Config, OptimizerKind};
use crate::frontend::weights::Weights;

/// Passes of a graph of training: what forward and backward pass have in common is computed once.
const PASSES: [&str; 2] = ["cse", "dce"];

/// Numbers of a gradient that ranks sum at once, and a tensor more: few calls, and little memory beside the states.
const SUMMED: usize = 1 << 22;

/// What is trained, on what, and how far it has come.
pub struct Engine<N> {
    config: Config,
    model: Model,
    trained: Vec<Trained>,
    /// Tensors that do not train.
    frozen: Tensors,
    /// Where rates are counted.
    counting: Counting,
    machine: Box<dyn Machine<N>>,
    teacher: Option<Box<dyn Machine<N>>>,
}

/// Makes what runs a model's functions, with first states and the tensors that do not train.
pub type Build<'b, N> =
    &'b dyn Fn(&Model, Graphs, Vec<FirstState>, &Weights) -> Result<Box<dyn Machine<N>>, Error>;

/// Training on the reference interpreter.
///
/// # Errors
/// None that is not a fault of skipc.
pub fn interpreted<N: Domain>(
    _: &Model,
    graphs: Graphs,
    states: Vec<FirstState>,
    weights: &Weights,
) -> Result<Box<dyn Machine<N>>, Error> {
    let mut frozen = BTreeMap::new();
    for (name, _) in weights.sizes() {
        if !states.iter().any(|state| state.name == name) {
            frozen.insert(name.to_owned(), numbers(&weights.tensor(name)?.to_f32()));
        }
    }
    Ok(Box::new(Interpreter::new(graphs, states, Frozen(frozen))))
}

/// Training by compiled code on the host.
///
/// # Errors
/// An op without a kernel, by its name; no memory.
pub fn compiled(
    model: &Model,
    graphs: &Graphs,
    states: Vec<FirstState>,
    (weights, host): (&Weights, Host),
) -> Result<Box<dyn Machine<f32>>, Error> {
    let functions: Vec<(&str, &Graph)> =
        graphs.iter().map(|(function, graph)| (function.name(), graph)).collect();
    let module = load(model, &functions, weights, host)?;
    Ok(Box::new(Compiled::new(&module, states)?))
}

/// A tensor in f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Its elements, row by row.
    pub values: Vec<f32>,
}

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// The settings that change from step to step.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// From 0.
    pub step: u64,
    /// Factor of noise.
    pub noise: f64,
    /// Of the probability that stands for a noisy decision.
    pub temperature: f64,
}

fn lowered(error: lower::LowerError) -> Error {
    match error {
        error @ lower::LowerError::Gradient(skipc_ir::gradient::GradientError::NoDerivative { .. }) => {
            let help = "freeze what stands in front of it, or leave it out of the model";
            let diagnostic = Diagnostic::new("train::no_derivative", error.to_string()).help(help);
            Error::new(ErrorKind::Unsupported, diagnostic)
        }
        error => Error::internal("lower::broken", &error),
    }
}

/// A graph after the passes of training.
fn passed(graph: Graph) -> Result<Graph, Error> {
    let passed = skipc_passes::run(graph, &PASSES, &Options::default(), &mut |_, _| ());
    passed.map_err(|error| Error::internal(error.code(), &error))
}

/// What graphs of a run are made for.
fn made_for(model: &Model, config: &Config, ranks: usize) -> Train {
    let settings = &config.train;
    let in_parts = config.rows_at_once(ranks) < settings.batch;
    let has_rates = settings.aux_weight > 0.0 && model.skips().any(|skip| skip.has_rate());
    Train {
        ste: settings.ste,
        aux_weight: settings.aux_weight,
        distill: config.distill.as_ref().map(|distill| (distill.weight, distill.temperature)),
        // Rates of a batch in parts are squared: they have to be known before its first backward pass.
        counting: if in_parts && has_rates { Counting::Given } else { Counting::Here },
    }
}

/// The functions of a run.
fn graphs(model: &Model, config: &Config, trained: &[Trained], train: &Train) -> Result<Graphs, Error> {
    let mut graphs = Graphs::new();
    if train.counting == Counting::Given {
        graphs.insert(Function::Count, count_graph(model, train, trained).map_err(lowered)?);
    }
    let gradient = gradient_graph(model, Skipping::Gathered, train, trained);
    graphs.insert(Function::Gradient, gradient.map_err(lowered)?);
    graphs.insert(Function::Norm, norm_graph(trained).map_err(lowered)?);
    let update = update_graph(trained, config.optimizer.kind, |name| config.decays(name));
    graphs.insert(Function::Update, update.map_err(lowered)?);
    graphs.insert(Function::Score, score_graph(model, trained).map_err(lowered)?);
    graphs.into_iter().map(|(function, graph)| Ok((function, passed(graph)?))).collect()
}

impl<N: Number> Engine<N> {
    /// A model with its first weights, for one of so many ranks; moments are 0. `teacher` is another model with its weights.
    ///
    /// # Errors
    /// What cannot be trained.
    pub fn new(
        model: &Model,
        config: &Config,
        (weights, ranks): (&Tensors, usize),
        (teacher, build): (Option<(&Model, &Weights)>, Build<'_, N>),
    ) -> Result<Engine<N>, Error> {
        let train = made_for(model, config, ranks);
        let trained: Vec<Trained> = weights
            .iter()
            .filter(|(name, _)| config.trains(name))
            .map(|(name, tensor)| Trained::new(name, &tensor.shape))
            .collect();
        let mut frozen = weights.clone();
        frozen.retain(|name, _| !config.trains(name));
        let of_model =
            weights.iter().map(|(name, own)| (name.clone(), own.shape.clone(), own.values.clone()));
        let of_model = Weights::from_tensors(of_model, model)?;
        let states = first_states(
            &trained,
            |own| own.moments(config.optimizer.kind),
            |name| weights.get(name).map_or_else(Vec::new, |tensor| tensor.values.clone()),
        );
        let machine = build(model, graphs(model, config, &trained, &train)?, states, &of_model)?;
        let teacher = teacher.map(|(model, weights)| {
            let graph = lower::lower(model, Skipping::Gathered, lower::Function::Score).map_err(lowered)?;
            build(model, Graphs::from([(Function::Score, passed(graph)?)]), Vec::new(), weights)
        });
        let (config, model) = (config.clone(), model.clone());
        let (counting, teacher) = (train.counting, teacher.transpose()?);
        Ok(Engine { config, model, trained, frozen, counting, machine, teacher })
    }

    /// What it runs on.
    pub fn describe(&self) -> String {
        self.machine.describe()
    }

    /// How long the kernels of its functions took so far, without those of a teacher; none on the interpreter.
    pub fn times(&self) -> Option<&Times> {
        self.machine.times()
    }

    /// Routers of the model.
    pub fn n_routers(&self) -> usize {
        self.model.skips().count()
    }

    /// The tensors that train.
    pub fn trained(&self) -> &[Trained] {
        &self.trained
    }

    /// Gives states the numbers of a checkpoint.
    pub fn restore(&mut self, tensors: &Tensors) {
        for (name, tensor) in tensors {
            self.machine.set_state(name, &tensor.values);
        }
    }

    fn tensor(&self, name: &str, shape: Vec<usize>) -> Tensor {
        match (self.machine.state(name), self.frozen.get(name)) {
            (None, Some(frozen)) => frozen.clone(),
            (values, _) => {
                let values = values.unwrap_or_default();
                Tensor { shape, values: values.iter().map(|value| value.to_f64() as f32).collect() }
            }
        }
    }

    /// All weights, under their names.
    pub fn weights(&self) -> Tensors {
        let tensors = crate::frontend::spec::tensors::tensors(&self.model);
        tensors.into_iter().map(|own| (own.name.clone(), self.tensor(&own.name, own.shape))).collect()
    }

    /// The gradients as they are now, under the names of their tensors.
    pub fn gradients(&self) -> Tensors {
        let shape = |own: &Trained| own.shape.iter().map(|size| *size as usize).collect();
        let tensor = |own: &Trained| (own.name.clone(), self.tensor(&own.gradient(), shape(own)));
        self.trained.iter().map(tensor).collect()
    }

    /// The moments of the optimiser, under the names of their states.
    pub fn moments(&self) -> Tensors {
        let moments = self.trained.iter().flat_map(|own| own.moments(self.config.optimizer.kind));
        moments
            .map(|(name, (rows, cols))| {
                (name.clone(), self.tensor(&name, vec![rows as usize, cols as usize]))
            })
            .collect()
    }

    /// Inputs that decisions depend on: settings, and what is drawn for each router at the places of a part's inputs.
    fn settings(&self, settings: Settings, part: &Part) -> Vec<(String, Datum<N>)> {
        let mut given = vec![
            ("noise".to_owned(), number(settings.noise)),
            ("inverse temperature".to_owned(), number(1.0 / settings.temperature)),
        ];
        let seed = self.config.train.seed;
        for (router, skip) in (0..).zip(self.model.skips()) {
            let key = |(position, row): (&i64, &i64), column| {
                let (row, position) = (*row as u64, *position as u64);
                DrawKey { step: settings.step, router, row, position, column }
            };
            let places = || part.inputs.positions.iter().zip(&part.inputs.sequences);
            match skip.decider() {
                Some(Decider::Gumbel(_)) => {
                    let noise =
                        places().flat_map(|at| [0, 1].map(|column| draws::gumbel(seed, key(at, column))));
                    let data = noise.map(N::from_f64).collect();
                    given.push((format!("noise {router}"), Datum::Real { cols: 2, data }));
                }
                Some(Decider::Random { .. }) => {
                    let limit = (skip.density * 2f64.powi(32)) as u64;
                    let executes = |at| draws::draw(seed, key(at, 0)) >> 32 < limit;
                    let data = places().map(|at| if executes(at) { N::ONE } else { N::ZERO }).collect();
                    given.push((format!("drawn {router}"), Datum::Real { cols: 1, data }));
                }
                _ => {}
            }
        }
        given
    }

    /// How many inputs of a batch each router wants; the parts are this rank's.
    fn counts(
        &mut self,
        settings: Settings,
        parts: &[(Range<usize>, Part)],
        (replayed, ranks): (Option<&Replayed>, &dyn Ranks),
    ) -> Result<Vec<u64>, Error> {
        let mut counts = vec![0; self.n_routers()];
        for (inputs, part) in parts {
            let of_part = replayed.map(|replayed| OfPart { replayed, inputs: inputs.clone() });
            let given = self.settings(settings, part);
            let results = self.machine.run(Function::Count, given, &part.inputs, of_part.as_ref())?;
            let [wanted, _] = masks(&results)?;
            for (count, mask) in counts.iter_mut().zip(wanted) {
                *count += mask.iter().filter(|wants| **wants).count() as u64;
            }
        }
        ranks.sum_counts(&mut counts);
        Ok(counts)
    }

    /// The logits of the teacher.
    fn taught(&mut self, part: &Part) -> Result<Option<Datum<N>>, Error> {
        let Some(teacher) = &mut self.teacher else { return Ok(None) };
        let results = teacher.run(Function::Score, Vec::new(), &part.inputs, None)?;
        Ok(results.into_iter().find(|(role, _)| *role == Role::Logits).map(|(_, logits)| logits))
    }

    /// Losses, decisions and the gradient of a batch, which lies in its states until the next update. Each rank computes its rows
    /// of the batch; what it returns, and the gradient, is of all.
    ///
    /// # Errors
    /// `train::no_target` for a batch in which nothing has a target; `train::not_finite`.
    pub fn gradient(
        &mut self,
        settings: Settings,
        batch: &Part,
        (replayed, ranks): (Option<&Replayed>, &dyn Ranks),
    ) -> Result<Found, Error> {
        let n_live = batch.n_live();
        if n_live == 0 {
            let message = format!("step {}: no token of this batch has a target", settings.step);
            let help = "rows of one token have nothing to learn from: check `lengths`";
            return Err(Diagnostic::new("train::no_target", message).help(help).into());
        }
        let at_once = self.config.rows_at_once(ranks.size());
        let mut parts = batch.split(ranks.share(batch.rows.len()), at_once);
        parts.retain(|(_, part)| part.n_live() > 0);
        let counts = match self.counting {
            Counting::Given => self.counts(settings, &parts, (replayed, ranks))?,
            Counting::Here => Vec::new(),
        };
        let mut found = Found::of_routers(self.n_routers());
        for (inputs, part) in &parts {
            let of_part = replayed.map(|replayed| OfPart { replayed, inputs: inputs.clone() });
            let mut given = self.settings(settings, part);
            given.push(("tokens".to_owned(), number(n_live as f64)));
            given.push(("targets".to_owned(), Datum::Ints(part.targets.clone())));
            given.extend(self.taught(part)?.map(|logits| ("teacher".to_owned(), logits)));
            given.extend(
                counts.iter().enumerate().map(|(router, n)| (format!("count {router}"), number(*n as f64))),
            );
            let results = self.machine.run(Function::Gradient, given, &part.inputs, of_part.as_ref())?;
            found.add(&results)?;
        }
        self.sum_gradients(ranks);
        let mut found = found.of_all(ranks);
        found.norm = self.norm(settings.step, &found)?;
        Ok(found)
    }

    /// Gives the gradient's states their sums over ranks, some tensors at a time.
    fn sum_gradients(&mut self, ranks: &dyn Ranks) {
        if ranks.size() == 1 {
            return;
        }
        let (mut summed, mut values) = (Vec::new(), Vec::new());
        let mut tensors = self.trained.iter().peekable();
        while let Some(tensor) = tensors.next() {
            let state = tensor.gradient();
            let own = self.machine.state(&state).unwrap_or_default();
            summed.push((state, own.len()));
            values.extend(own.iter().map(|value| value.to_f64() as f32));
            if values.len() < SUMMED && tensors.peek().is_some() {
                continue;
            }
            ranks.sum(&mut values);
            let mut begin = 0;
            for (state, length) in summed.drain(..) {
                self.machine.set_state(&state, &values[begin..begin + length]);
                begin += length;
            }
            values.clear();
        }
    }

    /// The norm of the gradient. A loss or norm that is not finite ends the run.
    fn norm(&mut self, step: u64, found: &Found) -> Result<f64, Error> {
        let results = self.machine.run(Function::Norm, Vec::new(), &FlatBatch::default(), None)?;
        let mut sum = 0.0;
        let help =
            "a smaller learning rate, a longer warm-up or `clip` may help; the checkpoints are as they were";
        for (role, squares) in &results {
            let squares = squares.real().map_err(|error| failed(&error))?.1[0].to_f64();
            if let (Role::Result { name }, false) = (role, squares.is_finite()) {
                let message = format!("step {step}: the gradient of `{name}` is not finite");
                return Err(Diagnostic::new("train::not_finite", message).help(help).into());
            }
            sum += squares;
        }
        if !(found.ce + found.kl).is_finite() {
            let message = format!("step {step}: the loss is not finite");
            return Err(Diagnostic::new("train::not_finite", message).help(help).into());
        }
        Ok(sum.sqrt())
    }

    /// Changes the weights by the gradient, of this norm, with this learning rate.
    ///
    /// # Errors
    /// None that is not a fault of skipc.
    pub fn update(&mut self, step: u64, norm: f64, lr: f64) -> Result<(), Error> {
        let limit = self.config.train.clip;
        let clip = if limit > 0.0 { (limit / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let t = i32::try_from(step + 1).unwrap_or(i32::MAX);
        let keep = 1.0 - lr * self.config.optimizer.weight_decay;
        let mut given = vec![("clip".to_owned(), number(clip))];
        let rest = match self.config.optimizer.kind {
            OptimizerKind::AdamW { betas: [first, second], .. } => {
                given.push(("first".to_owned(), row(&[first, 1.0 - first])));
                given.push(("second".to_owned(), row(&[second, 1.0 - second])));
                vec![lr / (1.0 - first.powi(t)), (1.0 - second.powi(t)).sqrt()]
            }
            OptimizerKind::Adafactor { beta2, .. } => {
                let kept = beta2 * (1.0 - beta2.powi(t - 1)) / (1.0 - beta2.powi(t));
                given.push(("second".to_owned(), row(&[kept, 1.0 - kept])));
                vec![lr]
            }
        };
        for (name, keep) in [("rates", keep), ("rates without decay", 1.0)] {
            given.push((name.to_owned(), row(&[&[keep], rest.as_slice()].concat())));
        }
        self.machine.run(Function::Update, given, &FlatBatch::default(), None).map(|_| ())
    }

    /// Inference over rows: of each the negative log probability of its targets together, in nats, and how many inputs each
    /// router executed.
    ///
    /// # Errors
    /// None that is not a fault of skipc.
    pub fn score(&mut self, part: &Part) -> Result<(Vec<f64>, Vec<u64>), Error> {
        let results = self.machine.run(Function::Score, Vec::new(), &part.inputs, None)?;
        let mut nats = Vec::new();
        for (role, datum) in &results {
            if let (Role::Logits, Ok((cols, logits))) = (role, datum.real()) {
                let of_input = |input: usize| {
                    negative_log_probability(&logits[input * cols..][..cols], part.targets[input] as usize)
                };
                nats = part.rows.iter().map(|row| row.clone().map(of_input).sum()).collect();
            }
        }
        let [_, executed] = masks(&results)?;
        let count = |mask: &Vec<bool>| mask.iter().filter(|executes| **executes).count() as u64;
        Ok((nats, executed.iter().map(count).collect()))
    }
}

fn number<N: Number>(value: f64) -> Datum<N> {
    Datum::Real { cols: 1, data: vec![N::from_f64(value)] }
}

fn row<N: Number>(values: &[f64]) -> Datum<N> {
    Datum::Real { cols: values.len(), data: values.iter().map(|value| N::from_f64(*value)).collect() }
}

/// `ln Σ exp(x) − x[target]`, in f64.
fn negative_log_probability<N: Number>(row: &[N], target: usize) -> f64 {
    let largest = row.iter().map(|x| x.to_f64()).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|x| (x.to_f64() - largest).exp()).sum();
    largest + sum.ln() - row[target].to_f64()
}
