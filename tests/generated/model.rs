//! Random models: every option of a spec, sizes at their edges.

use skipc::frontend::layer::{
    Activation, Attention, AttentionBias, Ffn, Layer, Linear, Mask, QkNorm, Rotation,
};
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::node::{Block, Layout, Node, Norms, Route, SubLayer};
use skipc::frontend::spec::skip::{BranchScale, Decide, Decider, Input, Kv, Overflow, Skip};
use skipc::frontend::spec::skip_table::{GenerateKind, Router, SkipTable};
use skipc::frontend::stream::{Head, Norm, NormKind, Positions, Rope, Stream, StreamInput};
use skipc_ir::{F64, RopeScaling};
use skipc_testkit::random::Rng;

/// What a feed-forward layer, or an expert, may have.
pub(crate) const ACTIVATIONS: [Activation; 7] = [
    Activation::Gelu,
    Activation::GeluErf,
    Activation::Silu,
    Activation::Relu,
    Activation::Relu2,
    Activation::SwiGlu,
    Activation::GeGlu,
];

/// Sub-layers of a model, at most: about 40 ops that compute something.
const MAX_LAYERS: usize = 4;

pub(crate) const DENSITIES: [f64; 8] = [0.0, 0.125, 0.25, 0.5, 0.5, 0.75, 0.9, 1.0];
const ROUTERS: [Router; 11] = [
    Router::Gumbel,
    Router::Gumbel,
    Router::Sigmoid,
    Router::Sigmoid,
    Router::TopK,
    Router::TopK,
    Router::Random,
    Router::Hash,
    Router::Highway,
    Router::Always,
    Router::Never,
];

/// One of a list that is not empty.
pub(crate) fn one_of<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.below(from.len())]
}

/// A model that the frontend accepts. `longest` is the longest sequence that it will see.
pub(crate) fn model(rng: &mut Rng, longest: usize) -> Model {
    let positions = match rng.below(4) {
        0 | 1 => Positions::Rope(rope(rng)),
        2 => Positions::Learned,
        _ => Positions::None,
    };
    let kind = if rng.one_in(2) { NormKind::LayerNorm } else { NormKind::RmsNorm };
    let d_model = 2 + rng.below(15);
    let mut blocks: Vec<Block> = Vec::new();
    let mut n_layers = 0;
    for idx in 0..one_of(rng, &[1, 1, 1, 2, 2, 3]) {
        let room = MAX_LAYERS - n_layers;
        if room == 0 {
            break;
        }
        // A block that stands twice in the stack.
        let again = blocks.last().filter(|last| last.body.n_layers() <= room).cloned();
        let block = match again {
            Some(block) if rng.one_in(5) => block,
            _ => {
                let n_layers = room.min(1 + rng.below(3));
                block(rng, idx, n_layers, positions)
            }
        };
        n_layers += block.body.n_layers();
        blocks.push(block);
    }
    let by_id =
        |block: &Block| block.skips().any(|skip| matches!(skip.decider(), Some(Decider::Hash { .. })));
    let input = match rng.one_in(6) && !blocks.iter().any(by_id) {
        true => StreamInput::Rows,
        false => StreamInput::Tokens,
    };
    let takes_ids = input == StreamInput::Tokens;
    let scores = takes_ids && !rng.one_in(8);
    Model {
        name: "generated".to_owned(),
        stream: Stream {
            input,
            patches: None,
            vocab_size: if takes_ids { 3 + rng.below(9) } else { 0 },
            d_model,
            max_positions: longest.max(1) + one_of(rng, &[0, 0, 1, 7]),
            norm: Norm {
                kind,
                eps: one_of(rng, &[1e-5, 1e-5, 1e-3, 0.1]),
                offset: one_of(rng, &[0.0, 0.0, 0.0, 1.0]),
            },
            positions,
            final_norm: !rng.one_in(6),
            head: if scores { Head::Tokens } else { Head::Rows },
            pooled: None,
            tie_embeddings: scores && rng.one_in(2),
            embed_scale: if takes_ids { one_of(rng, &[1.0, 1.0, 1.0, 2.25]) } else { 1.0 },
            head_bias: scores && rng.one_in(4),
            logit_softcap: if scores { one_of(rng, &[None, None, None, Some(5.0)]) } else { None },
        },
        blocks,
        stacks: Vec::new(),
    }
}

/// Frequencies, which longer contexts sometimes change.
fn rope(rng: &mut Rng) -> Rope {
    let scaling = match rng.below(6) {
        0 => Some(RopeScaling::Linear { factor: F64::from(one_of(rng, &[2.0, 4.0])) }),
        1 => Some(RopeScaling::Llama3 {
            factor: F64::from(8.0),
            low_freq_factor: F64::from(1.0),
            high_freq_factor: F64::from(4.0),
            original_max_positions: one_of(rng, &[4, 16, 64]),
        }),
        _ => None,
    };
    Rope { theta: one_of(rng, &[1.5, 100.0, 10_000.0]), scaling }
}

fn block(rng: &mut Rng, idx: usize, n_layers: usize, positions: Positions) -> Block {
    let layout =
        one_of(rng, &[Layout::Sequence, Layout::Sequence, Layout::Parallel, Layout::ParallelOneNorm]);
    let norms = one_of(rng, &[Norms::Pre, Norms::Pre, Norms::Both, Norms::Post]);
    let mut layers: Vec<Node> =
        (0..n_layers).map(|idx| Node::Residual(sub_layer(rng, idx, (layout, norms), positions))).collect();
    let has_norm = |layer: &Node| layer.first_layer().is_some_and(|layer| layer.pre.is_some());
    let name = format!("b{idx}");
    let inside = |layers| match layout {
        Layout::Sequence => Node::Sequence(layers),
        Layout::Parallel | Layout::ParallelOneNorm => Node::Parallel(layers),
    };
    let body = match rng.below(8) {
        0 => inside(layers),
        1..=4 => {
            let skip = skip(rng, true, has_norm(&layers[0]));
            routed(skip, inside(layers))
        }
        _ => {
            for layer in &mut layers {
                if !rng.one_in(4) {
                    *layer = routed(skip(rng, false, has_norm(layer)), layer.clone());
                }
            }
            inside(layers)
        }
    };
    Block { name, body }
}

/// A layer of a block, mostly with the block's norms.
fn sub_layer(rng: &mut Rng, idx: usize, (layout, norms): (Layout, Norms), positions: Positions) -> SubLayer {
    let one_norm = layout == Layout::ParallelOneNorm;
    let own = if rng.one_in(4) { one_of(rng, &[Norms::Pre, Norms::Post, Norms::Both]) } else { norms };
    let norms = if one_norm && idx == 0 && own == Norms::Post { Norms::Both } else { own };
    let mut layer = SubLayer::new(layer(rng, positions), norms, idx);
    if one_norm {
        layer.pre = Some(0);
    }
    layer
}

fn routed(skip: Skip, executed: Node) -> Node {
    Node::Route(Route { skip, executed: Box::new(executed), otherwise: None })
}

/// The model with other skips; what `change` gives none for is no longer skipped.
pub(crate) fn map_skips(model: &Model, change: &mut dyn FnMut(&Skip) -> Option<Skip>) -> Model {
    let mut model = model.clone();
    for block in &mut model.blocks {
        block.body = map_node(&block.body, change);
    }
    for stack in &mut model.stacks {
        stack.skips = stack.skips.iter().filter_map(&mut *change).collect();
    }
    model
}

fn map_node(node: &Node, change: &mut dyn FnMut(&Skip) -> Option<Skip>) -> Node {
    match node {
        Node::Sequence(nodes) => Node::Sequence(nodes.iter().map(|node| map_node(node, change)).collect()),
        Node::Parallel(nodes) => Node::Parallel(nodes.iter().map(|node| map_node(node, change)).collect()),
        Node::Residual(layer) => Node::Residual(*layer),
        Node::Route(route) => {
            let skip = change(&route.skip);
            let executed = map_node(&route.executed, change);
            let otherwise = route.otherwise.clone();
            let executed = Box::new(executed);
            match skip {
                Some(skip) => Node::Route(Route { skip, executed, otherwise }),
                None => *executed,
            }
        }
    }
}

/// The model with other bodies of its blocks. Blocks of one name are one block, of which `change` sees the first.
pub(crate) fn map_bodies(model: &Model, change: &mut dyn FnMut(&Node) -> Node) -> Model {
    let mut model = model.clone();
    for idx in 0..model.blocks.len() {
        let (before, rest) = model.blocks.split_at_mut(idx);
        let twin = before.iter().find(|before| before.name == rest[0].name);
        rest[0].body = twin.map_or_else(|| change(&rest[0].body), |twin| twin.body.clone());
    }
    model
}

/// A node with other layers in the same places, those of other branches included.
pub(crate) fn map_sub_layers(node: &Node, change: &mut dyn FnMut(&SubLayer) -> SubLayer) -> Node {
    match node {
        Node::Sequence(nodes) => Node::Sequence(nodes.iter().map(|of| map_sub_layers(of, change)).collect()),
        Node::Parallel(nodes) => Node::Parallel(nodes.iter().map(|of| map_sub_layers(of, change)).collect()),
        Node::Residual(layer) => Node::Residual(change(layer)),
        Node::Route(route) => Node::Route(Route {
            skip: route.skip,
            executed: Box::new(map_sub_layers(&route.executed, change)),
            otherwise: route.otherwise.as_ref().map(|other| Box::new(map_sub_layers(other, change))),
        }),
    }
}

/// A node with another list of layers.
pub(crate) fn map_layers(node: &Node, change: impl FnOnce(&mut Vec<Node>)) -> Node {
    match node {
        Node::Sequence(nodes) => {
            let mut nodes = nodes.clone();
            change(&mut nodes);
            Node::Sequence(nodes)
        }
        Node::Parallel(nodes) => {
            let mut nodes = nodes.clone();
            change(&mut nodes);
            Node::Parallel(nodes)
        }
        Node::Route(route) => {
            let executed = Box::new(map_layers(&route.executed, change));
            Node::Route(Route { executed, ..route.clone() })
        }
        Node::Residual(_) => panic!("the body of a block is a sequence, or a route around one"),
    }
}

fn layer(rng: &mut Rng, positions: Positions) -> Layer {
    if rng.one_in(8) {
        Layer::Linear(Linear { bias: rng.one_in(2) })
    } else if rng.one_in(2) {
        let heads = one_of(rng, &[1, 2, 2, 3, 4]);
        let divisors: Vec<usize> = (1..=heads).filter(|count| usize::is_multiple_of(heads, *count)).collect();
        let kv_heads = one_of(rng, &divisors);
        let (head_dim, rotation) = match positions {
            Positions::Rope(of_model) => {
                let head_dim = one_of(rng, &[2, 2, 4, 6]);
                let own = if rng.one_in(5) { rope(rng) } else { of_model };
                // A layer that says nothing of scaling has the model's.
                let rope = Rope { scaling: own.scaling.or(of_model.scaling), ..own };
                let dim = if rng.one_in(4) { 2 * rng.below(head_dim / 2 + 1) } else { head_dim };
                (head_dim, (dim > 0).then_some(Rotation { dim, rope }))
            }
            Positions::Learned | Positions::None => (1 + rng.below(6), None),
        };
        Layer::Attention(Attention {
            heads,
            kv_heads,
            head_dim,
            bias: one_of(
                rng,
                &[AttentionBias::None, AttentionBias::None, AttentionBias::Qkv, AttentionBias::All],
            ),
            qk_norm: one_of(rng, &[QkNorm::None, QkNorm::None, QkNorm::Head, QkNorm::Full]),
            rotation,
            scale: one_of(rng, &[None, None, None, Some(0.3)]),
            softcap: one_of(rng, &[None, None, None, Some(2.0)]),
            mask: Mask::Causal,
            window: one_of(rng, &[None, None, None, Some(1), Some(3), Some(7)]),
        })
    } else {
        Layer::Ffn(Ffn {
            d_ff: 1 + rng.below(24),
            activation: one_of(rng, &ACTIVATIONS),
            bias: rng.one_in(4),
        })
    }
}

/// A skip of a block or of a layer, whose first layer has a norm or not.
pub(crate) fn skip(rng: &mut Rng, of_block: bool, has_norm: bool) -> Skip {
    let router = one_of(rng, &ROUTERS);
    let mut skip = SkipTable::of_router(router);
    skip.density = if rng.one_in(4) { rng.below(1000) as f64 / 1000.0 } else { one_of(rng, &DENSITIES) };
    if skip.skip().scorer().is_some() {
        skip.input = if !has_norm || rng.one_in(2) { Input::Raw } else { Input::Normed };
        skip.bias = rng.one_in(2);
        if !of_block {
            skip.decide = if rng.one_in(2) { Decide::Entry } else { Decide::Here };
        }
    }
    if router != Router::Highway {
        skip.kv = if rng.one_in(2) { Kv::Active } else { Kv::All };
        skip.gate = if rng.one_in(3) { BranchScale::Probability } else { BranchScale::One };
        capacity(rng, &mut skip);
    }
    if router == Router::TopK && rng.one_in(2) {
        skip.generate = GenerateKind::Threshold;
    }
    if router == Router::Sigmoid || skip.generate == GenerateKind::Threshold {
        skip.threshold = one_of(rng, &[0.5, 0.5, 0.25, 0.6, 0.01]);
    }
    if [Router::Random, Router::Hash].contains(&router) {
        // Few seeds, so that two routers of one block may decide alike.
        skip.seed = one_of(rng, &[0, 0, 1, 12_345_678_901_234]);
    }
    skip.skip()
}

fn capacity(rng: &mut Rng, skip: &mut SkipTable) {
    if !rng.one_in(3) {
        return;
    }
    skip.group_size = one_of(rng, &[1, 2, 3, 4, 5, 8, 1000]);
    skip.capacity_factor = one_of(rng, &[0.1, 0.5, 1.0, 1.25, 1.25, 3.0]);
    skip.overflow = if rng.one_in(2) { Overflow::Score } else { Overflow::Position };
}
