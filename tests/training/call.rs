//! A gradient function in its forms: the graph in any domain, and the kernels that are planned from it.

use std::collections::BTreeMap;

use skipc::driver::pipeline;
use skipc::frontend::lower::{Skipping, Train, Trained, gradient_graph};
use skipc::frontend::spec::model::Model;
use skipc::train::{Part, Tensors};
use skipc_artifact::target::DType;
use skipc_ir::interp::{Datum, Env, FlatBatch, Number, Routing, Weights};
use skipc_ir::{Domain, Graph, Role, SetSym};
use skipc_plan::Plan;
use skipc_plan::interp::{Constants, Element, Mode, States, StepInput, Tensor, Tiling, run_plan_in};
use skipc_plan::kernel::WeightLayout;

/// The same decisions for every router.
pub(crate) struct Forced(pub(crate) Rule);

impl Routing for Forced {
    fn forced(&self, _: SetSym, n_rows: usize) -> Option<Vec<bool>> {
        Some((0..n_rows).map(|row| self.0(row, n_rows)).collect())
    }
}

/// The tensors of a model, in any domain.
pub(crate) struct Drawn<'a>(pub(crate) &'a Tensors);

impl<N: Number> Weights<N> for Drawn<'_> {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        Some(self.0.get(name)?.values.iter().map(|value| N::from_f64(f64::from(*value))).collect())
    }
}

/// A model, what it is trained for, and which tensors are.
pub(crate) type Trains<'a> = (&'a Model, &'a Train, &'a dyn Fn(&str) -> bool);

/// A gradient function of a case's model, what it is called with, and the tensors that train.
pub(crate) struct Call<'a> {
    pub(crate) graph: Graph,
    trained: Vec<Trained>,
    weights: &'a Tensors,
    batch: &'a Part,
    /// Numbers by name.
    numbers: BTreeMap<String, (usize, Vec<f64>)>,
}

impl<'a> Call<'a> {
    /// Of a model that trains like this, but for the tensors that `trains` leaves out.
    pub(crate) fn new(
        (model, train, trains): Trains<'_>,
        (weights, batch): (&'a Tensors, &'a Part),
        skipping: Skipping,
    ) -> Call<'a> {
        let trained = weights.iter().filter(|(name, _)| trains(name));
        let trained: Vec<Trained> = trained.map(|(name, tensor)| Trained::new(name, &tensor.shape)).collect();
        let graph = gradient_graph(model, skipping, train, &trained).unwrap();
        let number = |name: &str, value: f64| (name.to_owned(), (1, vec![value]));
        let mut numbers = BTreeMap::from([
            number("noise", 1.0),
            number("inverse temperature", 2.0),
            number("tokens", batch.n_live() as f64),
        ]);
        // What is drawn decides nothing where decisions are forced, but is in the gradient of a noisy score.
        for router in 0..model.skips().count() {
            for (name, cols) in [("noise", 2), ("drawn", 1)] {
                let drawn = (0..cols * batch.n_live()).map(|idx| (idx % 5) as f64 - 2.0).collect();
                numbers.insert(format!("{name} {router}"), (cols, drawn));
            }
        }
        if train.distill.is_some() {
            let cols = model.stream.vocab_size;
            let goal = (0..cols * batch.n_live()).map(|idx| (idx % 7) as f64 - 3.0).collect();
            numbers.insert("teacher".to_owned(), (cols, goal));
        }
        Call { graph, trained, weights, batch, numbers }
    }

    /// The states that hold gradients, by the reference interpreter.
    pub(crate) fn interpreted<N: Domain>(&self, routing: &dyn Routing) -> Vec<(String, Vec<N>)> {
        let mut given: BTreeMap<Role, Datum<N>> = BTreeMap::new();
        for (name, (cols, values)) in &self.numbers {
            let data = values.iter().map(|value| N::from_f64(*value)).collect();
            given.insert(Role::Input { name: name.clone() }, Datum::Real { cols: *cols, data });
        }
        let targets = Datum::Ints(self.batch.targets.clone());
        given.insert(Role::Input { name: "targets".to_owned() }, targets);
        for own in &self.trained {
            let (rows, cols) = (own.size().0 as usize, own.size().1 as usize);
            let state = |name: String| Role::State { name };
            given.insert(state(own.gradient()), Datum::Real { cols, data: vec![N::ZERO; rows * cols] });
            let values = Drawn(self.weights).weight(&own.name).unwrap();
            given.insert(state(own.name.clone()), Datum::Real { cols, data: values });
        }
        let env = Env { batch: &self.batch.inputs, tensors: given, weights: &Drawn(self.weights), routing };
        let results = skipc_ir::run(&self.graph, &env).unwrap();
        let states = results.into_iter().filter_map(|(role, datum)| match role {
            Role::State { name } => Some((name, datum.real().unwrap().1.to_vec())),
            _ => None,
        });
        states.collect()
    }

    /// The same by the kernels that are planned from the graph, tile by tile, changed before they run.
    pub(crate) fn planned_with<N: Element>(
        &self,
        (model, dtype): (&Model, DType),
        rule: Rule,
        change: &mut dyn FnMut(&mut Plan),
    ) -> Result<States<N>, String> {
        let options = skipc_passes::Options::default();
        let graph = skipc_passes::run(self.graph.clone(), &["cse", "dce"], &options, &mut |_, _| ()).unwrap();
        let legal = skipc_ir::legalize(graph).map_err(|errors| errors[0].to_string())?;
        let options = pipeline::plan_options(model, (dtype, WeightLayout::Columns), 1 << 10);
        let mut plan = skipc_plan::build(&legal, &options).map_err(|error| error.to_string())?;
        skipc_plan::verify(&plan).unwrap_or_else(|errors| panic!("{}\n{plan}", errors[0]));
        let n = self.batch.n_live();
        let words = |values: &[i64]| values.iter().map(|value| *value as u32).collect::<Vec<u32>>();
        let mut tensors: BTreeMap<String, Tensor> = self
            .numbers
            .iter()
            .map(|(name, (_, values))| (name.clone(), Tensor::Reals(values.clone())))
            .collect();
        tensors.insert("targets".to_owned(), Tensor::Ints(words(&self.batch.targets)));
        let decisions: Vec<bool> = (0..n).map(|row| rule(row, n)).collect();
        let n_routers = model.skips().count();
        let FlatBatch { tokens, positions, sequences, .. } = &self.batch.inputs;
        let input = StepInput {
            tokens: words(tokens),
            positions: words(positions),
            sequences: words(sequences),
            forced_wanted: (0..).zip(vec![decisions.clone(); n_routers]).collect(),
            forced: Some(vec![decisions; n_routers]),
            tensors,
            ..StepInput::default()
        };
        let mut states = States::default();
        for own in &self.trained {
            states.set_reals(&own.name, Drawn(self.weights).weight(&own.name).unwrap());
        }
        change(&mut plan);
        let constants = Constants::of(&plan, &Drawn(self.weights)).unwrap();
        // Tiles of few rows, the last first: none needs what another makes.
        let places = (Mode::Arena, Tiling { rows: 3, reversed: true });
        let ran = run_plan_in(&plan, &constants, &mut states, &input, places);
        ran.map(|_| states).map_err(|fault| fault.to_string())
    }
}

/// Whether a token executes, by its row among so many.
pub(crate) type Rule = fn(usize, usize) -> bool;

pub(crate) const RULES: [(&str, Rule); 6] = [
    ("none", |_, _| false),
    ("the first", |row, _| row == 0),
    ("the last", |row, n| row + 1 == n),
    ("every third", |row, _| row % 3 == 1),
    ("all but one", |row, _| row != 2),
    ("all", |_, _| true),
];
