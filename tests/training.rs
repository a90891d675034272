//! Training against PyTorch in float64, on the cases of `tests/training`, and the forms of a gradient against each other.

use std::collections::BTreeMap;
use std::path::Path;

use skipc::driver::backends::CpuBackend;
use skipc::driver::pipeline;
use skipc::frontend::lower::{Counting, Skipping, Train, Trained, gradient_graph};
use skipc::frontend::spec;
use skipc::frontend::spec::model::Model;
use skipc::frontend::training;
use skipc::train::engine::Build;
use skipc::train::ranks::Alone;
use skipc::train::{Begin, Data, Part, interpreted};
use skipc_artifact::target::DType;
use skipc_ir::interp::{Datum, Env, FlatBatch, Gf61, Number, Ring32, Routing, Weights};
use skipc_ir::{Domain, Graph, Role, SetSym};
use skipc_plan::Plan;
use skipc_plan::interp::{Constants, Element, Mode, States, StepInput, Tensor, Tiling, run_plan_in};
use skipc_plan::kernel::{Body, Kernel, Rows, WeightLayout};
use skipc_plan::loops::{Expr, Index, Operator, Stmt};
use skipc_runtime::npy;

#[path = "training/runs.rs"]
mod runs;

use runs::{Bounds, cases, compare, compiled_by, record_on};

/// Runs a case and writes its record to `folder`.
fn record<N: Number>(
    case: &Path,
    folder: &Path,
    how: (bool, Build<'_, N>),
    change: impl FnOnce(&mut training::Config),
) {
    record_on(case, (folder, &Alone), how, change);
}

#[test]
fn runs_in_f32_are_those_of_the_reference() {
    for case in cases() {
        let folder = tempfile::tempdir().unwrap();
        record::<f32>(&case, folder.path(), (false, &interpreted), |_| ());
        compare(&case, folder.path(), &Bounds { loss: 2e-5, gradient: 2e-5, change: 1e-3 });
    }
}

/// Runs a case by compiled code and writes its record to `folder`.
fn record_by(backend: CpuBackend, threads: usize, case: &Path, folder: &Path) {
    record::<f32>(case, folder, (false, &compiled_by(backend, threads)), |_| ());
}

/// Runs all cases by compiled code; those of these names on one thread, too, which has to give the same bytes.
fn runs_of(backend: CpuBackend, on_one_thread: impl Fn(&Path) -> bool) {
    for case in cases() {
        let [two, one] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        record_by(backend, 2, &case, two.path());
        compare(&case, two.path(), &Bounds { loss: 2e-5, gradient: 2e-5, change: 1e-3 });
        if !on_one_thread(&case) {
            continue;
        }
        record_by(backend, 1, &case, one.path());
        for file in ["steps.json", "grads.safetensors", "after.safetensors"] {
            let [one, two] = [&one, &two].map(|folder| std::fs::read(folder.path().join(file)).unwrap());
            assert!(one == two, "{}: {file} depends on the number of threads", case.display());
        }
    }
}

#[test]
fn runs_by_cranelift_are_those_of_the_reference() {
    runs_of(CpuBackend::Cranelift, |_| true);
}

#[test]
fn runs_by_llvm_are_those_of_the_reference() {
    runs_of(CpuBackend::Llvm, |case| case.ends_with("sparse-micro"));
}

#[test]
fn runs_in_f64_are_those_of_the_reference_to_the_rounding_of_its_files() {
    for case in cases() {
        let folder = tempfile::tempdir().unwrap();
        record::<f64>(&case, folder.path(), (false, &interpreted), |_| ());
        compare(&case, folder.path(), &Bounds { loss: 2e-8, gradient: 2e-7, change: 2e-4 });
    }
}

#[test]
fn replayed_decisions_are_those_of_the_record() {
    let case = cases().into_iter().find(|case| case.ends_with("sparse-micro")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // With other noise the routers would decide otherwise.
    record::<f32>(&case, folder.path(), (true, &interpreted), |config| config.train.seed = 99);
    let [ours, theirs] =
        [folder.path(), &case].map(|folder| npy::read_ints(&folder.join("gates.npy"), &[4]).unwrap());
    assert_eq!(ours, theirs);
}

#[test]
fn parts_of_a_batch_give_what_the_whole_gives() {
    for case in cases() {
        for rows in [1, 2] {
            let folder = tempfile::tempdir().unwrap();
            record::<f64>(&case, folder.path(), (false, &interpreted), |config| {
                config.train.microbatch = rows
            });
            compare(&case, folder.path(), &Bounds { loss: 2e-8, gradient: 2e-7, change: 2e-4 });
        }
    }
}

#[test]
fn parts_of_a_batch_by_compiled_code_give_what_the_whole_gives() {
    for case in cases() {
        let folder = tempfile::tempdir().unwrap();
        let build = compiled_by(CpuBackend::Cranelift, 1);
        record::<f32>(&case, folder.path(), (false, &build), |config| config.train.microbatch = 1);
        compare(&case, folder.path(), &Bounds { loss: 2e-5, gradient: 2e-5, change: 1e-3 });
    }
}

#[test]
fn parts_of_a_batch_without_a_loss_of_the_rates_give_what_the_whole_gives() {
    for name in ["dense-ste", "sigmoid-active"] {
        let case = cases().into_iter().find(|case| case.ends_with(name)).unwrap();
        let [whole, parts] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        record::<f32>(&case, whole.path(), (false, &interpreted), |config| config.train.aux_weight = 0.0);
        let build = compiled_by(CpuBackend::Cranelift, 1);
        record::<f32>(&case, parts.path(), (false, &build), |config| {
            config.train.aux_weight = 0.0;
            config.train.microbatch = 1;
        });
        compare(whole.path(), parts.path(), &Bounds { loss: 2e-5, gradient: 2e-5, change: 1e-3 });
    }
}

/// The same decisions for every router.
struct Forced(fn(usize, usize) -> bool);

impl Routing for Forced {
    fn forced(&self, _: SetSym, n_rows: usize) -> Option<Vec<bool>> {
        Some((0..n_rows).map(|row| self.0(row, n_rows)).collect())
    }
}

struct Drawn<'a>(&'a skipc::train::Tensors);

impl<N: Number> Weights<N> for Drawn<'_> {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        Some(self.0.get(name)?.values.iter().map(|value| N::from_f64(f64::from(*value))).collect())
    }
}

/// A gradient function of a case's model, what it is called with, and the tensors that train.
struct Call<'a> {
    graph: Graph,
    trained: Vec<Trained>,
    weights: &'a skipc::train::Tensors,
    batch: &'a Part,
    /// Numbers by name.
    numbers: BTreeMap<String, (usize, Vec<f64>)>,
}

impl<'a> Call<'a> {
    fn new(
        (model, config): (&Model, &training::Config),
        (weights, batch): (&'a skipc::train::Tensors, &'a Part),
        skipping: Skipping,
    ) -> Call<'a> {
        let trained: Vec<Trained> =
            weights.iter().map(|(name, tensor)| Trained::new(name, &tensor.shape)).collect();
        let train = Train {
            ste: config.train.ste,
            aux_weight: config.train.aux_weight,
            distill: None,
            counting: Counting::Here,
        };
        let graph = gradient_graph(model, skipping, &train, &trained).unwrap();
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
        Call { graph, trained, weights, batch, numbers }
    }

    /// The states that hold gradients, by the reference interpreter.
    fn interpreted<N: Domain>(&self, routing: &dyn Routing) -> Vec<(String, Vec<N>)> {
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

    /// The same by the kernels that are planned from the graph, tile by tile.
    fn planned<N: Element>(&self, model: &Model, rule: Rule) -> States<N> {
        self.planned_with(model, rule, &mut |_| ()).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// The same by kernels that are changed before they run.
    fn planned_with<N: Element>(
        &self,
        model: &Model,
        rule: Rule,
        change: &mut dyn FnMut(&mut Plan),
    ) -> Result<States<N>, String> {
        let options = skipc_passes::Options::default();
        let graph = skipc_passes::run(self.graph.clone(), &["cse", "dce"], &options, &mut |_, _| ()).unwrap();
        let legal = skipc_ir::legalize(graph).unwrap_or_else(|errors| panic!("{}", errors[0]));
        let mut plan = skipc_plan::build(&legal, &plan_options(model)).unwrap();
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

fn plan_options(model: &Model) -> skipc_plan::Options {
    pipeline::plan_options(model, (DType::F32, WeightLayout::Columns), 1 << 10)
}

/// Whether a token executes, by its row among so many.
type Rule = fn(usize, usize) -> bool;

const RULES: [(&str, Rule); 6] = [
    ("none", |_, _| false),
    ("the first", |row, _| row == 0),
    ("the last", |row, n| row + 1 == n),
    ("every third", |row, _| row % 3 == 1),
    ("all but one", |row, _| row != 2),
    ("all", |_, _| true),
];

fn compare_forms<N: Domain>(each: impl Fn(&Setting<'_>, (&str, Rule), &[(String, Vec<N>)])) {
    for case in cases() {
        with_setting(&case, |setting| {
            RULES.iter().for_each(|(name, rule)| compare_rule(setting, (*name, *rule), &each));
        });
    }
}

fn with_setting(case: &Path, of: impl FnOnce(&Setting<'_>)) {
    let model = spec::load(&case.join("spec.toml")).unwrap();
    let text = std::fs::read_to_string(case.join("train.toml")).unwrap();
    let mut config = training::read("train.toml", &text, case).unwrap();
    config.init.std = 0.5;
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
    let Setting { case, model, config, weights, batch } = *setting;
    let of =
        |skipping| Call::new((model, config), (weights, batch), skipping).interpreted::<N>(&Forced(rule));
    let (gathered, masked) = (of(Skipping::Gathered), of(Skipping::Masked));
    // Blocks that never run are in neither.
    assert!(gathered.len() == masked.len() && gathered.len() > weights.len());
    for ((state, ours), (_, theirs)) in gathered.iter().zip(&masked) {
        assert!(ours == theirs, "{}, {name} executes: {state}", case.display());
    }
    each(setting, (name, rule), &gathered);
}

/// A case with first weights and a batch.
struct Setting<'a> {
    case: &'a Path,
    model: &'a Model,
    config: &'a training::Config,
    weights: &'a skipc::train::Tensors,
    batch: &'a Part,
}

#[test]
fn all_forms_of_a_gradient_are_one_over_a_field() {
    compare_forms::<Gf61>(|setting, (name, rule), gathered| {
        let Setting { case, model, config, weights, batch } = *setting;
        for skipping in [Skipping::Gathered, Skipping::Masked] {
            let kernels = Call::new((model, config), (weights, batch), skipping).planned::<Gf61>(model, rule);
            for (state, theirs) in gathered {
                let ours = kernels.reals(state);
                assert!(ours == Some(theirs), "{}, {name} executes, kernels: {state}", case.display());
            }
        }
    });
}

#[test]
fn gathered_and_masked_gradients_are_equal_where_nothing_rounds() {
    compare_forms::<Ring32>(|_, _, _| ());
}

/// A fault in a kernel of the backward pass; whether it changed something.
type Fault = fn(&mut Kernel) -> bool;

/// The statements of kernels whose names begin like this.
fn code<'k>(kernel: &'k mut Kernel, name: &str) -> Option<&'k mut Vec<Stmt>> {
    match &mut kernel.body {
        Body::Loops(loops) if loops.name.starts_with(name) => Some(&mut loops.code),
        _ => None,
    }
}

/// `change` of every statement, also within loops; whether one did.
fn each(code: &mut [Stmt], change: &mut dyn FnMut(&mut Stmt) -> bool) -> bool {
    let mut changed = false;
    for stmt in code {
        changed |= change(stmt);
        if let Stmt::For { body, .. } | Stmt::Columns { body, .. } = stmt {
            changed |= each(body, change);
        }
    }
    changed
}

/// The first operator of this kind in an expression becomes another.
fn swapped(expr: &mut Expr, from: Operator, to: Operator) -> bool {
    match expr {
        Expr::Both(operator, ..) if *operator == from => {
            *operator = to;
            true
        }
        Expr::Both(_, a, b) => swapped(a, from, to) || swapped(b, from, to),
        Expr::Call(_, x) => swapped(x, from, to),
        Expr::Is(_) | Expr::Of(_) | Expr::Load(_) | Expr::Count(_) | Expr::Slope(..) => false,
    }
}

/// The operators of a kernel's stores.
fn stores_swapped(kernel: &mut Kernel, name: &str, from: Operator, to: Operator) -> bool {
    let change = &mut |stmt: &mut Stmt| match stmt {
        Stmt::Store(_, value) => swapped(value, from, to),
        _ => false,
    };
    code(kernel, name).is_some_and(|code| each(code, change))
}

/// Every third token executes.
const EVERY_THIRD: Rule = |row, _| row % 3 == 1;

const FAULTS: [(&str, Fault); 13] = [
    ("the adjoint of a set takes the first rows in place of its own", |kernel| match &mut kernel.body {
        Body::WeightGradient(gradient) if gradient.dy.rows != Rows::Dense => {
            gradient.dy.rows = Rows::Dense;
            true
        }
        _ => false,
    }),
    ("the gradient of keys before a query is lost", |kernel| {
        code(kernel, "key_value_gradient").is_some_and(|code| {
            each(code, &mut |stmt| match stmt {
                // The queries that see a key begin one later: its own is left out.
                Stmt::For { from: from @ Index::Of(_), .. } => {
                    *from = from.clone() + Index::Is(1);
                    true
                }
                _ => false,
            })
        })
    }),
    ("the gradient of queries sees one key less", |kernel| {
        code(kernel, "query_gradient").is_some_and(|code| {
            each(code, &mut |stmt| match stmt {
                Stmt::For { from: Index::Of(_), to, .. } => {
                    *to = Index::Less(Box::new(to.clone()), 1);
                    true
                }
                _ => false,
            })
        })
    }),
    ("the mean of a softmax's gradient is added", |kernel| {
        code(kernel, "query_gradient").is_some_and(|code| {
            each(code, &mut |stmt| match stmt {
                Stmt::Let(_, value @ Expr::Both(Operator::Mul, ..)) => {
                    swapped(value, Operator::Sub, Operator::Add)
                }
                _ => false,
            })
        })
    }),
    ("rotations turn on in place of back", |kernel| {
        stores_swapped(kernel, "rope_gradient", Operator::Add, Operator::Sub)
    }),
    ("the target keeps its probability", |kernel| {
        code(kernel, "cross_entropy_gradient").is_some_and(|code| code.pop().is_some())
    }),
    ("the last token with an id decides its gradient", |kernel| {
        stores_swapped(kernel, "embed_gradient", Operator::Add, Operator::Mul)
    }),
    ("the gradient of a norm lacks what its scale gets", |kernel| {
        stores_swapped(kernel, "rms_norm_gradient", Operator::Sub, Operator::Add)
    }),
    ("gains get the gradient of the first row twice", |kernel| {
        code(kernel, "rms_gain_gradient").is_some_and(|code| {
            let first = code.clone();
            code.extend(first.into_iter().skip(1));
            true
        })
    }),
    ("the rates' gradient lacks its factor", |kernel| {
        code(kernel, "rate_loss_gradient").is_some_and(|code| {
            each(code, &mut |stmt| match stmt {
                Stmt::Store(_, value) => swapped(value, Operator::Sub, Operator::Add),
                _ => false,
            })
        })
    }),
    ("a decision gets the gradient of half of its columns", |kernel| {
        code(kernel, "row_dot").is_some_and(|code| {
            each(code, &mut |stmt| match stmt {
                Stmt::Reduce { cols, .. } => {
                    *cols /= 2;
                    true
                }
                _ => false,
            })
        })
    }),
    ("gradients replace those of the parts before", |kernel| {
        stores_swapped(kernel, "accumulate", Operator::Add, Operator::Sub)
    }),
    ("an activation has the slope of its input", |kernel| {
        code(kernel, "derivative").is_some_and(|code| {
            each(code, &mut |stmt| match stmt {
                Stmt::Store(_, value) => swapped(value, Operator::Mul, Operator::Add),
                _ => false,
            })
        })
    }),
];

/// Each fault changes a gradient of one of the cases, over a field where nothing else can.
#[test]
fn planted_faults_of_the_backward_pass_are_caught() {
    let mut left: BTreeMap<&str, Fault> = FAULTS.into_iter().collect();
    for case in cases() {
        with_setting(&case, |setting| {
            let call = Call::new(
                (setting.model, setting.config),
                (setting.weights, setting.batch),
                Skipping::Gathered,
            );
            let right = call.interpreted::<Gf61>(&Forced(EVERY_THIRD));
            left.retain(|_, fault| {
                let mut is_there = false;
                let wrong = call.planned_with::<Gf61>(setting.model, EVERY_THIRD, &mut |plan| {
                    plan.kernels.iter_mut().for_each(|(_, kernel)| is_there |= fault(kernel));
                });
                let is_same = |states: States<Gf61>| {
                    right.iter().all(|(state, theirs)| states.reals(state) == Some(theirs))
                };
                // What reads where nothing is, is caught by the interpreter itself.
                !is_there || wrong.is_ok_and(is_same)
            });
        });
    }
    assert!(left.is_empty(), "not caught: {:?}", left.keys());
}
