//! What choices may say beside a router and its density: deciders of several steps, forced tokens, other branches, scales.

use skipc::frontend::function::ElementFunction;
use skipc::frontend::language::words::Word as _;
use skipc::frontend::layer::{Activation, Attention, AttentionBias, Ffn, Layer, Linear, Mask, QkNorm};
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::node::{Node, Norms, Route, SubLayer};
use skipc::frontend::spec::skip::{BranchScale, Branches, Carry, Scope, Skip};
use skipc::frontend::spec::skip_table::{GenerateKind, Router, SkipTable};
use skipc::frontend::spec::steps::{Pool, Step, Steps};
use skipc::frontend::stream::NormKind;
use skipc_ir::Rounding;
use skipc_testkit::random::Rng;

use crate::model::{map_bodies, one_of};

/// The first seed whose subjects have choices of these kinds. Those below have none, so that they stay what they were.
pub(crate) const FIRST_SEED: u64 = 1 << 48;

/// The model with more said of its choices.
pub(crate) fn with_choices(rng: &mut Rng, model: &Model) -> Model {
    map_bodies(model, &mut |body| node(rng, body))
}

/// Whether something is said that twins of a model would have to follow: another branch, or what is not the change of one.
pub(crate) fn has_branches(model: &Model) -> bool {
    let table = |skip| SkipTable::of(skip);
    let in_skips = model.skips().any(|skip| {
        let skip = table(skip);
        skip.combine != Branches::Either
            || skip.force_first > 0
            || skip.channels
            || skip.decider.is_pooled()
            || skip.carry != Carry::Coupled
            || skip.carry_bias != 0.0
            || skip.scope != Scope::Sequence
            || skip.round != Rounding::Up
            || ![BranchScale::One, BranchScale::Probability].contains(&skip.gate)
            || skip.gate_factor != 1.0
    });
    in_skips || model.blocks.iter().any(|block| has_otherwise(&block.body))
}

fn has_otherwise(node: &Node) -> bool {
    match node {
        Node::Sequence(nodes) | Node::Parallel(nodes) => nodes.iter().any(has_otherwise),
        Node::Residual(_) => false,
        Node::Route(route) => route.otherwise.is_some() || has_otherwise(&route.executed),
    }
}

fn node(rng: &mut Rng, of: &Node) -> Node {
    match of {
        Node::Sequence(nodes) => Node::Sequence(nodes.iter().map(|of| node(rng, of)).collect()),
        Node::Parallel(nodes) => Node::Parallel(nodes.iter().map(|of| node(rng, of)).collect()),
        Node::Residual(layer) => Node::Residual(*layer),
        Node::Route(route) if rng.one_in(4) => Node::Route(route.clone()),
        Node::Route(route) => {
            let has_other = SkipTable::of(&route.skip).router != Router::Highway && rng.one_in(2);
            let otherwise = has_other.then(|| Box::new(Node::Sequence(layers(rng))));
            let skip = skip(rng, &route.skip, has_other);
            Node::Route(Route { skip, executed: route.executed.clone(), otherwise })
        }
    }
}

/// The skip with more said of it.
pub(crate) fn skip(rng: &mut Rng, of: &Skip, has_other: bool) -> Skip {
    let mut skip = SkipTable::of(of);
    if of.scorer().is_some() && rng.one_in(2) {
        skip.decider = steps(rng);
    }
    let may_have_channels = [Router::Highway, Router::Sigmoid, Router::TopK].contains(&skip.router);
    skip.channels = may_have_channels && rng.one_in(3);
    let is_of_tokens = skip.router == Router::TopK || skip.group_size > 0;
    if of.scorer().is_some() && !is_of_tokens && rng.one_in(6) {
        skip.decider = pooled(rng);
        if rng.one_in(2) {
            skip.generate = GenerateKind::Prefill;
        }
    }
    if skip.router == Router::Highway {
        skip.carry = if rng.one_in(2) { Carry::Own } else { Carry::Coupled };
        skip.carry_bias = one_of(rng, &[0.0, 0.0, 0.5, -1.0]);
        return skip.skip();
    }
    if skip.router != Router::Always && !skip.decider.is_pooled() && rng.one_in(3) {
        skip.force_first = one_of(rng, &[1, 2, 3, 1000]);
    }
    if skip.router == Router::TopK && rng.one_in(3) {
        skip.scope = Scope::Batch;
    }
    if skip.router == Router::TopK && rng.one_in(2) {
        skip.round = Rounding::Down;
        skip.generate = GenerateKind::Predictor;
        skip.predictor = if rng.one_in(3) { Steps::default() } else { steps(rng) };
        skip.threshold = one_of(rng, &[0.5, 0.4]);
    }
    let one_score = [Router::Sigmoid, Router::TopK].contains(&skip.router) && !skip.channels;
    skip.combine = match has_other {
        true if rng.one_in(3) => Branches::Sum,
        false if rng.one_in(3) => Branches::Add,
        _ => Branches::Either,
    };
    skip.gate = match rng.below(4) {
        0 => BranchScale::One,
        1 if one_score => BranchScale::Score,
        2 if skip.combine != Branches::Add => BranchScale::ProbabilityLast,
        _ => BranchScale::Probability,
    };
    if skip.gate != BranchScale::One {
        skip.gate_factor = one_of(rng, &[1.0, 1.0, 0.5, -2.0]);
    }
    skip.skip()
}

/// The mean of a sequence, between steps of its tokens and steps of its own.
fn pooled(rng: &mut Rng) -> Steps {
    let of_tokens: Vec<Step> = if rng.one_in(2) { steps(rng).iter().collect() } else { Vec::new() };
    let of_sequence: Vec<Step> = if rng.one_in(2) { steps(rng).iter().collect() } else { Vec::new() };
    Steps::of(&[&of_tokens[..], &[Step::Pool { pool: Pool::Mean }], &of_sequence].concat())
        .expect("few steps")
}

fn steps(rng: &mut Rng) -> Steps {
    let functions = [
        ElementFunction::None,
        ElementFunction::Relu,
        ElementFunction::Relu2,
        ElementFunction::Gelu,
        ElementFunction::GeluErf,
        ElementFunction::Silu,
        ElementFunction::Tanh,
    ];
    let steps: Vec<Step> = (0..1 + rng.below(3))
        .map(|_| match rng.below(4) {
            0 => Step::Norm { norm: one_of(rng, &[NormKind::RmsNorm, NormKind::LayerNorm]) },
            1 => Step::Activation { activation: one_of(rng, &functions) },
            _ => Step::Linear { linear: one_of(rng, &[1, 3, 8, 11]), bias: rng.one_in(2) },
        })
        .collect();
    Steps::of(&steps).expect("few steps")
}

/// Layers of another branch.
fn layers(rng: &mut Rng) -> Vec<Node> {
    (0..1 + rng.below(2))
        .map(|idx| {
            let layer = match rng.below(3) {
                0 => Layer::Linear(Linear { bias: rng.one_in(2) }),
                1 => Layer::Attention(Attention {
                    heads: 2,
                    kv_heads: one_of(rng, &[1, 2]),
                    head_dim: one_of(rng, &[2, 4]),
                    bias: AttentionBias::None,
                    qk_norm: QkNorm::None,
                    rotation: None,
                    scale: None,
                    softcap: None,
                    mask: Mask::Causal,
                    window: one_of(rng, &[None, None, Some(2)]),
                }),
                _ => Layer::Ffn(Ffn {
                    d_ff: 1 + rng.below(9),
                    activation: one_of(rng, &[Activation::Relu, Activation::SwiGlu, Activation::Gelu]),
                    bias: rng.one_in(3),
                }),
            };
            Node::Residual(SubLayer::new(layer, one_of(rng, &[Norms::Pre, Norms::Pre, Norms::Both]), idx))
        })
        .collect()
}

/// What the options of [`options`] begin with.
pub(crate) const OPTION: &str = "choice: ";

/// What is said of the choices of a model, as `choice: option = value`.
pub(crate) fn options(model: &Model) -> Vec<String> {
    let mut found = Vec::new();
    for block in &model.blocks {
        found.extend(has_otherwise(&block.body).then(|| "otherwise = true".to_owned()));
    }
    for skip in model.skips().map(SkipTable::of) {
        found.push(format!("combine = {}", skip.combine.word()));
        found.push(format!("force_first = {} ({})", skip.force_first > 0, skip.router.word()));
        if [Router::Highway, Router::Sigmoid, Router::TopK].contains(&skip.router) {
            found.push(format!("channels = {} ({})", skip.channels, skip.router.word()));
        }
        if skip.router == Router::Highway {
            found.push(format!("carry = {}", skip.carry.word()));
            found.push(format!("carry_bias = {}", skip.carry_bias != 0.0));
        }
        if skip.router == Router::TopK {
            found.push(format!("scope = {}", skip.scope.word()));
            found.push(format!("round = {}", skip.round.word()));
        }
        found.push(format!("gate = {}", skip.gate.word()));
        found.push(format!("gate_factor = {}", skip.gate_factor != 1.0));
        found.push(format!("generate = {:?}", skip.generate.word()));
        found.push(format!("predictor = {}", !skip.predictor.is_empty()));
        if skip.generate == GenerateKind::Predictor {
            found.push(format!("threshold = {}", skip.threshold));
        }
        for step in skip.decider.iter() {
            found.push(match step {
                Step::Linear { bias, .. } => format!("step = linear, bias {bias}"),
                Step::Norm { norm } => format!("step = {}", norm.word()),
                Step::Pool { pool } => format!("step = pool {}", pool.word()),
                Step::Activation { activation } => format!("step = {}", activation.word()),
            });
        }
    }
    found.into_iter().map(|option| format!("{OPTION}{option}")).collect()
}
