//! Random training runs: a model, how it is trained, its first weights and batches, all from one seed.

mod check;

use std::path::PathBuf;

use skipc::frontend::language::words::Word as _;
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::skip_table::SkipTable;
use skipc::frontend::spec::tensors::{TensorRole, tensors};
use skipc::frontend::training::{
    Config, Data, Distill, Dtype, From, Init, Optimizer, OptimizerKind, Patterns, Ramp, Schedule,
    ScheduleKind, Ste, Train,
};
use skipc::frontend::weights::Weights;
use skipc::train::{Part, Tensor, Tensors, check};
use skipc_testkit::random::Rng;

use crate::model::{model, one_of};

pub(crate) use check::check_trainee;

/// The first seed of training runs. Those below are models in inference.
pub(crate) const FIRST_SEED: u64 = 1 << 53;

/// Steps of a run.
pub(crate) const STEPS: u64 = 2;

/// What the options of [`options`] begin with.
pub(crate) const OPTION: &str = "training: ";

/// A training run.
pub(crate) struct Trainee {
    pub(crate) model: Model,
    pub(crate) config: Config,
    pub(crate) weights: Tensors,
    /// The batch of each step.
    pub(crate) batches: Vec<Part>,
    pub(crate) teacher: Option<(Model, Weights)>,
}

impl Trainee {
    /// The run of a seed.
    pub(crate) fn of(seed: u64) -> Trainee {
        let mut rng = Rng::new(Rng::new(seed).bits());
        let (seq, batch) = (one_of(&mut rng, &[1, 2, 3, 4, 7, 8, 9]), 1 + rng.below(4));
        // Most models can be trained.
        let (model, config) = loop {
            let model = model(&mut rng, seq);
            let config = config(&mut rng, &model, (batch, seq));
            if check(&model, &config).is_ok() {
                break (model, config);
            }
        };
        let weights = draw(&mut rng, &model);
        let n_ids = model.stream.vocab_size;
        let batches = (0..STEPS).map(|_| rows(&mut rng, (batch, seq), n_ids)).collect();
        let teacher = config.distill.is_some().then(|| teacher(&mut rng, seq, n_ids));
        Trainee { model, config, weights, batches, teacher }
    }
}

/// Rows of ids, of which at least one has a target.
fn rows(rng: &mut Rng, (batch, seq): (usize, usize), n_ids: usize) -> Part {
    let mut lengths: Vec<usize> =
        (0..batch).map(|_| one_of(rng, &[0, 1, 2, seq, seq + 1, seq + 1])).collect();
    lengths.iter_mut().for_each(|length| *length = (*length).min(seq + 1));
    let one = rng.below(batch);
    lengths[one] = lengths[one].max(2);
    let rows: Vec<Vec<u32>> =
        lengths.iter().map(|length| (0..*length).map(|_| rng.below(n_ids) as u32).collect()).collect();
    Part::of(rows.iter().map(Vec::as_slice).enumerate())
}

/// Elements of every tensor: gains around 1, matrices that keep the size of a row.
fn draw(rng: &mut Rng, model: &Model) -> Tensors {
    let tensor = |own: &skipc::frontend::spec::tensors::TensorSpec, rng: &mut Rng| {
        let cols = own.shape.last().copied().unwrap_or(1);
        let (centre, size) = match own.role {
            TensorRole::Gain { offset } => (1.0 - offset, 0.3),
            TensorRole::Shift => (0.0, 0.3),
            _ => (0.0, 1.7 / (cols as f64).sqrt()),
        };
        let n = own.shape.iter().product();
        let values = (0..n).map(|_| (centre + size * rng.signed_unit()) as f32).collect();
        (own.name.clone(), Tensor { shape: own.shape.clone(), values })
    };
    tensors(model).iter().map(|own| tensor(own, rng)).collect()
}

/// A model with the same ids, and its weights.
fn teacher(rng: &mut Rng, seq: usize, n_ids: usize) -> (Model, Weights) {
    let teacher = loop {
        let mut drawn = model(rng, seq);
        let takes_ids = drawn.stream.vocab_size > 0 && drawn.stream.head.word() == "tokens";
        // Its decisions are not replayed, and a near tie may fall either way.
        if takes_ids && drawn.skips().all(|skip| skip.scorer().is_none()) {
            drawn.stream.vocab_size = n_ids;
            break drawn;
        }
    };
    let weights = draw(rng, &teacher);
    let all = weights.into_iter().map(|(name, Tensor { shape, values })| (name, shape, values));
    let weights = Weights::from_tensors(all, &teacher).expect("every tensor was made");
    (teacher, weights)
}

fn ramp(rng: &mut Rng, of: &[f64]) -> Ramp {
    match rng.one_in(3) {
        true => Ramp { from: one_of(rng, of), to: one_of(rng, of), steps: 2 },
        false => Ramp::constant(one_of(rng, of)),
    }
}

fn config(rng: &mut Rng, model: &Model, (batch, seq): (usize, usize)) -> Config {
    let names = tensors(model);
    let freeze = match rng.below(4) {
        0 => Patterns(vec![names[rng.below(names.len())].name.clone()]),
        1 => Patterns::of(&["*.layers.*"]),
        _ => Patterns::of(&[]),
    };
    let kind = match rng.one_in(2) {
        true => OptimizerKind::AdamW { betas: one_of(rng, &[[0.9, 0.95], [0.0, 0.5]]), eps: 1e-3 },
        false => OptimizerKind::Adafactor {
            beta2: 0.99,
            eps1: 1e-6,
            eps2: 1e-3,
            update_clip: one_of(rng, &[1.0, 0.5]),
            scale_parameter: rng.one_in(2),
            factor_from: one_of(rng, &[2, 4, 128]),
        },
    };
    let distills = rng.one_in(4);
    Config {
        train: Train {
            steps: STEPS,
            batch,
            seq,
            seed: rng.below(1 << 20) as u64,
            microbatch: one_of(rng, &[1, 2, 3]),
            dtype: Dtype::F32,
            ste: one_of(rng, &[Ste::Dense, Ste::Sparse, Ste::ActiveOnly]),
            aux_weight: one_of(rng, &[0.0, 0.1, 1.0]),
            noise: ramp(rng, &[0.0, 1.0, 1.0]),
            temperature: ramp(rng, &[1.0, 1.0, 0.5, 2.0]),
            clip: one_of(rng, &[0.0, 1.0, 0.01]),
            train: Patterns::of(&["*"]),
            freeze,
        },
        optimizer: Optimizer {
            lr: 0.05,
            weight_decay: one_of(rng, &[0.0, 0.1]),
            no_decay: if rng.one_in(3) {
                Patterns::of(&[])
            } else {
                Patterns::of(&["*norm*", "*.bias", "*router*"])
            },
            kind,
        },
        schedule: Schedule { warmup: 0, kind: ScheduleKind::Constant },
        data: Data {
            from: From::Tokens { tokens: PathBuf::new(), lengths: None },
            order: None,
            validation: 0.0,
        },
        init: Init { std: 0.02, missing: Patterns::of(&[]) },
        distill: distills.then(|| Distill {
            spec: PathBuf::new(),
            weights: PathBuf::new(),
            weight: one_of(rng, &[0.5, 1.0]),
            temperature: one_of(rng, &[1.0, 2.0]),
        }),
    }
}

/// What is said of how a model is trained, as `training: option = value`.
pub(crate) fn options(of: &Trainee) -> Vec<String> {
    let Config { train, optimizer, distill, .. } = &of.config;
    let optimiser = match optimizer.kind {
        OptimizerKind::AdamW { .. } => "adamw".to_owned(),
        OptimizerKind::Adafactor { scale_parameter, factor_from, .. } => {
            format!("adafactor, scale_parameter = {scale_parameter}, factored = {}", factor_from < 128)
        }
    };
    let freezes = match train.freeze.0.first() {
        Some(name) if name.contains('*') => "layers",
        Some(_) => "a tensor",
        None => "nothing",
    };
    let mut found = vec![
        format!("ste = {}", train.ste.word()),
        format!("aux_weight = {}", train.aux_weight),
        format!("noise = {} to {}", train.noise.from, train.noise.to),
        format!("clip = {}", train.clip),
        format!("freezes = {freezes}"),
        format!("optimiser = {optimiser}"),
        format!("decays = {}", optimizer.weight_decay > 0.0),
        format!("has a teacher = {}", distill.is_some()),
        format!("tied = {}", of.model.stream.tie_embeddings),
    ];
    for skip in of.model.skips() {
        let table = SkipTable::of(skip);
        let router = table.router.word();
        found.push(format!("router = {router}, ste = {}", train.ste.word()));
        found.push(format!("router = {router}, kv = {}", table.kv.word()));
        found.push(format!("router = {router}, gate = {}", table.gate.word()));
        found.push(format!("router = {router}, has a capacity = {}", table.group_size > 0));
    }
    found.into_iter().map(|option| format!("{OPTION}{option}")).collect()
}
