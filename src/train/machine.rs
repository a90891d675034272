//! What runs the functions of training: the reference interpreter, or compiled code.

use std::collections::BTreeMap;
use std::ops::Range;

use skipc_ir::interp::{self, Datum, Env, FlatBatch, Free, Number, Results, Routing, Weights};
use skipc_ir::{Domain, Graph, Role, SetSym};

use super::times::Times;
use crate::error::Error;
use crate::frontend::lower::Trained;

/// A function of a training program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Function {
    /// What routers want, where rates have to be known before a backward pass.
    Count,
    /// Losses, decisions and gradients.
    Gradient,
    /// The norm of the gradient.
    Norm,
    /// The next weights.
    Update,
    /// Inference.
    Score,
}

impl Function {
    /// Its name in a compiled program.
    pub fn name(self) -> &'static str {
        match self {
            Function::Count => "train_count",
            Function::Gradient => "train_gradient",
            Function::Norm => "train_norm",
            Function::Update => "train_update",
            Function::Score => "train_score",
        }
    }
}

/// The functions of a program, as graphs.
pub type Graphs = BTreeMap<Function, Graph>;

/// A state of a program and its first numbers, row by row.
pub struct FirstState {
    /// Its name.
    pub name: String,
    /// Its rows and columns.
    pub size: (u32, u32),
    /// Its numbers; nothing for zeros.
    pub values: Option<Vec<f32>>,
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
#[derive(Clone)]
pub struct OfPart<'a> {
    /// Those of the batch.
    pub replayed: &'a Replayed,
    /// The inputs of the part.
    pub inputs: Range<usize>,
}

impl OfPart<'_> {
    /// What a router executes of the part.
    pub fn executed(&self, router: usize) -> Option<&[bool]> {
        self.replayed.executed.get(router).map(|mask| &mask[self.inputs.clone()])
    }

    /// What it wants.
    pub fn wanted(&self, router: usize) -> Option<&[bool]> {
        self.replayed.wanted.get(router).map(|mask| &mask[self.inputs.clone()])
    }
}

impl Routing for OfPart<'_> {
    fn forced(&self, set: SetSym, _: usize) -> Option<Vec<bool>> {
        let (set, n) = (set.0 as usize, self.replayed.executed.len());
        let of_router = match set.checked_sub(n) {
            None => self.executed(set),
            Some(router) => self.wanted(router),
        };
        of_router.map(<[bool]>::to_vec)
    }
}

/// Runs functions over states that it keeps.
pub trait Machine<N> {
    /// Runs a function with inputs of these names; what it has no input for is left out. States become what it makes of them,
    /// and the other results come back.
    ///
    /// # Errors
    /// None that is not a fault of skipc, or of the machine's memory.
    fn run(
        &mut self,
        function: Function,
        inputs: Vec<(String, Datum<N>)>,
        batch: &FlatBatch,
        replayed: Option<&OfPart<'_>>,
    ) -> Result<Results<N>, Error>;

    /// The numbers of a state, row by row; `None` if there is none of the name.
    fn state(&self, name: &str) -> Option<Vec<N>>;

    /// Gives a state other numbers.
    fn set_state(&mut self, name: &str, values: &[f32]);

    /// What it is, as logs have it.
    fn describe(&self) -> String;

    /// How long its kernels took so far; none where there are no kernels.
    fn times(&self) -> Option<&Times>;
}

/// The reference interpreter.
pub struct Interpreter<N> {
    graphs: Graphs,
    states: BTreeMap<Role, Datum<N>>,
    frozen: Frozen<N>,
}

/// Tensors by name.
pub struct Frozen<N>(pub BTreeMap<String, Vec<N>>);

impl<N: Number> Weights<N> for Frozen<N> {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        self.0.get(name).cloned()
    }
}

/// Numbers of a domain.
pub fn numbers<N: Number>(values: &[f32]) -> Vec<N> {
    values.iter().map(|value| N::from_f64(f64::from(*value))).collect()
}

fn role(name: &str) -> Role {
    Role::State { name: name.to_owned() }
}

/// What the interpreter refuses: everything that depends on the user was checked before.
pub fn failed(error: &interp::EvalError) -> Error {
    Error::internal("train::step", error)
}

impl<N: Number> Interpreter<N> {
    /// Over these graphs, first states, and tensors that do not train.
    pub fn new(graphs: Graphs, states: Vec<FirstState>, frozen: Frozen<N>) -> Interpreter<N> {
        let first = |state: FirstState| {
            let (rows, cols) = (state.size.0 as usize, state.size.1 as usize);
            let data = state.values.map_or_else(|| vec![N::ZERO; rows * cols], |values| numbers(&values));
            (role(&state.name), Datum::Real { cols, data })
        };
        Interpreter { graphs, states: states.into_iter().map(first).collect(), frozen }
    }
}

impl<N: Domain> Machine<N> for Interpreter<N> {
    fn run(
        &mut self,
        function: Function,
        inputs: Vec<(String, Datum<N>)>,
        batch: &FlatBatch,
        replayed: Option<&OfPart<'_>>,
    ) -> Result<Results<N>, Error> {
        let Some(graph) = self.graphs.get(&function) else { return Ok(Vec::new()) };
        let mut tensors = std::mem::take(&mut self.states);
        tensors.extend(inputs.into_iter().map(|(name, datum)| (Role::Input { name }, datum)));
        let routing: &dyn Routing = replayed.map_or(&Free, |of_part| of_part);
        let env = Env { batch, tensors, weights: &self.frozen, routing };
        let results = skipc_ir::run(graph, &env);
        self.states = env.tensors;
        self.states.retain(|role, _| matches!(role, Role::State { .. }));
        let (states, results): (Vec<_>, Vec<_>) = results
            .map_err(|error| failed(&error))?
            .into_iter()
            .partition(|(role, _)| matches!(role, Role::State { .. }));
        self.states.extend(states);
        Ok(results)
    }

    fn state(&self, name: &str) -> Option<Vec<N>> {
        Some(self.states.get(&role(name))?.real().ok()?.1.to_vec())
    }

    fn set_state(&mut self, name: &str, values: &[f32]) {
        if let Some(Datum::Real { data, .. }) = self.states.get_mut(&role(name)) {
            *data = numbers(values);
        }
    }

    fn describe(&self) -> String {
        "reference interpreter".to_owned()
    }

    fn times(&self) -> Option<&Times> {
        None
    }
}

/// The size of the states of tensors that train: each with its gradient and its moments, all but the first zero.
pub fn first_states(
    trained: &[Trained],
    moments: impl Fn(&Trained) -> Vec<(String, (u32, u32))>,
    values: impl Fn(&str) -> Vec<f32>,
) -> Vec<FirstState> {
    let of_tensor = |own: &Trained| {
        let zeros = moments(own).into_iter().chain([(own.gradient(), own.size())]);
        let zeros = zeros.map(|(name, size)| FirstState { name, size, values: None });
        let first = FirstState { name: own.name.clone(), size: own.size(), values: Some(values(&own.name)) };
        std::iter::once(first).chain(zeros).collect::<Vec<_>>()
    };
    trained.iter().flat_map(of_tensor).collect()
}
