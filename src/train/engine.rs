//! Steps of training on the reference interpreter.

use std::collections::BTreeMap;
use std::ops::Range;

use skipc_ir::interp::{self, Datum, Env, FlatBatch, Free, Number, Results, Routing, Weights};
use skipc_ir::{Graph, Role, SetSym, legalize};
use skipc_passes::Options;

use super::Part;
use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};
use crate::frontend::lower::{
    self, Counting, Function, Skipping, Train, Trained, count_graph, gradient_graph, norm_graph, update_graph,
};
use crate::frontend::spec::model::Model;
use crate::frontend::training::{Config, OptimizerKind};
use crate::frontend::weights;

/// Passes of a graph of training: what forward and backward pass have in common is computed once.
const PASSES: [&str; 2] = ["cse", "dce"];

/// What is trained, on what, and how far it has come.
pub struct Engine<N> {
    config: Config,
    model: Model,
    trained: Vec<Trained>,
    /// Tensors that do not train.
    frozen: Frozen<N>,
    /// Parameters, gradients and moments.
    states: BTreeMap<Role, Datum<N>>,
    graphs: Graphs,
    teacher: Option<(Graph, Frozen<N>)>,
}

/// The functions of a training program.
struct Graphs {
    /// Only where rates have to be known before a backward pass.
    count: Option<Graph>,
    gradient: Graph,
    norm: Graph,
    update: Graph,
    /// Inference.
    score: Graph,
}

/// Tensors by name.
struct Frozen<N>(BTreeMap<String, Vec<N>>);

impl<N: Number> Weights<N> for Frozen<N> {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        self.0.get(name).cloned()
    }
}

impl<N: Number> Weights<N> for Engine<N> {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        let state = self.states.get(&state(name)).and_then(|state| Some(state.real().ok()?.1.to_vec()));
        state.or_else(|| self.frozen.weight(name))
    }
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

/// What a step found, before it changed anything.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Mean negative log probability of the targets, in nats.
    pub ce: f64,
    /// Of the teacher's distribution from the model's.
    pub kl: f64,
    /// Norm of the gradient.
    pub norm: f64,
    /// What each router wanted of each input.
    pub wanted: Vec<Vec<bool>>,
    /// What it executed.
    pub executed: Vec<Vec<bool>>,
}

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

/// Decisions that replace those of the routers.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// What each router wants of each input of a batch.
    pub wanted: Vec<Vec<bool>>,
    /// What it executes.
    pub executed: Vec<Vec<bool>>,
}

/// The decisions of a part of a batch.
struct OfPart<'a> {
    replayed: &'a Replayed,
    inputs: Range<usize>,
}

impl Routing for OfPart<'_> {
    fn forced(&self, set: SetSym, _: usize) -> Option<Vec<bool>> {
        let (set, n) = (set.0 as usize, self.replayed.executed.len());
        let of_router = match set.checked_sub(n) {
            None => self.replayed.executed.get(set),
            Some(router) => self.replayed.wanted.get(router),
        };
        of_router.map(|mask| mask[self.inputs.clone()].to_vec())
    }
}

fn state(name: &str) -> Role {
    Role::State { name: name.to_owned() }
}

/// What the interpreter refuses: everything that depends on the user was checked before.
fn failed(error: &interp::EvalError) -> Error {
    Error::internal("train::step", error)
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
fn made_for(config: &Config) -> Train {
    let settings = &config.train;
    let in_parts = (1..settings.batch).contains(&settings.microbatch);
    Train {
        seed: settings.seed,
        ste: settings.ste,
        aux_weight: settings.aux_weight,
        distill: config.distill.as_ref().map(|distill| (distill.weight, distill.temperature)),
        // Rates of a batch in parts are squared: they have to be known before its first backward pass.
        counting: if in_parts && settings.aux_weight > 0.0 { Counting::Given } else { Counting::Here },
    }
}

/// Why a target cannot train this model: the first op of its gradient that no backend has a kernel of.
pub fn refused(model: &Model, config: &Config, target: &str) -> Error {
    let all = crate::frontend::spec::tensors::tensors(model);
    let trained: Vec<Trained> = all
        .into_iter()
        .filter(|own| config.trains(&own.name))
        .map(|own| Trained::new(&own.name, &own.shape))
        .collect();
    let graph = match gradient_graph(model, Skipping::Gathered, &made_for(config), &trained) {
        Ok(graph) => graph,
        Err(error) => return lowered(error),
    };
    let errors = legalize(graph).err().unwrap_or_default();
    let first = errors.into_iter().find(|error| error.code() == "legal::no_kernel");
    let Some(first) = first else {
        return Error::internal(
            "train::step",
            &format!("{target} has every kernel of training, and no runtime"),
        );
    };
    let diagnostic = Diagnostic::new(first.code(), format!("{target}: {first}"));
    let help = "train without `--target`; what comes out compiles for every target";
    Error::new(ErrorKind::Unsupported, diagnostic.help(help))
}

impl Graphs {
    fn of(model: &Model, config: &Config, trained: &[Trained]) -> Result<Graphs, Error> {
        let train = made_for(config);
        let counts_first = train.counting == Counting::Given;
        let gradient = gradient_graph(model, Skipping::Gathered, &train, trained);
        let count = counts_first.then(|| count_graph(model, &train, trained)).transpose();
        let update = update_graph(trained, config.optimizer.kind, |name| config.decays(name));
        let score = lower::lower(model, Skipping::Gathered, Function::Score);
        Ok(Graphs {
            count: count.map_err(lowered)?.map(passed).transpose()?,
            gradient: passed(gradient.map_err(lowered)?)?,
            norm: norm_graph(trained).map_err(lowered)?,
            update: passed(update.map_err(lowered)?)?,
            score: score.map_err(lowered)?,
        })
    }
}

fn numbers<N: Number>(values: &[f32]) -> Vec<N> {
    values.iter().map(|value| N::from_f64(f64::from(*value))).collect()
}

impl<N: Number> Engine<N> {
    /// A model with its first weights; moments are 0. `teacher` is another model with its weights.
    ///
    /// # Errors
    /// What cannot be trained.
    pub fn new(
        model: &Model,
        config: &Config,
        weights: &Tensors,
        teacher: Option<(&Model, &weights::Weights)>,
    ) -> Result<Engine<N>, Error> {
        let mut trained = Vec::new();
        let (mut frozen, mut states) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in weights {
            let values: Vec<N> = numbers(&tensor.values);
            if !config.trains(name) {
                frozen.insert(name.clone(), values);
                continue;
            }
            let own = Trained::new(name, &tensor.shape);
            let cols = own.size().1 as usize;
            for (name, (rows, cols)) in
                own.moments(config.optimizer.kind).into_iter().chain([(own.gradient(), own.size())])
            {
                let zeros = vec![N::ZERO; rows as usize * cols as usize];
                states.insert(state(&name), Datum::Real { cols: cols as usize, data: zeros });
            }
            states.insert(state(name), Datum::Real { cols, data: values });
            trained.push(own);
        }
        let graphs = Graphs::of(model, config, &trained)?;
        let teacher = teacher.map(|(model, weights)| {
            let graph = lower::lower(model, Skipping::Gathered, Function::Score).map_err(lowered)?;
            let mut tensors = BTreeMap::new();
            for (name, _) in weights.sizes() {
                tensors.insert(name.to_owned(), numbers(&weights.tensor(name)?.to_f32()));
            }
            Ok::<_, Error>((graph, Frozen(tensors)))
        });
        Ok(Engine {
            config: config.clone(),
            model: model.clone(),
            trained,
            frozen: Frozen(frozen),
            states,
            graphs,
            teacher: teacher.transpose()?,
        })
    }

    /// The tensors that train.
    pub fn trained(&self) -> &[Trained] {
        &self.trained
    }

    /// Gives states the numbers of a checkpoint.
    pub fn restore(&mut self, tensors: &Tensors) {
        for (name, tensor) in tensors {
            if let Some(Datum::Real { data, .. }) = self.states.get_mut(&state(name)) {
                *data = numbers(&tensor.values);
            }
        }
    }

    fn tensor(&self, name: &str, shape: Vec<usize>) -> Tensor {
        let values = self.weight(name).unwrap_or_default();
        Tensor { shape, values: values.iter().map(|value| value.to_f64() as f32).collect() }
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

    /// Runs a graph over states and these inputs; states become what it makes of them, and the other results come back.
    fn run(
        &mut self,
        graph: impl Fn(&Graphs) -> Option<&Graph>,
        inputs: impl IntoIterator<Item = (String, Datum<N>)>,
        batch: &FlatBatch,
        routing: &dyn Routing,
    ) -> Result<Results<N>, Error> {
        let Some(graph) = graph(&self.graphs) else { return Ok(Vec::new()) };
        let mut tensors = std::mem::take(&mut self.states);
        tensors.extend(inputs.into_iter().map(|(name, datum)| (Role::Input { name }, datum)));
        let env = Env { batch, tensors, weights: &self.frozen, routing };
        let results = interp::run(graph, &env);
        self.states = env.tensors;
        self.states.retain(|role, _| matches!(role, Role::State { .. }));
        let (states, results): (Vec<_>, Vec<_>) = results
            .map_err(|error| failed(&error))?
            .into_iter()
            .partition(|(role, _)| matches!(role, Role::State { .. }));
        self.states.extend(states);
        Ok(results)
    }

    /// Inputs that decisions depend on.
    fn settings(settings: Settings) -> Vec<(String, Datum<N>)> {
        vec![
            ("step".to_owned(), Datum::Ints(vec![settings.step as i64])),
            ("noise".to_owned(), number(settings.noise)),
            ("inverse temperature".to_owned(), number(1.0 / settings.temperature)),
        ]
    }

    /// How many inputs of a batch each router wants.
    fn counts(
        &mut self,
        settings: Settings,
        parts: &[(Range<usize>, Part)],
        replayed: Option<&Replayed>,
    ) -> Result<Vec<usize>, Error> {
        let mut counts = vec![0; self.model.skips().count()];
        for (inputs, part) in parts {
            let of_part = replayed.map(|replayed| OfPart { replayed, inputs: inputs.clone() });
            let routing: &dyn Routing = of_part.as_ref().map_or(&Free, |of_part| of_part);
            let results =
                self.run(|graphs| graphs.count.as_ref(), Self::settings(settings), &part.inputs, routing)?;
            for (role, mask) in &results {
                if let (Role::Wanted { router }, Ok(mask)) = (role, mask.mask()) {
                    counts[*router as usize] += mask.iter().filter(|wants| **wants).count();
                }
            }
        }
        Ok(counts)
    }

    /// The logits of the teacher.
    fn taught(&self, part: &Part) -> Result<Option<Datum<N>>, Error> {
        let Some((graph, weights)) = &self.teacher else { return Ok(None) };
        let env = Env { batch: &part.inputs, tensors: BTreeMap::new(), weights, routing: &Free };
        let results = interp::run(graph, &env).map_err(|error| failed(&error))?;
        Ok(results.into_iter().find(|(role, _)| *role == Role::Logits).map(|(_, logits)| logits))
    }

    /// Losses, decisions and the gradient of a batch, which lies in its states until the next update.
    ///
    /// # Errors
    /// `train::no_target` for a batch in which nothing has a target; `train::not_finite`.
    pub fn gradient(
        &mut self,
        settings: Settings,
        batch: &Part,
        replayed: Option<&Replayed>,
    ) -> Result<Found, Error> {
        let n_live = batch.n_live();
        if n_live == 0 {
            let message = format!("step {}: no token of this batch has a target", settings.step);
            let help = "rows of one token have nothing to learn from: check `lengths`";
            return Err(Diagnostic::new("train::no_target", message).help(help).into());
        }
        let parts = batch.split(self.config.train.microbatch);
        let counts = match self.graphs.count.is_some() {
            true => self.counts(settings, &parts, replayed)?,
            false => Vec::new(),
        };
        let n_routers = self.model.skips().count();
        let none = vec![Vec::with_capacity(n_live); n_routers];
        let mut found = Found { wanted: none.clone(), executed: none, ..Found::default() };
        for (inputs, part) in &parts {
            if part.n_live() == 0 {
                continue;
            }
            let of_part = replayed.map(|replayed| OfPart { replayed, inputs: inputs.clone() });
            let routing: &dyn Routing = of_part.as_ref().map_or(&Free, |of_part| of_part);
            let mut given = Self::settings(settings);
            given.push(("tokens".to_owned(), number(n_live as f64)));
            given.push(("targets".to_owned(), Datum::Ints(part.targets.clone())));
            given.extend(self.taught(part)?.map(|logits| ("teacher".to_owned(), logits)));
            given.extend(
                counts.iter().enumerate().map(|(router, n)| (format!("wanted {router}"), number(*n as f64))),
            );
            let results = self.run(|graphs| Some(&graphs.gradient), given, &part.inputs, routing)?;
            found.add(results)?;
        }
        found.norm = self.norm(settings.step, &found)?;
        Ok(found)
    }

    /// The norm of the gradient. A loss or norm that is not finite ends the run.
    fn norm(&mut self, step: u64, found: &Found) -> Result<f64, Error> {
        let results = self.run(|graphs| Some(&graphs.norm), [], &FlatBatch::default(), &Free)?;
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
        self.run(|graphs| Some(&graphs.update), given, &FlatBatch::default(), &Free).map(|_| ())
    }

    /// Inference over rows: the negative log probability of all targets together, in nats, and how many inputs each router
    /// executed.
    ///
    /// # Errors
    /// None that is not a fault of skipc.
    pub fn score(&self, part: &Part) -> Result<(f64, Vec<usize>), Error> {
        let env = Env { batch: &part.inputs, tensors: BTreeMap::new(), weights: self, routing: &Free };
        let results = interp::run(&self.graphs.score, &env).map_err(|error| failed(&error))?;
        let (mut nats, mut executed) = (0.0, Vec::new());
        for (role, datum) in &results {
            if let (Role::Logits, Ok((cols, logits))) = (role, datum.real()) {
                let rows = logits.chunks_exact(cols).zip(&part.targets);
                nats = rows.map(|(row, target)| negative_log_probability(row, *target as usize)).sum();
            } else if let (Role::Decision { .. }, Ok(mask)) = (role, datum.mask()) {
                executed.push(mask.iter().filter(|executes| **executes).count());
            }
        }
        Ok((nats, executed))
    }
}

impl Found {
    /// Adds what a part of the batch found.
    fn add<N: Number>(&mut self, results: Results<N>) -> Result<(), Error> {
        for (role, datum) in results {
            let mask = |datum: &Datum<N>| datum.mask().map(<[bool]>::to_vec).map_err(|error| failed(&error));
            if let Role::Wanted { router } = role {
                self.wanted[router as usize].extend(mask(&datum)?);
            } else if let Role::Decision { router } = role {
                self.executed[router as usize].extend(mask(&datum)?);
            } else if let Role::Result { name } = role {
                let value = datum.real().map_err(|error| failed(&error))?.1[0].to_f64();
                let sum = if name == "kl" { &mut self.kl } else { &mut self.ce };
                *sum += value;
            }
        }
        Ok(())
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
