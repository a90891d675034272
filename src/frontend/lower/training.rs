//! Functions of training. Parameters that train, their gradients and the moments of the optimiser are states, each a matrix
//! of f32; that of a vector has one row. Frozen tensors are weights, as in every other graph.
//!
//! | function | gives |
//! | --- | --- |
//! | [`count_graph`] | how many tokens each router wants, before any backward pass: for batches in several parts |
//! | [`gradient_graph`] | losses and decisions of a part; its gradients are added to their states |
//! | [`norm_graph`] | the sum of squares of each gradient |
//! | [`score_graph`] | logits and decisions in inference |
//! | [`update_graph`] | the next parameters and moments; gradients are 0 again |

use std::collections::BTreeMap;

use skipc_ir::gradient::gradients;
use skipc_ir::{Binary, Dim, Elem, F64, Graph, Op, Port, Role, Training, Type, Unary, Value, port};

use super::{Ctx, Function, KeyValues, LowerError, Skipping};
use crate::frontend::build::Build;
use crate::frontend::spec::model::Model;
use crate::frontend::spec::skip::Skip;
use crate::frontend::training::{OptimizerKind, Ste};

/// What a graph of training is made for.
#[derive(Clone, Debug)]
pub struct Train {
    /// What stands for the derivative of a decision.
    pub ste: Ste,
    /// Weight of the rates' loss.
    pub aux_weight: f64,
    /// Weight of the teacher's loss and temperature of both distributions, if there is a teacher.
    pub distill: Option<(f64, f64)>,
    /// Whose rate is counted.
    pub counting: Counting,
}

/// Where the number of tokens that a router wants comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// The rows of the graph are all of the batch.
    Here,
    /// The rows are a part of the batch: the caller counts, in [`count_graph`].
    Given,
}

/// A tensor that trains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trained {
    /// Its name in the weight file.
    pub name: String,
    /// Its sizes.
    pub shape: Vec<u32>,
}

impl Trained {
    /// A tensor of this name and these sizes.
    pub fn new(name: &str, shape: &[usize]) -> Trained {
        // The frontend bounds all sizes far below u32.
        let shape = shape.iter().map(|size| u32::try_from(*size).unwrap_or(0)).collect();
        Trained { name: name.to_owned(), shape }
    }

    /// Rows and columns of its state.
    pub fn size(&self) -> (u32, u32) {
        match self.shape.as_slice() {
            [rows, cols] => (*rows, *cols),
            [cols] => (1, *cols),
            _ => (0, 0),
        }
    }

    /// The name of the state that holds its gradient.
    pub fn gradient(&self) -> String {
        format!("gradient {}", self.name)
    }

    /// The states of an optimiser for it, with their sizes.
    pub fn moments(&self, kind: OptimizerKind) -> Vec<(String, (u32, u32))> {
        let (rows, cols) = self.size();
        let named = |what: &str, size| (format!("{what} {}", self.name), size);
        match kind {
            OptimizerKind::AdamW { .. } => vec![named("mean", (rows, cols)), named("square", (rows, cols))],
            OptimizerKind::Adafactor { factor_from, .. } => {
                match self.shape.len() == 2 && rows.min(cols) as usize >= factor_from {
                    true => vec![named("rows", (rows, 1)), named("columns", (1, cols))],
                    false => vec![named("square", (rows, cols))],
                }
            }
        }
    }
}

/// The type of a state of training.
pub(crate) fn state_type((rows, cols): (u32, u32)) -> Type {
    Type::State { elem: Elem::F32, dims: [Dim::Fixed(rows), Dim::Fixed(cols)].into_iter().collect() }
}

/// What a graph of training holds while it is made.
pub(super) struct Setup<'a> {
    train: &'a Train,
    /// What each router that is drawn to its density wants.
    rates: BTreeMap<u32, Rate>,
}

/// What a router wants.
struct Rate {
    density: f64,
    /// The set that it wants.
    wanted: Value,
    /// The probability that gets the gradient.
    soft: Value,
}

/// A score with noise.
pub(super) struct Noisy {
    pub(super) score: Value,
    pub(super) probability: Value,
}

impl Ctx<'_> {
    /// What stands for derivatives of decisions, in a graph of training.
    pub(super) fn ste(&self) -> Option<Ste> {
        self.training.as_ref().map(|setup| setup.train.ste)
    }

    /// `y − x`. In training it is what was added to `x` on the way to `y`, so that it is not the difference of two rounded sums.
    pub(super) fn added(&mut self, y: Value, x: Value) -> Result<Value, LowerError> {
        let mut changes = Vec::new();
        let mut sum = y;
        while self.training.is_some() && sum != x {
            match (self.graph.op(sum), self.graph.operands(sum).as_slice()) {
                (Op::Binary(Binary::Add), &[before, change]) => {
                    changes.push(change);
                    sum = before;
                }
                _ => return self.add(Binary::Sub, &[y, x]),
            }
        }
        let Some(first) = changes.pop() else { return self.add(Binary::Sub, &[y, x]) };
        changes.into_iter().rev().try_fold(first, |sum, change| self.add(Binary::Add, &[sum, change]))
    }

    /// The parameter of this name, if it trains.
    pub(super) fn trained_parameter(
        &mut self,
        name: &str,
        shape: &[u32],
    ) -> Result<Option<Value>, LowerError> {
        if let Some((_, value)) = self.parameters.get(name) {
            return Ok(Some(*value));
        }
        let Some(trained) = self.trained.iter().find(|trained| trained.name == name) else {
            return Ok(None);
        };
        let port = Port::state(name, state_type(trained.size()));
        let state = self.add(Op::Input { port }, &[])?;
        let value = self.add(Training::Parameter { rank: shape.len() as u32 }, &[state])?;
        self.parameters.insert(name.to_owned(), (state, value));
        Ok(Some(value))
    }

    /// One number that the caller gives.
    fn number(&mut self, name: &str) -> Result<Value, LowerError> {
        let ty = Type::tensor(Elem::F32, &[Dim::Fixed(1), Dim::Fixed(1)]);
        self.add(Op::Input { port: Port::input(name, ty) }, &[])
    }

    /// In training: the score with noise, and the probability that stands for its decision.
    pub(super) fn noisy(&mut self, logits: Value) -> Result<Option<Noisy>, LowerError> {
        if self.training.is_none() {
            return Ok(None);
        }
        let router = self.gates.len();
        let noise = self.drawn(&format!("noise {router}"), 2)?;
        let size = self.number("noise")?;
        let noise = self.add(Training::Times {}, &[noise, size])?;
        let logits = self.add(Binary::Add, &[logits, noise])?;
        let score = self.margin(logits)?;
        let cooling = self.number("inverse temperature")?;
        let cooled = self.add(Training::Times {}, &[score, cooling])?;
        let probability = self.add(Unary::Sigmoid, &[cooled])?;
        Ok(Some(Noisy { score, probability }))
    }

    /// What the caller draws for each token: numbers that depend on its place alone ([`skipc_ir::draws`]).
    pub(super) fn drawn(&mut self, name: &str, cols: u32) -> Result<Value, LowerError> {
        let ty = Type::tensor(Elem::F32, &[Dim::Tokens, Dim::Fixed(cols)]);
        self.add(Op::Input { port: Port::input(name, ty) }, &[])
    }

    /// Keeps what the next router wants, for the loss of its rate.
    pub(super) fn note_rate(&mut self, skip: &Skip, (wanted, soft): (Value, Option<Value>)) {
        let router = self.gates.len() as u32;
        if let (Some(setup), Some(soft), true) = (&mut self.training, soft, skip.has_rate()) {
            setup.rates.insert(router, Rate { density: skip.density, wanted, soft });
        }
    }

    /// The decisions of all routers, and what they wanted where a capacity may refuse it.
    fn return_decisions(&mut self) {
        for (router, gate) in (0..).zip(&self.gates) {
            self.graph.set_result(port::Role::Decision { router }, gate.executed);
            if let Some(wanted) = gate.wanted {
                self.graph.set_result(port::Role::WantedMask { router }, wanted);
            }
        }
    }

    /// The loss that is minimised. The parts of it that are means over tokens are results; rates are the caller's to count.
    fn losses(&mut self, logits: Value) -> Result<Value, LowerError> {
        self.at("loss");
        let Some((train, rates)) =
            self.training.as_mut().map(|setup| (setup.train, std::mem::take(&mut setup.rates)))
        else {
            return Ok(logits);
        };
        let targets = Port::input("targets", Type::tensor(Elem::Int, &[Dim::Tokens]));
        let targets = self.add(Op::Input { port: targets }, &[])?;
        let tokens = self.number("tokens")?;
        let mut loss = self.add(Training::CrossEntropy {}, &[logits, targets, tokens])?;
        self.graph.set_result(result("ce"), loss);
        if let Some((weight, temperature)) = train.distill {
            let ty = Type::tensor(Elem::F32, &[Dim::Tokens, Dim::Fixed(self.graph.ty(logits).cols())]);
            let goal = self.add(Op::Input { port: Port::input("teacher", ty) }, &[])?;
            let op = Training::Divergence { temperature: F64::from(temperature) };
            let kl = self.add(op, &[logits, goal, tokens])?;
            self.graph.set_result(result("kl"), kl);
            loss = self.combine((loss, 1.0 - weight), (kl, weight * temperature * temperature))?;
        }
        let mut aux = None;
        for (router, Rate { density, wanted, soft }) in rates {
            let count = match train.counting {
                Counting::Here => self.add(Training::SetSize {}, &[wanted])?,
                Counting::Given => self.number(&format!("count {router}"))?,
            };
            let op = Training::RateLoss { target: F64::from(density) };
            let term = self.add(op, &[count, soft, tokens])?;
            aux = Some(match aux {
                Some(sum) => self.combine((sum, 1.0), (term, 1.0))?,
                None => term,
            });
        }
        if let Some(aux) = aux {
            loss = self.combine((loss, 1.0), (aux, train.aux_weight))?;
        }
        Ok(loss)
    }

    fn combine(&mut self, (a, by_a): (Value, f64), (b, by_b): (Value, f64)) -> Result<Value, LowerError> {
        self.add(Training::Combine { by_a: F64::from(by_a), by_b: F64::from(by_b) }, &[a, b])
    }

    /// Parameters stay as they are.
    fn return_parameters(&mut self) {
        for (name, (state, _)) in std::mem::take(&mut self.parameters) {
            self.graph.set_result(Role::State { name }, state);
        }
    }

    /// Adds the gradient of the loss by each parameter to its state. One that the loss does not depend on has the gradient 0.
    fn accumulate(&mut self, loss: Value, trained: &[Trained]) -> Result<(), LowerError> {
        let parameters = std::mem::take(&mut self.parameters);
        let by: Vec<Value> = parameters.values().map(|(_, value)| *value).collect();
        let found = gradients(&mut self.graph, loss, &by)?;
        for ((name, (state, _)), gradient) in parameters.iter().zip(found) {
            self.at(name);
            self.graph.set_result(Role::State { name: name.clone() }, *state);
            let Some(trained) = trained.iter().find(|trained| trained.name == *name) else { continue };
            let port = Port::state(&trained.gradient(), state_type(trained.size()));
            let role = port.role.clone();
            let mut sum = self.add(Op::Input { port }, &[])?;
            if let Some(gradient) = gradient {
                sum = self.add(Training::Accumulate {}, &[sum, gradient])?;
            }
            self.graph.set_result(role, sum);
        }
        Ok(())
    }
}

fn result(name: &str) -> Role {
    Role::Result { name: name.to_owned() }
}

fn ctx<'a>(
    model: &'a Model,
    skipping: Skipping,
    train: &'a Train,
    trained: &'a [Trained],
) -> Result<Ctx<'a>, LowerError> {
    let mut ctx = Ctx::new(model, skipping, Function::Score, KeyValues::Eager)?;
    ctx.trained = trained;
    ctx.training = Some(Setup { train, rates: BTreeMap::new() });
    Ok(ctx)
}

/// Losses, decisions and gradients of a part of a batch. Inputs besides tokens: `targets`, `tokens` (of the whole batch), of each
/// router R what is drawn for it, `noise R` or `drawn R`, `noise`, `inverse temperature`, `teacher` (its logits) and `count R`,
/// as far as they mean something. Sequences are rows of the whole batch. What a router wanted before its capacity is the result
/// [`port::Role::WantedMask`].
///
/// # Errors
/// If something in front of the loss has no derivative.
pub fn gradient_graph(
    model: &Model,
    skipping: Skipping,
    train: &Train,
    trained: &[Trained],
) -> Result<Graph, LowerError> {
    let mut ctx = ctx(model, skipping, train, trained)?;
    let logits = ctx.logits()?;
    ctx.return_decisions();
    let loss = ctx.losses(logits)?;
    ctx.accumulate(loss, trained)?;
    Ok(ctx.graph)
}

/// What the routers of a part of a batch want, of each router that has a capacity as [`port::Role::WantedMask`]. Inputs are those of [`gradient_graph`] that decisions
/// depend on.
///
/// # Errors
/// As [`super::lower`].
pub fn count_graph(model: &Model, train: &Train, trained: &[Trained]) -> Result<Graph, LowerError> {
    let mut ctx = ctx(model, Skipping::Gathered, train, trained)?;
    ctx.logits()?;
    ctx.return_decisions();
    ctx.return_parameters();
    Ok(ctx.graph)
}

/// Inference with the parameters as they are: logits and decisions.
///
/// # Errors
/// As [`super::lower`].
pub fn score_graph(model: &Model, trained: &[Trained]) -> Result<Graph, LowerError> {
    let mut ctx = Ctx::new(model, Skipping::Gathered, Function::Score, KeyValues::Eager)?;
    ctx.trained = trained;
    let logits = ctx.logits()?;
    ctx.graph.set_result(Role::Logits, logits);
    ctx.return_decisions();
    ctx.return_parameters();
    Ok(ctx.graph)
}

/// A graph over states alone.
struct States {
    graph: Graph,
    origin: skipc_ir::Origin,
}

impl States {
    fn new(name: &str) -> States {
        States { graph: Graph::new(name), origin: name.into() }
    }

    fn add(&mut self, op: impl Into<Op>, operands: &[Value]) -> Result<Value, LowerError> {
        let added = self.graph.add(op.into(), operands, &self.origin);
        added.map_err(|error| LowerError::Type { origin: self.origin.to_string(), error })
    }

    fn state(&mut self, name: &str, size: (u32, u32)) -> Result<Value, LowerError> {
        self.add(Op::Input { port: Port::state(name, state_type(size)) }, &[])
    }

    fn numbers(&mut self, name: &str, count: u32) -> Result<Value, LowerError> {
        let ty = Type::tensor(Elem::F32, &[Dim::Fixed(1), Dim::Fixed(count)]);
        self.add(Op::Input { port: Port::input(name, ty) }, &[])
    }

    fn keep(&mut self, name: &str, state: Value) {
        self.graph.set_result(Role::State { name: name.to_owned() }, state);
    }
}

/// The sum of squares of the gradient of each tensor, under the tensor's name.
///
/// # Errors
/// None that is not a fault of the compiler.
pub fn norm_graph(trained: &[Trained]) -> Result<Graph, LowerError> {
    let mut states = States::new("train_norm");
    for tensor in trained {
        let gradient = states.state(&tensor.gradient(), tensor.size())?;
        let squares = states.add(Training::SumSquares {}, &[gradient])?;
        states.graph.set_result(result(&tensor.name), squares);
        states.keep(&tensor.gradient(), gradient);
    }
    Ok(states.graph)
}

/// One update of all tensors. Inputs: `clip`, what gradients are multiplied by; `rates` and `rates without decay` as the
/// optimiser's op has them; `first` and `second`, the weights of what moments were and of what is added.
///
/// # Errors
/// As [`norm_graph`].
pub fn update_graph(
    trained: &[Trained],
    kind: OptimizerKind,
    decays: impl Fn(&str) -> bool,
) -> Result<Graph, LowerError> {
    let mut states = States::new("train_update");
    for tensor in trained {
        states.origin = tensor.name.as_str().into();
        let weight = states.state(&tensor.name, tensor.size())?;
        let gradient = states.state(&tensor.gradient(), tensor.size())?;
        let clip = states.numbers("clip", 1)?;
        let clipped = states.add(Training::ReadScaled {}, &[gradient, clip])?;
        let rates = if decays(&tensor.name) { "rates" } else { "rates without decay" };
        let updated = match kind {
            OptimizerKind::AdamW { eps, .. } => {
                let rates = states.numbers(rates, 3)?;
                states.adamw(tensor, kind, eps, [weight, clipped, rates])?
            }
            OptimizerKind::Adafactor { eps1, eps2, update_clip, scale_parameter, .. } => {
                let rates = states.numbers(rates, 2)?;
                let clip = F64::from(update_clip);
                let op = Training::Adafactor { clip, least: scale_parameter.then_some(F64::from(eps2)) };
                states.adafactor(tensor, kind, (op, eps1), [weight, clipped, rates])?
            }
        };
        states.keep(&tensor.name, updated);
        let cleared = states.add(Training::Clear {}, &[gradient])?;
        states.keep(&tensor.gradient(), cleared);
    }
    Ok(states.graph)
}

impl States {
    /// The next value of a moment.
    fn average(
        &mut self,
        (name, size): &(String, (u32, u32)),
        x: Value,
        weights: &str,
    ) -> Result<Value, LowerError> {
        let (state, weights) = (self.state(name, *size)?, self.numbers(weights, 2)?);
        let next = self.add(Training::MovingAverage {}, &[state, x, weights])?;
        self.keep(name, next);
        Ok(next)
    }

    fn adamw(
        &mut self,
        tensor: &Trained,
        kind: OptimizerKind,
        eps: f64,
        [weight, gradient, rates]: [Value; 3],
    ) -> Result<Value, LowerError> {
        let squares = self.add(Training::Squares { plus: F64::from(0.0) }, &[gradient])?;
        let mut averages = vec![weight];
        for (moment, (x, weights)) in
            tensor.moments(kind).iter().zip([(gradient, "first"), (squares, "second")])
        {
            averages.push(self.average(moment, x, weights)?);
        }
        averages.push(rates);
        self.add(Training::AdamW { eps: F64::from(eps) }, &averages)
    }

    fn adafactor(
        &mut self,
        tensor: &Trained,
        kind: OptimizerKind,
        (op, eps1): (Training, f64),
        operands: [Value; 3],
    ) -> Result<Value, LowerError> {
        let squares = self.add(Training::Squares { plus: F64::from(eps1) }, &[operands[1]])?;
        let mut operands = operands.to_vec();
        let moments = tensor.moments(kind);
        let means = [Training::RowMeans {}, Training::ColumnMeans {}];
        for (moment, mean) in moments.iter().zip(means) {
            let x = if moments.len() == 2 { self.add(mean, &[squares])? } else { squares };
            operands.push(self.average(moment, x, "second")?);
        }
        self.add(op, &operands)
    }
}
