//! What is checked: a model with its weights and the sequences that it reads, all from one seed.

use std::collections::BTreeMap;

use skipc::frontend::language::words::Word;
use skipc::frontend::layer::{Attention, Ffn, Layer, Linear, Rotation};
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::node::Unit;
use skipc::frontend::spec::skip::Skip;
use skipc::frontend::spec::skip_table::{GenerateKind, Router, SkipTable};
use skipc::frontend::spec::tensors::{TensorRole, TensorSpec, tensors};
use skipc::frontend::stream::{NormKind, Positions, StreamInput};
use skipc::frontend::weights::Weights;
use skipc_ir::RopeScaling;
use skipc_ir::interp::{self, FlatBatch, Number};
use skipc_testkit::random::Rng;

use crate::model::{DENSITIES, model, one_of};
use crate::{choices, convs, experts, stacks, vision};

/// Changes whenever a seed would make another subject.
pub(crate) const GENERATOR: u32 = 3;

/// One subject in so many is long enough that compiled code has several tiles.
const LONG_EVERY: usize = 128;

/// The table of rows for a model that takes these, and how many it has.
const ROWS: &str = "rows";
const N_ROWS: usize = 7;

/// Lengths of sequences at the edges of tiles: of 3 and 7 rows (kernel interpreter), 32 (compiled attention).
const SHORT: [usize; 10] = [0, 0, 1, 1, 2, 3, 4, 6, 7, 8];
const LONG: [usize; 6] = [0, 1, 31, 32, 33, 40];

/// A model, its weights and a batch.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// What it was made from.
    pub(crate) seed: u64,
    /// The model.
    pub(crate) model: Model,
    /// Elements of every tensor that the model or one of its twins reads.
    pub(crate) tensors: Tensors,
    /// Token ids of each sequence; for a model that takes rows, which row of [`ROWS`] each is.
    pub(crate) sequences: Vec<Vec<i64>>,
}

/// Tensors by name, row by row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tensors(BTreeMap<String, Vec<f32>>);

/// How the numbers of a subject look.
#[derive(Clone, Copy)]
enum Style {
    /// Anything around zero.
    Real,
    /// Small multiples of a half: sums are exact in f32, and scores tie.
    Integer,
}

impl Subject {
    /// The subject of a seed.
    pub(crate) fn of(seed: u64) -> Subject {
        // Neighbouring seeds of this generator give overlapping draws; their first outputs do not.
        let mut rng = Rng::new(Rng::new(seed).bits());
        let long = rng.one_in(LONG_EVERY);
        let lengths: Vec<usize> = match long {
            true => vec![one_of(&mut rng, &LONG), one_of(&mut rng, &LONG), rng.below(4)],
            false => (0..rng.below(5)).map(|_| one_of(&mut rng, &SHORT)).collect(),
        };
        let mut model = model(&mut rng, lengths.iter().copied().max().unwrap_or(0));
        if seed >= convs::FIRST_SEED {
            if rng.one_in(3) {
                model = choices::with_choices(&mut rng, &model);
            }
            if rng.one_in(3) {
                model = experts::with_experts(&mut rng, &model);
            }
            model = convs::with_convs(&mut rng, &model);
            if rng.one_in(4) {
                model = stacks::with_stacks(&mut rng, &model);
            }
            if rng.one_in(4) {
                model = vision::with_ends(&mut rng, &model);
            }
        } else if seed >= stacks::FIRST_SEED {
            if rng.one_in(3) {
                model = choices::with_choices(&mut rng, &model);
            }
            if rng.one_in(4) {
                model = experts::with_experts(&mut rng, &model);
            }
            let has_ends = seed >= vision::FIRST_SEED;
            if !has_ends || rng.one_in(4) {
                model = stacks::with_stacks(&mut rng, &model);
            }
            if has_ends {
                model = vision::with_ends(&mut rng, &model);
            }
        } else if seed >= experts::FIRST_SEED {
            if rng.one_in(2) {
                model = choices::with_choices(&mut rng, &model);
            }
            model = experts::with_experts(&mut rng, &model);
        } else if seed >= choices::FIRST_SEED {
            model = choices::with_choices(&mut rng, &model);
        }
        let sequences = lengths
            .into_iter()
            .map(|length| (0..length).map(|_| rng.below(n_ids(&model)) as i64).collect())
            .collect();
        let tensors = Tensors::random(&mut rng, &model);
        Subject { seed, model, tensors, sequences }
    }

    /// The same weights and sequences for another model, which must need no other tensors.
    pub(crate) fn with_model(&self, model: Model) -> Subject {
        Subject { model, ..self.clone() }
    }

    /// The same model on other sequences.
    pub(crate) fn with_sequences(&self, sequences: Vec<Vec<i64>>) -> Subject {
        Subject { sequences, ..self.clone() }
    }

    /// All sequences one after the other, as the model takes them.
    pub(crate) fn batch(&self) -> FlatBatch {
        let batch = FlatBatch::from_sequences(self.sequences.iter().map(Vec::as_slice));
        let Some((table, cols)) = self.tensors.get(ROWS).zip(self.model.stream.row_columns()) else {
            return batch;
        };
        let row = |id: &i64| &table[*id as usize * cols..][..cols];
        let rows = batch.tokens.iter().flat_map(row).copied().collect();
        FlatBatch { tokens: Vec::new(), rows, ..batch }
    }

    /// Whether it has enough tokens for several tiles of compiled code.
    pub(crate) fn is_long(&self) -> bool {
        self.n_tokens() >= 31
    }

    /// How many tokens all sequences have.
    pub(crate) fn n_tokens(&self) -> usize {
        self.sequences.iter().map(Vec::len).sum()
    }

    /// The weights as the frontend reads them from a file.
    pub(crate) fn weights(&self) -> Weights {
        let all = tensors(&self.model).into_iter().map(|tensor| {
            let values = self.tensors.0.get(&tensor.name).expect("every tensor was made");
            (tensor.name, tensor.shape, values.clone())
        });
        Weights::from_tensors(all, &self.model)
            .unwrap_or_else(|found| panic!("seed {}: {found:?}", self.seed))
    }
}

/// How many different tokens there are.
fn n_ids(model: &Model) -> usize {
    match model.stream.input {
        StreamInput::Tokens => model.stream.vocab_size,
        StreamInput::Rows | StreamInput::Patches => N_ROWS,
    }
}

impl Tensors {
    fn random(rng: &mut Rng, model: &Model) -> Tensors {
        let style = if rng.one_in(3) { Style::Integer } else { Style::Real };
        let mut all = BTreeMap::new();
        let rows = model.stream.row_columns().map(|cols| TensorSpec {
            name: ROWS.to_owned(),
            role: TensorRole::Embedding,
            shape: vec![N_ROWS, cols],
        });
        for tensor in tensors(model).into_iter().chain(rows) {
            let n_elements: usize = tensor.shape.iter().product();
            let fan_in = tensor.shape.last().copied().unwrap_or(1) as f64;
            let is_router = tensor.name.contains("router");
            let is_norm = tensor.name.ends_with("norm.weight");
            // Sums of many small integers would be so large that a softmax has one winner and nothing else counts.
            let sparse = (3.0 / fan_in).min(1.0);
            let values = (0..n_elements).map(|_| {
                let unit = rng.signed_unit();
                let value = match style {
                    Style::Integer if is_norm => 1.0 + (unit * 1.2).round() / 2.0,
                    Style::Integer if unit.abs() < sparse => (unit / sparse * 2.5).round() / 2.0,
                    Style::Integer => 0.0,
                    Style::Real if is_norm => 1.0 + 0.5 * unit,
                    Style::Real if is_router => 2.0 * unit / fan_in.sqrt(),
                    Style::Real => 1.5 * unit / if tensor.shape.len() == 2 { fan_in.sqrt() } else { 2.0 },
                };
                value as f32
            });
            all.insert(tensor.name, values.collect());
        }
        Tensors(all)
    }

    /// The elements of a tensor.
    pub(crate) fn get(&self, name: &str) -> Option<&[f32]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// Changes the elements of tensors by name.
    pub(crate) fn change(&mut self, mut change: impl FnMut(&str, &mut [f32])) {
        self.0.iter_mut().for_each(|(name, values)| change(name, values));
    }

    /// Cuts a tensor, or fills it up with zeros.
    pub(crate) fn resize(&mut self, name: &str, n_elements: usize) {
        self.0.entry(name.to_owned()).or_default().resize(n_elements, 0.0);
    }

    /// The tensors with those of `from` under the names that `rename` gives them.
    pub(crate) fn renamed(&self, rename: impl Fn(&str) -> String) -> Tensors {
        Tensors(self.0.iter().map(|(name, values)| (rename(name), values.clone())).collect())
    }
}

impl<N: Number> interp::Weights<N> for Tensors {
    fn weight(&self, name: &str) -> Option<Vec<N>> {
        Some(self.get(name)?.iter().map(|value| N::from_f64(f64::from(*value))).collect())
    }
}

/// Every value of every option that the model uses, as `option = value`.
pub(crate) fn options(subject: &Subject) -> Vec<String> {
    let model = &subject.model;
    let positions = match model.stream.positions {
        Positions::Rope { .. } => "rope",
        Positions::Learned => "learned",
        Positions::None => "none",
    };
    let norm = if model.stream.norm.kind == NormKind::LayerNorm { "layernorm" } else { "rmsnorm" };
    let mut found = vec![
        format!("positions = {positions}"),
        format!("norm = {norm}"),
        format!("input = {}", model.stream.input.word()),
        format!("final_norm = {}", model.stream.final_norm),
        format!("head = {}", model.stream.head.word()),
        format!("tie_embeddings = {}", model.stream.tie_embeddings),
        format!("norm_offset = {}", model.stream.norm.offset != 0.0),
        format!("embed_scale = {}", model.stream.embed_scale != 1.0),
        format!("head_bias = {}", model.stream.head_bias),
        format!("logit_softcap = {}", model.stream.logit_softcap.is_some()),
        format!("d_model odd = {}", !model.stream.d_model.is_multiple_of(2)),
        format!("blocks = {}", model.blocks.len()),
        format!("empty sequence = {}", subject.sequences.iter().any(Vec::is_empty)),
    ];
    if let Positions::Rope(rope) = model.stream.positions {
        found.push(format!("rope_theta = {}", rope.theta));
    }
    found.extend(
        match subject.n_tokens() {
            0 => Some("tokens = none"),
            1 => Some("tokens = one"),
            2..40 => None,
            _ => Some("tokens = many"),
        }
        .map(str::to_owned),
    );
    for block in &model.blocks {
        found.push(format!("layers = {}", block.body.n_layers()));
        found.push(format!("layout = {}", block.layout().word()));
        found.push(format!("skip on a block = {}", block.skip_of(Unit::Block).is_some()));
        for (idx, layer) in block.layers().enumerate() {
            found.push(format!("skip on a layer = {}", block.skip_of(Unit::Layer(idx)).is_some()));
            found.push(format!("norms = {}", layer.norms().word()));
            found.extend(layer_options(&layer.layer));
        }
    }
    found.extend(model.skips().flat_map(skip_options));
    if subject.seed >= choices::FIRST_SEED {
        found.extend(choices::options(model));
        found.extend(stacks::options(model));
        found.extend(vision::options(model));
        found.extend(convs::options(model));
    }
    found.sort();
    found.dedup();
    found
}

/// What a skip says.
fn skip_options(of: &Skip) -> Vec<String> {
    let skip = SkipTable::of(of);
    let router = skip.router.word();
    let mut found = vec![
        format!("router = {router}"),
        format!("kv = {}", skip.kv.word()),
        format!("gate = {} ({router})", skip.gate.word()),
        format!("decide = {}", skip.decide.word()),
    ];
    if of.has_density() {
        let is_listed = DENSITIES.contains(&skip.density);
        found.push(match is_listed {
            true => format!("density = {}", skip.density),
            false => "density = other".to_owned(),
        });
    }
    if of.scorer().is_some() {
        found.push(format!("input = {} ({router})", skip.input.word()));
        found.push(format!("bias = {} ({router})", skip.bias));
    }
    if skip.router == Router::Sigmoid || skip.generate == GenerateKind::Threshold {
        found.push(format!("threshold = {}", skip.threshold));
    }
    if [Router::Random, Router::Hash].contains(&skip.router) {
        found.push(format!("seed = {}", skip.seed));
    }
    if router == "topk" {
        found.push(format!("generate = {:?}", skip.generate.word()));
    }
    match of.capacity() {
        Some(capacity) => found.extend([
            format!("capacity = {} ({router})", capacity.overflow.word()),
            format!("group_size = {}", skip.group_size),
            format!("capacity_factor = {}", skip.capacity_factor),
        ]),
        None => found.push("capacity = none".to_owned()),
    }
    found
}

fn layer_options(layer: &Layer) -> Vec<String> {
    match *layer {
        Layer::Attention(Attention {
            heads,
            kv_heads,
            head_dim,
            bias,
            qk_norm,
            rotation,
            scale,
            softcap,
            mask: _,
            window,
        }) => {
            let shared = match kv_heads {
                1 if heads > 1 => "one",
                _ if kv_heads == heads => "each",
                _ => "some",
            };
            let (turns, scaling) = match rotation {
                None => ("nothing", None),
                Some(Rotation { dim, rope }) if dim == head_dim => ("heads", rope.scaling),
                Some(Rotation { rope, .. }) => ("a part", rope.scaling),
            };
            let scaling = match scaling {
                None => "none",
                Some(RopeScaling::Linear { .. }) => "linear",
                Some(RopeScaling::Llama3 { .. }) => "llama3",
            };
            vec![
                format!("kv_heads = {shared}"),
                format!("head_dim odd = {}", !head_dim.is_multiple_of(2)),
                format!("bias = {} (attention)", bias.word()),
                format!("qk_norm = {}", qk_norm.word()),
                format!("turns = {turns}"),
                format!("rope_scaling = {scaling}"),
                format!("scale = {}", scale.is_some()),
                format!("softcap = {}", softcap.is_some()),
                format!("window = {}", window.is_some()),
            ]
        }
        Layer::Linear(Linear { bias }) => vec![format!("bias = {bias} (linear)")],
        Layer::Experts(experts) => experts::options(&experts),
        // They are told with where they stand.
        Layer::Conv(_) => Vec::new(),
        Layer::Ffn(Ffn { activation, bias, .. }) => {
            vec![format!("activation = {}", activation.word()), format!("bias = {bias} (ffn)")]
        }
    }
}
